"""Distil VGG-19 into `compact`, the loss network that ships with the package.

python scripts/distill.py --vgg vgg19.safetensors --photographs photographs/

Each student of an ensemble reproduces VGG-19's relu1_2, relu2_2, relu3_2 and relu3_4 in a reduced basis: the leading
uncentred principal components of each layer's activations, scaled to unit mean square. Photographs alone are not
enough: an image transformation network trained against such students finds what they do not see, woven patterns of
high frequency. So they learn on policy: while they learn, a handful of networks train against them, each for a painting
of its own, as long as a real run does or a tenth of it, and the students see what those paint, blends of that with the
photographs, and noise at several scales, all of it mirrored and transposed as a training sees it, and besides at a half
or a quarter of the size, as the losses see it. Where students and VGG-19 disagree about a Gram is where such a network
goes, so the errors of Grams count beside those of features, and, more and more, how wrong the students are about the
way from what a network paints to its own painting. Steps and seed determine the result (for one torch and number of
threads).

What small students cannot see, all of them miss alike. So a reference goes with them that a training asks now and then:
VGG-19's own weights, what each convolution takes and what it gives projected on their leading principal components, and
then trained on what the students see.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import command
import numpy as np
import torch
import torch.nn.functional as F
from bases import OUTPUTS, RANKS, Targets, find_bases, make_reference
from building import read_vgg19
from safetensors import SafetensorError
from safetensors.torch import load_file
from student_errors import PAINTED, Tally, feature_errors, gram_errors, grams_of, way_errors
from studio import CROP, SEEN, STROKES, Replay, Studio, crop_of, student_batch
from torch import Tensor, nn

import fast_nst
from fast_nst import image, machine
from fast_nst.data.content import ContentImages
from fast_nst.data.folder import Folder, list_pictures
from fast_nst.data.leaves import Leaves
from fast_nst.loss_networks import compact
from fast_nst.losses.views import VIEWS, look
from fast_nst.training.module import learning_rate_factor
from fast_nst.training.muon import Muon
from fast_nst.validate import Invalid, number, whole_number
from fast_nst.weights import sha256

MEMBERS, WIDTH = 2, 64
REFERENCE_RATE = 0.002  # its learning rate


def in_bfloat16(student: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """What the student will be asked for: its outputs computed in bfloat16, with gradients for its float32 weights."""
    weights = {name: weight.bfloat16() for name, weight in student.named_parameters()}
    found: dict[str, Tensor] = torch.func.functional_call(student, weights, (batch,))
    return {name: value.float() for name, value in found.items()}


@torch.no_grad()
def new_ensemble() -> compact.Ensemble:
    """Students with random weights."""
    ensemble = compact.Ensemble(MEMBERS, WIDTH, OUTPUTS)
    for module in ensemble.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            if isinstance(module, compact.Residual):
                module.weight.mul_(0.2)  # it adds little at first
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)  # outputs begin small, errors at 1
            nn.init.zeros_(module.bias)
    return ensemble.requires_grad_(True)


@torch.no_grad()
def started_from(path: Path, targets: Targets, batches: list[Tensor]) -> compact.Ensemble:
    """The first `MEMBERS` students of the file `path`, with the heads that on `batches` give the least squared error:
    bases need not be those that the file was made for."""
    ensemble = new_ensemble()
    wanted = [targets(batch) for batch in batches]
    for member, student in enumerate(ensemble.students):
        assert isinstance(student, compact.Student)
        prefix = f"students.{member}.features."
        try:
            state = {k.removeprefix(prefix): v for k, v in load_file(path).items() if k.startswith(prefix)}
            student.features.load_state_dict(state)
        except (SafetensorError, OSError, RuntimeError):
            raise Invalid(f"--start: {path}: not a file of this script with {MEMBERS} students {WIDTH} wide") from None
        heads, student.heads = student.heads, nn.ModuleDict()
        tapped = [student(batch) for batch in batches]
        student.heads = heads
        for name, head in heads.items():
            assert isinstance(head, nn.Linear)
            rows = torch.cat([found[name].flatten(2).transpose(1, 2).flatten(0, 1) for found in tapped]).double()
            rows = F.pad(rows, (0, 1), value=1.0)
            there = [compact.held(found[name], name, member) for found in wanted]
            goal = torch.cat([x.flatten(2).transpose(1, 2).flatten(0, 1) for x in there]).double()
            solution = torch.linalg.lstsq(rows.T @ rows, rows.T @ goal).solution
            head.weight.copy_(solution[:-1].T)
            head.bias.copy_(solution[-1])
    return ensemble


def root(errors: Tensor) -> Tensor:
    """The mean of their square roots: a picture that is far off does not drown the rest."""
    return (errors + 1e-4).sqrt().mean()


def distill(arguments: argparse.Namespace) -> None:
    rng = np.random.default_rng(arguments.seed)
    torch.manual_seed(arguments.seed)
    teacher = read_vgg19(OUTPUTS, arguments.vgg)
    folder = Folder(arguments.photographs, shorter=2 * CROP, cache_mib=2048, name="--photographs")
    photographs = ContentImages(folder, list(range(len(folder))), CROP, seed=arguments.seed)
    leaves = ContentImages(Leaves(400, 2 * CROP, arguments.seed), list(range(400)), CROP, seed=arguments.seed)
    styles = [image.to_tensor(image.resize_shorter(image.open_picture(path).rgb, 256))
              for path in list_pictures(arguments.styles, "--styles")]  # fmt: skip
    whole = [
        image.to_tensor(image.resize_shorter(picture, 256)) for i in range(0, len(folder), 2) if (picture := folder[i])
    ]
    bases, shares = find_bases(teacher, [*styles, *whole])
    print("share of the Gram's squared norm kept:", {k: round(v, 4) for k, v in shares.items()}, file=sys.stderr)
    reference = make_reference(teacher, bases, [*styles, *whole[::8]]).requires_grad_(True)
    targets = Targets(teacher.to(torch.bfloat16), bases)
    recipe: dict[str, Any] = {
        "members": MEMBERS, "width": WIDTH, "outputs": OUTPUTS, "ranks": RANKS, "made_by": "scripts/distill.py",
        "package_version": fast_nst.__version__, "teacher": "VGG-19 (Simonyan and Zisserman 2014, CC BY 4.0)",
        "teacher_sha256": sha256(arguments.vgg), "photographs": len(folder), "styles": len(styles),
        "seed": arguments.seed, "started_from": None if arguments.start is None else sha256(arguments.start),
        "of_steps": arguments.steps, "gram_share_kept": shares,
    }  # fmt: skip

    if arguments.start is None:
        ensemble = new_ensemble()
    else:
        ensemble = started_from(arguments.start, targets, [x[:, :, :256, :256] for x in (*styles, *whole[::8])])
    optimizers = Muon(ensemble, arguments.learning_rate), Muon(reference, REFERENCE_RATE)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(x, lambda step: learning_rate_factor(step, "cosine", 100, arguments.steps))
        for x in optimizers
    ]
    studio, replay, tally = Studio(ensemble, styles, whole, rng), Replay(rng), Tally()
    begun = time.monotonic()
    for step in range(arguments.steps):
        painter = studio.turn(step, ensemble)
        for i in range(STROKES * step, STROKES * (step + 1)):
            x = torch.stack([leaves[2 * i], leaves[2 * i + 1], photographs[2 * i], photographs[2 * i + 1]])
            painted = painter.step(x)
        pieces = [crop_of(pool[int(rng.integers(len(pool)))], rng, CROP) for pool in (styles, whole)]
        batch = torch.cat([student_batch(x, painted, pieces, rng), replay.swap(painted)])
        batch = crop_of(batch, rng, SEEN)  # a training sees the painters' lattice in every phase
        view = int(rng.integers(VIEWS))
        batch, painting = look(batch, view), look(painter.loss.style_image, view)  # as a training looks at them
        for optimizer in optimizers:
            optimizer.zero_grad()
        for divisor in (1, 2 if step % 2 else 4):  # and at these sizes: most of a small picture lies next to its border
            small, small_painting = (F.avg_pool2d(x, divisor) for x in (batch, painting))
            wanted, wanted_painting = targets(small), targets(small_painting)
            for member, learner in enumerate([*ensemble.students, reference]):
                there, there_painting = (
                    x if learner is reference else {name: compact.held(x[name], name, member) for name in x}
                    for x in (wanted, wanted_painting)
                )
                found = in_bfloat16(learner, small)
                grams = grams_of(found, there)
                painted_grams = {name: (ours[PAINTED], theirs[PAINTED]) for name, (ours, theirs) in grams.items()}
                goal = grams_of(in_bfloat16(learner, small_painting), there_painting)
                kinds = feature_errors(found, there), gram_errors(grams), way_errors(painted_grams, goal)
                loss: Tensor = sum(
                    4 * features.mean() + root(whole) + step / arguments.steps * root(way)
                    for features, whole, way in zip(*(kind.values() for kind in kinds), strict=True)
                )
                loss.backward()
                tally.add("reference" if learner is reference else "students", divisor, *kinds)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        done = step + 1
        if done % 100 == 0 or done == arguments.steps:
            means, tally = tally.means(), Tally()
            rate = done / (time.monotonic() - begun)
            text = "  ".join(
                f"{whose}: {kind} " + " ".join(f"{value:.3f}" for value in row.values())
                for whose, rows in means.items()
                for kind, row in rows.items()
                if kind.startswith(("painted", "way"))
            )
            print(f"step {done}/{arguments.steps}  {rate:.2f} step/s  {text}", file=sys.stderr, flush=True)
        if done % 1000 == 0 or done == arguments.steps:
            with image.replacing(arguments.output) as temporary:
                whole_of_it = compact.Ensemble(MEMBERS, WIDTH, OUTPUTS, RANKS)
                whole_of_it.students.load_state_dict(ensemble.students.state_dict())
                whole_of_it.reference.load_state_dict(reference.state_dict())
                compact.save(temporary, whole_of_it, {**recipe, "steps": done, "relative_errors": means})
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
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--learning-rate", type=float, default=0.02)
    parser.add_argument(
        "--start",
        type=Path,
        metavar="FILE",
        help="a file of this script, to go on from its students; their heads are fitted anew",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, default=compact.ASSET, metavar="FILE")
    arguments = parser.parse_args()
    machine.keep_memory()
    whole_number("--steps", arguments.steps, 1)
    number("--learning-rate", arguments.learning_rate, 0)
    distill(arguments)


if __name__ == "__main__":
    command.run(main)
