"""The content dataset: an endless sequence of crops, each a pure function of (seed, position).

Position p is image p mod N of epoch p div N. The order of an epoch and every crop and flip come from generators seeded
with (seed, epoch, index). So the data of a step does not depend on workers, processes or interruptions.
"""

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from fast_nst import errors, image
from fast_nst.data.batch import Batch
from fast_nst.errors import UserError

CROPS = ("random_resized", "random", "center")


class Source(Protocol):
    """N images by index; an image that cannot be read is None."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Image.Image | None: ...


Box = tuple[float, float, float, float]


def random_resized_box(
    rng: np.random.Generator, width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    """Draw a crop, (left, top, right, bottom), anywhere in an image (Szegedy et al. 2015, arXiv 1409.4842, sec. 6).

    Its share of the area is uniform in `scale`, its width/height log-uniform in `ratio`. After ten boxes that do not
    fit, return the largest centered box with an allowed ratio.
    """
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if w <= width and h <= height:
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            return left, top, left + w, top + h
    w = min(width, height * ratio[1])
    h = min(height, width / ratio[0])
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


def random_box(rng: np.random.Generator, width: int, height: int, side: int) -> Box:
    """Draw a square of `side` pixels, or the largest one that fits, anywhere in an image."""
    side = min(side, width, height)
    left, top = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
    return left, top, left + side, top + side


def center_box(width: int, height: int) -> Box:
    """Return the largest centered square; resized to S, it is the center crop of the image with shorter side S."""
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def center_square(picture: Image.Image, side: int) -> Image.Image:
    """Resize the largest centered square of `picture` to `side`."""
    return picture.resize((side, side), Image.Resampling.BICUBIC, box=center_box(*picture.size))


class ContentImages(Dataset[Tensor]):
    """Map a position to a crop, (3, size, size) in [0, 1], of image `position mod N` in the order of its epoch.

    indices: this set's indices in `source`. crop: "random_resized" or "random" (not resized), both flipped with
    probability 1/2, or "center". scale, ratio: ranges for `random_resized_box`. shuffle: whether each epoch has a new
    order; otherwise it is the order of `indices`.
    An unreadable image is replaced by the next readable one; `source` reports it.
    """

    def __init__(
        self,
        source: Source,
        indices: list[int],
        size: int,
        crop: str = "random_resized",
        scale: Sequence[float] = (0.25, 1.0),
        ratio: Sequence[float] = (0.8, 1.25),
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        errors.check_int("data.size", size, 16)
        errors.check_choice("data.crop", crop, CROPS)
        for name, limits, top in (("data.scale", scale, 1.0), ("data.ratio", ratio, 100.0)):
            if not (
                isinstance(limits, list | tuple) and len(limits) == 2
                and all(isinstance(limit, int | float) for limit in limits) and 0 < limits[0] <= limits[1] <= top
            ):  # fmt: skip
                raise UserError(f"{name}: got {limits}; allowed: two increasing numbers above 0, up to {top}")
        self.source, self.indices, self.size, self.crop = source, indices, size, crop
        self.scale, self.ratio = (scale[0], scale[1]), (ratio[0], ratio[1])
        self.shuffle, self.seed = shuffle, seed
        # An epoch's order is used N times and costs O(N): cache the last two.
        self._order = functools.lru_cache(maxsize=2)(self._make_order)

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "_order"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._order = functools.lru_cache(maxsize=2)(self._make_order)

    def _make_order(self, epoch: int) -> np.ndarray:
        order = np.asarray(self.indices)
        return np.random.default_rng((self.seed, epoch)).permutation(order) if self.shuffle else order

    def __len__(self) -> int:
        return len(self.indices)

    def indices_at(self, positions: Iterable[int]) -> list[int]:
        """Return the source indices of the images at `positions`, without repeats, in order."""
        indices: dict[int, None] = {}
        for position in positions:
            epoch, index = divmod(position, len(self))
            indices[int(self._order(epoch)[index])] = None
            if len(indices) == len(self):
                break
        return list(indices)

    def __getitem__(self, position: int) -> Tensor:
        epoch, index = divmod(position, len(self.indices))
        order = self._order(epoch)
        for attempt in range(len(order)):
            picture = self.source[int(order[(index + attempt) % len(order)])]
            if picture is not None:
                break
        else:
            raise image.ImageError("data: none of the content images can be read")
        rng = np.random.default_rng((self.seed, epoch, index))
        if self.crop == "center":
            box, flip = center_box(*picture.size), False
        else:
            if self.crop == "random":
                box = random_box(rng, *picture.size, self.size)
            else:
                box = random_resized_box(rng, *picture.size, self.scale, self.ratio)
            flip = bool(rng.integers(2))
        crop = picture.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)
        values = np.array(crop)
        return torch.from_numpy(values[:, ::-1].copy() if flip else values).permute(2, 0, 1).float() / 255


class StyledImages(Dataset[Batch]):
    """Add the style of each item to `images`: {"content": (3, S, S), "style": (num_styles,)}.

    Styles take turns. strengths: whether to draw each item's strength (`draw_strength`); otherwise it is 1.
    """

    def __init__(self, images: ContentImages, num_styles: int, strengths: bool) -> None:
        self.images, self.num_styles, self.strengths = images, num_styles, strengths

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> Batch:
        style = torch.zeros(self.num_styles)
        strength = draw_strength(self.images.seed, position) if self.strengths else 1.0
        style[position % self.num_styles] = strength
        return {"content": self.images[position], "style": style}


def draw_strength(seed: int, position: int) -> float:
    """Draw the strength of an item: 1 for half of them, uniform from 0 to 2 for the others."""
    rng = np.random.default_rng((seed, position, 1))
    return 1.0 if rng.uniform() < 0.5 else float(np.float32(rng.uniform(0, 2)))


class StepSampler(Sampler[list[int]]):
    """Yield the positions of each batch for the steps `first`, `first + 1`, … without end.

    Step s takes the positions from s * world * batch_size on, `batch_size` for each of `world` processes. So two
    processes with two images each see the same data as one process with four.
    """

    ENDLESS = 2**40  # without a length, Lightning fetches a batch before training starts

    def __init__(self, batch_size: int, first: int = 0, rank: int = 0, world: int = 1) -> None:
        self.batch_size, self.first, self.rank, self.world = batch_size, first, rank, world

    def __len__(self) -> int:
        return self.ENDLESS

    def __iter__(self) -> Iterator[list[int]]:
        step = self.first
        while True:
            start = (step * self.world + self.rank) * self.batch_size
            yield list(range(start, start + self.batch_size))
            step += 1
