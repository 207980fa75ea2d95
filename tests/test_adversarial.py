"""Adversarial generation: networks, losses and data; training and generating through the real commands."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture, run, started, wait_until
from PIL import Image

from fast_nst import image, networks, weights
from fast_nst.data import style_folders
from fast_nst.data.dataset import ContentImages
from fast_nst.data.mnist import Mnist
from fast_nst.data.painted import PaintedDigits
from fast_nst.errors import UserError
from fast_nst.loss_networks.style_features import LENGTH, StyleExtractor
from fast_nst.methods.adversarial import discriminator_loss, generator_loss, gradient_penalty
from fast_nst.networks.generator import Discriminator, Generator
from fast_nst.training import resume

SETTINGS = [
    "experiment=agn", "data.root=mnist", "data.size=16", "data.val_size=16", "network.size=16", "network.width=2",
    "data.batch_size=4", "trainer.max_epochs=null", "method.styles=[black_on_white,blue_on_red]",
    "checkpoint.every_n_steps=2", "trainer.accelerator=cpu", "trainer.precision=32-true", "data.workers=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with 40 digits, in torchvision's layout, and two folders of pictures of several sizes."""
    folder = tmp_path_factory.mktemp("agn")
    (raw := folder / "mnist" / "MNIST" / "raw").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        digits = rng.integers(0, 256, (40, 28, 28), np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, 40, 28, 28) + digits.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, 40) + bytes(40))
    for style, sides in (("cats", [(40, 30), (17, 60)]), ("dogs", [(64, 64), (20, 25), (90, 30)])):
        (folder / "animals" / style).mkdir(parents=True)
        for index, (height, width) in enumerate(sides):
            picture(index, height, width).save(folder / "animals" / style / f"{index}.png")
    (folder / "one" / "only").mkdir(parents=True)
    picture(1).save(folder / "one" / "only" / "a.png")
    (folder / "hollow" / "empty").mkdir(parents=True)
    (folder / "hollow" / "full").mkdir()
    picture(1).save(folder / "hollow" / "full" / "a.png")
    return folder


@pytest.fixture(scope="module")
def trained(work: Path) -> Path:
    result = run("train.py", *SETTINGS, "trainer.max_steps=20", "output_dir=run", cwd=work)
    assert result.returncode == 0, result.stderr
    return work / "run" / "agn.safetensors"


def test_the_generator_makes_images_of_its_size():
    network = Generator(32, 10, 4, 6, 3)
    images = network(torch.randn(2, 10), torch.rand(2, 6))
    assert images.shape == (2, 3, 32, 32)
    assert 0 <= images.min() <= images.max() <= 1
    with pytest.raises(UserError, match=r"noise: got \(2, 9\); allowed: \(B, 10\)"):
        network(torch.randn(2, 9), torch.rand(2, 6))
    with pytest.raises(UserError, match=r"style: got \(2, 5\); allowed: \(B, 6\)"):
        network(torch.randn(2, 10), torch.rand(2, 5))


def test_the_discriminator_is_that_of_the_source():
    network = Discriminator(16, 3)
    linear = [layer for layer in network.layers if isinstance(layer, torch.nn.Linear)]
    assert len(linear) == 3
    assert linear[0].out_features < linear[1].out_features
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 3)


def test_the_losses_are_cross_entropies():
    real, fake = torch.randn(2, 2, 3).double()
    style = torch.eye(3)[[2, 0]].double()

    def entropy(logit, wanted):
        p = 1 / (1 + math.exp(-logit))
        return -(wanted * math.log(p) + (1 - wanted) * math.log(1 - p))

    pairs = [(i, k) for i in range(2) for k in range(3)]
    halves = [sum(entropy(float(real[i, k]), float(style[i, k])) for i, k in pairs) / 6]
    halves.append(sum(entropy(float(fake[i, k]), 0.0) for i, k in pairs) / 6)
    assert float(discriminator_loss(real, fake, style)) == pytest.approx(sum(halves) / 2)
    fooled = (entropy(float(fake[0, 2]), 1.0) + entropy(float(fake[1, 0]), 1.0)) / 2
    assert float(generator_loss(fake, style)) == pytest.approx(fooled)


@pytest.mark.parametrize("size", [4, 8])
def test_the_gradient_penalty_is_the_same_at_any_size(size):
    """Of two linear outputs, the mean brightness of an image times 3 or times 5."""
    real, style = torch.rand(2, 3, size, size).requires_grad_(), torch.eye(2)
    logits = real.mean((1, 2, 3))[:, None] * torch.tensor([3.0, 5.0])
    assert float(gradient_penalty(real, logits, style)) == pytest.approx((9 + 25) / 2 / 3 / 2)


def test_features_are_statistics_and_finite():
    features = StyleExtractor()(torch.cat([torch.rand(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)]))
    assert features.shape == (2, LENGTH)
    assert features.isfinite().all()
    assert (features >= 0).all()


def test_digits_are_painted_in_the_styles_in_turn():
    gray = Image.linear_gradient("L").resize((16, 16)).convert("RGB")
    digits = ContentImages([gray] * 4, [0, 1, 2, 3], 16, "center")
    painted = PaintedDigits(digits, ["black_on_white", "blue_on_red", "white_on_cubist"])
    items = [painted[k] for k in range(6)]
    assert [int(item["style"].argmax()) for item in items] == [0, 1, 2, 0, 1, 2]
    torch.testing.assert_close(items[0]["content"], 1 - digits[0])
    red, green, blue = items[1]["content"]
    torch.testing.assert_close(red + blue, torch.ones(16, 16))
    assert not green.any()
    assert items[2]["content"].std() > 0.05
    assert torch.equal(painted[2]["content"], items[2]["content"])
    assert not torch.equal(painted[2]["content"], items[5]["content"])  # another part of the painting


def test_folders_take_turns(work):
    content = {"name": "folder", "size": 16, "crop": "center", "val_images": 1, "val_size": 16}
    sets, names = style_folders.build(work / "animals", seed=0, **content)
    assert names == ["cats", "dogs"]
    assert (len(sets.train), len(sets.val)) == (3, 2)
    items = [sets.train[k] for k in range(4)]
    assert [int(item["style"].argmax()) for item in items] == [0, 1, 0, 1]
    assert {item["content"].shape for item in items} == {(3, 16, 16)}


def test_a_run_leaves_its_files(trained):
    description = weights.describe(trained)
    assert description["style"]["names"] == ["black_on_white", "blue_on_red"]
    assert set(description["held_out_losses"]) == {"discriminator", "generator"}
    assert image.read_size(trained.parent / "preview.png") == (128, 128)  # 64 samples of 16 pixels
    network, _ = weights.load_generator(trained)
    assert network.get_buffer("known").abs().sum(1).min() > 0


def test_a_run_ends_with_the_command_that_generates(work):
    result = run("train.py", *SETTINGS, "trainer.max_steps=1", "output_dir=hint", cwd=work)
    assert result.stderr.splitlines()[-1].endswith("generate images with")
    assert result.stdout.strip().endswith("scripts/generate.py hint/agn.safetensors -n 16 -o sheet.png")


def test_a_failed_download_leaves_nothing(work, monkeypatch):
    def fail(*_, **__):
        (work / "animals" / "MNIST" / "raw").mkdir(parents=True)
        raise RuntimeError("Error downloading train-images: no route. And more. And more.")

    monkeypatch.setattr("torchvision.datasets.MNIST", fail)
    with pytest.raises(UserError, match=r"downloaded \(Error downloading train-images: no route\); .* add data=folder"):
        Mnist(work / "animals")
    assert sorted(path.name for path in (work / "animals").iterdir()) == ["cats", "dogs"]


def test_generate_makes_a_sheet_and_a_folder(work, trained):
    picture(3).save(work / "picture.png")
    result = run("generate.py", trained, "--style", "picture.png", "blue_on_red", "-n", 10, "-o", "sheet.png", cwd=work)
    assert result.returncode == 0, result.stderr
    assert image.read_size(work / "sheet.png") == (8 * 16, 2 * 2 * 16 + 4)
    for seed in (0, 0, 1):
        result = run("generate.py", trained, "-n", 2, "-o", f"made{seed}/", "--seed", seed, "--overwrite", cwd=work)
        assert result.returncode == 0, result.stderr
    styles = ["--style", "blue_on_red", "--style", "black_on_white"]
    result = run("generate.py", trained, *styles, "-n", 2, "-o", "two.png", cwd=work)
    assert image.read_size(work / "two.png") == (32, 36), result.stderr
    names = ["black_on_white_1.png", "black_on_white_2.png", "blue_on_red_1.png", "blue_on_red_2.png"]
    assert sorted(path.name for path in (work / "made0").iterdir()) == names
    first, second = (np.asarray(image.open_picture(work / f"made{seed}" / names[0]).rgb) for seed in (0, 1))
    assert (first != second).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--style", "nothing.png", "-o", "x.png"], "allowed: a picture, or one of black_on_white, blue_on_red"),
        (["-n", "0", "-o", "x.png"], "-n: got 0; allowed: an integer from 1"),
        (["-o", "x.txt"], "cannot write this format"),
    ],
)
def test_bad_options_of_generate_are_one_line(work, trained, arguments, message):
    result = run("generate.py", trained, *arguments, cwd=work)
    assert (result.returncode, len(result.stderr.strip().splitlines())) == (2, 1), result.stderr
    assert message in result.stderr


def test_weights_of_another_method_are_named(work, trained):
    result = run("infer.py", trained, "animals/cats/0.png", cwd=work)
    assert (result.returncode, "makes images from noise" in result.stderr) == (2, True), result.stderr
    file, recipe = work / "slim.safetensors", {"name": "slim", "width": 4, "blocks": 0}
    weights.save(file, networks.build(**recipe), {"network": recipe})
    result = run("generate.py", file, "-o", "x.png", cwd=work)
    assert (result.returncode, "paints photographs" in result.stderr) == (2, True), result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=folder", "data.root=one"], "holds one style folder, only; allowed: two or more"),
        (["data=folder", "data.root=hollow"], "empty: holds no picture"),
        (["data=folder", "data.root=animals", "method.styles=[a_on_b,c_on_d]"], "method.styles: is for data=mnist"),
        (["method.styles=[black_on_white]"], "allowed: two or more different names"),
        (["method.styles=[black_on_white,blurple_on_red]"], "got 'blurple'; allowed: a CSS color, or a painting"),
        (["data=synthetic"], "data: got synthetic; allowed with method=adversarial: mnist, folder"),
        (["network.size=32"], "data.size: got 16; allowed: the generator's size, 32"),
        (["data.val_size=32"], "data.val_size: got 32; allowed: the generator's size, 16"),
        (["network.size=20"], "network.size: got 20; allowed: a power of 2"),
        (["optimizer=muon"], "optimizer.name: got 'muon'; allowed: adam"),
        (["style=cubist"], "style: method=adversarial does not use it"),
    ],
)
def test_bad_settings_are_one_line(work, words, message):
    given = [word for word in SETTINGS if "data=folder" not in words or not word.startswith("method.styles")]
    result = run("train.py", *given, "trainer.max_steps=1", *words, "output_dir=bad", cwd=work)
    assert (result.returncode, len(result.stderr.strip().splitlines())) == (2, 1), result.stderr
    assert message in result.stderr


def test_folders_of_pictures_of_several_sizes_train(work):
    given = [word for word in SETTINGS if not word.startswith(("method.styles", "data.root"))]
    result = run(
        "train.py", *given, "data=folder", "data.root=animals", "trainer.max_steps=2", "output_dir=zoo", cwd=work
    )
    assert result.returncode == 0, result.stderr
    assert weights.describe(work / "zoo" / "agn.safetensors")["style"]["names"] == ["cats", "dogs"]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_file(work):
    settings = [*SETTINGS, "trainer.max_steps=60"]
    result = run("train.py", *settings, "output_dir=unbroken", cwd=work)
    assert result.returncode == 0, result.stderr
    checkpoint = work / "killed" / "checkpoints" / "last.ckpt"
    with started("train.py", *settings, "output_dir=killed", cwd=work) as process:
        wait_until(lambda: checkpoint.exists() and resume.read(checkpoint)["step"] >= 4, process)
    assert not (work / "killed" / "agn.safetensors").exists()
    result = run("train.py", *settings, "output_dir=killed", "ckpt_path=auto", cwd=work)
    assert result.returncode == 0, result.stderr
    ours, theirs = ((work / name / "agn.safetensors").read_bytes() for name in ("killed", "unbroken"))
    assert ours == theirs


@pytest.mark.slow
def test_two_processes_average_their_gradients(work):
    """The first moments of the discriminator differ from those of the first process alone."""
    moments = []
    for folder, more in (("single", []), ("double", ["trainer=ddp", "trainer.devices=2"])):
        given = [word for word in SETTINGS if "accelerator" not in word and "precision" not in word]
        more += ["trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.max_epochs=null"]
        result = run("train.py", *given, *more, "trainer.max_steps=1", f"output_dir={folder}", cwd=work)
        assert result.returncode == 0, result.stderr
        states = torch.load(work / folder / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"]
        assert len(states) == 2
        moments.append(states[1]["state"][0]["exp_avg"])
    assert moments[1].isfinite().all()
    assert not torch.allclose(*moments)  # the other process saw other images
