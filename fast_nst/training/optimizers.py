"""Optimizers and learning-rate schedules by name."""

import math

import torch
from torch import nn

from fast_nst.training.muon import Muon

OPTIMIZERS = ("muon", "adam")
SCHEDULES = ("cosine", "linear", "constant")


def build(name: str, network: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """Build the optimizer `name` for the parameters of `network`: "muon" (`Muon`) or "adam"."""
    if name == "muon":
        return Muon(network, learning_rate)
    fused = next(network.parameters()).device.type != "mps"
    return torch.optim.Adam(network.parameters(), learning_rate, fused=fused)


def learning_rate_factor(step: int, schedule: str, warmup_steps: int, total_steps: int) -> float:
    """Return the learning rate's factor at `step`, from 0: linear warm-up, then constant, or cosine or linear to 0.

    Up to step `warmup_steps` it does not depend on the length of the run.
    """
    factor = min(1.0, (step + 1) / (warmup_steps + 1))
    if schedule != "constant" and step > warmup_steps:
        done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        factor *= 0.5 + 0.5 * math.cos(math.pi * done) if schedule == "cosine" else 1 - done
    return factor
