"""Super-resolution with a perceptual loss (Johnson 2016, sec. 4.2): train a network to restore shrunk images."""

import copy
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from fast_nst import device, errors
from fast_nst.data.batch import Batch
from fast_nst.losses.restoration import RestorationLoss
from fast_nst.networks.super_resolution import SuperResolution
from fast_nst.ops.channels_last import prefers_channels_last
from fast_nst.training import optimizers
from fast_nst.training.divergence import check_finite
from fast_nst.training.resume import set_learning_rate


class Restoration(pl.LightningModule):
    """Train `network` so that its output for the batch's content matches the batch's target.

    loss: not a Module, so its loss network is not saved in checkpoints. name, learning_rate, schedule, warmup_steps:
    the optimizer's settings, see `optimizers`. total_steps: length of the schedule.
    Raises UserError for values out of range.
    """

    def __init__(
        self,
        network: SuperResolution,
        loss: RestorationLoss,
        name: str,
        learning_rate: float,
        schedule: str,
        warmup_steps: int,
        total_steps: int,
    ) -> None:
        super().__init__()
        self.network, self.loss = network, loss
        self.optimizer_name = errors.check_choice("optimizer.name", name, optimizers.OPTIMIZERS)
        self.learning_rate = errors.check_number("optimizer.learning_rate", learning_rate, 0)
        self.schedule = errors.check_choice("optimizer.schedule", schedule, optimizers.SCHEDULES)
        self.warmup_steps = errors.check_int("optimizer.warmup_steps", warmup_steps, 0)
        self.total_steps = errors.check_int("trainer.max_steps", total_steps, 1)

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        output = self.network(batch["content"].contiguous(memory_format=torch.channels_last))
        return self.loss(output, batch["target"])

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        terms = self.terms(batch)
        self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()})
        return {"loss": terms.pop("loss"), **{name: term.detach() for name, term in terms.items()}}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        values = {f"val/{name}": term for name, term in self.terms(batch).items()}
        self.log_dict(values, batch_size=len(batch["content"]), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = optimizers.build(self.optimizer_name, self.network, self.learning_rate)
        return optimizers.schedule(optimizer, self.schedule, self.warmup_steps, lambda: self.total_steps)

    def setup(self, stage: str) -> None:
        if prefers_channels_last(self.trainer.strategy.root_device):
            self.network.to(memory_format=torch.channels_last)

    def on_fit_start(self) -> None:
        bf16 = str(self.trainer.precision).startswith("bf16")
        self.loss.to(self.device, torch.bfloat16 if bf16 else torch.float32)

    def on_train_start(self) -> None:
        optimizers.match_layouts(self.trainer.optimizers)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_finite(self.network, self.global_step)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        set_learning_rate(checkpoint, self.learning_rate)

    def memory_needed(self, batch_size: int, size: int, bf16: bool = False) -> int:
        """Estimate the bytes of a step on a CPU for `batch_size` targets with sides of `size` pixels."""
        self.loss.to("cpu", torch.bfloat16 if bf16 else torch.float32)
        network, side = copy.deepcopy(self.network).to(memory_format=torch.channels_last), 16 * self.network.scale
        content, target = torch.full((1, 3, 16, 16), 0.5), torch.full((1, 3, side, side), 0.5)

        def compute() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                self.loss(network(content), target)

        return round(1.5 * device.kept_bytes(compute) * batch_size * (size / side) ** 2)
