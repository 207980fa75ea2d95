"""The preview of a run: a picture of what the network makes at this point."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor, nn

from fast_nst import image
from fast_nst.data.dataset import ContentImages
from fast_nst.networks import Network
from fast_nst.networks.generator import Generator
from fast_nst.networks.super_resolution import enlarge, shrink
from fast_nst.stylize.sheet import sheet, stack, tile


class Preview(pl.Callback):
    """Write the picture that `draw` makes from the method to TensorBoard and to `path`.

    Do so every `every_n_steps` steps and at the end. During `draw` the method's `network` is in evaluation mode.
    """

    def __init__(self, path: Path, draw: Callable[[Any], Image.Image], every_n_steps: int) -> None:
        self.path, self.draw, self.every_n_steps = path, draw, every_n_steps
        self.written = -1  # the step of the last picture

    @torch.no_grad()
    def _write(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or trainer.global_step == self.written:
            return
        self.written = trainer.global_step
        network = cast(nn.Module, module.network).eval()
        picture = self.draw(module)
        network.train()
        image.save_picture(picture, self.path)
        for logger in trainer.loggers:
            if isinstance(logger, pl.loggers.TensorBoardLogger):
                logger.experiment.add_image("preview", image.to_tensor(picture)[0], trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            self._write(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer, pl_module)


class StylizedSheet:
    """Draw a sheet for each style, with its image, some content images and their outputs.

    styles: the style images, (1, 3, h, w) each, of the last styles if the network has several. contents: the content
    images, of which the first `count` are shown.
    """

    def __init__(self, styles: Sequence[Tensor], contents: ContentImages, count: int) -> None:
        self.styles, self.contents, self.count = styles, contents, min(count, len(contents))

    def __call__(self, module: pl.LightningModule) -> Image.Image:
        network, batch = cast(Network, module.network), torch.stack([self.contents[i] for i in range(self.count)])
        several = len(self.styles) if network.num_styles > 1 else 1
        rows = []
        for index, painting in enumerate(self.styles[:several], network.num_styles - several):
            style = torch.eye(network.num_styles, device=module.device)[index : index + 1]
            outputs = [network(item[None].to(module.device), style).float().cpu() for item in batch]
            rows.append(sheet(painting, batch, torch.cat(outputs)))
        return stack(rows)


class EnlargedSheet:
    """Draw a row for each image: the shrunk image enlarged by bicubic interpolation, the output, and the original.

    originals: the images, of which the first `count` are shown. scale: the network's scale.
    """

    def __init__(self, originals: ContentImages, scale: int, count: int) -> None:
        self.originals, self.scale, self.count = originals, scale, min(count, len(originals))

    def __call__(self, module: pl.LightningModule) -> Image.Image:
        network, pictures = cast(Network, module.network), []
        for index in range(self.count):
            original = self.originals[index][None]
            small = shrink(original, self.scale)
            pictures += [enlarge(small, self.scale), network(small.to(module.device)).float().cpu(), original]
        return tile([image.to_pillow(picture) for picture in pictures], 3)


class GeneratedSheet:
    """Draw 64 images of a generator, from the same noise at every call, in rows of 8 that take its styles in turn."""

    def __init__(self, styles: int, noise: int) -> None:
        self.noise = torch.randn(64, noise, generator=torch.Generator().manual_seed(0))
        self.styles = torch.arange(64) // 8 % styles

    def __call__(self, module: pl.LightningModule) -> Image.Image:
        network = cast(Generator, module.network)
        known = network.get_buffer("known")
        images = network(self.noise.to(known), known[self.styles.to(known.device)]).cpu()
        return tile([image.to_pillow(picture[None]) for picture in images], 8, 0)
