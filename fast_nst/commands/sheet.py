"""A contact sheet of trained networks: some photographs, and what each network makes of them.

python scripts/sheet.py a.jpg b.jpg --weights outputs/*/*/*.safetensors -o sheet.jpg
"""

from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from fast_nst import image, stylize, weights
from fast_nst.commands import cli
from fast_nst.data import styles
from fast_nst.data.dataset import center_square
from fast_nst.errors import UserError, check_int
from fast_nst.stylize.sheet import grid, grid_size


def head(path: str, description: dict[str, Any]) -> str:
    """Return the style's name, and its style weight if the file has one."""
    name = "_".join(description.get("style", {}).get("names", [Path(path).stem]))
    weight = description.get("loss", {}).get("style_weight")
    return name if weight is None else f"{name}, style weight {weight:g}"


def main() -> None:
    parser = cli.Parser(description="A contact sheet of trained networks.")
    parser.add_argument("photographs", metavar="PHOTOGRAPH", nargs="+")
    parser.add_argument("--weights", metavar="WEIGHTS", nargs="+", required=True)
    parser.add_argument(
        "--style-image", metavar="PAINTING", nargs="+", help="shown above: one for each weights file, or one for all"
    )
    parser.add_argument("--size", type=int, default=256, help="pixels of each square")
    parser.add_argument("-o", "--output", metavar="FILE", required=True)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing sheet")
    arguments = parser.parse_args()
    side = check_int("--size", arguments.size, 16, styles.LONGEST)
    image.check_writable(arguments.output)
    files = [styles.find(path) for path in arguments.style_image or []]
    cli.check_new("-o", arguments.output, arguments.overwrite, [*files, *arguments.photographs])
    paintings = [center_square(image.open_picture(path).on_white(), side) for path in files]
    count = len(arguments.weights)
    if len(paintings) == 1:
        paintings *= count
    if len(paintings) not in (0, count):
        raise UserError(f"--style-image: {len(paintings)} paintings for {count} weights files")
    image.check_fits(arguments.output, *grid_size(bool(files) + len(arguments.photographs), 1 + count, side))
    photographs = [center_square(image.open_picture(path).on_white(), side) for path in arguments.photographs]
    heads, columns = ["photograph"], [photographs]
    bar = tqdm(total=count * len(photographs), unit="picture", disable=None)
    for path in arguments.weights:
        network, description = weights.load(path)
        heads.append(head(path, description))
        column = []
        for photograph in photographs:
            column.append(image.to_pillow(stylize.stylize_tensor(network, image.to_tensor(photograph))))
            bar.update()
        columns.append(column)
    bar.close()
    rows: list[list[Image.Image | None]] = [[None, *paintings]] if paintings else []
    rows += [list(row) for row in zip(*columns, strict=True)]
    image.save_picture(grid(rows, heads, side), arguments.output)
    print(arguments.output)


def command_line() -> None:
    cli.run(main)
