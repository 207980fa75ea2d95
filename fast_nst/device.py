"""Find devices, choose the precision, and measure memory."""

from collections.abc import Callable

import torch

from fast_nst import machine
from fast_nst.errors import UserError, check_choice, one_line

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")


def find_devices(names: str, option: str) -> list[torch.device]:
    """Parse comma-separated device `names`; "auto" gives every GPU, or else the CPU.

    Raises UserError, which names `option`.
    """
    if names == "auto":
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        names = ",".join(gpus) or ("mps" if torch.backends.mps.is_available() else "cpu")
    devices = []
    for name in str(names).split(","):
        try:
            devices.append(torch.device(name))
        except RuntimeError:
            raise UserError(f"{option}: got {name!r}; allowed: auto, cpu, cuda, mps, or a GPU such as cuda:1") from None
        try:
            torch.zeros(1, device=devices[-1]).cpu()  # fails on "meta", which computes nothing
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = one_line(error).partition(". ")[0]
            raise UserError(f"{option}: {name} does not work here ({reason})") from None
    return devices


def has_fast_bfloat16(device: str) -> bool:
    """Return whether bfloat16 is faster than float32 on `device`.

    True for "cuda" since Ampere, and for "cpu" with AVX-512 BF16 or AMX.
    """
    if device == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device == "cpu" and any(getattr(torch.cpu, name, lambda: False)() for name in checks)


def choose_precision(precision: str, accelerator: str) -> str:
    """Return Lightning's name for `precision`; "auto" gives bfloat16 where it is fast, else float32.

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


def free_memory(device: torch.device) -> int:
    """Return the bytes still available on `device`."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else machine.free_memory()


def kept_bytes(compute: Callable[[], object]) -> int:
    """Return the bytes that autograd saves for the gradient of `compute()`, not counting parameters."""
    sizes: dict[int, int] = {}

    def record(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        compute()
    return sum(sizes.values())
