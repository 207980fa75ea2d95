"""Content images from a folder and its subfolders."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from fast_nst import image
from fast_nst.data.image_cache import ImageCache, UnreadablePictureWarning


def list_pictures(
    root: str | os.PathLike[str], name: str = "data.root", on_error: Callable[[OSError], None] | None = None
) -> list[Path]:
    """List all files below `root` with the suffix of a picture, sorted; errors call the argument `name`.

    on_error: called for each subfolder that cannot be opened; by default a warning.
    Raises ImageError if `root` is not a folder, cannot be opened, or holds no picture.
    """
    root = Path(root).expanduser()
    try:
        os.scandir(root).close()
    except FileNotFoundError:
        raise image.ImageError(f"{name}: {root}: no such folder") from None
    except NotADirectoryError:
        raise image.ImageError(f"{name}: {root}: is a file; give the folder that holds the photographs") from None
    except OSError as error:
        raise image.ImageError(f"{name}: {root}: cannot be opened ({error.strerror})") from None
    paths = sorted(
        Path(folder) / file
        for folder, _, names in os.walk(root, onerror=on_error or _warn)
        for file in names
        if Path(file).suffix.lower() in image.SUFFIXES | image.FOREIGN and not file.startswith(".")
    )
    if not paths:
        raise image.ImageError(f"{name}: {root}: holds no picture ({', '.join(sorted(image.SUFFIXES))})")
    return paths


def _warn(error: OSError) -> None:
    warnings.warn(f"skipped: {error.filename}: {error.strerror}", UnreadablePictureWarning, stacklevel=3)


class Folder:
    """The RGB images below `root` by index; None if an image cannot be read. See `image_cache.ImageCache`."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        shorter: int,
        cache_mib: int = 512,
        max_unreadable: float = 0.5,
        name: str = "data.root",
    ) -> None:
        """name: what errors call `root`. Raises ImageError like `list_pictures`."""
        self.paths = list_pictures(root, name)
        self.images = ImageCache(len(self.paths), shorter, cache_mib, max_unreadable)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image | None:
        return self.images.read(index, lambda shorter: image.open_picture(self.paths[index], shorter))
