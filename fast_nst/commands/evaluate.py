"""Score trained networks: held-out losses, and how many steps of the slow method reach the same objective.

python scripts/evaluate.py starry_night.safetensors --style painting.jpg --content photographs --json scores.json
python scripts/evaluate.py a.safetensors b.safetensors --style painting.jpg --content photographs \
    --loss-network vgg19 --loss-network-weights vgg19.safetensors --sheet sheet.png

The objective is content + 10 x style, normalized, with Johnson 2016's layers. "Equivalent steps" are the L-BFGS steps
that Gatys' optimization takes on the same image to reach the network's objective: from noise, as in Johnson 2016
(figure 5), and from the photograph. SSIM and, with --lpips, LPIPS compare outputs with the photograph. Networks of
experiment=super_resolution get other scores (see `evaluate_enlarged`).
"""

import argparse
import contextlib
import json
import statistics
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
from tqdm import tqdm

from fast_nst import image, loss_networks, weights
from fast_nst.atomic import atomic_write, check_place
from fast_nst.commands import cli, evaluate_enlarged
from fast_nst.data import styles
from fast_nst.data.dataset import center_square
from fast_nst.errors import UserError, check_int, check_number
from fast_nst.evaluate import STILL, Curves, equivalent_steps, steadiness
from fast_nst.listing import list_pictures
from fast_nst.loss_networks import compact
from fast_nst.losses import PerceptualLoss
from fast_nst.losses.functional import tv_mean
from fast_nst.machine import keep_freed_memory
from fast_nst.networks import Network
from fast_nst.networks.super_resolution import SuperResolution
from fast_nst.stylize.choice import load_style
from fast_nst.stylize.frames import FramePainter
from fast_nst.stylize.image import stylize_tensor
from fast_nst.stylize.sheet import grid, grid_size

CONTENT = {"relu3_3": 1.0}
STYLE = dict.fromkeys(("relu1_2", "relu2_2", "relu3_3", "relu4_3"), 1.0)  # Johnson 2016's layers
STARTS = ("noise", "content")
SIZES = [256]  # the default sides in pixels
SHOWN = 4  # photographs on the sheet


def squares(folder: str, count: int, size: int) -> list[Tensor]:
    """Return the center squares of the first `count` readable photographs, each (1, 3, size, size)."""
    found: list[Tensor] = []
    for path in list_pictures(folder, "--content"):
        if len(found) == count:
            break
        try:
            picture = image.open_picture(path).on_white()
        except image.ImageError as error:
            print(f"skipped: {error}", file=sys.stderr)
            continue
        found.append(image.to_tensor(center_square(picture, size)))
    if not found:
        raise UserError(f"--content: {folder}: no picture in it can be read")
    return found


def quartiles(values: list[float]) -> dict[str, float]:
    """Return the median and the first and third quartiles."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return {"median": float(middle), "quartile_1": float(low), "quartile_3": float(high)}


def likenesses(lpips: bool) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Return measures of two (1, 3, H, W) in [0, 1]: SSIM and, if `lpips` and its weights can be loaded, LPIPS."""

    def ssim(result: Tensor, photograph: Tensor) -> Tensor:
        found = structural_similarity_index_measure(result, photograph, data_range=1.0)
        assert isinstance(found, Tensor)
        return found

    found: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"SSIM": ssim}
    if lpips:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # the download's messages
                found["LPIPS"] = LearnedPerceptualImagePatchSimilarity("alex", normalize=True)
        except (OSError, RuntimeError) as error:  # no network; a broken download
            print(f"skipping LPIPS: its weights are missing and cannot be downloaded ({error})", file=sys.stderr)
    return found


def plot(curves: list[np.ndarray], value: float, side: int) -> Image.Image:
    """Plot the objective on a log scale: `curves` from noise and from the photograph, and a line at `value`.

    side: the side of the square plot in pixels.
    """
    picture = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(picture)
    logs = [np.log10(np.maximum(curve, 1e-6)) for curve in curves]
    low = min(min(float(log.min()) for log in logs), float(np.log10(value))) - 0.05
    high = min(max(float(log.max()) for log in logs), low + 3)

    def y(log: float) -> float:
        return 4 + (side - 8) * (high - min(log, high)) / (high - low)

    for log, color in zip(logs, ("black", "gray"), strict=True):
        points = [(4 + (side - 8) * i / max(1, len(log) - 1), y(float(v))) for i, v in enumerate(log)]
        draw.line(points, fill=color, width=2)
    draw.line([(4, y(float(np.log10(value)))), (side - 4, y(float(np.log10(value))))], fill="red", width=2)
    return picture


def measure(
    trained: Mapping[str, tuple[Network, Mapping[str, Any]]],
    photographs: list[Tensor],
    loss: PerceptualLoss,
    curves: Curves,
    steps: int,
    likeness_of: Mapping[str, Callable[[Tensor, Tensor], Tensor]],
    shown: int,
) -> tuple[dict[str, dict[str, list[float]]], list[list[Image.Image]]]:
    """Return {weights file: {score: one value per photograph}}, and the first `shown` rows of the sheet."""
    tables: dict[str, dict[str, list[float]]] = {path: {} for path in trained}
    first = tables[next(iter(trained))]
    rows: list[list[Image.Image]] = []
    bar = tqdm(total=len(photographs) * len(STARTS) * steps, unit="step", desc=f"{photographs[0].shape[2]} px")
    for index, photograph in enumerate(photographs, 1):
        slow = {start: curves.get(photograph, loss, steps, start, bar.update) for start in STARTS}
        bar.update(index * len(STARTS) * steps - bar.n)  # counts the steps of cached curves
        results = []
        for path, (network, _) in trained.items():
            result = stylize_tensor(network, photograph)
            results.append(image.to_pillow(result))
            with torch.no_grad():
                terms = {key: float(value) for key, value in loss(result, photograph).items()}
                terms["tv"] = float(tv_mean(result))
                terms |= {key: float(likeness(result.cpu(), photograph.cpu())) for key, likeness in likeness_of.items()}
            for start, (curve, _) in slow.items():
                terms[f"equivalent steps from {start}"] = equivalent_steps(curve, terms["loss"])
            for key, value in terms.items():
                tables[path].setdefault(key, []).append(value)
        if len(rows) < shown:
            reached = max(1, int(first["equivalent steps from noise"][-1]))
            as_many = image.to_pillow(curves.get(photograph, loss, reached, "noise")[1])
            lines = plot([slow[s][0] for s in STARTS], first["loss"][-1], photograph.shape[2])
            end = image.to_pillow(slow["noise"][1])
            rows.append([image.to_pillow(photograph), *results, as_many, end, lines])
    bar.close()
    return tables, rows


def measure_steadiness(
    tables: dict[str, dict[str, list[float]]],
    trained: Mapping[str, tuple[Network, Mapping[str, Any]]],
    stills: list[Tensor],
    size: int,
) -> None:
    """Add each network's temporal errors to `tables`, and those of the photographs themselves."""
    for still in tqdm(stills, unit="photo", desc=f"{size} px, moving"):
        own = steadiness(still, size, lambda: contextlib.nullcontext(lambda frame: frame))
        for path, (network, _) in trained.items():
            errors = steadiness(still, size, partial(FramePainter, network))
            for key, value in {**errors, **{f"{key}, photograph": value for key, value in own.items()}}.items():
                tables[path].setdefault(key, []).append(value)


def parse() -> argparse.Namespace:
    parser = cli.Parser(description="Score trained networks against the slow method.")
    parser.add_argument("weights", metavar="WEIGHTS", nargs="+", help="FILE, FILE:STYLE or a bundled style")
    parser.add_argument("--content", required=True, metavar="DIR", help="held-out photographs")
    parser.add_argument("--style", metavar="FILE", help="the painting (default: the network's, if it is bundled)")
    parser.add_argument("--images", type=int, default=20, help="photographs, at most (default: %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--steps", type=int, default=300, help="steps of the slow method (default: %(default)s)")
    parser.add_argument("--loss-network", default="compact", choices=loss_networks.NAMES)
    parser.add_argument("--loss-network-weights", metavar="FILE")
    parser.add_argument(
        "--style-weight", type=float, default=10.0,
        help="weight in the objective, content + weight x style (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--cache", default=".fast_nst_curves", metavar="DIR",
        help="folder that keeps the slow method's curves (default: %(default)s, in the current folder)",
    )  # fmt: skip
    parser.add_argument(
        "--lpips", action="store_true", help="also compute LPIPS, if its weights exist or can be downloaded"
    )
    parser.add_argument(
        "--temporal", action="store_true",
        help="also measure how steady the outputs are while a camera pans, zooms and turns over each photograph",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--sheet", metavar="FILE", help="write a picture: photographs, outputs, the slow method's results, curves"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing --json and --sheet files")
    return parser.parse_args()


def check_options(arguments: argparse.Namespace) -> None:
    """Raise UserError for values out of range, and for outputs that cannot be written."""
    for name in ("images", "steps"):
        check_int(f"--{name}", getattr(arguments, name), 1)
    for size in arguments.sizes or ():
        check_int("--sizes", size, 32)
    check_number("--style-weight", arguments.style_weight, 0)
    inputs = [*arguments.weights, *list_pictures(arguments.content, "--content")]
    inputs += [] if arguments.style is None else [styles.find(arguments.style)]
    if arguments.sheet is not None:
        image.check_writable(arguments.sheet)
        cli.check_new("--sheet", arguments.sheet, arguments.overwrite, inputs)
        rows_shown = min(SHOWN, arguments.images)
        image.check_fits(
            arguments.sheet, *grid_size(rows_shown, len(arguments.weights) + 4, (arguments.sizes or SIZES)[0])
        )
    if arguments.json is not None:
        cli.check_json(arguments.json, arguments.overwrite, inputs)
    if Path(arguments.cache).is_file():
        raise UserError(f"--cache: {arguments.cache}: is a file; give a folder")
    check_place(Path(arguments.cache) / "curves")


def build_objective(arguments: argparse.Namespace, name: str, device: torch.device) -> tuple[PerceptualLoss, Curves]:
    """Return the objective for the style `name`, and the cache of the slow method's curves."""
    try:
        painting = styles.load(styles.find(arguments.style or f"{styles.BUNDLED}{name}.jpg"), 256)
    except image.ImageError as error:
        raise error if arguments.style else UserError(f"--style: give the painting of {name}, --style FILE") from None
    loss_network = loss_networks.build(arguments.loss_network, [*CONTENT, *STYLE], arguments.loss_network_weights)
    loss = PerceptualLoss(
        loss_network, painting, content_layers=CONTENT, style_layers=STYLE, content_weight=1.0,
        style_weight=arguments.style_weight, normalize=True,
    ).to(device)  # fmt: skip
    # A downloaded VGG is identified by its name; compact changes with the package.
    file = arguments.loss_network_weights or (compact.ASSET if arguments.loss_network == "compact" else None)
    digest = "" if file is None else weights.sha256(file)
    about = f"{arguments.loss_network} {digest} {sorted(STYLE)} {arguments.style_weight}"
    return loss, Curves(arguments.cache, about)


def print_figures(figures: dict[str, Any], arguments: argparse.Namespace) -> None:
    for path, by_size in figures.items():
        for size, values in by_size.items():
            print(f"{path}  {size} px, {arguments.loss_network}, style weight {arguments.style_weight:g}")
            for key, value in values.items():
                text = f"{value:.4f}" if isinstance(value, float) else ""
                if isinstance(value, dict):
                    more = " or more" if value["median"] >= arguments.steps else ""
                    text = f"{value['median']:.0f}{more} ({value['quartile_1']:.0f} to {value['quartile_3']:.0f})"
                print(f"  {key:30} {text}")


def main() -> None:
    arguments = parse()
    keep_freed_memory()
    check_options(arguments)
    trained = {path: load_style(path) for path in arguments.weights}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for network, _ in trained.values():
        network.to(device)
    enlarging = {path: network for path, (network, _) in trained.items() if isinstance(network, SuperResolution)}
    if enlarging:
        if len(enlarging) < len(trained):
            raise UserError("WEIGHTS: some networks enlarge and others paint; give networks of one kind")
        for option in ("style", "sizes"):
            if getattr(arguments, option) is not None:
                raise UserError(f"--{option}: is for networks that paint; these enlarge")
        evaluate_enlarged.evaluate(enlarging, arguments)
        return
    arguments.sizes = arguments.sizes or SIZES
    name = "_".join(next(iter(trained.values()))[1].get("style", {}).get("names", ["?"]))
    loss, curves = build_objective(arguments, name, device)
    measures = likenesses(arguments.lpips)
    figures: dict[str, Any] = {path: {} for path in trained}
    rows: list[list[Image.Image]] = []
    for size in arguments.sizes:
        photographs = [x.to(device) for x in squares(arguments.content, arguments.images, size)]
        shown = SHOWN if arguments.sheet is not None and size == arguments.sizes[0] else 0
        tables, pictures = measure(trained, photographs, loss, curves, arguments.steps, measures, shown)
        rows += pictures
        if arguments.temporal:
            stills = [x.to(device) for x in squares(arguments.content, arguments.images, round(STILL * size))]
            measure_steadiness(tables, trained, stills, size)
        for path, table in tables.items():
            figures[path][str(size)] = {
                key: quartiles(values) if "steps" in key else statistics.fmean(values) for key, values in table.items()
            }
    print_figures(figures, arguments)
    if arguments.json is not None:
        with atomic_write(arguments.json) as temporary:
            temporary.write_text(json.dumps(figures, indent=2) + "\n")
    if arguments.sheet is not None:
        heads = ["photograph", *(Path(path).stem for path in trained), "slow method, as many steps",
                 f"slow method, {arguments.steps} steps", "objective by step"]  # fmt: skip
        image.save_picture(grid(rows, heads, arguments.sizes[0]), arguments.sheet)


def command_line() -> None:
    cli.run(main)
