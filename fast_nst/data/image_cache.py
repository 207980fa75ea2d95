"""Reading pictures that may be damaged: the part that every source of files shares."""

import warnings
from collections.abc import Callable

from PIL import Image

from fast_nst import errors, image


class UnreadablePictureWarning(UserWarning):
    """A content image was skipped; the message names it and says why."""


class Reader:
    """Pictures by index, decoded, made no larger than needed, and kept; one that cannot be read is None and told once.

    total: how many there are. shorter: the shorter side, in pixels, that no picture needs to exceed.
    cache_mib: pictures stay decoded in memory up to this much (in each worker process).
    max_unreadable: the share of `total` from which on unreadable pictures are an error.
    """

    def __init__(self, total: int, shorter: int, cache_mib: int, max_unreadable: float) -> None:
        self.shorter = shorter
        self.room = cache_mib * 2**20
        self.allowed = errors.check_number("data.max_unreadable", max_unreadable, 0, 1) * total
        self.total = total
        self.cache: dict[int, Image.Image | None] = {}
        self.failed = 0

    def read(self, index: int, decode: Callable[[int], image.Picture]) -> Image.Image | None:
        """Picture `index`, which `decode` makes at a shorter side. Raises ImageError when too many cannot be read."""
        if index in self.cache:
            return self.cache[index]
        try:
            picture = decode(self.shorter).on_white()
        except image.ImageError as error:
            self.failed += 1
            self.cache[index] = None
            count = f"{self.failed} of {self.total} content images cannot be read"
            if self.failed > self.allowed:
                raise image.ImageError(
                    f"data: {count}, more than data.max_unreadable allows; the last: {error}"
                ) from None
            warnings.warn(f"skipped; {count}: {error}", UnreadablePictureWarning, stacklevel=3)
            return None
        if min(picture.size) > self.shorter:
            picture = image.resize_shorter(picture, self.shorter)
        size = picture.width * picture.height * 3
        if size <= self.room:
            self.room -= size
            self.cache[index] = picture
        return picture
