"""Content images from a folder: every picture below it that Pillow reads."""

import os
import warnings
from pathlib import Path

from PIL import Image

from fast_nst import image


class UnreadablePictureWarning(UserWarning):
    """A picture of the content folder was skipped; the message names it and says why."""


def list_pictures(root: str | os.PathLike[str]) -> list[Path]:
    """Every file below `root` whose suffix names a picture, sorted. Raises ImageError for no folder or no picture."""
    root = Path(root).expanduser()
    if not root.exists():
        raise image.ImageError(f"data.root: {root}: no such folder")
    if not root.is_dir():
        raise image.ImageError(f"data.root: {root}: is a file; give the folder that holds the photographs")
    found = sorted(
        Path(folder) / name
        for folder, _, names in os.walk(root)
        for name in names
        if Path(name).suffix.lower() in image.SUFFIXES and not name.startswith(".")
    )
    if not found:
        raise image.ImageError(f"data.root: {root}: holds no picture ({', '.join(sorted(image.SUFFIXES))})")
    return found


class Folder:
    """The pictures below `root` by index, RGB; one that cannot be read is reported once and gives None.

    shorter: pictures are kept no larger than this shorter side needs, which is faster to decode and to crop.
    cache_mib: pictures stay decoded in memory up to this much (in each worker process).
    """

    def __init__(self, root: str | os.PathLike[str], shorter: int, cache_mib: int = 512) -> None:
        self.paths = list_pictures(root)
        self.shorter = shorter
        self.room = cache_mib * 2**20
        self.cache: dict[int, Image.Image | None] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image | None:
        if index in self.cache:
            return self.cache[index]
        try:
            picture = image.open_picture(self.paths[index], shorter=self.shorter).rgb
        except image.ImageError as error:
            warnings.warn(f"skipped a content image: {error}", UnreadablePictureWarning, stacklevel=2)
            self.cache[index] = None
            return None
        if min(picture.size) > self.shorter:
            picture = image.resize_shorter(picture, self.shorter)
        size = picture.width * picture.height * 3
        if size <= self.room:
            self.room -= size
            self.cache[index] = picture
        return picture
