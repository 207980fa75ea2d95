"""A step of training as CUDA graphs: recorded once, then started by one call. A small network on a fast GPU otherwise
waits for Python, which takes many times as long to ask for a step's thousands of kernels as they take to run."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fast_nst.losses import PerceptualLoss
from fast_nst.networks.slim import Noise
from fast_nst.training.jitter import jitter

WARM_UP = 2  # steps before a capture, in which kernels are chosen and compiled


class Recording(NamedTuple):
    """names, values: of the loss's terms, "loss" first; gradients: of it, one for each parameter. What a replay
    overwrites."""

    graph: torch.cuda.CUDAGraph
    names: list[str]
    values: Tensor
    gradients: tuple[Tensor, ...]


class _Replay(torch.autograd.Function):
    """The loss and all terms of a recording, played once more; its gradient is what was recorded."""

    @staticmethod
    def forward(ctx: Any, recording: Recording, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        recording.graph.replay()
        values = recording.values.clone()
        ctx.gradients = recording.gradients
        ctx.mark_non_differentiable(values)
        return values[0].clone(), values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_loss: Tensor, of_values: Tensor) -> tuple[None, *tuple[Tensor, ...]]:
        return (None, *torch._foreach_mul(ctx.gradients, of_loss))


class RecordedStep:
    """The loss's terms of what `network` makes of a batch, both `jitter`ed: a step of training, on one GPU.

    The parameters of `network` must stay where they are, and batches be of one shape, as they are in a training; take
    a loss's gradient before the next call, which may overwrite it. low: autocast to bfloat16. What is random, the
    jitter and the shifts of the noise, is written to the GPU before a replay.
    """

    def __init__(self, network: nn.Module, loss: PerceptualLoss, pixels: int, low: bool) -> None:
        self.network, self.loss, self.pixels, self.low = network, loss, pixels, low
        self.parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.noises = [module for module in network.modules() if isinstance(module, Noise)]
        self.recording: Recording | None = None
        self.device = next(iter(self.parameters.values())).device
        ends = [pixels, pixels, *(noise.side for noise in self.noises for _ in range(2))]
        self.ends = torch.tensor([max(1, end) for end in ends])
        self.offsets = torch.zeros(len(ends), dtype=torch.long, device=self.device)
        for k, noise in enumerate(self.noises):
            noise.at = self.offsets[2 * k + 2 : 2 * k + 4]
        self.aside = torch.cuda.Stream()
        self.batch: Tensor | None = None

    def close(self) -> None:
        """Let the network draw its own noise again."""
        for noise in self.noises:
            noise.at = None
        self.recording = None

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        """The terms; "loss" has a gradient for the parameters."""
        if self.batch is None:
            self.batch = torch.empty_like(batch)
        assert batch.shape == self.batch.shape
        self.batch.copy_(batch)
        draws = (torch.rand(len(self.ends), dtype=torch.float64) * self.ends).long()
        self.offsets.copy_(draws, non_blocking=True)
        if self.recording is None:
            self.recording = self._record()
        loss, values = _Replay.apply(self.recording, *self.parameters.values())
        return {**dict(zip(self.recording.names, values.unbind(), strict=True)), "loss": loss}

    def _painted(self, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The network's output for the batch and the batch, both `jitter`ed."""
        assert self.batch is not None
        with self._autocast():
            output = torch.func.functional_call(self.network, dict(parameters), (self.batch,))
            return jitter(output, self.batch, self.pixels, self.offsets[:2])

    @contextlib.contextmanager
    def _buffers_kept(self) -> Iterator[None]:
        """What is painted meanwhile is in no running statistics."""
        buffers = {buffer: buffer.clone() for buffer in self.network.buffers()}
        yield
        for buffer, before in buffers.items():
            buffer.copy_(before)

    def _autocast(self) -> torch.autocast:
        # A weight that is cached in another precision would be that of the recording for ever.
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.low, cache_enabled=False)

    def _record(self) -> Recording:
        def compute() -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
            # Leaves of their own, on the same memory: those of a step before wait for another stream.
            leaves = {name: value.detach().requires_grad_() for name, value in self.parameters.items()}
            image, photograph = self._painted(leaves)
            with self._autocast():
                terms = self.loss(image, photograph)
            with torch.autocast(self.device.type, enabled=False):  # a trainer's, around its step, is not for gradients
                return terms, torch.autograd.grad(terms["loss"], list(leaves.values()))

        current = torch.cuda.current_stream()
        self.aside.wait_stream(current)
        with torch.cuda.stream(self.aside), torch.enable_grad(), self._buffers_kept():
            for _ in range(WARM_UP):
                compute()
        current.wait_stream(self.aside)
        graph = torch.cuda.CUDAGraph()
        try:
            # Of this thread alone: that which pins the next batches would spoil it.
            record = torch.cuda.graph(graph, stream=self.aside, capture_error_mode="thread_local")
            with record, torch.enable_grad():
                terms, gradients = compute()
                values = torch.stack([term.detach() for term in terms.values()])
        except RuntimeError:
            torch.cuda.set_stream(current)  # that of a recording that fails is not left by itself
            raise
        return Recording(graph, list(terms), values, gradients)
