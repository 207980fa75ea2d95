"""Stylize a video file with PyAV: the sound and the times of the frames stay as they are.

One frame is in memory at a time. Frames are turned upright, and high dynamic range becomes standard range (`hdr`).
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import nn
from tqdm import tqdm

from fast_nst import errors, image
from fast_nst.atomic import atomic_write
from fast_nst.stylize.clip import Layout, Reader, Writer, check_target
from fast_nst.stylize.frames import FramePainter
from fast_nst.stylize.options import Options


def stylize_video(
    network: nn.Module,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    options: Options = Options(),  # noqa: B008 (frozen)
    on_note: Callable[[str], None] = print,
) -> int:
    """Stylize the clip `source`, write `target` and return the number of frames. A bar shows the progress.

    An odd side gets one more row or column, because H.264 requires even sides. on_note: called with one-line messages
    for the user. After Ctrl-C, `target` has the frames painted so far, and KeyboardInterrupt says so. Raises UserError;
    if `source` is damaged, it does so after writing the frames that could be read.
    """
    if options.size is not None:
        errors.check_int("size", options.size, 1)
    check_target(target)
    reader = Reader(source)  # also checks that PyAV is installed
    import av

    with reader, atomic_write(target) as temporary, _stop_on_interrupt() as is_stopped:
        layout = Layout(reader.first_frame(), options.size)
        if layout.transfer is not None:
            on_note(f"{source}: high dynamic range ({layout.transfer_name}) becomes standard range")
        try:
            with av.open(os.fspath(temporary), "w") as output, FramePainter(network, options) as paint:
                paint.check_memory(source, layout.width, layout.height)
                if options.provenance is not None:
                    output.metadata["comment"] = f"{image.PROVENANCE} {options.provenance}"
                writer = Writer(output, Path(target), reader, layout)
                done = _paint_frames(reader, layout, paint, writer, is_stopped)
        except av.FFmpegError as error:
            raise OSError(error.errno, error.strerror) from None
        if is_stopped() and not done:
            raise KeyboardInterrupt
    if is_stopped():
        raise KeyboardInterrupt(f"{target} has the first {done} frames of {source}")
    if (damage := reader.damage()) is not None:
        raise errors.UserError(f"{source}: {damage}; {target} has the {done} frames that could be read")
    return done


def _paint_frames(
    reader: Reader, layout: Layout, paint: FramePainter, writer: Writer, is_stopped: Callable[[], bool]
) -> int:
    """Paint and write frames until the end of the clip or Ctrl-C; return how many."""
    import av

    done = 0
    with tqdm(total=reader.count(), unit="frame", desc=reader.path.name, disable=None) as bar:
        for item in reader:
            if isinstance(item, av.Packet):
                writer.write_sound(item)
            else:
                writer.write_frame(paint(layout.to_tensor(item, paint.device)), item)
                done += 1
                bar.update()
            if is_stopped():
                break
    writer.finish()
    return done


@contextlib.contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C was pressed. A second Ctrl-C interrupts at once."""
    pressed = False
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield lambda: False
        return

    def note(*_: object) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
