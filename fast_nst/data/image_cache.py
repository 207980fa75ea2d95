"""Decode, resize and cache images that may be damaged; shared by all sources that read files."""

import warnings
from collections.abc import Callable

from PIL import Image

from fast_nst import errors, image
from fast_nst.listing import UnreadablePictureWarning


class ImageCache:
    """Decode images by index, shrink them and keep them in memory. An unreadable image is None, after one warning.

    total: the number of images. shorter: larger images are shrunk to this many pixels on the shorter side.
    cache_mib: the limit for decoded images in memory, in MiB per worker process.
    max_unreadable: the largest share of unreadable images; more raise ImageError.
    """

    def __init__(self, total: int, shorter: int, cache_mib: int, max_unreadable: float) -> None:
        self.shorter = shorter
        self.free = cache_mib * 2**20
        self.allowed = errors.check_number("data.max_unreadable", max_unreadable, 0, 1) * total
        self.total = total
        self.cache: dict[int, Image.Image | None] = {}
        self.failed = 0

    def read(self, index: int, decode: Callable[[int], image.Picture]) -> Image.Image | None:
        """Return image `index` from the cache or from `decode`. Raises ImageError if too many are unreadable."""
        if index in self.cache:
            return self.cache[index]
        try:
            picture = decode(self.shorter).on_white()
        except image.ImageError as error:
            self.failed += 1
            self.cache[index] = None
            count = f"{self.failed} of {self.total} content images cannot be read"
            if self.failed > self.allowed:
                raise image.ImageError(f"data: {count}, more than max_unreadable allows; the last: {error}") from None
            warnings.warn(f"skipped; {count}: {error}", UnreadablePictureWarning, stacklevel=3)
            return None
        if min(picture.size) > self.shorter:
            picture = image.resize_shorter(picture, self.shorter)
        size = picture.width * picture.height * 3
        if size <= self.free:
            self.free -= size
            self.cache[index] = picture
        return picture
