"""Run a trained network on images."""

from fast_nst.stylize.image import KEEP_COLORS, stylize_file, stylize_tensor, stylize_tiles

__all__ = ["KEEP_COLORS", "stylize_file", "stylize_tensor", "stylize_tiles"]
