"""Workers with too little shared memory: one line with the remedy."""

import errno
import multiprocessing.synchronize
import shutil

import pytest
import torch
from conftest import small

import fast_nst
from fast_nst.data import shared_memory
from fast_nst.data.dataset import ContentImages
from fast_nst.errors import RunError, UserError

TORCH = "unable to write to file </torch_18283_334_0>: No space left on device (28)"


def give(monkeypatch, total, free):
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(total, total, free))


@pytest.mark.skipif(not shared_memory.FOLDER.is_dir(), reason="shared memory has no folder here")
def test_a_run_with_little_shared_memory_does_not_start(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    give(monkeypatch, 2**14, 2**14)
    with pytest.raises(UserError, match=r"^data.workers: 2 workers need 0\.\d MiB of shared.*set data.workers=0"):
        fast_nst.train("cubist", output_dir="shared small", overrides=[*small(workplace), "data.workers=2"])


@pytest.mark.skipif(not shared_memory.FOLDER.is_dir(), reason="shared memory has no folder here")
def test_memory_without_a_limit_is_enough(monkeypatch):
    give(monkeypatch, 0, 0)
    shared_memory.check_space(8, 2**30)
    give(monkeypatch, 2**26, 2**26)
    shared_memory.check_space(2, 2**20)
    with pytest.raises(UserError, match="4096"):
        shared_memory.check_space(4, 2**30)


def test_a_worker_that_finds_it_full_is_one_line(workplace, monkeypatch):
    def fail(images, index):
        raise RuntimeError(TORCH)

    monkeypatch.chdir(workplace)
    monkeypatch.setattr(ContentImages, "__getitem__", fail)  # also in the workers, which are forked
    with pytest.raises(RunError, match=r"^shared memory is full \(unable to write to file .*; set data.workers=0"):
        fast_nst.train("cubist", output_dir="shared full", overrides=[*small(workplace), "data.workers=1"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torch's half-made iterator
def test_a_lock_without_space_is_one_line_despite_lightning(workplace, monkeypatch):
    """Lightning's tidying raises another error after this one."""

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.chdir(workplace)
    monkeypatch.setattr(multiprocessing.synchronize._multiprocessing, "SemLock", fail)
    with pytest.raises(RunError, match=r"^shared memory is full \(No space left on device\); set data.workers=0"):
        fast_nst.train("cubist", output_dir="shared locks", overrides=[*small(workplace), "data.workers=1"])


def test_other_errors_are_not_of_shared_memory():
    killed = "DataLoader worker (pid 7) is killed by signal: "
    assert shared_memory.is_lack_of_it(RuntimeError(f"{killed}Bus error. It is possible that … out of shared memory."))
    assert not shared_memory.is_lack_of_it(RuntimeError(f"{killed}Terminated."))
    assert not shared_memory.is_lack_of_it(OSError(errno.ENOSPC, "No space left on device"))  # a disk
    assert not shared_memory.is_lack_of_it(torch.OutOfMemoryError("CUDA out of memory"))
