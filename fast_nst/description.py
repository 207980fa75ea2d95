"""The description in a weights file or an ONNX file: JSON that names the network and says what it was trained on."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors

from fast_nst.errors import WeightsError, one_line

FORMAT_VERSION = 1
KEY = "fast_nst"  # the description's key in the metadata of both kinds of file


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the metadata of a weights file. Raises WeightsError with the path and the reason."""
    path = check_path(path)
    try:
        with safetensors.safe_open(path, "np") as file:
            text = (file.metadata() or {}).get(KEY)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: damaged, or not a weights file ({one_line(error)})") from None
    if text is None:
        raise WeightsError(f"{path}: a safetensors file, but not one that fast_nst wrote")
    return parse(text, path)


def parse(text: str, path: Path) -> dict[str, Any]:
    """Parse the description `text` of the file `path`. Raises WeightsError."""
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


def seems_weights(path: str | os.PathLike[str]) -> bool:
    """Return whether a file starts like a weights file: safetensors, a zip archive or a pickle."""
    with open(path, "rb") as file:
        head = file.read(9)
    return head[8:] == b"{" or head.startswith((b"PK\3\4", b"\x80"))


def style_names(description: Mapping[str, Any]) -> list[str]:
    """Return the names of the styles that a weights file's `description` lists."""
    return list(description.get("style", {}).get("names", []))


def check_path(path: str | os.PathLike[str]) -> Path:
    """Return `path` as a Path. Raises WeightsError unless it is a readable file."""
    path = Path(path)
    if path.is_dir():
        raise WeightsError(f"{path}: is a directory; give the .safetensors file in it")
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    if not os.access(path, os.R_OK):
        raise WeightsError(f"{path}: no permission to read it")
    return path
