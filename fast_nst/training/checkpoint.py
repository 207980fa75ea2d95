"""Checkpoints: when they are written, on which signals, and atomically."""

import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins import TorchCheckpointIO

from fast_nst import image
from fast_nst.errors import RunError
from fast_nst.training import resume


def signalled(trainer: pl.Trainer) -> bool:
    """Whether a signal asks this process to end."""
    return any(callback.signal for callback in trainer.callbacks if isinstance(callback, SaveCheckpoint))  # type: ignore[attr-defined]


class Interrupted(RunError):
    """A signal asked the run to stop, and it saved first; the message holds the command to go on."""

    def __init__(self, number: int, step: int, command: str) -> None:
        super().__init__(f"{signal.Signals(number).name} at step {step}: saved. Resume with: {command}")
        self.exit_code = 128 + number


class StoppedBeforeStart(RunError):
    """A SIGTERM before the first step."""

    exit_code = 128 + signal.SIGTERM

    def __init__(self) -> None:
        super().__init__("received SIGTERM before the first step; nothing to save")


class SaveCheckpoint(pl.Callback):
    """`path` every `every_n_steps`, at the end, and on SIGINT, SIGTERM, SIGHUP or SIGUSR1 after the step under way,
    when the run ends with `Interrupted`. A second signal has its ordinary effect at once.

    settings: kept in the checkpoint (`resume.KEY`). command: what goes on from it.
    """

    SIGNALS = tuple(
        getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
    )
    AGREE = 10  # steps between the processes of a run asking each other for signals: each asking waits

    def __init__(self, path: Path, every_n_steps: int, settings: Mapping[str, Any], command: str) -> None:
        self.path, self.every_n_steps, self.settings, self.command = path, every_n_steps, dict(settings), command
        self.saved_step = -1
        self.signal = 0
        self.handlers: dict[int, Any] = {}

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._release()
        text = f"\n{signal.Signals(number).name}: saving after this step; again stops at once, unsaved\n"
        with contextlib.suppress(OSError):  # no terminal any more; print may be in the middle of a line
            os.write(2, text.encode())

    def _release(self) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}

    def _stopping(self, trainer: pl.Trainer) -> bool:
        if trainer.world_size == 1:
            return self.signal != 0
        if trainer.global_step % self.AGREE:
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
        """Keep the signals for the end of the next step; of the others Lightning needs its own until training starts.

        To be called before the run says that it starts: a shell's background jobs come with SIGINT ignored."""
        for number in numbers:
            if number != signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN:  # SIGHUP, under nohup
                continue
            self.handlers[number] = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, self._catch)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.received_sigterm:  # which Lightning would only now and then look for
            raise StoppedBeforeStart
        self.listen(self.SIGNALS)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stopping = self._stopping(trainer)
        if stopping or trainer.global_step % self.every_n_steps == 0:
            self._save(trainer)
        if stopping:
            raise Interrupted(self.signal or signal.SIGTERM, trainer.global_step, self.command)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._release()
        self._save(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._release()  # a run that was complete already has neither start nor end

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._release()


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints written beside their place and renamed, so that none is ever half-written."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        write: Callable[..., None] = super().save_checkpoint
        with image.replacing(path) as temporary:
            try:
                write(checkpoint, temporary, storage_options)
            except RuntimeError as error:  # torch's writer, on a full disk
                raise OSError(str(error).splitlines()[0]) from None
