"""Content images (photographs) and the style image (a painting). `build` is the one way to make the content's sets."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fast_nst import image, validate
from fast_nst.data.content import ContentImages, Source
from fast_nst.data.folder import Folder
from fast_nst.data.leaves import Leaves
from fast_nst.data.mnist import Mnist
from fast_nst.data.shards import Shards

__all__ = ["SOURCES", "Sets", "build"]

SOURCES = ("leaves", "folder", "shards", "mnist")
PROBES = 16  # pictures read before a run


class Sets(NamedTuple):
    """The content images to train on and those held out, which no training step sees."""

    train: ContentImages
    val: ContentImages


def build(
    name: str,
    size: int,
    crop: str,
    scale: Sequence[float],
    ratio: Sequence[float],
    val_images: int,
    val_size: int,
    seed: int,
    root: str | os.PathLike[str] | None = None,
    count: int | None = None,
    cache_mib: int = 512,
    max_unreadable: float = 0.5,
) -> Sets:
    """The sets of the source `name`: "leaves" (`count` synthetic pictures), "folder" (below `root`), "shards" (tar
    files) or "mnist". cache_mib, max_unreadable: `reader.Reader`.

    size: of the square crops, in pixels. crop, scale, ratio: how they are cut, `content.ContentImages`.
    val_images: pictures held out, a fifth at most; val_size: of their centre crop, in pixels.
    With a single picture, both sets are that picture. Raises Invalid naming the argument, what came, what is allowed.
    """
    validate.one_of("data.name", name, SOURCES)
    validate.whole_number("data.size", size, 16)
    validate.whole_number("data.val_size", val_size, 16)
    validate.whole_number("data.val_images", val_images, 1)
    validate.whole_number("data.cache_mib", cache_mib, 0)
    source: Source
    if name == "leaves":
        # Crops of at least half a side then need no enlarging.
        source = Leaves(count=validate.whole_number("data.count", count, 1), size=max(2 * size, val_size), seed=seed)
    elif root is None:
        raise image.ImageError(f"data={name} needs data.root=DIR, the folder that holds the photographs")
    elif name in ("folder", "shards"):
        kind = Folder if name == "folder" else Shards
        source = kind(root, max(2 * size, val_size), cache_mib, max_unreadable)
        _probe(source, max_unreadable)
    else:
        source = Mnist(root)
    order = [int(i) for i in np.random.default_rng((seed, 0)).permutation(len(source))]
    held_out = min(val_images, max(1, len(order) // 5))
    train, val = (order[held_out:], order[:held_out]) if len(order) > 1 else (order, order)
    return Sets(
        ContentImages(source, sorted(train), size, crop, scale, ratio, seed=seed),
        ContentImages(source, sorted(val), val_size, "center", shuffle=False, seed=seed),
    )


def _probe(source: Source, max_unreadable: float) -> None:
    """Read a few pictures from all over `source`: a folder of damaged ones is told before a run begins."""
    indices = sorted({round(i) for i in np.linspace(0, len(source) - 1, PROBES)})
    failed = sum(source[i] is None for i in indices)
    if failed > max_unreadable * len(indices):
        raise image.ImageError(
            f"data.root: {failed} of {len(indices)} pictures tried cannot be read, more than data.max_unreadable allows"
        )
