"""Stop a run whose loss or parameters became NaN or infinite."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from fast_nst.errors import RunError


class Diverged(RunError):
    """The loss or a parameter became NaN or infinite; the message suggests a fix."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(
            f"stopped at step {step}: {what} is NaN or infinite. Try a lower optimizer.learning_rate, a longer "
            f"optimizer.warmup_steps, or trainer.precision=32-true; any checkpoint was saved before that"
        )


def check_finite(network: nn.Module, step: int) -> None:
    """Raise Diverged if a parameter is not finite, so that a diverged run does not overwrite good files."""
    for name, value in network.named_parameters():
        if not torch.isfinite(value).all():
            raise Diverged(step, f"the parameter {name}")


class StopOnNan(pl.Callback):
    """Raise `Diverged` when the loss is NaN or infinite.

    Check it only every `every_n_steps` steps, because reading it waits for the device.
    """

    def __init__(self, every_n_steps: int) -> None:
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every_n_steps == 0 and not torch.isfinite(outputs["loss"]):
            raise Diverged(trainer.global_step, "the loss")
