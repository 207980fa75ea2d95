"""The methods of train.py by `method.name`: what each trains, and the settings that it does not use."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fast_nst.commands import train_adversarial, train_style_transfer, train_super_resolution
from fast_nst.commands.job import Files, Job
from fast_nst.errors import UserError, check_choice


class Method(NamedTuple):
    """What train.py needs to know about a method.

    build: makes a `Job` from the settings, the files and the keys on the command line. label: names the run.
    paints: whether the method learns the style of paintings (`style.image`). unused: the groups of settings that it
    does not use. next: what the trained network does, the command for that, and its arguments after the weights file.
    """

    build: Callable[[dict[str, Any], Files, Sequence[str]], Job]
    label: Callable[[dict[str, Any], Sequence[Path]], str]
    paints: bool = False
    unused: tuple[str, ...] = ()
    next: tuple[str, str, str] = ("stylize a photograph", "infer", "PHOTOGRAPH")


METHODS = {
    "style_transfer": Method(train_style_transfer.build, train_style_transfer.label, paints=True),
    "style_bank": Method(train_style_transfer.build, train_style_transfer.label, paints=True),
    "super_resolution": Method(
        train_super_resolution.build, train_super_resolution.label, unused=("style", "loss", "init_from"),
        next=("enlarge a photograph", "infer", "PHOTOGRAPH"),
    ),
    "adversarial": Method(
        train_adversarial.build, train_adversarial.label,
        unused=("style", "loss", "loss_network", "init_from"),
        next=("generate images", "generate", "-n 16 -o sheet.png"),
    ),
}  # fmt: skip


def find_method(cfg: dict[str, Any]) -> Method:
    """Return the method of the settings `cfg`. Raises UserError."""
    return METHODS[check_choice("method.name", cfg["method"]["name"], tuple(METHODS))]


def check_given(cfg: dict[str, Any], given: Sequence[str]) -> None:
    """Raise UserError if a key on the command line belongs to a group that the method does not use."""
    unused = find_method(cfg).unused
    for key in given:
        if key.partition(".")[0] in unused and key != "style.name":
            raise UserError(f"{key}: method={cfg['method']['name']} does not use it")
