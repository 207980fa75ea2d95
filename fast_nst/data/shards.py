"""Content images from tar shards (WebDataset's format: files of one sample share a name up to the suffix), on a disk
or over any URL that fsspec knows, for data sets that no single disk holds.

Why not webdataset or litdata: both stream, and then an epoch over shards of unequal sizes in several processes repeats
or drops samples, and a run stopped in mid-epoch does not go on where it was. A tar file needs no streaming: its headers
say where each file lies. They are read once and kept, and then a sample is one read of known length, so shards get the
order, the workers and the resume of every other source. tarfile and fsspec (a dependency of Lightning) are enough.
"""

import glob
import hashlib
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import numpy as np
from PIL import Image

from fast_nst import image
from fast_nst.data.image_cache import Reader
from fast_nst.errors import UserError


class Shard(NamedTuple):
    """Where the pictures of one tar file lie: (N,) offsets and lengths in bytes."""

    url: str
    offsets: np.ndarray
    lengths: np.ndarray


def expand(root: str | os.PathLike[str]) -> list[str]:
    """The shards that `root` names: a folder of .tar files, one file, a pattern with * or {000..123}; URLs too.

    Raises UserError where there are none.
    """
    text = os.path.expanduser(os.fspath(root))
    if "{" in text and ".." in text:
        before, _, rest = text.partition("{")
        numbers, _, after = rest.partition("}")
        first, _, last = numbers.partition("..")
        if not (first.isdigit() and last.isdigit()):
            raise UserError(f"data.root: {text}: {{{numbers}}} is no range like {{000..123}}")
        return [f"{before}{number:0{len(first)}d}{after}" for number in range(int(first), int(last) + 1)]
    if "://" not in text:
        pattern = os.path.join(glob.escape(text), "*.tar") if os.path.isdir(text) else text
        found = sorted(glob.glob(pattern))
    elif "*" in text:
        try:
            files, path = fsspec.core.url_to_fs(text)
            found = sorted(files.unstrip_protocol(name) for name in files.glob(path))
        except (OSError, ValueError, ImportError) as error:
            raise UserError(f"data.root: {text}: cannot be listed ({error})") from None
    else:
        found = [text]
    if not found:
        raise UserError(
            f"data.root: {text}: no such shard; give a folder of .tar files, or a pattern like DIR/{{000..123}}.tar"
        )
    return found


class Shards:
    """The pictures of tar shards by index, RGB; None for one that cannot be read. The rest: `reader.Reader`.

    Of a sample with several pictures the first counts. index_dir: where the places of the pictures are kept, by the
    shard's URL, size and time; None: the user's cache folder. Raises UserError for a shard that cannot be read.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        shorter: int,
        cache_mib: int = 512,
        max_unreadable: float = 0.5,
        index_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(base) / "fast_nst" / "shards" if index_dir is None else Path(index_dir)
        with ThreadPoolExecutor(16) as pool:
            self.shards = list(pool.map(lambda url: _index(url, folder), expand(root)))
        self.starts = np.cumsum([0, *(len(shard.offsets) for shard in self.shards)])
        if not len(self):
            raise UserError(f"data.root: {root}: its shards hold no picture ({', '.join(sorted(image.SUFFIXES))})")
        self.reader = Reader(len(self), shorter, cache_mib, max_unreadable)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> Image.Image | None:
        number = int(np.searchsorted(self.starts, index, "right")) - 1
        shard = self.shards[number]
        place = index - int(self.starts[number])
        start, length = int(shard.offsets[place]), int(shard.lengths[place])

        def decode(shorter: int) -> image.Picture:
            files, path = fsspec.core.url_to_fs(shard.url)
            try:
                data = files.cat_file(path, start=start, end=start + length)
            except (OSError, ValueError) as error:
                raise image.ImageError(f"{shard.url}: cannot be read ({error})") from None
            return image.decode_picture(data, f"{shard.url} at byte {start}", shorter)

        return self.reader.read(index, decode)


def _index(url: str, folder: Path) -> Shard:
    """The places of the pictures in the shard at `url`, from `folder` or from its headers."""
    try:
        files, path = fsspec.core.url_to_fs(url)
        about: dict[str, Any] = files.info(path)
        key = f"{url} {about.get('size')} {about.get('mtime') or about.get('ETag') or about.get('LastModified')}"
        kept = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
        if kept.is_file():
            places = np.load(kept)
        else:
            with files.open(path, "rb") as file:
                places = np.array(_places(file), np.int64).reshape(-1, 2)
            with image.replacing(kept) as temporary, open(temporary, "wb") as file:
                np.save(file, places)
    except (OSError, tarfile.TarError, ValueError, ImportError) as error:
        raise UserError(f"data.root: {url}: cannot be read as a tar file ({' '.join(str(error).split())})") from None
    return Shard(url, places[:, 0], places[:, 1])


def _places(file: Any) -> list[tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            stem, _, suffixes = name.partition(".")
            if member.isfile() and stem and f".{suffixes.rpartition('.')[2].lower()}" in image.SUFFIXES:
                found.setdefault(f"{folder}/{stem}", (member.offset_data, member.size))
    return list(found.values())
