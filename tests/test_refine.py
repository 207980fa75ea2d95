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
    assert np.mean(moved) < 0.04
    assert np.mean(apart) > 0.02


def test_a_discriminator_that_is_right_has_no_loss():
    right, wrong = torch.full((2, 1, 3, 3), -1.5), torch.full((2, 1, 3, 3), 1.5)
    assert float(refine.hinge([right], [-right])) == 0
    assert float(refine.hinge([wrong], [-wrong])) == 5
    assert float(refine.hinge([wrong, right], [-right, -wrong])) == 2.5


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

    picture(2, 100, 300).save(tmp_path / "photographs" / "low.png")
    result = run(*command, cwd=tmp_path)
    assert result.returncode == 2
    assert "--photographs: photographs: allowed: pictures of 128 pixels a side or more" in result.stderr


def test_the_bundled_one_is_small_and_says_where_it_comes_from():
    assert refiner.ASSET.stat().st_size <= 350_000
    recipe = recipe_of(refiner.ASSET)
    assert recipe["made_by"] == "scripts/refine.py"
    assert recipe["steps"] == recipe["of_steps"]
