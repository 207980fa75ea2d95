"""method=adversarial: train a generator of images in several styles (AGN)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fast_nst import data
from fast_nst.commands.job import Files, Job
from fast_nst.data import style_folders
from fast_nst.data.datamodule import ContentData
from fast_nst.data.painted import PaintedDigits
from fast_nst.errors import UserError
from fast_nst.loss_networks.style_features import StyleExtractor
from fast_nst.methods.adversarial import Adversarial
from fast_nst.networks import generator
from fast_nst.networks.generator import Discriminator
from fast_nst.training.length import UNKNOWN
from fast_nst.training.preview import GeneratedSheet


def label(cfg: dict[str, Any], paintings: Sequence[Path]) -> str:
    return "agn"


def build(cfg: dict[str, Any], files: Files, given: Sequence[str]) -> Job:
    """Build the `Job` of a run from its settings. given: the keys on the command line. Raises UserError."""
    recipe = cfg["network"]
    if recipe["name"] != "generator":
        raise UserError(f"network: got {recipe['name']}; allowed with method=adversarial: generator")
    images, names = build_data(cfg, given)
    recipe = {**recipe, "styles": len(names)}
    network = generator.build(**recipe)
    for key in ("size", "val_size"):
        if network.size != cfg["data"][key]:
            raise UserError(f"data.{key}: got {cfg['data'][key]}; allowed: the generator's size, {network.size}")
    module = Adversarial(
        network, Discriminator(network.size, len(names)), StyleExtractor(), **cfg["optimizer"], total_steps=UNKNOWN,
        seed=cfg["seed"], penalty_weight=cfg["method"]["penalty_weight"],
        style_weight=cfg["method"]["style_weight"],
    )  # fmt: skip
    settings = {**cfg, "network": recipe, "init_from": None, "style": {"names": names}}
    description = {"network": recipe, "style": {"names": names}, "method": cfg["method"], "init_from": None}
    return Job(module, images, GeneratedSheet(len(names), network.noise), settings, description)


def build_data(cfg: dict[str, Any], given: Sequence[str]) -> tuple[ContentData, list[str]]:
    """Return the real images and the names of their styles. Raises UserError."""
    content, styles = dict(cfg["data"]), cfg["method"]["styles"]
    batch_size, workers = content.pop("batch_size"), content.pop("workers")
    if content["name"] == "folder":
        if "method.styles" in given:
            raise UserError("method.styles: is for data=mnist; with data=folder, each folder is a style")
        sets, names = style_folders.build(seed=cfg["seed"], **content)
        return ContentData(sets, batch_size, workers), names
    if content["name"] != "mnist":
        raise UserError(f"data: got {content['name']}; allowed with method=adversarial: mnist, folder")
    if not isinstance(styles, list) or len(set(styles)) < max(2, len(styles)):
        raise UserError(f"method.styles: got {styles}; allowed: two or more different names, such as [A_on_B, C_on_D]")
    sets = data.build(seed=cfg["seed"], **content)
    PaintedDigits(sets.train, styles)  # checks the names
    return ContentData(sets, batch_size, workers, lambda digits, _: PaintedDigits(digits, styles)), styles
