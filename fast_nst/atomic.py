"""Write files whole or not at all."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fast_nst.errors import UserError


class NoSpace(UserError):
    """The disk or quota is full, or the file system is read-only, so further files would fail too."""


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename it to `path` if the block succeeds, delete it otherwise.

    Raises UserError if the file cannot be written.
    """
    path = Path(path)
    try:
        with _temporary_file(path) as temporary:
            yield temporary
    except OSError as error:
        kind = NoSpace if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) else UserError
        raise kind(f"{path}: cannot be written ({error.strerror or error})") from None


@contextlib.contextmanager
def _temporary_file(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem[:40]}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mode = os.umask(0)
        os.umask(mode)
        temporary.chmod(0o666 & ~mode)  # mkstemp creates private files
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_place(path: str | os.PathLike[str]) -> None:
    """Raise UserError unless a file can be created in the folder of `path`.

    If that folder does not exist, its nearest existing ancestor is tried.
    """
    try:
        Path(path).exists()  # raises if the name is too long
        folder = next(parent for parent in Path(path).absolute().parents if parent.exists())
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None
