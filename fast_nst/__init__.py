"""fast_nst: train and run fast neural style transfer networks (Johnson, Alahi, Fei-Fei 2016, arXiv 1603.08155).

model = fast_nst.load("starry_night.safetensors")
model("photo.jpg").save("painted.png")
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fast_nst.stylize.model import StyleModel

__version__ = "0.1.0"
__all__ = ["load", "train"]


def load(path: str | os.PathLike[str], device: str = "auto") -> "StyleModel":
    """Return the network of a weights file, an ONNX file or a bundled style. Call the network with an image.

    path: the file, or the bundled style's name. device: such as "cpu", "cuda:1" or "mps"; "auto": the first GPU, else
    the CPU. An ONNX file runs on the CPU, without torch. Raises errors.UserError (a ValueError).
    """
    from fast_nst.stylize.model import StyleModel

    return StyleModel.load(path, device)


def train(
    style: str | os.PathLike[str],
    content: str | os.PathLike[str] | None = None,
    max_steps: int | None = None,
    minutes: float | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
) -> "StyleModel":
    """Train a network for one style, and return it as `load` would.

    style: a painting's file, or the name of a bundled style. content: a folder of photographs; None: synthetic ones.
    max_steps, minutes: how long to train; give at most one. minutes: train for as many steps as this machine does in
    that time. output_dir: the folder for the weights file, checkpoint and preview; None: outputs/<style>/<time>.
    overrides: further settings as on the command line, such as "loss.style_weight=5". Training uses torch's global
    random state and restores it, so run one training at a time. Raises errors.UserError (a ValueError) and
    errors.RunError (a RuntimeError).
    """
    from fast_nst.errors import needs_torch

    with needs_torch("train"):
        from fast_nst.commands.train import train_from_python

    return load(train_from_python(style, content, max_steps, minutes, output_dir, overrides))
