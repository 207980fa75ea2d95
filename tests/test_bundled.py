"""The network of all bundled styles that the package carries."""

import conftest
import numpy as np
import pytest
import torch
from conftest import picture, run, small
from PIL import Image

import fast_nst
from fast_nst import image, loss_networks, weights
from fast_nst.commands.build import loss_settings
from fast_nst.data import styles
from fast_nst.data.synthetic import SyntheticPhotographs
from fast_nst.device import find_devices, has_fast_bfloat16
from fast_nst.errors import UserError
from fast_nst.losses import PerceptualLoss, layers_needed
from fast_nst.stylize.choice import BUNDLED, bundled_names, choose
from fast_nst.stylize.image import stylize_tensor


def test_the_bundled_network_has_every_bundled_style():
    names = {path.stem for path in (BUNDLED.parent / "styles").glob("*.jpg")}
    assert set(bundled_names()) == names
    assert BUNDLED.stat().st_size <= 2_000_000


def test_a_bundled_style_repaints_by_its_name(tmp_path):
    picture(0).save(tmp_path / "photo.png")
    # The precision of the Python API, which does not take float32 for a small picture.
    precision = "bfloat16" if has_fast_bfloat16(find_devices("auto", "device")[0].type) else "float32"
    result = run("infer.py", "cubist", "photo.png", "--precision", precision, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, "photo_cubist.png\n"), result.stderr
    painted = np.asarray(Image.open(tmp_path / "photo_cubist.png")).astype(int)
    assert np.abs(painted - np.asarray(fast_nst.load("cubist")(tmp_path / "photo.png"))).max() <= 2
    assert run("infer.py", "--list", cwd=tmp_path).stdout.split() == bundled_names()
    wrong = run("infer.py", "cubism", "photo.png", cwd=tmp_path)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "the bundled styles are" in wrong.stderr


def test_a_bundled_style_repaints_quietly_where_the_home_folder_cannot_be_written(tmp_path, monkeypatch):
    picture(0).save(tmp_path / "photo.png")
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setitem(conftest.ENVIRONMENT, name, str(tmp_path / "photo.png"))
    result = run("infer.py", "cubist", "photo.png", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_folder_or_another_file_does_not_hide_a_bundled_style(tmp_path, monkeypatch):
    picture(0).save(tmp_path / "photo.png")
    (tmp_path / "cubist").mkdir()
    (tmp_path / "ink_wash").write_text("notes")
    for name in ("cubist", "ink_wash"):
        result = run("infer.py", name, "photo.png", cwd=tmp_path)
        assert (result.returncode, result.stdout) == (0, f"photo_{name}.png\n"), result.stderr
    monkeypatch.chdir(tmp_path)
    assert "cubist" in repr(fast_nst.load("cubist"))
    assert "starry_night" not in repr(fast_nst.load("cubist"))
    (tmp_path / "watercolour").write_bytes(BUNDLED.read_bytes())  # a weights file of that name is what was meant
    assert fast_nst.load("watercolour").style is None
    with pytest.raises(UserError, match="is a directory"):
        fast_nst.load("./cubist")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["", "photo.jpg"], "weights: got an empty name"),
        (["--list", "photo.jpg"], "photo.jpg: seems to be a JPEG picture; allowed: a weights file"),
        (["photo.jpg", "cubist"], "photo.jpg: seems to be a JPEG picture"),
        (["cubism:0.5,cubist:0.5", "photo.jpg"], "no such file; the bundled styles are"),
        (["cubist", "photo.jpg", "--brush", "2"], "style.size=[256,512] with network=conditional"),
        (["cubist", "photo.jpg", "other.jpg", "--mask", "moving.gif"], "moving.gif: has several frames or pages"),
        (["cubist", "photo.jpg", "--mask", ""], "--mask: got an empty name"),
        (["cubist", "photo.jpg", "--mask", "other.jpg", "-o", "other.jpg", "--overwrite"], "is also an input"),
        (["cubist", "photo.jpg", "--device", "gpu"], "--device: got 'gpu'; allowed: auto, cpu"),
        (["cubist", "-dash.jpg"], "-dash.jpg; give the file as ./-dash.jpg"),
        (["cubist.safetensors", "photo.jpg"], "cubist.safetensors: no such file; the bundled styles are"),
        (["styles.safetensors", "photo.jpg", "--style", "cubist,"], "style: got 'cubist,'; allowed: NAME"),
        (["page.pth", "photo.jpg"], "page.pth: seems to be a web page; allowed"),
        (["pointer.pth", "photo.jpg"], "pointer.pth: seems to be a Git LFS pointer"),
        (["empty.pth", "photo.jpg"], "empty.pth: seems to be an empty file; allowed"),
    ],
)
def test_a_mistake_at_repainting_is_one_line(tmp_path, arguments, message):
    for seed, name in enumerate(("photo.jpg", "other.jpg", "-dash.jpg")):
        picture(seed).save(tmp_path / name)
    for name, text in (
        ("page", "<!DOCTYPE html>\n"),
        ("pointer", "version https://git-lfs.github.com\n"),
        ("empty", ""),
    ):
        (tmp_path / f"{name}.pth").write_text(text)
    (tmp_path / "styles.safetensors").symlink_to(BUNDLED)
    picture(2).save(tmp_path / "moving.gif", save_all=True, append_images=[picture(3)])
    result = run("infer.py", *arguments, cwd=tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert message in result.stderr


def test_a_mask_of_another_size_names_the_photograph(tmp_path):
    picture(0).save(tmp_path / "photo.png")
    picture(1, 30, 40).save(tmp_path / "small.png")
    Image.new("L", (64, 48), 255).save(tmp_path / "mask.png")
    result = run("infer.py", "cubist", "photo.png", "small.png", "--mask", "mask.png", "-o", "out/", cwd=tmp_path)
    assert result.returncode == 1
    assert "error: mask: got 64x48 pixels; allowed: the size of small.png, 40x30\n" in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["photo.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["init_from=photo.jpg"], "init_from: photo.jpg: seems to be a JPEG picture"),
        (["style=[cubist,nope]"], "nope: no such file; the bundled styles are cubist, ink_wash"),
        (
            ["init_from=bundled.safetensors", "network.width=8"],
            "a different network from this run's: network.width=32; ",
        ),
        (["init_from=bundled.safetensors", "network=slim"], "network=conditional; allowed: network=slim\n"),
    ],
)
def test_a_mistake_at_training_is_one_line(workplace, arguments, message):
    picture(0).save(workplace / "photo.jpg")
    (workplace / "bundled.safetensors").write_bytes(BUNDLED.read_bytes())
    settings = [word for word in small(workplace) if not word.startswith("network")]
    result = run("train.py", *settings, "style=cubist", *arguments, "output_dir=never", cwd=workplace)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert message in result.stderr
    assert not (workplace / "never").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["starry_night", "ink_wash"])
def test_the_style_loss_falls_as_strength_rises(name):
    network, description = weights.load(BUNDLED)
    settings = loss_settings()
    layers = layers_needed(settings["content_layers"], settings["style_layers"])
    painting = styles.load(styles.find(name), 256)
    loss = PerceptualLoss(loss_networks.build("compact", layers), painting, **settings)
    source = SyntheticPhotographs(10, 192, 5)
    photographs = torch.cat([image.to_tensor(source[k]) for k in range(10)])
    losses = []
    for strength in (0, 0.25, 0.5, 0.75, 1):
        chosen, fade = choose(network, description, name, strength)
        output = stylize_tensor(chosen.eval(), photographs, fade)
        losses.append(float(loss(output, photographs)["style"]))
        if strength == 0:
            assert torch.equal(output, photographs)
    assert losses == sorted(losses, reverse=True)


def test_a_run_starts_from_the_bundled_network(workplace):
    overrides = [word for word in small(workplace) if not word.startswith("network.")]
    result = run(
        "train.py", *overrides, "style.image='my painting.png'", "trainer.max_steps=1", "optimizer.learning_rate=0",
        "output_dir=from_bundled", cwd=workplace,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    network, description = weights.load(workplace / "from_bundled" / "my painting.safetensors")
    assert description["init_from"] == "bundled styles"
    assert torch.equal(
        network.state_dict()["down.0.conv.weight"], weights.load(BUNDLED)[0].state_dict()["down.0.conv.weight"]
    )
