"""Optimizers and learning-rate schedules by name."""

import math
from collections.abc import Callable, Iterable

import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from fast_nst.training.muon import Muon

OPTIMIZERS = ("muon", "adam")
SCHEDULES = ("cosine", "linear", "constant")
ALONE = 15.0


def build(name: str, network: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """Build the optimizer `name` for the parameters of `network`: "muon" (`Muon`) or "adam"."""
    if name == "muon":
        return Muon(network, learning_rate)
    fused = next(network.parameters()).device.type != "mps"
    return torch.optim.Adam(network.parameters(), learning_rate, fused=fused)


def learning_rate_factor(step: int, schedule: str, warmup_steps: int, total_steps: int) -> float:
    """Return the learning rate's factor at `step` (from 0): linear warm-up, then constant, or cosine or linear to 0.

    Up to step `warmup_steps` it does not depend on the length of the run.
    """
    factor = min(1.0, (step + 1) / (warmup_steps + 1))
    if schedule != "constant" and step > warmup_steps:
        done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        factor *= 0.5 + 0.5 * math.cos(math.pi * done) if schedule == "cosine" else 1 - done
    return factor


def schedule(
    optimizer: torch.optim.Optimizer,
    kind: str,
    warmup_steps: int,
    total_steps: Callable[[], int],
    first_phase: float = 0.0,
) -> OptimizerLRSchedulerConfig:
    """Return `optimizer` and a schedule of `kind` for Lightning, which steps the schedule after each training step.

    first_phase: the share of the steps that train only new styles. In this phase, Muon's rate for parameters that are
    not kernels is multiplied by `ALONE`. Otherwise it is small, because the kernels train too.
    """

    def kernels(step: int) -> float:
        return learning_rate_factor(step, kind, warmup_steps, total_steps())

    def rest(step: int) -> float:
        return kernels(step) * (ALONE if step < first_phase * total_steps() else 1)

    factors: list[Callable[[int], float | int]] = [
        rest if group.get("name") == "rest" else kernels for group in optimizer.param_groups
    ]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def match_layouts(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Give states the layout of their parameters: fused optimizers require it, and after resuming it may differ."""
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    state[key] = torch.empty_like(parameter).copy_(value)
