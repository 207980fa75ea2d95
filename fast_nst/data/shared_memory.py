"""Check the shared memory through which worker processes send images, and recognize errors from a lack of it."""

import errno
import shutil
import traceback
from pathlib import Path

from fast_nst.errors import UserError

FOLDER = Path("/dev/shm")  # on Linux; elsewhere it has no limit of its own
REMEDY = "set data.workers=0, or allow more shared memory (docker run --shm-size=1g)"
_LOCKS = 2**16  # bytes of a worker's locks and queues


def check_space(workers: int, bytes_each: int) -> None:
    """Raise UserError unless shared memory has room for `workers` processes with `bytes_each` of images each."""
    if workers == 0 or not FOLDER.is_dir():
        return
    needed, space = workers * (_LOCKS + bytes_each), shutil.disk_usage(FOLDER)
    if space.total > 0 and space.free < needed:  # a total of 0 means no limit
        needs, free = (f"{count / 2**20:.1f} MiB" for count in (needed, space.free))
        raise UserError(
            f"data.workers: {workers} workers need {needs} of shared memory, {FOLDER} has {free} free; {REMEDY}"
        )


def is_lack_of_it(error: BaseException) -> bool:
    """Return whether `error`, from a DataLoader, says that shared memory is full."""
    if isinstance(error, OSError):  # from a lock; any other OSError is about a file on a disk
        frames = traceback.extract_tb(error.__traceback__)
        return error.errno == errno.ENOSPC and any("multiprocessing" in frame.filename for frame in frames)
    return any(word in str(error) for word in ("</torch_", "shared memory", "Bus error"))
