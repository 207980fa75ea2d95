"""Use fewer threads while other programs need the cores.

Threads that compute together wait for each other, and on a core that another program uses they wait longest: two
threads beside one busy program take twice as long as one. So torch gets as many threads as there are free cores.
The number of threads changes the rounding of results; where OMP_NUM_THREADS is set, the number stays as it is.
"""

import os
import time
from pathlib import Path

import torch

SECONDS = 5.0  # between two readings of the load
_STAT = Path("/proc/stat")


def busy_seconds() -> float | None:
    """Return the seconds that this process's cores have computed since the machine started; None except on Linux.

    Programs with a nice value above 0 do not count, because they give way.
    """
    try:
        cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        lines = [line.split() for line in _STAT.read_text().splitlines()]
        ticks = os.sysconf("SC_CLK_TCK")
    except (AttributeError, OSError, ValueError):
        return None
    # name, user, nice, system, idle, iowait, irq, softirq (proc_stat(5))
    return sum(int(line[field]) for line in lines if line[0] in cores for field in (1, 3, 6, 7)) / ticks


def free_cores(cores: int, seconds: float, busy: float, own: float) -> int:
    """Return how many of `cores` other programs left free, at least 1.

    busy, own: seconds that the cores, and this process on them, computed in the last `seconds`.
    """
    others = max(0.0, busy - own) / seconds
    return max(1, cores - round(others))


class AdaptiveThreads:
    """Keeps torch's number of threads at the number of free cores, but at most at its initial value.

    Call `update` often, in the thread that computes, and `restore` at the end.
    """

    def __init__(self) -> None:
        self.most, self.now = torch.get_num_threads(), self.read()
        self.active = self.most > 1 and "OMP_NUM_THREADS" not in os.environ and self.now is not None

    @staticmethod
    def read() -> tuple[float, float, float] | None:
        """Return the time and the seconds that the cores, and this process on them, have computed; None if unknown."""
        busy = busy_seconds()
        own = time.process_time() if os.nice(0) <= 0 else 0.0  # otherwise it is not in `busy`
        return None if busy is None else (time.monotonic(), busy, own)

    def update(self) -> None:
        """Change the number of threads if `SECONDS` have passed and the load has changed."""
        if not self.active or self.now is None or time.monotonic() < self.now[0] + SECONDS:
            return
        before, self.now = self.now, self.read()
        if self.now is None:
            return
        seconds, busy, own = (new - old for new, old in zip(self.now, before, strict=True))
        threads = free_cores(self.most, seconds, busy, own)
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)

    def restore(self) -> None:
        """Restore the initial number of threads."""
        if self.active:
            torch.set_num_threads(self.most)
