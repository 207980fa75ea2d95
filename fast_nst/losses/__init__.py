"""Content, style, light and TV losses: pure functions in `functional`, combined by `PerceptualLoss`."""

from fast_nst.losses.perceptual import PerceptualLoss, layers_needed

__all__ = ["PerceptualLoss", "layers_needed"]
