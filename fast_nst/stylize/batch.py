"""Stylize many small files: pictures of one size go through the network together."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fast_nst import image
from fast_nst.atomic import NoSpace
from fast_nst.errors import UserError
from fast_nst.stylize.files import open_content
from fast_nst.stylize.options import Options
from fast_nst.stylize.painter import OnnxNetwork, Painter, as_painter

if TYPE_CHECKING:
    from fast_nst.networks import Network

Pair = tuple[Path, Path]
SMALL = 2**16  # pixels; larger pictures gain nothing from a batch
_FILE = 2**18  # bytes; a larger file counts as a large picture, and its header is not read
_BATCH = 2**19  # most pixels in a batch


def group_small(pairs: Iterable[Pair], size: int | None) -> list[list[Pair]]:
    """Group (photograph, output) pairs into jobs: small pictures of one size together, every other picture alone.

    size: pixels of the longer side after resizing; None: no resizing.
    """
    jobs: list[list[Pair]] = []
    open_jobs: dict[tuple[int, int], list[Pair]] = {}
    for pair in pairs:
        sides = _small_sides(pair[0], size)
        if sides is None:
            jobs.append([pair])
            continue
        job = open_jobs.setdefault(sides, [])
        if not job:
            jobs.append(job)
        job.append(pair)
        border = 64  # pixels; an allowance for what networks add around a small picture
        if (len(job) + 1) * (sides[0] + border) * (sides[1] + border) > _BATCH:
            del open_jobs[sides]
    return jobs


def _small_sides(source: Path, size: int | None) -> tuple[int, int] | None:
    """Return the two sides, in pixels, at which `source` will be stylized; None unless it is a small picture."""
    try:
        sides = image.read_size(source) if os.path.getsize(source) <= _FILE else None
    except OSError:
        return None
    if sides is None:
        return None
    if size is not None:
        sides = (size, max(1, round(size * min(sides) / max(sides))))
    return sides if sides[0] * sides[1] <= SMALL else None


def stylize_batch(
    network: "Network | OnnxNetwork", pairs: Sequence[Pair], options: Options
) -> list[tuple[Pair, UserError]]:
    """Stylize small files as `stylize_file` does, in batches of one size. Return the failed pairs and their errors.

    Raises NoSpace, and MemoryError if memory runs out.
    """
    painter = as_painter(network)
    memory = painter.free_memory() // 2 if options.memory is None else options.memory
    failed: list[tuple[Pair, UserError]] = []
    groups: dict[tuple[int, int], list[tuple[Pair, image.Picture]]] = {}
    for pair in pairs:
        try:
            picture = open_content(pair[0], painter, memory, options.size)
            image.check_fits(pair[1], *(painter.scale * side for side in picture.rgb.size))
        except UserError as error:
            failed.append((pair, error))
            continue
        groups.setdefault(picture.rgb.size, []).append((pair, picture))
    for (width, height), group in groups.items():
        step = max(1, memory // (painter.memory_per_pixel() * width * height))
        for start in range(0, len(group), step):
            failed += _stylize_group(painter, group[start : start + step], options)
    return failed


def _stylize_group(
    painter: Painter, group: Sequence[tuple[Pair, image.Picture]], options: Options
) -> list[tuple[Pair, UserError]]:
    results = painter.paint_together([picture.rgb for _, picture in group], options)
    failed: list[tuple[Pair, UserError]] = []
    for (pair, picture), result in zip(group, results, strict=True):
        try:
            image.save_picture(result, pair[1], picture.alpha, options.provenance, options.quality)
        except NoSpace:
            raise
        except UserError as error:
            failed.append((pair, error))
    return failed
