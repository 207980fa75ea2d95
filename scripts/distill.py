"""Distil VGG-19 into `compact`, the loss network that ships with the package.

python scripts/distill.py --vgg vgg19.safetensors --photographs photographs/

Each student of an ensemble reproduces VGG-19's relu1_2, relu2_2, relu3_2 and relu3_4 in a reduced basis: the leading
uncentred principal components of each layer's activations, scaled to unit mean square. Photographs alone are not
enough: an image transformation network trained against such students finds what they do not see, woven patterns of
high frequency. So they learn on policy: while they learn, a handful of networks train against them, each for a painting
of its own, as long as a real run does or a tenth of it, and the students see what those paint, blends of that with the
photographs, and noise at several scales, all of it mirrored and transposed as a training sees it. Where students and
VGG-19 disagree about a Gram is where such a network goes, so Grams weigh more than features. Steps and seed determine
the result (for one torch and number of threads).
"""

import argparse
import copy
import json
import math
import sys
import time
from pathlib import Path
from typing import NamedTuple

import command
import numpy as np
import torch
import torch.nn.functional as F
from building import loss_settings
from torch import Tensor, nn

import fast_nst
from fast_nst import image, loss_networks, machine, networks
from fast_nst.data.content import ContentImages
from fast_nst.data.folder import Folder, list_pictures
from fast_nst.data.leaves import Leaves
from fast_nst.loss_networks import LossNetwork, compact
from fast_nst.losses import PerceptualLoss
from fast_nst.losses.functional import gram
from fast_nst.losses.views import VIEWS, look
from fast_nst.validate import number, whole_number
from fast_nst.weights import sha256

MEMBERS, WIDTH = 4, 64
OUTPUTS = {"relu1_2": 24, "relu2_2": 48, "relu3_2": 64, "relu3_4": 64}
CROP = 128
PAINTERS, LIVES, REFRESH = 4, (300, 3000), 100  # networks at a time, their lengths, steps between copies for them
STROKES = 3  # steps of one of them to a step of the students
ROOM = 512


class Targets(NamedTuple):
    """The teacher, and for each layer the (K, C) matrix that takes its activations to the students' output."""

    teacher: LossNetwork
    bases: dict[str, Tensor]

    @torch.no_grad()
    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        found = self.teacher(x)
        return {name: F.conv2d(found[name], basis.to(found[name].dtype)[:, :, None, None]).float()
                for name, basis in self.bases.items()}  # fmt: skip


def positions(target: Tensor, like: Tensor, member: int) -> Tensor:
    """Those positions of the teacher's output that a member's output, `like`, holds."""
    step = target.shape[2] // like.shape[2]
    down, right = compact.offset(member) if step > 1 else (0, 0)
    return target[:, :, down::step, right::step]


def principal_basis(moment: Tensor, components: int) -> tuple[Tensor, float]:
    """The leading eigenvectors (K, C) of an uncentred second moment (C, C), scaled so that the outputs have a mean
    square of 1; and the share of the Gram's squared norm that they keep."""
    values, vectors = torch.linalg.eigh(moment.double())
    kept = values[-components:]
    share = float(kept.square().sum() / values.square().sum())
    scale = (kept.sum() / components).rsqrt()
    return (vectors[:, -components:].T.flip(0) * scale).float(), share


@torch.no_grad()
def find_bases(teacher: LossNetwork, batches: list[Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
    moments: dict[str, Tensor] = {}
    for batch in batches:
        for name, found in teacher(batch).items():
            flat = found.flatten(2).double()
            moments[name] = moments.get(name, 0) + (flat @ flat.transpose(1, 2)).mean(0) / flat.shape[2]
    found = {name: principal_basis(moments[name], OUTPUTS[name]) for name in OUTPUTS}
    return {name: basis for name, (basis, _) in found.items()}, {name: share for name, (_, share) in found.items()}


class Painter:
    """An image transformation network in training against the students, for one painting, for `life` steps."""

    def __init__(self, painting: Tensor, students: LossNetwork, life: int, rng: np.random.Generator) -> None:
        torch.manual_seed(int(rng.integers(2**31)))
        self.network = networks.build("slim", width=int(rng.choice([24, 32, 32])))
        self.optimizer = torch.optim.Adam(self.network.parameters(), fused=True)
        self.life = self.left = life
        weight = math.exp(rng.uniform(math.log(4), math.log(40)))
        loss = {**loss_settings(), "style_weight": weight}
        self.loss = PerceptualLoss(students, painting, **loss).to("cpu", torch.bfloat16)

    def step(self, photographs: Tensor) -> Tensor:
        """One step of training; what it painted, (B, 3, H, W)."""
        self.left -= 1
        for group in self.optimizer.param_groups:
            group["lr"] = 2e-3 * (0.5 - 0.5 * math.cos(math.pi * (self.left + 1) / self.life))
        with torch.autocast("cpu", torch.bfloat16):
            painted = self.network(photographs)
        self.optimizer.zero_grad()
        self.loss(painted, photographs, view=self.loss.random_view())["loss"].backward()
        self.optimizer.step()
        return painted.detach()


def noise_like(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Gaussian noise at a random scale and strength, coloured or grey, of the shape of `x`."""
    b, _, h, w = x.shape
    scale = int(rng.choice([1, 1, 2, 4, 8]))
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    small = torch.randn(b, int(rng.choice([1, 3])), h // scale, w // scale, generator=generator)
    mode = str(rng.choice(["nearest", "bilinear"]))
    return F.interpolate(small, size=(h, w), mode=mode).expand(b, 3, h, w) * float(rng.uniform(0.02, 0.3))


class Replay:
    """What the painters have painted of late, ROOM images, so that nothing of it is forgotten."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.images: list[Tensor] = []
        self.rng = rng

    def swap(self, painted: Tensor) -> Tensor:
        """As many old images as `painted` holds, (B, 3, H, W), for those."""
        old = (
            [self.images[int(i)] for i in self.rng.integers(len(self.images), size=len(painted))] if self.images else []
        )
        for item in painted:
            if len(self.images) < ROOM:
                self.images.append(item)
            else:
                self.images[int(self.rng.integers(ROOM))] = item
        return torch.stack(old) if old else painted


def student_batch(photographs: Tensor, painted: Tensor, styles: list[Tensor], rng: np.random.Generator) -> Tensor:
    """Photographs, what a network made of them, blends of both, all of these with noise, and pieces of paintings."""
    share = torch.from_numpy(rng.uniform(-0.3, 1.0, (len(painted), 1, 1, 1))).float()  # below 0: exaggerated
    blends = torch.lerp(painted, photographs, share)[:2]
    noisy = torch.cat([photographs[:1], painted[-1:]])
    return torch.cat([photographs[2:], painted, blends, noisy + noise_like(noisy, rng), *styles])


def in_bfloat16(student: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """What the student will be asked for: its outputs computed in bfloat16, with gradients for its float32 weights."""
    weights = {name: weight.bfloat16() for name, weight in student.named_parameters()}
    found: dict[str, Tensor] = torch.func.functional_call(student, weights, (batch,))
    return {name: value.float() for name, value in found.items()}


def errors(
    found: dict[str, Tensor], targets: dict[str, Tensor], member: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Relative squared errors of a member's features and of their Grams by layer, each (B,)."""
    features, grams = {}, {}
    for name, whole in targets.items():
        target = positions(whole, found[name], member)
        energy = target.square().mean((1, 2, 3)).clamp_min(1e-3)
        features[name] = (found[name] - target).square().mean((1, 2, 3)) / energy
        ours, theirs = gram(found[name]), gram(target)
        grams[name] = (ours - theirs).square().sum((1, 2)) / theirs.square().sum((1, 2)).clamp_min(1e-8)
    return features, grams


def crop_of(painting: Tensor, rng: np.random.Generator) -> Tensor:
    top, left = (int(rng.integers(side - CROP + 1)) for side in painting.shape[2:])
    return painting[:, :, top : top + CROP, left : left + CROP]


def distill(arguments: argparse.Namespace) -> None:
    rng = np.random.default_rng(arguments.seed)
    torch.manual_seed(arguments.seed)
    teacher = loss_networks.build("vgg19", OUTPUTS, arguments.vgg)
    folder = Folder(arguments.photographs, shorter=2 * CROP, cache_mib=2048)
    photographs = ContentImages(folder, list(range(len(folder))), CROP, seed=arguments.seed)
    leaves = ContentImages(Leaves(400, 2 * CROP, arguments.seed), list(range(400)), CROP, seed=arguments.seed)
    styles = [image.to_tensor(image.resize_shorter(image.open_picture(path).rgb, 256))
              for path in list_pictures(arguments.styles, "--styles")]  # fmt: skip
    whole = [
        image.to_tensor(image.resize_shorter(picture, 256)) for i in range(0, len(folder), 2) if (picture := folder[i])
    ]
    bases, shares = find_bases(teacher, [*styles, *whole])
    print("share of the Gram's squared norm kept:", {k: round(v, 4) for k, v in shares.items()}, file=sys.stderr)
    targets = Targets(teacher.to(torch.bfloat16), bases)

    ensemble = compact.Ensemble(MEMBERS, WIDTH, OUTPUTS)
    for module in ensemble.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)  # outputs begin small, errors at 1
            nn.init.zeros_(module.bias)
    if arguments.start is not None:
        ensemble.load_state_dict(loss_networks.build("compact", OUTPUTS, arguments.start).state_dict())
    quick = copy.deepcopy(ensemble)  # the same in bfloat16, for the painters
    ensemble.requires_grad_(True)
    optimizer = torch.optim.Adam(ensemble.parameters(), fused=True)

    def birth(life: int) -> Painter:
        # A photograph serves as a painting now and then: not every style is a painting.
        pool = whole if rng.random() < 0.35 else styles
        painting = pool[int(rng.integers(len(pool)))]
        if rng.random() < 0.5:
            painting = painting[:, torch.from_numpy(rng.permutation(3))]
        if rng.random() < 0.3:
            painting = 1 - painting
        return Painter(painting, quick, life, rng)

    def life() -> int:
        return round(math.exp(rng.uniform(math.log(LIVES[0]), math.log(LIVES[1]))))

    replay = Replay(rng)
    painters = [birth(life()) for _ in range(PAINTERS)]
    start = None if arguments.start is None else sha256(arguments.start)
    begun, sums, count = time.monotonic(), {}, 0  # type: ignore[var-annotated]
    for step in range(arguments.steps):
        for group in optimizer.param_groups:
            group["lr"] = (
                arguments.learning_rate
                * min(1, (step + 1) / 100)
                * (0.5 + 0.5 * math.cos(math.pi * step / arguments.steps))
            )
        who = step % PAINTERS
        if painters[who].left <= 0:
            painters[who] = birth(life())
        if step % REFRESH == 0:
            quick.load_state_dict(ensemble.state_dict())
            for painter in painters:
                painter.loss.to("cpu", torch.bfloat16)  # the painting as the students see it now
        for i in range(STROKES * step, STROKES * (step + 1)):
            x = torch.stack([leaves[2 * i], leaves[2 * i + 1], photographs[2 * i], photographs[2 * i + 1]])
            painted = painters[who].step(x)
        pieces = [crop_of(pool[int(rng.integers(len(pool)))], rng) for pool in (styles, whole)]
        batch = torch.cat([student_batch(x, painted, pieces, rng), replay.swap(painted)])
        if step % 4 == 3:
            batch = F.avg_pool2d(batch, 2 if step % 8 == 3 else 4)
        batch = look(batch, int(rng.integers(VIEWS)))  # as a training looks at it
        wanted = targets(batch)
        optimizer.zero_grad()
        for member, student in enumerate(ensemble.students):
            features, grams = errors(in_bfloat16(student, batch), wanted, member)
            # The root: a picture that is far off does not drown the rest.
            loss = sum(features[n].mean() + (grams[n] + 1e-4).sqrt().mean() for n in OUTPUTS)
            loss.backward()  # type: ignore[union-attr]
            nn.utils.clip_grad_norm_(student.parameters(), 5.0)
            for name in OUTPUTS:
                kinds = {"photographs": features[name][:2], "painted": features[name][2:6], "Gram": grams[name][2:6]}
                for kind, value in kinds.items():
                    sums[kind, name] = sums.get((kind, name), 0) + value.detach().mean() / MEMBERS
        optimizer.step()
        count += 1
        if (step + 1) % 100 == 0 or step + 1 == arguments.steps:
            rate = (step + 1) / (time.monotonic() - begun)
            text = "  ".join(
                f"{kind} " + " ".join(f"{float(sums[kind, n]) / count:.3f}" for n in OUTPUTS)
                for kind in ("photographs", "painted", "Gram")
            )
            print(f"step {step + 1}/{arguments.steps}  {rate:.2f} step/s  {text}", file=sys.stderr, flush=True)
            final = {f"{kind} {name}": round(float(v) / count, 4) for (kind, name), v in sums.items()}
            sums, count = {}, 0
        if (step + 1) % 1000 == 0 or step + 1 == arguments.steps:
            recipe = {
                "members": MEMBERS, "width": WIDTH, "outputs": OUTPUTS, "made_by": "scripts/distill.py",
                "package_version": fast_nst.__version__, "teacher": "VGG-19 (Simonyan and Zisserman 2014, CC BY 4.0)",
                "teacher_sha256": sha256(arguments.vgg), "photographs": len(folder), "styles": len(styles),
                "seed": arguments.seed, "started_from": start, "steps": step + 1, "of_steps": arguments.steps,
                "gram_share_kept": shares, "relative_errors": final,
            }  # fmt: skip
            with image.replacing(arguments.output) as temporary:
                compact.save(temporary, ensemble, recipe)
    print(json.dumps(final), file=sys.stderr)
    print(arguments.output)


def main() -> None:
    parser = command.Parser(description="Distil VGG-19 into the compact loss network.")
    parser.add_argument(
        "--vgg", required=True, metavar="FILE", help="VGG-19 in torchvision's layout, up to relu3_4 or on"
    )
    parser.add_argument("--photographs", required=True, metavar="DIR")
    parser.add_argument(
        "--styles", default=compact.ASSET.parent / "styles", metavar="DIR", help="paintings (default: the package's)"
    )
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--start", type=Path, metavar="FILE", help="an ensemble of this script to go on from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=compact.ASSET, metavar="FILE")
    arguments = parser.parse_args()
    machine.keep_memory()
    whole_number("--steps", arguments.steps, 1)
    number("--learning-rate", arguments.learning_rate, 0)
    distill(arguments)


if __name__ == "__main__":
    command.run(main)
