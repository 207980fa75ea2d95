"""Loss networks: frozen networks that compute an image's features by layer name. `build` makes one."""

import os
from collections.abc import Iterable

from fast_nst.errors import UserError
from fast_nst.loss_networks.compact import build_compact
from fast_nst.loss_networks.network import LossNetwork
from fast_nst.loss_networks.vgg import VARIANTS, build_vgg, rescale_to_unit_mean

__all__ = ["NAMES", "LossNetwork", "build", "rescale_to_unit_mean"]

NAMES = ("compact", *VARIANTS)


def build(
    name: str,
    layers: Iterable[str],
    weights: str | os.PathLike[str] | None = None,
    pooling: str = "max",
) -> LossNetwork:
    """Build the loss network `name` with outputs `layers`, float32 on the CPU.

    name: "compact" (ships with the package), "vgg16" or "vgg19". weights, pooling: see `vgg.build_vgg` and
    `compact.build_compact`. Raises UserError with the argument, the value given and the values allowed.
    """
    if name not in NAMES:
        raise UserError(f"loss_network.name: got {name!r}; allowed: {', '.join(NAMES)}")
    if name != "compact":
        return build_vgg(name, layers, weights, pooling)
    if pooling != "max":
        raise UserError(f"loss_network.pooling: got {pooling!r}; allowed with compact: max")
    return build_compact(layers, weights)
