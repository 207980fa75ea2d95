"""Stylize images with an ONNX file that `fast-nst export` wrote, in onnxruntime, without torch.

Legend: B batch, S styles, H height, W width; images are float32 in [0, 1], (B, 3, H, W).
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from fast_nst import description, image, machine
from fast_nst.errors import UserError, WeightsError, one_line
from fast_nst.stylize.color import KEEP_COLORS
from fast_nst.stylize.options import Options, check_options, result_bytes

# onnxruntime reads this when imported. Otherwise it collects usage data and warns if the home folder is read-only.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
SIZES_KEY = "fast_nst_sizes"  # metadata key of {"smallest": pixels a side, "channels": those of the widest layer}
_WHOLE = 36  # bytes per pixel and channel of the widest layer; measured: slim 22 to 35, depending on the size


class OnnxNetwork:
    """A `painter.Painter` that runs an ONNX file. Calls may come from several threads.

    description: the weights file's metadata. sizes: see SIZES_KEY. style: weights of the styles, (S,), if several.
    """

    scale, on_cpu = 1, True

    def __init__(
        self, session: Any, description: dict[str, Any], sizes: dict[str, int], style: np.ndarray | None = None
    ) -> None:
        self.session, self.description, self.sizes, self.style = session, description, sizes, style
        self.conditional = len(session.get_inputs()) > 1
        self.num_styles = int(session.get_inputs()[1].shape[1]) if self.conditional else 1

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an ONNX file. Raises WeightsError."""
        path = description.check_path(path)
        session = _open_session(path)
        metadata = session.get_modelmeta().custom_metadata_map
        if not {description.KEY, SIZES_KEY} <= metadata.keys():
            raise WeightsError(f"{path}: an ONNX file, but not one that fast-nst export wrote")
        return cls(session, description.parse(metadata[description.KEY], path), json.loads(metadata[SIZES_KEY]))

    def select(self, style: np.ndarray) -> "OnnxNetwork":
        """Return this network with its styles mixed by the weights `style`, (S,), whose sum is the strength."""
        return OnnxNetwork(self.session, self.description, self.sizes, style.astype(np.float32))

    def __call__(self, content: np.ndarray) -> np.ndarray:
        """Return the output for `content`, with any H and W. Raises MemoryError."""
        height, width = content.shape[2:]
        missing = [max(0, self.sizes["smallest"] - side) for side in (height, width)]
        if any(missing):  # as the networks do themselves in torch
            content = np.pad(content, ((0, 0), (0, 0), (0, missing[0]), (0, missing[1])), mode="edge")
        feed = {"content": content}
        if self.style is not None:
            feed["style"] = np.repeat(self.style[None], len(content), axis=0)
        try:
            output: np.ndarray = self.session.run(None, feed)[0]
        except Exception as error:  # onnxruntime's own, of several types
            raise MemoryError(one_line(error)) if machine.is_out_of_memory(error) else error from None
        return output[:, :, :height, :width]

    def free_memory(self) -> int:
        return machine.free_memory()

    def memory_per_pixel(self) -> int:
        return _WHOLE * self.sizes["channels"]

    def paint(
        self, rgb: Image.Image, memory: int, options: Options, on_progress: Callable[[float], None] | None = None
    ) -> Image.Image | np.ndarray:
        """Stylize `rgb` whole. Raises image.TooLarge if it needs more than `memory` bytes."""
        most = max(0, memory) // (self.memory_per_pixel() + result_bytes(options.depth))
        if rgb.width * rgb.height > most:
            side = int(max(rgb.size) * (most / (rgb.width * rgb.height)) ** 0.5)
            raise image.TooLarge(f"{rgb.width} x {rgb.height} pixels; allowed without torch: up to --size {side}")
        return self.paint_together([rgb], options)[0]

    def paint_together(self, pictures: Sequence[Image.Image], options: Options) -> list[Image.Image | np.ndarray]:
        content = np.concatenate([image.to_array(picture) for picture in pictures])
        outputs = stylize_array(self, content, options.strength, options.keep_colors)
        convert = image.to_deep if options.depth == 16 else image.to_pillow
        return [convert(outputs[k : k + 1]) for k in range(len(pictures))]


def stylize_array(
    network: Callable[[np.ndarray], np.ndarray], content: np.ndarray, strength: float, keep_colors: str | None
) -> np.ndarray:
    """Stylize `content` as `image.stylize_tensor` does."""
    check_options(strength, keep_colors)
    if strength == 0:
        return content
    output = network(content)
    if keep_colors is not None:
        output = KEEP_COLORS[keep_colors](output, content)
    return output if strength == 1 else content + np.float32(strength) * (output - content)


def _open_session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"{path}: needs onnxruntime: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal errors only; errors are raised anyway
    options.intra_op_num_threads = machine.count_threads()
    # Let waiting threads sleep. It is as fast, and takes a third less processor time on a machine that does other work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own, of several types
        raise WeightsError(f"{path}: damaged, or not an ONNX file ({one_line(error)})") from None
