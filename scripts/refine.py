"""Train the refiner, the small network that finishes the synthetic photographs of `data=leaves`.

python scripts/refine.py --vgg vgg19.safetensors --photographs photographs/

Adversarially (Shrivastava et al. 2017, arXiv 1612.07828), against discriminators that look at VGG-19's relu1_2,
relu2_2, relu3_2 and relu3_4 of a picture and of that at half its size (Sauer et al. 2021, arXiv 2111.01007: fixed
features, a small head on each): what a style transfer compares is what should be like a photograph's. The means over
blocks of 16 pixels stay what they were drawn as, by a loss of their own, in place of Shrivastava's on every pixel.
Steps and seed determine the result (for one torch and number of threads).
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
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import fast_nst
from fast_nst import image, loss_networks, machine
from fast_nst.data.folder import Folder
from fast_nst.data.leaves import refiner
from fast_nst.data.leaves.pool import sketch
from fast_nst.validate import Invalid, whole_number
from fast_nst.weights import sha256

SIDE, CROP, BATCH = 392, 128, 4  # pixels a side of the pictures, and of the crops of a batch
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


class Features:
    """VGG-19's features of pictures (B, 3, H, W) and of them at half the size, in units of those of `photographs`."""

    def __init__(self, vgg: Path, photographs: Tensor) -> None:
        self.network = loss_networks.build("vgg19", LAYERS, vgg).to(torch.bfloat16)
        self.units = [1.0] * 2 * len(LAYERS)
        with torch.no_grad():
            self.units = [float(x.float().square().mean().sqrt()) for x in self(photographs)]

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        both = [x for size in (pictures, F.avg_pool2d(pictures, 2)) for x in self.network(size).values()]
        return [x / unit for x, unit in zip(both, self.units, strict=True)]


def crops(pictures: list[np.ndarray], rng: np.random.Generator, count: int) -> Tensor:
    """`count` of them, (count, 3, CROP, CROP) in [0, 1], mirrored every second time."""
    batch = []
    for _ in range(count):
        picture = pictures[int(rng.integers(len(pictures)))]
        top, left = (int(rng.integers(side - CROP + 1)) for side in picture.shape[:2])
        crop = picture[top : top + CROP, left : left + CROP]
        batch.append(np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop))
    return torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float() / 255  # channels_last already


def hinge(verdicts_drawn: list[Tensor], verdicts_real: list[Tensor]) -> Tensor:
    """The hinge loss of the discriminators (Lim and Ye 2017, arXiv 1705.02894)."""
    pairs = zip(verdicts_drawn, verdicts_real, strict=True)
    return torch.stack([F.relu(1 + drawn).mean() + F.relu(1 - real).mean() for drawn, real in pairs]).mean()


def train(arguments: argparse.Namespace) -> None:
    rng = np.random.default_rng(arguments.seed)
    torch.manual_seed(arguments.seed)
    folder = Folder(arguments.photographs, shorter=SIDE)
    photographs = [np.asarray(picture) for i in range(len(folder)) if (picture := folder[i]) is not None]
    if not photographs or min(min(picture.shape[:2]) for picture in photographs) < CROP:
        raise Invalid(f"--photographs: {arguments.photographs}: allowed: pictures of {CROP} pixels a side or more")
    features = Features(arguments.vgg, crops(photographs, rng, 16))
    drawn = []
    for index in range(arguments.drawn):
        drawn.append(sketch(np.random.default_rng((arguments.seed, index)), SIDE, SIDE))
        if (index + 1) % 400 == 0:
            print(f"drawn {index + 1}/{arguments.drawn}", file=sys.stderr, flush=True)
    network, discriminator = refiner.Refiner(), Discriminator()
    for module in (network, discriminator):
        module.to(memory_format=torch.channels_last)
    average = copy.deepcopy(network)
    optimizers = [torch.optim.Adam(module.parameters(), RATE, BETAS) for module in (network, discriminator)]
    recipe = {
        "made_by": "scripts/refine.py", "package_version": fast_nst.__version__, "vgg_sha256": sha256(arguments.vgg),
        "photographs": len(photographs), "drawn": arguments.drawn, "seed": arguments.seed, "of_steps": arguments.steps,
    }  # fmt: skip
    sums, begun = torch.zeros(3), time.monotonic()
    for step in range(arguments.steps):
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = RATE * min(1.0, 2 * (1 - step / arguments.steps))
        before, real = crops(drawn, rng, BATCH), crops(photographs, rng, BATCH)
        noise = torch.randn(BATCH, refiner.NOISE, CROP // 2, CROP // 2)
        with torch.autocast("cpu", torch.bfloat16):
            after = network(before, noise).float()
            seen = features(after)
            with torch.no_grad():
                seen_real = features(real)
            told = hinge(discriminator([x.detach() for x in seen]), discriminator(seen_real))
        optimizers[1].zero_grad()
        told.backward()
        optimizers[1].step()
        discriminator.requires_grad_(False)
        with torch.autocast("cpu", torch.bfloat16):
            misled = -torch.stack([verdict.mean() for verdict in discriminator(seen)]).mean()
        layout = F.l1_loss(F.avg_pool2d(after, BLOCK), F.avg_pool2d(before, BLOCK))
        overshoot = F.mse_loss(after, after.clamp(0, 1))
        optimizers[0].zero_grad()
        (misled + LAYOUT * layout + OVERSHOOT * overshoot).backward()
        optimizers[0].step()
        discriminator.requires_grad_(True)
        with torch.no_grad():
            share = 1 - min(DECAY, step / (step + 10))
            for kept, value in zip(average.parameters(), network.parameters(), strict=True):
                kept.lerp_(value, share)
        sums += torch.stack([told, misled, layout]).detach()
        done = step + 1
        if done % 100 == 0 or done == arguments.steps:
            count = done % 100 or 100
            told, misled, layout = sums / count
            rate = done / (time.monotonic() - begun)
            print(f"step {done}/{arguments.steps}  {rate:.2f} step/s  told apart {told:.3f}  misled {misled:.3f}  "
                  f"layout {layout:.4f}", file=sys.stderr, flush=True)  # fmt: skip
            sums = torch.zeros(3)
        if done % 500 == 0 or done == arguments.steps:
            with image.replacing(arguments.output) as temporary:
                refiner.save(temporary, average, {**recipe, "steps": done})
    print(arguments.output)


def main() -> None:
    parser = command.Parser(description="Train the refiner of the synthetic photographs.")
    parser.add_argument(
        "--vgg", required=True, type=Path, metavar="FILE", help="VGG-19 in torchvision's layout, up to relu3_4 or on"
    )
    parser.add_argument("--photographs", required=True, metavar="DIR")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--drawn", type=int, default=1600, metavar="N", help="synthetic photographs to learn from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=refiner.ASSET, metavar="FILE")
    arguments = parser.parse_args()
    machine.keep_memory()
    whole_number("--steps", arguments.steps, 1)
    whole_number("--drawn", arguments.drawn, 1)
    whole_number("--seed", arguments.seed, 0)
    train(arguments)


if __name__ == "__main__":
    command.run(main)
