"""Find out, without torch, what this machine has (memory, GPUs, fast bfloat16), and keep freed memory for reuse."""

import ctypes
import os
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h
_MADV_HUGEPAGE, _HUGE_PAGE = 14, 2**21  # sys/mman.h; bytes


def keep_freed_memory(huge_pages: bool = True) -> None:
    """Keep freed memory in this process for reuse. Does nothing unless the C library is glibc.

    By default glibc returns large blocks to the system at once, and mapping them again takes longer than many
    operations on them. With pages of 4 KiB a step takes up to 5 % longer, but the first use of huge pages is slow on
    virtual machines, so use them for long work. Call this when the process starts, before it forks: fork splits
    existing huge pages.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt"):
        return
    for option, value in ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1)):
        libc.mallopt(option, value)
    # Reserve addresses for the heap; they take no memory until used. Skip this where addresses are limited, because
    # other code would lack them.
    if not huge_pages or _address_space_is_limited():
        return
    libc.malloc.restype = ctypes.c_void_p
    size = free_memory() // 2
    block = libc.malloc(ctypes.c_size_t(size))
    if block:  # the system may refuse so much
        start = block + -block % _HUGE_PAGE
        length = max(0, block + size - start) // _HUGE_PAGE * _HUGE_PAGE
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_HUGEPAGE)
        libc.free(ctypes.c_void_p(block))


def _address_space_is_limited() -> bool:
    """Return whether unused reservations count against a limit: `ulimit -v`, `ulimit -d`, vm.overcommit_memory=2."""
    import resource  # does not exist on Windows

    limits = (resource.getrlimit(limit)[0] for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    try:
        strict = Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2"
    except OSError:
        strict = False
    return strict or any(limit != resource.RLIM_INFINITY for limit in limits)


def free_memory() -> int:
    """Return the bytes of memory still available to this process."""
    free = 4 * 2**30  # if nothing better is known
    try:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
        group = Path("/sys/fs/cgroup")  # a container's limit
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            free = min(free, int(limit) - int((group / "memory.current").read_text()))
    except (AttributeError, OSError, KeyError, ValueError):  # no sysconf on Windows, no /proc on macOS
        pass
    return max(0, free)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` is torch's or onnxruntime's out-of-memory error, on any device."""
    return type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error)


def used_memory() -> int:
    """Return the resident memory of this process in bytes; 0 if unknown."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def may_have_gpu() -> bool:
    """Return whether torch may find a GPU here. Only torch knows for sure, but importing it takes seconds."""
    if sys.platform == "darwin":
        return os.uname().machine == "arm64"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    drivers = [Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd")]  # NVIDIA, NVIDIA in WSL, AMD
    if sys.platform == "win32":
        drivers = [Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvcuda.dll")]
    return any(driver.exists() for driver in drivers)


def has_fast_bfloat16() -> bool:
    """Return whether the processor computes in bfloat16 (AVX-512 BF16, AMX); False if unknown."""
    try:
        flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


def count_threads() -> int:
    """Return how many threads may compute: OMP_NUM_THREADS, which torch obeys too, or else `count_cores()`."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    return count_cores()


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
