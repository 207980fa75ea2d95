"""A contact sheet of trained networks: each painting, some photographs, and what its network makes of them.

python scripts/sheet.py a.jpg b.jpg --weights cubist.safetensors --style-image bundled:cubist.jpg -o sheet.jpg
"""

from pathlib import Path

import command
import torch
from PIL import Image

from fast_nst import image, stylize, weights
from fast_nst.data import style
from fast_nst.data.content import center_box
from fast_nst.stylize.sheet import sheet
from fast_nst.validate import Invalid, whole_number


def main() -> None:
    parser = command.Parser(description="A contact sheet of trained networks.")
    parser.add_argument("photographs", metavar="PHOTOGRAPH", nargs="+")
    parser.add_argument("--weights", metavar="WEIGHTS", nargs="+", required=True)
    parser.add_argument("--style-image", metavar="PAINTING", nargs="+", required=True, help="one for each weights file")
    parser.add_argument("--size", type=int, default=256, help="pixels of each square")
    parser.add_argument("-o", "--output", metavar="FILE", required=True)
    arguments = parser.parse_args()
    whole_number("--size", arguments.size, 16)
    image.check_writable(arguments.output)
    if len(arguments.weights) != len(arguments.style_image):
        raise Invalid(
            f"--style-image: {len(arguments.style_image)} paintings for {len(arguments.weights)} weights files"
        )
    pictures = [image.open_picture(path).rgb for path in arguments.photographs]
    side = (arguments.size, arguments.size)
    squares = [p.resize(side, Image.Resampling.BICUBIC, box=center_box(*p.size)) for p in pictures]
    contents = torch.cat([image.to_tensor(square) for square in squares])
    bands = []
    for file, painting in zip(arguments.weights, arguments.style_image, strict=True):
        network, _ = weights.load(file)
        results = torch.cat([stylize.stylize_tensor(network, content[None]) for content in contents])
        bands.append(sheet(style.load(style.find(painting), None), contents, results))
    whole = Image.new("RGB", (max(b.width for b in bands), sum(b.height + 4 for b in bands) - 4), "white")
    top = 0
    for band in bands:
        whole.paste(band, (0, top))
        top += band.height + 4
    image.save_picture(whole, Path(arguments.output))
    print(arguments.output)


if __name__ == "__main__":
    command.run(main)
