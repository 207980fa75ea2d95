"""Distilling the bundled loss network (scripts/assets/distill.py), on small data."""

import functools
import itertools
import json
import shutil
import sys
from pathlib import Path

import distill
import numpy as np
import pca
import pytest
import safetensors
import torch
from conftest import random_vgg_state, run
from safetensors.torch import save_file

from fast_nst import loss_networks, machine
from fast_nst.loss_networks import compact
from fast_nst.losses.functional import gram

CONVOLUTIONS = len(compact.VGG_16)


def test_moments_are_means_over_images_of_any_size():
    images, moments = [torch.rand(1, 3, 8, 9), torch.rand(2, 3, 5, 4)], pca.Moments()
    for batch in images:
        moments.add(batch)
    singles = [image.double().flatten(1) for batch in images for image in batch]
    second = sum(x @ x.T / x.shape[1] for x in singles) / 3
    mean = sum(x.mean(1) for x in singles) / 3
    torch.testing.assert_close(moments.uncentered(), second)
    covariance, centered_mean = moments.centered()
    torch.testing.assert_close(centered_mean, mean)
    torch.testing.assert_close(covariance, second - mean[:, None] * mean)


def test_full_rank_student_equals_teacher(monkeypatch, tmp_path):
    """A teacher whose last filters are zero has one component fewer than channels, so nothing is lost."""
    state = random_vgg_state("vgg16", CONVOLUTIONS)
    for name, value in state.items():
        if not name.startswith(("features.0.", "features.2.")):
            value[-1] = 0
    save_file(state, tmp_path / "vgg16.safetensors")
    teacher = loss_networks.build("vgg16", compact.LAYERS, tmp_path / "vgg16.safetensors")
    teacher.double()  # the smallest of 512 components need the precision

    def copied(teacher, images, block, steps, rng):
        for index in (0, 2):
            block[index].load_state_dict(teacher.features[index].state_dict())
        return torch.eye(64)

    monkeypatch.setattr(pca, "fit_first_block", copied)
    channels = list(compact.VGG_16.values())
    # Some ranks equal the number of channels, which must give the same result.
    ranks = [(64, 127), *((a - i % 2, b - i // 2 % 2) for i, (a, b) in enumerate(itertools.pairwise(channels[2:])))]
    image = torch.rand(1, 3, 64, 64)
    images = [
        torch.rand(1, 3, 192, 192),
        torch.rand(2, 3, 96, 128),
        image,
    ]  # more positions than channels at every layer
    student = pca.low_rank(teacher, images, (64, 64), ranks, np.random.default_rng(0))
    student_features, teacher_features = student(image), teacher(image)
    assert tuple(student_features) == compact.LAYERS
    for name, value in student_features.items():
        expected = teacher_features[name].float()
        assert float((value - expected).norm() / expected.norm()) < 1e-3


def test_first_block_learns_the_teacher_s_features(tmp_path):
    save_file(random_vgg_state("vgg16", 2), tmp_path / "vgg16.safetensors")
    teacher = loss_networks.build("vgg16", ["relu1_2"], tmp_path / "vgg16.safetensors")
    images, image, errors = [torch.rand(1, 3, 80, 96)], torch.rand(1, 3, 48, 48), []
    for steps in (1, 40):
        torch.manual_seed(0)
        block = compact.low_rank_vgg((8, 16), ((16, 4), *((4, 4),) * 7)).features[:4]
        expand = pca.fit_first_block(teacher, images, block, steps, np.random.default_rng(0))
        assert expand.shape == (64, 16)
        with torch.no_grad():
            expected = teacher(image)["relu1_2"]
            features = torch.einsum("ok,bkhw->bohw", expand, block(teacher.normalize(image)))
        errors.append(float((features - expected).square().mean() / expected.square().mean()))
    assert errors[1] < 0.65 * errors[0]


def test_crops_have_every_offset_modulo_8():
    side = 128
    numbers = torch.arange(side * side).view(1, 1, side, side)
    rng, phases = np.random.default_rng(0), set()
    for _ in range(600):
        part = distill.crop(numbers, side - 24, side - 16, rng)
        top, left = divmod(int(part[0, 0, 0, 0]), side)
        assert torch.equal(part, numbers[:, :, top : top + side - 24, left : left + side - 16])
        phases.add((top % 8, left % 8))
    assert len(phases) == 64


def test_direction_error_ignores_a_gram_error_that_image_and_style_share():
    """Concatenating an error to features along the width adds its Gram to theirs."""
    style, images, error = torch.rand(1, 4, 6, 5), torch.rand(2, 4, 6, 5), torch.rand(1, 4, 6, 5)

    def concatenate(features, more):
        return {"relu1_2": torch.cat([features, more.expand_as(features)], 3)}

    teacher, teacher_style = concatenate(images, 0 * error), concatenate(style, 0 * error)
    student = concatenate(images, error)
    shared = distill.errors(student, teacher, concatenate(style, error), teacher_style)
    assert shared["direction"]["relu1_2"].tolist() == pytest.approx([0, 0], abs=1e-9)
    not_shared = distill.errors(student, teacher, teacher_style, teacher_style)
    error_gram, style_gram = gram(concatenate(error, 0 * error)["relu1_2"]), gram(teacher_style["relu1_2"])
    expected = float(error_gram.square().sum() / style_gram.square().sum())
    assert not_shared["direction"]["relu1_2"].tolist() == pytest.approx([expected, expected], rel=1e-4)
    for errors in (shared, not_shared):
        for i in range(2):
            energy = float(images[i].square().sum())
            assert float(errors["features"]["relu1_2"][i]) == pytest.approx(float(error.square().sum()) / energy)
            gram_energy = gram(teacher["relu1_2"])[i].square().sum()
            assert float(errors["Grams"]["relu1_2"][i]) == pytest.approx(float(error_gram.square().sum() / gram_energy))


def test_bfloat16_features_have_gradients_for_float32_weights():
    student = compact.low_rank_vgg((4, 8), ((8, 4), *((4, 4),) * 7))
    student.requires_grad_(True)
    image = torch.rand(1, 3, 32, 32)
    plain, bf16 = student(image)["relu2_2"], distill.in_bfloat16(student, image)["relu2_2"]
    assert bf16.dtype == torch.float32
    assert 0 < float((plain - bf16).detach().norm() / plain.detach().norm()) < 0.03
    assert all(weight.dtype == torch.float32 for weight in student.parameters())
    used = [weight for index in (0, 2, 5) for weight in student.features[index].parameters()]
    gradients, expected = (torch.autograd.grad(x.square().sum(), used) for x in (bf16, plain))
    for gradient, reference in zip(gradients, expected, strict=True):
        assert gradient.dtype == torch.float32
        assert float((gradient - reference).norm() / reference.norm()) < 0.1


@pytest.mark.slow
def test_distill_writes_a_loss_network_with_its_recipe(workplace: Path, monkeypatch, capsys):
    """The first block trains for only 5 steps, because it takes most of the time."""
    monkeypatch.setattr(distill, "low_rank", functools.partial(pca.low_rank, steps=5))
    monkeypatch.setattr(machine, "keep_freed_memory", lambda: None)  # not in the test process
    monkeypatch.chdir(workplace)
    save_file(random_vgg_state("vgg16", CONVOLUTIONS), workplace / "vgg16.safetensors")
    (workplace / "one style").mkdir(exist_ok=True)
    shutil.copy(workplace / "my painting.png", workplace / "one style")
    options = ["--vgg", "vgg16.safetensors", "--photographs", "photographs", "--styles", "one style", "--steps", "2"]
    monkeypatch.setattr(sys, "argv", ["distill.py", *options, "--seed", "5", "-o", "c.safetensors"])
    distill.main()
    output, errors = capsys.readouterr()
    assert output.strip() == "c.safetensors"
    assert "step 2/2" in errors
    network = loss_networks.build("compact", compact.LAYERS, workplace / "c.safetensors")
    features = network(torch.rand(1, 3, 16, 24))
    assert {name: tuple(value.shape) for name, value in features.items()} == {
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
        result = run("distill.py", *(word for pair in options.items() for word in pair), cwd=workplace)
        assert (result.returncode, len(result.stderr.strip().splitlines())) == (2, 1), result.stderr
        assert message in result.stderr
    assert not (workplace / "d.safetensors").exists()


def test_bundled_loss_network_is_small_and_records_its_origin():
    assert compact.ASSET.stat().st_size <= 4_000_000
    with safetensors.safe_open(compact.ASSET, "pt") as file:
        recipe = json.loads(file.metadata()["fast_nst_loss_network"])
    assert recipe["made_by"] == "scripts/assets/distill.py"
    assert recipe["teacher"].startswith("VGG-16")
    assert recipe["steps"] == recipe["of_steps"]
