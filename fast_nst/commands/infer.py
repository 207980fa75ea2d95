"""Stylize photographs, clips and animations with a trained network.

python scripts/infer.py outputs/starry_night/…/starry_night.safetensors photo.jpg
python scripts/infer.py starry_night.safetensors holiday/ -o painted/ --strength 0.8 --keep-colors
"""

import argparse
import os
import queue
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fast_nst import image
from fast_nst.atomic import NoSpace
from fast_nst.commands import cli
from fast_nst.commands.infer_choice import Choice, load_choice, needs_torch, print_styles
from fast_nst.commands.infer_moving import stylize_clips
from fast_nst.commands.infer_plan import FORMATS, Pair, make_plan
from fast_nst.errors import UserError, check_int, check_number
from fast_nst.machine import free_memory, is_out_of_memory, keep_freed_memory, used_memory
from fast_nst.stylize.batch import group_small, stylize_batch
from fast_nst.stylize.color import KEEP_COLORS
from fast_nst.stylize.files import stylize_file
from fast_nst.stylize.mask import read_mask
from fast_nst.stylize.moving import is_moving, stylize_moving
from fast_nst.stylize.options import PRECISIONS, Options
from fast_nst.stylize.painter import as_painter


def parse() -> argparse.Namespace:
    parser = cli.Parser(
        description="Stylize photographs, clips and animations with a trained network.",
        epilog="Without -o, the output of photo.jpg is photo_<style>.png next to it.",
    )
    parser.add_argument(
        "weights", metavar="WEIGHTS", nargs="?",
        help="<style>.safetensors or .onnx, a .pth from pytorch/examples, or the name of a bundled style",
    )  # fmt: skip
    parser.add_argument("inputs", metavar="INPUT", nargs="*", help="photographs, clips, or folders of photographs")
    parser.add_argument("-o", "--output", metavar="OUTPUT", help="a file for one input, a folder for several")
    parser.add_argument("--list", action="store_true", help="list the styles in WEIGHTS, or the bundled ones, and exit")
    parser.add_argument("--style", metavar="NAME", help="one of several styles, or a mixture such as a:0.7,b:0.3")
    parser.add_argument(
        "--strength", type=float, default=1.0,
        help="from 0 (the photograph) to 1 (the full style, default), or to 2 if the network is trained for it",
    )  # fmt: skip
    parser.add_argument(
        "--brush", type=float, default=1.0, metavar="X", help="size of the strokes, if the network knows several"
    )
    parser.add_argument(
        "--mask", metavar="FILE", help="picture of the photograph's size: white is stylized, black keeps the photograph"
    )
    parser.add_argument("--outside", metavar="NAME", help="a style for the black part of the mask")
    parser.add_argument(
        "--keep-colors", nargs="?", const="chroma", choices=tuple(KEEP_COLORS),
        help="keep the photograph's colors: its chroma (default), or the statistics of its colors",
    )  # fmt: skip
    parser.add_argument("--size", type=int, metavar="N", help="pixels of the longer side (default: the photograph's)")
    parser.add_argument(
        "--device", default="auto",
        help="cpu, cuda, mps, or a comma-separated list that shares the photographs (default: all GPUs, else cpu)",
    )  # fmt: skip
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="auto: bfloat16 if the device is fast at it",
    )
    parser.add_argument(
        "--max-memory", type=float, metavar="GIB",
        help="memory to use (on a GPU, the GPU's); a photograph that needs more is processed in strips, which is "
        "slower and gives the same output (default: half of the free memory)",
    )  # fmt: skip
    add_output_options(parser)
    words = sys.argv[1:]
    for index, word in enumerate(words):  # the option's value may be left out, even before a file name
        if word == "--keep-colors" and words[index + 1 : index + 2] not in [[name] for name in KEEP_COLORS]:
            words[index] = "--keep-colors=chroma"
    return parser.parse_args(words)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format", choices=tuple(FORMATS), help="format where -o names no file (default for photographs: png)"
    )
    parser.add_argument("--quality", type=int, metavar="N", help="quality of jpg or webp, from 1 to 100 (default: 95)")
    parser.add_argument("--depth", type=int, choices=(8, 16), default=8, help="bits per channel; 16 for png and tif")
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    parser.add_argument("--skip-existing", action="store_true", help="leave out photographs whose output exists")
    parser.add_argument(
        "--shard", metavar="K/N", help="stylize only part K of N, counted from 1, to share the work among machines"
    )


class PhotoProgress:
    """A progress bar for one large photograph. It appears at the first report."""

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

    def __init__(self, choice: Choice, arguments: argparse.Namespace, count: int) -> None:
        self.arguments, self.style, self.fade = arguments, choice.label, choice.fade
        self.idle: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        for device in choice.devices[:count]:
            self.idle.put(choice.on(device))
        self.threads: Any = None
        # Only for torch: onnxruntime's threads sleep while they wait.
        if getattr(choice.devices[0], "type", None) == "cpu":
            from fast_nst.threads import AdaptiveThreads

            self.threads = AdaptiveThreads()

    def __call__(self, pairs: Sequence[Pair]) -> list[str]:
        """Stylize one file, or several small photographs together, on the next idle device; return one line per error.

        Raises NoSpace.
        """
        network, outside = networks = self.idle.get()
        try:
            if self.threads is not None:
                self.threads.update()
            if len(pairs) == 1:
                return self.stylize_one(network, outside, pairs[0])
            failed = stylize_batch(network, pairs, self.options(network, small=True))
            return [cli.one_line(error) for _, error in failed]
        finally:
            self.idle.put(networks)

    def stylize_one(self, network: Any, outside: Any, pair: Pair) -> list[str]:
        progress = PhotoProgress(pair[0].name)
        try:
            if is_moving(*pair):
                stylize_moving(network, *pair, self.options(network), partial(tqdm.write, file=sys.stderr))
            else:
                stylize_file(network, *pair, self.options(network), progress.update, outside)
        except NoSpace:
            raise
        except image.TooLarge as error:
            limit = self.arguments.max_memory
            return [
                f"{cli.one_line(error)} within {'the memory limit' if limit is None else f'--max-memory {limit:g}'}"
            ]
        except UserError as error:
            return [cli.one_line(error)]
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and not is_out_of_memory(error):
                raise
            return [f"{pair[0]}: too large for the device's memory; give a smaller --size, or --device cpu"]
        finally:
            progress.close()
        return []

    def options(self, network: Any, small: bool = False) -> Options:
        given = self.arguments
        # Small photographs gain nothing from bfloat16.
        precision = "float32" if small and given.precision == "auto" else given.precision
        memory = None if given.max_memory is None else usable_memory(given, as_painter(network).on_cpu)
        return Options(
            given.size, self.fade, given.keep_colors, precision, memory, given.depth, given.quality, self.style,
            None if given.mask is None else Path(given.mask),
        )  # fmt: skip


def usable_memory(arguments: argparse.Namespace, on_cpu: bool = True) -> int:
    """Return how many bytes of memory to use beyond those already in use."""
    if arguments.max_memory is None:
        return free_memory() // 2
    return int(arguments.max_memory * 2**30) - (used_memory() if on_cpu else 0)


def check_options(arguments: argparse.Namespace) -> None:
    if arguments.outside is not None and arguments.mask is None:
        raise UserError(f"--outside: got {arguments.outside} without --mask; give a mask")
    if arguments.max_memory is not None and check_number("--max-memory", arguments.max_memory, 0) == 0:
        raise UserError("--max-memory: got 0; allowed: a number above 0")
    if arguments.size is not None:
        check_int("--size", arguments.size, 1)
    if arguments.quality is not None:
        check_int("--quality", arguments.quality, 1, 100)
    if arguments.overwrite and arguments.skip_existing:
        raise UserError("--overwrite, --skip-existing: give only one of them")


def stylize_all(stylizer: Stylizer, pairs: Sequence[Pair], devices: int, single: bool) -> int:
    """Stylize `pairs`, print each error and return how many failed. Raises UserError, cli.Interrupted.

    single: whether there is only one input; its failure raises UserError.
    """
    each = len(pairs) == 1 or stylizer.arguments.mask is not None
    jobs = [[pair] for pair in pairs] if each else group_small(pairs, stylizer.arguments.size)
    failed = 0
    pool = ThreadPoolExecutor(devices)
    bar = tqdm(total=len(pairs), unit="photo", disable=len(pairs) == 1 or None)
    futures = {pool.submit(stylizer, job): job for job in jobs}
    try:
        for future in as_completed(futures):
            errors = future.result()
            if errors and single:
                raise UserError(errors[0])
            for error in errors:
                tqdm.write(f"error: {error}", file=sys.stderr)
            failed += len(errors)
            bar.update(len(futures[future]))
    except (NoSpace, KeyboardInterrupt) as error:
        if single:
            raise
        pool.shutdown(cancel_futures=True)  # waits for the photographs in progress
        finished = [job for job in futures if job.done() and not job.cancelled() and job.exception() is None]
        done = sum(len(futures[job]) - len(job.result()) for job in finished)
        rest = f"{done} of {len(pairs)} photographs are stylized; continue with --skip-existing"
        if isinstance(error, KeyboardInterrupt):
            raise cli.Interrupted(rest) from None
        raise UserError(f"{error}; {rest}") from None
    finally:
        pool.shutdown(cancel_futures=True)
        bar.close()
    return failed


def main() -> int:
    arguments = parse()
    if arguments.list:
        print_styles(arguments.weights)
        return 0
    if not arguments.inputs:
        raise UserError("WEIGHTS, INPUT: give a weights file or a bundled style, and a photograph; see --help")
    check_options(arguments)
    if arguments.max_memory is None:
        keep_freed_memory(huge_pages=False)  # faster, but takes more memory
    choice = load_choice(arguments)
    plan = make_plan(arguments, choice.label)
    for line in (*plan.notes, *(f"error: {message}" for message in plan.errors)):
        print(line, file=sys.stderr)
    pairs = plan.pairs
    if not pairs:  # the shard is empty, or all outputs exist
        print("0 of 0 photographs stylized")
        return 1 if plan.errors else 0
    if needs_torch(choice, pairs, arguments, usable_memory(arguments)):
        choice = load_choice(arguments, torch_only=True)
    stylizer = Stylizer(choice, arguments, len(pairs))
    clips = [pair for pair in pairs if is_moving(*pair)]
    if arguments.mask is not None and not clips:
        read_mask(arguments.mask)  # one error now instead of one for each photograph
    failed = stylize_clips(stylizer, clips, plan.single)
    if photographs := [pair for pair in pairs if not is_moving(*pair)]:
        failed += stylize_all(stylizer, photographs, len(choice.devices), plan.single)
    done = f"{len(pairs) - failed} of {len(pairs)} {'files' if clips else 'photographs'} stylized"
    print(pairs[0][1] if plan.single else f"{done}, into {os.path.commonpath([r.parent for _, r in pairs]) or '.'}")
    return 1 if failed or plan.errors else 0


def command_line() -> None:
    cli.run(main)
