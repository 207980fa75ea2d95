"""StyleBank (Chen et al. 2017, arXiv 1703.09210): train banks of convolutions between an auto-encoder's two halves."""

from typing import Any

import torch
import torch.nn.functional as F

from fast_nst.data.batch import Batch
from fast_nst.methods.style_transfer import StyleTransfer
from fast_nst.networks.style_bank import StyleBank

STYLIZING = 2  # stylizing steps between two auto-encoder steps; T in the paper


class StyleBankTransfer(StyleTransfer):
    """Train a `StyleBank` by turns (sec. 3.3): `STYLIZING` steps of `StyleTransfer`, then one of the auto-encoder.

    An auto-encoder step trains only encoder and decoder. Its gradient is scaled to the norm of the last stylizing
    step's gradient in encoder and decoder, which is saved in checkpoints. In the first phase, which trains new banks,
    all steps stylize. The arguments are those of `StyleTransfer`. There are no CUDA graphs, because a step runs only
    the banks of its batch.
    """

    style_norm: torch.Tensor

    def __init__(self, network: StyleBank, *arguments: Any, **options: Any) -> None:
        super().__init__(network, *arguments, **{**options, "cuda_graphs": False})
        self.register_buffer("style_norm", torch.zeros(()))

    def autoencodes(self) -> bool:
        """Return whether this step trains the auto-encoder."""
        return not self.in_first_phase() and self.global_step % (STYLIZING + 1) == STYLIZING

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, torch.Tensor]:
        if self.autoencodes():
            loss = F.mse_loss(self.network(batch["content"]), batch["content"])
            self.log("train/autoencoder", loss.detach())
            terms = {"loss": loss, "autoencoder": loss.detach()}
        else:
            terms = super().training_step(batch, batch_idx)
        if self.trainer.world_size > 1:  # DDP waits for all gradients, even those of banks that the batch does not use
            unused = torch.stack([parameter.sum() for parameter in self.network.parameters()]).sum()
            terms["loss"] = terms["loss"] + 0 * unused
        return terms

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        gradients = [parameter.grad for parameter in self.shared if parameter.grad is not None]
        if not gradients:
            return
        norm = torch.linalg.vector_norm(torch.stack([gradient.norm() for gradient in gradients]))
        if self.autoencodes():
            torch._foreach_mul_(gradients, self.style_norm / norm.clamp_min(1e-20))
        else:
            self.style_norm.copy_(norm)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        content = batch["content"]
        error = (self.network(content).clamp(0, 1) - content).square().mean((1, 2, 3))  # (B,)
        psnr = -10 * error.clamp_min(1e-10).log10().mean()
        self.log("val/autoencoder_psnr", psnr, batch_size=len(content), sync_dist=True)  # dB
