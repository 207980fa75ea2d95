"""Write 16-bit RGB and RGBA images as PNG (W3C PNG, third edition) and TIFF 6.0, which Pillow cannot.

Legend: H height, W width, C channels (3, or 4 with transparency); pixels are uint16, (H, W, C).
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

_ROWS = 64  # rows compressed at a time
_LEVEL = 6  # zlib's compression level
_SHORT, _LONG, _TEXT = 3, 4, 2  # TIFF's field types
_FORMAT = {_SHORT: "H", _LONG: "I"}


def write_png(path: Path, pixels: np.ndarray, key: str = "", text: str = "") -> None:
    """Write `pixels` to `path`, and a text chunk with `key` and `text` if `key` is not empty. Raises OSError."""
    height, width, channels = pixels.shape
    with open(path, "wb") as file:

        def write_chunk(kind: bytes, data: bytes) -> None:
            file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))

        file.write(b"\x89PNG\r\n\x1a\n")
        write_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0))
        if key:
            write_chunk(b"iTXt", key.encode("latin-1") + b"\0\0\0\0\0" + text.encode())
        compressor = zlib.compressobj(_LEVEL)
        above = np.zeros((1, width * channels * 2), np.uint8)
        for rows in _row_groups(pixels):
            values = rows.astype(">u2", order="C").view(np.uint8).reshape(len(rows), -1)
            filtered = values - np.concatenate([above, values[:-1]])  # modulo 256: the filter "up", number 2
            above = values[-1:]
            data = compressor.compress(np.pad(filtered, ((0, 0), (1, 0)), constant_values=2).tobytes())
            if data:
                write_chunk(b"IDAT", data)
        write_chunk(b"IDAT", compressor.flush())
        write_chunk(b"IEND", b"")


def write_tiff(path: Path, pixels: np.ndarray, software: str = "") -> None:
    """Write `pixels` to `path`, compressed by Deflate. Raises OSError, also if the file exceeds TIFF's 4 GiB."""
    height, width, channels = pixels.shape
    with open(path, "wb") as file:
        file.write(struct.pack("<2sHI", b"II", 42, 0))  # `_write_tags` fills in the offset of the tags
        offsets, counts = [], []
        for rows in _row_groups(pixels):
            difference = rows.copy()
            difference[:, 1:] -= rows[:, :-1]  # modulo 65536: predictor 2
            data = zlib.compress(difference.astype("<u2").tobytes(), _LEVEL)
            offsets.append(file.tell())
            counts.append(file.write(data))
        if file.tell() > 2**32 - 2**24:
            raise OSError(f"{width} x {height} pixels of 16 bits are too many for a .tif")
        tags = {
            256: (_LONG, [width]), 257: (_LONG, [height]), 258: (_SHORT, [16] * channels), 259: (_SHORT, [8]),
            262: (_SHORT, [2]), 273: (_LONG, offsets), 277: (_SHORT, [channels]), 278: (_LONG, [_ROWS]),
            279: (_LONG, counts), 284: (_SHORT, [1]), 317: (_SHORT, [2]),
        }  # fmt: skip
        if channels == 4:
            tags[338] = (_SHORT, [2])  # alpha that is not multiplied into the colors
        packed = {tag: (kind, len(v), struct.pack(f"<{len(v)}{_FORMAT[kind]}", *v)) for tag, (kind, v) in tags.items()}
        if software:
            text = software.encode() + b"\0"
            packed[305] = (_TEXT, len(text), text)
        _write_tags(file, packed)


def _write_tags(file: BinaryIO, packed: dict[int, tuple[int, int, bytes]]) -> None:
    """Write TIFF tags at the end of `file`, and their offset into its header. packed: (type, count, data) by number."""
    start = file.tell() + file.tell() % 2
    entries, beyond = b"", b""
    for tag, (kind, count, data) in sorted(packed.items()):
        value = data.ljust(4, b"\0")
        if len(data) > 4:
            value = struct.pack("<I", start + 6 + 12 * len(packed) + len(beyond))
            beyond += data + b"\0" * (len(data) % 2)
        entries += struct.pack("<HHI", tag, kind, count) + value
    file.seek(start)
    file.write(struct.pack("<H", len(packed)) + entries + struct.pack("<I", 0) + beyond)
    file.seek(4)
    file.write(struct.pack("<I", start))


def _row_groups(pixels: np.ndarray) -> Iterator[np.ndarray]:
    return (pixels[top : top + _ROWS] for top in range(0, len(pixels), _ROWS))
