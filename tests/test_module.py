"""What a step of a training draws, and what its checkpoint holds of the loss."""

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ENVIRONMENT, ROOT, picture
from omegaconf import OmegaConf

from fast_nst import networks
from fast_nst.image import to_tensor
from fast_nst.loss_networks import LossNetwork
from fast_nst.loss_networks.compact import Ensemble
from fast_nst.losses import PerceptualLoss
from fast_nst.training.module import FINISHING, MEMORY, StyleTransfer, learning_rate_factor


def ensemble() -> Ensemble:
    return Ensemble(members=2, width=8, outputs={"relu1_2": 4, "relu3_4": 4}, ranks=((4, 4),) * 7)


def module(loss_network: LossNetwork, seed: int = 0) -> StyleTransfer:
    loss = PerceptualLoss(
        loss_network, to_tensor(picture(1, 32, 32)), content_layers={}, style_layers={"relu1_2": 1.0, "relu3_4": 1.0},
        content_weight=0.0, style_weight=1.0, views=8, correct_every=1, finish=1 / 3,
    )  # fmt: skip
    settings = OmegaConf.load(ROOT / "configs" / "optimizer" / "muon.yaml")
    return StyleTransfer(networks.build("slim", width=8, blocks=1), loss, total_steps=9, seed=seed, **settings)


def test_two_seeds_see_a_painting_through_other_views():
    loss_network, drawn = ensemble(), []
    for seed in (0, 1):
        training = module(loss_network, seed)
        views = []
        for _ in range(2):
            training.on_train_batch_start(torch.empty(0), 0)
            views.append([training.loss.random_view() for _ in range(20)])
        assert views[0] == views[1]
        drawn.append(views[0])
    assert drawn[0] != drawn[1]


def test_corrections_stay_with_the_loss_network_that_they_are_of():
    loss_network, checkpoint = ensemble(), {}
    training = module(loss_network)
    training.loss.correct(to_tensor(picture(2, 32, 32)), 0)
    training.on_save_checkpoint(checkpoint)
    again, other = module(loss_network), module(ensemble())
    for each in (again, other):
        each.on_load_checkpoint(checkpoint)
    assert again.loss.corrections.keys() == training.loss.corrections.keys()
    assert not other.loss.corrections
    other.on_load_checkpoint({})  # of a version without


def test_a_gradient_is_cut_down_to_its_usual_size():
    training, checkpoint = module(ensemble()), {}
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=generator) for p in training.network.parameters()]
    length = float(torch.nn.utils.get_total_norm(direction))

    def cut(norm: float, training: StyleTransfer = training) -> float:
        parameters = list(training.network.parameters())
        for parameter, value in zip(parameters, direction, strict=True):
            parameter.grad = value * (norm / length)
        training.configure_gradient_clipping(None)
        found = [p.grad for p in parameters]
        size = torch.nn.utils.get_total_norm(found)
        torch.testing.assert_close([x / size for x in found], [x / length for x in direction])
        return float(size)

    assert cut(2.0) == pytest.approx(training.clip * 2)
    assert cut(1.0) == pytest.approx(1)
    usual = MEMORY * 2 + (1 - MEMORY) * 1
    assert cut(100.0) == pytest.approx(training.clip * usual, rel=1e-4)
    usual = MEMORY * usual + (1 - MEMORY) * 100
    training.on_save_checkpoint(checkpoint)
    again = module(ensemble())
    again.on_load_checkpoint(checkpoint)
    assert cut(100.0, again) == pytest.approx(training.clip * usual, rel=1e-4)
    training.clip = 0.0
    assert cut(1000.0) == pytest.approx(1000, rel=1e-4)


def test_a_run_goes_on_at_its_own_learning_rate():
    training = module(ensemble())
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


def test_the_last_steps_of_a_training_go_by_the_reference(monkeypatch):
    asked = []
    monkeypatch.setattr(StyleTransfer, "trainer", SimpleNamespace(log_every_n_steps=10))
    for loss_network in (ensemble(), ensemble().reference):
        training = module(loss_network)
        monkeypatch.setattr(
            training.loss, "sampled", lambda *found: asked.append(found[-1]) or {"loss": torch.zeros(1)}
        )
        for step in range(9):
            monkeypatch.setattr(StyleTransfer, "global_step", step)
            training.training_step(torch.rand(1, 3, 32, 32), step)
    assert asked == [False] * 6 + [True] * 3 + [False] * 9


def test_a_learning_rate_falls_from_its_whole_to_nothing():
    falling = {name: [learning_rate_factor(step, name, 3, 40) for step in range(41)] for name in ("cosine", "linear")}
    for step, (cosine, line) in enumerate(zip(*falling.values(), strict=True)):
        rise = min(1, (step + 1) / 4)
        assert cosine == pytest.approx(rise * math.cos(math.pi * step / 80) ** 2)
        assert line == pytest.approx(rise * (1 - step / 40))


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_few_last_steps_have_their_part_of_a_falling_learning_rate(schedule):
    whole = [learning_rate_factor(step, schedule, 0, 1000) for step in range(1001)]
    found = [learning_rate_factor(step, schedule, 0, 100, 20) for step in range(101)]
    first = round(1000 * (1 - FINISHING))
    assert found[:80:8] == pytest.approx(whole[:first:70])
    assert found[80:100:2] == pytest.approx(whole[first:1000:30])
    assert found[100] == pytest.approx(0)
    for many in (0, 400, 1000):  # more than that have what they would have without
        assert [learning_rate_factor(step, schedule, 0, 1000, many) for step in range(1001)] == pytest.approx(whole)
    assert {learning_rate_factor(step, "constant", 0, 100, 20) for step in range(100)} == {1.0}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="tells what is taken by /proc")
def test_the_memory_of_a_step_is_foretold():
    code = """
import torch
from fast_nst import machine
from test_module import ensemble, module
machine.keep_memory()  # what is freed counts until the end
training, batch = module(ensemble()), torch.rand(4, 3, 512, 512)
training.network.to(memory_format=torch.channels_last)
before = machine.used_memory()
training.loss(training.network(batch), batch, 0, finishing=True)["loss"].backward()
print((machine.used_memory() - before) / training.memory_needed(4, 512))
"""
    environment = {**ENVIRONMENT, "PYTHONPATH": str(Path(__file__).parent)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert 0.6 < float(result.stdout) < 1.4
