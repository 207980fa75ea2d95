"""Stylize photographs with a trained network.

python scripts/infer.py outputs/starry_night/…/starry_night.safetensors photo.jpg
python scripts/infer.py starry_night.safetensors holiday/ -o painted/ --strength 0.8 --keep-colors
"""

import argparse
import copy
import os
import queue
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import torch
from tqdm import tqdm

from fast_nst import image, stylize, weights
from fast_nst.commands import cli
from fast_nst.data.folder import list_pictures
from fast_nst.device import find_devices, has_fast_bfloat16, is_out_of_memory, keep_freed_memory, used_memory
from fast_nst.errors import UserError, check_int, check_number
from fast_nst.networks import Network

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def parse() -> argparse.Namespace:
    parser = cli.Parser(
        description="Stylize photographs with a trained network.",
        epilog="Without -o, the output of photo.jpg is photo_<style>.png next to it.",
    )
    parser.add_argument("weights", metavar="WEIGHTS", help="<style>.safetensors, or a .pth of pytorch/examples")
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help="photographs, or folders of them")
    parser.add_argument("-o", "--output", metavar="OUTPUT", help="a file for one photograph, a folder for several")
    parser.add_argument(
        "--strength", type=float, default=1.0, help="from 0, the photograph, to 1, the full style (default)"
    )
    parser.add_argument(
        "--keep-colors", nargs="?", const="chroma", choices=tuple(stylize.KEEP_COLORS),
        help="keep the photograph's colors: its chroma (default), or the statistics of its colors",
    )  # fmt: skip
    parser.add_argument("--size", type=int, metavar="N", help="pixels of the longer side (default: the photograph's)")
    parser.add_argument(
        "--device", default="auto",
        help="cpu, cuda, mps, or several, comma-separated, which share the photographs (default: all GPUs, else cpu)",
    )  # fmt: skip
    parser.add_argument(
        "--precision",
        choices=("auto", *PRECISIONS),
        default="auto",
        help="auto: bfloat16 if the device is fast at it",
    )
    parser.add_argument(
        "--max-memory", type=float, metavar="GIB",
        help="memory to use, on a GPU its own; a photograph that needs more is processed in strips: the same "
        "output, slower (default: half of the free memory)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    words = sys.argv[1:]
    for index, word in enumerate(words):  # the value is optional, also in front of a file name
        if word == "--keep-colors" and words[index + 1 : index + 2] not in [[name] for name in stylize.KEEP_COLORS]:
            words[index] = "--keep-colors=chroma"
    return parser.parse_args(words)


def plan(
    inputs: list[str], output: str | None, style: str, on_error: Callable[[OSError], None]
) -> list[tuple[Path, Path]]:
    """Return (photograph, output) pairs; call `on_error` for each subfolder that cannot be listed. Raises UserError if
    two outputs would share a file, or one would replace a photograph."""
    sources: list[tuple[Path, Path]] = []  # with the path relative to its folder, which -o FOLDER keeps
    if "" in (*inputs, output):
        raise UserError("INPUT, -o: got an empty name")  # an unset shell variable
    for item in dict.fromkeys(map(Path, inputs)):
        if item.is_dir():
            pictures = list_pictures(item, "INPUT", on_error)
            earlier = {path.with_name(f"{path.stem}_{style}.png") for path in pictures}
            photographs = [path for path in pictures if path not in earlier and not image.is_output(path)]
            if not photographs:
                raise UserError(f"INPUT: {item}: contains only previous outputs; pass a file to stylize it again")
            sources += [(path, path.relative_to(item)) for path in photographs]
        else:
            sources.append((item, Path(item.name)))
    target = None if output is None else Path(output)
    is_file = target is not None and target.suffix != "" and not (target.is_dir() or str(output).endswith("/"))
    if target is not None and is_file:
        if len(sources) > 1:
            raise UserError(f"-o {target}: is one file, and there are {len(sources)} photographs; give a folder")
        pairs = [(sources[0][0], target)]
    elif target is not None:
        stems = Counter(below.with_suffix("") for _, below in sources)  # photo.jpg next to photo.png
        pairs = [
            (source, target / (below.with_suffix(".png") if stems[below.with_suffix("")] == 1 else f"{below}.png"))
            for source, below in sources
        ]
    else:
        pairs = [(source, source.with_name(f"{source.stem}_{style}.png")) for source, _ in sources]
    taken: dict[Path, Path] = {}
    for source, result in pairs:
        image.check_writable(result)
        if result in taken:
            other = "call infer.py for each" if target is not None else "give -o FOLDER"
            raise UserError(f"{taken[result]} and {source} would both become {result}; rename one, or {other}")
        taken[result] = source
    cli.check_apart("-o", taken, taken.values())
    return pairs


class PhotoProgress:
    """A bar for one large photograph, which appears with the first report."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bar: tqdm | None = None

    def update(self, share: float) -> None:
        if self.bar is None:
            form = "{desc}: {percentage:3.0f} % {bar} {remaining} left"
            self.bar = tqdm(total=1.0, desc=self.name, leave=False, mininterval=1, bar_format=form)
        self.bar.update(share - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


class Stylizer:
    """Stylizes files on several devices: one copy of the network on each, each used by one thread at a time."""

    def __init__(
        self, network: Network, devices: Sequence[torch.device], arguments: argparse.Namespace, style: str
    ) -> None:
        self.arguments, self.style = arguments, style
        self.idle: queue.SimpleQueue[Network] = queue.SimpleQueue()
        for device in devices:
            self.idle.put(copy.deepcopy(network).to(device).to(memory_format=torch.channels_last))

    def __call__(self, pair: tuple[Path, Path]) -> str | None:
        """Stylize one photograph on the next idle device; an error's message, or None."""
        network, progress = self.idle.get(), PhotoProgress(pair[0].name)
        try:
            self.stylize(network, pair, progress)
        except image.TooLarge as error:
            limit = self.arguments.max_memory
            return f"{cli.one_line(error)} in the memory{'' if limit is None else f' of --max-memory {limit:g}'}"
        except UserError as error:
            return cli.one_line(error)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return f"{pair[0]}: too large for the memory of its device; give a smaller --size, or --device cpu"
        finally:
            progress.close()
            self.idle.put(network)
        return None

    def stylize(self, network: Network, pair: tuple[Path, Path], progress: PhotoProgress) -> None:
        options, device = self.arguments, next(network.parameters()).device
        dtype = PRECISIONS.get(options.precision)
        if dtype is None:
            dtype = torch.bfloat16 if has_fast_bfloat16(device.type) else torch.float32
        memory = None
        if options.max_memory is not None:
            memory = int(options.max_memory * 2**30) - (used_memory() if device.type == "cpu" else 0)
        stylize.stylize_file(
            network, *pair, options.size, options.strength, options.keep_colors, dtype, memory, progress.update,
            self.style,
        )  # fmt: skip


def check_options(arguments: argparse.Namespace) -> None:
    check_number("--strength", arguments.strength, 0, 1)
    if arguments.max_memory is not None and check_number("--max-memory", arguments.max_memory, 0) == 0:
        raise UserError("--max-memory: got 0; allowed: a number above 0")
    if arguments.size is not None:
        check_int("--size", arguments.size, 1)


def check_outputs(arguments: argparse.Namespace, pairs: list[tuple[Path, Path]]) -> None:
    """Raises UserError if an output exists and may not be overwritten."""
    existing = [str(output) for _, output in pairs if output.exists()]
    if existing and not arguments.overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UserError(f"{existing[0]}{more}: exists already; give --overwrite or another -o")
    if arguments.output is None:  # --overwrite replaces outputs, not other pictures of the same name
        for path in existing:
            if not image.is_output(path):
                raise UserError(f"{path}: not an output of infer.py, and one would replace it; move it, or give -o")


def main() -> int:
    arguments = parse()
    check_options(arguments)
    if arguments.max_memory is None:
        keep_freed_memory()  # faster, and takes more of it
    network, description = weights.load(Path(arguments.weights).expanduser())
    devices = find_devices(arguments.device, "--device")
    names = description.get("style", {}).get("names", [])
    style = "_".join(Path(name).name for name in names) or Path(arguments.weights).stem
    errors: list[str] = []
    pairs = plan(arguments.inputs, arguments.output, style, lambda error: errors.append(cli.one_line(error)))
    check_outputs(arguments, pairs)
    stylizer = Stylizer(network, devices[: len(pairs)], arguments, style)
    for message in errors:
        print(f"error: {message}", file=sys.stderr)
    failed = 0
    pool = ThreadPoolExecutor(len(devices))
    try:
        jobs = [pool.submit(stylizer, pair) for pair in pairs]
        for job in tqdm(as_completed(jobs), total=len(jobs), unit="photo", disable=len(pairs) == 1 or None):
            if (result := job.result()) is not None:
                if len(pairs) == 1:
                    raise UserError(result)
                failed += 1
                tqdm.write(f"error: {result}", file=sys.stderr)
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C, finish only the photographs in progress
    done = f"{len(pairs) - failed} of {len(pairs)} photographs stylized"
    print(pairs[0][1] if len(pairs) == 1 else f"{done}, into {os.path.commonpath([r.parent for _, r in pairs]) or '.'}")
    return 1 if failed or errors else 0


def command_line() -> None:
    cli.run(main)
