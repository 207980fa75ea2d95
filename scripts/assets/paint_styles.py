"""Paint the style images that come with the package.

python scripts/assets/paint_styles.py
python scripts/assets/paint_styles.py --only starry_night --output painted

The modules in `painting/` paint every style image, so none is under anybody's copyright. They need only numpy and
Pillow and take about a minute. With the same library versions the files are identical byte for byte.
"""

import hashlib
import time
from pathlib import Path

from painting import PAINTINGS, paint

from fast_nst.atomic import atomic_write
from fast_nst.commands import cli

ASSETS = Path(__file__).resolve().parents[2] / "fast_nst" / "assets" / "styles"
QUALITY = 88


def main() -> None:
    parser = cli.Parser(description="Paint the style images that come with the package.")
    parser.add_argument("--only", nargs="+", choices=sorted(PAINTINGS), metavar="NAME", default=list(PAINTINGS),
                        help="paint only these: " + ", ".join(PAINTINGS))  # fmt: skip
    parser.add_argument("--output", type=Path, default=ASSETS, metavar="DIR", help="folder for the JPEGs")
    arguments = parser.parse_args()

    for name in arguments.only:
        started = time.perf_counter()
        path = arguments.output / f"{name}.jpg"
        image = paint(name)
        with atomic_write(path) as temporary:
            image.save(temporary, quality=QUALITY, optimize=True)
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()[:12]
        seconds = time.perf_counter() - started
        print(
            f"{path}  {image.width}x{image.height}  {len(data) // 1024} KB  {seconds:.1f} s  sha256 {digest}",
            flush=True,
        )


if __name__ == "__main__":
    cli.run(main)
