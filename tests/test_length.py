"""A run of some minutes, and what is printed about the time."""

import os
import pty
import re
import signal
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, run, slow, small, started

from fast_nst import weights
from fast_nst.training.callbacks import next_report
from fast_nst.training.length import FitMinutes


def overrides(workplace: Path) -> list[str]:
    every = ["trainer.val_every_n_steps=100000", "preview.every_n_steps=100000", "checkpoint.every_n_steps=20"]
    settings = [word for word in small(workplace) if not word.startswith("trainer.max_steps")]
    return [*settings, "style.image=my painting.png", *every]


@pytest.mark.slow
def test_minutes_become_steps_that_give_the_same_network_again(workplace):
    """Also when the run is stopped in the middle and resumed."""
    words = [*overrides(workplace), "minutes=0.1", "output_dir=timed run"]
    with started("train.py", *words, cwd=workplace) as process:
        pattern = r"minutes=0.1: (\d+) steps; to train the same network again, give (.*)"
        found = next(filter(None, (re.match(pattern, line) for line in iter(process.stderr.readline, ""))))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    steps = int(found[1])
    assert found[2] == f"trainer.max_steps={steps}"
    assert process.returncode == 130 or steps < 100, errors  # a busy machine has ended before
    assert f"max_steps: {steps}\n" in (workplace / "timed run" / "config.yaml").read_text()
    result = run("train.py", *words[:-1], "minutes=0.2", words[-1], "ckpt_path=auto", cwd=workplace)
    assert (
        f"minutes: got 0.2; the run of ckpt_path has 0.1; to lengthen it, give trainer.max_steps instead (now {steps})"
        in (result.stderr)
    )
    result = run("train.py", *words, "ckpt_path=auto", cwd=workplace)
    assert result.returncode == 0, result.stderr
    fixed = [*overrides(workplace), f"trainer.max_steps={steps}", "output_dir=fixed run"]
    result = run("train.py", *fixed, cwd=workplace)
    assert result.returncode == 0, result.stderr
    timed, same = (workplace / f"{kind} run" / "my painting.safetensors" for kind in ("timed", "fixed"))
    assert timed.read_bytes() == same.read_bytes()
    description = weights.describe(timed)
    assert (description["steps"], description["total_steps"]) == (steps, steps)
    assert "loss" in description["held_out_losses"]  # validated at the end, never before


def test_the_steps_fill_the_time():
    """Of a machine with a slow first step, then ten steps a second; the time begins 30 seconds before."""
    length = FitMinutes(5, started=0.0, measured_steps=50, reserve=7, on_set=lambda steps: None)
    totals = [length._total(step, 30 + 2 + step / 10) for step in range(1, 51)]
    set_at = next(step for step, total in enumerate(totals, 1) if total)
    assert 41 <= set_at <= 42  # four seconds after the first step
    assert totals[set_at - 1] == pytest.approx((300 - 32) * 10 - 7, abs=2)
    slow = FitMinutes(0.5, started=0.0, measured_steps=50, reserve=0, on_set=lambda steps: None)
    assert [slow._total(step, 4.0 * step) for step in (1, 2)] == [0, 7]  # a tenth of the time is enough
    late = FitMinutes(0.5, started=0.0, measured_steps=50, reserve=9, on_set=lambda steps: None)
    assert [late._total(step, 40.0 * step) for step in (1, 2)] == [0, 2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["minutes=5", "trainer.max_steps=9"], "minutes: got 5 and trainer.max_steps; give one of them"),
        (["minutes=0"], "minutes: got 0; allowed: a number from 0.01"),
        (["minutes=five"], "minutes: got 'five'; allowed: a number"),
        (["minutes=5", "optimizer.warmup_steps=0"], "optimizer.warmup_steps: got 0; allowed with minutes: 10 or more"),
    ],
)
def test_minutes_out_of_range_are_one_line(workplace, words, message):
    result = run("train.py", *overrides(workplace), *words, cwd=workplace)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert message in result.stderr


def test_without_a_terminal_there_are_tens_of_lines():
    for seconds in (60, 420, 36_000, 7 * 86_400):
        now, lines = 0.0, 0
        while now < seconds:
            now += next_report(now)
            lines += 1
        assert lines <= 40 or lines <= 50 + seconds / 900
    assert next_report(0) == 5


@pytest.mark.skipif(not hasattr(pty, "openpty"), reason="needs a pseudo-terminal")
@pytest.mark.parametrize("notebook", [False, *slow(True)])
def test_a_terminal_has_a_bar_with_the_time_left_and_a_notebook_lines(workplace, notebook):
    words = [*overrides(workplace), "trainer.max_steps=60", f"output_dir=notebook {notebook}"]
    environment = {**ENVIRONMENT, "COLUMNS": "120", **({"JPY_PARENT_PID": "1"} if notebook else {})}
    ours, theirs = pty.openpty()
    os.system(f"stty cols 120 rows 40 < {os.ttyname(theirs)}")
    shown = b""
    with started("train.py", *words, cwd=workplace, env=environment, stderr=theirs) as process:
        os.close(theirs)
        while True:
            try:
                block = os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
            shown += block
        process.wait(60)
    os.close(ours)
    text = shown.decode()
    assert process.returncode == 0, text
    assert ("left, " in text and "\r" in text.replace("\r\n", "\n")) != notebook
    assert len(text.replace("\r\n", "\n").splitlines()) < 10 or not notebook
    assert ("step 60/60" in text) == notebook
