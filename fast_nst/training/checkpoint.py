"""Write checkpoints at intervals and on signals, atomically."""

import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins import TorchCheckpointIO

from fast_nst.atomic import atomic_write
from fast_nst.errors import RunError, one_line
from fast_nst.training import resume


def signalled(trainer: pl.Trainer) -> bool:
    """Return whether a signal has asked this process to stop."""
    return any(callback.signal for callback in trainer.callbacks if isinstance(callback, SaveCheckpoint))  # type: ignore[attr-defined]


class Interrupted(RunError):
    """A signal stopped the run. Its network is saved in `weights`; `command` resumes it."""

    def __init__(self, number: int, step: int, weights: Path, command: str) -> None:
        by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
        super().__init__(f"stopped at step {step}{by}; the network so far is in {weights}; resume with: {command}")
        self.exit_code = 128 + number


class StoppedBeforeStart(RunError):
    """SIGTERM arrived before the first step."""

    exit_code = 128 + signal.SIGTERM

    def __init__(self) -> None:
        super().__init__("received SIGTERM before the first step; nothing to save")


class SaveCheckpoint(pl.Callback):
    """Save the checkpoint `path` every `every_n_steps` steps, at the end, and on SIGINT, SIGTERM, SIGHUP or SIGUSR1.

    A signal saves after the current step and ends the run with `Interrupted`. A second one has its usual effect.
    settings: the settings to store in the checkpoint (`resume.KEY`). weights: the file in which `SaveWeights` saves the
    network. command: the command that resumes from the checkpoint.
    """

    SIGNALS = tuple(
        getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
    )
    SIGNAL_CHECK_INTERVAL = 10  # steps between checks for other processes' signals; each check waits for all

    def __init__(
        self, path: Path, every_n_steps: int, settings: Mapping[str, Any], weights: Path, command: str,
        signals: Sequence[int] = SIGNALS,
    ) -> None:  # fmt: skip
        self.path, self.every_n_steps, self.settings = path, every_n_steps, dict(settings)
        self.weights, self.command, self.signals = weights, command, signals
        self.saved_step = -1
        self.signal = 0
        self.handlers: dict[int, Any] = {}

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._release()
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        text = f"\n{name}: stopping after this step; a second one stops at once and saves nothing\n"
        with contextlib.suppress(OSError):  # the terminal may be closed; print is not safe in a handler
            os.write(2, text.encode())

    def _release(self) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}

    def _stopping(self, trainer: pl.Trainer) -> bool:
        if trainer.world_size == 1:
            return self.signal != 0
        if trainer.global_step % self.SIGNAL_CHECK_INTERVAL:
            return False
        return trainer.strategy.reduce_boolean_decision(self.signal != 0, all=False)

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.global_step != self.saved_step:
            self.saved_step = trainer.global_step
            trainer.save_checkpoint(self.path)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[resume.KEY] = self.settings

    def listen(self, numbers: Sequence[int] = (signal.SIGINT,)) -> None:
        """Handle the signals `numbers` from now on: they take effect after the current step.

        Call it with SIGINT before the run reports its start, because a shell's background jobs ignore SIGINT. Lightning
        needs its own handlers for the other signals until training starts.
        """
        for number in {*numbers} & {*self.signals} - {*self.handlers}:
            if number != signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN:  # SIGHUP, under nohup
                continue
            before = signal.signal(number, self._catch)
            default = before if callable(before) else signal.default_int_handler
            self.handlers[number] = default if number == signal.SIGINT else signal.SIG_DFL

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.received_sigterm:  # Lightning checks this only now and then
            raise StoppedBeforeStart
        self.listen(self.signals)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stopping = self._stopping(trainer)
        if stopping or trainer.global_step % self.every_n_steps == 0:
            self._save(trainer)
        if stopping:
            raise Interrupted(self.signal or signal.SIGTERM, trainer.global_step, self.weights, self.command)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._release()
        self._save(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._release()  # a run that is already complete calls neither on_train_start nor on_train_end

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._release()


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints to a temporary file and rename it, so that none is ever half-written."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        write: Callable[..., None] = super().save_checkpoint
        with atomic_write(path) as temporary:
            try:
                write(checkpoint, temporary, storage_options)
            except RuntimeError as error:  # from torch's writer, if the disk is full
                raise OSError(one_line(error)) from None
