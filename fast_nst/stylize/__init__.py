"""Running a trained network on photographs."""

from fast_nst.stylize.image import KEEP_COLORS, stylize_file, stylize_strips, stylize_tensor

__all__ = ["KEEP_COLORS", "stylize_file", "stylize_strips", "stylize_tensor"]
