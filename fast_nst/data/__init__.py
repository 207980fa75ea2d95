"""Content images (photographs) and the style image (a painting). `build` is the one way to make the content's sets."""

import itertools
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fast_nst import errors, image
from fast_nst.data.dataset import ContentImages, Source
from fast_nst.data.folder import Folder
from fast_nst.data.mnist import Mnist
from fast_nst.data.shards import Shards
from fast_nst.data.synthetic import SyntheticPhotographs

__all__ = ["SOURCES", "Sets", "build"]

SOURCES = ("synthetic", "folder", "shards", "mnist")
DRAWN = ("synthetic", "mnist")  # nothing in them can be damaged
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
    """The sets of the source `name`: "synthetic" (`count` synthetic pictures), "folder" (below `root`), "shards" (tar
    files) or "mnist". cache_mib, max_unreadable: `reader.Reader`.

    size: of the square crops, in pixels. crop, scale, ratio: how they are cut, `content.ContentImages`.
    val_images: pictures held out, a fifth at most, all of which can be read; val_size: of their centre crop, in pixels.
    With a single picture, both sets are that picture. Raises UserError naming the argument, what came, what is allowed.
    """
    errors.check_choice("data.name", name, SOURCES)
    errors.check_int("data.size", size, 16)
    errors.check_int("data.val_size", val_size, 16)
    errors.check_int("data.val_images", val_images, 1)
    errors.check_int("data.cache_mib", cache_mib, 0)
    source: Source
    unreadable: set[int] = set()
    if name == "synthetic":
        # Crops of at least half a side then need no enlarging.
        source = SyntheticPhotographs(errors.check_int("data.count", count, 1), max(2 * size, val_size), seed)
    elif root is None:
        raise image.ImageError(f"data.root: data={name} needs it, data.root=DIR, what holds the photographs")
    elif name in ("folder", "shards"):
        kind = Folder if name == "folder" else Shards
        source = kind(root, max(2 * size, val_size), cache_mib, max_unreadable)
        unreadable = _probe(source, max_unreadable)
    else:
        source = Mnist(root)
    shuffled = np.random.default_rng((seed, 0)).permutation(len(source))
    order = [int(i) for i in shuffled if i not in unreadable]
    # Those held out are looked at once the work is done: one that cannot be read is told now.
    sound = order if name in DRAWN else (i for i in order if source[i] is not None)
    val = list(itertools.islice(sound, min(val_images, max(1, len(order) // 5))))
    if not val:
        raise image.ImageError("data: none of the content images can be read")
    held_out = set(val)
    train = [i for i in order if i not in held_out] if len(order) > 1 else order
    return Sets(
        ContentImages(source, sorted(train), size, crop, scale, ratio, seed=seed),
        ContentImages(source, sorted(val), val_size, "center", shuffle=False, seed=seed),
    )


def _probe(source: Source, max_unreadable: float) -> set[int]:
    """Read a few pictures from all over `source`, so that a folder of damaged ones is told before a run begins; which
    of them cannot be read."""
    indices = sorted({round(i) for i in np.linspace(0, len(source) - 1, PROBES)})
    failed = {i for i in indices if source[i] is None}
    if len(failed) > max_unreadable * len(indices):
        raise image.ImageError(
            f"data.root: {len(failed)} of {len(indices)} pictures tried cannot be read, more than data.max_unreadable "
            "allows"
        )
    return failed
