"""Stylize one photograph by optimizing its pixels: slow, but the reference for quality (Gatys 2015).

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
from fast_nst.commands.build import file_name, further_paintings, make_loss
from fast_nst.commands.config import CONFIGS, run, settle
from fast_nst.data import styles
from fast_nst.device import find_devices, free_memory
from fast_nst.errors import RunError, UserError, check_choice, check_int
from fast_nst.losses import PerceptualLoss
from fast_nst.machine import is_out_of_memory, keep_freed_memory
from fast_nst.stylize.color import KEEP_COLORS
from fast_nst.weights import sha256

SMALLEST = 32  # pixels of a side, at any level of the pyramid


def load_content(cfg: dict[str, Any]) -> Tensor:
    """Load the photograph at its final size, (1, 3, H, W). Return a gray square if none is given and none is needed."""
    size = check_int("size", cfg["size"], SMALLEST, styles.LONGEST)
    if cfg["content"] is not None:
        return image.to_tensor(image.resize_longer(image.open_picture(cfg["content"]).on_white(), size))
    if cfg["loss"]["content_weight"]:
        raise UserError("content: give a photograph, content=FILE, or loss.content_weight=0 for a texture")
    return torch.full((1, 3, size, size), 0.5)


def plan_output(cfg: dict[str, Any], paintings: list[Path], name: str) -> tuple[Path, Path]:
    """Return the paths of the output and of unfinished results. Raises UserError if either must not be replaced."""
    stem = "texture" if cfg["content"] is None else Path(cfg["content"]).stem
    kind = f"{name}_optimized" if cfg["loss"]["style_weight"] else "inverted"
    output = Path(f"{stem}_{kind}.png" if cfg["output"] is None else cfg["output"])
    image.check_writable(output)
    unfinished = output.with_name(f"{output.stem}_unfinished.png")
    inputs = [*paintings, *([] if cfg["content"] is None else [cfg["content"]])]
    cli.check_new("output", output, cfg["overwrite"], inputs, "overwrite=true")
    cli.check_apart("output", [unfinished], inputs)
    if cfg["init"] not in optimize.STARTS:
        cli.check_apart("output", [output], [cfg["init"]])
    if unfinished.exists() and not image.is_output(unfinished):
        raise UserError(f"output: {unfinished}: unfinished results would replace this picture; move it")
    return output, unfinished


def build_losses(cfg: dict[str, Any], painting: Path, device: torch.device) -> list[PerceptualLoss]:
    """Build the loss of each level of the pyramid, coarse to fine; `style.size` doubles from level to level."""
    size = cfg["style"]["size"]
    if isinstance(size, list):
        raise UserError(f"style.size: got {size}; allowed: one size")
    levels = reversed(range(check_int("pyramid_levels", cfg["pyramid_levels"], 1)))
    sizes = [None if size is None else max(SMALLEST, round(size / 2**level)) for level in levels]
    return [make_loss(cfg, [painting], [size]).to(device) for size in sizes]


def check_size(cfg: dict[str, Any], content: Tensor, losses: list[PerceptualLoss], steps: int) -> None:
    """Raise UserError if the photograph is too small for the loss or too large for the memory."""
    height, width = content.shape[2:]
    least = max(SMALLEST, losses[0].smallest)
    if (shorter := min(height, width)) < least:
        raise UserError(
            f"size: got {cfg['size']}, which makes this photograph's shorter side {shorter} pixels; allowed: "
            f"{least} or more, which takes size={math.ceil(cfg['size'] * least / shorter)}"
        )
    needed = optimize.memory_needed(losses[-1], height, width, steps, cfg["algorithm"])
    if needed > (free := free_memory(losses[-1].styles[0].device)):
        raise UserError(
            f"size: {cfg['size']} needs about {needed / 2**30:.1f} GiB of memory, but {free / 2**30:.1f} are free; "
            f"{max(SMALLEST, int(cfg['size'] * (free / needed) ** 0.5) // 100 * 100)} needs less"
        )


class Progress:
    """A progress bar over all steps. It saves the result so far to `unfinished` every `every` steps of a level."""

    def __init__(self, total: int, unfinished: Path, every: int) -> None:
        self.bar, self.unfinished, self.every = tqdm(total=total, unit="step"), unfinished, every
        self.terms: Mapping[str, float] = {}
        self.saved = False

    def __call__(self, step: int, terms: Mapping[str, float], current: Tensor) -> None:
        self.terms = terms
        self.bar.set_postfix_str("  ".join(f"{key} {value:.4g}" for key, value in terms.items()))
        self.bar.update()
        if step and step % self.every == 0:
            image.save_picture(image.to_pillow(current), self.unfinished, provenance="unfinished")
            self.saved = True


def optimize_pyramid(
    cfg: dict[str, Any], content: Tensor, losses: list[PerceptualLoss], steps: int, progress: Progress
) -> Tensor:
    """Optimize coarse to fine; each level starts from the result of the one before. Raises UserError, RunError."""
    result: Tensor | None = None
    device, least = losses[0].styles[0].device, max(SMALLEST, losses[0].smallest)
    given = None if cfg["init"] in optimize.STARTS else image.to_tensor(image.open_picture(cfg["init"]).on_white())
    seed = check_int("seed", cfg["seed"], 0, 2**32 - 1)
    for level, loss in zip(reversed(range(len(losses))), losses, strict=True):
        height, width = (max(least, round(side / 2**level)) for side in content.shape[2:])
        target = optimize.resized(content, height, width).to(device)
        if result is not None:
            start = optimize.resized(result, height, width)
        elif given is not None:
            start = optimize.resized(given, height, width).to(device)
        else:
            start = optimize.begin(cfg["init"], target, seed)
        try:
            result = optimize.optimize(start, target, loss, steps, cfg["algorithm"], cfg["learning_rate"], progress)
        except KeyboardInterrupt:
            if progress.saved:
                where = progress.unfinished
                tqdm.write(f"the result so far is in {where}; continue with init={where}", file=sys.stderr)
            raise
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise RunError(f"out of memory on {device}; a smaller size needs less") from None
            raise
    assert result is not None
    return result.cpu()


def optimize_photograph(cfg: dict[str, Any]) -> None:
    if not isinstance(cfg["style"]["image"], str):
        raise UserError(f"style.image: got {cfg['style']['image']}; allowed: one painting")
    painting = styles.find(cfg["style"]["image"])
    content = load_content(cfg)
    paintings = [painting, *(path for path, _ in further_paintings(cfg))]
    output, unfinished = plan_output(cfg, paintings, file_name(cfg, painting.stem))
    if cfg["keep_colors"] is not None:
        check_choice("keep_colors", cfg["keep_colors"], tuple(KEEP_COLORS))
    check_choice("algorithm", cfg["algorithm"], optimize.ALGORITHMS)
    if cfg["init"] not in optimize.STARTS:
        image.open_picture(cfg["init"])
    steps = check_int("steps", cfg["steps"], 1)
    every = check_int("preview_every_n_steps", cfg["preview_every_n_steps"], 1)
    losses = build_losses(cfg, painting, find_devices(cfg["device"], "device")[0])
    image.check_fits(output, content.shape[3], content.shape[2])
    check_size(cfg, content, losses, steps)
    progress = Progress(steps * len(losses), unfinished, every)
    with progress.bar:
        result = optimize_pyramid(cfg, content, losses, steps, progress)
    if cfg["keep_colors"] is not None:
        result = KEEP_COLORS[cfg["keep_colors"]](result, content)
    settings = {**cfg, "style_sha256": [sha256(path) for path in paintings], "last_losses": progress.terms}
    image.save_picture(image.to_pillow(result), output, provenance=json.dumps(settings))
    if progress.saved:
        unfinished.unlink(missing_ok=True)
    print(output)


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="optimize")
def main(composed: DictConfig) -> None:
    keep_freed_memory()
    try:
        settle(composed)
        optimize_photograph(OmegaConf.to_container(composed, resolve=True))  # type: ignore[arg-type]
    except cli.known_errors() as error:
        sys.exit(cli.report(error))


def command_line() -> None:
    run(main, "optimize")
