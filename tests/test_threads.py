"""Threads follow the load."""

import os
import subprocess
import sys
import time

import pytest
import torch

from fast_nst import threads

linux = pytest.mark.skipif(threads.busy_seconds() is None, reason="needs Linux")


@pytest.mark.parametrize(
    ("cores", "busy", "own", "expected"),
    [
        (2, 9.9, 9.8, 2),  # alone
        (2, 10.0, 6.7, 1),  # beside one busy program, with two threads
        (2, 10.0, 5.0, 1),  # and with one
        (2, 5.1, 5.0, 2),  # the other has ended
        (8, 40.0, 25.0, 5),
        (4, 20.0, 0.0, 1),
        (2, 4.9, 5.0, 2),  # clocks are not exact
    ],
)
def test_other_programs_keep_their_cores(cores, busy, own, expected):
    assert threads.free_cores(cores, 5.0, busy, own) == expected


@linux
def test_busy_seconds_count_what_a_program_computes():
    before, start = threads.busy_seconds(), time.process_time()
    while time.process_time() < start + 0.5:
        pass
    assert threads.busy_seconds() - before >= 0.4


@linux
def test_threads_follow_the_load_and_are_restored(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    readings = iter([(0.0, 0.0, 0.0), (5.0, 10.0, 7.0), (10.0, 20.0, 12.0), (15.0, 26.0, 17.0)])
    monkeypatch.setattr(threads.AdaptiveThreads, "read", staticmethod(lambda: next(readings)))
    clock = [0.0]
    monkeypatch.setattr(threads.time, "monotonic", lambda: clock[0])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        adaptive, seen = threads.AdaptiveThreads(), []
        for clock[0] in (1.0, 5.0, 6.0, 10.0, 15.0):
            adaptive.update()
            seen.append(torch.get_num_threads())
        assert seen == [2, 1, 1, 1, 2]
        torch.set_num_threads(1)
        adaptive.restore()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_number_that_is_given_stays(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert not threads.AdaptiveThreads().active
    finally:
        torch.set_num_threads(before)


@linux
@pytest.mark.slow
@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: "a")(0)) < 2, reason="needs two cores")
def test_a_busy_program_takes_a_core():
    """Of a process that may use two cores."""
    code = """
import os, time, torch
from fast_nst import threads
threads.SECONDS = 2.0
torch.set_num_threads(2)
adaptive = threads.AdaptiveThreads()
until = time.monotonic() + 8
while time.monotonic() < until and torch.get_num_threads() == 2:
    torch.rand(500, 500) @ torch.rand(500, 500)
    adaptive.update()
print(torch.get_num_threads())
"""
    cores = sorted(os.sched_getaffinity(0))[:2]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    os.sched_setaffinity(0, cores)
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        result = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
    finally:
        spinner.kill()
        spinner.wait()
        os.sched_setaffinity(0, range(os.cpu_count()))
    assert result.stdout.strip() == "1"
