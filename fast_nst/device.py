"""Device, precision and memory: detection and settings."""

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from fast_nst.errors import UserError, check_choice

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h
_MADV_HUGEPAGE, _LARGE_PAGE = 14, 2**21  # sys/mman.h; bytes of one


def find_devices(names: str, option: str) -> list[torch.device]:
    """The devices in the comma-separated `names`; "auto": every GPU, else the CPU. Raises UserError naming `option`."""
    if names == "auto":
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        names = ",".join(gpus) or ("mps" if torch.backends.mps.is_available() else "cpu")
    devices = []
    for name in str(names).split(","):
        try:
            devices.append(torch.device(name))
            torch.zeros(1, device=devices[-1]).cpu()  # "meta" is a device, and computes nothing
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).strip().partition("\n")[0].partition(". ")[0]
            raise UserError(f"{option}: {name} does not work here ({reason})") from None
    return devices


def has_fast_bfloat16(device: str) -> bool:
    """Whether bfloat16 is faster than float32 on `device` ("cpu", "cuda"): CUDA from Ampere on; AVX-512 BF16, AMX."""
    if device == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device == "cpu" and any(getattr(torch.cpu, name, lambda: False)() for name in checks)


def choose_precision(precision: str, accelerator: str) -> str:
    """Lightning's name for `precision`; "auto" is bfloat16 if the device is fast at it. Raises UserError for one that
    the device does not have."""
    check_choice("trainer.precision", precision, PRECISIONS)
    device = "cpu"
    if accelerator in ("auto", "gpu", "cuda", "mps"):
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if precision == "16-mixed" and device == "cpu":
        raise UserError("trainer.precision: got 16-mixed; allowed on a CPU: auto, 32-true, bf16-mixed")
    if precision != "auto":
        return precision
    return "bf16-mixed" if has_fast_bfloat16(device) else "32-true"


def keep_memory() -> None:
    """Let this process keep what it frees for its next tensors, and hold it on large pages. As a rule the C library
    gives a large block back to the system at once, and to map it anew takes longer than many an operation on it; and
    on pages of 4 KiB a step takes up to a twentieth longer. Where the library is glibc, at the start of a process: a
    page that is there when a worker is forked is cut into small ones.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt"):
        return
    for option, value in ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1)):
        libc.mallopt(option, value)
    # The heap grows by what it may come to need: by addresses, which take no memory until something lies there; where
    # addresses are counted, others would lack them.
    if _addresses_are_counted():
        return
    libc.malloc.restype = ctypes.c_void_p
    size = free_memory(torch.device("cpu")) // 2
    block = libc.malloc(ctypes.c_size_t(size))
    if block:  # the system may promise less
        first = block + -block % _LARGE_PAGE
        large = max(0, block + size - first) // _LARGE_PAGE * _LARGE_PAGE
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(large), _MADV_HUGEPAGE)
        libc.free(ctypes.c_void_p(block))


def _addresses_are_counted() -> bool:
    """Whether memory that was promised and not used yet counts: `ulimit -v`, `ulimit -d`, vm.overcommit_memory=2."""
    import resource  # none on Windows

    limits = (resource.getrlimit(limit)[0] for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    try:
        strict = Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2"
    except OSError:
        strict = False
    return strict or any(limit != resource.RLIM_INFINITY for limit in limits)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on `device`."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = 4 * 2**30  # where nothing better is known
    try:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
        group = Path("/sys/fs/cgroup")  # a container's own limit
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            free = min(free, int(limit) - int((group / "memory.current").read_text()))
    except (AttributeError, OSError, KeyError, ValueError):  # no sysconf on Windows, no /proc on macOS
        pass
    return max(0, free)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether `error` is torch's for want of memory, of any device."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def kept_bytes(compute: Callable[[], object]) -> int:
    """What autograd keeps for the gradient of what `compute` computes, parameters aside."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        compute()
    return sum(kept.values())


def used_memory() -> int:
    """Bytes that this process holds."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
