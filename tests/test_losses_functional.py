import numpy as np
import pytest
import torch
from torch import Tensor

from fast_nst.losses import functional


def test_gram_matches_slow_loop():
    features = torch.randn(2, 3, 4, 5)
    expected = torch.zeros(2, 3, 3)
    for b in range(2):
        for i in range(3):
            for j in range(3):
                expected[b, i, j] = sum(
                    features[b, i, y, x] * features[b, j, y, x] for y in range(4) for x in range(5)
                ) / (3 * 4 * 5)
    torch.testing.assert_close(functional.gram(features), expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gram_gradient_is_correct(layout):
    features = torch.randn(2, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    assert torch.autograd.gradcheck(functional.gram, features)


def test_gram_of_bfloat16_sums_in_float32_under_autocast():
    features = torch.rand(1, 8, 64, 64).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = functional.gram(features)
    assert ours.dtype == torch.float32
    exact = features.double().flatten(2)
    torch.testing.assert_close(ours.double(), exact @ exact.transpose(1, 2) / exact[0].numel(), rtol=1e-5, atol=0)


def test_gram_of_large_half_precision_values_stays_finite():
    assert functional.gram(torch.full((1, 2, 64, 64), 3e4, dtype=torch.float16)).isfinite().all()


def test_tv_of_a_ramp_is_known():
    ramp = torch.arange(4.0).expand(1, 3, 5, 4)  # horizontal neighbors differ by 1, vertical ones by 0
    torch.testing.assert_close(functional.tv_mean(ramp), torch.tensor([1.0]))
    torch.testing.assert_close(functional.tv_half_sum(ramp), torch.tensor([3 * 4 * 3 / 2]))


def test_tv_half_sum_gradient_matches_the_lua_code():
    image = torch.randn(1, 3, 5, 6, requires_grad=True)
    (ours,) = torch.autograd.grad(functional.tv_half_sum(image).sum(), image)
    x, lua = image.detach(), torch.zeros_like(image)
    for row in range(4):
        for column in range(5):
            here = x[:, :, row, column]
            right, below = here - x[:, :, row, column + 1], here - x[:, :, row + 1, column]
            lua[:, :, row, column] += right + below
            lua[:, :, row, column + 1] -= right
            lua[:, :, row + 1, column] -= below
    torch.testing.assert_close(ours, lua)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_content_loss_and_energy_are_mean_squares_with_correct_gradients(layout):
    a, b = (torch.randn(2, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=layout) for _ in range(2))
    torch.testing.assert_close(functional.content_loss(a, b), ((a - b) ** 2).mean((1, 2, 3)).double())
    torch.testing.assert_close(functional.energy(a), (a**2).mean((1, 2, 3)))
    assert torch.autograd.gradcheck(lambda x: functional.content_loss(x, b), a.requires_grad_())


def test_content_loss_of_bfloat16_sums_in_float32():
    a, b = torch.rand(2, 8, 64, 64).bfloat16(), torch.rand(2, 8, 64, 64).bfloat16()
    ours = functional.content_loss(a, b)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), (a.double() - b.double()).square().mean((1, 2, 3)), rtol=1e-3, atol=0)


def slow_light(image: np.ndarray, target: np.ndarray, divisor: int, window: int, noise: float) -> float:
    """Compute the light loss of one image, (3, H, W), block by block and window by window."""
    rows, columns = (side // divisor for side in image.shape[1:])
    blocks = np.zeros((2, rows, columns))
    for picture, means in zip((image, target), blocks, strict=True):
        for row in range(rows):
            for column in range(columns):
                block = picture[:, row * divisor :, column * divisor :][:, :divisor, :divisor]
                means[row, column] = np.dot([0.299, 0.587, 0.114], block.mean((1, 2)))
    correlations = []
    for row in range(rows):
        for column in range(columns):
            top, left = (max(0, start - window // 2) for start in (row, column))
            a, b = blocks[:, top : row + window // 2 + 1, left : column + window // 2 + 1].reshape(2, -1)
            covariance = np.mean((a - a.mean()) * (b - b.mean()))
            correlations.append(covariance / np.sqrt((a.var() + noise**2) * (b.var() + noise**2)))
    return 1 - float(np.mean(correlations))


def patches(seed: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Return (2, 3, 40, 56): 8 x 8 blocks of random gray between `low` and `high`."""
    blocks = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(seed)) * (high - low) + low
    return blocks.repeat_interleave(8, 2).repeat_interleave(8, 3).expand(-1, 3, -1, -1).contiguous()


def light(image: Tensor, target: Tensor, **settings: float) -> list[float]:
    return functional.light_loss(image, target, **settings).tolist()


@pytest.mark.parametrize("settings", [{}, {"divisor": 5, "window": 3, "noise": 0.2}])
def test_light_matches_slow_correlation(settings):
    """At a size that `divisor` does not divide."""
    generator = torch.Generator().manual_seed(0)
    image, target = torch.rand(2, 2, 3, 27, 44, generator=generator)
    image = torch.stack([0.3 * image[0] + 0.7 * target[0], 0.6 * image[1] + 0.4 * (1 - target[1])])
    pairs = zip(image.double().numpy(), target.double().numpy(), strict=True)
    expected = [slow_light(a, b, **{"divisor": 4, "window": 5, "noise": 0.03, **settings}) for a, b in pairs]
    assert expected[0] < 1 < expected[1]
    assert light(image, target, **settings) == pytest.approx(expected, rel=1e-4)


def test_light_is_near_0_for_the_image_itself_and_near_2_for_its_negative():
    image = patches(0)
    same, negative = light(image, image), light(1 - image, image)
    assert all(0 <= value < 0.02 for value in same)
    assert negative == pytest.approx([2 - value for value in same], abs=1e-5)
    assert all(0.5 < value < 1.5 for value in light(patches(1), image))


def test_light_ignores_brightness_and_contrast():
    target, image = patches(0).double(), 0.5 * patches(0).double() + 0.5 * patches(1).double()
    before = light(image, target)
    assert all(0.1 < value < 0.6 for value in before)
    for contrast, brightness in ((1.0, 0.4), (0.6, 0.0), (0.5, 0.3), (1.7, -0.2)):
        changed = contrast * image + brightness
        assert light(changed, target) == pytest.approx(before, abs=0.04)
        assert light(changed, target, noise=1e-4) == pytest.approx(light(image, target, noise=1e-4), abs=1e-5)
        assert light(image, contrast * target + brightness) == pytest.approx(before, abs=0.04)


def test_light_counts_faint_contrasts_beside_strong_ones():
    strong, faint = patches(0), patches(1, 0.4, 0.6)  # over the whole image the correlation is 0.93
    assert all(value > 0.6 for value in light(torch.cat([strong, 1 - faint], 3), torch.cat([strong, faint], 3)))


def test_light_ignores_color_and_details_smaller_than_a_block():
    image, target = patches(0), patches(1)
    before = light(image, target)
    generator = torch.Generator().manual_seed(2)
    color = torch.tensor([1.0, -0.299 / 0.587, 0.0])[:, None, None] * torch.rand(2, 1, 40, 56, generator=generator)
    fine = (torch.rand(2, 1, 5, 7, generator=generator) - 0.5).repeat_interleave(8, 2).repeat_interleave(8, 3)
    fine = fine * torch.tensor([1.0, -1.0]).repeat(28)
    assert light(image + color, target) == pytest.approx(before, abs=1e-5)
    assert light(image + fine, target) == pytest.approx(before, abs=1e-5)
    assert light(torch.cat([image, image[..., :3]], 3), torch.cat([target, target[..., :3]], 3)) == pytest.approx(
        before
    )


def test_light_gradient_changes_luminance_towards_the_target():
    target, image = patches(0), patches(1).requires_grad_()
    value = functional.light_loss(image, target)
    (gradient,) = torch.autograd.grad(value.sum(), image)
    shares = gradient.abs().mean((0, 2, 3))
    torch.testing.assert_close(shares / shares.sum(), torch.tensor([0.299, 0.587, 0.114]))
    assert (functional.light_loss(image - 20 * gradient, target) < value - 0.01).all()


def light_and_gradient(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    image = image.clone().requires_grad_()
    value = functional.light_loss(image, target)
    return value.detach(), torch.autograd.grad(value.sum(), image)[0]


@pytest.mark.parametrize("gray", [0.0, 0.5, 1.0])
def test_light_has_a_gradient_for_a_flat_output_but_not_for_a_flat_target(gray):
    flat, image = torch.full((2, 3, 40, 56), gray), patches(0)
    value, gradient = light_and_gradient(flat, image)
    torch.testing.assert_close(value, torch.ones(2))
    assert gradient.isfinite().all()
    assert gradient.abs().amax() > 1e-3
    assert (functional.light_loss(flat - gradient, image) < 0.9).all()
    for start in (image, flat):
        value, gradient = light_and_gradient(start, flat)
        torch.testing.assert_close(value, torch.ones(2))
        assert gradient.isfinite().all()
        assert gradient.abs().amax() < 1e-6


def test_light_target_below_the_noise_hardly_counts():
    image, target = patches(0), patches(1)
    faint = 0.5 + 0.003 / float(target.std()) * (target - target.mean())  # a tenth of the noise
    assert all(abs(value - 1) < 0.11 for pair in (light(image, faint), light(faint, faint)) for value in pair)
    strong, weak = (light_and_gradient(image, x)[1].norm() for x in (target, faint))
    assert weak < 0.2 * strong


def test_light_of_a_single_block_is_one():
    value, gradient = light_and_gradient(torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4))
    torch.testing.assert_close(value, torch.ones(2))
    assert gradient.isfinite().all()


def test_light_of_bfloat16_sums_in_float32_under_autocast():
    image, target = patches(0).bfloat16(), patches(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = functional.light_loss(image, target)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, functional.light_loss(image.float(), target))
