"""Pairs of a small and a large image, for super-resolution."""

from torch.utils.data import Dataset

from fast_nst.data.batch import Batch
from fast_nst.data.dataset import ContentImages
from fast_nst.networks.super_resolution import shrink


class ShrunkImages(Dataset[Batch]):
    """{"content": (3, S / scale, S / scale), "target": (3, S, S)}: each image after `shrink`, and the image itself."""

    def __init__(self, images: ContentImages, scale: int) -> None:
        self.images, self.scale = images, scale

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> Batch:
        target = self.images[position]
        return {"content": shrink(target[None], self.scale)[0], "target": target}
