"""Distill VGG-16 into `compact`, the loss network that ships with the package.

python scripts/assets/distill.py --vgg vgg16.safetensors --photographs photographs/

The student starts as VGG-16 at a low rank (pca.py) and learns to reproduce VGG-16's features. Photographs are not
enough, because an image transformation network trained against the student exploits its errors. So the data is
on-policy: a few such networks train against the student at the same time, each for its own style, and the student also
learns from their outputs, at full, half and quarter size. The loss sums the errors of features, of Grams, and (with a
growing weight) of the direction from an output's Gram to that of its style, because style training follows it.
Steps and seed determine the result for one version of torch and one number of threads.
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
from pca import low_rank
from torch import Tensor, nn

import fast_nst
from fast_nst import image, loss_networks, networks
from fast_nst.atomic import atomic_write
from fast_nst.commands import cli
from fast_nst.commands.build import loss_settings, optimizer_settings
from fast_nst.data.batch import Batch
from fast_nst.data.dataset import ContentImages
from fast_nst.data.folder import Folder
from fast_nst.data.synthetic import SyntheticPhotographs
from fast_nst.errors import UserError, check_int, check_number
from fast_nst.listing import list_pictures
from fast_nst.loss_networks import LossNetwork, compact
from fast_nst.losses import PerceptualLoss
from fast_nst.losses.functional import gram
from fast_nst.machine import keep_freed_memory
from fast_nst.methods.style_transfer import training_terms
from fast_nst.training.muon import Muon
from fast_nst.training.optimizers import learning_rate_factor
from fast_nst.weights import sha256

NARROW = (16, 32)  # channels of the first two convolutions
RANKS = (  # of the later convolutions
    (32, 48), (56, 56), (72, 104), (104, 112), (112, 128), (128, 160), (160, 192), (176, 256),
)  # fmt: skip
SIDE, CROP = 192, 144  # side in pixels of the networks' images, and of their crops for the student at full size
NUM_NETWORKS = 3  # on-policy networks at a time
LIFETIMES = (150, 1500)  # range of the number of steps of each
SYNC_INTERVAL = 50  # steps between updates of their copy of the student


class OnPolicyNetwork:
    """An image transformation network that trains against `student` for one style and `steps` steps."""

    def __init__(self, style: Tensor, student: LossNetwork, steps: int, rng: np.random.Generator) -> None:
        torch.manual_seed(int(rng.integers(2**31)))
        self.network = networks.build("slim").to(memory_format=torch.channels_last)
        muon = optimizer_settings()
        self.optimizer = Muon(self.network, muon["learning_rate"])
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, muon["schedule"], muon["warmup_steps"], steps)
        )
        self.steps_left = steps
        weight = math.exp(rng.uniform(math.log(4), math.log(40)))
        self.loss = PerceptualLoss(student, style, **{**loss_settings(), "style_weight": weight})
        self.loss.to("cpu", torch.bfloat16)

    def step(self, content: Tensor) -> Tensor:
        """Train for one step and return its outputs, (B, 3, H, W)."""
        self.steps_left -= 1
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


class OnPolicyPool:
    """`NUM_NETWORKS` networks in training, each replaced by a new one after its last step.

    They train against a bfloat16 copy of the student that is updated every `SYNC_INTERVAL` steps.
    """

    def __init__(self, student: LossNetwork, styles: list[Tensor], rng: np.random.Generator) -> None:
        self.student = copy.deepcopy(student).requires_grad_(False)
        self.styles, self.rng = styles, rng
        self.networks = [self.new() for _ in range(NUM_NETWORKS)]

    def new(self) -> OnPolicyNetwork:
        """Build a network with a random style and number of steps."""
        style = augment_style(self.styles[int(self.rng.integers(len(self.styles)))], self.rng)
        steps = round(math.exp(self.rng.uniform(math.log(LIFETIMES[0]), math.log(LIFETIMES[1]))))
        return OnPolicyNetwork(style, self.student, steps, self.rng)

    def next(self, step: int, student: LossNetwork) -> OnPolicyNetwork:
        """Return the network for `step`. The networks take turns."""
        if step % SYNC_INTERVAL == 0:
            self.student.load_state_dict(student.state_dict())
            for network in self.networks:
                network.loss.to("cpu", torch.bfloat16)  # recomputes the style's Grams
        index = step % NUM_NETWORKS
        if self.networks[index].steps_left <= 0:
            self.networks[index] = self.new()
        return self.networks[index]


def augment_style(style: Tensor, rng: np.random.Generator) -> Tensor:
    """Crop (1, 3, H, W) at a random scale to sides of 160 to 256 px, and sometimes permute or invert its colors."""
    height, width = (16 * int(rng.integers(10, 17)) for _ in range(2))
    scale = math.exp(rng.uniform(math.log(0.6), math.log(4 / 3)))
    h, w = (min(round(side / scale), limit) for side, limit in zip((height, width), style.shape[2:], strict=True))
    style = F.interpolate(crop(style, h, w, rng), (height, width), mode="bicubic", antialias=True).clamp(0, 1)
    if rng.random() < 0.4:
        style = style[:, torch.from_numpy(rng.permutation(3))]
    if rng.random() < 0.2:
        style = 1 - style
    return style


def crop(images: Tensor, height: int, width: int, rng: np.random.Generator) -> Tensor:
    """Return the same random (height, width) part of all images."""
    top, left = (
        int(rng.integers(full - side + 1)) for side, full in zip((height, width), images.shape[2:], strict=True)
    )
    return images[:, :, top : top + height, left : left + width]


def add_noise(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Add Gaussian noise, colored or gray, at a random scale and strength."""
    b, _, h, w = images.shape
    scale = int(rng.choice([1, 1, 2, 4, 8]))
    noise = torch.from_numpy(rng.standard_normal((b, int(rng.choice([1, 3])), h // scale, w // scale), np.float32))
    noise = F.interpolate(noise, size=(h, w), mode=str(rng.choice(["nearest", "bilinear"])))
    return (images + noise * float(rng.uniform(0.02, 0.3))).clamp(0, 1)


def in_bfloat16(student: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """Return the student's features, computed in bfloat16 as in training, with gradients for its float32 weights."""
    weights = {name: weight.bfloat16() for name, weight in student.named_parameters()}
    features: dict[str, Tensor] = torch.func.functional_call(student, weights, (batch,))
    return {name: value.float() for name, value in features.items()}


@torch.no_grad()
def teacher_features(vgg: LossNetwork, images: Tensor) -> dict[str, Tensor]:
    """Return VGG-16's features of (B, 3, H, W), computed in bfloat16."""
    return {name: features.float() for name, features in vgg(images).items()}


def relative_error(error: Tensor, reference: Tensor) -> Tensor:
    """Divide the squared norm of each item's error by that of its reference: two (B, …) -> (B,)."""
    return error.flatten(1).square().sum(1) / reference.flatten(1).square().sum(1).clamp_min(1e-8)


def errors(
    student: dict[str, Tensor],
    teacher: dict[str, Tensor],
    student_style: dict[str, Tensor],
    teacher_style: dict[str, Tensor],
) -> dict[str, dict[str, Tensor]]:
    """Return the student's relative squared errors by kind and layer, each (B,).

    Kinds: "features", "Grams", and the "direction" from an image's Gram to that of the style, in which an error that
    both Grams share cancels. The arguments are the features of images and of the style.
    """
    result: dict[str, dict[str, Tensor]] = {"features": {}, "Grams": {}, "direction": {}}
    for name, reference in teacher.items():
        result["features"][name] = relative_error(student[name] - reference, reference)
        student_gram, teacher_gram = gram(student[name]), gram(reference)
        result["Grams"][name] = relative_error(student_gram - teacher_gram, teacher_gram)
        student_direction = student_gram - gram(student_style[name])
        teacher_direction = teacher_gram - gram(teacher_style[name])
        result["direction"][name] = relative_error(
            student_direction - teacher_direction, gram(teacher_style[name]).expand_as(student_direction)
        )
    return result


def distill(arguments: argparse.Namespace) -> None:
    """Distill VGG-16 with the command's arguments, and save the student every 200 steps."""
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
    styles = [image.to_tensor(image.resize_shorter(image.open_picture(path).rgb, 288))
              for path in list_pictures(arguments.styles, "--styles")]  # fmt: skip
    full_photographs = [image.to_tensor(image.resize_shorter(picture, 288))
                        for i in range(0, len(folder), 2) if (picture := folder[i])]  # fmt: skip
    student = low_rank(vgg, [*styles, *full_photographs[::3]], NARROW, RANKS, rng)
    student.requires_grad_(True)
    vgg.to(torch.bfloat16)
    recipe: dict[str, Any] = {
        "narrow": NARROW, "ranks": RANKS,
        "made_by": "scripts/assets/distill.py", "package_version": fast_nst.__version__,
        "teacher": "VGG-16 by Karen Simonyan and Andrew Zisserman (2014), CC BY 4.0; changed: distilled",
        "teacher_sha256": sha256(arguments.vgg), "photographs": len(folder), "paintings": len(styles),
        "seed": arguments.seed,
        "of_steps": arguments.steps,
    }  # fmt: skip
    optimizer = Muon(student, arguments.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, "cosine", 50, arguments.steps)
    )
    # Up to a third of the styles are photographs, because not every user's style is a painting.
    pool = OnPolicyPool(student, [*styles, *styles, *full_photographs[: len(styles)]], rng)
    averages: dict[str, dict[str, float]] = {}
    started = time.monotonic()
    for step in range(arguments.steps):
        network = pool.next(step, student)
        content = torch.stack([synthetic[2 * step], photographs[2 * step]])
        output = network.step(content)
        blend = torch.lerp(output, content, torch.from_numpy(rng.uniform(0, 1, (2, 1, 1, 1))).float())
        style_crop = crop(styles[int(rng.integers(len(styles)))], SIDE, SIDE, rng)
        batch = torch.cat([output, photographs[2 * step + 1][None], add_noise(blend, rng)[:1], blend[1:], style_crop])
        divisor = (1, 2, 1, 4)[step % 4]
        batch = crop(batch, CROP, CROP, rng) if divisor == 1 else F.avg_pool2d(batch, divisor)
        style = F.avg_pool2d(network.loss.styles[0], divisor)
        batch_errors = errors(
            in_bfloat16(student, batch), teacher_features(vgg, batch),
            in_bfloat16(student, style), teacher_features(vgg, style),
        )  # fmt: skip
        weights = {"features": 4.0, "Grams": 1.0, "direction": step / arguments.steps}
        loss = torch.zeros(())
        for kind, by_layer in batch_errors.items():
            for values in by_layer.values():
                # The root keeps one image with a large error from dominating the batch.
                loss = loss + weights[kind] * (values.mean() if kind == "features" else (values + 1e-4).sqrt().mean())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        for kind, by_layer in batch_errors.items():
            for name, values in by_layer.items():
                row, value = averages.setdefault(f"{kind} / {divisor}", {}), float(values[:2].detach().mean())
                row[name] = 0.95 * row.get(name, value) + 0.05 * value
        done = step + 1
        if done % 50 == 0 or done == arguments.steps:
            rate = done / (time.monotonic() - started)
            text = "  ".join(f"{kind} " + " ".join(f"{v:.3f}" for v in row.values()) for kind, row in averages.items())
            print(f"step {done}/{arguments.steps}  {rate:.2f} step/s  {text}", file=sys.stderr, flush=True)
        if done % 200 == 0 or done == arguments.steps:
            with atomic_write(arguments.output) as temporary:
                compact.save(temporary, student, {**recipe, "steps": done, "relative_errors_of_outputs": averages})
    print(arguments.output)


def main() -> None:
    parser = cli.Parser(description="Distill VGG-16 into the compact loss network.")
    parser.add_argument(
        "--vgg", required=True, metavar="FILE", help="VGG-16 in torchvision's layout, at least up to relu4_3"
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
    keep_freed_memory()
    check_int("--steps", arguments.steps, 1)
    check_number("--learning-rate", arguments.learning_rate, 0)
    distill(arguments)


if __name__ == "__main__":
    cli.run(main)
