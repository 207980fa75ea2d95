"""Train the refiner, the small network that finishes the synthetic photographs of `data=leaves`.

python scripts/refine.py --vgg vgg19.safetensors --photographs photographs/

Adversarially (Shrivastava et al. 2017, arXiv 1612.07828), against discriminators that look at VGG-19's relu1_2,
relu2_2, relu3_2 and relu3_4 of a picture and of that at half its size (Sauer et al. 2021, arXiv 2111.01007: fixed
features, a small head on each): what a style transfer compares is what should be like a photograph's. A loss of
their own keeps the means over blocks of 16 pixels near what they were drawn as, in place of Shrivastava's on every
pixel. Arguments and files determine the result (for one processor, torch and number of threads).
"""

import argparse
import copy
import sys
import time
from pathlib import Path

import command
import numpy as np
import torch
import torch.nn.functional as F
from building import read_vgg19
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import fast_nst
from fast_nst import image, machine
from fast_nst.data.folder import list_pictures
from fast_nst.data.leaves import refiner
from fast_nst.data.leaves.pool import sketch
from fast_nst.loss_networks import LossNetwork
from fast_nst.validate import Failure, Invalid, whole_number
from fast_nst.weights import sha256

SIDE, CROP, BATCH = 392, 128, 4  # pixels a side of the pictures, and of the crops of a batch
STEPS, DRAWN = 3600, 1600
LAYERS = {"relu1_2": 64, "relu2_2": 128, "relu3_2": 256, "relu3_4": 256}  # and their channels
RATE, BETAS = 5e-4, (0.0, 0.99)  # of Adam, for both sides
BLOCK, LAYOUT, OVERSHOOT = 16, 4.0, 10.0  # pixels a side; weights of what keeps the layout, and the range
DECAY = 0.998  # of the moving average that is kept


class Discriminator(nn.Module):
    """For each of `LAYERS` at two sizes, a head that says of every place whether it is a photograph's (above 0)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.heads = nn.ModuleList(self._head(channels, width) for channels in (*LAYERS.values(), *LAYERS.values()))

    @staticmethod
    def _head(channels: int, width: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for inputs, kernel, stride in ((channels, 1, 1), (width, 3, 1), (width, 3, 2)):
            conv = nn.Conv2d(inputs, width, kernel, stride, kernel // 2)
            layers += [spectral_norm(conv), nn.LeakyReLU(0.2)]
        return nn.Sequential(*layers, spectral_norm(nn.Conv2d(width, 1, 3, padding=1)))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [head(x).float() for head, x in zip(self.heads, features, strict=True)]


def hinge(verdicts_drawn: list[Tensor], verdicts_real: list[Tensor]) -> Tensor:
    """The loss of the discriminators (Lim and Ye 2017, arXiv 1705.02894)."""
    pairs = zip(verdicts_drawn, verdicts_real, strict=True)
    return torch.stack([F.relu(1 + drawn).mean() + F.relu(1 - real).mean() for drawn, real in pairs]).mean()


class Contest:
    """The refiner and the discriminators in training against each other, and the moving average of the refiner.

    vgg: the frozen network, able to give `LAYERS`. photographs: (B, 3, H, W), whose features set the units. steps: how
    many there will be; in the second half the learning rate falls to nothing.
    """

    def __init__(self, vgg: LossNetwork, photographs: Tensor, steps: int) -> None:
        self.vgg, self.steps, self.done = vgg.to(torch.bfloat16), steps, 0
        self.units = [1.0] * 2 * len(LAYERS)
        with torch.no_grad():
            self.units = [float(x.float().square().mean().sqrt()) for x in self.features(photographs)]
        self.refiner, self.discriminator = refiner.Refiner(), Discriminator()
        for module in (self.refiner, self.discriminator):
            module.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.refiner)
        self.optimizers = [torch.optim.Adam(x.parameters(), RATE, BETAS) for x in (self.refiner, self.discriminator)]

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Of (B, 3, H, W), and of that at half the size, in units of the photographs'."""
        both = [x for size in (pictures, F.avg_pool2d(pictures, 2)) for x in self.vgg(size).values()]
        return [x / unit for x, unit in zip(both, self.units, strict=True)]

    def step(self, drawn: Tensor, real: Tensor) -> Tensor:
        """One of both, on pictures (B, 3, H, W). The losses: of the discriminators (2 where they cannot tell), of the
        refiner against them, and how far the layout moved."""
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = RATE * min(1.0, 2 * (1 - self.done / self.steps))
        b, _, h, w = drawn.shape
        with torch.autocast("cpu", torch.bfloat16):
            refined = self.refiner(drawn, torch.randn(b, refiner.NOISE, h // 2, w // 2))
            seen = self.features(refined)
            with torch.no_grad():
                seen_real = self.features(real)
            told = hinge(self.discriminator([x.detach() for x in seen]), self.discriminator(seen_real))
        self.optimizers[1].zero_grad()
        told.backward()
        self.optimizers[1].step()
        self.discriminator.requires_grad_(False)
        with torch.autocast("cpu", torch.bfloat16):
            misled = -torch.stack([verdict.mean() for verdict in self.discriminator(seen)]).mean()
        layout = F.l1_loss(F.avg_pool2d(refined, BLOCK), F.avg_pool2d(drawn, BLOCK))
        overshoot = F.mse_loss(refined, refined.clamp(0, 1))
        self.optimizers[0].zero_grad()
        (misled + LAYOUT * layout + OVERSHOOT * overshoot).backward()
        self.optimizers[0].step()
        self.discriminator.requires_grad_(True)
        with torch.no_grad():
            share = 1 - min(DECAY, self.done / (self.done + 10))
            for kept, value in zip(self.average.parameters(), self.refiner.parameters(), strict=True):
                kept.lerp_(value, share)
        self.done += 1
        return torch.stack([told, misled, layout]).detach()


def read(root: str) -> list[np.ndarray]:
    """The photographs below `root` as (H, W, 3) uint8, the shorter side `SIDE` at most; one line for each left out."""
    pictures = []
    for path in list_pictures(root, "--photographs"):
        try:
            picture = image.open_picture(path, SIDE).rgb
            if min(picture.size) < CROP:
                raise Invalid(f"{path}: {picture.width} x {picture.height} pixels; allowed: {CROP} a side or more")
            pictures.append(np.asarray(image.resize_shorter(picture, min(SIDE, *picture.size))))
        except Invalid as error:
            print(f"left out: {error}", file=sys.stderr)
    if not pictures:
        raise Invalid(f"--photographs: {root}: none of its pictures can be used")
    return pictures


def crops(pictures: list[np.ndarray], rng: np.random.Generator, count: int) -> Tensor:
    """`count` of them, (count, 3, CROP, CROP) in [0, 1], half of them mirrored."""
    batch = []
    for _ in range(count):
        picture = pictures[int(rng.integers(len(pictures)))]
        top, left = (int(rng.integers(side - CROP + 1)) for side in picture.shape[:2])
        crop = picture[top : top + CROP, left : left + CROP]
        batch.append(np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop))
    return torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float() / 255  # channels_last already


def say(text: str, done: int, total: int, begun: float) -> None:
    seconds = time.monotonic() - begun
    left = seconds / done * (total - done) / 60
    print(f"{text} {done}/{total}  {done / seconds:.2f} a second  {left:.1f} min left", file=sys.stderr, flush=True)


def train(arguments: argparse.Namespace) -> None:
    rng = np.random.default_rng(arguments.seed)
    torch.manual_seed(arguments.seed)
    vgg = read_vgg19(LAYERS, arguments.vgg)
    photographs = read(arguments.photographs)
    print(f"{len(photographs)} photographs", file=sys.stderr)
    contest = Contest(vgg, crops(photographs, rng, 16), arguments.steps)
    drawn, begun = [], time.monotonic()
    for index in range(arguments.drawn):
        drawn.append(sketch(np.random.default_rng((arguments.seed, index)), SIDE, SIDE))
        if len(drawn) % 100 == 0 or len(drawn) == arguments.drawn:
            say("drawn", len(drawn), arguments.drawn, begun)
    recipe = {
        "made_by": "scripts/refine.py", "package_version": fast_nst.__version__, "torch_version": torch.__version__,
        "vgg_sha256": sha256(arguments.vgg), "photographs": len(photographs), "drawn": arguments.drawn,
        "seed": arguments.seed, "of_steps": arguments.steps,
    }  # fmt: skip
    losses, begun = [], time.monotonic()
    while contest.done < arguments.steps:
        losses.append(contest.step(crops(drawn, rng, BATCH), crops(photographs, rng, BATCH)))
        if contest.done % 25 == 0 or contest.done == arguments.steps:
            told, misled, layout = torch.stack(losses[-100:]).mean(0).tolist()
            if not np.isfinite(told + misled):
                raise Failure(f"step {contest.done}: the losses are no longer finite")
            text = f"told apart {told:.3f}  misled {misled:.3f}  layout {layout:.4f}  step"
            say(text, contest.done, arguments.steps, begun)
        if contest.done % 500 == 0 or contest.done == arguments.steps:
            with image.replacing(arguments.output) as temporary:
                refiner.save(temporary, contest.average, {**recipe, "steps": contest.done})
    print(arguments.output)


def main() -> None:
    parser = command.Parser(description="Train the refiner of the synthetic photographs.")
    parser.add_argument(
        "--vgg", required=True, type=Path, metavar="FILE", help="VGG-19 in torchvision's layout, up to relu3_4 or on"
    )
    parser.add_argument("--photographs", required=True, metavar="DIR", help="all of them are held in memory")
    parser.add_argument("--steps", type=int, default=STEPS, help="%(default)s by default")
    parser.add_argument(
        "--drawn", type=int, default=DRAWN, metavar="N", help="synthetic photographs to learn from (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=refiner.ASSET,
        metavar="FILE",
        help="by default the package's own is replaced",
    )
    arguments = parser.parse_args()
    machine.keep_memory()
    whole_number("--steps", arguments.steps, 1)
    whole_number("--drawn", arguments.drawn, 1)
    whole_number("--seed", arguments.seed, 0, 2**63 - 1)
    command.check_new("--output", arguments.output, overwrite=True, inputs=())
    train(arguments)


if __name__ == "__main__":
    command.run(main)
