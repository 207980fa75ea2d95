"""Optimize pixels: the function and the real command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from conftest import ENVIRONMENT, picture, run
from PIL import Image

from fast_nst import loss_networks, optimize
from fast_nst.errors import RunError, UserError
from fast_nst.image import to_tensor
from fast_nst.losses import PerceptualLoss

STYLE = {"relu1_2": 1.0, "relu2_2": 1.0, "relu3_3": 1.0}


def make_loss(content_weight: float, style_weight: float) -> PerceptualLoss:
    network = loss_networks.build("compact", STYLE)
    style = to_tensor(picture(7, 64, 64))
    return PerceptualLoss(
        network, style, content_layers={"relu3_3": 1.0}, style_layers=STYLE, content_weight=content_weight,
        style_weight=style_weight, normalize=True,
    )  # fmt: skip


@pytest.mark.parametrize(("method", "share"), [("lbfgs", 0.05), ("adam", 0.3)])
@pytest.mark.parametrize(("content_weight", "style_weight"), [(1, 0), (0, 1)], ids=["inversion", "texture"])
def test_optimize_converges_from_noise(method, share, content_weight, style_weight):
    content = to_tensor(picture(1, 64, 64))
    values = []
    result = optimize.optimize(
        optimize.begin("noise", content, 0), content, make_loss(content_weight, style_weight), 80, method,
        on_step=lambda step, terms, image: values.append((step, terms["loss"])),
    )  # fmt: skip
    assert [step for step, _ in values] == list(range(80))
    assert values[-1][1] < share * values[0][1]
    assert result.shape == content.shape
    assert 0 <= result.min() <= result.max() <= 1


def test_begin_returns_content_or_seeded_noise():
    content = to_tensor(picture(1))
    assert torch.equal(optimize.begin("content", content, 0), content)
    first, second, other = (optimize.begin("noise", content, seed) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    with pytest.raises(UserError, match="init: got 'void'; allowed: content, noise"):
        optimize.begin("void", content, 0)


def test_infinite_loss_raises():
    content = to_tensor(picture(1, 64, 64))
    with pytest.raises(RunError, match="NaN or infinite; try algorithm=adam"):
        optimize.optimize(content * float("nan"), content, make_loss(1, 1), 2)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux only")
@pytest.mark.slow
def test_memory_needed_predicts_used_memory():
    code = """
import torch
from fast_nst import machine, optimize
from test_optimize import make_loss
machine.keep_freed_memory()  # freed memory still counts
loss = make_loss(1, 1)
before, content = machine.used_memory(), torch.rand(1, 3, 448, 448)
optimize.optimize(content, content, loss, 8)
print((machine.used_memory() - before) / optimize.memory_needed(loss, 448, 448, 8, "lbfgs"))
"""
    environment = {**ENVIRONMENT, "PYTHONPATH": str(Path(__file__).parent)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert 0.6 < float(result.stdout) < 1.4


def test_optimize_command(workplace):
    photo = "content='photographs/photo 1 (copy)=.png'"
    small = ["style.image='my painting.png'", "style.size=96", "size=64", "steps=3", "pyramid_levels=2"]
    large = "loss.style_scales={1: 1, 6: 0.2}"  # needs 48 pixels a side, at the coarser pyramid level too
    terms = ["loss.tv_weight=0.1"]
    blend, start = "style.blend={my painting.png: 0.5}", "init='photographs/photo 1 (copy)=.png'"
    result = run("optimize.py", *small, large, *terms, photo, blend, start, "output=out.png", cwd=workplace)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "out.png"
    with Image.open(workplace / "out.png") as image:
        assert image.size == (64, 48)
        settings = json.loads(image.text["fast_nst"])
    assert settings["steps"] == 3
    assert set(settings["last_losses"]) == {"loss", "content", "style", "light", "tv"}
    for arguments, message in (
        ([*small, photo, "output=out.png"], "out.png already exists; give overwrite=true"),
        ([*small, "output=other.png"], "content: give a photograph"),
        ([*small, photo, "output=other.png", "algorithm=newton"], "algorithm: got 'newton'"),
        ([*small, photo, "output=other.png", "loss.content_scales={7: 1}"], "allowed: 56 or more, which takes size=75"),
        ([*small, "content=none.jpg"], "none.jpg: no such file"),
        ([*small, photo, "output=other.png", "init=none.jpg"], "none.jpg: no such file"),
        ([*small, photo, "output=other.png", "style.blend={none.jpg: 1}"], "none.jpg: no such file"),
    ):
        failed = run("optimize.py", *arguments, cwd=workplace)
        assert (failed.returncode, len(failed.stderr.strip().splitlines())) == (2, 1), failed.stderr
        assert message in failed.stderr


# The terms of each experiment's loss.
EXPERIMENTS = {
    "feature_inversion": {"content", "style", "tv"}, "texture_synthesis": {"content", "style"},
    "gatys2015": {"content", "style"},
}  # fmt: skip


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_reports_its_terms(workplace, experiment):
    arguments = ["style.image='my painting.png'", "style.size=48", "size=48", "steps=2", f"output={experiment}.png"]
    if experiment != "texture_synthesis":
        arguments.append("content='photographs/photo 1 (copy)=.png'")
    if experiment == "gatys2015":
        network = torchvision.models.vgg19(weights=None).features
        safetensors.torch.save_file(
            {f"features.{k}": v for k, v in network.state_dict().items()}, workplace / "vgg.safetensors"
        )
        arguments.append("loss_network.weights=vgg.safetensors")
    result = run("optimize.py", f"experiment={experiment}", *arguments, cwd=workplace)
    assert result.returncode == 0, result.stderr
    with Image.open(workplace / f"{experiment}.png") as image:
        settings = json.loads(image.text["fast_nst"])
    assert set(settings["last_losses"]) == {"loss", *EXPERIMENTS[experiment]}
