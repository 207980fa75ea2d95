"""How the bundled loss network is made: scripts/distill.py, on little."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from conftest import ROOT, random_vgg_state, run
from safetensors.torch import load_file, save_file

from fast_nst import loss_networks
from fast_nst.loss_networks import compact

sys.path.insert(0, str(ROOT / "scripts"))

import bases
import student_errors
import studio


def test_a_basis_keeps_the_largest_part_of_the_gram():
    activations = torch.randn(6, 500, dtype=torch.float64) * torch.tensor([5.0, 4, 3, 0.2, 0.1, 0.1])[:, None]
    moment = activations @ activations.T / 500
    basis, share = bases.principal_basis(moment, 3)
    outputs = basis.double() @ activations
    assert float(outputs.square().mean()) == pytest.approx(1, rel=1e-5)
    product = basis @ basis.T
    torch.testing.assert_close(product, torch.eye(3) * product[0, 0], rtol=1e-4, atol=1e-5)
    values = torch.linalg.eigvalsh(moment)
    assert share == pytest.approx(float(values[3:].square().sum() / values.square().sum()))


def test_a_member_is_compared_at_the_positions_it_holds():
    numbers = torch.arange(8 * 12).view(1, 1, 8, 12)
    for member in range(4):
        down, right = compact.offset(member)
        found = compact.held(numbers, "relu1_2", member)
        wanted = [[12 * (4 * i + down) + 4 * j + right for j in range(3)] for i in range(2)]
        assert found[0, 0].tolist() == wanted
        assert torch.equal(compact.held(numbers, "relu3_4", member), numbers)


def test_the_reference_begins_as_the_teacher_itself(monkeypatch, tmp_path):
    """With as many components as channels nothing is cut off."""
    monkeypatch.setattr(bases, "RANKS", tuple(itertools.pairwise(compact.VGG_19.values())))
    save_file(random_vgg_state("vgg19", 8), tmp_path / "vgg19.safetensors")
    teacher = loss_networks.build("vgg19", bases.OUTPUTS, tmp_path / "vgg19.safetensors")
    batches = [torch.rand(1, 3, 32, 32), torch.rand(2, 3, 32, 48)]
    found_bases, _ = bases.find_bases(teacher, batches)
    reference = bases.make_reference(teacher, found_bases, batches)
    image = torch.rand(1, 3, 32, 32)
    wanted = bases.Targets(teacher, found_bases)(image)
    found = reference(image)
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-3, atol=1e-3)


def test_students_see_a_picture_in_every_phase_of_its_lattice():
    side = 128
    numbers = torch.arange(side * side).view(1, 1, side, side)
    rng, phases = np.random.default_rng(0), set()
    for _ in range(200):
        found = studio.crop_of(numbers, rng, side - 16)
        top, left = divmod(int(found[0, 0, 0, 0]), side)
        assert torch.equal(found, numbers[:, :, top : top + side - 16, left : left + side - 16])
        phases.add((top % 4, left % 4))
    assert len(phases) == 16


def test_an_error_that_picture_and_painting_share_misleads_nobody():
    painting, picture, shared = torch.rand(1, 4, 4), torch.rand(2, 4, 4), torch.rand(1, 4, 4)
    goal = {"relu1_2": (painting + shared, painting)}
    assert student_errors.way_errors({"relu1_2": (picture + shared, picture)}, goal)["relu1_2"] == pytest.approx(
        [0, 0], abs=1e-9
    )
    found = student_errors.way_errors({"relu1_2": (picture, picture)}, goal)["relu1_2"]
    assert found == pytest.approx([float(shared.square().sum() / painting.square().sum())] * 2)


def test_it_makes_a_loss_network_and_says_how(workplace: Path):
    save_file(random_vgg_state("vgg19", 8), workplace / "vgg19.safetensors")
    result = run(
        "distill.py", "--vgg", "vgg19.safetensors", "--photographs", "photographs", "--steps", 2, "-o", "c.safetensors",
        cwd=workplace,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "c.safetensors"
    network = loss_networks.build("compact", ["relu1_2", "relu3_4"], workplace / "c.safetensors")
    assert network.members == 2
    assert network.referred
    for member in range(2):
        found = network(torch.rand(1, 3, 16, 20), member=member)
        assert {name: tuple(value.shape) for name, value in found.items()} == {
            "relu1_2": (1, 24, 4, 5), "relu3_4": (1, 64, 4, 5),
        }  # fmt: skip
    with safetensors.safe_open(workplace / "c.safetensors", "pt") as file:
        recipe = json.loads(file.metadata()["fast_nst_loss_network"])
    assert (recipe["steps"], recipe["photographs"], recipe["styles"], recipe["seed"]) == (2, 8, 7, 0)
    go_on = [
        "distill.py",
        "--vgg",
        "vgg19.safetensors",
        "--photographs",
        "photographs",
        "-o",
        "d.safetensors",
        "--start",
    ]
    result = run(*go_on, "c.safetensors", "--steps", 1, "--learning-rate", 0, cwd=workplace)
    assert result.returncode == 0, result.stderr
    before, after = (load_file(workplace / name) for name in ("c.safetensors", "d.safetensors"))
    for name, value in after.items():
        if name.startswith("students") and "features" in name:
            assert torch.equal(value, before[name])
    with safetensors.safe_open(workplace / "d.safetensors", "pt") as file:
        again = json.loads(file.metadata()["fast_nst_loss_network"])
    for name in ("relu1_2", "relu3_4"):  # heads that fit what comes before them
        errors = [x["relative_errors"]["students"]["photographs / 1"][name] for x in (again, recipe)]
        assert errors[0] < 0.9 * errors[1]
    result = run(*go_on, "vgg19.safetensors", cwd=workplace)
    assert result.returncode == 2
    assert "not a file of this script with 2 students 64 wide" in result.stderr


def test_the_bundled_one_is_small_and_says_where_it_comes_from():
    assert compact.ASSET.stat().st_size <= 2_000_000
    with safetensors.safe_open(compact.ASSET, "pt") as file:
        recipe = json.loads(file.metadata()["fast_nst_loss_network"])
    assert recipe["made_by"] == "scripts/distill.py"
    assert recipe["teacher"].startswith("VGG-19")
    assert recipe["steps"] == recipe["of_steps"]
