"""Adversarial generation (AGN): a generator makes images in a given style from noise; a discriminator judges them.

The method is that of Goodfellow et al. 2014 (arXiv 1406.2661), but the discriminator has one output for each style:
output i is the probability that an image is real and of style i. Legend: B batch, K styles, F numbers that describe a
style.
"""

from typing import Any, cast

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from fast_nst import device, errors
from fast_nst.data.batch import Batch
from fast_nst.loss_networks.style_features import StyleExtractor
from fast_nst.networks.generator import Discriminator, Generator
from fast_nst.training import optimizers
from fast_nst.training.divergence import check_finite
from fast_nst.training.resume import seed_step, set_learning_rate

BETAS = (0.5, 0.999)  # Adam's, as in DCGAN
REFERENCES = 8  # minimum number of real images per step whose features are extracted
MEMORY = 0.01  # weight of one step in the mean features that the generator keeps for each style


def discriminator_loss(real: Tensor, fake: Tensor, style: Tensor) -> Tensor:
    """Return the mean of two cross-entropies: of real images' logits with their style, and of generated images' with 0.

    All are (B, K); `style` is one-hot.
    """
    cross_entropy = F.binary_cross_entropy_with_logits
    return (cross_entropy(real, style) + cross_entropy(fake, torch.zeros_like(fake))) / 2


def generator_loss(fake: Tensor, style: Tensor) -> Tensor:
    """Return the cross-entropy of generated images' logits, (B, K), with "real", for each image's own style only."""
    logits = (fake * style).sum(1)
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))


def gradient_penalty(real: Tensor, logits: Tensor, style: Tensor) -> Tensor:
    """Return half the squared norm of the gradient, with respect to real images, of the logits of their styles.

    This is R1 (Mescheder et al. 2018, arXiv 1801.04406). The norm is that of functions on the unit square, so it does
    not depend on the size. real: (B, 3, H, W), must require a gradient. logits, style: (B, K).
    """
    (gradient,) = torch.autograd.grad((logits * style).sum(), real, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean() * real[0, 0].numel() / 2


class Adversarial(pl.LightningModule):
    """Train `network`, the generator, and `discriminator` in turn, one step each, on real images of K styles.

    Every generated image gets the features of a real image of its style, which `extractor` computes from the same
    batch. name, learning_rate, schedule, warmup_steps: settings of both optimizers; name must be "adam". total_steps:
    length of the schedule. seed: the noise of a step depends on the seed and the step only. penalty_weight: the weight
    of `gradient_penalty`, which keeps the discriminator from winning. style_weight: the weight of the squared
    difference between the features of generated images and those they were given; 0: no such term. Raises UserError.
    """

    def __init__(
        self,
        network: Generator,
        discriminator: Discriminator,
        extractor: StyleExtractor,
        name: str,
        learning_rate: float,
        schedule: str,
        warmup_steps: int,
        total_steps: int,
        seed: int,
        penalty_weight: float = 0.0,
        style_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network, self.discriminator, self.extractor = network, discriminator, extractor
        errors.check_choice("optimizer.name", name, ("adam",))
        self.learning_rate = errors.check_number("optimizer.learning_rate", learning_rate, 0)
        self.schedule = errors.check_choice("optimizer.schedule", schedule, optimizers.SCHEDULES)
        self.warmup_steps = errors.check_int("optimizer.warmup_steps", warmup_steps, 0)
        self.total_steps = errors.check_int("trainer.max_steps", total_steps, 1)
        self.seed = errors.check_int("seed", seed, 0)
        self.penalty_weight = errors.check_number("method.penalty_weight", penalty_weight, 0)
        self.style_weight = errors.check_number("method.style_weight", style_weight, 0)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        real, style = batch["content"], batch["style"]
        features = self.features(real, style)
        self.remember(features, style)
        fake = self.network(self.draw_noise(len(real)), features)

        # Lightning counts the steps of its wrappers. Only the generator's optimizer is wrapped, so that a step of both
        # networks counts once.
        optimizer = cast(list[Any], self.optimizers())[0]
        other = cast(list[Any], self.optimizers(use_pl_optimizer=False))[1]
        real.requires_grad_(self.penalty_weight > 0)
        logits = self.discriminator(real)
        loss_d = discriminator_loss(logits, self.discriminator(fake.detach()), style)
        penalty = gradient_penalty(real, logits, style) if self.penalty_weight else 0.0
        self.update(other, loss_d + self.penalty_weight * penalty, self.discriminator)
        loss_g = generator_loss(self.discriminator(fake), style)
        terms = {"discriminator": loss_d, "generator": loss_g}
        if self.style_weight:
            count = min(REFERENCES, len(fake))
            terms["style"] = (self.extractor(fake[:count]) - features[:count]).square().mean()
        self.update(optimizer, loss_g + self.style_weight * terms.get("style", 0.0), self.network)
        for scheduler in cast(list[Any], self.lr_schedulers()):
            scheduler.step()
        values = {name: term.detach() for name, term in terms.items()}
        self.log_dict({f"train/{name}": value for name, value in values.items()})
        return {"loss": values["discriminator"] + values["generator"], **values}

    def features(self, real: Tensor, style: Tensor) -> Tensor:
        """Return for each image the features of a real image of its style, (B, F). Styles take turns in a batch."""
        period = style.shape[1]
        count = min(len(real), -(-REFERENCES // period) * period)
        with torch.no_grad():
            features = self.extractor(real[:count])
        return features[torch.arange(len(real), device=real.device) % (count - count % period or count)]

    def remember(self, features: Tensor, style: Tensor) -> None:
        """Update the mean features of each style, which the generator keeps for `generate`."""
        known = self.network.get_buffer("known")
        counts = style.sum(0)[:, None]
        means = torch.where(counts > 0, style.T @ features / counts.clamp_min(1), known)
        known.lerp_(means, 1.0 if self.global_step == 0 else MEMORY)

    def draw_noise(self, count: int) -> Tensor:
        """Draw the noise of this process's share of the batch."""
        world, rank = self.trainer.world_size, self.trainer.global_rank
        noise = torch.randn(world * count, self.network.noise)
        return noise[rank * count : (rank + 1) * count].to(self.device)

    def update(self, optimizer: Any, loss: Tensor, network: nn.Module) -> None:
        """Take a step with the gradient of `loss`, averaged over all processes, for the parameters of `network`.

        It avoids backward(), which would also fill the other network's gradients and start DDP's reduction of them all.
        """
        parameters = list(network.parameters())
        gradients = torch.autograd.grad(loss, parameters)
        if self.trainer.world_size > 1:
            flat: Any = self.trainer.strategy.reduce(torch.cat([g.flatten() for g in gradients]), reduce_op="mean")
            parts = flat.split([g.numel() for g in gradients])
            gradients = tuple(part.view_as(g) for part, g in zip(parts, gradients, strict=True))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        real, style = batch["content"], batch["style"]
        generator = torch.Generator().manual_seed(batch_idx)
        noise = torch.randn(len(real), self.network.noise, generator=generator).to(self.device)
        fake = self.discriminator(self.network(noise, style @ self.network.get_buffer("known")))
        values = {
            "val/discriminator": discriminator_loss(self.discriminator(real), fake, style),
            "val/generator": generator_loss(fake, style),
        }
        self.log_dict(values, batch_size=len(real), sync_dist=True)

    def configure_optimizers(self) -> list[OptimizerLRSchedulerConfig]:
        return [
            optimizers.schedule(
                torch.optim.Adam(network.parameters(), self.learning_rate, betas=BETAS),
                self.schedule, self.warmup_steps, lambda: self.total_steps,
            )
            for network in (self.network, self.discriminator)
        ]  # fmt: skip

    def setup(self, stage: str) -> None:
        if self.trainer.precision == "16-mixed":
            raise errors.UserError("trainer.precision: got 16-mixed; allowed here: 32-true, bf16-mixed")

    def on_fit_start(self) -> None:
        bf16 = str(self.trainer.precision).startswith("bf16")
        self.extractor.loss_network.to(self.device, torch.bfloat16 if bf16 else torch.float32)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        seed_step(self.seed, self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_finite(self.network, self.global_step)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        set_learning_rate(checkpoint, self.learning_rate)

    def memory_needed(self, batch_size: int, size: int, bf16: bool = False) -> int:
        """Estimate the bytes of a step on a CPU for `batch_size` images of the generator's size; `size` is ignored."""
        noise, style = torch.zeros(2, self.network.noise), torch.zeros(2, self.network.features)

        def compute() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                self.discriminator(self.network(noise, style))

        before = {name: value.clone() for name, value in self.network.named_buffers()}
        needed = round(1.5 * device.kept_bytes(compute) * batch_size / 2)
        for name, value in self.network.named_buffers():  # the batch norms' statistics
            value.copy_(before[name])
        return needed
