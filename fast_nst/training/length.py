"""Turn a run's length in minutes into a number of steps, by measuring the speed during the warm-up."""

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl

UNKNOWN = 2**40  # trainer.max_steps until the speed is known
LEAST, SECONDS, SHARE = 10, 4.0, 0.1  # measure so many steps and seconds, or this share of the minutes


class FitMinutes(pl.Callback):
    """Set the number of steps so that the run ends `minutes` after `started`, a time.monotonic().

    The learning rates of the first `measured_steps` steps do not depend on the length of the run
    (`learning_rate_factor`), so a run with trainer.max_steps set to the result gives the same network. reserve: the
    time for the work after the last step, in steps. on_set: called once with the length, in every process.
    """

    def __init__(
        self, minutes: float, started: float, measured_steps: int, reserve: float, on_set: Callable[[int], None]
    ) -> None:
        self.seconds, self.started = 60 * minutes, started
        self.measured_steps, self.reserve, self.on_set = measured_steps, reserve, on_set
        self.first_step, self.first_time = -1, 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.max_steps != UNKNOWN:
            return
        float(outputs["loss"])  # waits for a GPU
        total = trainer.strategy.broadcast(self._total(trainer.global_step, time.monotonic()))
        if total:
            trainer.fit_loop.epoch_loop.max_steps = total
            self.on_set(total)

    def _total(self, step: int, now: float) -> int:
        """Return the length of the run, or 0 to keep measuring. The first step, which also sets up, is left out."""
        if self.first_step < 0:
            self.first_step, self.first_time = step, now
            return 0 if step < self.measured_steps else step
        steps, elapsed = step - self.first_step, now - self.first_time
        enough = (steps >= LEAST and elapsed >= SECONDS) or elapsed > SHARE * self.seconds
        if not enough and step < self.measured_steps:
            return 0
        left = self.started + self.seconds - now
        return step + max(0, int(left * steps / elapsed - self.reserve))
