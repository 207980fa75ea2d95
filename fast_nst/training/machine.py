"""What the machine does well: the choice behind `trainer=auto`."""

import torch


def has_fast_bfloat16() -> bool:
    """Whether bfloat16 is faster than float32 here: CUDA from Ampere on; CPUs with AVX-512 BF16 or AMX."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_capability()[0] >= 8
    if torch.backends.mps.is_available():
        return False
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)


def choose_precision(precision: str, accelerator: str) -> str:
    """Lightning's name of the precision for `precision`, where "auto" is bfloat16 if the machine does that fast."""
    if precision != "auto":
        return precision
    if accelerator == "cpu" and torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if has_fast_bfloat16() else "32-true"
