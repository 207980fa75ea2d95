"""The refiner of the synthetic photographs: what it keeps, and how scripts/refine.py makes it, on little."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from conftest import ROOT, picture, random_vgg_state, run
from safetensors.torch import load_file, save_file

from fast_nst import loss_networks
from fast_nst.data.leaves import draw, refiner
from fast_nst.data.leaves.pool import sketch

sys.path.insert(0, str(ROOT / "scripts"))

import refine


def recipe_of(path: Path) -> dict[str, object]:
    with safetensors.safe_open(path, "pt") as file:
        recipe: dict[str, object] = json.loads(file.metadata()["fast_nst_refiner"])
    return recipe


def test_it_begins_as_the_picture_and_reaches_all_of_it():
    network = refiner.Refiner().requires_grad_(False)
    x, noise = torch.rand(1, 3, 32, 48), torch.randn(1, refiner.NOISE, 16, 24)
    assert float((network(x, noise) - x).abs().mean()) < 0.05
    torch.nn.init.zeros_(network.last.weight)
    torch.nn.init.zeros_(network.last.bias)
    assert torch.equal(network(x, noise), x)
    torch.nn.init.ones_(network.last.bias)
    torch.testing.assert_close(network(x, noise), x + 0.5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 37), (90, 50)])
def test_what_is_no_multiple_is_cut_off_again(height: int, width: int):
    """A picture that its own last row and column continue comes out the same."""
    whole = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    below, right = -height % refiner.FOLD, -width % refiner.FOLD
    longer = np.pad(whole, ((0, below), (0, right), (0, 0)), mode="edge")
    found, wanted = (refiner.refine(np.random.default_rng(1), x) for x in (whole, longer))
    np.testing.assert_array_equal(found, wanted[:height, :width])


def test_it_keeps_the_layout_and_changes_the_detail():
    apart, moved = [], []
    for seed in range(6):
        before, after = (f(np.random.default_rng(seed), 192, 192).astype(np.float64) / 255 for f in (sketch, draw))
        blocks = [x.reshape(12, 16, 12, 16, 3).mean((1, 3)) for x in (before, after)]
        moved.append(np.abs(blocks[1] - blocks[0]).mean())
        apart.append(np.abs(after - before).mean())
    assert np.mean(moved) < 0.03
    assert np.mean(apart) > 0.02


def test_a_picture_is_refined_by_noise_of_its_own_generator():
    picture = sketch(np.random.default_rng(0), 64, 64)
    first, again, other = (refiner.refine(np.random.default_rng(seed), picture) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.05
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(refiner.refine(np.random.default_rng(1), picture), first)


def test_the_generator_of_torch_is_left_alone():
    refiner.bundled.cache_clear()
    before = torch.get_rng_state()
    refiner.refine(np.random.default_rng(0), np.zeros((16, 16, 3), np.uint8))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_discriminator_that_is_right_has_no_loss():
    right, wrong = torch.full((2, 1, 3, 3), -1.5), torch.full((2, 1, 3, 3), 1.5)
    assert float(refine.hinge([right], [-right])) == 0
    assert float(refine.hinge([wrong], [-wrong])) == 5
    assert float(refine.hinge([wrong, right], [-right, -wrong])) == 2.5


def test_the_contest_moves_pictures_towards_photographs(tmp_path: Path):
    """The drawn ones are flat greys, the photographs greys with white noise on them."""
    save_file(random_vgg_state("vgg19", 8), tmp_path / "vgg19.safetensors")
    vgg = loss_networks.build("vgg19", refine.LAYERS, tmp_path / "vgg19.safetensors")

    def flat() -> torch.Tensor:
        return (0.3 + 0.4 * torch.rand(4, 3, 1, 1)).expand(4, 3, 32, 32)

    def photographs() -> torch.Tensor:
        return flat() + 0.2 * torch.randn(4, 3, 32, 32)

    contest = refine.Contest(vgg, photographs(), steps=100)
    before = [parameter.clone() for parameter in contest.average.parameters()]
    losses = torch.stack([contest.step(flat(), photographs()) for _ in range(100)])
    told, _, layout = losses.T
    assert float(told[0]) == pytest.approx(2, abs=0.2)
    assert float(told.min()) < 1.5  # they learn to tell
    assert float(told[-10:].mean()) > 0.15  # and are misled: 0.04 at most where the refiner does not learn
    drawn, noise = flat(), torch.randn(4, refiner.NOISE, 16, 16)
    with torch.no_grad():
        refined = contest.average(drawn, noise)
    assert float((refined - refined.mean((2, 3), keepdim=True)).std()) > 0.03  # and it to put noise on what is flat
    assert float(layout[-10:].mean()) < 0.1
    assert any(not torch.equal(a, b) for a, b in zip(before, contest.average.parameters(), strict=True))


def test_it_makes_a_refiner_and_says_how(tmp_path: Path):
    save_file(random_vgg_state("vgg19", 8), tmp_path / "vgg19.safetensors")
    (tmp_path / "photographs").mkdir()
    for seed in range(2):
        picture(seed, 140, 130).save(tmp_path / "photographs" / f"{seed}.png")
    command = ["refine.py", "--vgg", "vgg19.safetensors", "--photographs", "photographs", "--drawn", 2]
    for name in ("a", "b"):
        result = run(*command, "--steps", 2, "-o", f"{name}.safetensors", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert result.stdout.strip() == f"{name}.safetensors"
    first, second = (load_file(tmp_path / f"{name}.safetensors") for name in ("a", "b"))
    refiner.Refiner().load_state_dict(first)
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    recipe = recipe_of(tmp_path / "a.safetensors")
    assert (recipe["steps"], recipe["photographs"], recipe["drawn"], recipe["seed"]) == (2, 2, 2, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vgg", "nothing.pth"], "error: --vgg: nothing.pth: no such file"),
        (["--photographs", "nothing"], "error: --photographs: nothing: no such folder"),
        (["--photographs", "low"], "low/0.png: 300 x 100 pixels; allowed: 128 a side or more"),
        (["--photographs", "low"], "error: --photographs: low: none of its pictures can be used"),
        (["--steps", 0], "error: --steps: got 0; allowed: a whole number from 1 on"),
        (["--seed", 2**64], "error: --seed: got 18446744073709551616; allowed: a whole number from 0 to"),
        (["-o", "low"], "error: --output: low: is a folder"),
        (["-o", "vgg19.safetensors/file"], "error: vgg19.safetensors/file: cannot be written"),
    ],
)
def test_a_mistake_is_told_before_the_work(tmp_path: Path, arguments: list[object], message: str):
    save_file(random_vgg_state("vgg19", 8), tmp_path / "vgg19.safetensors")
    (tmp_path / "low").mkdir()
    picture(2, 100, 300).save(tmp_path / "low" / "0.png")
    usual = ["--vgg", "vgg19.safetensors", "--photographs", "low", "--drawn", 1, "--steps", 1, "-o", "made"]
    result = run("refine.py", *usual, *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "made").exists()


def test_the_bundled_one_is_small_and_says_where_it_comes_from():
    assert refiner.ASSET.stat().st_size <= 350_000
    recipe = recipe_of(refiner.ASSET)
    assert recipe["made_by"] == "scripts/refine.py"
    assert recipe["steps"] == recipe["of_steps"] == refine.STEPS
    assert (recipe["drawn"], recipe["seed"]) == (refine.DRAWN, 0)
