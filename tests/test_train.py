"""The real commands, on small data: train, then repaint."""

import re
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import ROOT, picture, run, small
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fast_nst import weights

TERMS = ("content", "style", "light", "photo", "tv")  # of conftest.LOSS


def test_a_run_leaves_what_it_should(trained):
    folder, result = trained
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.parent.name != "tensorboard"}
    assert found == {"my painting.safetensors", "preview.png", "config.yaml", "checkpoints/last.ckpt"}
    assert "step 6/6" in result.stderr
    assert "step/s" in result.stderr
    assert "Warning" not in result.stderr
    script = ROOT / "scripts" / "infer.py"
    assert result.stdout.strip().endswith(f"python {script} 'run/my painting.safetensors' PHOTOGRAPH")
    metadata = weights.describe(folder / "my painting.safetensors")
    assert metadata["steps"] == 6
    assert metadata["style"]["names"] == ["my painting"]
    assert len(metadata["style"]["sha256"][0]) == 64
    assert metadata["loss"]["style_weight"] == 7
    assert metadata["loss"]["style_scales"] == {"1": 0.6, "2": 0.4}
    assert (metadata["loss"]["light_weight"], metadata["loss"]["tv_weight"]) == (2, 0.5)
    assert set(metadata["held_out_losses"]) == {"loss", *TERMS}
    last = next(line for line in result.stderr.splitlines() if line.startswith("step 6/6"))
    assert re.findall(r"(\w+) -?[\d.]+(?:e-?\d+)?(?:  |$)", last.partition(" left  ")[2]) == ["loss", *TERMS]


def test_tensorboard_has_each_term_the_rate_and_the_sheet(trained):
    events = EventAccumulator(str(trained[0] / "tensorboard")).Reload()
    tags = events.Tags()
    terms = {f"{part}/{name}" for part in ("train", "val") for name in ("loss", *TERMS)}
    assert terms | {"lr-Muon/kernels", "lr-Muon/rest"} <= set(tags["scalars"])
    assert tags["images"] == ["preview"]
    table = weights.describe(trained[0] / "my painting.safetensors")["loss"]
    for step in range(6):
        terms = {name: events.Scalars(f"train/{name}")[step].value for name in ("loss", *TERMS)}
        total = sum(table.get(f"{name}_weight", 1) * terms[name] for name in TERMS)
        assert terms["loss"] == pytest.approx(total, rel=1e-3)
        assert min(terms[name] for name in TERMS if name != "photo") > 0


def test_the_checkpoint_holds_the_network_and_not_the_loss_network(trained):
    checkpoint = torch.load(trained[0] / "checkpoints" / "last.ckpt", weights_only=False)
    assert checkpoint["global_step"] == 6
    assert all(name.startswith("network.") for name in checkpoint["state_dict"])


def test_a_second_run_gives_the_same_weights(trained, workplace):
    overrides = [*small(workplace), "style.image='my painting.png'", "output_dir=again"]
    assert run("train.py", *overrides, cwd=workplace).returncode == 0
    first, second = (weights.load(workplace / run_ / "my painting.safetensors")[0] for run_ in ("run", "again"))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_diverged_run_says_so(workplace):
    overrides = [
        *small(workplace),
        "style.image='my painting.png'",
        "output_dir=diverged",
        "optimizer.learning_rate=1e30",
    ]
    result = run("train.py", *overrides, cwd=workplace)
    assert result.returncode == 1
    assert "NaN or infinite. Try a lower optimizer.learning_rate" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (workplace / "diverged" / "my painting.safetensors").exists()


def test_a_diverged_run_leaves_the_weights_that_are_there(trained, workplace):
    shutil.copytree(trained[0], workplace / "diverging")
    file = workplace / "diverging" / "my painting.safetensors"
    before = file.read_bytes()
    settings = [*small(workplace), "style.image='my painting.png'", "output_dir=diverging", "ckpt_path=auto"]
    unseen = ["optimizer.learning_rate=1e30", "trainer.max_steps=9", "trainer.log_every_n_steps=25"]
    result = run("train.py", *settings, *unseen, cwd=workplace)
    assert result.returncode == 1, result.stderr
    assert "NaN or infinite" in result.stderr.splitlines()[-1]
    assert file.read_bytes() == before


def test_the_first_start_of_a_run_that_is_to_go_on_says_so(workplace):
    first = [*small(workplace), "style.image='my painting.png'", "output_dir=first", "ckpt_path=auto"]
    result = run("train.py", *first, "trainer.max_steps=1", cwd=workplace)
    assert result.returncode == 0, result.stderr
    assert "no checkpoint in first yet; starting a new run" in result.stderr


def test_a_series_of_styles(workplace):
    result = run("train.py", "-m", *small(workplace), "style=starry_night,cubist", "trainer.max_steps=1", cwd=workplace)
    assert result.returncode == 0, result.stderr
    for name in ("starry_night", "cubist"):
        (found,) = (workplace / "outputs" / name).glob("*/*.safetensors")
        assert weights.describe(found)["style"]["names"] == [name]


def test_a_series_goes_on_after_a_bad_picture(workplace):
    (workplace / "text.jpg").write_bytes(b"no picture")
    pictures = "style.image=text.jpg,'my painting.png'"
    result = run(
        "train.py", "-m", *small(workplace), pictures, "trainer.max_steps=1", "style.name=after", cwd=workplace
    )
    assert result.returncode == 1, result.stderr
    assert "error: text.jpg: not a picture" in result.stderr
    assert result.stderr.splitlines()[-1] == "error: some runs of the series failed"
    assert len([*(workplace / "outputs" / "after").glob("*/*.safetensors")]) == 1


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_photographs_are_enough(workplace, count):
    folder = workplace / f"few {count}"
    folder.mkdir()
    for index in range(count):
        picture(index).save(folder / f"{index}.png")
    settings = ["style.image=my painting.png", f"data.root={folder}", f"output_dir=from {count}"]
    result = run("train.py", *small(workplace), *settings, "trainer.max_steps=2", cwd=workplace)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("few content images: each step takes 2 crops of 1") == 1
    assert result.stderr.count("the held-out losses are measured on the training image") == (count == 1)


def test_infer_one_photograph(trained, workplace):
    source = workplace / "photographs" / "photo 0 (copy)=.png"
    result = run("infer.py", trained[0] / "my painting.safetensors", source, "-o", "repainted.png", cwd=workplace)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "repainted.png"
    with Image.open(workplace / "repainted.png") as image, Image.open(source) as photograph:
        assert image.size == photograph.size
        assert np.abs(np.asarray(image).astype(int) - np.asarray(photograph)).mean() > 2


def test_infer_a_folder_goes_on_after_a_bad_file(trained, workplace):
    folder = workplace / "mixed"
    (folder / "below").mkdir(parents=True)
    picture(1).save(folder / "a.png")
    picture(2).save(folder / "below" / "b.jpg")
    picture(3).save(folder / "below" / "b.png")
    picture(4).save(folder / "a_my painting.png")  # a result of an earlier call
    (folder / "bad.jpg").write_bytes(b"no picture")
    result = run("infer.py", trained[0] / "my painting.safetensors", folder, "-o", "painted/", cwd=workplace)
    assert result.returncode == 1
    assert "bad.jpg: not a picture" in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(str(p.relative_to(workplace / "painted")) for p in (workplace / "painted").rglob("*.png")) == [
        "a.png", "below/b.jpg.png", "below/b.png.png",
    ]  # fmt: skip


def test_infer_leaves_the_results_of_other_networks_out(trained, workplace):
    file, folder = trained[0] / "my painting.safetensors", workplace / "twice"
    folder.mkdir()
    picture(1).save(folder / "a.png")
    assert run("infer.py", file, folder, cwd=workplace).returncode == 0
    network, description = weights.load(file)
    weights.save(workplace / "other.safetensors", network, {**description, "style": {"names": ["other"]}})
    assert run("infer.py", "other.safetensors", folder, cwd=workplace).returncode == 0
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "a_my painting.png", "a_other.png"]
    (folder / "a.png").unlink()
    result = run("infer.py", "other.safetensors", folder, cwd=workplace)
    assert (result.returncode, "contains only previous outputs" in result.stderr) == (2, True)
    result = run("infer.py", "other.safetensors", folder / "a_my painting.png", cwd=workplace)
    assert result.returncode == 0, result.stderr


def test_infer_runs_the_network_of_a_checkpoint(trained, workplace):
    source, made = workplace / "photographs" / "photo 0 (copy)=.png", []
    for file in ("my painting.safetensors", "checkpoints/last.ckpt"):
        target = workplace / f"by {len(made)}.png"
        result = run("infer.py", trained[0] / file, source, "-o", target, cwd=workplace)
        assert result.returncode == 0, result.stderr
        made.append(target.read_bytes())
    assert made[0] == made[1]
    assert weights.load(trained[0] / "checkpoints/last.ckpt")[1]["style"] == {"names": ["my painting"]}


def test_infer_spreads_a_folder_over_devices(trained, workplace):
    options = [trained[0] / "my painting.safetensors", workplace / "photographs", "-o"]
    assert run("infer.py", *options, "spread one/", cwd=workplace).returncode == 0
    result = run("infer.py", *options, "spread two/", "--device", "cpu,cpu", cwd=workplace)
    assert result.returncode == 0, result.stderr
    assert "8 of 8 photographs stylized" in result.stdout
    for path in (workplace / "spread one").iterdir():
        assert path.read_bytes() == (workplace / "spread two" / path.name).read_bytes()


def test_little_memory_gives_the_same_picture_and_shows_progress(trained, workplace):
    weights_file = trained[0] / "my painting.safetensors"
    picture(4, 150, 130).save(workplace / "large.png")
    pictures = []
    for name, options in (("whole", []), ("strips", ["--max-memory", "0.01"])):
        target = f"{name}.png"
        result = run(
            "infer.py", weights_file, "large.png", "-o", target, "--precision", "float32", *options, cwd=workplace
        )
        assert result.returncode == 0, result.stderr
        assert ("large.png: " in result.stderr) == (name == "strips")
        pictures.append(np.asarray(Image.open(workplace / target)).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_a_start_from_another_painting(trained, workplace):
    file = trained[0] / "my painting.safetensors"
    settings = [*small(workplace), "style=cubist", "trainer.max_steps=1", "output_dir=started"]
    result = run("train.py", *settings, f"init_from='{file}'", "optimizer.learning_rate=0", cwd=workplace)
    assert result.returncode == 0, result.stderr
    before, after = (safetensors.torch.load_file(path) for path in (file, workplace / "started/cubist.safetensors"))
    assert all(torch.equal(value, after[name][: len(value)]) for name, value in before.items())
    assert weights.describe(workplace / "started/cubist.safetensors")["init_from"].startswith("my painting (")


@pytest.mark.slow
def test_the_time_left_knows_the_limit_of_the_time(workplace):
    settings = [*small(workplace), "style=cubist", "trainer.max_steps=1000000", "output_dir=timed"]
    result = run("train.py", *settings, "trainer.max_time=00:00:00:12", cwd=workplace)
    assert result.returncode == 0, result.stderr
    assert " 00:0" in next(line for line in result.stderr.splitlines() if line.startswith("step ")).split(" left")[0]
    assert "stopped by trainer.max_time at step " in result.stderr


def test_a_sheet(trained, workplace):
    file = trained[0] / "my painting.safetensors"
    painting = "my painting.png"
    options = ["--weights", file, "--style-image", painting, "--size", 32, "-o", "sheet.png"]
    result = run("sheet.py", painting, painting, *options, cwd=workplace)
    assert result.returncode == 0, result.stderr
    again = run("sheet.py", painting, painting, *options, cwd=workplace)
    assert (again.returncode, "already exists; give --overwrite" in again.stderr) == (2, True)
    with Image.open(workplace / "sheet.png") as image:
        assert image.size == (32 + 4 + 32, 16 + 3 * 36 - 4)
