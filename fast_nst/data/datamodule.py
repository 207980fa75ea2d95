"""The LightningDataModule of the content images."""

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from fast_nst import errors
from fast_nst.data import Sets, shared_memory
from fast_nst.data.batch import Batch
from fast_nst.data.dataset import ContentImages, StepSampler
from fast_nst.data.synthetic import SyntheticPhotographs
from fast_nst.errors import UserError
from fast_nst.machine import count_cores

GRACE = 20.0  # seconds that a worker lives on after SIGTERM


class ContentData(pl.LightningDataModule):
    """Endless training batches and the validation batches, {"content": (B, 3, S, S) in [0, 1]}.

    wrap: a function of a set's images and of whether they are for training; returns the data set that a method needs.
    batch_size: images per process and step; fewer images give several crops each. workers: the number of processes that
    decode and crop, or "auto". "auto" uses none if all images are drawn before the first step (`drawing`), because
    cropping costs less than a worker that competes for the cores. A resumed run continues with the next step's batch.
    Raises UserError for values out of range.
    """

    def __init__(
        self,
        sets: Sets,
        batch_size: int,
        workers: int | str = "auto",
        wrap: Callable[[ContentImages, bool], Dataset[Batch]] | None = None,
    ) -> None:
        super().__init__()
        self.sets, self.wrap = sets, wrap
        self.batch_size = errors.check_int("data.batch_size", batch_size, 1)
        if workers != "auto" and not isinstance(workers, int):
            raise UserError(f"data.workers: got {workers!r}; allowed: auto, or an integer >= 0")
        self.workers = None if workers == "auto" else errors.check_int("data.workers", workers, 0)

    def notes(self) -> list[str]:
        """Return notes for the user if there are few images, one sentence each."""
        count, same = len(self.sets.train), set(self.sets.train.indices) == set(self.sets.val.indices)
        notes = [f"few content images: each step takes {self.batch_size} crops of {count}"]
        notes = notes if count < self.batch_size else []
        return [*notes, "the held-out losses are measured on the training image"] if same else notes

    def _draws_first(self) -> bool:
        assert self.trainer is not None
        on_cpu, forks = self.trainer.strategy.root_device.type == "cpu", multiprocessing.get_start_method() == "fork"
        return isinstance(self.sets.train.source, SyntheticPhotographs) and on_cpu and forks and self.workers != 0

    def _loader(self, images: ContentImages, training: bool, **arguments: Any) -> DataLoader[Batch]:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        workers = self.workers
        if workers is None:
            # Forking validation workers during training would also split the huge pages (`keep_freed_memory`).
            workers = 0 if self._draws_first() else max(1, min(8, count_cores() - 1))
        # Each worker keeps two batches ready, in float32.
        shared_memory.check_space(workers, 2 * self.batch_size * 3 * getattr(images, "size", 0) ** 2 * 4)
        items: Any = images if self.wrap is None else self.wrap(images, training)
        return DataLoader(
            items, **arguments, num_workers=workers, pin_memory=on_gpu, persistent_workers=workers > 0,
            worker_init_fn=_survive_signals, collate_fn=_collate,
        )  # fmt: skip

    def _sampler(self) -> StepSampler:
        assert self.trainer is not None
        return StepSampler(self.batch_size, self.trainer.global_step, self.trainer.global_rank, self.trainer.world_size)

    def drawing(self) -> DataLoader[int] | None:
        """Return a loader that draws the images that this process still needs, one per item, on all cores.

        Exhaust it before the first step, because a worker that draws during training takes a core from the steps.
        Returns None on a GPU, for images from files, and if there are no workers or they do not share memory with this
        process.
        """
        if not self._draws_first():
            return None
        source = self.sets.train.source
        assert isinstance(source, SyntheticPhotographs)
        assert self.trainer is not None
        batches = itertools.islice(self._sampler(), max(0, self.trainer.max_steps - self.trainer.global_step))
        train = self.sets.train.indices_at(itertools.chain.from_iterable(batches))
        missing = [index for index in dict.fromkeys([*train, *self.sets.val.indices]) if not source.drawn(index)]
        workers = max(1, count_cores() // self.trainer.num_devices)
        shared_memory.check_space(workers, 0)
        return DataLoader(
            source, None, sampler=missing, collate_fn=_discard,  # type: ignore[arg-type]
            num_workers=workers, worker_init_fn=_survive_signals,
        )  # fmt: skip

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.sets.train, True, batch_sampler=self._sampler())

    def val_dataloader(self) -> DataLoader[Batch]:
        # Every process validates on all images: they are few, and averaging over unequal shares would change the mean.
        return self._loader(self.sets.val, False, batch_size=self.batch_size)


def _collate(items: list[Any]) -> Batch:
    """Stack images, (3, S, S) each, or the items of a wrapped data set into a batch."""
    batch: Any = default_collate(items)
    return {"content": batch} if isinstance(batch, Tensor) else batch


def _survive_signals(worker: int) -> None:
    """Keep a worker alive when a signal reaches the whole process group (Ctrl-C, `timeout`, a service manager).

    The current step still needs it. It exits when its parent process ends, at the latest `GRACE` seconds after SIGTERM.
    """
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _exit_later)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


def _exit_later(number: int, frame: FrameType | None) -> None:
    timer = threading.Timer(GRACE, os._exit, (0,))
    timer.daemon = True
    timer.start()


def _discard(picture: object) -> int:
    """Return a placeholder: the image stays in shared memory."""
    return 0
