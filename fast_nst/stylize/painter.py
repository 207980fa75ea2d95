"""One interface to what paints pictures: a network in torch, or an ONNX file in onnxruntime."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from fast_nst.stylize.onnx import OnnxNetwork
from fast_nst.stylize.options import Options

if TYPE_CHECKING:
    from fast_nst.networks import Network

Result = Image.Image | np.ndarray  # what `image.save_picture` takes


class Painter(Protocol):
    """A network that paints pictures.

    scale: side of the output, divided by the side of the input. on_cpu: whether it uses the memory that pictures are
    decoded into.
    """

    scale: int
    on_cpu: bool

    def free_memory(self) -> int:
        """Return the bytes still available on its device."""
        ...

    def memory_per_pixel(self) -> int:
        """Return the bytes per pixel that stylizing a whole image takes."""
        ...

    def paint(
        self, rgb: Image.Image, memory: int, options: Options, on_progress: Callable[[float], None] | None = None
    ) -> Result:
        """Stylize one picture in `memory` bytes. Raises image.TooLarge, or MemoryError if memory runs out."""
        ...

    def paint_together(self, pictures: Sequence[Image.Image], options: Options) -> list[Result]:
        """Stylize pictures of one size, whole. Raises MemoryError if memory runs out."""
        ...


def as_painter(network: "Network | OnnxNetwork | Any") -> Painter:
    """Return a painter that uses `network`."""
    if isinstance(network, OnnxNetwork):
        return network
    from fast_nst.stylize.image import TorchPainter

    return TorchPainter(network)
