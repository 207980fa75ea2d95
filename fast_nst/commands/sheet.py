"""Make a contact sheet: some photographs, and their outputs in each style.

python scripts/sheet.py photo.jpg -o sheet.jpg
python scripts/sheet.py a.jpg b.jpg --weights outputs/*/*/*.safetensors -o sheet.jpg
"""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from fast_nst import image, weights
from fast_nst.commands import cli
from fast_nst.data import styles
from fast_nst.data.dataset import center_square
from fast_nst.description import style_names
from fast_nst.errors import UserError, check_int
from fast_nst.networks import Network
from fast_nst.stylize.choice import BUNDLED, choose, find_weights
from fast_nst.stylize.image import stylize_tensor
from fast_nst.stylize.sheet import grid, grid_size


class Column(NamedTuple):
    """A column of the sheet: a style in one strength.

    fade: how far to fade from the photograph to the network's output. head: the text above the column.
    """

    network: Network
    fade: float
    head: str


def load_columns(path: str, strengths: Sequence[float]) -> list[Column]:
    """Load a column for each strength of each style of a weights file, or of one bundled style. Raises UserError."""
    file, style = find_weights(path)
    network, description = weights.load(file)
    names = style_names(description)
    weight = description.get("loss", {}).get("style_weight")
    note = "" if weight is None else f", style weight {weight:g}"
    chosen = [style] if style is not None or network.num_styles == 1 else names
    heads = [name or "_".join(names) or file.stem for name in chosen]
    return [
        Column(
            *choose(network, description, name, strength),
            f"{head}, {strength:g}" if len(strengths) > 1 else head + note,
        )
        for name, head in zip(chosen, heads, strict=True)
        for strength in strengths
    ]


def main() -> None:
    parser = cli.Parser(description="Make a contact sheet of styles.")
    parser.add_argument("photographs", metavar="PHOTOGRAPH", nargs="+")
    parser.add_argument(
        "--weights", metavar="WEIGHTS", nargs="+", default=[str(BUNDLED)],
        help="weights files or names of bundled styles (default: all bundled styles)",
    )  # fmt: skip
    parser.add_argument(
        "--style-image", metavar="PAINTING", nargs="+", help="paintings above the columns, one for each or one for all"
    )
    parser.add_argument(
        "--strength", type=float, nargs="+", default=[1.0], metavar="X", help="a column for each strength"
    )
    parser.add_argument("--size", type=int, default=256, help="side of each square in pixels")
    parser.add_argument("-o", "--output", metavar="FILE", required=True)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing sheet")
    arguments = parser.parse_args()
    side = check_int("--size", arguments.size, 16, styles.LONGEST)
    image.check_writable(arguments.output)
    files = [styles.find(path) for path in arguments.style_image or []]
    cli.check_new("-o", arguments.output, arguments.overwrite, [*files, *arguments.photographs])
    paintings = [center_square(image.open_picture(path).on_white(), side) for path in files]
    styles_shown = [column for path in arguments.weights for column in load_columns(path, arguments.strength)]
    count = len(styles_shown)
    if len(paintings) == 1:
        paintings *= count
    if len(paintings) not in (0, count):
        raise UserError(f"--style-image: got {len(paintings)} paintings; allowed: one, or {count}, one for each column")
    image.check_fits(arguments.output, *grid_size(bool(files) + len(arguments.photographs), 1 + count, side))
    photographs = [center_square(image.open_picture(path).on_white(), side) for path in arguments.photographs]
    heads, columns = ["photograph"], [photographs]
    bar = tqdm(total=count * len(photographs), unit="picture", disable=None)
    for network, fade, head in styles_shown:
        heads.append(head)
        column = []
        for photograph in photographs:
            column.append(image.to_pillow(stylize_tensor(network, image.to_tensor(photograph), fade)))
            bar.update()
        columns.append(column)
    bar.close()
    rows: list[list[Image.Image | None]] = [[None, *paintings]] if paintings else []
    rows += [list(row) for row in zip(*columns, strict=True)]
    image.save_picture(grid(rows, heads, side), arguments.output)
    print(arguments.output)


def command_line() -> None:
    cli.run(main)
