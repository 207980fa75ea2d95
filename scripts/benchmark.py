"""Measure speed: ours beside a reference of plain eager float32 modules, interleaved, on this machine.

python scripts/benchmark.py train
python scripts/benchmark.py infer --sizes 256 512 1024 --json infer.json
python scripts/benchmark.py data --root photographs

Every round runs each case once, so that noise hits all of them; medians and ratios of medians are reported. The
reference is pytorch/examples' fast_neural_style as users run it: written here, apart from the package's own modules.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import command
import torch
import torch.nn.functional as F
import torchvision
from building import default_loss
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from fast_nst import data, loss_networks, machine, networks
from fast_nst.data import style
from fast_nst.loss_networks.network import LossNetwork
from fast_nst.loss_networks.vgg import MEAN, STD, layer_indices
from fast_nst.losses import PerceptualLoss, layers_needed
from fast_nst.validate import Invalid, whole_number

STYLE_LAYERS = {"relu1_2": 1.0, "relu2_2": 1.0, "relu3_3": 1.0, "relu4_3": 1.0}
Step = Callable[[], object]


# --- the reference -----------------------------------------------------------------------------------------------


class ReferenceConv(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, scale: int = 1, last: bool = False):
        layers: list[nn.Module] = [nn.Upsample(scale_factor=scale)] if scale > 1 else []
        layers += [nn.ReflectionPad2d(kernel // 2), nn.Conv2d(inputs, outputs, kernel, stride)]
        if not last:
            layers += [nn.InstanceNorm2d(outputs, affine=True), nn.ReLU()]
        super().__init__(*layers)


class ReferenceResidual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(*ReferenceConv(width, width, 3), *list(ReferenceConv(width, width, 3))[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def reference_network() -> nn.Module:
    """Pixels of 0-255 in and out; 1,679,235 parameters."""
    return nn.Sequential(
        ReferenceConv(3, 32, 9), ReferenceConv(32, 64, 3, 2), ReferenceConv(64, 128, 3, 2),
        *(ReferenceResidual(128) for _ in range(5)),
        ReferenceConv(128, 64, 3, scale=2), ReferenceConv(64, 32, 3, scale=2), ReferenceConv(32, 3, 9, last=True),
    )  # fmt: skip


def reference_step(batch: Tensor, painting: Tensor) -> Step:
    """A training step of the reference: VGG-16 up to relu4_3, all of it in float32."""
    network = reference_network().to(batch.device)
    vgg = torchvision.models.vgg16(weights=None).features[:23].to(batch.device).requires_grad_(False)
    taps = (3, 8, 15, 22)
    mean, std = (torch.tensor(v, device=batch.device)[:, None, None] for v in (MEAN, STD))

    def features(x: Tensor) -> list[Tensor]:
        x, found = (x / 255 - mean) / std, []
        for index, layer in enumerate(vgg):
            x = layer(x)
            if index in taps:
                found.append(x)
                x = x.clone()  # the next ReLU works in place
        return found

    def gram(x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        flat = x.view(b, c, h * w)
        return flat.bmm(flat.transpose(1, 2)) / (c * h * w)

    targets = [gram(f).detach() for f in features(painting * 255)]
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    pixels = batch * 255

    def step() -> None:
        optimizer.zero_grad()
        painted = network(pixels)
        ours, theirs = features(painted), features(pixels)
        loss = 1e5 * F.mse_loss(ours[1], theirs[1])
        for f, target in zip(ours, targets, strict=True):
            loss = loss + 1e10 * F.mse_loss(gram(f), target.expand(len(f), -1, -1))
        loss.backward()
        optimizer.step()

    return step


# --- ours --------------------------------------------------------------------------------------------------------


def random_vgg16(deepest: str) -> LossNetwork:
    """VGG-16 with random weights: speed needs no others."""
    indices = layer_indices("vgg16")
    features = torchvision.models.vgg16(weights=None).features[: indices[deepest] + 1]
    for module in features:
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return LossNetwork(features, {indices[name]: name for name in STYLE_LAYERS}, MEAN, STD)


def our_step(name: str, batch: Tensor, painting: Tensor, low: bool) -> Step:
    """A training step of ours: "johnson" with pytorch/examples' losses on VGG-16, or "slim" with the default's."""
    if name == "johnson":
        network = networks.build("johnson", pixels="rgb255")
        loss = PerceptualLoss(
            random_vgg16("relu4_3"), painting, content_layers={"relu2_2": 1.0}, style_layers=STYLE_LAYERS,
            content_weight=1e5, style_weight=1e10, weighing="absolute",
        )  # fmt: skip
    else:
        network = networks.build("slim")
        terms = default_loss()
        layers = layers_needed(terms["content_layers"], terms["style_layers"])
        loss = PerceptualLoss(loss_networks.build("compact", layers), painting, **terms)
    network.to(batch.device)
    loss.to(batch.device, torch.bfloat16 if low else torch.float32)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, fused=batch.device.type != "mps")

    def step() -> None:
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=low):
            painted = network(batch)
            value = loss(painted, batch)["loss"]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return step


# --- measuring ---------------------------------------------------------------------------------------------------


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleave(cases: dict[str, Step], rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each case over `rounds` rounds of all, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in tqdm(range(rounds + 1), unit="round", leave=False):
        for name, case in cases.items():
            synchronize(device)
            begun = time.perf_counter()
            case()
            synchronize(device)
            if number:
                seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(values) for name, values in seconds.items()}


def flops(case: Step) -> int:
    """Floating-point operations of one call, as they are carried out, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        case()
    return counter.get_total_flops()


def ceilings(device: torch.device) -> dict[str, tuple[Step, float]]:
    """What the machine can do: {name: (a call, its operations, or bytes for the copy)}."""
    found: dict[str, tuple[Step, float]] = {}
    for dtype, label in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
        x = torch.randn(4, 128, 64, 64, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(128, 128, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        a = torch.randn(1024, 1024, device=device, dtype=dtype)
        found[f"convolution {label}"] = (
            partial(F.conv2d, x, weight, padding=1),
            2 * 4 * 64 * 64 * 128 * 128 * 9,
        )
        found[f"matrix product {label}"] = (partial(torch.matmul, a, a), 2 * 1024**3)
    block = torch.empty(64 * 2**20, device=device)
    target = torch.empty_like(block)
    found["memory copy"] = (lambda: target.copy_(block), 2.0 * block.numel() * 4)
    return found


def measure_train(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    torch.manual_seed(0)
    batch = torch.rand(arguments.batch, 3, arguments.size, arguments.size, device=device)
    painting = style.load(style.find("bundled:starry_night.jpg"), 256).to(device)
    low = machine.has_fast_bfloat16(device.type)
    cases = {
        "reference": reference_step(batch, painting),
        "johnson, VGG-16": our_step("johnson", batch, painting, low),
        "slim, compact (default)": our_step("slim", batch, painting, low),
    }
    operations = {name: flops(case) for name, case in cases.items()}
    tops = ceilings(device)
    seconds = interleave({**cases, **{name: call for name, (call, _) in tops.items()}}, arguments.rounds, device)
    rates = {name: amount / seconds[name] / 1e9 for name, (_, amount) in tops.items()}
    top = rates["convolution bfloat16" if low else "convolution float32"]
    return {
        "ceilings, GFLOP/s or GB/s": {name: round(rate, 1) for name, rate in rates.items()},
        "cases": {
            name: {
                "seconds a step": round(seconds[name], 4),
                "images/s": round(arguments.batch / seconds[name], 3),
                "times the reference": round(seconds["reference"] / seconds[name], 2),
                "GFLOP a step": round(operations[name] / 1e9, 1),
                "share of the convolution ceiling": round(
                    operations[name]
                    / seconds[name]
                    / 1e9
                    / (rates["convolution float32"] if name == "reference" else top),
                    3,
                ),
            }
            for name in cases
        },
    }


@torch.inference_mode()
def measure_infer(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    reference = reference_network().to(device).eval()
    ours = {"johnson": networks.build("johnson", pixels="rgb255"), "slim": networks.build("slim")}
    found = {}
    for size in arguments.sizes:
        x = torch.rand(1, 3, size, size, device=device)
        cases: dict[str, Step] = {"reference": partial(reference, x * 255)}
        for name, network in ours.items():
            network.to(device).eval()
            cases[name] = partial(network, x)
        seconds = interleave(cases, arguments.rounds, device)
        found[str(size)] = {
            name: {"seconds": round(s, 4), "times the reference": round(seconds["reference"] / s, 2)}
            for name, s in seconds.items()
        }
    return {"sizes": found}


def measure_data(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    crops: dict[str, Any] = {
        "size": 128, "crop": "random_resized", "scale": (0.25, 1.0), "ratio": (0.8, 1.25), "val_images": 1,
        "val_size": 128, "seed": 0,
    }  # fmt: skip
    cases: dict[str, dict[str, Any]] = {"leaves": {"count": 40}}
    if arguments.root is not None:
        cases["folder"] = {"root": arguments.root}
    found = {}
    for name, options in cases.items():
        begun = time.perf_counter()
        images = data.build(name, **crops, **options).train
        rates = []
        for epoch in range(3):
            begun = time.perf_counter()
            for index in range(len(images)):
                images[epoch * len(images) + index]
            rates.append(len(images) / (time.perf_counter() - begun))
        found[name] = {"images/s, first epoch": round(rates[0], 1), "images/s, later": round(rates[-1], 1)}
    return {"sources": found}


def show(tree: dict[str, Any], depth: int = 0) -> None:
    for key, value in tree.items():
        if isinstance(value, dict) and all(not isinstance(v, dict) for v in value.values()):
            print("  " * depth + f"{key:26}" + "  ".join(f"{name} {v}" for name, v in value.items()))
        elif isinstance(value, dict):
            print("  " * depth + key)
            show(value, depth + 1)
        else:
            print("  " * depth + f"{key}: {value}")


def main() -> None:
    parser = command.Parser(description="Measure speed on this machine.")
    parser.add_argument("what", choices=("train", "infer", "data"))
    parser.add_argument("--size", type=int, default=256, help="train: pixels of a square image")
    parser.add_argument("--batch", type=int, default=4, help="train: images a step")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024], help="infer: pixels of square images")
    parser.add_argument("--root", metavar="DIR", help="data: photographs to decode")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's choice)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    arguments = parser.parse_args()
    for name, least in (("size", 16), ("batch", 1), ("rounds", 1)):
        whole_number(f"--{name}", getattr(arguments, name), least)
    if arguments.threads is not None:
        torch.set_num_threads(whole_number("--threads", arguments.threads, 1))
    try:
        device = torch.device(arguments.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise Invalid(f"--device: {arguments.device} does not work here ({command.one_line(error)[:120]})") from None
    measure = {"train": measure_train, "infer": measure_infer, "data": measure_data}[arguments.what]
    about = {"device": arguments.device, "threads": torch.get_num_threads(), "torch": torch.__version__}
    figures = {**about, **measure(arguments, device)}
    show(figures)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
        print(arguments.json, file=sys.stderr)


if __name__ == "__main__":
    command.run(main)
