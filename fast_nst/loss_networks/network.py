"""A loss network: frozen features of an image, by the names of their layers. Legend: B batch, C channels, H, W."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from fast_nst.validate import Invalid


class LossNetwork(nn.Module):
    """(B, 3, H, W) in [0, 1] -> {layer name: (B, C, h, w)}; frozen, in evaluation mode whatever is asked.

    members: how many networks it consists of, which a training asks in random order (`compact.Ensemble`). referred:
    whether it has a better network beside them, several times as slow: the member of the number `members`.
    """

    members = 1
    referred = False

    def freeze(self) -> None:
        """For the end of a constructor: no gradients for the weights, channels_last, evaluation mode."""
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode: Lightning puts whatever it finds into training mode."""
        return super().train(False)

    def forward(self, image: Tensor, layers: Iterable[str] | None = None, member: int = 0) -> dict[str, Tensor]:
        """layers: those that are wanted this time (the rest is not computed); all of them by default. member: which of
        `members` to ask; where `referred`, `members` itself is the better network."""
        raise NotImplementedError

    def refer(self, image: Tensor, layers: Iterable[str]) -> list[dict[str, Tensor]]:
        """The better network's outputs, for each member at the positions that its own hold, where `referred`."""
        raise NotImplementedError


class Features(LossNetwork):
    """Layers in order, some of which give an output.

    features: the layers. taps: those that give an output, {index in `features`: layer name}.
    heads: for some names, a linear map from the channels of the tap to those of the output. mean, std: of the RGB it
    was trained on.
    It computes in the precision of its own weights, whatever autocast says around it.
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
                module.inplace = False  # on a large picture in place takes a CPU up to three times as long
        self.features = features
        self.heads = nn.ModuleDict(heads or {})
        self.taps = dict(taps)
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.freeze()

    def normalize(self, image: Tensor) -> Tensor:
        """[0, 1] -> what the first layer takes, in the network's own precision and layout."""
        x = (image.float() - self.get_buffer("mean").float()) / self.get_buffer("std").float()
        return x.to(next(self.parameters()).dtype).contiguous(memory_format=torch.channels_last)

    def forward(self, image: Tensor, layers: Iterable[str] | None = None, member: int = 0) -> dict[str, Tensor]:
        wanted = set(self.taps.values() if layers is None else layers)
        found: dict[str, Tensor] = {}
        with torch.autocast(image.device.type, enabled=False):
            x = self.normalize(image)
            for index, module in enumerate(self.features):
                if len(found) == len(wanted):
                    break
                x = module(x)
                name = self.taps.get(index)
                if name is not None and name in wanted:
                    found[name] = x
                    if name in self.heads:
                        found[name] = self.heads[name](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if len(found) < len(wanted):
            check_layers(wanted, self.taps.values())
        return found


def check_layers(layers: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """`layers` without repeats. Raises Invalid for one that is not among `known`, or none at all."""
    names, wanted = list(known), tuple(dict.fromkeys(layers))
    for layer in wanted:
        if layer not in names:
            raise Invalid(
                f"layer {layer!r} does not exist in this loss network; it has {', '.join(names)}; "
                "loss_network=vgg16 and vgg19 have more"
            )
    if not wanted:
        raise Invalid(f"no layer was asked for; this loss network has {', '.join(names)}")
    return wanted
