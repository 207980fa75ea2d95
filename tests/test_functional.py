import pytest
import torch

from fast_nst.losses import functional


def test_gram_is_a_slow_loop():
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
def test_gram_has_the_gradient_of_its_values(layout):
    features = torch.randn(2, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    assert torch.autograd.gradcheck(functional.gram, features)


def test_gram_of_bfloat16_is_summed_in_float32_under_autocast():
    features = torch.rand(1, 8, 64, 64).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = functional.gram(features)
    assert ours.dtype == torch.float32
    exact = features.double().flatten(2)
    torch.testing.assert_close(ours.double(), exact @ exact.transpose(1, 2) / exact[0].numel(), rtol=1e-5, atol=0)


def test_gram_of_large_half_precision_values_stays_finite():
    assert functional.gram(torch.full((1, 2, 64, 64), 3e4, dtype=torch.float16)).isfinite().all()


def test_tv_of_a_ramp():
    ramp = torch.arange(4.0).expand(1, 3, 5, 4)  # neighbours across differ by 1, those down by 0
    torch.testing.assert_close(functional.tv_mean(ramp), torch.tensor([1.0]))
    torch.testing.assert_close(functional.tv_half_sum(ramp), torch.tensor([3 * 4 * 3 / 2]))


def test_tv_half_sum_has_the_gradient_of_the_lua_code():
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
def test_content_and_energy_are_mean_squares_and_have_their_gradients(layout):
    a, b = (torch.randn(2, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=layout) for _ in range(2))
    torch.testing.assert_close(functional.content_loss(a, b), ((a - b) ** 2).mean((1, 2, 3)).double())
    torch.testing.assert_close(functional.energy(a), (a**2).mean((1, 2, 3)))
    assert torch.autograd.gradcheck(lambda x: functional.content_loss(x, b), a.requires_grad_())


def test_content_of_bfloat16_is_summed_in_float32():
    a, b = torch.rand(2, 8, 64, 64).bfloat16(), torch.rand(2, 8, 64, 64).bfloat16()
    ours = functional.content_loss(a, b)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), (a.double() - b.double()).square().mean((1, 2, 3)), rtol=1e-3, atol=0)
