"""Interrupted runs go on: through the real command, bit for bit."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ENVIRONMENT, random_vgg_state, run, slow, small, started, wait_until
from safetensors.torch import save_file

from fast_nst import weights
from fast_nst.errors import UserError
from fast_nst.training import resume

STEPS = 120


def overrides(workplace: Path) -> list[str]:
    return [
        *small(workplace), "style.image='my painting.png'", f"trainer.max_steps={STEPS}", "checkpoint.every_n_steps=7",
        f"preview.every_n_steps={STEPS}", "trainer.val_every_n_steps=33",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(workplace: Path) -> bytes:
    """The weights file of a run that nothing interrupted."""
    result = run("train.py", *overrides(workplace), "output_dir=unbroken", cwd=workplace)
    assert result.returncode == 0, result.stderr
    return (workplace / "unbroken" / "my painting.safetensors").read_bytes()


def stopped(workplace: Path, folder: str, number: int, step: int) -> tuple[int, str]:
    """Start a run, send all of its processes a signal once its checkpoint is at `step` or later; its exit code and
    stderr. All, as the end of a service does (Ctrl-C and `timeout`, its group): the data's worker must outlive it."""
    checkpoint = workplace / folder / "checkpoints" / "last.ckpt"
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, by what is started here too
    with started("train.py", *overrides(workplace), f"output_dir={folder}", cwd=workplace) as process:
        signal.signal(signal.SIGHUP, before)
        wait_until(lambda: checkpoint.exists() and resume.read(checkpoint)["step"] >= step, process)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        for child in children.read_text().split() if children.exists() else ():
            os.kill(int(child), number)
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=60)
        return process.returncode, errors


KILLED = np.random.default_rng().integers(1, STEPS - 60, 3).tolist()


@pytest.mark.parametrize("step", [KILLED[0], *slow(*KILLED[1:])], ids="abc")
def test_a_killed_run_goes_on_to_the_same_file(workplace, unbroken, step, request):
    folder = f"killed {request.node.callspec.id}"
    code, _ = stopped(workplace, folder, signal.SIGKILL, step)
    assert code == -signal.SIGKILL
    assert not (workplace / folder / "my painting.safetensors").exists()
    result = run("train.py", *overrides(workplace), f"output_dir='{folder}'", "ckpt_path=auto", cwd=workplace)
    assert result.returncode == 0, result.stderr
    assert "resuming from" in result.stderr
    assert "warning" not in result.stderr.lower()
    assert (workplace / folder / "my painting.safetensors").read_bytes() == unbroken, f"killed after step {step}"


def test_a_copy_of_a_checkpoint_is_of_no_folder_and_other_runs_stay(workplace, unbroken):
    for name in ("copy", "theirs/checkpoints"):
        (workplace / name).mkdir(parents=True)
        shutil.copy(workplace / "unbroken" / "checkpoints" / "last.ckpt", workplace / name)
    here = set(workplace.iterdir())
    longer = [*overrides(workplace), f"trainer.max_steps={STEPS + 2}", "ckpt_path=copy/last.ckpt"]
    result = run("train.py", *longer, "output_dir=theirs", cwd=workplace)
    assert (result.returncode, "output_dir: theirs holds another run" in result.stderr) == (2, True)
    result = run("train.py", *longer, "optimizer.learning_rate=0.02", cwd=workplace)
    assert result.returncode == 0, result.stderr
    assert set(workplace.iterdir()) - here <= {workplace / "outputs"}
    assert next((workplace / "outputs" / "my painting").glob("*/my painting.safetensors")).is_file()


def test_a_run_killed_after_its_last_step_still_writes_its_weights(workplace, unbroken):
    shutil.copytree(workplace / "unbroken", workplace / "at the end")
    for name in ("my painting.safetensors", "preview.png"):
        (workplace / "at the end" / name).unlink()
    result = run("train.py", *overrides(workplace), "output_dir='at the end'", "ckpt_path=auto", cwd=workplace)
    assert result.returncode == 0, result.stderr
    assert (workplace / "at the end" / "my painting.safetensors").read_bytes() == unbroken
    assert (workplace / "at the end" / "preview.png").is_file()


@pytest.mark.parametrize("name", ["SIGINT", *slow("SIGTERM", "SIGHUP", "SIGUSR1")])
def test_a_signal_saves_first_and_tells_how_to_go_on(workplace, unbroken, name):
    number = signal.Signals[name]
    code, errors = stopped(workplace, name, number, 1)
    assert code == 128 + number, errors
    assert "Traceback" not in errors
    last = errors.strip().splitlines()[-1]
    step = resume.read(workplace / name / "checkpoints" / "last.ckpt")["step"]
    by = "" if name == "SIGINT" else f" by {name}"
    file = f"{name}/my painting.safetensors"
    assert f"stopped at step {step}{by}; the network so far is in {file}; resume with: " in last
    assert "error" not in last
    early = weights.describe(workplace / file)
    assert (early["steps"], early["total_steps"]) == (step, STEPS)
    assert ("loss" in early["held_out_losses"]) == (step % 33 == 0)  # they are of this network, or not there
    # The command in the message, as a shell reads it.
    command = last.split("resume with: ")[1].replace("python ", f"{sys.executable} ", 1)
    result = subprocess.run(
        command, shell=True, cwd=workplace, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert (workplace / name / "my painting.safetensors").read_bytes() == unbroken


@pytest.mark.parametrize("number", [signal.SIGINT, *slow(signal.SIGTERM)])
def test_a_signal_before_the_first_step_is_told(workplace, number):
    folder = f"output_dir=early_{number.name}"
    with started("train.py", *overrides(workplace), folder, cwd=workplace) as process:
        while "writing to early" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    if (number, process.returncode) == (signal.SIGTERM, -signal.SIGTERM):
        return  # it has its ordinary effect until Lightning listens
    assert process.returncode == 128 + number
    last = errors.splitlines()[-1]
    assert last.startswith("interrupted") or "SIGTERM before the first step" in last, errors


@pytest.mark.parametrize("name", ["SIGINT", *slow("SIGTERM")])
def test_a_signal_ends_the_drawing_of_content_images(workplace, name):
    folder = f"drawing {name}"
    leaves = ["data=synthetic", "data.count=30000", "trainer.max_steps=60000", f"output_dir='{folder}'"]  # minutes
    with started("train.py", *overrides(workplace), *leaves, cwd=workplace) as process:
        while not process.stderr.readline().startswith("drawing content images  1/"):
            assert process.poll() is None
        process.send_signal(signal.Signals[name])
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.Signals[name]
    assert errors.splitlines()[-1].startswith("interrupted: stopped at step 1")


def test_the_time_limit_counts_the_drawing_of_content_images(workplace):
    result = run(
        "train.py", *overrides(workplace), "data=synthetic", "data.count=30000", "trainer.max_steps=60000",
        "trainer.max_time=00:00:00:01", "output_dir=limited", cwd=workplace,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "stopped by trainer.max_time at step 1 of 60000" in result.stderr


def test_changed_settings_are_told_or_refused(workplace, unbroken):
    again = [*overrides(workplace), "output_dir=unbroken", "ckpt_path=auto"]
    more = run("train.py", *again, "loss.style_weight=3", f"trainer.max_steps={STEPS + 2}", cwd=workplace)
    assert more.returncode == 0, more.stderr
    assert "changed: loss.style_weight: 7 before, 3 now" in more.stderr
    assert f"changed: trainer.max_steps: {STEPS} before, {STEPS + 2} now" in more.stderr
    for change, message in {
        "network.width=16": "network.width: 8 before, 16 now",
        "style.size=64": "style.size: 256 before, 64 now",
        "style.image='photographs/photo 1 (copy)=.png'": "style.image: ",
        "trainer.max_steps=3": f"is already at step {STEPS + 2}",
    }.items():
        result = run("train.py", *again, change, cwd=workplace)
        assert (result.returncode, len(result.stderr.strip().splitlines())) == (2, 1), result.stderr
        assert message in result.stderr
    save_file(random_vgg_state("vgg19", 4), workplace / "vgg19.safetensors")
    other = [
        "loss_network=vgg19", "loss_network.weights=vgg19.safetensors", f"trainer.max_steps={STEPS + 4}",
        "loss.content_layers={relu2_2: 1}", "loss.style_layers={relu1_2: 1, relu2_2: 1}",
    ]  # fmt: skip
    result = run("train.py", *again, *other, cwd=workplace)
    assert result.returncode == 0, result.stderr
    assert "changed: loss_network.name: compact before, vgg19 now" in result.stderr


def test_a_run_that_is_there_is_not_overwritten(workplace, unbroken):
    before = (workplace / "unbroken" / "checkpoints" / "last.ckpt").read_bytes()
    result = run("train.py", *overrides(workplace), "output_dir=unbroken", cwd=workplace)
    assert result.returncode == 2
    assert "output_dir: unbroken holds a run; resume with ckpt_path=auto" in result.stderr
    assert (workplace / "unbroken" / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_checkpoint_that_is_none(tmp_path):
    damaged, other = tmp_path / "damaged.ckpt", tmp_path / "other.ckpt"
    damaged.write_bytes(b"no checkpoint")
    torch.save({"state_dict": {}}, other)
    for path in (damaged, other):
        with pytest.raises(UserError, match="damaged, or not a checkpoint of"):
            resume.read(path)


def test_what_changed_is_named_by_its_key():
    before = {"loss": {"style_weight": 1.0, "style_layers": {"a": 1.0}}, "preview": {"images": 4}, "network": {"w": 1}}
    now = {"loss": {"style_weight": 2.0, "style_layers": {"b": 1.0}}, "preview": {"images": 5}, "network": {"w": 1}}
    assert resume.check(before, now, 5, 5) == [
        "loss.style_layers.a: 1.0 before, None now",
        "loss.style_layers.b: None before, 1.0 now",
        "loss.style_weight: 1.0 before, 2.0 now",
    ]
    assert resume.check(before, before, 5, 9) == []
    assert resume.check(before, {**before, "network": {"w": 1, "fine_noise": 0.0}}, 5, 9) == []
    with pytest.raises(UserError, match=r"other settings \(network.w: 1 before, 2 now\)"):
        resume.check(before, {**before, "network": {"w": 2}}, 1, 9)
