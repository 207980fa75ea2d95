"""method=style_transfer and style_bank: train a network to paint photographs in the style of paintings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fast_nst import data
from fast_nst.commands.build import brush_sizes, check_source, make_loss
from fast_nst.commands.initial import Start, initial_network
from fast_nst.commands.job import Files, Job
from fast_nst.data.datamodule import ContentData
from fast_nst.data.dataset import StyledImages
from fast_nst.errors import UserError, check_int
from fast_nst.losses import PerceptualLoss
from fast_nst.methods.style_bank import StyleBankTransfer
from fast_nst.methods.style_transfer import StyleTransfer
from fast_nst.training.length import UNKNOWN
from fast_nst.training.preview import StylizedSheet
from fast_nst.weights import sha256


def label(cfg: dict[str, Any], paintings: Sequence[Path]) -> str:
    """Name the run after its painting, or after the number of paintings."""
    return paintings[0].stem if len(paintings) == 1 else f"{len(paintings)}_styles"


def build(cfg: dict[str, Any], files: Files, given: Sequence[str]) -> Job:
    """Build the `Job` of a run from its settings. given: the keys on the command line. Raises UserError."""
    start = initial_network(cfg, len(files.paintings), brush_sizes(cfg))
    loss = make_loss(cfg, files.paintings, brush_sizes(cfg))
    jitter = check_int("loss.jitter", cfg["loss"].get("jitter", 0), 0)
    content = build_data(cfg, loss, jitter, start, given)
    module = choose_module(cfg)(
        start.network, loss, **cfg["optimizer"], total_steps=UNKNOWN, seed=cfg["seed"], jitter=jitter,
        temporal_weight=cfg["loss"].get("temporal_weight", 0.0),
        first_phase=start.first_phase, kept=start.kept,
    )  # fmt: skip
    sheet = StylizedSheet(loss.styles, content.sets.val, check_int("preview.images", cfg["preview"]["images"], 1))
    return Job(module, content, sheet, *describe(cfg, files, start))


def choose_module(cfg: dict[str, Any]) -> type[StyleTransfer]:
    """Return the LightningModule for the network and method. Raises UserError if only one of them is StyleBank's."""
    network, method, name = cfg["network"]["name"], cfg["method"]["name"], "style_bank"
    if (network == name) != (method == name):
        raise UserError(f"network={network}, method={method}: network={name} and method={name} must be used together")
    return StyleBankTransfer if method == name else StyleTransfer


def build_data(
    cfg: dict[str, Any], loss: PerceptualLoss, jitter: int, start: Start, given: Sequence[str]
) -> ContentData:
    content = dict(cfg["data"])
    check_source(content["name"], given)
    for key, least in (("size", loss.smallest + jitter), ("val_size", loss.smallest)):
        if check_int(f"data.{key}", content[key], 16) < least:
            raise UserError(f"data.{key}: got {content[key]}; the loss at its coarsest scale needs {least} or more")
    batch_size, workers = content.pop("batch_size"), content.pop("workers")
    return ContentData(
        data.build(**content, seed=cfg["seed"]), batch_size, workers,
        (lambda images, training: StyledImages(images, loss.num_styles, training)) if start.num_styles else None,
    )  # fmt: skip


def describe(cfg: dict[str, Any], files: Files, start: Start) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings for the checkpoint and the description for the weights file. Raises UserError."""
    paths, count = [*files.paintings, *(path for path, _ in files.blend)], len(files.paintings)
    names, digests = [path.stem for path in paths], [sha256(path) for path in paths]
    if count == 1:
        names[0] = files.name
    if repeated := {*names} & {*start.names}:
        key, remedy = ("style.name", "give another name") if count == 1 else ("style.image", "rename the files")
        raise UserError(f"{key}: {', '.join(sorted(repeated))}: already in init_from; {remedy}")
    labels = [f"{name} ({digest[:12]})" for name, digest in zip(names, digests, strict=True)]
    image = labels[0] if count == 1 else labels[:count]
    blend = dict(zip(labels[count:], (weight for _, weight in files.blend), strict=True))
    network = {**cfg["network"], **({"num_styles": start.num_styles} if start.num_styles else {})}
    settings = {
        **cfg, "network": network, "init_from": start.label, "style": {**cfg["style"], "image": image, "blend": blend},
        "method": {**cfg["method"], "first_phase": start.first_phase},
    }  # fmt: skip
    description = {
        "network": network, "style": {
            "names": [*start.names, *names[:count]], "sha256": [*start.digests, *digests[:count]], "blend": blend,
            "sizes": brush_sizes(cfg),
        },
        "loss_network": cfg["loss_network"]["name"], "loss": cfg["loss"], "init_from": start.label,
    }  # fmt: skip
    return settings, description
