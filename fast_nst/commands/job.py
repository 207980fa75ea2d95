"""The files that a run uses, and the `Job` that its method builds (`train_methods`)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from fast_nst.data.datamodule import ContentData
from fast_nst.methods.adversarial import Adversarial
from fast_nst.methods.style_transfer import StyleTransfer
from fast_nst.methods.super_resolution import Restoration

Module = StyleTransfer | Restoration | Adversarial


@dataclass
class Files:
    """The files that a run reads and writes.

    paintings: one for each style. blend: further paintings of a single style, with their weights. checkpoint: the one
    to resume from, or None.
    """

    name: str
    paintings: list[Path]
    blend: list[tuple[Path, float]]
    folder: Path
    checkpoint: Path | None

    def __post_init__(self) -> None:
        self.weights = self.folder / f"{self.name}.safetensors"
        self.last = self.folder / "checkpoints" / "last.ckpt"
        self.preview, self.config = self.folder / "preview.png", self.folder / "config.yaml"


@dataclass
class Job:
    """The parts of a run that its method builds from the settings.

    module: its `network` is saved in the weights file, and its `total_steps` is set later. draw: draws the preview from
    the module. settings: saved in the checkpoint. description: saved in the weights file.
    """

    module: Module
    data: ContentData
    draw: Callable[[Any], Image.Image]
    settings: dict[str, Any]
    description: dict[str, Any]
