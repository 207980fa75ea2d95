"""Fuzz the readers of image files and weights files with mutated files (Linux).

python scripts/dev/fuzz.py --minutes 10

Mutations truncate, flip, splice and overwrite bytes of real files in every format. Each case must end in an image, a
network or a one-line error (`UserError`) within limits of time and memory. Anything else is a fault, and its file is
kept. The exit code is 1 if there was a fault.
"""

import io
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from tqdm import tqdm

from fast_nst import image, networks, weights
from fast_nst.commands import cli
from fast_nst.data import styles
from fast_nst.errors import UserError, check_number

SECONDS = 20.0  # limit for a case
MEMORY = 4 * 2**30  # limit in bytes above the idle reader: 180 megapixels, Pillow's limit, in float64
EDGE_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


class Case(NamedTuple):
    suffix: str
    data: bytes


def real_files() -> list[Case]:
    """Return a small valid file of each format."""
    with Image.open(styles.find("bundled:starry_night.jpg")) as painting:
        small = painting.resize((48, 36))
    alpha = small.convert("RGBA")
    alpha.putalpha(small.convert("L"))
    files = []
    pictures: list[tuple[Image.Image, str, str, dict[str, Any]]] = [
        (small, "JPEG", ".jpg", {"progressive": True}),
        (small, "JPEG", ".jpg", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
        (small.convert("CMYK"), "JPEG", ".jpg", {}), (alpha, "PNG", ".png", {}),
        (small.convert("P"), "PNG", ".png", {}), (small.convert("I;16"), "PNG", ".png", {}),
        (alpha, "WEBP", ".webp", {}), (small.convert("P"), "GIF", ".gif", {}),
        (small, "GIF", ".gif", {"save_all": True, "append_images": [small]}), (small, "BMP", ".bmp", {}),
        (small, "TIFF", ".tif", {"compression": "tiff_lzw"}), (small.convert("F"), "TIFF", ".tif", {}),
        (small, "TIFF", ".tif", {"compression": "jpeg"}), (small, "PPM", ".ppm", {}), (small, "AVIF", ".avif", {}),
    ]  # fmt: skip
    for picture, name, suffix, options in pictures:
        if name in Image.SAVE:
            buffer = io.BytesIO()
            picture.save(buffer, name, **options)
            files.append(Case(suffix, buffer.getvalue()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        recipe: dict[str, Any] = {"name": "slim", "width": 4, "blocks": 1}
        weights.save(path, networks.build(**recipe), {"network": recipe})
        files.append(Case(".safetensors", path.read_bytes()))
    buffer = io.BytesIO()
    torch.save(networks.build("johnson", filters=[2, 2, 2], blocks=1).state_dict(), buffer)
    files.append(Case(".pth", buffer.getvalue()))
    return files


def mutate(case: Case, others: list[Case], rng: random.Random) -> Case:
    """Apply one to eight mutations to `case`, mostly near its start, where formats keep their headers."""
    data = bytearray(case.data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        if not data:
            break
        offset = int(len(data) * rng.random() ** rng.choice((1, 4)))
        kind = rng.randrange(7)
        if kind == 0:
            data[offset] ^= 1 << rng.randrange(8)
        elif kind == 1:
            size = rng.choice((1, 2, 4, 8))
            value = rng.choice((*EDGE_NUMBERS, len(data))) % 256**size
            data[offset : offset + size] = value.to_bytes(size, rng.choice(("little", "big")))
        elif kind == 2:
            del data[offset:]
        elif kind == 3:
            del data[offset : offset + rng.randrange(1, 64)]
        elif kind == 4:
            data[offset:offset] = data[offset : offset + rng.randrange(1, 256)] * rng.choice((1, 2, 50))
        elif kind == 5:
            other = rng.choice(others).data
            start = rng.randrange(len(other))
            data[offset : offset + 64] = other[start : start + 64]
        else:
            data[offset : offset + 16] = rng.randbytes(16)
    suffix = case.suffix if rng.random() < 0.95 else rng.choice(others).suffix
    return Case(suffix, bytes(data))


def read(path: Path) -> str:
    """Read one file as the commands do and return "ok", "refused", or the traceback of a fault."""
    try:
        if path.suffix in (".safetensors", ".pth"):
            weights.load(path)
        else:
            image.to_tensor(image.resize_shorter(image.open_picture(path).rgb, 64))
    except UserError as error:
        return "refused" if "\n" not in str(error) else f"more than one line: {error}"
    except Exception:
        return traceback.format_exc()
    return "ok"


def serve(connection: Connection) -> None:
    """Run as the reader process: receive paths, send (outcome, peak memory in bytes)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff and libjpeg print warnings
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY + 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    while True:
        path = connection.recv()
        outcome = read(path)
        connection.send((outcome, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


class Reader:
    """A reader process that is restarted after it dies or hangs."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("spawn")
        self.start()

    def start(self) -> None:
        self.connection, other_end = self.context.Pipe()
        self.process = self.context.Process(target=serve, args=(other_end,), daemon=True)
        self.process.start()
        other_end.close()
        self.base = 0

    def stop(self) -> None:
        self.process.kill()
        self.process.join()

    def read(self, path: Path) -> str:
        """Return the outcome of `read` in the process, or "hang", "crash" or "memory" with details."""
        self.connection.send(path)
        if not self.connection.poll(SECONDS if self.base else 60):
            self.stop()
            self.start()
            return f"hang: more than {SECONDS:g} s"
        try:
            outcome, peak = self.connection.recv()
        except EOFError:
            self.process.join()
            code = self.process.exitcode
            self.start()
            return f"crash: exit code {code}"
        self.base = self.base or peak
        if peak - self.base > MEMORY:
            self.stop()
            self.start()
            return f"memory: {(peak - self.base) / 2**30:.1f} GiB"
        return outcome


def fuzz(minutes: float, seed: int, keep: Path) -> int:
    """Fuzz for some minutes, copy faulty cases to `keep`, print a summary and return the exit code."""
    rng = random.Random(seed)
    files = real_files()
    reader = Reader()
    counts = {"ok": 0, "refused": 0, "faults": 0}
    kinds: dict[str, int] = {}
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as folder, tqdm(unit="case", file=sys.stderr, mininterval=2) as bar:
        for case in files:
            path = Path(folder) / f"valid{case.suffix}"
            path.write_bytes(case.data)
            outcome = reader.read(path)
            if outcome != "ok" and case.suffix != ".pth":  # its network is smaller than that of pytorch/examples
                raise UserError(f"cannot read the valid {case.suffix} file: {outcome}")
        while time.monotonic() < end:
            case = mutate(rng.choice(files), files, rng)
            path = Path(folder) / f"case{case.suffix}"
            path.write_bytes(case.data)
            outcome = reader.read(path)
            kinds[case.suffix] = kinds.get(case.suffix, 0) + 1
            if outcome in counts:
                counts[outcome] += 1
            else:
                counts["faults"] += 1
                keep.mkdir(parents=True, exist_ok=True)
                kept = keep / f"fault{counts['faults']:03d}{case.suffix}"
                kept.write_bytes(case.data)
                bar.write(f"{kept}: {outcome.strip().splitlines()[-1]}", file=sys.stderr)
            bar.update()
        reader.stop()
    print(f"{sum(kinds.values())} cases: {counts['ok']} read, {counts['refused']} refused, {counts['faults']} faults")
    print(" ".join(f"{suffix} {n}" for suffix, n in sorted(kinds.items())))
    return 1 if counts["faults"] else 0


def main() -> int:
    parser = cli.Parser(description="Fuzz the readers of image and weights files (Linux).")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("faults"), metavar="DIR", help="folder for faulty cases")
    arguments = parser.parse_args()
    return fuzz(check_number("--minutes", arguments.minutes, 0), arguments.seed, arguments.keep)


if __name__ == "__main__":
    cli.run(main)
