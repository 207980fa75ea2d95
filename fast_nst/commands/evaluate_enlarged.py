"""Score networks that enlarge (experiment=super_resolution) on shrunk photographs, next to bicubic interpolation.

PSNR and SSIM are computed on the luma, without a border as wide as the scale (Johnson 2016, sec. 4.2). The feature loss
is the training's (`losses.restoration`). Sharpness is the luma's mean gradient, divided by the original's.
"""

import argparse
import json
import statistics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure
from tqdm import tqdm

from fast_nst import image, loss_networks
from fast_nst.atomic import atomic_write
from fast_nst.data.dataset import center_box
from fast_nst.errors import UserError
from fast_nst.listing import list_pictures
from fast_nst.losses.restoration import RestorationLoss
from fast_nst.networks.super_resolution import SuperResolution, enlarge, shrink
from fast_nst.stylize.image import stylize_tensor
from fast_nst.stylize.sheet import grid

LAYER = "relu2_2"  # Johnson 2016's layer
SHOWN, SIDE = 4, 256  # photographs on the sheet, the side of their middle in pixels


def compare(result: Tensor, original: Tensor, border: int, loss: RestorationLoss) -> dict[str, float]:
    """Return the scores of `result` against `original`, both (1, 3, H, W) in [0, 1]."""
    inner = slice(border, -border)
    ours, theirs = (image.luma(x)[:, :, inner, inner] for x in (result, original))
    gradients = [x.diff(dim=2).abs().mean() + x.diff(dim=3).abs().mean() for x in (ours, theirs)]
    ssim = structural_similarity_index_measure(ours, theirs, data_range=1.0)
    assert isinstance(ssim, Tensor)
    return {
        "PSNR": float(-10 * (ours - theirs).square().mean().clamp_min(1e-10).log10()),
        "SSIM": float(ssim),
        "feature loss": float(loss(result, original)["feature"]),
        "sharpness": float(gradients[0] / gradients[1].clamp_min(1e-10)),
    }


def photographs(paths: Iterable[Path], count: int, scale: int) -> Iterator[Tensor]:
    """Yield the first `count` readable photographs, (1, 3, H, W), cropped so that `scale` divides the sides."""
    found = 0
    for path in paths:
        try:
            picture = image.to_tensor(image.open_picture(path).on_white())
        except image.ImageError as error:
            tqdm.write(f"skipped: {error}")
            continue
        height, width = (side // scale * scale for side in picture.shape[2:])
        if min(height, width) < 16 * scale:
            tqdm.write(f"skipped: {path}: smaller than {16 * scale} pixels")
            continue
        yield picture[:, :, :height, :width]
        found += 1
        if found == count:
            return


@torch.inference_mode()
def evaluate(trained: Mapping[str, SuperResolution], arguments: argparse.Namespace) -> None:
    """Print the scores of the networks `trained`, by file, and write --json and --sheet. Raises UserError."""
    scales = {network.scale for network in trained.values()}
    if len(scales) > 1:
        raise UserError(f"WEIGHTS: got scales {', '.join(map(str, sorted(scales)))}; give networks of one scale")
    (scale,), device = scales, next(next(iter(trained.values())).parameters()).device
    loss_network = loss_networks.build(arguments.loss_network, [LAYER], arguments.loss_network_weights)
    loss = RestorationLoss(loss_network.to(device))
    tables: dict[str, dict[str, list[float]]] = {name: {} for name in ("bicubic", *trained)}
    rows: list[list[Image.Image]] = []
    paths = list_pictures(arguments.content, "--content")
    total = min(arguments.images, len(paths))
    for original in tqdm(photographs(paths, arguments.images, scale), total=total, unit="photo"):
        small = image.to_tensor(image.to_pillow(shrink(original, scale)))  # rounded to the 8 bits of a file
        results = {"bicubic": enlarge(small, scale).clamp(0, 1)}
        results |= {path: stylize_tensor(network, small).cpu() for path, network in trained.items()}
        for name, result in results.items():
            for key, value in compare(result.to(device), original.to(device), scale, loss).items():
                tables[name].setdefault(key, []).append(value)
        if len(rows) < SHOWN:
            pictures = [image.to_pillow(x) for x in (*results.values(), original)]
            rows.append([middle(picture, SIDE) for picture in pictures])
    if not rows:
        raise UserError(f"--content: {arguments.content}: no picture in it can be used")
    figures = {name: {key: statistics.fmean(values) for key, values in table.items()} for name, table in tables.items()}
    for name, values in figures.items():
        print(f"{name}  x{scale}  " + "  ".join(f"{key} {value:.4g}" for key, value in values.items()))
    if arguments.json is not None:
        with atomic_write(arguments.json) as temporary:
            temporary.write_text(json.dumps(figures, indent=2) + "\n")
    if arguments.sheet is not None:
        heads = ["bicubic", *(Path(path).stem for path in trained), "original"]
        image.save_picture(grid(rows, heads, SIDE), arguments.sheet)


def middle(picture: Image.Image, side: int) -> Image.Image:
    """Crop the middle of a picture to `side` x `side` pixels without resizing; enlarge a smaller picture."""
    if min(picture.size) < side:
        return picture.resize((side, side), Image.Resampling.BICUBIC, box=center_box(*picture.size))
    left, top = ((length - side) // 2 for length in picture.size)
    return picture.crop((left, top, left + side, top + side))
