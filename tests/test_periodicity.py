"""The term against rows, weaves and lattices."""

import numpy as np
import pytest
import torch
from conftest import picture
from losses import loss_network

from fast_nst.image import to_tensor
from fast_nst.losses import PerceptualLoss, periodicity

NOISE = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
GREY = torch.full((1, 3, 96, 128), 0.5)


def stripes(period: float, angle: float = 0.0) -> torch.Tensor:
    """(1, 3, 96, 128): grey with faint lines."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    wave = torch.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
    return 0.5 + 0.05 * wave.expand(1, 3, -1, -1)


def slow(image: np.ndarray, photograph: np.ndarray, allowed: np.ndarray) -> float:
    """The term of one image, (3, H, W) each, frequency by frequency."""
    window = np.outer(*[0.5 - 0.5 * np.cos(2 * np.pi * np.arange(64) / 64)] * 2)

    def power(square: np.ndarray) -> np.ndarray:
        grey = np.tensordot((0.299, 0.587, 0.114), square, 1)
        return np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2

    values = []
    for top in range(0, image.shape[1] - 63, 64):
        for left in range(0, image.shape[2] - 63, 64):
            ours, theirs = (power(x[:, top : top + 64, left : left + 64]) for x in (image, photograph))
            rings: dict[int, list[tuple[float, float]]] = {}
            for down in range(-32, 32):
                for across in range(33):
                    if across > 0 or down >= 0:
                        pair = ours[down, across], theirs[down, across]
                        rings.setdefault(round(np.hypot(down, across)), []).append(pair)
            whole = sum(a for ring in range(3, 32) for a, _ in rings[ring])
            whole += 0.007**2 * 64**2 * (window**2).sum() / 2
            value = 0.0
            for ring in range(8, 32):
                more = np.array([max(a - b, 0) for a, b in rings[ring]])
                peaked = (more**2).mean() / (more.mean() ** 2 + 1e-9 / len(more) ** 2)
                value += more.sum() / whole * max(peaked / allowed[ring] - 1, 0)
            values.append(value)
    return float(np.mean(values))


def test_it_is_what_its_words_say():
    image, photograph = 0.5 + 0.2 * (NOISE - 0.5) + stripes(5, 0.4) - 0.5, stripes(9, 1.0) + 0.05 * NOISE
    allowed = torch.linspace(1, 3, 32)
    expected = slow(image[0].double().numpy(), photograph[0].double().numpy(), allowed.double().numpy())
    assert expected > 0.01
    assert float(periodicity.periodicity(image, photograph, allowed)) == pytest.approx(expected, rel=1e-3)


def test_rows_cost_where_neither_painting_nor_photograph_has_them():
    noise, grating = periodicity.usual(NOISE), periodicity.usual(stripes(4, 0.3))
    assert noise[8:].max() < 3
    rows = float(periodicity.periodicity(stripes(4, 0.3), GREY, noise))
    assert rows > 5
    assert float(periodicity.periodicity(stripes(4, 0.3), GREY, grating)) < 0.02 * rows
    assert float(periodicity.periodicity(stripes(4, 0.3), stripes(4, 0.3), noise)) == 0
    assert float(periodicity.periodicity(NOISE, GREY, noise)) < 0.02 * rows
    assert float(periodicity.periodicity(stripes(20, 0.3), GREY, noise)) < 0.02 * rows  # a stroke's width
    assert float(periodicity.periodicity(0.5 + 0.01 * (stripes(4) - 0.5), GREY, noise)) < 0.02 * rows


def test_its_gradient_takes_the_rows_away():
    image = (0.5 + 0.1 * (NOISE - 0.5) + 0.3 * (stripes(4, 0.3) - 0.5)).requires_grad_()
    allowed = periodicity.usual(NOISE)
    values = []
    for _ in range(40):
        value = periodicity.periodicity(image, GREY, allowed).sum()
        values.append(float(value.detach()))
        (gradient,) = torch.autograd.grad(value, image)
        image = (image - 0.002 * gradient / gradient.abs().max().clamp_min(1e-9)).detach().requires_grad_()
    assert values[-1] < 0.1 * values[0]


def test_a_loss_with_it():
    photograph, painting = to_tensor(picture(1, 96, 128)), to_tensor(picture(2, 96, 96))
    tables = {"content_layers": {"relu2_2": 1.0}, "style_layers": {"relu1_2": 1.0}, "content_weight": 1.0}
    network = loss_network(["relu1_2", "relu2_2"])
    loss = PerceptualLoss(network, painting, [(NOISE, 3.0)], **tables, style_weight=2.0, periodicity_weight=0.5)
    terms = {name: float(value) for name, value in loss(stripes(4), photograph).items()}
    allowed = (periodicity.usual(painting) + 3 * periodicity.usual(NOISE)) / 4
    assert terms["periodicity"] == pytest.approx(float(periodicity.periodicity(stripes(4), photograph, allowed)))
    assert terms["periodicity"] > 0.1
    assert terms["loss"] == pytest.approx(terms["content"] + 2 * terms["style"] + 0.5 * terms["periodicity"])
    pair = [torch.cat(two) for two in ((stripes(4), NOISE), (photograph, photograph))]
    assert float(loss(*pair)["periodicity"]) == pytest.approx(terms["periodicity"])  # the first stands for both
    small = [x[..., :48, :48] for x in (stripes(4), photograph)]
    assert float(loss(*small)["periodicity"]) == 0  # no square fits
    plain = PerceptualLoss(network, painting, **tables, style_weight=0.0, periodicity_weight=0.5)
    assert float(plain(stripes(4), photograph)["periodicity"]) == 0
