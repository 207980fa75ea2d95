"""The content images as Lightning takes them."""

import itertools
import multiprocessing
import os
import signal
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from fast_nst import errors
from fast_nst.data import Sets
from fast_nst.data.batch import Batch
from fast_nst.data.dataset import StepSampler
from fast_nst.data.synthetic import SyntheticPhotographs
from fast_nst.errors import UserError

GRACE = 20.0  # seconds that a worker outlives a SIGTERM


class ContentData(pl.LightningDataModule):
    """Endless batches, {"content": (B, 3, S, S) in [0, 1]}, to train on; held-out ones to validate.

    batch_size: images a process and step. workers: processes that decode and crop; "auto" for as many as pay, where all
    is drawn before the first step (`drawing`) none: to crop takes a step less time than a worker beside it takes from
    it. A resumed run goes on with the step it stopped at. Raises UserError for values out of range.
    """

    def __init__(self, sets: Sets, batch_size: int, workers: int | str = "auto") -> None:
        super().__init__()
        self.sets = sets
        self.batch_size = errors.check_int("data.batch_size", batch_size, 1)
        if batch_size > len(sets.train):
            raise UserError(
                f"data.batch_size: got {batch_size}; allowed: up to {len(sets.train)}, the content images that "
                f"there are to train on"
            )
        if workers != "auto" and not isinstance(workers, int):
            raise UserError(f"data.workers: got {workers!r}; allowed: auto, or a whole number from 0 on")
        self.workers = None if workers == "auto" else errors.check_int("data.workers", workers, 0)

    def _draws_first(self) -> bool:
        assert self.trainer is not None
        on_cpu, forks = self.trainer.strategy.root_device.type == "cpu", multiprocessing.get_start_method() == "fork"
        return isinstance(self.sets.train.source, SyntheticPhotographs) and on_cpu and forks and self.workers != 0

    def _loader(self, **arguments: Any) -> DataLoader[Batch]:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        workers = self.workers
        if workers is None:
            # To fork amid a training, for validation, would cut its large pages besides (`keep_memory`).
            workers = 0 if self._draws_first() else max(1, min(8, _cores() - 1))
        return DataLoader(
            **arguments, num_workers=workers, pin_memory=on_gpu, persistent_workers=workers > 0,
            worker_init_fn=_outlive_interrupts, collate_fn=_collate,
        )  # fmt: skip

    def _sampler(self) -> StepSampler:
        assert self.trainer is not None
        return StepSampler(self.batch_size, self.trainer.global_step, self.trainer.global_rank, self.trainer.world_size)

    def drawing(self) -> DataLoader[int] | None:
        """To be exhausted before the first step on a CPU: draws, on all cores, what this process will ask for, an item
        each. A worker that draws beside the steps takes a core from them, and the others wait for that one.

        None for pictures that are read, on a GPU, which leaves the cores to the workers, and where these do not share
        what is drawn here.
        """
        if not self._draws_first():
            return None
        photographs = self.sets.train.source
        assert isinstance(photographs, SyntheticPhotographs)
        assert self.trainer is not None
        batches = itertools.islice(self._sampler(), max(0, self.trainer.max_steps - self.trainer.global_step))
        shown = self.sets.train.shown(itertools.chain.from_iterable(batches))
        wanted = [index for index in dict.fromkeys([*shown, *self.sets.val.indices]) if not photographs.drawn(index)]
        return DataLoader(
            photographs, None, sampler=wanted, collate_fn=_forget,  # type: ignore[arg-type]
            num_workers=max(1, _cores() // self.trainer.num_devices), worker_init_fn=_outlive_interrupts,
        )  # fmt: skip

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader(dataset=self.sets.train, batch_sampler=self._sampler())

    def val_dataloader(self) -> DataLoader[Batch]:
        # All of them on every process: they are few, and shares of unequal size would have other means.
        return self._loader(dataset=self.sets.val, batch_size=self.batch_size)


def _collate(images: list[Tensor]) -> Batch:
    """(3, S, S) each -> a batch."""
    return {"content": default_collate(images)}


def _outlive_interrupts(worker: int) -> None:
    """A signal to the whole process group, Ctrl-C or that of `timeout`, or to every process of a service, must not end
    the workers at once: the step under way still needs them. They end with the process that started them, `GRACE`
    seconds after a SIGTERM at the latest."""
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


def _end_later(number: int, frame: FrameType | None) -> None:
    timer = threading.Timer(GRACE, os._exit, (0,))
    timer.daemon = True
    timer.start()


def _forget(picture: object) -> int:
    """In place of the picture, which stays where it was drawn."""
    return 0


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
