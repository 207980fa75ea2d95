"""The loss of a network that restores images. It compares the output's features or pixels with the original's."""

import torch
from torch import Tensor

from fast_nst import errors
from fast_nst.loss_networks import LossNetwork
from fast_nst.losses.functional import content_loss, energy


class RestorationLoss:
    """Images (B, 3, H, W) and their originals -> the loss terms by name, and their weighted sum, "loss".

    "feature": mean squared difference of `loss_network`'s features (Johnson 2016 eq. 2), divided by the mean square of
    the original's features, so that it means the same with every loss network, and averaged over layers. "pixel": mean
    squared difference of the pixels (sec. 3.2). Each is the mean over the batch. A term of weight 0 is not computed.
    Raises UserError for weights out of range.
    """

    def __init__(self, loss_network: LossNetwork, feature_weight: float = 1.0, pixel_weight: float = 0.0) -> None:
        self.loss_network = loss_network
        self.feature_weight = errors.check_number("method.feature_weight", feature_weight, 0)
        self.pixel_weight = errors.check_number("method.pixel_weight", pixel_weight, 0)
        if not feature_weight and not pixel_weight:
            raise errors.UserError(
                "method.feature_weight, method.pixel_weight: got 0 and 0; allowed: at least one above 0"
            )

    def to(self, device: torch.device | str, dtype: torch.dtype) -> None:
        """Move the loss network to `device` and `dtype`. Sums are float32 in any case."""
        self.loss_network.to(device, dtype)

    def __call__(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        loss = output.new_zeros(())
        if self.feature_weight:
            with torch.no_grad():
                wanted = self.loss_network(target)
            found = self.loss_network(output)
            parts = [content_loss(found[k], wanted[k]) / energy(wanted[k]).clamp_min(1e-8) for k in wanted]
            terms["feature"] = torch.stack(parts).mean()
            loss = loss + self.feature_weight * terms["feature"]
        if self.pixel_weight:
            terms["pixel"] = (output - target).square().mean()
            loss = loss + self.pixel_weight * terms["pixel"]
        return {"loss": loss, **terms}
