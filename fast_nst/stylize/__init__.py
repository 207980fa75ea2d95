"""Run a trained network on images."""

from fast_nst.stylize.batch import group_small, stylize_batch
from fast_nst.stylize.image import KEEP_COLORS, Options, stylize_file, stylize_tensor, stylize_tiles
from fast_nst.stylize.moving import is_moving, stylize_moving

__all__ = [
    "KEEP_COLORS", "Options", "group_small", "is_moving", "stylize_batch", "stylize_file", "stylize_moving",
    "stylize_tensor", "stylize_tiles",
]  # fmt: skip
