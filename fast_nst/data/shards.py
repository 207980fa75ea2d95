"""Content images from tar shards (WebDataset's format), local or at any URL that fsspec reads.

The files of a sample share their name up to its first dot.

Why not webdataset or litdata: both stream. With shards of unequal size and several processes, an epoch then repeats or
drops samples, and a run stopped in mid-epoch does not resume at the same sample. A tar file needs no streaming: its
headers give the offset of each file. They are read once and cached. A sample is then one read of known length, so
order, workers and resuming are the same as with other sources. This needs only tarfile and fsspec (which Lightning
depends on).
"""

import contextlib
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
from fast_nst.atomic import atomic_write
from fast_nst.data.image_cache import ImageCache
from fast_nst.errors import UserError


class Shard(NamedTuple):
    """Offsets and lengths, (N,) each, in bytes, of the images in one tar file."""

    url: str
    offsets: np.ndarray
    lengths: np.ndarray


def expand(root: str | os.PathLike[str]) -> list[str]:
    """List the shards that `root` names: a folder of .tar files, one file, a pattern with * or {000..123}, or a URL.

    Raises UserError if there is none.
    """
    text = os.path.expanduser(os.fspath(root))
    if "{" in text and ".." in text:
        before, _, rest = text.partition("{")
        numbers, _, after = rest.partition("}")
        first, _, last = numbers.partition("..")
        if not (first.isdigit() and last.isdigit()):
            raise UserError(f"data.root: {text}: {{{numbers}}} is not a range like {{000..123}}")
        return [f"{before}{number:0{len(first)}d}{after}" for number in range(int(first), int(last) + 1)]
    if "://" not in text:
        pattern = os.path.join(glob.escape(text), "*.tar") if os.path.isdir(text) else text
        urls = sorted(glob.glob(pattern))
    elif "*" in text:
        try:
            files, path = fsspec.core.url_to_fs(text)
            urls = sorted(files.unstrip_protocol(name) for name in files.glob(path))
        except (OSError, ValueError, ImportError) as error:
            raise UserError(f"data.root: {text}: cannot be listed ({error})") from None
    else:
        urls = [text]
    if not urls:
        raise UserError(
            f"data.root: {text}: no such shard; give a folder of .tar files, or a pattern like DIR/{{000..123}}.tar"
        )
    return urls


class Shards:
    """The RGB images of tar shards by index; an image that cannot be read is None. See `image_cache.ImageCache`.

    If a sample has several images, the first is used. index_dir: the folder that caches the images' offsets, by the
    shard's URL, size and time; None: the user's cache folder. Raises UserError if a shard cannot be read.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        shorter: int,
        cache_mib: int = 512,
        max_unreadable: float = 0.5,
        index_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = Path(base) / "fast_nst" / "shards" if index_dir is None else Path(index_dir)
        with ThreadPoolExecutor(16) as pool:
            self.shards = list(pool.map(lambda url: _index(url, folder), expand(root)))
        self.starts = np.cumsum([0, *(len(shard.offsets) for shard in self.shards)])
        if not len(self):
            raise UserError(f"data.root: {root}: the shards hold no picture ({', '.join(sorted(image.SUFFIXES))})")
        self.images = ImageCache(len(self), shorter, cache_mib, max_unreadable)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> Image.Image | None:
        number = int(np.searchsorted(self.starts, index, "right")) - 1
        shard = self.shards[number]
        i = index - int(self.starts[number])
        start, length = int(shard.offsets[i]), int(shard.lengths[i])

        def decode(shorter: int) -> image.Picture:
            files, path = fsspec.core.url_to_fs(shard.url)
            try:
                data = files.cat_file(path, start=start, end=start + length)
            except (OSError, ValueError) as error:
                raise image.ImageError(f"{shard.url}: cannot be read ({error})") from None
            return image.decode_picture(data, f"{shard.url} at byte {start}", shorter)

        return self.images.read(index, decode)


def _index(url: str, folder: Path) -> Shard:
    """Return the shard at `url`, with its offsets from the cache in `folder` or else from its headers."""
    try:
        files, path = fsspec.core.url_to_fs(url)
        info: dict[str, Any] = files.info(path)
        key = f"{url} {info.get('size')} {info.get('mtime') or info.get('ETag') or info.get('LastModified')}"
        cached = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
        if (kept := _kept(cached)) is not None:
            spans = kept
        else:
            with files.open(path, "rb") as file:
                spans = np.array(_read_spans(file), np.int64).reshape(-1, 2)
            _keep(cached, spans)
    except (OSError, tarfile.TarError, ValueError, ImportError) as error:
        raise UserError(f"data.root: {url}: cannot read the tar shard ({' '.join(str(error).split())})") from None
    return Shard(url, spans[:, 0], spans[:, 1])


def _kept(cached: Path) -> np.ndarray | None:
    """Return the cached spans, (N, 2); None if they are missing or damaged."""
    try:
        spans: np.ndarray = np.load(cached)
    except (OSError, ValueError, EOFError):
        return None
    return spans if spans.ndim == 2 and spans.shape[1] == 2 else None


def _keep(cached: Path, spans: np.ndarray) -> None:
    """Cache the spans, unless there is no home folder or the file cannot be written."""
    with contextlib.suppress(OSError, UserError):
        if cached.is_absolute():
            with atomic_write(cached) as temporary, open(temporary, "wb") as file:
                np.save(file, spans)


def _read_spans(file: Any) -> list[tuple[int, int]]:
    """Return (offset, length) of each sample's first image."""
    spans: dict[str, tuple[int, int]] = {}
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            stem, _, suffixes = name.partition(".")
            if member.isfile() and stem and f".{suffixes.rpartition('.')[2].lower()}" in image.SUFFIXES:
                spans.setdefault(f"{folder}/{stem}", (member.offset_data, member.size))
    return list(spans.values())
