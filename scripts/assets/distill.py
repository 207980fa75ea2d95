"""Distill VGG-16 into `compact`, the loss network that ships with the package.

python scripts/assets/distill.py --vgg vgg16.safetensors --photographs photographs/

The student starts as VGG-16 at a low rank (low_rank.py) and learns to reproduce VGG-16's outputs. Photographs are not
enough: an image transformation network trained against a student finds what the student does not see. So the data is
on-policy: a few such networks train against the student meanwhile, each for a painting of its own, and the student sees
their outputs too, at full, half and quarter size. Errors of Grams count beside those of features, and increasingly the
error of the direction from an output's Gram to that of its painting, which is what such a training follows. Steps and
seed determine the result, for one torch and number of threads.
"""

import argparse
import copy
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from low_rank import low_rank
from torch import Tensor, nn

import fast_nst
from fast_nst import image, loss_networks, networks
from fast_nst.commands import cli
from fast_nst.commands.build import loss_settings, optimizer_settings
from fast_nst.data.batch import Batch
from fast_nst.data.dataset import ContentImages
from fast_nst.data.folder import Folder, list_pictures
from fast_nst.data.synthetic import SyntheticPhotographs
from fast_nst.device import keep_memory
from fast_nst.errors import UserError, check_int, check_number
from fast_nst.loss_networks import LossNetwork, compact
from fast_nst.losses import PerceptualLoss
from fast_nst.losses.functional import gram
from fast_nst.methods.style_transfer import training_terms
from fast_nst.training.muon import Muon
from fast_nst.training.optimizers import learning_rate_factor
from fast_nst.weights import sha256

NARROW = (16, 32)  # channels of the first two convolutions
RANKS = (  # of the later ones
    (32, 48), (56, 56), (72, 104), (104, 112), (112, 128), (128, 160), (160, 192), (176, 256),
)  # fmt: skip
SIDE, SEEN = 192, 144  # pixels a side of what is painted, and of what the student sees of it at full size
PAINTERS, LIFETIMES, REFRESH = 3, (150, 1500), 50  # networks at a time, their steps, steps between copies for them


class Painter:
    """An image transformation network that trains against `student` for one painting, for `steps` steps."""

    def __init__(self, painting: Tensor, student: LossNetwork, steps: int, rng: np.random.Generator) -> None:
        torch.manual_seed(int(rng.integers(2**31)))
        self.network = networks.build("slim").to(memory_format=torch.channels_last)
        muon = optimizer_settings()
        self.optimizer = Muon(self.network, muon["learning_rate"])
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, muon["schedule"], muon["warmup_steps"], steps)
        )
        self.left = steps
        weight = math.exp(rng.uniform(math.log(4), math.log(40)))
        self.loss = PerceptualLoss(student, painting, **{**loss_settings(), "style_weight": weight})
        self.loss.to("cpu", torch.bfloat16)

    def step(self, content: Tensor) -> Tensor:
        """One step of training; the outputs, (B, 3, H, W)."""
        self.left -= 1
        outputs: list[Tensor] = []

        def network(*arguments: Tensor | None) -> Tensor:
            outputs.append(self.network(*arguments))
            return outputs[0]

        with torch.autocast("cpu", torch.bfloat16):
            terms = training_terms(network, Batch(content=content), loss=self.loss, pixels=0)
        self.optimizer.zero_grad()
        terms["loss"].backward()
        self.optimizer.step()
        self.schedule.step()
        return outputs[0].detach().clamp(0, 1)


class Painters:
    """`PAINTERS` networks, each replaced by a new one after its steps, training against a copy of the student in
    bfloat16 that is updated now and then."""

    def __init__(self, student: LossNetwork, paintings: list[Tensor], rng: np.random.Generator) -> None:
        self.student = copy.deepcopy(student).requires_grad_(False)
        self.paintings, self.rng = paintings, rng
        self.painters = [self.new() for _ in range(PAINTERS)]

    def new(self) -> Painter:
        painting = varied(self.paintings[int(self.rng.integers(len(self.paintings)))], self.rng)
        steps = round(math.exp(self.rng.uniform(math.log(LIFETIMES[0]), math.log(LIFETIMES[1]))))
        return Painter(painting, self.student, steps, self.rng)

    def next(self, step: int, student: LossNetwork) -> Painter:
        if step % REFRESH == 0:
            self.student.load_state_dict(student.state_dict())
            for painter in self.painters:
                painter.loss.to("cpu", torch.bfloat16)  # takes the painting's Grams anew
        which = step % PAINTERS
        if self.painters[which].left <= 0:
            self.painters[which] = self.new()
        return self.painters[which]


def varied(painting: Tensor, rng: np.random.Generator) -> Tensor:
    """A part of (1, 3, H, W) at a random size, 160 to 256 px a side, at times with other colors."""
    height, width = (16 * int(rng.integers(10, 17)) for _ in range(2))
    scale = math.exp(rng.uniform(math.log(0.6), math.log(4 / 3)))
    h, w = (min(round(side / scale), whole) for side, whole in zip((height, width), painting.shape[2:], strict=True))
    part = F.interpolate(crop(painting, h, w, rng), (height, width), mode="bicubic", antialias=True).clamp(0, 1)
    if rng.random() < 0.4:
        part = part[:, torch.from_numpy(rng.permutation(3))]
    if rng.random() < 0.2:
        part = 1 - part
    return part


def crop(images: Tensor, height: int, width: int, rng: np.random.Generator) -> Tensor:
    top, left = (
        int(rng.integers(whole - side + 1)) for side, whole in zip((height, width), images.shape[2:], strict=True)
    )
    return images[:, :, top : top + height, left : left + width]


def noisy(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Images with Gaussian noise at a random scale and strength, colored or gray."""
    b, _, h, w = images.shape
    scale = int(rng.choice([1, 1, 2, 4, 8]))
    noise = torch.from_numpy(rng.standard_normal((b, int(rng.choice([1, 3])), h // scale, w // scale), np.float32))
    noise = F.interpolate(noise, size=(h, w), mode=str(rng.choice(["nearest", "bilinear"])))
    return (images + noise * float(rng.uniform(0.02, 0.3))).clamp(0, 1)


def in_bfloat16(student: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """The student's outputs computed in bfloat16, as a training asks for them, with gradients for float32 weights."""
    weights = {name: weight.bfloat16() for name, weight in student.named_parameters()}
    outputs: dict[str, Tensor] = torch.func.functional_call(student, weights, (batch,))
    return {name: value.float() for name, value in outputs.items()}


@torch.no_grad()
def taught(vgg: LossNetwork, image: Tensor) -> dict[str, Tensor]:
    """What VGG-16, in bfloat16, says of (B, 3, H, W)."""
    return {name: features.float() for name, features in vgg(image).items()}


def relative(error: Tensor, reference: Tensor) -> Tensor:
    """Squared norms of a batch's items over those of others: two (B, …) -> (B,)."""
    return error.flatten(1).square().sum(1) / reference.flatten(1).square().sum(1).clamp_min(1e-8)


def errors(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], our_goal: dict[str, Tensor], their_goal: dict[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """Relative squared errors of the student by kind and layer, each (B,): of "features", of "Grams", and of the
    "direction" from an image's Gram to that of the painting, an error that both share being none."""
    found: dict[str, dict[str, Tensor]] = {"features": {}, "Grams": {}, "direction": {}}
    for name, theirs_ in theirs.items():
        found["features"][name] = relative(ours[name] - theirs_, theirs_)
        mine, wanted = gram(ours[name]), gram(theirs_)
        found["Grams"][name] = relative(mine - wanted, wanted)
        way, true_way = mine - gram(our_goal[name]), wanted - gram(their_goal[name])
        found["direction"][name] = relative(way - true_way, gram(their_goal[name]).expand_as(way))
    return found


def distill(arguments: argparse.Namespace) -> None:
    rng = np.random.default_rng(arguments.seed)
    torch.manual_seed(arguments.seed)
    try:
        vgg = loss_networks.build("vgg16", compact.LAYERS, arguments.vgg)
    except UserError as error:
        raise UserError(str(error).replace("loss_network.weights", "--vgg")) from None
    folder = Folder(arguments.photographs, shorter=2 * SIDE, cache_mib=2048, name="--photographs")
    photographs = ContentImages(folder, list(range(len(folder))), SIDE, seed=arguments.seed)
    synthetic = ContentImages(
        SyntheticPhotographs(400, 2 * SIDE, arguments.seed), list(range(400)), SIDE, seed=arguments.seed
    )
    paintings = [image.to_tensor(image.resize_shorter(image.open_picture(path).rgb, 288))
                 for path in list_pictures(arguments.styles, "--styles")]  # fmt: skip
    whole = [image.to_tensor(image.resize_shorter(picture, 288))
             for i in range(0, len(folder), 2) if (picture := folder[i])]  # fmt: skip
    student = low_rank(vgg, [*paintings, *whole[::3]], NARROW, RANKS, rng)
    student.requires_grad_(True)
    vgg.to(torch.bfloat16)
    recipe: dict[str, Any] = {
        "narrow": NARROW, "ranks": RANKS,
        "made_by": "scripts/assets/distill.py", "package_version": fast_nst.__version__,
        "teacher": "VGG-16 by Karen Simonyan and Andrew Zisserman (2014), CC BY 4.0; changed: distilled",
        "teacher_sha256": sha256(arguments.vgg), "photographs": len(folder), "paintings": len(paintings),
        "seed": arguments.seed,
        "of_steps": arguments.steps,
    }  # fmt: skip
    optimizer = Muon(student, arguments.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, "cosine", 50, arguments.steps)
    )
    # A photograph serves as a painting now and then: not every style is a painting.
    painters = Painters(student, [*paintings, *paintings, *whole[: len(paintings)]], rng)
    sums: dict[str, dict[str, float]] = {}
    begun = time.monotonic()
    for step in range(arguments.steps):
        painter = painters.next(step, student)
        content = torch.stack([synthetic[2 * step], photographs[2 * step]])
        output = painter.step(content)
        blend = torch.lerp(output, content, torch.from_numpy(rng.uniform(0, 1, (2, 1, 1, 1))).float())
        painting = crop(paintings[int(rng.integers(len(paintings)))], SIDE, SIDE, rng)
        batch = torch.cat([output, photographs[2 * step + 1][None], noisy(blend, rng)[:1], blend[1:], painting])
        divisor = (1, 2, 1, 4)[step % 4]
        batch = crop(batch, SEEN, SEEN, rng) if divisor == 1 else F.avg_pool2d(batch, divisor)
        goal = F.avg_pool2d(painter.loss.styles[0], divisor)
        found = errors(in_bfloat16(student, batch), taught(vgg, batch), in_bfloat16(student, goal), taught(vgg, goal))
        ramp = {"features": 4.0, "Grams": 1.0, "direction": step / arguments.steps}
        loss = torch.zeros(())
        for kind, by_layer in found.items():
            for values in by_layer.values():
                # The root keeps one image that is far off from drowning the rest.
                loss = loss + ramp[kind] * (values.mean() if kind == "features" else (values + 1e-4).sqrt().mean())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        for kind, by_layer in found.items():
            for name, values in by_layer.items():
                row, value = sums.setdefault(f"{kind} / {divisor}", {}), float(values[:2].detach().mean())
                row[name] = 0.95 * row.get(name, value) + 0.05 * value
        done = step + 1
        if done % 50 == 0 or done == arguments.steps:
            rate = done / (time.monotonic() - begun)
            text = "  ".join(f"{kind} " + " ".join(f"{v:.3f}" for v in row.values()) for kind, row in sums.items())
            print(f"step {done}/{arguments.steps}  {rate:.2f} step/s  {text}", file=sys.stderr, flush=True)
        if done % 200 == 0 or done == arguments.steps:
            with image.replacing(arguments.output) as temporary:
                compact.save(temporary, student, {**recipe, "steps": done, "relative_errors_of_outputs": sums})
    print(arguments.output)


def main() -> None:
    parser = cli.Parser(description="Distill VGG-16 into the compact loss network.")
    parser.add_argument(
        "--vgg", required=True, metavar="FILE", help="VGG-16 in torchvision's layout, up to relu4_3 or on"
    )
    parser.add_argument("--photographs", required=True, metavar="DIR")
    parser.add_argument(
        "--styles", default=compact.ASSET.parent / "styles", metavar="DIR", help="paintings (default: the package's)"
    )
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--learning-rate", type=float, default=0.004)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=compact.ASSET, metavar="FILE")
    arguments = parser.parse_args()
    keep_memory()
    check_int("--steps", arguments.steps, 1)
    check_number("--learning-rate", arguments.learning_rate, 0)
    distill(arguments)


if __name__ == "__main__":
    cli.run(main)
