"""Choose what a network of several styles paints: one style or a mixture, and its strength."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fast_nst import machine
from fast_nst.description import check_path, describe, seems_weights, style_names
from fast_nst.errors import UserError, WeightsError, check_number, needs_torch
from fast_nst.stylize.onnx import OnnxNetwork

if TYPE_CHECKING:
    from fast_nst.networks import Network

_ASSETS = Path(__file__).parents[1] / "assets"
BUNDLED = _ASSETS / "styles.safetensors"  # a network of all bundled styles
BUNDLED_ONNX = _ASSETS / "styles.onnx"  # the same network, exported by scripts/export.py
STRONGEST = 2.0  # the largest strength that networks are trained for
Style = str | Mapping[str, float]


def bundled_names() -> list[str]:
    """Return the names of the bundled styles; an empty list if their weights file is missing."""
    return style_names(describe(BUNDLED)) if BUNDLED.is_file() else []


def find_weights(name: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """Return the weights file and the style or mixture that `name` names: FILE, FILE:STYLE, or a bundled style's name.

    A folder, or a file without weights, does not hide the bundled style of the same name. Raises WeightsError.
    """
    if not isinstance(name, str | os.PathLike):
        raise WeightsError(f"weights: got {type(name).__name__}; allowed: a path, or a bundled style's name")
    text = str(os.fspath(name))
    if not text:
        raise WeightsError("weights: got an empty name; allowed: a weights file, or a bundled style's name")
    path = Path(text).expanduser()
    if not path.exists():
        for colon in re.finditer(":", str(path)):
            if (file := Path(str(path)[: colon.start()])).is_file():
                return file, str(path)[colon.end() :]
    bare = path.name == text and (":" in text or not path.suffix)
    bare = bare or (not path.exists() and path.stem in bundled_names())  # cubist.safetensors: the error names styles
    if bare and not (path.is_file() and seems_weights(path)) and (names := bundled_names()):
        if text in names:
            return BUNDLED, text
        if not path.exists():
            raise WeightsError(f"{text}: no such file; the bundled styles are {', '.join(names)}")
    return path, None


def load_network(file: Path, onnx: bool = False) -> tuple[Any, dict[str, Any]]:
    """Load a network (for onnxruntime if `onnx`, else for torch) and its file's metadata. Raises UserError."""
    if onnx:
        network = OnnxNetwork.load(BUNDLED_ONNX if file == BUNDLED else file)
        return network, network.description
    check_path(file)
    with needs_torch(str(file)):
        from fast_nst import weights
    return weights.load(file)


def runs_in_onnx(file: Path, device: str = "auto", precision: str = "auto", option: str = "device") -> bool:
    """Return whether onnxruntime, not torch, runs the network in `file`.

    It runs .onnx files, and, unless bfloat16 is asked for, the bundled network on a CPU, where it is as fast and starts
    ten times faster. Without torch it also runs the bundled network if `device` is "auto". Raises UserError if an .onnx
    file cannot run as asked. option: what the message calls `device`.
    """
    if file.suffix.lower() == ".onnx":
        if device not in ("auto", "cpu"):
            raise UserError(f"{option}: got {device}; an .onnx file runs on the processor; give cpu")
        if precision == "bfloat16":
            raise UserError("--precision: got bfloat16; an .onnx file runs only in float32; give float32")
        return True
    wanted = precision != "bfloat16" and (device == "cpu" or (device == "auto" and not machine.may_have_gpu()))
    if file != BUNDLED or not BUNDLED_ONNX.is_file() or not is_installed("onnxruntime"):
        return False
    return wanted or (device == "auto" and not is_installed("torch"))


def is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ImportError:
        return False


def load_style(name: str | os.PathLike[str]) -> "tuple[Network, dict[str, Any]]":
    """Load a network of one style and its file's metadata. name: as in `find_weights`. Raises UserError."""
    file, style = find_weights(name)
    network, description = load_network(file)
    return choose(network, description, style)[0].eval(), description


def parse_style(text: str) -> dict[str, float]:
    """Parse "cubist" or "cubist:0.7,starry_night:0.3" into {name: weight}. Raises UserError."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, colon, number = part.strip().rpartition(":")
        key = (name if colon else number).strip()
        if not key:
            raise UserError(f"style: got {text!r}; allowed: NAME or NAME:WEIGHT, several separated by commas")
        if key in shares:
            raise UserError(f"style: got {key} twice")
        try:
            shares[key] = float(number) if colon else 1.0
        except ValueError:
            raise UserError(f"style: got {part!r}; allowed: NAME or NAME:WEIGHT, several separated by commas") from None
    return shares


def check_style(key: str, style: Any) -> str | tuple[tuple[str, float], ...] | None:
    """Return `style` in hashable form: None, a string or a tuple of (name, weight). Raises UserError with `key`."""
    if style is None or isinstance(style, str):
        return style
    if not isinstance(style, Mapping) or not all(isinstance(name, str) for name in style):
        raise UserError(f'{key}: got {type(style).__name__}; allowed: a name, "a:0.7,b:0.3" or {{"a": 0.7, "b": 0.3}}')
    return tuple((name, check_number(f"{key}.{name}", share, 0)) for name, share in style.items())


def style_weights(names: Sequence[str], style: Style | None) -> np.ndarray:
    """Return the weights of the styles `names`, (S,), which sum to 1. Raises UserError.

    style: a name, "a:0.7,b:0.3", {"a": 0.7, "b": 0.3}, or None if there is only one style.
    """
    if style is None:
        if len(names) > 1:
            raise UserError(f"style: this network has several; choose one or mix: {', '.join(names)}")
        return np.ones(1, np.float32)
    shares = parse_style(style) if isinstance(style, str) else dict(style)
    if unknown := [name for name in shares if name not in names]:
        raise UserError(f"style: got {unknown[0]!r}; allowed: {', '.join(names)}")
    values = [check_number(f"style.{name}", shares.get(name, 0), 0) for name in names]
    if not sum(values):
        raise UserError(f"style: got only weights of 0: {style}; one must be positive")
    return np.array(values, np.float32) / np.float32(sum(values))


def brush_weights(sizes: Sequence[int | None], brush: float) -> np.ndarray:
    """Return weights for the sizes that a painting was trained at; they sum to 1. Raises UserError.

    brush: size of the strokes, relative to those of the first size.
    """
    numbers = [size or 1 for size in sizes]
    factors = [size / numbers[0] for size in numbers]
    if check_number("brush", brush, 0) != 1 and len(factors) == 1:
        several = "style.size=[256,512] with network=conditional trains one that knows several"
        raise UserError(f"brush: got {brush:g}; this network knows one size; {several}")
    if not factors[0] <= brush <= factors[-1]:
        raise UserError(f"brush: got {brush:g}; allowed: from {factors[0]:g} to {factors[-1]:g}")
    weights = np.zeros(len(factors), np.float32)
    upper = next(k for k, factor in enumerate(factors) if factor >= brush)
    if factors[upper] == brush:
        weights[upper] = 1
    else:
        share = math.log(brush / factors[upper - 1]) / math.log(factors[upper] / factors[upper - 1])
        weights[upper - 1], weights[upper] = 1 - share, share
    return weights


def choose(
    network: Any,
    description: Mapping[str, Any],
    style: Style | None = None,
    strength: float = 1.0,
    brush: float = 1.0,
) -> tuple[Any, float]:
    """Return a network that paints only `style` at `strength`, and how far to fade from the photograph to its output.

    network, description: as `load_network` returns them. brush: size of the strokes, see `brush_weights`.
    strength: 0 gives the photograph. A conditional network is trained for all strengths up to STRONGEST, so its output
    is not faded. The output of any other network is faded, and `strength` is at most 1. Raises UserError.
    """
    names, sizes = style_names(description), description.get("style", {}).get("sizes", [None])
    if not getattr(network, "conditional", False):
        if style is not None:
            if not names:
                raise UserError(f"style: got {style!r}; this network has no styles")
            style_weights(["+".join(names)], style)  # checks the name
        brush_weights(sizes[:1], brush)
        return network, check_number("strength", strength, 0, 1)
    check_number("strength", strength, 0, STRONGEST)
    shares = np.float32(strength) * np.outer(style_weights(names, style), brush_weights(sizes, brush)).flatten()
    return _select(network, shares), float(strength > 0)


def _select(network: Any, shares: np.ndarray) -> Any:
    if isinstance(network, OnnxNetwork):
        return network.select(shares)
    import torch

    from fast_nst.networks.styles import select

    return select(network, torch.from_numpy(shares))
