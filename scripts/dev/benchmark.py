"""Measure the speed of fast_nst next to a baseline of plain eager float32 modules, on this machine.

python scripts/dev/benchmark.py train
python scripts/dev/benchmark.py train --cases slim:compact slim:vgg19 --no-reference
python scripts/dev/benchmark.py infer --sizes 256 512 1024 --json infer.json
python scripts/dev/benchmark.py data --root photographs

Every round runs each case once, so that noise affects all of them, and the medians over the rounds are reported. Each
case runs in its own process: the baseline with the C library's default allocator settings, fast_nst with those of the
commands (keep_freed_memory).
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from baseline import Step, baseline_network, baseline_step
from tqdm import tqdm
from train_step import TimedCall, fast_nst_step, timed

from fast_nst import data, loss_networks, networks
from fast_nst.atomic import atomic_write
from fast_nst.commands import cli
from fast_nst.data import styles
from fast_nst.device import find_devices, has_fast_bfloat16
from fast_nst.errors import UserError, check_choice, check_int
from fast_nst.machine import keep_freed_memory
from fast_nst.stylize.image import stylize_tensor

BASELINE = "baseline"
CASES = {
    "train": ("johnson:vgg16", "slim:compact"),
    "infer": ("johnson", "slim"),
}
# Dense bfloat16 TFLOP/s from the data sheets, for the share that a case reaches (MFU).
PEAKS = {"A100": 312.0, "H100": 989.0, "H200": 989.0, "L40S": 362.0, "L4": 121.0}


def interleave(cases: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Return the median seconds that each case reports over `rounds` rounds of all cases, after one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for index in tqdm(range(rounds + 1), unit="round", leave=False):
        for name, case in cases.items():
            elapsed = case()
            if index:
                seconds[name].append(elapsed)
    return {name: statistics.median(values) for name, values in seconds.items()}


def ceilings(device: torch.device) -> dict[str, tuple[Step, float]]:
    """Return calls that measure the machine's peak rates: {name: (call, its operations, or bytes for the copy)}."""
    calls: dict[str, tuple[Step, float]] = {}
    for dtype, label in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
        x = torch.randn(4, 128, 64, 64, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(128, 128, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        a = torch.randn(1024, 1024, device=device, dtype=dtype)
        calls[f"convolution {label}"] = (
            partial(F.conv2d, x, weight, padding=1),
            2 * 4 * 64 * 64 * 128 * 128 * 9,
        )
        calls[f"matrix product {label}"] = (partial(torch.matmul, a, a), 2 * 1024**3)
    block = torch.empty(64 * 2**20, device=device)
    target = torch.empty_like(block)
    calls["memory copy"] = (lambda: target.copy_(block), 2.0 * block.numel() * 4)
    return calls


def uses_bfloat16(arguments: argparse.Namespace, device: torch.device) -> bool:
    if arguments.precision == "auto":
        return has_fast_bfloat16(device.type)
    return bool(arguments.precision == "bfloat16")


class CaseProcess:
    """One case in its own process, with its own memory and C library settings."""

    def __init__(self, arguments: argparse.Namespace, name: str) -> None:
        self.name = name
        command = [sys.executable, __file__, arguments.what, "--alone", "--cases", name]
        for option in ("batch", "size", "device", "precision"):
            command += [f"--{option}", getattr(arguments, option)]
        if arguments.threads is not None:
            command += ["--threads", arguments.threads]
        if arguments.compile:
            command.append("--compile")
        self.process = subprocess.Popen(
            [str(word) for word in command], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.operations = int(self.read())

    def read(self) -> str:
        """Return the process's next line. Raises UserError with its last line on stderr if it has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise UserError(f"{self.name}: {self.process.communicate()[1].strip().splitlines()[-1]}")
        return line

    def __call__(self, size: int) -> float:
        """Run the case once on images of `size` pixels and return its seconds."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{size}\n")
        self.process.stdin.flush()
        return float(self.read())

    def finish(self) -> float:
        """End the process and return its `peak_memory`."""
        return float(self.process.communicate()[0])


def serve(arguments: argparse.Namespace, device: torch.device) -> None:
    """Run as a `CaseProcess`: for each size, a line of stdin, run the case once and print its seconds."""
    (name,) = arguments.cases
    if name != BASELINE:
        keep_freed_memory()
    bf16 = uses_bfloat16(arguments, device)
    torch.manual_seed(0)
    calls: dict[int, TimedCall] = {}
    if arguments.what == "train":
        calls[arguments.size] = training_step(name, arguments, bf16, device)
    print(calls[arguments.size].flops() if calls else 0, flush=True)
    for line in sys.stdin:
        size = int(line)
        if size not in calls:
            calls[size] = TimedCall(inference(name, size, bf16, arguments.compile, device))
        print(calls[size].seconds(device), flush=True)
    print(peak_memory(device))


def training_step(name: str, arguments: argparse.Namespace, bf16: bool, device: torch.device) -> TimedCall:
    batch = torch.rand(arguments.batch, 3, arguments.size, arguments.size, device=device)
    style = styles.load(styles.find("bundled:starry_night.jpg"), 256).to(device)
    if name == BASELINE:
        return TimedCall(baseline_step(batch, style))
    return fast_nst_step(name, batch, style, bf16, arguments.compile)


def inference(name: str, size: int, bf16: bool, compiled: bool, device: torch.device) -> Step:
    x = torch.rand(1, 3, size, size, device=device)
    if name == BASELINE:
        baseline = baseline_network().to(device).eval()
        return torch.inference_mode()(partial(baseline, x * 255))
    network = networks.build(name, **({"pixels": "rgb255"} if name == "johnson" else {}))
    network.to(device).eval().to(memory_format=torch.channels_last)
    if compiled:
        network.forward = torch.compile(network.forward)  # type: ignore[method-assign]
    return partial(stylize_tensor, network, x, dtype=torch.bfloat16 if bf16 else torch.float32)


def measure_train(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    bf16 = uses_bfloat16(arguments, device)
    cases = {name: CaseProcess(arguments, name) for name in arguments.cases}
    peak_calls = ceilings(device)
    calls: dict[str, Callable[[], float]] = {name: partial(case, arguments.size) for name, case in cases.items()}
    calls |= {name: partial(timed, call, device) for name, (call, _) in peak_calls.items()}
    seconds = interleave(calls, arguments.rounds)
    rates = {name: amount / seconds[name] / 1e9 for name, (_, amount) in peak_calls.items()}
    peak = next((peak for key, peak in PEAKS.items() if key in device_name(device)), None)
    table: dict[str, dict[str, float]] = {}
    for name, case in cases.items():
        ceiling = rates["convolution bfloat16" if bf16 and name != BASELINE else "convolution float32"]
        rate = case.operations / seconds[name] / 1e9
        table[name] = {
            "seconds a step": round(seconds[name], 4),
            "images/s": round(arguments.batch / seconds[name], 3),
            **speedup(seconds, name),
            "GFLOP a step": round(case.operations / 1e9, 1),
            "share of the convolution ceiling": round(rate / ceiling, 3),
            "peak memory, MiB": round(case.finish()),
        }
        if peak is not None:
            table[name]["MFU"] = round(rate / 1e3 / peak, 3)
    return {"ceilings, GFLOP/s or GB/s": {name: round(rate, 1) for name, rate in rates.items()}, "cases": table}


def speedup(seconds: dict[str, float], name: str) -> dict[str, float]:
    return {"speedup over baseline": round(seconds[BASELINE] / seconds[name], 2)} if BASELINE in seconds else {}


def measure_infer(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    cases = {name: CaseProcess(arguments, name) for name in arguments.cases}
    table: dict[str, Any] = {}
    for size in arguments.sizes:
        seconds = interleave({name: partial(case, size) for name, case in cases.items()}, arguments.rounds)
        table[str(size)] = {name: {"seconds": round(s, 4), **speedup(seconds, name)} for name, s in seconds.items()}
    return {"sizes": table, "peak memory, MiB": {name: round(case.finish()) for name, case in cases.items()}}


def peak_memory(device: torch.device) -> float:
    """Return the peak memory of this process in MiB; on a GPU, its peak GPU memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # on Linux ru_maxrss starts at the parent's
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def measure_data(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    crops: dict[str, Any] = {
        "size": 128, "crop": "random_resized", "scale": (0.25, 1.0), "ratio": (0.8, 1.25), "val_images": 1,
        "val_size": 128, "seed": 0,
    }  # fmt: skip
    cases: dict[str, dict[str, Any]] = {"synthetic": {"count": 40}}
    if arguments.root is not None:
        cases["folder"] = {"root": arguments.root}
    table = {}
    for name, options in cases.items():
        images = data.build(name, **crops, **options).train
        rates = []
        for epoch in range(3):
            started = time.perf_counter()
            for index in range(len(images)):
                images[epoch * len(images) + index]
            rates.append(len(images) / (time.perf_counter() - started))
        table[name] = {"images/s, first epoch": round(rates[0], 1), "images/s, later": round(rates[-1], 1)}
    return {"sources": table}


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
    parser = cli.Parser(description="Measure speed on this machine.")
    parser.add_argument("what", choices=("train", "infer", "data"))
    parser.add_argument("--cases", nargs="+", help="train: NETWORK:LOSS_NETWORK; infer: NETWORK")
    parser.add_argument("--no-reference", action="store_true", help="leave out the baseline")
    parser.add_argument("--size", type=int, default=256, help="train: side of a square image, in pixels")
    parser.add_argument("--batch", type=int, default=4, help="train: images per step")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[256, 512, 1024], help="infer: sides of square images, in pixels"
    )
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto", help="for fast_nst")
    parser.add_argument("--compile", action="store_true", help="compile fast_nst with torch.compile")
    parser.add_argument("--root", metavar="DIR", help="data: photographs to decode")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to FILE")
    parser.add_argument("--overwrite", action="store_true", help="overwrite the --json file")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)  # for `CaseProcess`
    arguments = parser.parse_args()
    for name, least in (("size", 16), ("batch", 1), ("rounds", 1)):
        check_int(f"--{name}", getattr(arguments, name), least)
    for size in arguments.sizes:
        check_int("--sizes", size, 16)
    if arguments.threads is not None:
        torch.set_num_threads(check_int("--threads", arguments.threads, 1))
    if arguments.cases is None:
        arguments.cases = list(CASES.get(arguments.what, ()))
    for case in arguments.cases:
        network, _, loss_network = case.partition(":")
        if case != BASELINE:
            check_choice("--cases", network, tuple(networks.NETWORKS))
            if arguments.what == "train":
                check_choice("--cases", loss_network, loss_networks.NAMES)
    if not arguments.no_reference and not arguments.alone and arguments.what != "data":
        arguments.cases.insert(0, BASELINE)
    device, *others = find_devices(arguments.device, "--device")
    if others:
        raise UserError(f"--device: got {arguments.device}; allowed: one")
    if device.type == "cuda":
        device = torch.zeros(1, device=device).device  # with its index
        torch.cuda.set_device(device)  # CUDA graphs and Triton kernels use the current device
    if arguments.alone:
        serve(arguments, device)
        return
    if arguments.json is not None:
        cli.check_json(arguments.json, arguments.overwrite)
    keep_freed_memory()
    measure = {"train": measure_train, "infer": measure_infer, "data": measure_data}[arguments.what]
    environment = {"device": device_name(device), "threads": torch.get_num_threads(), "torch": torch.__version__}
    figures = {**environment, **measure(arguments, device)}
    show(figures)
    if arguments.json is not None:
        with atomic_write(arguments.json) as temporary:
            temporary.write_text(json.dumps(figures, indent=2) + "\n")
        print(arguments.json, file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
