"""Choose what infer.py paints with: the network, its style and strength, torch or onnxruntime, and the devices."""

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fast_nst import image, machine
from fast_nst.commands.infer_plan import Pair
from fast_nst.description import describe, style_names
from fast_nst.errors import UserError
from fast_nst.stylize import choice
from fast_nst.stylize.moving import is_moving
from fast_nst.stylize.onnx import OnnxNetwork
from fast_nst.stylize.options import result_bytes

_FEW = 2e6  # pixels that onnxruntime paints before torch has started; for more, torch in bfloat16 is faster


class Choice(NamedTuple):
    """The networks that paint, and the devices that they run on.

    networks: one of a single style, and one for the black part of the mask, or None. fade: how far to fade from the
    photograph to the output. label: the part of output names that tells the style. devices: torch devices, each of
    which gets a copy of the networks; ["cpu"] for onnxruntime.
    """

    networks: tuple[Any, Any]
    fade: float
    label: str
    devices: list[Any]

    def on(self, device: Any) -> tuple[Any, Any]:
        """Return the networks on `device`."""
        if isinstance(self.networks[0], OnnxNetwork):
            return self.networks
        import torch

        inside, outside = (None if n is None else copy.deepcopy(n).to(device) for n in self.networks)
        for network in (inside, outside):
            if network is not None:
                network.to(memory_format=torch.channels_last)
        return inside, outside


def load_choice(arguments: argparse.Namespace, torch_only: bool = False) -> Choice:
    """Load the networks that the options choose. Raises UserError."""
    file, style = choice.find_weights(arguments.weights)
    onnx = not torch_only and choice.runs_in_onnx(file, arguments.device, arguments.precision, "--device")
    network, description = choice.load_network(file, onnx)
    names = style_names(description)
    if arguments.style and style and arguments.style != style:
        raise UserError(f"--style: got {arguments.style}; WEIGHTS already names {style}")
    style = arguments.style or style
    shared = {"strength": arguments.strength, "brush": arguments.brush}
    chosen, fade = choice.choose(network, description, style, **shared)
    outside = None
    if arguments.outside is not None:
        outside = choice.choose(network, description, arguments.outside, **shared)[0]
    used = names if style is None else [*choice.parse_style(style)]
    label = "_".join(Path(name).name for name in used) or file.stem
    devices: list[Any] = ["cpu"]
    if not onnx:
        from fast_nst.device import find_devices

        devices = find_devices(arguments.device, "--device")
    return Choice((chosen, outside), fade, label, devices)


def needs_torch(chosen: Choice, pairs: Sequence[Pair], arguments: argparse.Namespace, memory: int) -> bool:
    """Return whether to change from onnxruntime to torch, because onnxruntime cannot paint `pairs` or would be slower.

    This requires a bundled style and an installed torch. Then it is True for clips and animations, for photographs that
    exceed `memory` bytes, and for many pixels on a CPU with fast bfloat16.
    """
    network = chosen.networks[0]
    bundled = choice.find_weights(arguments.weights)[0] == choice.BUNDLED
    if not isinstance(network, OnnxNetwork) or not bundled or not choice.is_installed("torch"):
        return False
    most = memory / (network.memory_per_pixel() + result_bytes(arguments.depth))
    left = _FEW if arguments.precision == "auto" and machine.has_fast_bfloat16() else float("inf")
    for source, target in pairs:
        pixels = _count_pixels(source, arguments.size)
        left -= pixels
        if pixels > most or left < 0 or is_moving(source, target):
            return True
    return False


def _count_pixels(source: Path, size: int | None) -> float:
    """Return the number of pixels of a photograph after resizing to `size`; 0 if it cannot be read."""
    width, height = image.read_size(source) or (0, 1)
    return width * height if size is None or not width else size**2 * min(width, height) / max(width, height)


def print_styles(path: str | None) -> None:
    """Print the names of the styles in the file `path`, or of the bundled ones, one per line."""
    print("\n".join(_names(path)) or "no style names")


def _names(path: str | None) -> list[str]:
    if path is None:
        return choice.bundled_names()
    file = choice.find_weights(path)[0]
    if file.suffix.lower() == ".onnx":
        return style_names(OnnxNetwork.load(file).description)
    if file == choice.BUNDLED or not choice.is_installed("torch"):
        return style_names(describe(file))
    from fast_nst import weights

    return style_names(weights.describe(file))
