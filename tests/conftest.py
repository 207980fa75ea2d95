"""What several tests need: small pictures, a small loss network, and where the large real data may lie."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
VGG19 = SHARED / "weights" / "vgg19_to_conv3_4.safetensors"


def picture(seed: int, height: int = 48, width: int = 64) -> Image.Image:
    """A small smooth random picture."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of eight small pictures, one of them a level down."""
    folder = tmp_path / "photographs"
    (folder / "below").mkdir(parents=True)
    for index in range(8):
        picture(index).save((folder / "below" if index == 7 else folder) / f"photo {index}.png")
    return folder


@pytest.fixture
def painting(tmp_path: Path) -> Path:
    path = tmp_path / "my painting.png"
    picture(100, 64, 64).save(path)
    return path


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
