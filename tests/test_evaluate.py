"""Compare networks with optimization."""

import json

import numpy as np
import pytest
import torch
from conftest import picture, run
from PIL import Image
from test_optimize import make_loss

from fast_nst import evaluate
from fast_nst.image import to_tensor


def test_equivalent_steps_is_the_first_step_at_most_the_value():
    curve = np.array([8.0, 4.0, 5.0, 3.0], np.float32)
    assert [evaluate.equivalent_steps(curve, value) for value in (9, 8, 4.5, 3.5, 1)] == [0, 0, 1, 3, 4]


def test_curve_starts_at_the_loss_of_the_start_and_is_cached(tmp_path):
    content, loss = to_tensor(picture(1, 64, 64)), make_loss(1, 10)
    cache = evaluate.Curves(tmp_path, "about")
    calls = []
    curve, result = cache.get(content, loss, 5, "content", lambda: calls.append(1))
    assert len(calls) == 5
    with torch.no_grad():
        first = float(loss(content, content)["loss"])
    assert curve[0] == pytest.approx(first, rel=1e-5)
    assert curve[-1] < curve[0]
    cached_curve, cached_result = cache.get(content, loss, 5, "content", lambda: calls.append(1))
    assert len(calls) == 5
    assert np.array_equal(curve, cached_curve)
    assert (cached_result - result).abs().max() < 1 / 255
    for other in (evaluate.Curves(tmp_path, "else"), cache):
        steps = 5 if other is not cache else 4
        other.get(content, loss, steps, "content", lambda: calls.append(1))
    assert len(calls) == 5 + 5 + 4


def test_evaluate_command(trained, workplace):
    file = trained[0] / "my painting.safetensors"
    result = run(
        "evaluate.py", file, file, "--style", "my painting.png", "--content", "photographs", "--images", 2, "--sizes",
        64, "--steps", 4, "--json", "scores.json", "--sheet", "scores.png", "--cache", "curves", cwd=workplace,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "equivalent steps from noise" in result.stdout
    figures = json.loads((workplace / "scores.json").read_text())[str(file)]["64"]
    assert figures["loss"] == pytest.approx(figures["content"] + 10 * figures["style"], rel=1e-4)
    assert set(figures["equivalent steps from content"]) == {"median", "quartile_1", "quartile_3"}
    with Image.open(workplace / "scores.png") as sheet:
        assert sheet.size == (5 * 68 - 4, 16 + 2 * 68 - 4)  # the same file twice
    assert 0 < figures["SSIM"] < 1
    assert figures["tv"] > 0
    for option, name, message in (
        ("--json", file, "ends in .json"), ("--json", "scores.json", "already exists; give --overwrite"),
        ("--sheet", "scores.png", "already exists"), ("--cache", "scores.png", "is a file"),
    ):  # fmt: skip
        wrong = run("evaluate.py", file, "--content", "photographs", option, name, cwd=workplace)
        assert (wrong.returncode, message in wrong.stderr) == (2, True), wrong.stderr
    wrong = run("evaluate.py", file, "--style", "none.jpg", "--content", "photographs", cwd=workplace)
    assert (wrong.returncode, len(wrong.stderr.strip().splitlines())) == (2, 1), wrong.stderr
