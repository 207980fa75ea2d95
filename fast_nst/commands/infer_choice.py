"""What infer.py paints: the weights file, the style in it, its strength."""

import argparse
from pathlib import Path
from typing import NamedTuple

from fast_nst import weights
from fast_nst.errors import UserError
from fast_nst.networks import Network
from fast_nst.stylize.choice import bundled_names, choose, find_weights, parse_style, style_names


class Choice(NamedTuple):
    """What paints: a network of one style, and one for outside of the mask.

    fade: how far to fade from the photograph to the output. label: for the names of outputs.
    """

    networks: tuple[Network, Network | None]
    fade: float
    label: str


def load_choice(arguments: argparse.Namespace) -> Choice:
    """Load the networks that the options choose. Raises UserError."""
    file, style = find_weights(arguments.weights)
    network, description = weights.load(file)
    names = style_names(description)
    if arguments.style and style and arguments.style != style:
        raise UserError(f"--style: got {arguments.style}; WEIGHTS names {style} already")
    style = arguments.style or style
    shared = {"strength": arguments.strength, "brush": arguments.brush}
    chosen, fade = choose(network, description, style, **shared)
    outside = None if arguments.outside is None else choose(network, description, arguments.outside, **shared)[0]
    used = names if style is None else [*parse_style(style)]
    return Choice((chosen, outside), fade, "_".join(Path(name).name for name in used) or file.stem)


def print_styles(path: str | None) -> None:
    """Print the styles in the weights file `path`, or the bundled ones, one a line."""
    names = bundled_names() if path is None else style_names(weights.describe(find_weights(path)[0]))
    print("\n".join(names) or "no names of styles")
