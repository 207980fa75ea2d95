"""Read and write video files with PyAV. Frames become tensors; their times and the sound stay as they are."""

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fast_nst import errors, foreign, image
from fast_nst.atomic import check_place

if TYPE_CHECKING:
    import av
    import torch
    from av.audio.stream import AudioStream
    from av.video.stream import VideoStream
    from torch import Tensor

_H264 = ("libx264", {"crf": "18", "preset": "medium"})
_VP9 = ("libvpx-vp9", {"crf": "24", "b": "0", "row-mt": "1", "cpu-used": "4"})
ENCODERS = {".mp4": _H264, ".m4v": _H264, ".mov": _H264, ".mkv": _H264, ".webm": _VP9}
_ARBITRARY_START = ("mpegts", "mpeg")  # formats whose clips may begin at any time; their outputs begin at 0
_UNKNOWN, _BT709, _BT601 = 2, 1, 5  # color spaces, numbered as in ISO 23091
_KNOWN = {1: 1, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}  # color spaces that swscale converts -> swscale's numbers
_LIMITED = 1  # color range of the output
_MISSING = 1.0  # seconds that may be missing at the end of a complete clip: durations in headers are estimates


def is_clip(path: str | os.PathLike[str]) -> bool:
    """Return whether `path` has the suffix of a video file."""
    return foreign.find_kind(Path(path)) is foreign.VIDEO or Path(path).suffix.lower() == ".ts"  # TypeScript's, too


def is_output(path: str | os.PathLike[str]) -> bool:
    """Return whether `stylize_video` wrote `path` with `provenance`."""
    av = import_av()
    try:
        with av.open(os.fspath(path)) as container:
            comments = [value for key, value in container.metadata.items() if key.lower() == "comment"]
    except av.FFmpegError:
        return False
    return any(comment.startswith(f"{image.PROVENANCE} ") for comment in comments)


def check_target(path: str | os.PathLike[str]) -> None:
    """Raise UserError, before long work, if the suffix or folder of `path` rules out writing a clip."""
    if Path(path).suffix.lower() not in ENCODERS:
        raise errors.UserError(f"{path}: cannot write this format; allowed for a clip: {', '.join(ENCODERS)}")
    check_place(path)


class Reader:
    """An open video file. Iterate over it to get its frames and its packets of sound, in the order of the file.

    Packets that cannot be decoded are left out and counted. Raises UserError if there is no video stream to decode.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.av, self.path = import_av(), Path(path)
        if not self.path.is_file():  # FFmpeg would also open URLs, and wait for a pipe
            raise errors.UserError(f"{path}: {'is not a regular file' if self.path.exists() else 'no such file'}")
        self.damaged, self.end = 0, Fraction(0)  # packets; seconds
        self.open()

    def open(self) -> None:
        try:
            self.clip = self.av.open(str(self.path.absolute()))
        except self.av.FFmpegError as error:
            raise errors.UserError(f"{self.path}: not a video, or damaged ({error.strerror})") from None
        video = self.clip.streams.best("video")
        if video is None:
            raise errors.UserError(f"{self.path}: has no video stream")
        if video.codec_context is None:
            raise errors.UserError(f"{self.path}: its video codec cannot be decoded here")
        self.video: VideoStream = video
        self.video.thread_type = "AUTO"
        self.sound: list[AudioStream] = list(self.clip.streams.audio)
        self.whole = ((self.clip.duration or 0) + (self.clip.start_time or 0)) / 1e6  # seconds

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.clip.close()

    def first_frame(self) -> "av.VideoFrame":
        """Return the first frame and rewind. Raises UserError if there is none."""
        frame = next((item for item in self if isinstance(item, self.av.VideoFrame)), None)
        if frame is None:
            raise errors.UserError(f"{self.path}: has no frame that can be decoded")
        self.clip.close()
        self.damaged, self.end = 0, Fraction(0)
        self.open()
        return frame

    def __iter__(self) -> "Iterator[av.VideoFrame | av.Packet]":
        for packet in self._demux():
            if packet.pts is not None:
                self.end = max(self.end, (packet.pts + (packet.duration or 0)) * Fraction(packet.time_base))
            if packet.stream.index != self.video.index:
                if packet.dts is not None and packet.stream in self.sound:
                    yield packet
                continue
            try:
                frames = packet.decode()
            except self.av.FFmpegError:
                self.damaged += 1
                continue
            yield from frames

    def _demux(self) -> "Iterator[av.Packet]":
        try:
            yield from self.clip.demux()
        except self.av.FFmpegError:
            self.damaged += 1

    def start(self) -> Fraction:
        """Return the time in the clip, in seconds, that becomes 0 in the output."""
        arbitrary = self.clip.format.name in _ARBITRARY_START
        return Fraction(self.clip.start_time or 0, 1_000_000) if arbitrary else Fraction(0)

    def count(self) -> int | None:
        """Return the approximate number of frames; None if it is unknown."""
        if self.video.frames or not (self.clip.duration and self.video.average_rate):
            return self.video.frames or None
        return round(self.clip.duration / 1e6 * float(self.video.average_rate))

    def damage(self) -> str | None:
        """Return what is wrong with the clip, once it has been read to its end; None if nothing is."""
        if float(self.end) < self.whole - min(_MISSING, self.whole / 10):
            return f"is cut short, after {float(self.end):.1f} of {self.whole:.1f} seconds"
        return f"{self.damaged} damaged packets were left out" if self.damaged else None


class Layout:
    """How frames become tensors and outputs become frames: size, rotation and colors, taken from the first frame."""

    def __init__(self, frame: "av.VideoFrame", size: int | None) -> None:
        from fast_nst.stylize import hdr

        scale = 1 if size is None else size / max(frame.width, frame.height)
        self.width, self.height = (max(1, round(side * scale)) for side in (frame.width, frame.height))  # not turned
        self.turns = round(frame.rotation / 90) % 4
        self.transfer = frame.color_trc if frame.color_trc in hdr.TRANSFERS else None
        self.transfer_name = "" if self.transfer is None else hdr.TRANSFERS[self.transfer][0]
        # Without a tag, players assume BT.709 for high definition.
        self.source_space = _KNOWN.get(frame.colorspace, _BT709 if frame.height >= 720 else _BT601)
        self.space = self.source_space if self.transfer is None else _BT709
        tags = (frame.color_primaries, frame.color_trc)
        self.primaries, self.trc = (tag or _UNKNOWN for tag in tags) if self.transfer is None else (_BT709, _BT709)
        flags = import_av().video.reformatter.Interpolation
        self.scaling = int(flags.BICUBIC | flags.ACCURATE_RND | flags.FULL_CHR_H_INT)

    def to_tensor(self, frame: "av.VideoFrame", device: "torch.device") -> "Tensor":
        """Convert `frame` to (1, 3, H, W) in [0, 1], upright, on `device`."""
        import torch

        from fast_nst.stylize import hdr

        kind, white = ("rgb24", 255) if self.transfer is None else ("rgb48le", 65535)
        array = frame.to_ndarray(
            format=kind, width=self.width, height=self.height, src_colorspace=self.source_space,
            interpolation=self.scaling,
        )  # fmt: skip
        upright = np.rot90(array, self.turns).astype(np.float32)
        content = torch.from_numpy(upright).permute(2, 0, 1)[None].to(device) / white
        return content if self.transfer is None else hdr.to_standard_range(content, self.transfer)

    def to_frame(self, output: "Tensor") -> "av.VideoFrame":
        """Convert (1, 3, H, W) to YUV 4:2:0. Where a side is odd, the last row or column is repeated."""
        array = np.asarray(image.to_pillow(output))
        array = np.pad(array, ((0, array.shape[0] % 2), (0, array.shape[1] % 2), (0, 0)), mode="edge")
        frame = import_av().VideoFrame.from_ndarray(array, format="rgb24")
        frame = frame.reformat(
            format="yuv420p", dst_colorspace=self.space, dst_color_range=_LIMITED, interpolation=self.scaling
        )
        frame.color_primaries, frame.color_trc = self.primaries, self.trc
        return frame


class Writer:
    """Encodes outputs with the times of their source frames, and copies packets of sound. Raises UserError."""

    def __init__(self, output: Any, target: Path, reader: Reader, layout: Layout) -> None:
        self.output, self.layout, self.start = output, layout, reader.start()
        codec, options = ENCODERS[target.suffix.lower()]
        video = reader.video
        try:
            self.stream = output.add_stream(codec, rate=video.average_rate or 25, options=options)
        except ValueError:
            raise errors.UserError(f"{target}: this PyAV cannot write {codec}; pip install fast-nst[video]") from None
        sides = (layout.height, layout.width) if layout.turns % 2 else (layout.width, layout.height)
        self.stream.width, self.stream.height = (side + side % 2 for side in sides)
        self.stream.pix_fmt, context = "yuv420p", self.stream.codec_context
        context.time_base = video.time_base
        if (aspect := video.sample_aspect_ratio) and aspect != 1:
            context.sample_aspect_ratio = 1 / aspect if layout.turns % 2 else aspect
        context.colorspace, context.color_range = {5: 6}.get(layout.space, layout.space), _LIMITED
        context.color_primaries, context.color_trc = layout.primaries, layout.trc
        self.time_base = Fraction(video.time_base or 1)
        self.sound: dict[int, Any] = {}  # index of a stream in the clip -> stream of the output
        self.last: int | None = None  # time of the last frame, in units of `time_base`
        self.durations: dict[int, int] = {}
        try:
            for stream in reader.sound:
                self.sound[stream.index] = output.add_stream_from_template(stream)
            output.start_encoding()
        except (ValueError, reader.av.FFmpegError) as error:
            if isinstance(error, OSError) or not reader.sound:
                raise
            kinds = ", ".join(stream.codec_context.name for stream in reader.sound)
            raise errors.UserError(f"{target}: cannot hold the clip's sound ({kinds}); give -o FILE.mkv") from None

    def write_frame(self, output: "Tensor", source: "av.VideoFrame") -> None:
        """Encode `output` with the time of the frame `source`."""
        pts = None if source.pts is None else source.pts - round(self.start / self.time_base)
        if self.last is not None and (pts is None or pts <= self.last):  # an encoder accepts only increasing times
            pts = self.last + (1 if pts is not None else max(1, source.duration or 1))
        self.last = pts or 0
        frame = self.layout.to_frame(output)
        frame.pts, frame.time_base = self.last, source.time_base
        self.durations[self.last] = source.duration
        self._mux(self.stream.encode(frame))

    def write_sound(self, packet: "av.Packet") -> None:
        offset = round(self.start / Fraction(packet.time_base))
        packet.pts, packet.dts = (None if time is None else time - offset for time in (packet.pts, packet.dts))
        packet.stream = self.sound[packet.stream.index]
        self.output.mux(packet)

    def finish(self) -> None:
        self._mux(self.stream.encode(None))

    def _mux(self, packets: "list[av.Packet]") -> None:
        for packet in packets:
            if packet.pts in self.durations:
                packet.duration = self.durations.pop(packet.pts)
            self.output.mux(packet)


def import_av() -> ModuleType:
    try:
        import av
    except ImportError:
        raise errors.UserError("video: needs PyAV; pip install fast-nst[video]") from None
    return av
