"""The weights file, `<style>.safetensors`: a trained network, and a description that rebuilds it.

The tensors are the network's parameters; the metadata is a JSON text under the key "fast_nst". Loading one executes no
code from the file: `networks.build` rebuilds the network from its name and arguments.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

import fast_nst
from fast_nst import networks
from fast_nst.errors import UserError, one_line
from fast_nst.image import atomic_write
from fast_nst.networks import Network
from fast_nst.networks.layers import LARGEST
from fast_nst.safe_load import check_readable, load_state

FORMAT_VERSION = 1
_KEY = "fast_nst"


class WeightsError(UserError):
    """A weights file that cannot be read. The message is one line."""


def save(path: str | os.PathLike[str], network: nn.Module, description: dict[str, Any]) -> None:
    """Write the parameters of `network` and its `description` to `path`, atomically. Raises UserError.

    description: JSON values; must contain "network": {"name": …, arguments of `networks.build`}. The format and package
    versions are added.
    """
    metadata = {"format_version": FORMAT_VERSION, "package_version": fast_nst.__version__, **description}
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with atomic_write(path) as temporary:
        try:
            safetensors.torch.save_file(state, temporary, {_KEY: json.dumps(metadata)})
        except safetensors.SafetensorError as error:
            raise OSError(one_line(error)) from None


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the metadata of a weights file. Raises WeightsError with the path and the reason."""
    path = _check_path(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(_KEY)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: damaged, or not a weights file ({one_line(error)})") from None
    if text is None:
        raise WeightsError(f"{path}: a safetensors file, but not one that fast_nst wrote")
    try:
        metadata = json.loads(text)
        version, recipe = metadata["format_version"], metadata["network"]
        names = metadata.get("style", {}).get("names", [])
        weight = metadata.get("loss", {}).get("style_weight", 0)
        if not all(isinstance(name, str) and "\0" not in name for name in list(names)) or weight != float(weight):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightsError(f"{path}: its metadata cannot be read") from None
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise WeightsError(f"{path}: format version {version}; this fast_nst reads up to {FORMAT_VERSION}: update it")
    if not isinstance(recipe, dict) or not isinstance(recipe.get("name"), str):
        raise WeightsError(f"{path}: its metadata does not name a network")
    return metadata


def load(path: str | os.PathLike[str]) -> tuple[Network, dict[str, Any]]:
    """Load the network of a weights file, in evaluation mode, float32 on the CPU, and the file's metadata.

    A `.pth` or `.model` of pytorch/examples' fast_neural_style works too. Raises WeightsError.
    """
    path = _check_path(path)
    if path.suffix in (".pth", ".pt", ".model"):
        return load_pytorch_examples(path), {"network": {"name": "johnson"}, "source": "pytorch/examples"}
    if path.suffix == ".ckpt":
        raise WeightsError(f"{path}: a checkpoint, for resuming a run; use the .safetensors file of that run")
    metadata = describe(path)
    recipe = metadata["network"]
    try:
        state = load_state(path)
        if any(isinstance(value, int) and value > LARGEST for value in recipe.values()):
            raise UserError("a number in its metadata is too large")
        with torch.device("meta"):  # a false description allocates no memory
            shapes = {name: value.shape for name, value in networks.build(**recipe).state_dict().items()}
        if shapes != {name: value.shape for name, value in state.items()}:
            raise UserError("its tensors have other names or shapes")
        with torch.random.fork_rng(devices=()):  # loading draws no random numbers of the caller's
            network = networks.build(**recipe)
        network.load_state_dict(state)
        _check_finite(state)
    except (RuntimeError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: does not fit the network it names ({one_line(error)})") from None
    return network.eval(), metadata


# Modules of pytorch/examples' transformer_net.py -> ours.
_EXAMPLES = {
    "conv1": "down.0", "conv2": "down.1", "conv3": "down.2",
    "in1": "down.0", "in2": "down.1", "in3": "down.2",
    "deconv1": "up.0", "deconv2": "up.1", "deconv3": "up.2",
    "in4": "up.0", "in5": "up.1",
}  # fmt: skip


def load_pytorch_examples(path: str | os.PathLike[str]) -> Network:
    """Load the network of a `.pth` of pytorch/examples' fast_neural_style, in evaluation mode.

    Old files contain running statistics of the instance norms, which were never used: they are ignored.
    Raises WeightsError with the path and the reason.
    """
    path = _check_path(path)
    try:
        state = load_state(path)
    except UserError as error:
        raise WeightsError(str(error)) from None
    network = networks.build("johnson", pixels="rgb255")
    try:
        network.load_state_dict({_rename(name): value for name, value in state.items() if not _is_statistic(name)})
        _check_finite(network.state_dict())
    except (RuntimeError, KeyError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{path}: not a network of pytorch/examples' fast_neural_style ({one_line(error)})"
        ) from None
    return network.eval()


def _check_finite(state: dict[str, Tensor]) -> None:
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} is NaN or infinite")


def _is_statistic(name: str) -> bool:
    return re.search(r"in\d+\.(running_mean|running_var|num_batches_tracked)$", name) is not None


def _rename(name: str) -> str:
    module, *rest = name.split(".")
    kind = "norm" if "in" in (module[:2], rest[0][:2]) else "conv"
    if module.startswith("res"):
        position = "first" if rest[0].endswith("1") else "second"
        return f"blocks.{int(module[3:]) - 1}.{position}.{kind}.{rest[-1]}"
    return f"{_EXAMPLES[module]}.{kind}.{rest[-1]}"


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal; it identifies a style image."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_path(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.is_dir():
        raise WeightsError(f"{path}: is a directory; give the .safetensors file in it")
    try:
        check_readable(path)
    except UserError as error:
        raise WeightsError(str(error)) from None
    return path
