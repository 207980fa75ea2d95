"""What a run trains and the files it uses; the methods build a `Job` each (`train_methods`)."""

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
    """What a run reads and writes.

    paintings: one for each style. blend: further paintings of a single style, with weights. checkpoint: to resume from.
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
    """What a method makes of the settings.

    module: its `network` is saved in the weights file, and its `total_steps` is set later. draw: makes the preview.
    settings: for the checkpoint. description: for the weights file.
    """

    module: Module
    data: ContentData
    draw: Callable[[Any], Image.Image]
    settings: dict[str, Any]
    description: dict[str, Any]
