"""python kernels.py DEVICE: fail unless the Triton norm, its ReLU and its gradients match torch."""

import itertools
import sys

import torch
import torch.nn.functional as F

from fast_nst.ops.triton_norm import InstanceNorm


def check(device: str, shape: tuple[int, int, int, int], relu: bool, dtype: torch.dtype, tolerance: float) -> None:
    x = (torch.randn(shape, device=device) * 2 + 3).to(dtype).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(2, shape[1], device=device)
    wider = torch.randn(shape[0], shape[1], shape[2] + 2, shape[3], device=device, dtype=dtype)
    gradient = wider.contiguous(memory_format=torch.channels_last)[:, :, 1:-1]  # with gaps between items
    inputs = [value.detach().requires_grad_() for value in (x, weight, bias)]
    ours = InstanceNorm.apply(*inputs, 1e-5, relu)
    exact = [value.detach().double().requires_grad_() for value in (x, weight, bias)]
    expected = F.group_norm(exact[0], shape[1], exact[1], exact[2], 1e-5)
    expected = F.relu(expected) if relu else expected
    assert ours.dtype == dtype
    assert ours.is_contiguous(memory_format=torch.channels_last)
    results = [ours, *torch.autograd.grad(ours, inputs, gradient)]
    references = [expected.detach(), *torch.autograd.grad(expected, exact, gradient.double())]
    for a, b in zip(results, references, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


torch.manual_seed(0)
for shape, relu in itertools.product(((2, 16, 9, 7), (3, 24, 40, 33), (1, 5, 3, 4)), (False, True)):
    check(sys.argv[1], shape, relu, torch.float32, 1e-4)
check(sys.argv[1], (2, 64, 12, 11), True, torch.bfloat16, 1e-2)
