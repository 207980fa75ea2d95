"""The training step, its schedule and resuming from a checkpoint."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ENVIRONMENT, little_compact, picture

from fast_nst import networks
from fast_nst.commands.build import optimizer_settings
from fast_nst.errors import UserError
from fast_nst.image import to_tensor
from fast_nst.losses import PerceptualLoss
from fast_nst.methods.style_transfer import StyleTransfer, training_terms
from fast_nst.training.optimizers import learning_rate_factor


def module(seed: int = 0, **changes) -> StyleTransfer:
    loss = PerceptualLoss(
        little_compact(), to_tensor(picture(1, 64, 64)), content_layers={"relu2_2": 1.0, "relu3_3": 1.0},
        style_layers={"relu1_2": 1.0, "relu4_3": 1.0}, content_weight=1.0, style_weight=10.0,
        style_scales={1: 0.5, 2: 0.5}, light_weight=3.0, normalize=True,
    )  # fmt: skip
    settings = optimizer_settings()
    network = networks.build("slim", width=8, blocks=1)
    return StyleTransfer(network, loss, **{"total_steps": 9, "seed": seed, "jitter": 4, **settings, **changes})


def test_randomness_of_a_step_depends_only_on_seed_and_step(monkeypatch):
    drawn = {}
    for seed in (0, 1):
        for step in (0, 1, 2):
            monkeypatch.setattr(StyleTransfer, "global_step", step)
            for _ in range(2):
                training = module(seed)
                training.on_train_batch_start(torch.empty(0), 0)
                numbers = tuple(torch.randint(4, (20,)).tolist())
                assert drawn.setdefault((seed, step), numbers) == numbers
                torch.rand(7)
    assert len(set(drawn.values())) == 6


def test_training_jitters_images_and_validation_does_not(monkeypatch):
    training, batch, logged = module(), torch.rand(2, 3, 64, 72), {}
    monkeypatch.setattr(StyleTransfer, "log_dict", lambda self, terms, **_: logged.update(terms))
    network = training.network

    def fixed(content: torch.Tensor, style: None = None) -> torch.Tensor:  # only the jitter is random
        return network.eval()(content)

    output, offsets = fixed(batch), set()
    for seed in range(12):
        torch.manual_seed(seed)
        terms = training_terms(fixed, {"content": batch}, loss=training.loss, pixels=training.jitter)
        torch.manual_seed(seed)
        top, left = torch.randint(4, (2,)).tolist()
        offsets.add((top, left))
        rows, columns = slice(top, top + 60), slice(left, left + 68)
        expected = training.loss(output[:, :, rows, columns], batch[:, :, rows, columns])
        assert terms.keys() == expected.keys()
        for name, value in terms.items():
            torch.testing.assert_close(value, expected[name])
    assert len(offsets) > 4
    network.eval()
    training.validation_step({"content": batch}, 0)
    for name, value in training.loss(output, batch).items():
        torch.testing.assert_close(logged[f"val/{name}"], value)


def test_gradients_of_two_half_batches_average_to_that_of_the_batch():
    """Then two processes with two images each train like one process with four."""
    training = module()
    network = training.network.double()
    training.loss.to("cpu", torch.float64)
    content = torch.rand(4, 3, 64, 64, dtype=torch.float64)

    def gradients(part: torch.Tensor) -> list[torch.Tensor]:
        torch.manual_seed(0)  # every process draws the same jitter and noise
        terms = training_terms(network, {"content": part}, loss=training.loss, pixels=training.jitter)
        return list(torch.autograd.grad(terms["loss"], list(network.parameters())))

    halves = [gradients(content[:2]), gradients(content[2:])]
    for full, first, second in zip(gradients(content), *halves, strict=True):
        atol = 1e-9 * max(1.0, float(full.abs().max()))
        torch.testing.assert_close((first + second) / 2, full, rtol=0, atol=atol)


def test_resumed_run_uses_its_own_learning_rate():
    training = module()
    before, now = 2 * training.learning_rate, training.learning_rate
    checkpoint = {
        "optimizer_states": [
            {"param_groups": [{"initial_lr": before / 10, "lr": before / 20}, {"initial_lr": before, "lr": before / 2}]}
        ],
        "lr_schedulers": [{"base_lrs": [before / 10, before], "_last_lr": [before / 20, before / 2]}],
    }
    training.on_load_checkpoint(checkpoint)
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    assert [x for group in groups for x in group.values()] == pytest.approx([now / 10, now / 20, now, now / 2])
    assert checkpoint["lr_schedulers"][0] == {
        "base_lrs": pytest.approx([now / 10, now]), "_last_lr": pytest.approx([now / 20, now / 2]),
    }  # fmt: skip


def test_learning_rate_warms_up_and_decays_to_zero():
    falling = {name: [learning_rate_factor(step, name, 3, 40) for step in range(41)] for name in ("cosine", "linear")}
    for step, (cosine, line) in enumerate(zip(*falling.values(), strict=True)):
        rise, done = min(1, (step + 1) / 4), max(0, step - 3) / 37
        assert cosine == pytest.approx(rise * math.cos(math.pi * done / 2) ** 2)
        assert line == pytest.approx(rise * (1 - done))
    for name in ("cosine", "linear"):  # FitMinutes sets the length of a run within the warm-up
        assert len({learning_rate_factor(3, name, 3, total) for total in (3, 4, 50, 2**40)}) == 1
    constant = [learning_rate_factor(step, "constant", 3, 40) for step in range(41)]
    assert constant == [0.25, 0.5, 0.75] + [1.0] * 38


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jitter": -1}, "loss.jitter: got -1; allowed: an integer >= 0"),
        ({"jitter": 1.5}, "loss.jitter: got 1.5"),
        ({"name": "sgd"}, "optimizer.name: got 'sgd'; allowed: muon, adam"),
        ({"schedule": "steps"}, "optimizer.schedule: got 'steps'; allowed: cosine, linear, constant"),
        ({"warmup_steps": -1}, "optimizer.warmup_steps: got -1"),
        ({"learning_rate": float("nan")}, "optimizer.learning_rate: got nan"),
        ({"total_steps": 0}, "trainer.max_steps: got 0"),
    ],
)
def test_invalid_value_raises(change, message):
    with pytest.raises(UserError, match=message):
        module(**change)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads used memory from /proc")
def test_memory_needed_predicts_used_memory():
    code = """
import torch
from fast_nst.training.jitter import jitter
from test_style_transfer import module
from fast_nst import machine
machine.keep_freed_memory()  # freed memory still counts
training, batch = module(), torch.rand(2, 3, 320, 320)
training.network.to(memory_format=torch.channels_last)
before = machine.used_memory()
training.loss(*jitter(training.network(batch), batch, 4))["loss"].backward()
print((machine.used_memory() - before) / training.memory_needed(2, 320))
"""
    environment = {**ENVIRONMENT, "PYTHONPATH": str(Path(__file__).parent)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert 0.6 < float(result.stdout) < 1.4
