"""A training step as one CUDA graph: captured once, then replayed by one call.

Small networks are launch-bound on fast GPUs; a graph replaces thousands of kernel launches with one.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from fast_nst.errors import one_line

WARM_UP = 2  # steps before a capture, which select and compile kernels
Terms = dict[str, Tensor]


class CaptureError(RuntimeError):
    """The step cannot be captured here. Errors of the step itself are raised unchanged."""


class CapturedGraph(NamedTuple):
    """A captured step and its results, which each replay overwrites.

    names, values: the names and values of the loss terms, "loss" first. gradients: those of "loss", one per parameter.
    """

    graph: torch.cuda.CUDAGraph
    names: list[str]
    values: Tensor
    gradients: tuple[Tensor, ...]


class _Replay(torch.autograd.Function):
    """Replay a graph and return the loss and all terms; the gradient is the captured one."""

    @staticmethod
    def forward(ctx: Any, captured: CapturedGraph, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        captured.graph.replay()
        values = captured.values.clone()
        ctx.gradients = captured.gradients
        ctx.mark_non_differentiable(values)
        return values[0].clone(), values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, grad_values: Tensor) -> tuple[None, *tuple[Tensor, ...]]:
        return (None, *torch._foreach_mul(ctx.gradients, grad_loss))


class GraphedStep:
    """Compute the loss terms of a training step on one GPU with a CUDA graph, which is captured at the first call.

    Plain twin: `terms(network, batch)`.

    network: its parameters must stay in place in memory. Its modules with `max_shift` and `shift` (`Noise`) read their
    random shift from `shift`, (2,), which is written to the GPU before each replay. terms: a function of network, batch
    and offset (two random integers below `jitter`) that returns {"loss": …, …}. bf16: autocast to bfloat16. All batches
    must have the same shapes. Take the loss's gradient before the next call, which overwrites it.
    """

    def __init__(self, network: nn.Module, terms: Callable[[Any, Any, Tensor], Terms], jitter: int, bf16: bool) -> None:
        self.network, self.terms, self.bf16 = network, terms, bf16
        self.parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.shifted_modules = [module for module in network.modules() if hasattr(module, "max_shift")]
        self.captured: CapturedGraph | None = None
        self.device = next(iter(self.parameters.values())).device
        limits = [jitter, jitter, *(cast(int, module.max_shift) for module in self.shifted_modules for _ in range(2))]
        self.limits = torch.tensor([max(1, limit) for limit in limits])
        self.offsets = torch.zeros(len(limits), dtype=torch.long, device=self.device)
        for k, module in enumerate(self.shifted_modules):
            module.shift = self.offsets[2 * k + 2 : 2 * k + 4]
        self.side_stream = torch.cuda.Stream()
        self.batch: dict[str, Tensor] = {}

    def close(self) -> None:
        """Release the graph and let the network draw its own shifts again."""
        for module in self.shifted_modules:
            module.shift = None  # type: ignore[assignment]
        self.captured = None

    def __call__(self, batch: Mapping[str, Tensor]) -> Terms:
        """Return the terms; "loss" has a gradient for the parameters. Raises CaptureError."""
        if not self.batch:
            self.batch = {name: torch.empty_like(value) for name, value in batch.items()}
        for name, value in batch.items():
            assert value.shape == self.batch[name].shape
            self.batch[name].copy_(value)
        draws = (torch.rand(len(self.limits), dtype=torch.float64) * self.limits).long()
        self.offsets.copy_(draws, non_blocking=True)
        if self.captured is None:
            self.captured = self._capture()
        loss, values = _Replay.apply(self.captured, *self.parameters.values())
        return {**dict(zip(self.captured.names, values.unbind(), strict=True)), "loss": loss}

    @contextlib.contextmanager
    def _keep_buffers(self) -> Iterator[None]:
        """Restore the network's buffers, such as running statistics, when the block ends."""
        buffers = {buffer: buffer.clone() for buffer in self.network.buffers()}
        yield
        for buffer, before in buffers.items():
            buffer.copy_(before)

    def _compute(self) -> tuple[Terms, tuple[Tensor, ...]]:
        # New leaves on the same memory: the leaves of an earlier step wait for another stream.
        leaves = {name: value.detach().requires_grad_() for name, value in self.parameters.items()}

        def network(*arguments: Tensor | None) -> Tensor:
            result: Tensor = torch.func.functional_call(self.network, leaves, arguments)
            return result

        # A cached bfloat16 copy of a weight would be frozen into the graph.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16, cache_enabled=False):
            terms = self.terms(network, self.batch, self.offsets[:2])
        with torch.autocast(self.device.type, enabled=False):  # the trainer's autocast must not apply to gradients
            return terms, torch.autograd.grad(terms["loss"], list(leaves.values()))

    def _capture(self) -> CapturedGraph:
        current = torch.cuda.current_stream()
        self.side_stream.wait_stream(current)
        with torch.cuda.stream(self.side_stream), torch.enable_grad(), self._keep_buffers():
            for _ in range(WARM_UP):
                self._compute()
        current.wait_stream(self.side_stream)
        try:
            graph = torch.cuda.CUDAGraph()
            # Capture only this thread: the thread that pins the next batches would invalidate the capture.
            capture = torch.cuda.graph(graph, stream=self.side_stream, capture_error_mode="thread_local")
            with capture, torch.enable_grad():
                terms, gradients = self._compute()
                values = torch.stack([term.detach() for term in terms.values()])
        except RuntimeError as error:
            torch.cuda.set_stream(current)  # a failed capture leaves its own stream current
            raise CaptureError(one_line(error)) from error
        return CapturedGraph(graph, list(terms), values, gradients)
