"""Plan what infer.py does: which photographs, into which files."""

import argparse
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fast_nst import image
from fast_nst.commands import cli
from fast_nst.errors import UserError
from fast_nst.listing import list_pictures
from fast_nst.stylize import moving
from fast_nst.stylize.moving import is_moving

FORMATS = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "tif": ".tif"}
Pair = tuple[Path, Path]


@dataclass
class Plan:
    """The files for infer.py to stylize, and messages about its inputs.

    pairs: (photograph, output). single: whether there is one input, before --shard and --skip-existing. notes: lines to
    print. errors: messages about folders that could not be listed.
    """

    pairs: list[Pair] = field(default_factory=list)
    single: bool = False
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def make_plan(arguments: argparse.Namespace, style: str) -> Plan:
    """Plan and check the outputs of infer.py's `arguments`.

    Raises UserError, for example if two outputs would share a file, or if one would replace a photograph or another
    existing file.
    """
    if "" in (*arguments.inputs, arguments.output, arguments.mask):
        raise UserError("INPUT, -o, --mask: got an empty name")  # from an unset shell variable
    plan = Plan()
    sources = _find_sources(arguments.inputs, style, plan)
    plan.pairs = _name_outputs(sources, arguments.output, style, arguments.format)
    _check_pairs(plan.pairs, arguments)
    total = len(plan.pairs)
    plan.single = total == 1
    if arguments.shard is not None:
        index, count = parse_shard(arguments.shard)
        plan.pairs = plan.pairs[index - 1 :: count]
        plan.notes.append(f"--shard {index}/{count}: {len(plan.pairs)} of {total} photographs")
    if arguments.skip_existing:
        total = len(plan.pairs)
        plan.pairs = [(source, output) for source, output in plan.pairs if not output.exists()]
        plan.notes.append(f"--skip-existing: left out {total - len(plan.pairs)} of {total} photographs")
    else:
        _check_existing(plan.pairs, arguments)
    if animations := [pair[0] for pair in plan.pairs if image.is_animation(pair[0]) and not is_moving(*pair)]:
        more = f" and {len(animations) - 1} more" if len(animations) > 1 else ""
        plan.notes.append(f"{animations[0]}{more}: several frames or pages; only the first one is stylized")
    return plan


def parse_shard(text: str) -> tuple[int, int]:
    """Parse "3/16", the third of 16 parts. Raises UserError."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard: got {text!r}; allowed: 1/N to N/N, such as 3/16, the third of 16 parts")
    return int(match[1]), int(match[2])


def check_format(arguments: argparse.Namespace, output: Path) -> None:
    """Raise UserError if --depth or --quality does not suit the format of `output`."""
    suffix = output.suffix.lower()
    if arguments.depth == 16 and suffix not in image.DEEP:
        raise UserError(f"--depth: got 16 for {output}; allowed: 8, or a .png or .tif")
    if arguments.quality is not None and suffix not in image.LOSSY:
        raise UserError(f"--quality: {output}: has no quality setting; leave it out, or give a .jpg or .webp")


def _find_sources(inputs: list[str], style: str, plan: Plan) -> list[Pair]:
    """Return pairs of a photograph and its path relative to its input folder, which -o FOLDER keeps."""
    sources: list[Pair] = []
    on_error: Callable[[OSError], None] = lambda error: plan.errors.append(cli.one_line(error))  # noqa: E731
    for item in dict.fromkeys(map(Path, inputs)):
        if not item.is_dir():
            sources.append((item, Path(item.name)))
            continue
        pictures = list_pictures(item, "INPUT", on_error, plan.notes.append)
        earlier = {path.with_name(f"{path.stem}_{style}{suffix}") for path in pictures for suffix in image.WRITABLE}
        photographs = [path for path in pictures if path not in earlier and not image.is_output(path)]
        if not photographs:
            raise UserError(f"INPUT: {item}: contains only previous outputs; pass a file to stylize it again")
        sources += [(path, path.relative_to(item)) for path in photographs]
    return sources


def _suffix(source: Path, form: str | None) -> str:
    """Return the suffix for the format `form`. By default a clip or animation stays one, and a photograph gets .png."""
    return (moving.default_suffix(source) if form is None else None) or FORMATS[form or "png"]


def _name_outputs(sources: list[Pair], output: str | None, style: str, form: str | None) -> list[Pair]:
    if output is None:
        return [(source, source.with_name(f"{source.stem}_{style}{_suffix(source, form)}")) for source, _ in sources]
    target = Path(output)
    if target.suffix != "" and not (target.is_dir() or output.endswith("/")):
        if len(sources) > 1:
            raise UserError(f"-o {target}: is one file, and there are {len(sources)} photographs; give a folder")
        return [(sources[0][0], target)]
    stems = Counter(below.with_suffix("") for _, below in sources)  # photo.jpg and photo.png share one
    pairs = []
    for source, below in sources:
        suffix = _suffix(source, form)
        name = below.with_suffix(suffix) if stems[below.with_suffix("")] == 1 else f"{below}{suffix}"
        pairs.append((source, target / name))
    return pairs


def _check_pairs(pairs: list[Pair], arguments: argparse.Namespace) -> None:
    """Raise UserError unless all outputs differ, can be written, and replace no photograph."""
    taken: dict[Path, Path] = {}
    checked: set[tuple[Path, str]] = set()
    for source, result in pairs:
        if (result.parent, result.suffix) not in checked:
            moving.check_target(source, result)
            checked.add((result.parent, result.suffix))
        check_format(arguments, result)
        if result in taken:
            other = "call infer.py for each" if arguments.output is not None else "give -o FOLDER"
            raise UserError(f"{taken[result]} and {source} would both become {result}; rename one, or {other}")
        taken[result] = source
    if arguments.format is not None and pairs[0][1].suffix.lower() != FORMATS[arguments.format]:
        raise UserError(f"--format: got {arguments.format} for {pairs[0][1]}; leave it out, or give -o FOLDER")
    mask = [] if arguments.mask is None else [arguments.mask]
    cli.check_apart("-o", taken, [*taken.values(), *mask])


def _check_existing(pairs: list[Pair], arguments: argparse.Namespace) -> None:
    """Raise UserError if an output exists and may not be overwritten."""
    existing = [str(output) for _, output in pairs if output.exists()]
    if existing and not arguments.overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UserError(f"{existing[0]}{more}: exists already; give --overwrite, --skip-existing or another -o")
    if arguments.output is None:  # --overwrite replaces outputs, not other pictures of the same name
        for path in existing:
            if not moving.is_output(Path(path)):
                raise UserError(f"{path}: not an output of infer.py, but one would replace it; move it, or give -o")
