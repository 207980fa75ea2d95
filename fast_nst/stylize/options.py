"""The options for stylizing files, and their checks."""

from dataclasses import dataclass
from pathlib import Path

from fast_nst.errors import check_choice, check_number
from fast_nst.stylize.color import KEEP_COLORS

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Options:
    """How files are stylized.

    size: pixels of the longer side; None keeps the source's size. strength, keep_colors: see `image.stylize_tensor`.
    precision: one of PRECISIONS; "auto": bfloat16 if the device is fast at it and the output has 8 bits a channel.
    memory: bytes to use beyond those already in use; None: half of the free memory. depth: bits a channel, 8 or 16.
    quality, provenance: see `image.save_picture`. mask: a file, see `stylize.mask`.
    """

    size: int | None = None
    strength: float = 1.0
    keep_colors: str | None = None
    precision: str = "float32"
    memory: int | None = None
    depth: int = 8
    quality: int | None = None
    provenance: str | None = None
    mask: Path | None = None


def check_options(strength: float, keep_colors: str | None) -> None:
    """Raise UserError unless `strength` is from 0 to 1 and `keep_colors` is None or a key of KEEP_COLORS."""
    check_number("strength", strength, 0, 1)
    if keep_colors is not None:
        check_choice("keep_colors", keep_colors, tuple(KEEP_COLORS))


def result_bytes(depth: int) -> int:
    """Return the bytes per pixel of a result, and of the Pillow image that it becomes."""
    return 5 if depth == 8 else 11
