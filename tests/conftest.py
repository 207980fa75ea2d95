"""What several tests need: small pictures, the real commands on them, and where the large real data may lie."""

import contextlib
import functools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from fast_nst.loss_networks import LossNetwork, compact

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}  # the pictures are small
torch.set_num_threads(1)  # on a busy machine two threads that wait for each other take far longer
VGG19 = SHARED / "weights" / "vgg19_to_conv3_4.safetensors"


def slow(*values: object) -> list[Any]:
    """Mark the tests with these values of a parameter as slow."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def picture(seed: int, height: int = 48, width: int = 64) -> Image.Image:
    """A small smooth random picture."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of eight small pictures, one of them a level down."""
    folder = tmp_path / "photographs"
    (folder / "below").mkdir(parents=True)
    for index in range(8):
        picture(index).save((folder / "below" if index == 7 else folder) / f"photo {index}.png")
    return folder


@pytest.fixture
def painting(tmp_path: Path) -> Path:
    path = tmp_path / "my painting.png"
    picture(100, 64, 64).save(path)
    return path


@pytest.fixture
def images() -> list[torch.Tensor]:
    """What a loss compares: two pictures, their photographs, a painting."""
    generator = torch.Generator().manual_seed(2)
    return [torch.rand(n, 3, 64, 80, generator=generator) for n in (2, 2, 1)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


RECIPE = {"narrow": (4, 8), "ranks": ((8, 4), *((4, 4),) * 7)}
# Of a run on small crops: a loss of every term, at sizes that they have, with weights of its own.
LOSS = [
    "loss.style_weight=7", "loss.style_scales={1: 0.6, 2: 0.4}", "loss.content_scales={1: 1}", "loss.light_weight=2",
    "loss.tv_weight=0.5",
]  # fmt: skip


def little_compact() -> LossNetwork:
    """A random loss network of compact's kind, `RECIPE`'s."""
    torch.manual_seed(3)
    network = compact.low_rank_vgg(**RECIPE)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter, nonlinearity="linear")
        else:
            nn.init.normal_(parameter, std=0.1)
    return network


def random_vgg_state(variant: str, convolutions: int) -> dict[str, torch.Tensor]:
    """Random weights of the first layers of a VGG, in torchvision's layout."""
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs[{"vgg16": "D", "vgg19": "E"}[variant]])
    indices = [i for i, m in enumerate(features) if isinstance(m, torch.nn.Conv2d)][:convolutions]
    state = {
        f"features.{key}": value for key, value in features.state_dict().items() if int(key.split(".")[0]) in indices
    }
    return {key: torch.randn_like(value) * 0.05 for key, value in state.items()}


@functools.cache
def warm() -> subprocess.Popen[str]:
    """The process that forks for each command, until the tests end."""
    command = [sys.executable, str(ROOT / "tests" / "warm.py")]
    return subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def run(script: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command `python scripts/<script> <arguments>`, in a process of its own, for 300 seconds at most."""
    folder = next(f for f in ("scripts", "scripts/assets", "scripts/dev") if (ROOT / f / script).exists())
    command = [str(ROOT / folder / script), *map(str, arguments)]
    if not hasattr(os, "fork") or sys.platform == "darwin":
        command = [sys.executable, *command]
        return subprocess.run(
            command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
        )
    process = warm()
    assert process.stdin is not None
    assert process.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        output, error = Path(folder) / "output", Path(folder) / "error"
        request = {"script": command[0], "arguments": command[1:], "cwd": str(cwd), "output": str(output)}
        process.stdin.write(json.dumps({**request, "error": str(error)}) + "\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], 300)[0]:
            process.kill()
            warm.cache_clear()
            raise subprocess.TimeoutExpired(command, 300)
        code = int(process.stdout.readline())
        return subprocess.CompletedProcess(command, code, output.read_text(), error.read_text())


@contextlib.contextmanager
def started(script: str, *arguments: object, cwd: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """The running command, in a session of its own; what is left of it at the end is killed."""
    command = [sys.executable, str(ROOT / "scripts" / script), *map(str, arguments)]
    options = {"env": ENVIRONMENT, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, **options}
    with subprocess.Popen(command, cwd=cwd, start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait until `condition` holds while `process` runs, for 120 seconds at most."""
    limit = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, f"it has ended with {process.returncode}"
        assert time.monotonic() < limit, "it takes too long"
        time.sleep(0.01)


@pytest.fixture(scope="session", autouse=True)
def _warm() -> Iterator[None]:
    yield
    if warm.cache_info().currsize:
        warm().kill()
        warm().communicate()


def small(folder: Path) -> list[str]:
    """The overrides of a run of a few seconds, with a random little loss network."""
    compact.save(folder / "tiny.safetensors", little_compact(), RECIPE)
    return [
        *LOSS, "loss_network.weights=tiny.safetensors", "data=folder", "data.root=photographs", "data.size=32",
        "data.val_size=32", "data.batch_size=2", "network.width=8", "network.blocks=1", "trainer.val_every_n_steps=4",
        "trainer.log_every_n_steps=1", "preview.every_n_steps=4", "trainer.max_steps=6",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    (folder / "photographs").mkdir()
    for index in range(8):
        picture(index).save(folder / "photographs" / f"photo {index} (copy)=.png")
    picture(100, 64, 64).save(folder / "my painting.png")
    return folder


@pytest.fixture(scope="session")
def trained(workplace: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    overrides = [*small(workplace), "style.image='my painting.png'", "output_dir=run"]
    result = run("train.py", *overrides, cwd=workplace)
    assert result.returncode == 0, result.stderr
    return workplace / "run", result
