"""Load a style image from a file or from the package."""

import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from torch import Tensor

from fast_nst import errors, image
from fast_nst.listing import list_pictures

BUNDLED = "bundled:"  # "bundled:cubist.jpg" is assets/styles/cubist.jpg
SIDES = ("shorter", "longer")
LONGEST = 8192  # pixels of the longer side after resizing


def find(name: str | os.PathLike[str]) -> Path:
    """Return the path of a style image: a file, `bundled:NAME` for one in the package, or a bundled style's name.

    Raises ImageError if the package has no such image, or if a bare name is neither a file nor a bundled style.
    """
    text, folder = os.fspath(name), Path(str(files("fast_nst"))) / "assets" / "styles"
    if not text.startswith(BUNDLED):
        bundled, path = folder / f"{text}.jpg", Path(text)
        if not path.exists() and path.name == text and not path.suffix and not bundled.is_file():
            names = ", ".join(sorted(p.stem for p in folder.glob("*.jpg")))
            raise image.ImageError(f"{text}: no such file; the bundled styles are {names}")
        return bundled if bundled.is_file() and not path.exists() else path
    path = folder / text.removeprefix(BUNDLED)
    if not path.is_file():
        known = ", ".join(sorted(BUNDLED + p.name for p in folder.glob("*.jpg")))
        raise image.ImageError(f"style.image: no picture {text!r} in the package; it has {known}")
    return path


def find_all(names: str | os.PathLike[str] | Sequence[str]) -> list[Path]:
    """Return the paths of one style image (`find`), of several, or of all pictures in a folder. Raises UserError."""
    items = [names] if isinstance(names, str | os.PathLike) else list(names)
    paths: list[Path] = []
    for item in items:
        if not isinstance(item, str | os.PathLike) or not os.fspath(item):
            raise errors.UserError(f"style.image: got {item!r}; allowed: a path or the name of a bundled style")
        path = find(item)
        paths += list_pictures(path, "style.image") if path.is_dir() else [path]
    stems = [path.stem for path in paths]
    if not paths or len(set(stems)) < len(stems):
        raise errors.UserError(f"style.image: got {', '.join(stems) or 'no file'}; allowed: files with different names")
    return paths


def load(path: str | os.PathLike[str], size: int | None = 256, side: str = "shorter") -> Tensor:
    """Load a style image, (1, 3, H, W) in [0, 1]. Resize its `side`, "shorter" or "longer", to `size` unless None.

    Raises ImageError if it cannot be read, is too small or too narrow, or has a single color; UserError for a size out
    of range.
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
