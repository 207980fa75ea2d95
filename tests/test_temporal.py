"""The temporal loss against plain loops, and in a training step."""

import numpy as np
import pytest
import torch
from conftest import run, small
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fast_nst import networks
from fast_nst.losses import temporal
from fast_nst.methods.style_transfer import training_terms


def bent_slowly(points: np.ndarray, shift: tuple[int, int], height: int, width: int) -> np.ndarray:
    """What OpenCV's resize and blur do, pixel by pixel."""
    _, h, w = points.shape
    motion = np.zeros((2, height, width))
    for y in range(height):
        for x in range(width):
            v, u = (y + 0.5) * h / height - 0.5, (x + 0.5) * w / width - 0.5
            v, u = min(max(v, 0), h - 1), min(max(u, 0), w - 1)
            top, left = int(v), int(u)
            bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
            a, b = v - top, u - left
            upper = (1 - b) * points[:, top, left] + b * points[:, top, right]
            lower = (1 - b) * points[:, bottom, left] + b * points[:, bottom, right]
            motion[:, y, x] = (1 - a) * upper + a * lower + np.array(shift)
    padded = np.pad(motion, ((0, 0), (50, 49), (50, 49)), mode="reflect")
    return np.stack(
        [[padded[:, y : y + 100, x : x + 100].mean((1, 2)) for x in range(width)] for y in range(height)], 1
    ).transpose(2, 1, 0)


def warped_slowly(image: np.ndarray, motion: np.ndarray) -> np.ndarray:
    result = np.zeros_like(image)
    _, height, width = image.shape
    for y in range(height):
        for x in range(width):
            row = min(max(round(y - motion[1, y, x]), 0), height - 1)
            column = min(max(round(x - motion[0, y, x]), 0), width - 1)
            result[:, y, x] = image[:, row, column]
    return result


def test_motion_equals_a_loop_over_pixels():
    points = torch.randn(1, 2, 2, 3) * 8
    motion = temporal.bend(points, torch.tensor([4, -7]), 110, 120)
    expected = bent_slowly(points[0].double().numpy(), (4, -7), 110, 120)
    np.testing.assert_allclose(motion[0].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_loss_equals_a_loop_over_pixels():
    first, second = torch.rand(2, 3, 20, 30), torch.rand(2, 3, 20, 30)
    motion = torch.randn(1, 2, 20, 30) * 5
    slow = [warped_slowly(image.numpy(), motion[0].numpy()) for image in first]
    expected = np.mean([np.abs(a - b.numpy()).mean() for a, b in zip(slow, second, strict=True)])
    assert float(temporal.temporal_loss(first, second, motion)) == pytest.approx(expected, rel=1e-5)


def test_motion_to_the_right_moves_the_picture_to_the_right():
    image = torch.rand(1, 1, 8, 8)
    motion = torch.tensor([2.0, 0.0])[None, :, None, None].expand(1, 2, 8, 8)
    assert torch.equal(temporal.warp(image, motion)[..., 2:], image[..., :-2])


def test_second_frame_is_the_moved_one_with_a_little_noise():
    content = torch.rand(4, 3, 120, 120)
    motion = temporal.random_motion(120, 120)
    noise = temporal.second_frame(content, motion) - temporal.warp(content, motion)
    assert 0.001 <= float(noise.std()) <= 0.00205
    assert float(motion.abs().max()) > 1
    assert not torch.equal(motion, temporal.random_motion(120, 120))


def test_a_small_picture_has_motion_too():
    assert temporal.random_motion(16, 5).shape == (1, 2, 16, 5)


class Recorder:
    """A network that keeps what it is given."""

    def __init__(self) -> None:
        self.calls: list[torch.Tensor] = []

    def __call__(self, content: torch.Tensor, style: torch.Tensor | None = None) -> torch.Tensor:
        self.calls.append(content)
        return 1 - content.square()


def test_the_step_adds_the_weighted_temporal_term(images):
    network, loss = Recorder(), lambda output, content, style: {"loss": (output - content).mean()}
    content = images[0]
    motion = temporal.random_motion(*content.shape[2:])
    moved = temporal.second_frame(content, motion)
    batch = {"content": content, "moved": moved, "motion": motion}
    terms = training_terms(network, batch, loss=loss, temporal_weight=7.0)
    expected = temporal.temporal_loss(1 - content.square(), 1 - moved.square(), motion)
    torch.testing.assert_close(terms["temporal"], expected)
    torch.testing.assert_close(terms["loss"], (1 - content.square() - content).mean() + 7 * expected)
    assert [call.shape[0] for call in network.calls] == [4]
    plain = training_terms(network, {"content": content}, loss=loss, temporal_weight=7.0)
    assert "temporal" not in plain


def test_both_frames_get_the_same_noise(images):
    network = networks.build("slim", width=8, blocks=1, noise=5.0).train()
    content = images[0]
    still = torch.zeros(1, 2, *content.shape[2:])
    loss = lambda output, content, style: {"loss": output.mean()}  # noqa: E731
    terms = training_terms(network, {"content": content, "moved": content, "motion": still}, loss=loss)
    assert terms["temporal"].item() < 1e-5


def test_experiment_video_trains_with_the_term_and_a_weight_of_its_own(workplace):
    settings = [*small(workplace), "style.image='my painting.png'", "trainer.max_steps=2", "output_dir=steady"]
    result = run("train.py", *settings, "experiment=video", "loss.temporal_weight=3", cwd=workplace)
    assert result.returncode == 0, result.stderr
    recorded = OmegaConf.load(workplace / "steady" / "config.yaml")
    assert recorded.loss.temporal_weight == 3
    events = EventAccumulator(str(workplace / "steady" / "tensorboard")).Reload()
    assert events.Scalars("train/temporal")[-1].value > 0
    plain = run("train.py", *settings[:-1], "output_dir=unsteady", cwd=workplace)
    assert plain.returncode == 0, plain.stderr
    events = EventAccumulator(str(workplace / "unsteady" / "tensorboard")).Reload()
    assert "train/temporal" not in events.Tags()["scalars"]


def test_a_negative_weight_is_an_error_of_one_line(workplace):
    result = run("train.py", *small(workplace), "style.image='my painting.png'", "loss.temporal_weight=-1",
                 "output_dir=negative", cwd=workplace)  # fmt: skip
    assert (result.returncode, len(result.stderr.strip().splitlines())) == (2, 1), result.stderr
    assert "loss.temporal_weight: got -1; allowed: a number >= 0" in result.stderr
