"""Tables of tensors in foreign files, read without running code from them."""

import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from fast_nst.errors import UserError


def load_pickle(path: str | os.PathLike[str]) -> Any:
    """What a `.pth` or `.ckpt` of torch.save holds: tensors and plain values alone. Raises UserError with the path."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols that damage makes up
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make torch's reader raise whatever comes
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # whose message tells how to run the file's code all the same
            reason = "no file of tensors and plain values alone"
        raise UserError(f"{path}: cannot be read as weights ({reason})") from None


def check_readable(path: Path) -> None:
    """Raises UserError unless `path` is a file that may be read."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: no permission to read it")


def load_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict of a `.safetensors` or `.pth` file, on the CPU. Raises UserError with the path and the reason."""
    path = Path(path)
    check_readable(path)
    with open(path, "rb") as file:
        by_content = file.read(9)[8:] == b"{"  # after a length of eight bytes
    if path.suffix == ".safetensors" or by_content:
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
            raise UserError(f"{path}: cannot be read as weights ({' '.join(str(error).split())[:200]})") from None
    state = load_pickle(path)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: not a table of tensors (a state dict)")
    return state
