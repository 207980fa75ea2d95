"""`compact`: a distilled low-rank VGG-16 up to relu4_3, small enough to ship with the package.

The two convolutions at full size, which would take most of the time, are narrow. Each later convolution computes on few
channels: the leading principal components of its input and of its output (a Tucker decomposition of the kernel, Kim et
al. 2016, arXiv 1511.06530). The outputs have VGG-16's channels, so losses mean the same on both networks.
scripts/assets/distill.py makes the weights.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import nn

from fast_nst.errors import UserError
from fast_nst.loss_networks.network import LossNetwork, check_layers
from fast_nst.loss_networks.vgg import MEAN, STD
from fast_nst.safe_load import check_readable

ASSET = Path(str(files("fast_nst"))) / "assets" / "compact.safetensors"
VGG_16 = {  # channels of VGG-16's layers, up to the deepest one in `compact`
    "relu1_1": 64, "relu1_2": 64, "relu2_1": 128, "relu2_2": 128,
    "relu3_1": 256, "relu3_2": 256, "relu3_3": 256, "relu4_1": 512, "relu4_2": 512, "relu4_3": 512,
}  # fmt: skip
LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
_KEY = "fast_nst_loss_network"


def low_rank_vgg(narrow: Sequence[int], ranks: Sequence[Sequence[int]]) -> LossNetwork:
    """Build a low-rank VGG-16 up to relu4_3 with outputs `LAYERS` and random weights.

    narrow: channels of the two convolutions at full size; a linear map computes relu1_2 from them. ranks: (R, S) for
    each later convolution, which becomes a convolution from R to S channels between two 1x1 convolutions. The first of
    these has no 1x1 convolution before it, so its R must equal its input channels.
    """
    first, second = narrow
    modules: list[nn.Module] = [
        nn.Conv2d(3, first, 3, padding=1), nn.ReLU(), nn.Conv2d(first, second, 3, padding=1), nn.ReLU(),
    ]  # fmt: skip
    taps, inputs = {3: "relu1_2"}, second
    for index, ((name, outputs), (rank_in, rank_out)) in enumerate(zip(list(VGG_16.items())[2:], ranks, strict=True)):
        if name.endswith("_1"):
            modules.append(nn.MaxPool2d(2))
        if index:
            modules.append(nn.Conv2d(inputs, rank_in, 1, bias=False))
        modules += [nn.Conv2d(rank_in, rank_out, 3, padding=1, bias=False), nn.Conv2d(rank_out, outputs, 1), nn.ReLU()]
        if name in LAYERS:
            taps[len(modules) - 1] = name
        inputs = outputs
    heads = {"relu1_2": nn.Linear(second, VGG_16["relu1_2"], bias=False)}
    return LossNetwork(nn.Sequential(*modules), taps, MEAN, STD, heads)


def build_compact(layers: Iterable[str], weights: str | os.PathLike[str] | None = None) -> LossNetwork:
    """Build the distilled loss network with outputs `layers`.

    weights: a file made by scripts/assets/distill.py; None: the package's file.
    Raises UserError for an unknown layer or an invalid file.
    """
    path = ASSET if weights is None else Path(weights)
    try:
        check_readable(path)
    except UserError as error:
        raise UserError(f"loss_network.weights: {error}") from None
    try:
        with safetensors.safe_open(path, "pt") as file:
            recipe: dict[str, Any] = json.loads((file.metadata() or {})[_KEY])
        network = low_rank_vgg(recipe["narrow"], recipe["ranks"])
        state = safetensors.torch.load_file(path)
        network.load_state_dict({name: value.float() for name, value in state.items()})
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError):
        raise UserError(f"loss_network.weights: {path}: not made by scripts/assets/distill.py") from None
    network.select_layers(check_layers(layers, LAYERS))
    return network


def save(path: str | os.PathLike[str], network: LossNetwork, recipe: Mapping[str, Any]) -> None:
    """Write `network` in float16, with its `recipe`.

    recipe: JSON values: "narrow" and "ranks" (the arguments of `low_rank_vgg`), and any provenance.
    """
    state = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    safetensors.torch.save_file(state, path, {_KEY: json.dumps(recipe)})
