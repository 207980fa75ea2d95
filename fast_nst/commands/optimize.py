"""Repaint one photograph by optimising its pixels: slow, the reference for quality (Gatys 2015).

python scripts/optimize.py style=starry_night content=photo.jpg
python scripts/optimize.py experiment=texture_synthesis style=starry_night
python scripts/optimize.py experiment=feature_inversion content=photo.jpg
"""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from fast_nst import image, optimize
from fast_nst.commands import cli
from fast_nst.commands.build import further_paintings, make_loss, style_name
from fast_nst.commands.config import CONFIGS, run, settle
from fast_nst.data import styles
from fast_nst.device import find_devices, free_memory, is_out_of_memory, keep_memory
from fast_nst.errors import RunError, UserError, check_choice, check_int
from fast_nst.stylize import KEEP_COLORS
from fast_nst.weights import sha256

SMALLEST = 32  # pixels of a side, at any of the scales


def photograph_of(cfg: dict[str, Any]) -> Tensor:
    """The photograph at its final size, (1, 3, H, W); a grey square where there is none and none is needed."""
    size = check_int("size", cfg["size"], SMALLEST, styles.LONGEST)
    if cfg["content"] is not None:
        return image.to_tensor(image.resize_longer(image.open_picture(cfg["content"]).on_white(), size))
    if cfg["loss"]["content_weight"]:
        raise UserError("content: give a photograph, content=FILE, or loss.content_weight=0 for a texture")
    return torch.full((1, 3, size, size), 0.5)


def optimize_photograph(composed: DictConfig) -> None:
    settle(composed)
    cfg: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    painting = styles.find(cfg["style"]["image"])
    name = style_name(cfg, painting)
    photograph = photograph_of(cfg)
    stem = "texture" if cfg["content"] is None else Path(cfg["content"]).stem
    kind = f"{name}_optimized" if cfg["loss"]["style_weight"] else "inverted"
    output = Path(f"{stem}_{kind}.png" if cfg["output"] is None else cfg["output"])
    image.check_writable(output)
    unfinished = output.with_name(f"{output.stem}_unfinished.png")  # what an interrupted run leaves
    paintings = [painting, *(path for path, _ in further_paintings(cfg))]
    inputs = [*paintings, *([] if cfg["content"] is None else [cfg["content"]])]
    cli.check_new("output", output, cfg["overwrite"], inputs, "overwrite=true")
    cli.check_apart("output", [unfinished], inputs)
    if cfg["start"] not in optimize.STARTS:
        cli.check_apart("output", [output], [cfg["start"]])
    if unfinished.exists() and not image.was_made(unfinished):
        raise UserError(f"output: {unfinished} is where an unfinished result goes, and another picture; move it")
    if cfg["keep_colors"] is not None:
        check_choice("keep_colors", cfg["keep_colors"], tuple(KEEP_COLORS))
    check_choice("method", cfg["method"], optimize.METHODS)
    begin = None if cfg["start"] in optimize.STARTS else image.to_tensor(image.open_picture(cfg["start"]).on_white())
    steps, scales = check_int("steps", cfg["steps"], 1), check_int("scales", cfg["scales"], 1)
    every = check_int("preview_every_n_steps", cfg["preview_every_n_steps"], 1)
    device = find_devices(cfg["device"], "device")[0]

    size, losses = cfg["style"]["size"], []
    for scale in reversed(range(scales)):
        losses.append(
            make_loss(cfg, painting, None if size is None else max(SMALLEST, round(size / 2**scale))).to(device)
        )
    height, width = photograph.shape[2:]
    least = max(SMALLEST, losses[0].smallest)
    if (shorter := min(height, width)) < least:
        raise UserError(
            f"size: got {cfg['size']}, with which this photograph's shorter side has {shorter} pixels; allowed: "
            f"{least} of them on, size={math.ceil(cfg['size'] * least / shorter)}"
        )
    image.check_fits(output, width, height)
    needed = optimize.memory_needed(losses[-1], height, width, steps, cfg["method"])
    if needed > (free := free_memory(device)):
        raise UserError(
            f"size: {cfg['size']} needs about {needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} are free; "
            f"{max(SMALLEST, int(cfg['size'] * (free / needed) ** 0.5) // 100 * 100)} needs less"
        )

    result: Tensor | None = None
    terms: Mapping[str, float] = {}
    shown = False
    with tqdm(total=steps * scales, unit="step") as bar:

        def show(step: int, found: Mapping[str, float], now: Tensor) -> None:
            nonlocal terms, shown
            terms = found
            bar.set_postfix_str("  ".join(f"{key} {value:.4g}" for key, value in found.items()))
            bar.update()
            if step and step % every == 0:
                image.save_picture(image.to_pillow(now), unfinished, made="unfinished")
                shown = True

        for scale, loss in zip(reversed(range(scales)), losses, strict=True):
            height, width = (max(least, round(side / 2**scale)) for side in photograph.shape[2:])
            target = optimize.resized(photograph, height, width).to(device)
            if result is None:
                seed = check_int("seed", cfg["seed"], 0, 2**32 - 1)
                start = (
                    optimize.begin(cfg["start"], target, seed)
                    if begin is None
                    else optimize.resized(begin, height, width).to(device)
                )
            else:
                start = optimize.resized(result, height, width)
            try:
                result = optimize.optimize(start, target, loss, steps, cfg["method"], cfg["learning_rate"], show)
            except KeyboardInterrupt:
                if shown:
                    tqdm.write(f"so far: {unfinished}; go on from it with start={unfinished}", file=sys.stderr)
                raise
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise RunError(f"out of memory on {device}; a smaller size needs less") from None
                raise
    assert result is not None
    result = result.cpu()
    if cfg["keep_colors"] is not None:
        result = KEEP_COLORS[cfg["keep_colors"]](result, photograph)
    settings = {**cfg, "style_sha256": [sha256(path) for path in paintings], "last_losses": terms}
    image.save_picture(image.to_pillow(result), output, made=json.dumps(settings))
    if shown:
        unfinished.unlink(missing_ok=True)
    print(output)


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="optimize")
def main(composed: DictConfig) -> None:
    keep_memory()
    try:
        optimize_photograph(composed)
    except (*cli.MISTAKES, RunError) as error:
        sys.exit(cli.report(error))


def command_line() -> None:
    run(main, "optimize")
