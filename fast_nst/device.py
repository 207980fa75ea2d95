"""Device, precision and memory: detection and settings."""

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from fast_nst.errors import UserError, check_choice, one_line

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h
_MADV_HUGEPAGE, _HUGE_PAGE = 14, 2**21  # sys/mman.h; bytes


def find_devices(names: str, option: str) -> list[torch.device]:
    """Parse comma-separated device `names`; "auto": every GPU, or else the CPU. Raises UserError with `option`."""
    if names == "auto":
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        names = ",".join(gpus) or ("mps" if torch.backends.mps.is_available() else "cpu")
    devices = []
    for name in str(names).split(","):
        try:
            devices.append(torch.device(name))
            torch.zeros(1, device=devices[-1]).cpu()  # fails on "meta", which computes nothing
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = one_line(error).partition(". ")[0]
            raise UserError(f"{option}: {name} does not work here ({reason})") from None
    return devices


def has_fast_bfloat16(device: str) -> bool:
    """Return whether bfloat16 is faster than float32 on `device`: "cuda" since Ampere, "cpu" with AVX-512 BF16, AMX."""
    if device == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device == "cpu" and any(getattr(torch.cpu, name, lambda: False)() for name in checks)


def choose_precision(precision: str, accelerator: str) -> str:
    """Return Lightning's name for `precision`; "auto" is bfloat16 where it is fast.

    Raises UserError for a precision that the device does not support.
    """
    check_choice("trainer.precision", precision, PRECISIONS)
    device = "cpu"
    if accelerator in ("auto", "gpu", "cuda", "mps"):
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if precision == "16-mixed" and device == "cpu":
        raise UserError("trainer.precision: got 16-mixed; allowed on a CPU: auto, 32-true, bf16-mixed")
    if precision != "auto":
        return precision
    return "bf16-mixed" if has_fast_bfloat16(device) else "32-true"


def keep_freed_memory() -> None:
    """Keep freed memory in this process for reuse, on huge pages; does nothing unless the C library is glibc.

    By default glibc returns large blocks to the system at once, and mapping them again takes longer than many
    operations on them. With pages of 4 KiB a step takes up to 5 % longer. Call this when the process starts, before it
    forks: fork splits existing huge pages.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt"):
        return
    for option, value in ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1)):
        libc.mallopt(option, value)
    # Reserve addresses for the heap; they take no memory until used. If they are limited, other code would lack them.
    if _address_space_is_limited():
        return
    libc.malloc.restype = ctypes.c_void_p
    size = free_memory(torch.device("cpu")) // 2
    block = libc.malloc(ctypes.c_size_t(size))
    if block:  # the system may refuse so much
        start = block + -block % _HUGE_PAGE
        length = max(0, block + size - start) // _HUGE_PAGE * _HUGE_PAGE
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_HUGEPAGE)
        libc.free(ctypes.c_void_p(block))


def _address_space_is_limited() -> bool:
    """Return whether reserved but unused memory counts: `ulimit -v`, `ulimit -d`, vm.overcommit_memory=2."""
    import resource  # does not exist on Windows

    limits = (resource.getrlimit(limit)[0] for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    try:
        strict = Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2"
    except OSError:
        strict = False
    return strict or any(limit != resource.RLIM_INFINITY for limit in limits)


def free_memory(device: torch.device) -> int:
    """Return the bytes still available on `device`."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
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


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether `error` is torch's out-of-memory error, on any device."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def kept_bytes(compute: Callable[[], object]) -> int:
    """Return the bytes that autograd saves for the gradient of `compute()`, without parameters."""
    sizes: dict[int, int] = {}

    def record(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        compute()
    return sum(sizes.values())


def used_memory() -> int:
    """Return the resident memory of this process in bytes; 0 if unknown."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
