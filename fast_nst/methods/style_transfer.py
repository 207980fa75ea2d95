"""Fast style transfer (Johnson 2016): train one network against a perceptual loss."""

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from fast_nst import device, errors
from fast_nst.data.batch import Batch
from fast_nst.losses import PerceptualLoss, temporal
from fast_nst.networks import Network
from fast_nst.networks.styles import clear_gradients, is_conditional, shared_parameters
from fast_nst.ops.channels_last import prefers_channels_last
from fast_nst.ops.cuda_graph import CaptureError, GraphedStep
from fast_nst.training import optimizers
from fast_nst.training.divergence import check_finite
from fast_nst.training.jitter import jitter
from fast_nst.training.resume import seed_step, set_learning_rate


def training_terms(
    network: Callable[..., Tensor],
    batch: Batch,
    offset: Tensor | None = None,
    *,
    loss: PerceptualLoss,
    pixels: int = 0,
    kept: int = 0,
    temporal_weight: float = 0.0,
) -> dict[str, Tensor]:
    """Run `network` on `batch`, crop output and content alike (`jitter`) and return the loss terms.

    kept: the number of the network's styles that come before the styles of the batch and the loss. temporal_weight: the
    weight of `temporal.temporal_loss`, if the batch has a second frame. Both frames get the same noise, because they
    form one batch of the network.
    """
    content, style = batch["content"], batch.get("style")
    weights = style if style is None else F.pad(style, (kept, 0))
    if "moved" not in batch:
        output, content = jitter(network(content, weights), content, pixels, offset)
        return loss(output, content, style)
    weights = weights if weights is None else torch.cat([weights, weights])
    first, second = network(torch.cat([content, batch["moved"]]), weights).chunk(2)
    difference = temporal.temporal_loss(first, second, batch["motion"])
    output, content = jitter(first, content, pixels, offset)
    terms = loss(output, content, style)
    return {**terms, "temporal": difference, "loss": terms["loss"] + temporal_weight * difference}


class StyleTransfer(pl.LightningModule):
    """Train `network` on batches of content images.

    loss: not a Module, so its loss network is not saved in checkpoints, broadcast or synchronized.
    name: the optimizer's name, one of `optimizers.OPTIMIZERS`. total_steps: the length of the schedule. seed: the
    randomness of a step depends only on the seed and the step, so a resumed run equals an uninterrupted one.
    first_phase: for a network with several styles, the share of the steps that train only the new styles; the remaining
    steps train everything. kept: the number of styles before the new ones, which the first phase leaves unchanged.
    jitter: in pixels, see `training.jitter`. temporal_weight: the temporal term's weight, for video
    (`losses.temporal`).
    cuda_graphs: on one GPU, capture the step and replay it (`GraphedStep`).
    Raises UserError for values out of range.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: PerceptualLoss,
        name: str,
        learning_rate: float,
        schedule: str,
        warmup_steps: int,
        total_steps: int,
        seed: int,
        jitter: int = 0,
        temporal_weight: float = 0.0,
        cuda_graphs: bool = True,
        first_phase: float = 0.0,
        kept: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.optimizer_name = errors.check_choice("optimizer.name", name, optimizers.OPTIMIZERS)
        self.learning_rate = errors.check_number("optimizer.learning_rate", learning_rate, 0)
        self.schedule = errors.check_choice("optimizer.schedule", schedule, optimizers.SCHEDULES)
        self.warmup_steps = errors.check_int("optimizer.warmup_steps", warmup_steps, 0)
        self.seed = errors.check_int("seed", seed, 0)
        self.total_steps = errors.check_int("trainer.max_steps", total_steps, 1)
        self.jitter = errors.check_int("loss.jitter", jitter, 0)
        self.temporal_weight = errors.check_number("loss.temporal_weight", temporal_weight, 0)
        self.cuda_graphs = cuda_graphs
        self.graphed: GraphedStep | None = None
        self.first_phase = errors.check_number("method.first_phase", first_phase, 0, 1)
        self.kept = kept
        self.terms = partial(
            training_terms, loss=loss, pixels=self.jitter, kept=self.kept, temporal_weight=self.temporal_weight
        )
        self.shared = shared_parameters(network)
        if first_phase and not is_conditional(network):
            raise errors.UserError("method.first_phase: needs a network with several styles; use network=conditional")

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        if self.temporal_weight:  # drawn here, because a CUDA graph would repeat its draws
            motion = temporal.random_motion(*batch["content"].shape[2:]).to(batch["content"].device)
            batch = {**batch, "moved": temporal.second_frame(batch["content"], motion), "motion": motion}
        # `graphed_terms` computes the same, replayed as a CUDA graph.
        terms = self.terms(self.network, batch) if self.graphed is None else self.graphed_terms(batch)
        values = {name: term.detach() for name, term in terms.items()}
        interval: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (self.global_step + 1) % interval == 0:  # log_dict costs the same whether or not the logger writes
            self.log_dict({f"train/{name}": value for name, value in values.items()})
        return {**values, "loss": terms["loss"]}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        terms = training_terms(self.network, batch, loss=self.loss, kept=self.kept)
        values = {f"val/{name}": term for name, term in terms.items()}
        self.log_dict(values, batch_size=len(batch["content"]), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = optimizers.build(self.optimizer_name, self.network, self.learning_rate)
        return optimizers.schedule(
            optimizer, self.schedule, self.warmup_steps, lambda: self.total_steps, self.first_phase
        )

    def setup(self, stage: str) -> None:
        # This must happen before DDP reads the layouts.
        if prefers_channels_last(self.trainer.strategy.root_device):
            self.network.to(memory_format=torch.channels_last)

    def on_fit_start(self) -> None:
        # With bf16, the whole loss network is bfloat16; sums are still float32 (losses.functional).
        bf16 = str(self.trainer.precision).startswith("bf16")
        self.loss.to(self.device, torch.bfloat16 if bf16 else torch.float32)
        self.set_phase()
        # No graph with 16-mixed, which scales the loss, or with several processes, which average their gradients.
        single = self.trainer.world_size == 1 and self.trainer.precision != "16-mixed"
        if self.cuda_graphs and single and self.device.type == "cuda":
            self.open_graph()

    def open_graph(self) -> None:
        bf16 = str(self.trainer.precision).startswith("bf16")
        self.graphed = GraphedStep(self.network, self.terms, self.jitter, bf16)

    def in_first_phase(self) -> bool:
        return self.global_step < self.first_phase * self.total_steps

    def set_phase(self) -> None:
        """Freeze the shared parameters during the first phase.

        With several processes they are never frozen, because DDP's buckets are fixed; `on_before_optimizer_step` clears
        their gradients instead.
        """
        trains_shared = not self.in_first_phase() or self.trainer.world_size > 1
        if self.shared[0].requires_grad != trains_shared:
            for parameter in self.shared:
                parameter.requires_grad_(trains_shared)
            if self.graphed is not None:
                self.graphed.close()
                self.open_graph()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.in_first_phase():
            clear_gradients(self.network, self.kept)

    def graphed_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Compute `training_terms` with the CUDA graph; if it cannot be captured, warn and train without it."""
        assert self.graphed is not None
        try:
            return self.graphed(batch)  # type: ignore[arg-type]
        except CaptureError as error:
            reason = str(error)
        self.close_graph()
        torch.cuda.empty_cache()  # frees the memory that the graph reserved for a step
        warnings.warn(f"the step cannot be captured as a CUDA graph; steps are slower ({reason})", stacklevel=2)
        return self.terms(self.network, batch)

    def close_graph(self) -> None:
        if self.graphed is not None:
            self.graphed.close()
            self.graphed = None

    def on_fit_end(self) -> None:
        self.close_graph()

    def on_train_start(self) -> None:
        optimizers.match_layouts(self.trainer.optimizers)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.set_phase()
        seed_step(self.seed, self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_finite(self.network, self.global_step)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        set_learning_rate(checkpoint, self.learning_rate)

    def memory_needed(self, batch_size: int, size: int, bf16: bool = False) -> int:
        """Estimate the bytes of a step on a CPU for `batch_size` images with sides of `size` pixels.

        It is the memory that autograd saves for the gradient, plus half as much again while the gradient is computed.
        """
        self.loss.to("cpu", torch.bfloat16 if bf16 else torch.float32)
        frames = 2 if self.temporal_weight else 1
        side = max(128, self.loss.smallest)
        sample, network = torch.full((1, 3, side, side), 0.5), copy.deepcopy(self.network).train()
        network.to(memory_format=torch.channels_last)
        style = torch.eye(cast(Network, network).num_styles)[:1]

        def compute() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                self.loss(network(sample.expand(frames, -1, -1, -1), style)[:1], sample)

        with torch.random.fork_rng(devices=()):
            return round(1.5 * device.kept_bytes(compute) * batch_size * (size / side) ** 2)
