"""method=super_resolution: train a network that enlarges photographs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fast_nst import data, loss_networks, networks
from fast_nst.commands.build import check_source
from fast_nst.commands.job import Files, Job
from fast_nst.data.datamodule import ContentData
from fast_nst.data.shrunk import ShrunkImages
from fast_nst.errors import UserError, check_int
from fast_nst.losses.restoration import RestorationLoss
from fast_nst.methods.super_resolution import Restoration
from fast_nst.networks.super_resolution import SuperResolution
from fast_nst.training.length import UNKNOWN
from fast_nst.training.preview import EnlargedSheet


def label(cfg: dict[str, Any], paintings: Sequence[Path]) -> str:
    """Name the run after its scale."""
    return f"super_resolution_x{cfg['network'].get('scale')}"


def build(cfg: dict[str, Any], files: Files, given: Sequence[str]) -> Job:
    """Build the `Job` of a run from its settings. given: the keys on the command line. Raises UserError."""
    network = networks.build(**cfg["network"])
    if not isinstance(network, SuperResolution):
        raise UserError(
            f"network: got {cfg['network']['name']}; allowed with method=super_resolution: super_resolution"
        )
    settings, content, method = dict(cfg["loss_network"]), dict(cfg["data"]), cfg["method"]
    settings.pop("unit_mean", None)
    loss_network = loss_networks.build(layers=[str(method["layer"])], **settings)
    loss = RestorationLoss(loss_network, method["feature_weight"], method["pixel_weight"])
    check_source(content["name"], given)
    for key in ("size", "val_size"):
        least = 16 * network.scale
        if check_int(f"data.{key}", content[key], least) % network.scale:
            raise UserError(f"data.{key}: got {content[key]}; allowed: a multiple of network.scale, {network.scale}")
    batch_size, workers = content.pop("batch_size"), content.pop("workers")
    images = ContentData(
        data.build(**content, seed=cfg["seed"]), batch_size, workers, lambda x, _: ShrunkImages(x, network.scale)
    )
    sheet = EnlargedSheet(images.sets.val, network.scale, check_int("preview.images", cfg["preview"]["images"], 1))
    description = {
        "network": cfg["network"],
        "loss_network": cfg["loss_network"]["name"],
        "method": method,
        "init_from": None,
    }
    module = Restoration(network, loss, **cfg["optimizer"], total_steps=UNKNOWN)
    return Job(module, images, sheet, {**cfg, "init_from": None, "style": {}}, description)
