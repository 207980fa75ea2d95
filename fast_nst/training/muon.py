"""The default optimizer: Muon for convolution kernels, Adam for everything else."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

ADAM_RATE = 0.05  # Adam's learning rate, relative to the kernels'
MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan's Newton-Schulz iteration


class Muon(torch.optim.Adam):
    """Muon for convolution kernels, Adam for all other parameters at `ADAM_RATE` times the learning rate.

    Muon replaces a kernel's momentum, as a matrix with one row per output channel, by the nearest orthogonal matrix, so
    that steps have equal length in every direction (Jordan et al. 2024, kellerjordan.github.io/posts/muon).
    torch.optim.Muon, since torch 2.9, takes only matrices. Adam also updates 1x1 convolutions, those with at most 3
    outputs (pixels), and the parameters that the network's `without_norm()` lists, if it has this method.

    network: the network whose parameters that require a gradient are trained. learning_rate: the kernels' learning
    rate; their steps are matrices of unit singular values.
    """

    def __init__(self, network: nn.Module, learning_rate: float) -> None:
        without_norm = {*getattr(network, "without_norm", tuple)()}
        parameters = [p for p in network.parameters() if p.requires_grad]
        kernels = [p for p in parameters if is_kernel(p) and p not in without_norm]
        others = {*parameters} - {*kernels}
        groups = [
            {"name": "rest", "params": [p for p in parameters if p in others], "lr": ADAM_RATE * learning_rate},
            {"name": "kernels", "params": kernels, "lr": learning_rate},
        ]
        super().__init__(groups, fused=all(p.device.type == "cpu" for p in parameters) or None)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        kernels = [kernel for kernel in self.param_groups[1]["params"] if kernel.grad is not None]
        if kernels:
            self._step_kernels(kernels, self.param_groups[1]["lr"])
        super().step()
        return loss

    def _step_kernels(self, kernels: list[Tensor], rate: float) -> None:
        """Update all kernels at once and clear their gradients, so that Adam skips them."""
        updates = []
        for kernel in kernels:
            assert kernel.grad is not None
            state = self.state[kernel]
            if not state:  # Adam needs "step" when it loads a state
                state.update(step=torch.zeros(()), momentum=torch.zeros_like(kernel))
            momentum = state["momentum"]
            momentum.lerp_(kernel.grad, 1 - MOMENTUM)
            nesterov = torch.lerp(kernel.grad, momentum, MOMENTUM)
            updates.append(nesterov.permute(0, 2, 3, 1).flatten(1))  # no copy in channels_last
            kernel.grad = None
        for kernel, step in zip(kernels, orthogonal(updates), strict=True):
            k, c, h, w = kernel.shape
            scale = max(1, k / (c * h * w)) ** 0.5
            kernel.add_(step.reshape(k, h, w, c).permute(0, 3, 1, 2), alpha=-rate * scale)


def is_kernel(parameter: Tensor) -> bool:
    """Return whether Muon updates this parameter: a convolution kernel larger than 1x1, with more than 3 outputs."""
    return parameter.dim() == 4 and parameter.shape[0] > 3 and parameter[0, 0].numel() > 1


def orthogonal(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Return the approximately nearest orthogonal matrices, with singular values of 0.7 to 1.2.

    This takes five steps of a Newton-Schulz iteration. The matrices, (R, C) of any shapes, are padded with zeros to
    form one batch, because a few large operations are faster than many small ones. The zeros stay zeros.
    """
    a, b, c = COEFFICIENTS
    wide = [matrix.T if matrix.shape[0] > matrix.shape[1] else matrix for matrix in matrices]
    rows, columns = (max(matrix.shape[side] for matrix in wide) for side in (0, 1))
    x = wide[0].new_zeros(len(wide), rows, columns, dtype=torch.float32)
    for padded, matrix in zip(x, wide, strict=True):
        padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    with torch.autocast(x.device.type, enabled=False):
        x /= torch.linalg.matrix_norm(x, keepdim=True).clamp_min(1e-20)
        # x <- (a + b x x' + c (x x')^2) x; all factors are polynomials in the first x x', which is small.
        product = torch.bmm(x, x.transpose(1, 2))
        unit = torch.eye(rows, device=x.device).expand_as(product)
        factors = unit
        for _ in range(5):
            factor = torch.baddbmm(product, product, product, beta=b, alpha=c).add_(unit, alpha=a)
            factors = torch.bmm(factor, factors)
            product = torch.bmm(torch.bmm(factor, product), factor)
        x = torch.bmm(factors, x)
    results = []
    for padded, matrix in zip(x, matrices, strict=True):
        rows, columns = matrix.shape
        cropped = padded[:columns, :rows].T if rows > columns else padded[:rows, :columns]
        results.append(cropped.to(matrix.dtype))
    return results
