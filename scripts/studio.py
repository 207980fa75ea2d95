"""What the students of scripts/distill.py see: photographs, what networks in training against them paint, and noise."""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from building import loss_settings, optimizer_settings
from torch import Tensor

from fast_nst import networks
from fast_nst.loss_networks import LossNetwork, compact
from fast_nst.losses import PerceptualLoss
from fast_nst.training.module import learning_rate_factor
from fast_nst.training.muon import Muon

CROP, SEEN = 132, 112  # pixels a side of what is painted, and of what students see of that
PAINTERS, LIVES, REFRESH = 4, (300, 3000), 100  # networks at a time, their lengths, steps between copies for them
STROKES = 2  # steps of one of them to a step of the students
ROOM = 512


class Painter:
    """An image transformation network in training against the students, for one painting, for `life` steps."""

    def __init__(self, painting: Tensor, students: LossNetwork, life: int, rng: np.random.Generator) -> None:
        torch.manual_seed(int(rng.integers(2**31)))
        self.network = networks.build("slim", width=int(rng.choice([24, 32, 32])))
        self.network.to(memory_format=torch.channels_last)
        muon = optimizer_settings()
        self.optimizer = Muon(self.network, muon["learning_rate"])
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, muon["schedule"], muon["warmup_steps"], life)
        )
        self.left = life
        weight = math.exp(rng.uniform(math.log(4), math.log(40)))
        loss = {**loss_settings(), "style_weight": weight}
        self.loss = PerceptualLoss(students, painting, **loss).to("cpu", torch.bfloat16)

    def step(self, photographs: Tensor) -> Tensor:
        """One step of training; what it painted, (B, 3, H, W)."""
        self.left -= 1
        with torch.autocast("cpu", torch.bfloat16):
            painted = self.network(photographs)
        self.optimizer.zero_grad()
        self.loss.sampled(painted, photographs)["loss"].backward()
        self.optimizer.step()
        self.schedule.step()
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


def crop_of(pictures: Tensor, rng: np.random.Generator, side: int) -> Tensor:
    top, left = (int(rng.integers(whole - side + 1)) for whole in pictures.shape[2:])
    return pictures[:, :, top : top + side, left : left + side]


def detail_of(painting: Tensor, rng: np.random.Generator) -> Tensor:
    """A part of it at a scale of 3/4 to 4/3, its sides multiples of 16 from 144 to 256 px."""
    tall, wide = (16 * int(rng.integers(9, 17)) for _ in range(2))
    scale = math.exp(rng.uniform(math.log(0.75), math.log(4 / 3)))
    h, w = (min(round(side / scale), whole) for side, whole in zip((tall, wide), painting.shape[2:], strict=True))
    top, left = (int(rng.integers(whole - side + 1)) for side, whole in zip((h, w), painting.shape[2:], strict=True))
    part = painting[:, :, top : top + h, left : left + w]
    return F.interpolate(part, size=(tall, wide), mode="bicubic", antialias=True).clamp(0, 1)


class Studio:
    """PAINTERS at work, each replaced by a new one at the end of its life. They train against a copy of the students in
    bfloat16, brought up to date now and then: a painter needs something to settle against."""

    def __init__(
        self, ensemble: compact.Ensemble, styles: list[Tensor], whole: list[Tensor], rng: np.random.Generator
    ) -> None:
        self.students = copy.deepcopy(ensemble).requires_grad_(False)
        self.styles, self.whole, self.rng = styles, whole, rng
        self.painters = [self.newcomer() for _ in range(PAINTERS)]

    def newcomer(self) -> Painter:
        life = round(math.exp(self.rng.uniform(math.log(LIVES[0]), math.log(LIVES[1]))))
        # A photograph serves as a painting now and then: not every style is a painting.
        pool = self.whole if self.rng.random() < 0.35 else self.styles
        painting = pool[int(self.rng.integers(len(pool)))]
        painting = detail_of(painting, self.rng)
        if self.rng.random() < 0.5:
            painting = painting[:, torch.from_numpy(self.rng.permutation(3))]
        if self.rng.random() < 0.3:
            painting = 1 - painting
        if self.rng.random() < 0.5:
            painting = painting ** math.exp(self.rng.uniform(-0.7, 0.7))
        return Painter(painting, self.students, life, self.rng)

    def turn(self, step: int, ensemble: compact.Ensemble) -> Painter:
        """Whose turn it is."""
        who = step % PAINTERS
        if self.painters[who].left <= 0:
            self.painters[who] = self.newcomer()
        if step % REFRESH == 0:
            self.students.load_state_dict(ensemble.state_dict())
            for painter in self.painters:
                painter.loss.to("cpu", torch.bfloat16)  # the painting as the students see it now
        return self.painters[who]
