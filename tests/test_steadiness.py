"""The temporal error: exact flow, by construction."""

import json

import numpy as np
import pytest
import torch
from conftest import picture, run

from fast_nst import evaluate
from fast_nst.image import to_tensor

SIZE = 96


@pytest.fixture(scope="module")
def still() -> torch.Tensor:
    return to_tensor(picture(4, round(evaluate.STILL * SIZE), round(evaluate.STILL * SIZE)))


def test_a_frame_shows_what_its_matrix_says(still):
    """The center of a frame of each move, and the picture 3 pixels on in the pan."""
    for name, matrices in evaluate.camera_moves(SIZE).items():
        frames = [evaluate.sample(still, matrix, SIZE)[0] for matrix in matrices]
        assert len(frames) == evaluate.FRAMES
        if name == "pan":
            torch.testing.assert_close(frames[1][..., :-1, :-3], frames[0][..., 1:, 3:], rtol=0, atol=1e-5)
        else:
            middle = still[..., 71:73, 71:73].mean((2, 3))
            for frame in frames:
                torch.testing.assert_close(frame[..., 47:49, 47:49].mean((2, 3)), middle, rtol=0, atol=0.02)


def test_zoom_and_rotation_equal_plain_geometry(still):
    """The color of one pixel, looked up in the photograph by hand."""
    moves = evaluate.camera_moves(SIZE)
    x, y, center = 20, 70, SIZE / 2
    factor = 0.99**5
    angle = np.deg2rad(0.5 * (5 - 3.5))
    dx, dy = x + 0.5 - center, y + 0.5 - center
    places = {
        "zoom": (72 + factor * dx, 72 + factor * dy),
        "rotation": (72 + np.cos(angle) * dx - np.sin(angle) * dy, 72 + np.sin(angle) * dx + np.cos(angle) * dy),
    }
    for name, (u, v) in places.items():
        frame = evaluate.sample(still, moves[name][5], SIZE)[0]
        column, row = int(u - 0.5), int(v - 0.5)
        a, b = u - 0.5 - column, v - 0.5 - row
        patch = still[0, :, row : row + 2, column : column + 2]
        expected = (patch[:, 0] * (1 - b) + patch[:, 1] * b) @ torch.tensor([1 - a, a], dtype=torch.float32)
        torch.testing.assert_close(frame[0, :, y, x], expected, rtol=0, atol=0.01)


def test_error_of_what_moves_along_what_stays_and_noise(still):
    for name, matrices in evaluate.camera_moves(SIZE).items():
        moving = evaluate.temporal_error(still, matrices, SIZE, lambda frame: 1 - frame)
        pattern = torch.rand(1, 3, SIZE, SIZE)
        staying = evaluate.temporal_error(still, matrices, SIZE, lambda frame, pattern=pattern: 0.2 * frame + pattern)
        noise = evaluate.temporal_error(still, matrices, SIZE, torch.rand_like)
        assert moving < (1e-4 if name == "pan" else 0.02)
        assert staying > 0.2
        assert 1.2 < noise < 1.5


def test_contrast_does_not_matter(still):
    matrices = evaluate.camera_moves(SIZE)["zoom"]
    pale, strong = (
        evaluate.temporal_error(still, matrices, SIZE, lambda x, s=s: 0.5 + s * (x + torch.sin(x * 40)))
        for s in (0.01, 0.2)
    )
    assert pale == pytest.approx(strong, rel=1e-3)


def test_evaluate_reports_the_temporal_error_beside_the_style_loss(trained, workplace):
    file = trained[0] / "my painting.safetensors"
    result = run(
        "evaluate.py", file, "--style", "my painting.png", "--content", "photographs", "--images", 1, "--sizes", 64,
        "--steps", 1, "--temporal", "--json", "temporal.json", "--cache", "curves", cwd=workplace,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    figures = json.loads((workplace / "temporal.json").read_text())[str(file)]["64"]
    for move in ("pan", "zoom", "rotation"):
        assert 0 < figures[f"temporal error, {move}"] < 2
        assert figures[f"temporal error, {move}, photograph"] < 0.1
    assert figures["style"] > 0
    assert "temporal error, pan" in result.stdout
