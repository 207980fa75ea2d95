"""`compact`: VGG-19 up to relu3_4, distilled into a narrow network that ships with the package.

Each output stands in for VGG-19's layer of that name in a reduced orthonormal basis (the leading uncentred principal
components of its activations), in which squared distances of features and of Grams are those of VGG-19 up to the part
cut off. Content and relative style losses on it therefore mean what they mean on VGG-19. scripts/distill.py makes it.
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

from fast_nst.loss_networks.network import LossNetwork, check_layers
from fast_nst.loss_networks.vgg import MEAN, STD
from fast_nst.validate import Invalid

ASSET = Path(str(files("fast_nst"))) / "assets" / "compact.safetensors"
_KEY = "fast_nst_loss_network"


def architecture(channels: Sequence[Sequence[int]], outputs: Mapping[str, int]) -> LossNetwork:
    """Blocks of 3x3 convolutions with ReLU, `channels[b][c]` wide, a max pooling between blocks.

    outputs: {layer name: width of its linear head}; `relu2_1` taps the first convolution of the second block.
    """
    modules: list[nn.Module] = []
    taps: dict[int, str] = {}
    heads: dict[str, nn.Linear] = {}
    inputs = 3
    for block, widths in enumerate(channels, 1):
        if block > 1:
            modules.append(nn.MaxPool2d(2))
        for conv, width in enumerate(widths, 1):
            modules += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = width
            if (name := f"relu{block}_{conv}") in outputs:
                taps[len(modules) - 1] = name
                heads[name] = nn.Linear(width, outputs[name])
    return LossNetwork(nn.Sequential(*modules), taps, MEAN, STD, heads)


def build_compact(layers: Iterable[str], weights: str | os.PathLike[str] | None = None) -> LossNetwork:
    """The distilled loss network, able to give `layers`. weights: a file of scripts/distill.py; None: the package's.

    Raises Invalid for a layer that it does not have, or a file that is not one of these.
    """
    path = ASSET if weights is None else Path(weights)
    try:
        with safetensors.safe_open(path, "pt") as file:
            recipe: dict[str, Any] = json.loads((file.metadata() or {})[_KEY])
        network = architecture(recipe["channels"], recipe["outputs"])
        state = safetensors.torch.load_file(path)
        network.load_state_dict({name: value.float() for name, value in state.items()})
    except FileNotFoundError:
        raise Invalid(f"loss_network.weights: {path}: no such file") from None
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError):
        raise Invalid(f"loss_network.weights: {path}: not a compact loss network of scripts/distill.py") from None
    wanted = check_layers(layers, recipe["outputs"])
    network.taps = {index: name for index, name in network.taps.items() if name in wanted}
    return network


def save(path: str | os.PathLike[str], network: LossNetwork, recipe: Mapping[str, Any]) -> None:
    """Write `network` in float16 with its `recipe`: "channels" and "outputs" as `architecture` takes them, and any
    provenance beside them (JSON values)."""
    state = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    safetensors.torch.save_file(state, path, {_KEY: json.dumps(recipe)})
