"""A folder of folders, one for each style, for adversarial generation."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from fast_nst import data, image
from fast_nst.data.batch import Batch
from fast_nst.data.dataset import ContentImages
from fast_nst.listing import list_pictures


class StyleFolders(Dataset[Batch]):
    """{"content": (3, S, S), "style": (K,)}: images of K sets in turn, equally many of each.

    indices: the (set, index) of each image.
    """

    source = None

    def __init__(self, sets: Sequence[ContentImages]) -> None:
        self.sets = sets
        self.indices = [(k, index) for k, images in enumerate(sets) for index in images.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Batch:
        turn, index = divmod(position, len(self.sets))
        return {"content": self.sets[index][turn], "style": F.one_hot(torch.tensor(index), len(self.sets)).float()}


def build(root: str | os.PathLike[str] | None, seed: int, **content: Any) -> tuple[data.Sets, list[str]]:
    """Build the sets from the folders in `root`, one for each style; return the sets and the folders' names.

    content: the other arguments of `data.build`. Raises UserError for fewer than two folders, or one without pictures.
    """
    if root is None:
        raise image.ImageError("data.root: data=folder needs data.root=DIR, a folder with a folder for each style")
    list_pictures(root)  # explains what is wrong with `root`
    folders = sorted(path for path in Path(root).iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(folders) < 2:
        found = f"one style folder, {folders[0].name}" if folders else "no style folder"
        raise image.ImageError(f"data.root: {root}: holds {found}; allowed: two or more, one for each style")
    cache_mib = content.pop("cache_mib", 512) // len(folders)
    sets = [data.build(root=folder, seed=seed, cache_mib=cache_mib, **content) for folder in folders]
    train, val = (StyleFolders(images) for images in zip(*sets, strict=True))
    return data.Sets(train, val), [folder.name for folder in folders]  # type: ignore[arg-type]
