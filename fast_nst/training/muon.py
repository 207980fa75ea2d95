"""The optimizer of a training: Muon for convolution kernels, Adam for everything else."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

ADAM_RATE = 0.05  # Adam's learning rate, of the kernels'
MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration, Jordan's


class Muon(torch.optim.Adam):
    """Kernels take steps of equal length in every direction: the momentum of a kernel, as a matrix with a row for each
    of its outputs, is replaced by the nearest orthogonal one (Jordan et al. 2024, kellerjordan.github.io/posts/muon;
    torch.optim.Muon, from torch 2.9 on, takes matrices alone). Kernels are the weights of convolutions of more than one
    pixel that end in features; all else, and what ends in pixels, is left to Adam at `ADAM_RATE` times the rate.

    network: its parameters are trained, those that require a gradient. learning_rate: of the kernels, with matrices of
    unit singular values for steps.
    """

    def __init__(self, network: nn.Module, learning_rate: float) -> None:
        parameters = [p for p in network.parameters() if p.requires_grad]
        groups = [
            {"name": "rest", "params": [p for p in parameters if not is_kernel(p)], "lr": ADAM_RATE * learning_rate},
            {"name": "kernels", "params": [p for p in parameters if is_kernel(p)], "lr": learning_rate},
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
        """All kernels together, and their gradients gone, so that Adam passes them by."""
        wanted = []
        for kernel in kernels:
            assert kernel.grad is not None
            state = self.state[kernel]
            if not state:  # "step": Adam, when it loads a state, looks for one
                state.update(step=torch.zeros(()), momentum=torch.zeros_like(kernel))
            momentum = state["momentum"]
            momentum.lerp_(kernel.grad, 1 - MOMENTUM)
            nesterov = torch.lerp(kernel.grad, momentum, MOMENTUM)
            wanted.append(nesterov.permute(0, 2, 3, 1).flatten(1))  # no copy where channels come last
            kernel.grad = None
        for kernel, step in zip(kernels, orthogonal(wanted), strict=True):
            k, c, h, w = kernel.shape
            longer = max(1, k / (c * h * w)) ** 0.5
            kernel.add_(step.reshape(k, h, w, c).permute(0, 3, 1, 2), alpha=-rate * longer)


def is_kernel(parameter: Tensor) -> bool:
    return parameter.dim() == 4 and parameter.shape[0] > 3 and parameter[0, 0].numel() > 1


def orthogonal(matrices: Sequence[Tensor]) -> list[Tensor]:
    """About the nearest matrices (R, C), each of its own shape, whose singular values are all equal, 0.7 to 1.2, by
    five steps of a Newton-Schulz iteration. All at once, filled up with zeros, which stay zeros: many small operations
    take longer than a few larger ones."""
    a, b, c = COEFFICIENTS
    wide = [matrix.T if matrix.shape[0] > matrix.shape[1] else matrix for matrix in matrices]
    rows, columns = (max(matrix.shape[side] for matrix in wide) for side in (0, 1))
    x = wide[0].new_zeros(len(wide), rows, columns, dtype=torch.float32)
    for whole, matrix in zip(x, wide, strict=True):
        whole[: matrix.shape[0], : matrix.shape[1]] = matrix
    with torch.autocast(x.device.type, enabled=False):
        x /= torch.linalg.matrix_norm(x, keepdim=True).clamp_min(1e-20)
        # x <- (a + b x x' + c (x x')^2) x; all the factors are polynomials of the first, small x x'.
        product = torch.bmm(x, x.transpose(1, 2))
        unit = torch.eye(rows, device=x.device).expand_as(product)
        factors = unit
        for _ in range(5):
            factor = torch.baddbmm(product, product, product, beta=b, alpha=c).add_(unit, alpha=a)
            factors = torch.bmm(factor, factors)
            product = torch.bmm(torch.bmm(factor, product), factor)
        x = torch.bmm(factors, x)
    found = []
    for whole, matrix in zip(x, matrices, strict=True):
        height, width = matrix.shape
        cut = whole[:width, :height].T if height > width else whole[:height, :width]
        found.append(cut.to(matrix.dtype))
    return found
