"""Stylize an animated GIF, WebP or PNG with Pillow, keeping durations, loop and transparency."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from tqdm import tqdm

from fast_nst import errors, image
from fast_nst.atomic import atomic_write, check_place
from fast_nst.stylize.options import Options

if TYPE_CHECKING:
    from torch import nn

    from fast_nst.stylize.frames import FramePainter

SUFFIXES = (".gif", ".webp", ".png", ".apng")


def is_animation(path: str | os.PathLike[str]) -> bool:
    """Return whether `path` has several frames and a format that `stylize_animation` reads."""
    return Path(path).suffix.lower() in SUFFIXES and image.is_animation(path)


def check_target(path: str | os.PathLike[str]) -> None:
    """Raise UserError, before long work, if the suffix or folder of `path` rules out writing an animation."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise errors.UserError(f"{path}: cannot write this format; allowed for an animation: {', '.join(SUFFIXES)}")
    check_place(path)


def stylize_animation(
    network: "nn.Module",
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    options: Options = Options(),  # noqa: B008 (frozen)
) -> int:
    """Stylize the animation `source`, write `target` and return the number of frames. A bar shows the progress.

    Raises UserError.
    """
    from fast_nst.stylize.frames import FramePainter

    if options.size is not None:
        errors.check_int("size", options.size, 1)
    if options.depth != 8:
        raise errors.UserError(f"{source}: animations are written with 8 bits a channel; leave out --depth")
    check_target(target)
    durations, settings = _read_settings(source)
    suffix = Path(target).suffix.lower()
    settings |= image.provenance_options(suffix, options.provenance)
    if suffix == ".webp":
        settings["quality"] = 95 if options.quality is None else options.quality
    with FramePainter(network, options) as paint, atomic_write(target) as temporary:
        frames = _paint_frames(source, paint, options.size, len(durations))
        first = next(frames)
        if first.mode == "RGBA" and suffix == ".gif":
            settings["disposal"] = 2  # clear before each frame, or earlier frames show through
        rest = frames if suffix in (".gif", ".webp") else list(frames)  # Pillow reads a PNG's frames twice
        first.save(temporary, save_all=True, append_images=rest, duration=durations, **settings)
    return len(durations)


def _read_settings(path: str | os.PathLike[str]) -> tuple[list[float], dict[str, Any]]:
    """Return each frame's duration in milliseconds, and options for Pillow's `save`. Raises ImageError."""
    durations: list[float] = []
    for frame in _read_frames(path):
        durations.append(frame.info.get("duration", 0))
        info = dict(frame.info)
    return durations, {"loop": info["loop"]} if "loop" in info else {}


def _read_frames(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Yield the composed frames, without the default image for viewers that do not animate. Raises ImageError."""
    try:
        with Image.open(path) as picture:
            for index in range(getattr(picture, "n_frames", 1)):
                picture.seek(index)
                picture.load()
                if not (index == 0 and picture.info.get("default_image")):
                    yield picture
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise image.ImageError(f"{path}: damaged picture ({errors.one_line(error)})") from None


def _paint_frames(
    path: str | os.PathLike[str], paint: "FramePainter", size: int | None, count: int
) -> Iterator[Image.Image]:
    for frame in tqdm(_read_frames(path), total=count, unit="frame", desc=Path(path).name, disable=None):
        picture = image.from_pillow(frame)
        rgb = picture.rgb if size is None else image.resize_longer(picture.rgb, size)
        paint.check_memory(path, *rgb.size)
        output = image.to_pillow(paint(image.to_tensor(rgb)))
        if picture.alpha is not None:
            output.putalpha(picture.alpha.resize(output.size))
        yield output
