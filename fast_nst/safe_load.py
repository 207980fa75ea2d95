"""Load state dicts without executing pickled code."""

import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from fast_nst.errors import UserError, one_line


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """Load a `.pth` or `.ckpt` that contains only tensors and plain values. Raises UserError with the path."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of unknown pickle protocols in damaged files
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader may raise anything on damaged bytes
        reason = one_line(error)
        if isinstance(error, pickle.UnpicklingError):  # its message explains how to run the file's code anyway
            reason = "contains objects other than tensors and plain values"
        raise UserError(f"{path}: cannot be read as weights ({reason})") from None


def check_readable(path: Path) -> None:
    """Raise UserError unless `path` is a readable file."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: no permission to read it")


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Return whether `path` is safetensors, by its suffix or its first bytes: a length of eight bytes, then JSON."""
    with open(path, "rb") as file:
        return Path(path).suffix == ".safetensors" or file.read(9)[8:] == b"{"


def load_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Load the state dict of a `.safetensors` or `.pth` file onto the CPU. Raises UserError with path and reason."""
    path = Path(path)
    check_readable(path)
    if is_safetensors(path):
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
            raise UserError(f"{path}: cannot be read as weights ({one_line(error)})") from None
    state = load_pickle(path)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: not a state dict of tensors")
    return state
