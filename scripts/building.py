"""What the scripts build out of a composed configuration alike."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from settings import CONFIGS

from fast_nst import loss_networks
from fast_nst.data import style
from fast_nst.data.folder import Folder
from fast_nst.image import to_tensor
from fast_nst.losses import PerceptualLoss, layers_needed
from fast_nst.validate import Invalid, number

LONGEST_NAME = 200  # bytes; with what is added to it a file system takes it


def loss_settings(loss: str = "default", loss_network: str = "compact") -> dict[str, Any]:
    """The arguments of the loss that train.py has with `loss=` and `loss_network=`."""
    groups = {"loss": loss, "loss_network": loss_network}
    cfg = OmegaConf.create({group: OmegaConf.load(CONFIGS / group / f"{name}.yaml") for group, name in groups.items()})
    return OmegaConf.to_container(cfg.loss, resolve=True)  # type: ignore[return-value]


def optimizer_settings() -> dict[str, Any]:
    """What train.py has by default under `optimizer`."""
    return OmegaConf.to_container(OmegaConf.load(CONFIGS / "optimizer" / "muon.yaml"))  # type: ignore[return-value]


def make_loss(cfg: dict[str, Any], painting: Path, size: int | None) -> PerceptualLoss:
    """The perceptual loss of `cfg` on the CPU, each painting's `style.side` resized to `size`."""
    network = dict(cfg["loss_network"])
    unit_mean = network.pop("unit_mean")
    del network["default_layers"], network["views"]  # for the YAML of the losses
    layers = layers_needed(cfg["loss"]["content_layers"], cfg["loss"]["style_layers"])
    loss_network = loss_networks.build(layers=layers, **network)
    if unit_mean is not None:
        folder = Folder(unit_mean, 256, name="loss_network.unit_mean")
        pictures = (folder[i] for i in range(len(folder)))
        images = (to_tensor(picture) for picture in pictures if picture is not None)
        loss_networks.rescale_to_unit_mean(loss_network, images)
    image = style.load(painting, size, cfg["style"]["side"])
    blend = [(style.load(file, size, cfg["style"]["side"]), share) for file, share in further_paintings(cfg)]
    return PerceptualLoss(loss_network, image, blend, **cfg["loss"])


def read_vgg19(layers: Iterable[str], file: Path) -> loss_networks.LossNetwork:
    """VGG-19, able to give `layers`, from the file of a script's --vgg."""
    try:
        return loss_networks.build("vgg19", layers, file)
    except Invalid as error:
        raise Invalid(str(error).replace("loss_network.weights", "--vgg")) from None


def say_calibration(loss: PerceptualLoss, asked: float) -> None:
    """Where the painting got less style weight than the one asked for, say so."""
    if loss.calibration < 1:
        print(
            f"style weight {loss.style_weight:g}: {asked:g} x {loss.calibration:g}, for the painting has little light "
            "and shade, or few marks (loss.calibrate)",
            file=sys.stderr,
        )


def style_name(cfg: dict[str, Any], painting: Path) -> str:
    """What files are named after: `style.name`, or the painting's own."""
    name = str(cfg["style"]["name"] or painting.stem)
    if name != Path(name).name or name == "..":
        raise Invalid(f"style.name: got {name!r}; allowed: a file's name, without a folder")
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise Invalid(f"style.name: got {name[:20]}…; allowed: up to {LONGEST_NAME} letters")
    return name


def further_paintings(cfg: dict[str, Any]) -> list[tuple[Path, float]]:
    """The files of `style.blend` and their weights."""
    blend = cfg["style"]["blend"] or {}
    if not isinstance(blend, dict):
        raise Invalid(f"style.blend: got {blend!r}; allowed: {{FILE: weight}}")
    return [(style.find(str(name)), number(f"style.blend.{name}", share, 0)) for name, share in blend.items()]
