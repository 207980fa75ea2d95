"""Our own training steps as scripts/benchmark.py times them, and what timing takes."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

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
from fast_nst.networks.functional import prefers_channels_last
from fast_nst.training.muon import Muon
from fast_nst.training.recorded import RecordedStep
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


def _of_product(a: torch.Size, b: torch.Size, *_: Any, **__: Any) -> int:
    """Torch's own does not know of `out_dtype` before 2.10."""
    return 2 * a.numel() * b[-1]


def flops(case: Step) -> int:
    """Floating-point operations of one call, as they are carried out, forward and backward."""
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.bmm: _of_product}) as counter:
        case()
    return counter.get_total_flops()


def random_vgg(variant: str, layers: list[str]) -> LossNetwork:
    """VGG with random weights: speed needs no others."""
    indices = layer_indices(variant)
    deepest = max(indices[name] for name in layers)
    features = getattr(torchvision.models, variant)(weights=None).features[: deepest + 1]
    return Features(features, {indices[name]: name for name in layers}, MEAN, STD)


class Work(NamedTuple):
    """What is timed: {a call: how often it comes in a step, on average}. unrecorded: the same, of which operations can
    be counted, where those of `calls` cannot."""

    calls: dict[Step, float]
    unrecorded: dict[Step, float] | None = None

    def flops(self) -> int:
        return round(sum(flops(call) * often for call, often in (self.unrecorded or self.calls).items()))

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
    if prefers_channels_last(batch.device):
        network.to(memory_format=torch.channels_last)
    loss.to(batch.device, torch.bfloat16 if low else torch.float32)
    every = [(view, finishing) for view in loss.every_view for finishing in {False, bool(loss.finish)}]
    with torch.no_grad():
        if loss.correct_every:
            loss.correct(batch[:1], 0)
        for view, finishing in every:  # the painting's Grams, once a run
            loss(batch[:1], batch[:1], view, finishing)
    optimizer: torch.optim.Adam
    if name == "johnson":
        optimizer = torch.optim.Adam(network.parameters(), 1e-3, fused=batch.device.type != "mps")
    else:
        optimizer = Muon(network, optimizer_settings()["learning_rate"])
    run = torch.compile(network) if compiled else network
    recorded = RecordedStep(network, loss, low) if batch.device.type == "cuda" and not compiled else None

    if recorded is not None:
        recorded(batch)
        for view, finishing in every:
            recorded.recording(view, finishing)

    def plain(batch: Tensor, finishing: bool) -> dict[str, Tensor]:
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=low):
            return loss.sampled(run(batch), batch, finishing=finishing)

    def step(found: Callable[..., dict[str, Tensor]], finishing: bool) -> None:
        value = found(batch, finishing=finishing)["loss"]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    def correct(finishing: bool) -> None:
        loss.correct(batch, loss.random_view(), finishing=finishing)

    def calls(found: Callable[..., dict[str, Tensor]]) -> dict[Step, float]:
        shares: dict[Step, float] = {}
        for finishing, share in ((False, 1 - loss.finish), (True, loss.finish)):
            if share:
                shares[partial(step, found, finishing)] = share
                if loss.correct_every:
                    shares[partial(correct, finishing)] = share / loss.correct_every
        return shares

    return Work(calls(plain)) if recorded is None else Work(calls(recorded), calls(plain))


def divided(case: str) -> tuple[str, str, float]:
    """The network, the loss network and `loss.finish` (0 without) of a case of `train`."""
    network, _, rest = case.partition(":")
    loss_network, _, finish = rest.partition(":")
    try:
        return network, loss_network, number("--cases, FINISH", float(finish or 0), 0, 1)
    except ValueError:
        raise Invalid(f"--cases: got {case!r}; allowed: NETWORK:LOSS_NETWORK[:FINISH]") from None
