"""Choose what a network of several styles paints: one style or a mixture, and its strength."""

import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from fast_nst import weights
from fast_nst.errors import UserError, check_number
from fast_nst.networks import Network
from fast_nst.networks.slim import Slim
from fast_nst.networks.styles import select

BUNDLED = Path(str(files("fast_nst"))) / "assets" / "styles.safetensors"  # a network of all bundled styles
STRONGEST = 2.0  # the largest strength that networks are trained for
Style = str | Mapping[str, float]


def style_names(description: Mapping[str, Any]) -> list[str]:
    """Return the names of the styles in a weights file, by its metadata."""
    return list(description.get("style", {}).get("names", []))


def bundled_names() -> list[str]:
    """Return the names of the styles that the package's own network has."""
    return style_names(weights.describe(BUNDLED)) if BUNDLED.is_file() else []


def find_weights(name: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """Return the weights file `name`, or the package's own and the style, if it is a bundled style's name."""
    path = Path(name).expanduser()
    if not path.exists() and not path.suffix and (names := bundled_names()):
        if str(name) in names:
            return BUNDLED, str(name)
        if path.name == str(name):
            raise weights.WeightsError(f"{name}: no such file; the bundled styles are {', '.join(names)}")
    return path, None


def parse_style(text: str) -> dict[str, float]:
    """Parse "cubist" or "cubist:0.7,starry_night:0.3". Raises UserError."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, colon, number = part.strip().rpartition(":")
        try:
            shares[name if colon else number] = float(number) if colon else 1.0
        except ValueError:
            raise UserError(f"style: got {part!r}; allowed: NAME or NAME:WEIGHT, several separated by commas") from None
    return shares


def style_weights(names: Sequence[str], style: Style | None) -> torch.Tensor:
    """Return the weights of the styles `names`, (S,), which sum to 1. Raises UserError.

    style: a name, "a:0.7,b:0.3", {"a": 0.7, "b": 0.3}, or None, if there is only one.
    """
    if style is None:
        if len(names) > 1:
            raise UserError(f"style: this network has several; choose one or mix: {', '.join(names)}")
        return torch.ones(1)
    shares = parse_style(style) if isinstance(style, str) else dict(style)
    if unknown := [name for name in shares if name not in names]:
        raise UserError(f"style: got {unknown[0]!r}; allowed: {', '.join(names)}")
    values = [check_number(f"style.{name}", shares.get(name, 0), 0) for name in names]
    if not sum(values):
        raise UserError(f"style: got only weights of 0: {style}; one must be positive")
    return torch.tensor(values) / sum(values)


def choose(
    network: Network, names: Sequence[str], style: Style | None = None, strength: float = 1.0
) -> tuple[Network, float]:
    """Return the network of one style that paints `style` in `strength`, and how far to fade from the photograph to it.

    strength: 0 gives the photograph. A conditional network is trained for all strengths up to STRONGEST, so its output
    is not faded; that of another network is, up to 1. Raises UserError.
    """
    if not (isinstance(network, Slim) and network.conditional):
        if style is not None:
            style_weights(["+".join(names)], style)  # checks the name
        return network, check_number("strength", strength, 0, 1)
    check_number("strength", strength, 0, STRONGEST)
    return select(network, strength * style_weights(names, style)), float(strength > 0)
