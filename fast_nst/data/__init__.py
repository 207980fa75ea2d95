"""Content images (photographs) and style images (paintings); `build` makes the training and validation sets."""

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
_NEVER_DAMAGED = ("synthetic", "mnist")
_PROBES = 16  # images read before a run


class Sets(NamedTuple):
    """The content images for training and the held-out ones for validation."""

    train: ContentImages
    val: ContentImages


def build(
    name: str,
    size: int,
    crop: str,
    val_images: int,
    val_size: int,
    seed: int,
    scale: Sequence[float] = (0.25, 1.0),
    ratio: Sequence[float] = (0.8, 1.25),
    root: str | os.PathLike[str] | None = None,
    count: int | None = None,
    cache_mib: int = 512,
    max_unreadable: float = 0.5,
) -> Sets:
    """Build the sets from the source `name`: "synthetic" (`count` images), or "folder", "shards" or "mnist" (`root`).

    size: the side of the square crops, in pixels. crop, scale, ratio: see `dataset.ContentImages`. val_images: the
    number of readable images to hold out, at most a fifth of all. val_size: the side of their center crop, in pixels. A
    single image is in both sets. cache_mib, max_unreadable: see `image_cache.ImageCache`. Raises UserError.
    """
    errors.check_choice("data.name", name, SOURCES)
    errors.check_int("data.size", size, 16)
    errors.check_int("data.val_size", val_size, 16)
    errors.check_int("data.val_images", val_images, 1)
    errors.check_int("data.cache_mib", cache_mib, 0)
    source: Source
    unreadable: set[int] = set()
    if name == "synthetic":
        # Twice the crop size, so that a crop of half an image's side is not enlarged.
        source = SyntheticPhotographs(errors.check_int("data.count", count, 1), max(2 * size, val_size), seed)
    elif root is None:
        raise image.ImageError(f"data.root: data={name} needs data.root=DIR, the folder of photographs")
    elif name in ("folder", "shards"):
        kind = Folder if name == "folder" else Shards
        source = kind(root, max(2 * size, val_size), cache_mib, max_unreadable)
        unreadable = _probe(source, max_unreadable)
    else:
        source = Mnist(root)
    shuffled = np.random.default_rng((seed, 0)).permutation(len(source))
    order = [int(i) for i in shuffled if i not in unreadable]
    # Check the held-out images now, because validation comes late in a run.
    readable = order if name in _NEVER_DAMAGED else (i for i in order if source[i] is not None)
    val = list(itertools.islice(readable, min(val_images, max(1, len(order) // 5))))
    if not val:
        raise image.ImageError("data: none of the content images can be read")
    held_out = set(val)
    train = [i for i in order if i not in held_out] if len(order) > 1 else order
    return Sets(
        ContentImages(source, sorted(train), size, crop, scale, ratio, seed=seed),
        ContentImages(source, sorted(val), val_size, "center", shuffle=False, seed=seed),
    )


def _probe(source: Source, max_unreadable: float) -> set[int]:
    """Read a few images spread over `source` and return the indices of those that cannot be read.

    Raises ImageError if these are too many, so that a damaged folder is reported before a run starts.
    """
    indices = sorted({round(i) for i in np.linspace(0, len(source) - 1, _PROBES)})
    failed = {i for i in indices if source[i] is None}
    if len(failed) > max_unreadable * len(indices):
        raise image.ImageError(
            f"data.root: {len(failed)} of {len(indices)} sampled images cannot be read, more than max_unreadable allows"
        )
    return failed
