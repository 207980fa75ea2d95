"""Make images with a generator that experiment=agn trained.

python scripts/generate.py agn.safetensors --style picture.png -n 16 -o sheet.png
python scripts/generate.py agn.safetensors --style blue_on_red -n 1000 -o digits/
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from fast_nst import image, weights
from fast_nst.commands import cli
from fast_nst.data.dataset import center_square
from fast_nst.description import style_names
from fast_nst.device import find_devices
from fast_nst.errors import UserError, check_int
from fast_nst.loss_networks.style_features import StyleExtractor
from fast_nst.networks.generator import Generator
from fast_nst.stylize.sheet import stack, tile

BATCH = 64  # images at a time
COLUMNS = 8  # columns of a sheet


class Style(NamedTuple):
    """A style. name: for file names. features: (1, F)."""

    name: str
    features: Tensor


def parse() -> argparse.Namespace:
    parser = cli.Parser(description="Make images with a generator that experiment=agn trained.")
    parser.add_argument("weights", metavar="WEIGHTS", help="a weights file of experiment=agn")
    parser.add_argument(
        "--style",
        metavar="STYLE",
        nargs="+",
        action="extend",
        help="pictures, or names of styles in WEIGHTS (default: all styles in WEIGHTS)",
    )
    parser.add_argument("-n", "--number", type=int, default=16, help="images of each style (default: %(default)s)")
    parser.add_argument(
        "-o", "--output", metavar="OUTPUT", required=True, help="a file for a sheet, or a folder for single images"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda or mps (default: a GPU, else cpu)")
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    return parser.parse_args()


def find_styles(names: list[str] | None, known: list[str], network: Generator) -> list[Style]:
    """Return the styles `names`: names of `known` styles, or paths of pictures; None: all known. Raises UserError."""
    rows = dict(zip(known, network.get_buffer("known").split(1), strict=True))
    extract, styles = None, []
    for name in names or known:
        if name in rows:
            styles.append(Style(name, rows[name]))
            continue
        if not Path(name).exists():
            raise UserError(f"--style: got {name!r}; allowed: a picture, or one of {', '.join(known)}")
        extract = extract or StyleExtractor()
        picture = center_square(image.open_picture(name).on_white(), network.size)
        styles.append(Style(Path(name).stem, extract(image.to_tensor(picture)).detach()))
    return styles


@torch.inference_mode()
def generate(network: Generator, style: Tensor, noise: Tensor) -> Iterator[Tensor]:
    """Yield an image, (1, 3, S, S), for each row of `noise`. style: (1, F)."""
    device = next(network.parameters()).device
    for rows in noise.split(BATCH):
        yield from network(rows.to(device), style.to(device).expand(len(rows), -1)).cpu().split(1)


def plan_files(arguments: argparse.Namespace, styles: list[Style]) -> dict[str, list[Path]]:
    """Return the paths to write for each style if the output is a folder, or {} if it is a sheet.

    Raises UserError if an output cannot be written.
    """
    output, inputs = Path(arguments.output), [arguments.weights, *filter(Path.exists, map(Path, arguments.style or []))]
    is_sheet = output.suffix != "" and not (output.is_dir() or arguments.output.endswith("/"))
    digits = len(str(arguments.number))
    files = {
        style.name: [output / f"{style.name}_{k:0{digits}}.png" for k in range(1, arguments.number + 1)]
        for style in ([] if is_sheet else styles)
    }
    image.check_writable(output if is_sheet else output / "image.png")
    for file in [output] if is_sheet else [file for group in files.values() for file in group]:
        cli.check_new("-o", file, arguments.overwrite, inputs)
    return files


def main() -> None:
    arguments = parse()
    check_int("-n", arguments.number, 1, 10**6)
    check_int("--seed", arguments.seed, 0, 2**63 - 1)
    network, description = weights.load_generator(arguments.weights)
    styles = find_styles(arguments.style, style_names(description), network)
    if len({style.name for style in styles}) < len(styles):
        raise UserError("--style: two styles have the same name; give each name once")
    files = plan_files(arguments, styles)
    columns, rows = min(COLUMNS, arguments.number), -(-arguments.number // COLUMNS) * len(styles)
    if not files:
        image.check_fits(arguments.output, columns * network.size, rows * (network.size + 4))
    network.to(find_devices(arguments.device, "--device")[0])
    noise = torch.randn(
        arguments.number, network.noise, generator=torch.Generator().manual_seed(arguments.seed)
    )  # the same for every style
    sheets: list[Image.Image] = []
    bar = tqdm(total=len(styles) * len(noise), unit="image", disable=None, leave=False)
    for style in styles:
        pictures = []
        for index, output in enumerate(generate(network, style.features, noise)):
            picture = image.to_pillow(output)
            if files:
                image.save_picture(picture, files[style.name][index], provenance=style.name)
            else:
                pictures.append(picture)
            bar.update()
        if pictures:
            sheets.append(tile(pictures, columns, 0))
    bar.close()
    if sheets:
        image.save_picture(stack(sheets), arguments.output)
    print(arguments.output)


def command_line() -> None:
    cli.run(main)
