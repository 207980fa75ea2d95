"""What the scripts build out of a composed configuration alike."""

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import command
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from fast_nst import loss_networks
from fast_nst.data import style
from fast_nst.data.folder import Folder
from fast_nst.image import to_tensor
from fast_nst.losses import PerceptualLoss, layers_needed
from fast_nst.validate import Invalid, number

CONFIGS = Path(__file__).resolve().parents[1] / "configs"  # beside scripts/ in a clone and in a wheel


TABLES = tuple(
    f"loss.{name}" for name in ("content_layers", "style_layers", "content_scales", "style_scales", "calibrate")
)


def run(main: Callable[[], None], config: str) -> None:
    """`command.run` of a script's Hydra `main` that composes configs/<config>.yaml, its command line seen through
    before Hydra reads it: a table may have keys that the one in the file has not (`settle`), and an experiment must be
    one of this script's."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to command.run, which prints one line
    tables = tuple(f"{name}={{" for name in TABLES)
    sys.argv[1:] = [f"++{word}" if word.startswith(tables) else word for word in sys.argv[1:]]

    def checked() -> None:
        for word in sys.argv[1:]:
            if word.startswith("experiment="):
                for name in word.partition("=")[2].split(","):
                    check_experiment(name, config)
        main()

    command.run(checked)


def check_experiment(name: str, config: str) -> None:
    """Raises Invalid where the experiment sets a key that configs/<config>.yaml has not: it is another script's."""
    file = CONFIGS / "experiment" / f"{name}.yaml"
    if not file.is_file():
        return  # Hydra tells which there are
    main = OmegaConf.load(CONFIGS / f"{config}.yaml")
    assert isinstance(main, DictConfig)
    groups = {key for default in main["defaults"] if not isinstance(default, str) for key in default}
    if strange := sorted({*OmegaConf.load(file)} - groups - {*main}):
        raise Invalid(f"experiment={name}: not one of {config}.py, which has no {', '.join(strange)}")


def settle(composed: DictConfig) -> None:
    """Make of the command line what a user means by it. A table replaces the one of the file, where Hydra would keep
    the keys that it leaves out. A new key, with a plus before it, is a mistake anywhere but in a table."""
    parser = OverridesParser.create()
    groups = HydraConfig.get().runtime.choices
    for override in parser.parse_overrides(list(HydraConfig.get().overrides.task)):
        key = override.key_or_group
        if override.is_add() and key not in groups and not key.startswith((*TABLES, "style.blend")):
            raise Invalid(f"+{key}: unknown key; --help lists all of them")
        if key in TABLES and isinstance(table := override.value(), dict):
            OmegaConf.update(composed, key, table, merge=False)


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
        folder = Folder(unit_mean, 256)
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


def further_paintings(cfg: dict[str, Any]) -> list[tuple[Path, float]]:
    """The files of `style.blend` and their weights."""
    blend = cfg["style"]["blend"] or {}
    if not isinstance(blend, dict):
        raise Invalid(f"style.blend: got {blend!r}; allowed: {{FILE: weight}}")
    return [(style.find(name), number(f"style.blend.{name}", share, 0)) for name, share in blend.items()]
