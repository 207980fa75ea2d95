"""Build what train and optimize share from a composed configuration."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from fast_nst import loss_networks
from fast_nst.commands.config import CONFIGS
from fast_nst.data import styles
from fast_nst.data.folder import Folder
from fast_nst.errors import UserError, check_int, check_number
from fast_nst.image import to_tensor
from fast_nst.losses import PerceptualLoss, layers_needed

LONGEST_NAME = 200  # bytes; file systems allow 255, and suffixes are added


def loss_settings(loss: str = "default") -> dict[str, Any]:
    """Return the arguments of `PerceptualLoss` for `loss=<loss>`."""
    terms: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(CONFIGS / "loss" / f"{loss}.yaml"))  # type: ignore[assignment]
    return _of_perceptual_loss(terms)


def optimizer_settings() -> dict[str, Any]:
    """Return the default settings under `optimizer`."""
    settings: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(CONFIGS / "optimizer" / "muon.yaml"))  # type: ignore[assignment]
    return {"name": "muon", **settings}


def brush_sizes(cfg: dict[str, Any]) -> list[int | None]:
    """Return `style.size` as a list of one or more sizes, each for strokes of a different size. Raises UserError."""
    sizes = cfg["style"]["size"]
    if not isinstance(sizes, list):
        return [sizes]
    if not sizes or any(a >= b for a, b in itertools.pairwise(check_int("style.size", s, 16) for s in sizes)):
        raise UserError(f"style.size: got {sizes}; allowed: one size, or an increasing list")
    return [*sizes]


def make_loss(cfg: dict[str, Any], paintings: Sequence[Path], sizes: Sequence[int | None]) -> PerceptualLoss:
    """Build the perceptual loss on the CPU, with the `style.side` of each style image resized to each of `sizes`.

    Each size of each painting is a separate style; a painting's sizes come one after the other. `style.blend` mixes
    further images with a single painting.
    """
    network = dict(cfg["loss_network"])
    unit_mean = network.pop("unit_mean", None)
    layers = layers_needed(cfg["loss"]["content_layers"], cfg["loss"]["style_layers"])
    loss_network = loss_networks.build(layers=layers, **network)
    if unit_mean is not None:
        folder = Folder(unit_mean, 256, name="loss_network.unit_mean")
        pictures = (folder[i] for i in range(len(folder)))
        loss_networks.rescale_to_unit_mean(loss_network, (to_tensor(p) for p in pictures if p is not None))
    further = further_paintings(cfg)
    if further and len(paintings) > 1:
        raise UserError("style.blend: works with one painting; a network of several styles mixes them when it paints")
    if further and len(sizes) > 1:
        raise UserError(f"style.size: got {list(sizes)}; allowed with style.blend: one size")
    files = (*paintings, *(file for file, _ in further))
    images = [styles.load(file, size, cfg["style"]["side"]) for file in files for size in sizes]
    shares = [1.0, *(share for _, share in further)] if further else None
    return PerceptualLoss(loss_network, images, shares, **_of_perceptual_loss(cfg["loss"]))


def _of_perceptual_loss(terms: dict[str, Any]) -> dict[str, Any]:
    """Return `terms` without the keys that belong to the training step."""
    return {key: value for key, value in terms.items() if key not in ("jitter", "temporal_weight")}


def file_name(cfg: dict[str, Any], default: str) -> str:
    """Return the name for output files: `style.name`, or `default`."""
    name = str(cfg["style"]["name"] or default)
    if name != Path(name).name or name == "..":
        raise UserError(f"style.name: got {name!r}; allowed: a file name without a folder")
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise UserError(f"style.name: got {name[:20]}…; allowed: up to {LONGEST_NAME} bytes")
    return name


def further_paintings(cfg: dict[str, Any]) -> list[tuple[Path, float]]:
    """Return the files of `style.blend` and their weights."""
    blend = cfg["style"]["blend"] or {}
    if not isinstance(blend, dict):
        raise UserError(f"style.blend: got {blend!r}; allowed: {{FILE: weight}}")
    return [(styles.find(str(name)), check_number(f"style.blend.{name}", share, 0)) for name, share in blend.items()]


def check_source(name: str, given: Sequence[str]) -> None:
    """Raise UserError if a key `given` on the command line is for a source of content images other than `name`."""
    if name == "synthetic" and "data.root" in given and "data" not in given:
        raise UserError("data.root: data=synthetic, the default, draws its own pictures; add data=folder")
    if name != "synthetic" and "data.count" in given:
        raise UserError(f"data.count: allowed only with data=synthetic; {name} takes all pictures")
