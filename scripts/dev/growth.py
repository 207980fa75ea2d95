"""Measure how the cost of what fast_nst does grows with its size, on this machine.

python scripts/dev/growth.py

For every case, print the sizes, their seconds (medians of rounds in which all sizes take turns) and the exponent e of
seconds ~ size^e between the smallest and the largest size. 1 is linear; below 1, part of the cost is fixed.
"""

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from benchmark import interleave
from PIL import Image
from torch import Tensor
from train_step import timed

from fast_nst import data, loss_networks, networks
from fast_nst.commands import cli
from fast_nst.commands.build import loss_settings
from fast_nst.data.batch import Batch
from fast_nst.errors import check_int
from fast_nst.losses import PerceptualLoss, layers_needed
from fast_nst.machine import keep_freed_memory
from fast_nst.methods.style_transfer import training_terms
from fast_nst.stylize.image import stylize_tensor

CPU = torch.device("cpu")
TRAIN = Path(__file__).parents[1] / "train.py"


def stylizing(side: int) -> Callable[[], float]:
    """Return a call that times stylizing an image of `side` x `side` pixels."""
    network = networks.build("slim").eval().to(memory_format=torch.channels_last)
    return partial(timed, partial(stylize_tensor, network, torch.rand(1, 3, side, side)), CPU)


def step(batch: int = 4, side: int = 128, styles: int = 1) -> Callable[[], float]:
    """Return a call that times a forward and backward pass with the default network, losses and loss network."""
    settings = loss_settings()
    loss_network = loss_networks.build("compact", layers_needed(settings["content_layers"], settings["style_layers"]))
    loss = PerceptualLoss(loss_network, [torch.rand(1, 3, 64, 64) for _ in range(styles)], **settings)
    network = networks.build("conditional", num_styles=styles).to(memory_format=torch.channels_last)
    weights = torch.eye(styles)[torch.arange(batch) % styles]
    images = Batch(content=torch.rand(batch, 3, side, side), style=weights)
    return partial(timed, lambda: training_terms(network, images, loss=loss)["loss"].backward(), CPU)


def training(steps: int) -> Callable[[], float]:
    """Return a call that times the whole command, with a small network."""
    words = ["style=cubist", "network=slim", "network.width=8", "network.blocks=1", "init_from=null", "data.count=8",
             "data.size=64", f"trainer.max_steps={steps}"]  # fmt: skip

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(TRAIN), *words, f"output_dir={folder}/run"]
            subprocess.run(command, check=True, capture_output=True, cwd=folder)

    return partial(timed, run, CPU)


def opening(count: int, root: Path) -> Callable[[], float]:
    """Return a call that times finding and probing the content images in a folder of `count` pictures."""
    folder = root / str(count)
    folder.mkdir()
    Image.new("RGB", (64, 64)).save(folder / "0.png")
    for index in range(1, count):
        os.link(folder / "0.png", folder / f"{index}.png")
    crops = {"size": 32, "crop": "center", "val_images": 1, "val_size": 32, "seed": 0}
    return partial(timed, partial(data.build, "folder", root=folder, **crops), CPU)  # type: ignore[arg-type]


def _exchange(rank: int, count: int, file: str, gradient: Tensor, seconds: Tensor) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=count)
    for index in range(11):
        dist.barrier()
        started = time.perf_counter()
        dist.all_reduce(gradient.clone())
        if index and not rank:
            seconds[index - 1] = time.perf_counter() - started
    dist.destroy_process_group()


def exchanging(count: int, root: Path) -> Callable[[], float]:
    """Return a call that times summing the gradient of the default network over `count` processes."""
    size = sum(p.numel() for p in networks.build("conditional", num_styles=1).parameters())

    def run() -> float:
        seconds = torch.zeros(10).share_memory_()
        with tempfile.NamedTemporaryFile(dir=root) as file:
            mp.spawn(_exchange, (count, f"{file.name}.rendezvous", torch.rand(size), seconds), count)
        return float(seconds.median())

    return run


def measure(name: str, sizes: Sequence[int], make: Callable[[int], Callable[[], float]], rounds: int) -> None:
    seconds = interleave({str(size): make(size) for size in sizes}, rounds)
    exponent = math.log(seconds[str(sizes[-1])] / seconds[str(sizes[0])]) / math.log(sizes[-1] / sizes[0])
    figures = ", ".join(f"{size}: {s:.3g}" for size, s in seconds.items())
    print(f"| {name} | {figures} | {exponent:.2f} |", flush=True)


def main() -> None:
    parser = cli.Parser(description="Measure how cost grows with size on this machine.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="small sizes, which test the script")
    arguments = parser.parse_args()
    rounds, small = check_int("--rounds", arguments.rounds, 1), arguments.small
    keep_freed_memory()
    print("| what | size: seconds | exponent |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        squares = (32, 64) if small else (256, 512, 1024, 2048)
        measure("pixels, stylizing", [n * n for n in squares], lambda n: stylizing(math.isqrt(n)), rounds)
        crops = (64, 96) if small else (96, 192, 384)
        measure("pixels, a step", [n * n for n in crops], lambda n: step(1, math.isqrt(n)), rounds)
        measure("images in a step", (1, 2) if small else (1, 4, 16), lambda n: step(n, 64 if small else 128), rounds)
        measure("styles, a step", (1, 2) if small else (1, 8, 64), lambda n: step(2, 64 if small else 128, n), rounds)
        measure("steps, the command", (1, 2) if small else (100, 400, 1600), training, 1)
        measure("pictures, opened", (10, 20) if small else (100, 1000, 10000), partial(opening, root=folder), rounds)
        measure("processes, a sum", (2, 3) if small else (2, 4, 8), partial(exchanging, root=folder), rounds)


if __name__ == "__main__":
    cli.run(main)
