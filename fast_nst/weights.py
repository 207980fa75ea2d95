"""The weights file, `<style>.safetensors`: a trained network, and a description to rebuild it from.

The tensors are the network's parameters; the metadata is a JSON text under the key "fast_nst". Loading a file
executes no code from it: `networks.build` rebuilds the network from its name and arguments. `importers` reads files of
other programs.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import nn

import fast_nst
from fast_nst import description as descriptions
from fast_nst import importers, networks
from fast_nst.atomic import atomic_write
from fast_nst.description import FORMAT_VERSION, KEY, check_path
from fast_nst.errors import WeightsError, one_line
from fast_nst.networks import Network, generator
from fast_nst.networks.generator import Generator
from fast_nst.safe_load import is_safetensors, load_state

GENERATOR = "generator"  # the name of the network that makes images from noise


def save(path: str | os.PathLike[str], network: nn.Module, description: dict[str, Any]) -> None:
    """Write the parameters of `network` and its `description` to `path`, atomically. Raises UserError.

    description: JSON values; must contain "network": {"name": …, arguments of `networks.build`}. The format and package
    versions are added.
    """
    metadata = {"format_version": FORMAT_VERSION, "package_version": fast_nst.__version__, **description}
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with atomic_write(path) as temporary:
        try:
            safetensors.torch.save_file(state, temporary, {KEY: json.dumps(metadata)})
        except safetensors.SafetensorError as error:
            raise OSError(one_line(error)) from None


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a weights file's metadata, or the description that `load` gives for another file. Raises WeightsError."""
    path = check_path(path)
    if not is_safetensors(path) or importers.is_foreign(path, KEY):
        return importers.load_foreign(path)[1]
    return descriptions.describe(path)


def load(path: str | os.PathLike[str]) -> tuple[Network, dict[str, Any]]:
    """Load a weights file: its network (in evaluation mode, float32, on the CPU) and its metadata.

    Checkpoints of train.py and networks of other programs work too (see `importers`). Raises WeightsError.
    """
    path = check_path(path)
    if not is_safetensors(path) or importers.is_foreign(path, KEY):
        return importers.load_foreign(path)
    metadata = describe(path)
    if metadata["network"]["name"] == GENERATOR:
        raise WeightsError(f"{path}: makes images from noise (experiment=agn), not from photographs; use generate")
    return _build(path, metadata, networks.build), metadata


def load_generator(path: str | os.PathLike[str]) -> tuple[Generator, dict[str, Any]]:
    """Load a generator from a weights file of experiment=agn, as `load` does. Raises WeightsError."""
    path = check_path(path)
    if not is_safetensors(path):
        raise WeightsError(f"{path}: not a weights file; generate takes the .safetensors of experiment=agn")
    metadata = describe(path)
    if metadata["network"]["name"] != GENERATOR:
        raise WeightsError(f"{path}: paints photographs and makes no images from noise; use infer")
    return _build(path, metadata, generator.build), metadata


def _build(path: Path, metadata: dict[str, Any], build: Callable[..., Any]) -> Any:
    try:
        return importers.build_network(metadata["network"], load_state(path), build)
    except (RuntimeError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: does not fit the network it names ({one_line(error)})") from None


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
