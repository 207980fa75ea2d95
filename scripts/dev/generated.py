"""Score the digits that a generator of experiment=agn makes.

python scripts/dev/generated.py agn.safetensors --root data --json scores.json

A classifier is trained first, in a minute, on training digits painted in the generator's styles; it names style and
digit. Pictures of test digits in each style tell the generator which style to make. A generated digit is no copy if its
nearest training digit, painted in the same colors, is about as far away as a test digit's.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from digits import BATCH, SIDE, classifier
from torch import Tensor, nn
from tqdm import tqdm

from fast_nst import weights
from fast_nst.atomic import atomic_write
from fast_nst.commands import cli
from fast_nst.commands.generate import generate
from fast_nst.data.dataset import ContentImages
from fast_nst.data.mnist import Mnist
from fast_nst.data.painted import paint, parse_style
from fast_nst.errors import UserError, check_int
from fast_nst.loss_networks.style_features import StyleExtractor
from fast_nst.networks.generator import Generator

SURE = 0.9  # confidence above which a digit is legible
STEPS, PICTURES = 600, 16  # the classifier's training steps; pictures that give a style


class Digits:
    """Digits painted in chosen styles. root: the folder of MNIST. size: the side in pixels."""

    def __init__(self, root: str, train: bool, size: int, styles: list[str]) -> None:
        source = Mnist(root, train)
        self.images = ContentImages(source, list(range(len(source))), size, "center", shuffle=False)
        self.labels, self.styles = torch.tensor(source.labels), [parse_style(name, size) for name in styles]
        self.rng = np.random.default_rng(0)

    def paint(self, indices: list[int], styles: list[int]) -> Tensor:
        """Return the digits at `indices`, each painted in one of `styles`, (B, 3, S, S)."""
        pairs = zip(indices, styles, strict=True)
        return torch.stack([paint(self.images[index], self.styles[style], self.rng) for index, style in pairs])


def see(pictures: Tensor) -> Tensor:
    """Convert (B, 3, H, W) in [0, 1] to the classifier's input: SIDE pixels a side, in [-1, 1]."""
    return 2 * F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False) - 1


def train(digits: Digits, steps: int) -> nn.Sequential:
    """Train a classifier that gives ten scores for the digit, then one for each style."""
    network, count = classifier(), len(digits.styles)
    network[-1] = nn.Linear(network[-1].in_features, 10 + count)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for _ in tqdm(range(steps), "classifier", unit="step"):
        indices, styles = digits.rng.integers(len(digits.images), size=BATCH), digits.rng.integers(count, size=BATCH)
        scores = network(see(digits.paint(indices.tolist(), styles.tolist())))
        read = F.cross_entropy(scores[:, :10], digits.labels[indices])
        loss = read + F.cross_entropy(scores[:, 10:], torch.from_numpy(styles))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.inference_mode()
def classify(network: nn.Module, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the digit, its confidence and the style of each of `pictures`, (B,) each."""
    scores = torch.cat([network(see(part)) for part in pictures.split(BATCH)])
    confidence, digit = scores[:, :10].softmax(1).max(1)
    return digit, confidence, scores[:, 10:].argmax(1)


@torch.inference_mode()
def make(network: Generator, test: Digits, style: int, count: int) -> Tensor:
    """Generate `count` images in the style of pictures of test digits painted in `style`."""
    pictures = test.paint(test.rng.integers(len(test.images), size=PICTURES).tolist(), [style] * PICTURES)
    features, noise = StyleExtractor()(pictures), torch.randn(count, network.noise)
    parts = [generate(network, row[None], noise[k::PICTURES]) for k, row in enumerate(features)]
    return torch.cat([picture for part in parts for picture in part])


def distances(pictures: Tensor, train: Digits, style: int) -> Tensor:
    """Return each picture's distance to the nearest training digit in that style: root mean square over pixels."""
    nearest = torch.full((len(pictures),), float("inf"))
    flat = see(pictures).flatten(1) / 2
    for start in range(0, len(train.images), 1000):
        indices = list(range(start, min(start + 1000, len(train.images))))
        others = see(train.paint(indices, [style] * len(indices))).flatten(1) / 2
        nearest = torch.minimum(nearest, torch.cdist(flat, others).min(1).values)
    return nearest / flat.shape[1] ** 0.5


def score(network: Generator, names: list[str], root: str, count: int, steps: int) -> dict[str, Any]:
    training, test = (Digits(root, part, network.size, names) for part in (True, False))
    judge, each = train(training, steps), count // len(names)
    real = test.rng.integers(len(test.images), size=each).tolist()
    made = torch.cat([make(network, test, style, each) for style in range(len(names))])
    pictures = torch.cat([test.paint(real, [style] * each) for style in range(len(names))])
    asked = torch.arange(len(names)).repeat_interleave(each)
    figures: dict[str, Any] = {}
    for title, images in (("generated", made), ("test digits", pictures)):
        digit, confidence, style = classify(judge, images)
        figures[title] = {
            "asked style": float((style == asked).float().mean()),
            "legible": float((confidence > SURE).float().mean()),
            "share of each digit": [round(float((digit == k).float().mean()), 3) for k in range(10)],
            "nearest training digit": {
                name: float(distances(images[asked == k], training, k).median())
                for k, name in enumerate(names)
                if all(part.shape[1] == 1 for part in training.styles[k])  # a painting's crops differ anyway
            },
        }
    digit, _, _ = classify(judge, pictures)
    figures["test digits"]["read correctly"] = float((digit == test.labels[real].repeat(len(names))).float().mean())
    return figures


def parse() -> argparse.Namespace:
    parser = cli.Parser(description="Score the digits that a generator makes.")
    parser.add_argument("weights", metavar="WEIGHTS")
    parser.add_argument("--root", required=True, metavar="DIR", help="folder of MNIST, as data.root")
    parser.add_argument("--images", type=int, default=1000, help="images to generate (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of the classifier (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --json file")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    network, description = weights.load_generator(arguments.weights)
    names = description["style"]["names"]
    check_int("--images", arguments.images, len(names))
    if arguments.json is not None:
        cli.check_json(arguments.json, arguments.overwrite, [arguments.weights])
    if not all("_on_" in name for name in names):
        raise UserError(f"{arguments.weights}: got styles {', '.join(names)}; allowed: INK_on_GROUND (painted digits)")
    torch.manual_seed(0)
    figures = score(network, names, arguments.root, arguments.images, arguments.steps)
    print(json.dumps(figures, indent=2))
    if arguments.json is not None:
        with atomic_write(arguments.json) as temporary:
            temporary.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    cli.run(main)
