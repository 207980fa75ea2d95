"""What the scripts build out of a composed configuration alike."""

from pathlib import Path
from typing import Any

from fast_nst import loss_networks
from fast_nst.data import style
from fast_nst.data.folder import Folder
from fast_nst.image import to_tensor
from fast_nst.losses import PerceptualLoss, layers_needed


def make_loss(cfg: dict[str, Any], painting: Path, size: int | None) -> PerceptualLoss:
    """The perceptual loss of `cfg` on the CPU, the painting's `style.side` resized to `size`."""
    network = dict(cfg["loss_network"])
    unit_mean = network.pop("unit_mean")
    del network["default_layers"]  # for the YAML of the losses
    layers = layers_needed(cfg["loss"]["content_layers"], cfg["loss"]["style_layers"])
    loss_network = loss_networks.build(layers=layers, **network)
    if unit_mean is not None:
        folder = Folder(unit_mean, 256)
        pictures = (folder[i] for i in range(len(folder)))
        images = (to_tensor(picture) for picture in pictures if picture is not None)
        loss_networks.rescale_to_unit_mean(loss_network, images)
    return PerceptualLoss(loss_network, style.load(painting, size, cfg["style"]["side"]), **cfg["loss"])
