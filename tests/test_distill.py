"""How the bundled loss network is made: scripts/assets/distill.py, on little."""

import functools
import itertools
import json
import shutil
import sys
from pathlib import Path

import distill
import low_rank
import numpy as np
import pytest
import safetensors
import torch
from conftest import random_vgg_state, run
from safetensors.torch import save_file

from fast_nst import device, loss_networks
from fast_nst.loss_networks import compact
from fast_nst.losses.functional import gram

CONVOLUTIONS = len(compact.VGG_16)


def test_moments_are_means_over_images_of_any_size():
    images, moments = [torch.rand(1, 3, 8, 9), torch.rand(2, 3, 5, 4)], low_rank.Moments()
    for batch in images:
        moments.add(batch)
    singles = [image.double().flatten(1) for batch in images for image in batch]
    second = sum(x @ x.T / x.shape[1] for x in singles) / 3
    mean = sum(x.mean(1) for x in singles) / 3
    torch.testing.assert_close(moments.uncentered(), second)
    covariance, found = moments.centered()
    torch.testing.assert_close(found, mean)
    torch.testing.assert_close(covariance, second - mean[:, None] * mean)


def test_with_as_many_components_as_there_are_it_is_the_teacher(monkeypatch, tmp_path):
    """A teacher whose last filters never fire has one component less than channels; nothing of it is cut off."""
    state = random_vgg_state("vgg16", CONVOLUTIONS)
    for name, value in state.items():
        if not name.startswith(("features.0.", "features.2.")):
            value[-1] = 0
    save_file(state, tmp_path / "vgg16.safetensors")
    teacher = loss_networks.build("vgg16", compact.LAYERS, tmp_path / "vgg16.safetensors")
    teacher.double()  # the least of 512 components are small

    def copied(teacher, images, block, steps, rng):
        for index in (0, 2):
            block[index].load_state_dict(teacher.features[index].state_dict())
        return torch.eye(64)

    monkeypatch.setattr(low_rank, "fit_first_block", copied)
    channels = list(compact.VGG_16.values())
    # As many as there are channels too, where one more is no less the teacher's.
    ranks = [(64, 127), *((a - i % 2, b - i // 2 % 2) for i, (a, b) in enumerate(itertools.pairwise(channels[2:])))]
    image = torch.rand(1, 3, 64, 64)
    images = [torch.rand(1, 3, 192, 192), torch.rand(2, 3, 96, 128), image]  # more positions than channels everywhere
    student = low_rank.low_rank(teacher, images, (64, 64), ranks, np.random.default_rng(0))
    found, features = student(image), teacher(image)
    assert tuple(found) == compact.LAYERS
    for name, value in found.items():
        wanted = features[name].float()
        assert float((value - wanted).norm() / wanted.norm()) < 1e-3


def test_the_first_block_learns_what_the_teacher_s_gives(tmp_path):
    save_file(random_vgg_state("vgg16", 2), tmp_path / "vgg16.safetensors")
    teacher = loss_networks.build("vgg16", ["relu1_2"], tmp_path / "vgg16.safetensors")
    images, image, errors = [torch.rand(1, 3, 80, 96)], torch.rand(1, 3, 48, 48), []
    for steps in (1, 40):
        torch.manual_seed(0)
        block = compact.low_rank_vgg((8, 16), ((16, 4), *((4, 4),) * 7)).features[:4]
        back = low_rank.fit_first_block(teacher, images, block, steps, np.random.default_rng(0))
        assert back.shape == (64, 16)
        with torch.no_grad():
            wanted = teacher(image)["relu1_2"]
            found = torch.einsum("ok,bkhw->bohw", back, block(teacher.normalize(image)))
        errors.append(float((found - wanted).square().mean() / wanted.square().mean()))
    assert errors[1] < 0.65 * errors[0]


def test_the_student_sees_a_picture_in_every_phase_of_its_strides():
    side = 128
    numbers = torch.arange(side * side).view(1, 1, side, side)
    rng, phases = np.random.default_rng(0), set()
    for _ in range(600):
        found = distill.crop(numbers, side - 24, side - 16, rng)
        top, left = divmod(int(found[0, 0, 0, 0]), side)
        assert torch.equal(found, numbers[:, :, top : top + side - 24, left : left + side - 16])
        phases.add((top % 8, left % 8))
    assert len(phases) == 64


def test_an_error_that_picture_and_painting_share_misleads_nobody():
    """Features beside each other, so that Grams add up: those of a picture, or a painting, and those of an error."""
    painting, picture, error = torch.rand(1, 4, 6, 5), torch.rand(2, 4, 6, 5), torch.rand(1, 4, 6, 5)

    def beside(features, more):
        return {"relu1_2": torch.cat([features, more.expand_as(features)], 3)}

    true, true_goal = beside(picture, 0 * error), beside(painting, 0 * error)
    ours = beside(picture, error)
    shared = distill.errors(ours, true, beside(painting, error), true_goal)
    assert shared["direction"]["relu1_2"].tolist() == pytest.approx([0, 0], abs=1e-9)
    alone = distill.errors(ours, true, true_goal, true_goal)
    off, goal = gram(beside(error, 0 * error)["relu1_2"]), gram(true_goal["relu1_2"])
    share = float(off.square().sum() / goal.square().sum())
    assert alone["direction"]["relu1_2"].tolist() == pytest.approx([share, share], rel=1e-4)
    for found in (shared, alone):
        for i in range(2):
            size = float(picture[i].square().sum())
            assert float(found["features"]["relu1_2"][i]) == pytest.approx(float(error.square().sum()) / size)
            of_picture = gram(true["relu1_2"])[i].square().sum()
            assert float(found["Grams"]["relu1_2"][i]) == pytest.approx(float(off.square().sum() / of_picture))


def test_a_step_in_bfloat16_is_for_the_weights_in_float32():
    student = compact.low_rank_vgg((4, 8), ((8, 4), *((4, 4),) * 7))
    student.requires_grad_(True)
    image = torch.rand(1, 3, 32, 32)
    plain, low = student(image)["relu2_2"], distill.in_bfloat16(student, image)["relu2_2"]
    assert low.dtype == torch.float32
    assert 0 < float((plain - low).detach().norm() / plain.detach().norm()) < 0.03
    assert all(weight.dtype == torch.float32 for weight in student.parameters())
    used = [weight for index in (0, 2, 5) for weight in student.features[index].parameters()]
    found, wanted = (torch.autograd.grad(x.square().sum(), used) for x in (low, plain))
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == torch.float32
        assert float((ours - theirs).norm() / theirs.norm()) < 0.1


def test_it_makes_a_loss_network_and_says_how(workplace: Path, monkeypatch, capsys):
    """With little training of the first block, which is most of the time."""
    monkeypatch.setattr(distill, "low_rank", functools.partial(low_rank.low_rank, steps=5))
    monkeypatch.setattr(device, "keep_memory", lambda: None)  # of these tests' own process
    monkeypatch.chdir(workplace)
    save_file(random_vgg_state("vgg16", CONVOLUTIONS), workplace / "vgg16.safetensors")
    (workplace / "one style").mkdir(exist_ok=True)
    shutil.copy(workplace / "my painting.png", workplace / "one style")
    words = ["--vgg", "vgg16.safetensors", "--photographs", "photographs", "--styles", "one style", "--steps", "2"]
    monkeypatch.setattr(sys, "argv", ["distill.py", *words, "--seed", "5", "-o", "c.safetensors"])
    distill.main()
    output, errors = capsys.readouterr()
    assert output.strip() == "c.safetensors"
    assert "step 2/2" in errors
    network = loss_networks.build("compact", compact.LAYERS, workplace / "c.safetensors")
    found = network(torch.rand(1, 3, 16, 24))
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "relu1_2": (1, 64, 16, 24), "relu2_2": (1, 128, 8, 12), "relu3_3": (1, 256, 4, 6), "relu4_3": (1, 512, 2, 3),
    }  # fmt: skip
    with safetensors.safe_open(workplace / "c.safetensors", "pt") as file:
        recipe = json.loads(file.metadata()["fast_nst_loss_network"])
    assert (recipe["steps"], recipe["of_steps"], recipe["seed"]) == (2, 2, 5)
    assert (recipe["photographs"], recipe["paintings"]) == (8, 1)
    assert recipe["teacher"].startswith("VGG-16")
    assert recipe["ranks"] == [list(pair) for pair in distill.RANKS]
    errors = recipe["relative_errors_of_outputs"]
    assert errors.keys() == {f"{kind} / {divisor}" for kind in ("features", "Grams", "direction") for divisor in (1, 2)}
    assert all(tuple(row) == compact.LAYERS for row in errors.values())
    for option, value, message in (
        ("--vgg", "my painting.png", "--vgg: "), ("--photographs", "nowhere", "--photographs: nowhere: no such folder"),
        ("--styles", "nowhere", "--styles: nowhere: no such folder"), ("--steps", 0, "--steps: got 0"),
    ):  # fmt: skip
        options = {"--vgg": "vgg16.safetensors", "--photographs": "photographs", "-o": "d.safetensors", option: value}
        wrong = run("distill.py", *(word for pair in options.items() for word in pair), cwd=workplace)
        assert (wrong.returncode, len(wrong.stderr.strip().splitlines())) == (2, 1), wrong.stderr
        assert message in wrong.stderr
    assert not (workplace / "d.safetensors").exists()


def test_the_bundled_one_is_small_and_says_where_it_comes_from():
    assert compact.ASSET.stat().st_size <= 4_000_000
    with safetensors.safe_open(compact.ASSET, "pt") as file:
        recipe = json.loads(file.metadata()["fast_nst_loss_network"])
    assert recipe["made_by"] == "scripts/assets/distill.py"
    assert recipe["teacher"].startswith("VGG-16")
    assert recipe["steps"] == recipe["of_steps"]
