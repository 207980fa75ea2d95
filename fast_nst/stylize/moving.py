"""Stylize a video file, with `video`, or an animated picture, with `animation`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fast_nst import errors, image
from fast_nst.stylize import animation, clip
from fast_nst.stylize.onnx import OnnxNetwork
from fast_nst.stylize.options import Options

if TYPE_CHECKING:
    from torch import nn


def is_moving(source: Path, target: Path) -> bool:
    """Return whether `source` is a clip, or an animation and `target` can hold several frames (a .jpg cannot)."""
    return clip.is_clip(source) or (target.suffix.lower() in animation.SUFFIXES and animation.is_animation(source))


def default_suffix(source: Path) -> str | None:
    """Return the default suffix of the output; None if `source` is neither a clip nor an animation."""
    if clip.is_clip(source):
        return source.suffix.lower() if source.suffix.lower() in clip.ENCODERS else ".mp4"
    return source.suffix.lower() if animation.is_animation(source) else None


def check_target(source: Path, target: Path) -> None:
    """Raise UserError, before long work, unless the output of `source` can be written to `target`."""
    if not is_moving(source, target):
        image.check_writable(target)
    elif clip.is_clip(source):
        clip.check_target(target)
    else:
        animation.check_target(target)


def is_output(path: Path) -> bool:
    """Return whether `path` is an output: a picture, an animation or a clip."""
    return clip.is_output(path) if clip.is_clip(path) else image.is_output(path)


def stylize_moving(
    network: "nn.Module", source: Path, target: Path, options: Options, on_note: Callable[[str], None]
) -> None:
    """Stylize the clip or animation `source` and write `target`. For `on_note` and errors, see `stylize_video`."""
    if options.mask is not None:
        raise errors.UserError(f"--mask: is for photographs; {source} is a clip or an animation")
    if isinstance(network, OnnxNetwork):
        raise errors.UserError(
            f"{source}: clips and animations need torch and a weights file or bundled style; "
            'pip install "fast-nst[train]"'
        )
    if getattr(network, "scale", 1) != 1:
        raise errors.UserError(f"{source}: is a clip or an animation; this network enlarges only photographs")
    if clip.is_clip(source):
        from fast_nst.stylize.video import stylize_video

        stylize_video(network, source, target, options, on_note)
    else:
        animation.stylize_animation(network, source, target, options)
