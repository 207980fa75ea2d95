"""The default optimizer: Muon for kernels, Adam for the rest."""

import pytest
import torch
from torch import nn

from fast_nst import networks
from fast_nst.training.muon import ADAM_RATE, Muon, is_kernel, orthogonal


def test_orthogonal_keeps_singular_vectors_and_equalizes_values():
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.randn(shape, generator=generator) for shape in ((16, 40), (40, 16), (8, 8), (16, 40))]
    for matrix, result in zip(matrices, orthogonal(matrices), strict=True):
        values = torch.linalg.svdvals(result)
        assert float(values.max()) < 1.3
        assert float(values.min()) > 0.5
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        rotated = u.T @ result @ v.T
        torch.testing.assert_close(rotated, torch.diag(rotated.diagonal()), rtol=0, atol=1e-3)
        torch.testing.assert_close(result, orthogonal([matrix])[0])


def gradients(network: nn.Module, steps: int) -> list[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [[torch.randn(p.shape, generator=generator) for p in network.parameters()] for _ in range(steps)]


def run_steps(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], steps: list[list[torch.Tensor]]
) -> None:
    for gradient in steps:
        for parameter, value in zip(parameters, gradient, strict=True):
            parameter.grad = value.clone()
        optimizer.step()


def test_kernels_are_trained_by_muon_and_the_rest_by_adam():
    network = networks.build("slim", width=8, blocks=1)
    parameters, steps = list(network.parameters()), gradients(network, 3)
    names = [name for name, parameter in network.named_parameters() if is_kernel(parameter)]
    assert names == ["down.0.conv.weight", "down.1.conv.weight", "blocks.0.first.conv.weight",
                     "blocks.0.second.conv.weight", "up.0.conv.weight", "up.1.conv.weight"]  # fmt: skip
    copies = [nn.Parameter(p.detach().clone()) for p in parameters]
    initial = [p.detach().clone() for p in parameters]
    run_steps(Muon(network, 0.02), parameters, steps)
    run_steps(torch.optim.Adam(copies, 0.02 * ADAM_RATE), copies, steps)
    for parameter, copy, first in zip(parameters, copies, initial, strict=True):
        if is_kernel(first):
            assert not torch.equal(parameter, copy)
            step = torch.linalg.matrix_norm((parameter.detach() - first).flatten(1), ord=2)
            assert 0.01 < float(step) < 3 * 0.02 * 1.3 * max(1, len(first) / first[0].numel()) ** 0.5
        else:
            torch.testing.assert_close(parameter, copy)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon is in torch 2.9 and later")
@pytest.mark.parametrize(("outputs", "inputs"), [(16, 4), (64, 2)])
def test_step_matches_torch_muon(outputs, inputs):
    ours = nn.Conv2d(inputs, outputs, 3, bias=False)
    reference = nn.Parameter(ours.weight.detach().permute(0, 2, 3, 1).reshape(outputs, -1))
    first, steps = reference.detach().clone(), gradients(ours, 3)
    run_steps(Muon(ours, 0.02), list(ours.parameters()), steps)
    matrices = [[g.permute(0, 2, 3, 1).reshape(outputs, -1) for g in step] for step in steps]
    run_steps(torch.optim.Muon([reference], 0.02, weight_decay=0.0), [reference], matrices)
    moved = ours.weight.detach().permute(0, 2, 3, 1).reshape(outputs, -1) - first
    assert float((moved - (reference.detach() - first)).norm() / moved.norm()) < 0.02  # torch computes in bfloat16
