"""Measure how legible painted digits are: the share that a classifier of plain digits reads correctly.

python scripts/dev/digits.py starry_night.safetensors --root data --sheet digits.png
python scripts/dev/digits.py 2_styles.safetensors:cubist cubist --root data

The classifier is trained first, in a minute, on the training digits in random colors, dark on light and light on dark.
It sees no painted digit. The test digits of --root are painted and read.
"""

import argparse
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from fast_nst import image
from fast_nst.commands import cli
from fast_nst.data.mnist import Mnist
from fast_nst.errors import check_int
from fast_nst.stylize.choice import load_style
from fast_nst.stylize.image import stylize_tensor

SIDE = 32  # side of the classifier's input in pixels
BATCH = 100
SHOWN = 40  # digits on the sheet


def classifier() -> nn.Sequential:
    """Build a network that gives ten scores to each image of (B, 3, SIDE, SIDE)."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (SIDE // 8) ** 2, 10))


def see(pictures: Tensor) -> Tensor:
    """Resize (B, 3, H, W) to SIDE, and give each picture a mean of 0 and a variance of 1."""
    pictures = F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    return F.layer_norm(pictures, pictures.shape[1:])


def color(digits: Tensor) -> Tensor:
    """Give each digit, (B, 1, H, W) in [0, 1], a random ink on a random ground: (B, 3, H, W)."""
    ink, ground = torch.rand(2, len(digits), 3, 1, 1)
    return torch.lerp(ground, ink, digits)


def train(digits: Tensor, labels: Tensor, epochs: int = 4) -> nn.Sequential:
    """Train a classifier on (N, 1, H, W) in [0, 1]."""
    network, steps = classifier(), epochs * len(digits) // BATCH
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for _ in tqdm(range(steps), "classifier", unit="step"):
        chosen = torch.randint(len(digits), (BATCH,))
        loss = F.cross_entropy(network(see(color(digits[chosen]))), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def read_digits(root: str, train: bool, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the digits, (N, 3, 28, 28) in [0, 1], and their labels, (N,)."""
    source = Mnist(root, train)
    count = len(source) if count is None else min(count, len(source))
    pictures = torch.cat([image.to_tensor(source[index]) for index in range(count)])
    return pictures, torch.tensor(source.labels[:count])


@torch.inference_mode()
def painted(network: nn.Module, digits: Tensor, size: int) -> Iterator[Tensor]:
    """Yield `digits`, enlarged to `size` pixels a side and painted, a batch at a time."""
    for batch in tqdm(digits.split(BATCH), "painting", unit="batch"):
        large = F.interpolate(batch, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        yield stylize_tensor(network, large)


@torch.inference_mode()
def share_read(network: nn.Module, pictures: Tensor, labels: Tensor) -> float:
    """Return the share of `pictures` that `network` reads as `labels`."""
    found = torch.cat([network(see(batch)).argmax(1) for batch in pictures.split(BATCH)])
    return float((found == labels).float().mean())


def sheet(pictures: Tensor) -> Tensor:
    """Arrange the first pictures in rows of ten: (1, 3, H, W)."""
    return torch.cat([torch.cat([*row], 2) for row in pictures[:SHOWN].split(10) if len(row) == 10], 1)[None]


def main() -> None:
    parser = cli.Parser(description="Measure how legible painted digits are.")
    parser.add_argument("weights", metavar="WEIGHTS", nargs="+", help="a weights file, FILE:STYLE or a bundled style")
    parser.add_argument("--root", default="data", metavar="DIR", help="folder of MNIST (default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="side of a digit in pixels (default: %(default)s)")
    parser.add_argument("--images", type=int, default=1000, help="largest number of test digits (default: %(default)s)")
    parser.add_argument("--sheet", metavar="FILE", help="write a picture of some painted digits")
    arguments: argparse.Namespace = parser.parse_args()
    check_int("--size", arguments.size, 16)
    check_int("--images", arguments.images, 10)
    networks = {path: load_style(path)[0] for path in arguments.weights}
    torch.manual_seed(0)
    pictures, labels = read_digits(arguments.root, train=True)
    network = train(pictures[:, :1], labels)
    digits, labels = read_digits(arguments.root, train=False, count=arguments.images)
    print(f"{share_read(network, digits, labels):.1%} of {len(digits)} plain digits are read correctly")
    rows = []
    for path, painter in networks.items():
        outputs = torch.cat([*painted(painter, digits, arguments.size)])
        print(f"{share_read(network, outputs, labels):.1%} of those painted by {path}")
        rows.append(sheet(outputs))
    if arguments.sheet is not None:
        image.save_picture(image.to_pillow(torch.cat(rows, 2)), arguments.sheet)


if __name__ == "__main__":
    cli.run(main)
