"""List the picture files below a folder."""

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from fast_nst import foreign, image


class UnreadablePictureWarning(UserWarning):
    """A content image was skipped; the message gives its name and the reason."""


def list_pictures(
    root: str | os.PathLike[str],
    name: str = "data.root",
    on_error: Callable[[OSError], None] | None = None,
    on_foreign: Callable[[str], None] | None = None,
) -> list[Path]:
    """List all files below `root` with the suffix of a readable picture, sorted. Hidden files are left out.

    name: what errors call the argument `root`. on_error: called for each subfolder that cannot be opened. on_foreign:
    called with one line that counts videos, RAW photographs and the like. By default both warn. Symbolic links to
    folders are followed; a folder that is reached twice is listed once. Raises ImageError if `root` is not a folder,
    cannot be opened, or holds no picture.
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
    files = sorted(_list_files(root, on_error or _warn))
    paths = [path for path in files if path.suffix.lower() in image.SUFFIXES]
    left_out = foreign.summarize(path for path in files if path.suffix.lower() not in image.SUFFIXES)
    if not paths:
        held = left_out or ", ".join(sorted(image.SUFFIXES))
        raise image.ImageError(f"{name}: {root}: holds no picture ({held})")
    if left_out:
        (on_foreign or _warn_foreign)(f"{root}: left out {left_out}")
    return paths


def _list_files(root: Path, on_error: Callable[[OSError], None]) -> Iterator[Path]:
    """Yield the files below `root` that are not hidden, listing no folder twice; linked folders come last."""
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        for folder, names, files in os.walk(waiting.pop(0), onerror=on_error):
            place = os.stat(folder)
            if (place.st_dev, place.st_ino) in seen:
                names.clear()
                continue
            seen.add((place.st_dev, place.st_ino))
            names.sort()
            waiting += [Path(folder, name) for name in names if os.path.islink(os.path.join(folder, name))]
            yield from (Path(folder, file) for file in files if not file.startswith("."))


def _warn(error: OSError) -> None:
    warnings.warn(f"skipped: {error.filename}: {error.strerror}", UnreadablePictureWarning, stacklevel=3)


def _warn_foreign(line: str) -> None:
    warnings.warn(line, UnreadablePictureWarning, stacklevel=3)
