"""The style image: one painting, from a file or from the package."""

import os
from importlib.resources import files
from pathlib import Path

from torch import Tensor

from fast_nst import errors, image

BUNDLED = "bundled:"  # "bundled:wave.jpg" is the package's own picture of that name
SIDES = ("shorter", "longer")
LONGEST = 8192  # pixels of the longer side after resizing


def find(name: str | os.PathLike[str]) -> Path:
    """The path of a style image: a file, or `bundled:NAME` for one of the package's own.

    Raises ImageError where there is none.
    """
    text = os.fspath(name)
    if not text.startswith(BUNDLED):
        return Path(text)
    folder = Path(str(files("fast_nst"))) / "assets" / "styles"
    path = folder / text.removeprefix(BUNDLED)
    if not path.is_file():
        known = ", ".join(sorted(BUNDLED + p.name for p in folder.glob("*.jpg")))
        raise image.ImageError(f"style.image: no picture {text!r} in the package; it has {known}")
    return path


def load(path: str | os.PathLike[str], size: int | None = 256, side: str = "shorter") -> Tensor:
    """The painting as (1, 3, H, W) in [0, 1], its `side` ("shorter" or "longer") resized to `size`; None: as it is.

    Raises ImageError where it cannot be read or is of one colour, ValueError for a size out of range.
    """
    errors.check_choice("style.side", side, SIDES)
    picture = image.open_picture(path).on_white()
    if size is not None:
        errors.check_int("style.size", size, 16, LONGEST)
        longest = size * (max(picture.size) / min(picture.size) if side == "shorter" else 1)
        if longest > LONGEST:
            raise image.ImageError(
                f"{path}: {picture.width}x{picture.height} pixels are too long and narrow for a style image; cut it"
            )
        resize = image.resize_shorter if side == "shorter" else image.resize_longer
        picture = resize(picture, size)
    if min(picture.size) < 16:
        raise image.ImageError(f"{path}: {picture.width}x{picture.height} pixels are too few for a style image (16x16)")
    painting = image.to_tensor(picture)
    if (painting == painting[:, :, :1, :1]).all():
        raise image.ImageError(f"{path}: one colour all over; a style image needs more")
    return painting
