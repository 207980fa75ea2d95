"""Our own training steps as scripts/benchmark.py times them, and what timing takes."""

import time
from functools import partial
from typing import NamedTuple

import torch
import torchvision
from building import loss_settings, optimizer_settings
from peer import Step
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fast_nst import loss_networks, networks
from fast_nst.loss_networks.network import Features, LossNetwork
from fast_nst.loss_networks.vgg import MEAN, STD, layer_indices
from fast_nst.losses import PerceptualLoss, layers_needed
from fast_nst.training.muon import Muon
from fast_nst.validate import Invalid, number


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(call: Step, device: torch.device) -> float:
    """Seconds that `call` takes."""
    synchronize(device)
    begun = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - begun


def flops(case: Step) -> int:
    """Floating-point operations of one call, as they are carried out, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        case()
    return counter.get_total_flops()


def random_vgg(variant: str, layers: list[str]) -> LossNetwork:
    """VGG with random weights: speed needs no others."""
    indices = layer_indices(variant)
    deepest = max(indices[name] for name in layers)
    features = getattr(torchvision.models, variant)(weights=None).features[: deepest + 1]
    return Features(features, {indices[name]: name for name in layers}, MEAN, STD)


class Work(NamedTuple):
    """What is timed: {a call: how often it comes in a step, on average}."""

    calls: dict[Step, float]

    def flops(self) -> int:
        return round(sum(flops(call) * often for call, often in self.calls.items()))

    def seconds(self, device: torch.device) -> float:
        return sum(timed(call, device) * often for call, often in self.calls.items())


def our_step(case: str, batch: Tensor, painting: Tensor, low: bool, compiled: bool) -> Work:
    """A training step of NETWORK:LOSS_NETWORK[:FINISH]: johnson as pytorch/examples has it, slim as the default."""
    name, loss_name, finish = divided(case)
    network = networks.build("johnson", pixels="rgb255") if name == "johnson" else networks.build("slim")
    terms = {**loss_settings("pytorch_examples" if name == "johnson" else "default", loss_name), "finish": finish}
    layers = layers_needed(terms["content_layers"], terms["style_layers"])
    loss_network = loss_networks.build("compact", layers) if loss_name == "compact" else random_vgg(loss_name, layers)
    loss = PerceptualLoss(loss_network, painting, **terms)
    network.to(batch.device)
    if batch.device.type == "cpu":
        network.to(memory_format=torch.channels_last)
    loss.to(batch.device, torch.bfloat16 if low else torch.float32)
    with torch.no_grad():
        if loss.correct_every:
            loss.correct(batch[:1], 0)
        for view in loss.every_view:  # the painting's Grams, once a run
            for finishing in {False, bool(loss.finish)}:
                loss(batch[:1], batch[:1], view, finishing)
    optimizer: torch.optim.Adam
    if name == "johnson":
        optimizer = torch.optim.Adam(network.parameters(), 1e-3, fused=batch.device.type != "mps")
    else:
        optimizer = Muon(network, optimizer_settings()["learning_rate"])
    run = torch.compile(network) if compiled else network

    def step(finishing: bool) -> None:
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=low):
            painted = run(batch)
            value = loss.sampled(painted, batch, finishing=finishing)["loss"]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    def correct(finishing: bool) -> None:
        loss.correct(batch, loss.random_view(), finishing=finishing)

    calls: dict[Step, float] = {}
    for finishing, share in ((False, 1 - loss.finish), (True, loss.finish)):
        if share:
            calls[partial(step, finishing)] = share
            if loss.correct_every:
                calls[partial(correct, finishing)] = share / loss.correct_every
    return Work(calls)


def divided(case: str) -> tuple[str, str, float]:
    """The network, the loss network and `loss.finish` (0 without) of a case of `train`."""
    network, _, rest = case.partition(":")
    loss_network, _, finish = rest.partition(":")
    try:
        return network, loss_network, number("--cases, FINISH", float(finish or 0), 0, 1)
    except ValueError:
        raise Invalid(f"--cases: got {case!r}; allowed: NETWORK:LOSS_NETWORK[:FINISH]") from None
