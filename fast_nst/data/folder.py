"""Content images from a folder and its subfolders."""

import os

from PIL import Image

from fast_nst import image
from fast_nst.data.image_cache import ImageCache
from fast_nst.listing import list_pictures


class Folder:
    """The RGB images below `root` by index; an image that cannot be read is None. See `image_cache.ImageCache`."""

    def __init__(
        self,
        root: str | os.PathLike[str],
        shorter: int,
        cache_mib: int = 512,
        max_unreadable: float = 0.5,
        name: str = "data.root",
    ) -> None:
        """name: the name of `root` in errors. Raises ImageError in the same cases as `list_pictures`."""
        self.paths = list_pictures(root, name)
        self.images = ImageCache(len(self.paths), shorter, cache_mib, max_unreadable)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image | None:
        return self.images.read(index, lambda shorter: image.open_picture(self.paths[index], shorter))
