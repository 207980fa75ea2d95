"""fast_nst's training steps for scripts/dev/benchmark.py, and functions that time a call and count its operations."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torchvision
from baseline import Step
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fast_nst import loss_networks, networks
from fast_nst.commands.build import loss_settings, optimizer_settings
from fast_nst.data.batch import Batch
from fast_nst.loss_networks import LossNetwork
from fast_nst.loss_networks.vgg import MEAN, STD, layer_indices
from fast_nst.losses import PerceptualLoss, layers_needed
from fast_nst.methods.style_transfer import training_terms
from fast_nst.ops.channels_last import prefers_channels_last
from fast_nst.ops.cuda_graph import GraphedStep
from fast_nst.training.muon import Muon


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(call: Step, device: torch.device) -> float:
    """Run `call` and return the seconds it took."""
    synchronize(device)
    started = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - started


def _bmm_flops(a: torch.Size, b: torch.Size, *_: Any, **__: Any) -> int:
    """Count the operations of a bmm; torch's own counter does not accept `out_dtype` before 2.10."""
    return 2 * a.numel() * b[-1]


def flops(call: Step) -> int:
    """Run `call` and count its floating-point operations, forward and backward."""
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.bmm: _bmm_flops}) as counter:
        call()
    return counter.get_total_flops()


def random_vgg(variant: str, layers: list[str]) -> LossNetwork:
    """Build VGG with random weights, which are enough to measure speed."""
    indices = layer_indices(variant)
    deepest = max(indices[name] for name in layers)
    features = getattr(torchvision.models, variant)(weights=None).features[: deepest + 1]
    return LossNetwork(features, {indices[name]: name for name in layers}, MEAN, STD)


class TimedCall(NamedTuple):
    """A call to time. eager: the same call for counting operations, if `call` replays a CUDA graph."""

    call: Step
    eager: Step | None = None

    def flops(self) -> int:
        return flops(self.eager or self.call)

    def seconds(self, device: torch.device) -> float:
        return timed(self.call, device)


def fast_nst_step(case: str, batch: Tensor, style: Tensor, bf16: bool, compiled: bool) -> TimedCall:
    """Return a training step of NETWORK:LOSS_NETWORK: johnson as in pytorch/examples, slim with the defaults."""
    name, _, loss_name = case.partition(":")
    network = networks.build("johnson", pixels="rgb255") if name == "johnson" else networks.build("slim")
    settings = loss_settings("pytorch_examples" if name == "johnson" else "default")
    layers = layers_needed(settings["content_layers"], settings["style_layers"])
    loss_network = loss_networks.build("compact", layers) if loss_name == "compact" else random_vgg(loss_name, layers)
    loss = PerceptualLoss(loss_network, style, **settings)
    network.to(batch.device)
    if prefers_channels_last(batch.device):
        network.to(memory_format=torch.channels_last)
    loss.to(batch.device, torch.bfloat16 if bf16 else torch.float32)
    optimizer: torch.optim.Adam
    if name == "johnson":
        optimizer = torch.optim.Adam(network.parameters(), 1e-3, fused=batch.device.type != "mps")
    else:
        optimizer = Muon(network, optimizer_settings()["learning_rate"])
    maybe_compiled = torch.compile(network) if compiled else network
    terms = partial(training_terms, loss=loss, pixels=0)
    graphed = GraphedStep(network, terms, 0, bf16) if batch.device.type == "cuda" and not compiled else None
    inputs = Batch(content=batch)

    def eager() -> dict[str, Tensor]:
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=bf16):
            return terms(maybe_compiled, inputs)

    def step(compute: Callable[[], dict[str, Tensor]]) -> None:
        value = compute()["loss"]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    if graphed is None:
        return TimedCall(partial(step, eager))
    return TimedCall(partial(step, partial(graphed, inputs)), partial(step, eager))  # type: ignore[arg-type]
