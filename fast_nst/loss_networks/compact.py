"""`compact`: VGG-19 up to relu3_4, distilled into an ensemble of narrow networks that ships with the package.

Each output stands in for VGG-19's layer of that name in a reduced orthonormal basis (the leading uncentred principal
components of its activations), in which squared distances of features and of Grams are those of VGG-19 up to the part
cut off. Content and relative style losses on it therefore mean what they mean on VGG-19. scripts/distill.py makes it.

A member computes everything at a quarter of the image's size, where VGG-19 has its relu3: of relu1_2 and relu2_2 an
output holds every fourth and every second position. What one member does not see, another does: a training asks a
random one. What none of them sees, the reference does, VGG-19's own convolutions at a low rank: several times as slow,
so that a training asks it now and then by how much the members' Grams are off (`PerceptualLoss.correct`), and goes by
it at full size in as many of its last steps as `loss.finish` says, by default none.
"""

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_nst.loss_networks.network import Features, LossNetwork, check_layers
from fast_nst.loss_networks.vgg import MEAN, STD
from fast_nst.state import check_readable
from fast_nst.validate import Invalid

ASSET = Path(str(files("fast_nst"))) / "assets" / "compact.safetensors"
VGG_19 = {  # its convolutions' outputs and their channels, up to the deepest that `compact` has
    "relu1_1": 64, "relu1_2": 64, "relu2_1": 128, "relu2_2": 128,
    "relu3_1": 256, "relu3_2": 256, "relu3_3": 256, "relu3_4": 256,
}  # fmt: skip
TAPS = {0: "relu1_2", 2: "relu2_2", 3: "relu3_2", 4: "relu3_4"}
FOLD = 4
EVERY = {"relu1_2": 4, "relu2_2": 2}  # of how many of the teacher's positions a side a member's output holds one
_KEY = "fast_nst_loss_network"


class Residual(nn.Conv2d):
    """x + a 3x3 convolution of ReLU(x)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.relu(x)).add_(x)


class Student(Features):
    """Five convolutions, `width` wide, on the image folded into blocks of 4 x 4 pixels.

    outputs: {layer name of VGG-19, one of `TAPS`: width of its linear head}.
    """

    def __init__(self, width: int, outputs: Mapping[str, int]) -> None:
        first = nn.Sequential(nn.Conv2d(3 * FOLD**2, width, 3, padding=1), nn.ReLU())
        layers = [first, *(Residual(width) for _ in range(max(TAPS)))]
        taps = {index: name for index, name in TAPS.items() if name in outputs}
        heads = {name: nn.Linear(width, outputs[name]) for name in taps.values()}
        super().__init__(nn.Sequential(*layers), taps, MEAN, STD, heads)

    def normalize(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 48, H/4, W/4), what is missing in a block repeated from the border; all of it
        in the network's own precision, for these passes over whole images count."""
        if image.shape[2] % FOLD or image.shape[3] % FOLD:
            image = F.pad(image, (0, -image.shape[3] % FOLD, 0, -image.shape[2] % FOLD), mode="replicate")
        dtype = next(self.parameters()).dtype
        x = (image.to(dtype) - self.get_buffer("mean").to(dtype)) / self.get_buffer("std").to(dtype)
        b, c, h, w = x.shape
        rows = x.view(b, c, h // FOLD, FOLD, w).transpose(1, 2)  # one at a time: both at once take longer
        blocks = rows.reshape(b, h // FOLD, c * FOLD, w // FOLD, FOLD).transpose(2, 3)
        return blocks.reshape(b, h // FOLD, w // FOLD, c * FOLD**2).permute(0, 3, 1, 2)


def low_rank_vgg(ranks: Sequence[Sequence[int]], outputs: Mapping[str, int]) -> Features:
    """VGG-19 up to relu3_4, with linear heads to `outputs`; each convolution but the first is one from `ranks`' (R, S)
    R to S channels between two 1x1 convolutions, the Tucker decomposition of its kernel; weights random."""
    modules: list[nn.Module] = []
    taps, heads = {}, {}
    for index, (name, channels) in enumerate(VGG_19.items()):
        entering = 3 if index == 0 else list(VGG_19.values())[index - 1]
        if index and name.endswith("_1"):
            modules.append(nn.MaxPool2d(2))
        if index == 0:
            modules.append(nn.Conv2d(entering, channels, 3, padding=1))
        else:
            into, out = ranks[index - 1]
            modules += [
                nn.Conv2d(entering, into, 1, bias=False), nn.Conv2d(into, out, 3, padding=1, bias=False),
                nn.Conv2d(out, channels, 1),
            ]  # fmt: skip
        modules.append(nn.ReLU())
        if name in outputs:
            taps[len(modules) - 1] = name
            heads[name] = nn.Linear(channels, outputs[name], bias=False)
    return Features(nn.Sequential(*modules), taps, MEAN, STD, heads)


def held(found: Tensor, name: str, member: int) -> Tensor:
    """Those positions of the teacher's output `name` that a member's holds."""
    step = EVERY.get(name, 1)
    down, right = (start if step > 1 else 0 for start in offset(member))
    return found[:, :, down::step, right::step]


class Ensemble(LossNetwork):
    """`members` students that differ in their weights and in the positions their outputs hold (`offset`); and, where
    `ranks` are given, a reference (`low_rank_vgg`)."""

    def __init__(
        self, members: int, width: int, outputs: Mapping[str, int], ranks: Sequence[Sequence[int]] | None = None
    ) -> None:
        super().__init__()
        self.students = nn.ModuleList(Student(width, outputs) for _ in range(members))
        self.members = members
        self.referred = ranks is not None
        if ranks is not None:
            self.reference = low_rank_vgg(ranks, outputs)
        self.freeze()

    def keep(self, layers: Collection[str]) -> None:
        """Give these layers alone."""
        for network in [*self.students, *([self.reference] if self.referred else [])]:
            assert isinstance(network, Features)
            network.taps = {index: name for index, name in network.taps.items() if name in layers}

    def forward(self, image: Tensor, layers: Iterable[str] | None = None, member: int = 0) -> dict[str, Tensor]:
        network = self.reference if self.referred and member == self.members else self.students[member]
        found: dict[str, Tensor] = network(image, layers)
        return found

    def refer(self, image: Tensor, layers: Iterable[str]) -> list[dict[str, Tensor]]:
        whole = self.reference(image, layers)
        return [{name: held(found, name, member) for name, found in whole.items()} for member in range(self.members)]


def offset(member: int) -> tuple[int, int]:
    """Row and column of the first position of relu1_2 and relu2_2 that a member's outputs hold. Mirrored and moved
    (`loss.shift`), two members come to see all of them."""
    return member % 2, member // 2 % 2


def build_compact(layers: Iterable[str], weights: str | os.PathLike[str] | None = None) -> Ensemble:
    """The distilled loss network, able to give `layers`. weights: a file of scripts/distill.py; None: the package's.

    Raises Invalid for a layer that it does not have, or a file that is not one of these.
    """
    path = ASSET if weights is None else Path(weights)
    try:
        check_readable(path)
    except Invalid as error:
        raise Invalid(f"loss_network.weights: {error}") from None
    try:
        with safetensors.safe_open(path, "pt") as file:
            recipe: dict[str, Any] = json.loads((file.metadata() or {})[_KEY])
        network = Ensemble(recipe["members"], recipe["width"], recipe["outputs"], recipe.get("ranks"))
        state = safetensors.torch.load_file(path)
        network.load_state_dict({name: value.float() for name, value in state.items()})
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError):
        raise Invalid(f"loss_network.weights: {path}: not a compact loss network of scripts/distill.py") from None
    network.keep(check_layers(layers, recipe["outputs"]))
    return network


def save(path: str | os.PathLike[str], network: Ensemble, recipe: Mapping[str, Any]) -> None:
    """Write `network` in float16 with its `recipe`: "members", "width", "outputs" and "ranks" as `Ensemble` takes them,
    and any provenance beside them (JSON values)."""
    state = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    safetensors.torch.save_file(state, path, {_KEY: json.dumps(recipe)})
