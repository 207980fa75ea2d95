"""Callbacks of a run: its progress, its threads and its weights file."""

import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from fast_nst import weights
from fast_nst.data.datamodule import ContentData
from fast_nst.threads import AdaptiveThreads
from fast_nst.training.checkpoint import Interrupted, signalled
from fast_nst.training.divergence import check_finite
from fast_nst.training.length import UNKNOWN


def seconds_left(trainer: pl.Trainer) -> float:
    """Return the seconds until trainer.max_time; infinity if it is not set."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, pl.callbacks.Timer)]  # type: ignore[attr-defined]
    return min((max(0.0, left) for timer in timers if (left := timer.time_remaining()) is not None), default=math.inf)


def is_terminal() -> bool:
    """Return whether stderr can show a bar: it is neither a file nor the output of a notebook cell."""
    if not sys.stderr.isatty() or "JPY_PARENT_PID" in os.environ:
        return False
    return os.get_terminal_size(sys.stderr.fileno()).columns > 0


def next_report(elapsed: float) -> float:
    """Return the seconds to the next progress line without a terminal: 5 at first, later up to 15 minutes."""
    return 5.0 if elapsed < 5 else min(max(15.0, elapsed / 8), 900.0)


class Progress(pl.callbacks.ProgressBar):
    """Show steps, steps per second, time left and each loss: as a bar, or without a terminal as an occasional line.

    First draw the content images (`ContentData.drawing`), with a separate bar.
    """

    FORM = "{percentage:3.0f}% {bar} {n_fmt}/{total_fmt} steps, {remaining} left, {rate_fmt}{postfix}"

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True
        self.terminal = is_terminal()
        self.bar: tqdm | None = None
        self.next_update = 0.0
        self.started = False
        self.start_time, self.start_step, self.first_end = 0.0, 0, 0.0
        self.in_steps = self.step_start = 0.0
        # Share of the run's time outside the steps, set at the end; correct on a CPU, which runs synchronously.
        self.outside = 0.0

    def disable(self) -> None:
        self.enabled = False

    def _draw(self, trainer: pl.Trainer, drawing: DataLoader[int]) -> None:
        """Draw all content images; stop early on a signal or at trainer.max_time."""
        next_update = start = time.monotonic()
        bar = tqdm(drawing, "drawing", leave=False, unit="image", disable=not (self.enabled and self.terminal))
        for done, _ in enumerate(bar, 1):
            if self.enabled and not self.terminal and time.monotonic() >= next_update:
                next_update = time.monotonic() + next_report(time.monotonic() - start)
                print(f"drawing content images  {done}/{len(drawing)}", file=sys.stderr, flush=True)
            if signalled(trainer) or not seconds_left(trainer):
                break
        bar.close()

    def _start(self, trainer: pl.Trainer) -> None:
        """Draw the images and open the bar, once. Signal handlers, trainer.max_time and all processes are up by now."""
        if self.started:
            return
        self.started = True
        data: ContentData | None = getattr(trainer, "datamodule", None)
        if data is not None and (drawing := data.drawing()) is not None:
            self._draw(trainer, drawing)
        self.start_time, self.start_step = time.monotonic(), trainer.global_step
        self.next_update = 0.0 if self.terminal else self.start_time + next_report(0)
        if self.enabled and self.terminal:
            self.bar = tqdm(total=self.total(trainer), initial=trainer.global_step, unit="step", dynamic_ncols=True)

    def total(self, trainer: pl.Trainer) -> int | None:
        """Return the length of the run; None while it is being measured (`FitMinutes`)."""
        return None if trainer.max_steps == UNKNOWN else trainer.max_steps

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start(trainer)  # before the first batch is loaded

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._start(trainer)  # a resumed run does not call on_train_epoch_start
        self.step_start = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        self.in_steps += now - self.step_start
        self.first_end = self.first_end or now
        # Reading a loss waits for the device, so do it only for a report.
        if not self.enabled or (time.monotonic() < self.next_update and trainer.global_step < trainer.max_steps):
            return
        losses = "  ".join(f"{name} {value.detach().item():.4g}" for name, value in outputs.items())
        if self.bar is not None:
            self.next_update = time.monotonic() + 0.5
            self._update_bar(trainer, self.bar, losses)
        else:
            self.next_update = time.monotonic() + next_report(time.monotonic() - self.start_time)
            self._print_line(trainer, losses)

    def _update_bar(self, trainer: pl.Trainer, bar: tqdm, losses: str) -> None:
        if self.total(trainer) is not None:
            bar.total, bar.bar_format = trainer.max_steps, self.FORM
        bar.update(trainer.global_step - bar.n)
        limit = seconds_left(trainer)
        stop = "" if limit == math.inf else f"stops in {tqdm.format_interval(limit)}  "
        bar.set_postfix_str(stop + losses)

    def _print_line(self, trainer: pl.Trainer, losses: str) -> None:
        # The first step, which starts the workers, is left out of the speed.
        step, elapsed, total = trainer.global_step, time.monotonic() - self.first_end, self.total(trainer)
        rate = (step - self.start_step - 1) / elapsed if elapsed > 0 else 0.0
        seconds = min((total - step) / rate if rate and total else math.inf, seconds_left(trainer))
        left = "?" if seconds == math.inf else tqdm.format_interval(seconds)
        print(
            f"step {step}/{total or '?'}  {rate:.2f} step/s  {left} left  {losses}", file=sys.stderr, flush=True,
        )  # fmt: skip

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()
        self.outside = 1 - self.in_steps / max(time.monotonic() - self.start_time, 1e-9)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()


class UseFreeCores(pl.Callback):
    """Give way to other programs on a CPU, unless the run has several processes (`AdaptiveThreads`)."""

    threads: AdaptiveThreads | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.strategy.root_device.type == "cpu" and trainer.world_size == 1:
            self.threads = AdaptiveThreads()

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *unused: object) -> None:
        if self.threads is not None:
            self.threads.update()

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if self.threads is not None:
            self.threads.restore()


class SaveWeights(pl.Callback):
    """Save the weights file at the end of the run, even when a signal or trainer.max_time ends it early.

    The file's metadata has the step, the length of the run and, if known, the held-out losses at that step. After the
    last step the callback makes Lightning validate.
    """

    def __init__(self, path: Path, description: Mapping[str, Any]) -> None:
        self.path, self.description = path, dict(description)
        self.losses: dict[str, float] = {}
        self.validated_step = -1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True  # Lightning validates before it stops

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = trainer.callback_metrics
        self.losses = {name.removeprefix("val/"): float(metrics[name]) for name in metrics if name.startswith("val/")}
        self.validated_step = trainer.global_step

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            network = cast(nn.Module, pl_module.network)
            check_finite(network, step := trainer.global_step)
            losses = self.losses if self.validated_step == step else {}
            about = {"steps": step, "total_steps": trainer.max_steps, "held_out_losses": losses}
            weights.save(self.path, network, {**self.description, **about})

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Interrupted):
            self.on_train_end(trainer, pl_module)
