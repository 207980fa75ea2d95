"""Stylize photographs with a trained network.

python scripts/infer.py outputs/starry_night/…/starry_night.safetensors photo.jpg
python scripts/infer.py starry_night.safetensors holiday/ -o painted/ --strength 0.8 --keep-colors
"""

import argparse
import copy
import os
import queue
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import torch
from tqdm import tqdm

from fast_nst import image, stylize, weights
from fast_nst.commands import cli
from fast_nst.commands.infer_plan import FORMATS, Pair, make_plan
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
    add_output_options(parser)
    words = sys.argv[1:]
    for index, word in enumerate(words):  # the value is optional, also in front of a file name
        if word == "--keep-colors" and words[index + 1 : index + 2] not in [[name] for name in stylize.KEEP_COLORS]:
            words[index] = "--keep-colors=chroma"
    return parser.parse_args(words)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=tuple(FORMATS), help="of outputs that -o does not name (default: png)")
    parser.add_argument("--quality", type=int, metavar="N", help="of a jpg or webp, from 1 to 100 (default: 95)")
    parser.add_argument("--depth", type=int, choices=(8, 16), default=8, help="bits a channel; 16 for png and tif")
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    parser.add_argument("--skip-existing", action="store_true", help="leave out photographs whose output exists")
    parser.add_argument("--shard", metavar="K/N", help="stylize only part K of N, counted from 1: on several machines")


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

    def __call__(self, pairs: Sequence[Pair]) -> list[str]:
        """Stylize one photograph, or several small ones together, on the next idle device; errors, one line each.

        Raises image.NoSpace.
        """
        network = self.idle.get()
        try:
            if len(pairs) == 1:
                return self.stylize_one(network, pairs[0])
            failed = stylize.stylize_batch(network, pairs, self.options(network))
            return [cli.one_line(error) for _, error in failed]
        finally:
            self.idle.put(network)

    def stylize_one(self, network: Network, pair: Pair) -> list[str]:
        progress = PhotoProgress(pair[0].name)
        try:
            stylize.stylize_file(network, *pair, self.options(network), progress.update)
        except image.NoSpace:
            raise
        except image.TooLarge as error:
            limit = self.arguments.max_memory
            return [f"{cli.one_line(error)} in the memory{'' if limit is None else f' of --max-memory {limit:g}'}"]
        except UserError as error:
            return [cli.one_line(error)]
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return [f"{pair[0]}: too large for the memory of its device; give a smaller --size, or --device cpu"]
        finally:
            progress.close()
        return []

    def options(self, network: Network) -> stylize.Options:
        given, device = self.arguments, next(network.parameters()).device
        dtype = PRECISIONS.get(given.precision)
        if dtype is None:  # bfloat16 has no more than 8 bits
            fast = given.depth == 8 and has_fast_bfloat16(device.type)
            dtype = torch.bfloat16 if fast else torch.float32
        memory = None
        if given.max_memory is not None:
            memory = int(given.max_memory * 2**30) - (used_memory() if device.type == "cpu" else 0)
        return stylize.Options(
            given.size, given.strength, given.keep_colors, dtype, memory, given.depth, given.quality, self.style
        )


def check_options(arguments: argparse.Namespace) -> None:
    check_number("--strength", arguments.strength, 0, 1)
    if arguments.max_memory is not None and check_number("--max-memory", arguments.max_memory, 0) == 0:
        raise UserError("--max-memory: got 0; allowed: a number above 0")
    if arguments.size is not None:
        check_int("--size", arguments.size, 1)
    if arguments.quality is not None:
        check_int("--quality", arguments.quality, 1, 100)
    if arguments.overwrite and arguments.skip_existing:
        raise UserError("--overwrite, --skip-existing: give one of them")


def stylize_all(stylizer: Stylizer, pairs: Sequence[Pair], devices: int) -> int:
    """Stylize `pairs` and return how many failed, each reported. Raises UserError, Interrupted."""
    jobs = [[pair] for pair in pairs] if len(pairs) == 1 else stylize.group_small(pairs, stylizer.arguments.size)
    failed = 0
    pool = ThreadPoolExecutor(devices)
    bar = tqdm(total=len(pairs), unit="photo", disable=len(pairs) == 1 or None)
    futures = {pool.submit(stylizer, job): job for job in jobs}
    try:
        for future in as_completed(futures):
            errors = future.result()
            if errors and len(pairs) == 1:
                raise UserError(errors[0])
            for error in errors:
                tqdm.write(f"error: {error}", file=sys.stderr)
            failed += len(errors)
            bar.update(len(futures[future]))
    except (image.NoSpace, KeyboardInterrupt) as error:
        if len(pairs) == 1:
            raise
        pool.shutdown(cancel_futures=True)  # finishes the photographs in progress
        finished = [job for job in futures if job.done() and not job.cancelled() and job.exception() is None]
        done = sum(len(futures[job]) - len(job.result()) for job in finished)
        rest = f"{done} of {len(pairs)} photographs are stylized; --skip-existing continues"
        if isinstance(error, KeyboardInterrupt):
            raise cli.Interrupted(rest) from None
        raise UserError(f"{error}; {rest}") from None
    finally:
        pool.shutdown(cancel_futures=True)
        bar.close()
    return failed


def main() -> int:
    arguments = parse()
    check_options(arguments)
    if arguments.max_memory is None:
        keep_freed_memory()  # faster, and takes more of it
    network, description = weights.load(Path(arguments.weights).expanduser())
    devices = find_devices(arguments.device, "--device")
    names = description.get("style", {}).get("names", [])
    style = "_".join(Path(name).name for name in names) or Path(arguments.weights).stem
    plan = make_plan(arguments, style)
    for line in (*plan.notes, *(f"error: {message}" for message in plan.errors)):
        print(line, file=sys.stderr)
    pairs = plan.pairs
    if not pairs:  # of this shard, or since all exist
        print("0 of 0 photographs stylized")
        return 1 if plan.errors else 0
    failed = stylize_all(Stylizer(network, devices[: len(pairs)], arguments, style), pairs, len(devices))
    done = f"{len(pairs) - failed} of {len(pairs)} photographs stylized"
    print(pairs[0][1] if len(pairs) == 1 else f"{done}, into {os.path.commonpath([r.parent for _, r in pairs]) or '.'}")
    return 1 if failed or plan.errors else 0


def command_line() -> None:
    cli.run(main)
