"""Content images from a folder: every picture below it that Pillow reads."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from fast_nst import image
from fast_nst.data.image_cache import Reader, UnreadablePictureWarning


def list_pictures(
    root: str | os.PathLike[str], name: str = "data.root", unlisted: Callable[[OSError], None] | None = None
) -> list[Path]:
    """Every file below `root` whose suffix names a picture, sorted; errors call the argument `name`.

    unlisted: told of each folder below `root` that cannot be looked into; by default a warning tells of it.
    Raises ImageError for no folder, one that cannot be looked into, or no picture.
    """
    root = Path(root).expanduser()
    try:
        os.scandir(root).close()
    except FileNotFoundError:
        raise image.ImageError(f"{name}: {root}: no such folder") from None
    except NotADirectoryError:
        raise image.ImageError(f"{name}: {root}: is a file; give the folder that holds the photographs") from None
    except OSError as error:
        raise image.ImageError(f"{name}: {root}: cannot be looked into ({error.strerror})") from None
    found = sorted(
        Path(folder) / file
        for folder, _, names in os.walk(root, onerror=unlisted or _warn)
        for file in names
        if Path(file).suffix.lower() in image.SUFFIXES | image.FOREIGN and not file.startswith(".")
    )
    if not found:
        raise image.ImageError(f"{name}: {root}: holds no picture ({', '.join(sorted(image.SUFFIXES))})")
    return found


def _warn(error: OSError) -> None:
    warnings.warn(f"skipped: {error.filename}: {error.strerror}", UnreadablePictureWarning, stacklevel=3)


class Folder:
    """The pictures below `root` by index, RGB; None for one that cannot be read. The rest: `reader.Reader`."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        shorter: int,
        cache_mib: int = 512,
        max_unreadable: float = 0.5,
        name: str = "data.root",
    ) -> None:
        """name: what errors call `root`. Raises as `list_pictures` does."""
        self.paths = list_pictures(root, name)
        self.reader = Reader(len(self.paths), shorter, cache_mib, max_unreadable)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image | None:
        return self.reader.read(index, lambda shorter: image.open_picture(self.paths[index], shorter))
