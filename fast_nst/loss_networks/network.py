"""A frozen network that computes an image's features by layer name. Legend: B batch, C channels, H height, W width."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from fast_nst.errors import UserError


class LossNetwork(nn.Module):
    """(B, 3, H, W) in [0, 1] -> {layer name: (B, C, h, w)}; always frozen and in evaluation mode.

    features: the layers, in order. taps: {index in `features`: layer name} of the layers that have an output.
    heads: {layer name: linear map from the layer's channels to the output's channels}, for some layers.
    mean, std: statistics of the RGB images that the layers were trained on.
    It computes in the precision of its weights, even under autocast.
    """

    def __init__(
        self,
        features: nn.Sequential,
        taps: Mapping[int, str],
        mean: Sequence[float],
        std: Sequence[float],
        heads: Mapping[str, nn.Linear] | None = None,
    ) -> None:
        super().__init__()
        for module in features.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False  # in place is up to three times slower on a CPU for large images
        self.features = features
        self.heads = nn.ModuleDict(heads or {})
        self.taps = dict(taps)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, even if Lightning calls this on every module."""
        return super().train(False)

    def select_layers(self, layers: Collection[str]) -> None:
        """Remove all outputs but `layers`."""
        self.taps = {index: name for index, name in self.taps.items() if name in layers}

    def normalize(self, image: Tensor) -> Tensor:
        """Convert an image in [0, 1] to the input of the first layer, in the network's precision, channels_last."""
        x = (image.float() - self.get_buffer("mean").float()) / self.get_buffer("std").float()
        return x.to(next(self.parameters()).dtype).contiguous(memory_format=torch.channels_last)

    def forward(self, image: Tensor, layers: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Compute the features of `layers`; None: of all layers that have an output."""
        wanted = set(self.taps.values() if layers is None else layers)
        outputs: dict[str, Tensor] = {}
        with torch.autocast(image.device.type, enabled=False):
            x = self.normalize(image)
            for index, module in enumerate(self.features):
                if len(outputs) == len(wanted):
                    break
                x = module(x)
                name = self.taps.get(index)
                if name is not None and name in wanted:
                    outputs[name] = x
                    if name in self.heads:
                        outputs[name] = self.heads[name](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if len(outputs) < len(wanted):
            check_layers(wanted, self.taps.values())
        return outputs


def check_layers(layers: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """Return `layers` without repeats. Raises UserError if one is not in `known`, or if there are none."""
    names, wanted = list(known), tuple(dict.fromkeys(layers))
    for layer in wanted:
        if layer not in names:
            raise UserError(
                f"layer {layer!r} does not exist in this loss network; it has {', '.join(names)}; "
                "loss_network=vgg16 and vgg19 have more"
            )
    if not wanted:
        raise UserError(f"no layers given; this loss network has {', '.join(names)}")
    return wanted
