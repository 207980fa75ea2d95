"""Load a style image from a file or from the package."""

import os
from importlib.resources import files
from pathlib import Path

from torch import Tensor

from fast_nst import errors, image

BUNDLED = "bundled:"  # "bundled:cubist.jpg" is assets/styles/cubist.jpg
SIDES = ("shorter", "longer")
LONGEST = 8192  # pixels of the longer side after resizing


def find(name: str | os.PathLike[str]) -> Path:
    """Return the path of a style image: a file, or `bundled:NAME` for one in the package.

    Raises ImageError if the package has no such image.
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
    """Load a style image, (1, 3, H, W) in [0, 1], its `side` ("shorter" or "longer") resized to `size` unless None.

    Raises ImageError if it cannot be read or has a single color, UserError for a size out of range.
    """
    errors.check_choice("style.side", side, SIDES)
    picture = image.open_picture(path).on_white()
    if size is not None:
        errors.check_int("style.size", size, 16, LONGEST)
        longest = size * (max(picture.size) / min(picture.size) if side == "shorter" else 1)
        if longest > LONGEST:
            raise image.ImageError(
                f"{path}: {picture.width}x{picture.height} pixels are too long and narrow for a style image; crop it"
            )
        resize = image.resize_shorter if side == "shorter" else image.resize_longer
        picture = resize(picture, size)
    if min(picture.size) < 16:
        raise image.ImageError(f"{path}: {picture.width}x{picture.height} pixels are too few for a style image (16x16)")
    style = image.to_tensor(picture)
    if (style == style[:, :, :1, :1]).all():
        raise image.ImageError(f"{path}: has a single color; a style image needs more")
    return style
