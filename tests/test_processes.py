"""Several processes on the CPU with gloo, through the real command."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import ENVIRONMENT, ROOT, run, small, started, wait_until

from fast_nst import weights
from fast_nst.training import resume

SCRIPT = str(ROOT / "scripts" / "train.py")


def overrides(workplace: Path, steps: int = 5) -> list[str]:
    return [
        *small(workplace), "style.image='my painting.png'", f"trainer.max_steps={steps}", "trainer.accelerator=cpu",
        "trainer.precision=32-true", "trainer.log_every_n_steps=10", f"preview.every_n_steps={steps}",
        f"trainer.val_every_n_steps={steps}",
    ]  # fmt: skip


def two(folder: str) -> list[str]:
    return ["trainer=ddp", "trainer.devices=2", "data.batch_size=2", f"output_dir={folder}"]


@pytest.fixture(scope="module")
def one_process(workplace: Path) -> Path:
    result = run(
        "train.py", *overrides(workplace), "data.batch_size=4", "trainer.devices=1", "output_dir=one", cwd=workplace
    )
    assert result.returncode == 0, result.stderr
    return workplace / "one" / "my painting.safetensors"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["lightning", "torchrun"])
def test_two_processes_with_two_images_are_one_with_four(workplace, one_process, launcher):
    start = [] if launcher == "lightning" else ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [sys.executable, *start, SCRIPT, *overrides(workplace), *two(launcher)], cwd=workplace, env=ENVIRONMENT,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("scripts/infer.py") == 1  # rank 0 alone speaks and writes
    assert len(list((workplace / launcher / "tensorboard").glob("events*"))) == 1
    file = workplace / launcher / "my painting.safetensors"
    ours, theirs = (weights.load(f)[0] for f in (file, one_process))
    # Weights have moved by 0.02 or so. Shifts that a later norm takes out again are left aside: Adam makes steps of
    # full length of the rounding that is their whole gradient.
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        if a.ndim == 4:
            torch.testing.assert_close(a, b, rtol=0, atol=2e-4)
    photograph = torch.rand(1, 3, 64, 64)
    # Gradients agree to 1e-9 (test_style_transfer.py); five steps amplify the rounding of float32.
    difference = (ours(photograph) - theirs(photograph)).abs()
    assert difference.mean() < 0.2 / 255
    assert difference.max() < 2 / 255
    losses = [weights.describe(f)["held_out_losses"] for f in (file, one_process)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    checkpoint = torch.load(workplace / launcher / "checkpoints" / "last.ckpt", weights_only=True)
    assert all(name.startswith("network.") for name in checkpoint["state_dict"])


def test_two_processes_average_their_gradients_to_those_of_one(workplace):
    """After one step the momenta are a fixed multiple of the gradient, which nothing has amplified yet."""
    states = []
    one = ["data.batch_size=4", "trainer.devices=1", "output_dir=one_step"]
    for folder, options in (("one_step", one), ("two_step", two("two_step"))):
        result = run("train.py", *overrides(workplace, 1), *options, cwd=workplace)
        assert result.returncode == 0, result.stderr
        checkpoint = torch.load(workplace / folder / "checkpoints" / "last.ckpt", weights_only=True)
        states.append(checkpoint["optimizer_states"][0]["state"])
    for index, state in states[0].items():
        key = "momentum" if "momentum" in state else "exp_avg"
        if state[key].ndim == 4:  # a norm's shift before another norm has a gradient of rounding only
            atol = 1e-5 * float(state[key].abs().max())
            torch.testing.assert_close(states[1][index][key], state[key], rtol=0, atol=atol)


@contextmanager
def two_that_train(workplace: Path, folder: str, steps: int) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A run of two processes that has saved its first checkpoint, and that checkpoint."""
    words = [*overrides(workplace, steps), *two(folder), "checkpoint.every_n_steps=20"]
    checkpoint = workplace / folder / "checkpoints" / "last.ckpt"
    with started("train.py", *words, cwd=workplace) as process:
        wait_until(checkpoint.exists, process)
        yield process, checkpoint


@pytest.mark.slow
def test_two_processes_save_on_a_signal_and_go_on_to_the_same_weights(workplace):
    whole = run("train.py", *overrides(workplace, 80), *two("whole"), cwd=workplace)
    assert whole.returncode == 0, whole.stderr
    with two_that_train(workplace, "stopped", 80) as (process, checkpoint):
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert f"stopped at step {resume.read(checkpoint)['step']} by SIGTERM; the network so far is in stopped/" in errors
    assert weights.describe(workplace / "stopped" / "my painting.safetensors")["total_steps"] == 80
    again = run("train.py", *overrides(workplace, 80), *two("stopped"), "ckpt_path=auto", cwd=workplace)
    assert again.returncode == 0, again.stderr
    ours, theirs = (weights.load(workplace / f / "my painting.safetensors")[0] for f in ("stopped", "whole"))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux to find the other process")
def test_a_process_that_dies_ends_the_run(workplace):
    with two_that_train(workplace, "dead", 20000) as (process, _):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (other,) = [int(c) for c in children if b"LOCAL_RANK=1" in Path(f"/proc/{c}/environ").read_bytes()]
        subprocess.run(["kill", "-KILL", str(other)], check=True)
        process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert not (workplace / "dead" / "my painting.safetensors").exists()
