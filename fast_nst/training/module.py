"""The training of one image transformation network against a perceptual loss, as a LightningModule."""

import copy
import math
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from fast_nst import machine, validate
from fast_nst.losses import PerceptualLoss
from fast_nst.networks.functional import prefers_channels_last
from fast_nst.training.jitter import jitter
from fast_nst.training.muon import Muon
from fast_nst.training.recorded import RecordedStep

OPTIMIZERS = ("muon", "adam")
SCHEDULES = ("cosine", "linear", "constant")
SPREAD = 0x9E3779B1  # between the steps of two seeds, an odd number (Knuth's multiplicative hash)


def learning_rate_factor(step: int, schedule: str, warmup_steps: int, total_steps: int) -> float:
    """What the learning rate of `step` (from 0) is multiplied by: a linear warm-up, then 1, or down to 0 by a cosine or
    a straight line."""
    factor = min(1.0, (step + 1) / (warmup_steps + 1))
    if schedule != "constant":
        done = min(1.0, step / total_steps)
        factor *= 0.5 + 0.5 * math.cos(math.pi * done) if schedule == "cosine" else 1 - done
    return factor


class StyleTransfer(pl.LightningModule):
    """The training of `network` on batches of content images (B, 3, S, S) in [0, 1].

    loss: held as a plain object, so that its loss network is in no checkpoint, broadcast or bucket.
    name: of the optimizer, one of `OPTIMIZERS`. total_steps: the length that a schedule spans. seed: of whatever is
    random in a step, which is a function of only the seed and the step, so that a resumed run equals an unbroken one.
    jitter: pixels, see `jitter`. cuda_graphs: capture a step on one GPU and replay it (`recorded`).
    Raises Invalid for values out of range.
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
        cuda_graphs: bool = True,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.optimizer_name = validate.one_of("optimizer.name", name, OPTIMIZERS)
        self.learning_rate = validate.number("optimizer.learning_rate", learning_rate, 0)
        self.schedule = validate.one_of("optimizer.schedule", schedule, SCHEDULES)
        self.warmup_steps = validate.whole_number("optimizer.warmup_steps", warmup_steps, 0)
        self.seed = validate.whole_number("seed", seed, 0)
        self.total_steps = validate.whole_number("trainer.max_steps", total_steps, 1)
        self.jitter = validate.whole_number("loss.jitter", jitter, 0)
        if not isinstance(cuda_graphs, bool):
            raise validate.Invalid(f"trainer.cuda_graphs: got {cuda_graphs!r}; allowed: true, false")
        self.cuda_graphs = cuda_graphs
        self.recorded: RecordedStep | None = None

    def forward(self, photograph: Tensor) -> Tensor:
        return self.network(photograph)

    def setup(self, stage: str) -> None:
        # Before DDP looks at the layouts.
        if prefers_channels_last(self.trainer.strategy.root_device):
            self.network.to(memory_format=torch.channels_last)

    def on_fit_start(self) -> None:
        # bfloat16 throughout the loss network; its sums are float32 all the same (losses.functional).
        low = str(self.trainer.precision).startswith("bf16")
        self.loss.to(self.device, torch.bfloat16 if low else torch.float32)
        # A loss that is scaled needs its scale before its gradients are taken; several processes wait for each other's.
        alone = self.trainer.world_size == 1 and self.trainer.precision != "16-mixed"
        if self.cuda_graphs and alone and self.device.type == "cuda":
            self.recorded = RecordedStep(self.network, self.loss, self.jitter, low)

    def memory_needed(self, batch_size: int, size: int, low: bool = False) -> int:
        """About how many bytes a step takes on a CPU for so many images of `size` pixels a side, in bfloat16 where
        `low`: what autograd keeps for the gradient, and half as much again while it is computed."""
        self.loss.to("cpu", torch.bfloat16 if low else torch.float32)
        side = max(128, self.loss.smallest)
        piece, network = torch.full((1, 3, side, side), 0.5), copy.deepcopy(self.network).train()
        network.to(memory_format=torch.channels_last)

        def compute() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                self.loss(network(piece), piece)

        with torch.random.fork_rng(devices=()):
            return round(1.5 * machine.kept_bytes(compute) * batch_size * (size / side) ** 2)

    def on_train_start(self) -> None:
        # A run may go on where channels lie otherwise; a fused optimizer takes its state as it lies.
        for optimizer in self.trainer.optimizers:
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        state[key] = torch.empty_like(parameter).copy_(value)

    def on_fit_end(self) -> None:
        self.stop_recording()

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        # The CPU's generator, which takes the lower 32 bits of a seed alone. To seed all of them takes a millisecond.
        torch.default_generator.manual_seed((self.seed * SPREAD + self.global_step) % 2**32)

    def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        terms = self._terms(batch)
        values = {name: value.detach() for name, value in terms.items()}
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if (self.global_step + 1) % every == 0:  # log_dict costs the same whether or not the logger writes
            self.log_dict({f"train/{name}": value for name, value in values.items()})
        return {**values, "loss": terms["loss"]}

    def _terms(self, batch: Tensor) -> dict[str, Tensor]:
        if self.recorded is not None:
            try:
                return self.recorded(batch)
            except RuntimeError as error:
                reason = str(error).strip().partition("\n")[0]
            self.stop_recording()
            torch.cuda.empty_cache()  # a captured graph keeps a step's memory for itself
            warnings.warn(f"no CUDA graph of a step here; steps are slower ({reason})", stacklevel=2)
        return self.loss(*jitter(self(batch), batch, self.jitter))

    def stop_recording(self) -> None:
        """Every step by itself from here on."""
        if self.recorded is not None:
            self.recorded.close()
            self.recorded = None

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        terms = self.loss(self(batch), batch)
        self.log_dict({f"val/{name}": value for name, value in terms.items()}, batch_size=len(batch), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        if self.optimizer_name == "muon":
            optimizer: torch.optim.Adam = Muon(self.network, self.learning_rate)
        else:
            fused = self.device.type != "mps"
            optimizer = torch.optim.Adam(self.network.parameters(), self.learning_rate, fused=fused)

        def factor(step: int) -> float:
            return learning_rate_factor(step, self.schedule, self.warmup_steps, self.total_steps)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def check_finite(self) -> None:
        """Raises Diverged: what was good is not overwritten by a diverged run."""
        for name, value in self.network.named_parameters():
            if not torch.isfinite(value).all():
                raise Diverged(self.global_step, f"the parameter {name}")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check_finite()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._take_learning_rate(checkpoint)

    def _take_learning_rate(self, checkpoint: dict[str, Any]) -> None:
        """Of this run in place of the one that the checkpoint's had: its states would bring that back."""
        groups = [group for state in checkpoint.get("optimizer_states", ()) for group in state["param_groups"]]
        before = groups[-1]["initial_lr"] if groups else 0  # of the kernels, where there are two
        if before in (0, self.learning_rate):
            return
        factor = self.learning_rate / before
        for group in groups:
            group["lr"], group["initial_lr"] = group["lr"] * factor, group["initial_lr"] * factor
        for state in checkpoint["lr_schedulers"]:
            for key in ("base_lrs", "_last_lr"):
                state[key] = [rate * factor for rate in state[key]]


class Diverged(validate.Failure):
    """The loss or a parameter became NaN or infinite; the message says what to try."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(
            f"stopped at step {step}: {what} is NaN or infinite. Try a lower optimizer.learning_rate, a longer "
            f"optimizer.warmup_steps, or trainer.precision=32-true; a checkpoint, if there is one, is from before"
        )
