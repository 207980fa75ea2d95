"""File names on the command line: each character stands for itself; ~ and $VARIABLES are expanded."""

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

PATHS = (
    "style.image", "style.name", "data.root", "loss_network.weights", "loss_network.unit_mean", "output_dir",
    "ckpt_path", "init_from", "init", "content", "output",
)  # fmt: skip
_QUOTES = ("'", '"')


def expand(path: str) -> str:
    """Replace ~ and $VARIABLES in `path`, unless a file of that very name exists."""
    return path if os.path.lexists(path) else os.path.expanduser(os.path.expandvars(path))


def expand_word(word: str) -> str:
    """Expand an argument of a command, also in --option=PATH, which shells do not expand."""
    option, equals, value = word.partition("=")
    return f"{option}={expand(value)}" if option.startswith("--") and equals else expand(word)


def quoted(value: str | os.PathLike[str]) -> str:
    """The text `value` in quotes, as Hydra reads it: only quotes, and backslashes before one, are escaped."""
    text = re.sub(r"(\\*)'", r"\1\1\\'", os.fspath(value))
    return "'" + re.sub(r"(\\+)$", r"\1\1", text) + "'"


def assign(key: str, value: str | os.PathLike[str]) -> str:
    """The override that gives `key` the text `value`."""
    return f"{key}={quoted(value)}"


def parse(word: str) -> "Override | None":
    """Hydra's reading of an override; None if its grammar does not allow it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def quote_path(word: str, series: bool = False) -> str:
    """Return the override `word`, KEY=PATH, with the path quoted for Hydra.

    A value that Hydra reads as null, a boolean, a list, ${…} or quoted text stays as it is, unless a file of that name
    exists. series: commas separate several values (-m).
    """
    key, _, value = word.partition("=")
    if "${" in value:  # an environment variable, not one of OmegaConf's keys
        value = os.path.expandvars(value)
        word = f"{key}={value}"
    if value and os.path.lexists(expand(value)):
        return assign(key, value)
    override = parse(word)
    if override is None:
        if series and "," in value:
            return f"{key}={','.join(map(_unquoted, value.split(',')))}"
        if value[0] == "[" and value[-1] == "]":
            return f"{key}=[{','.join(map(_unquoted, value[1:-1].split(',')))}]"
        return f"{key}={_unquoted(value)}"
    if override.is_sweep_override():
        return word if series else assign(key, value)
    plain = isinstance(override.value(), str | int | float) and not isinstance(override.value(), bool)
    return assign(key, value) if plain and value and value[0] not in _QUOTES and "${" not in value else word


def _unquoted(value: str) -> str:
    """`value` in Hydra's quotes, instead of those around it, which Windows' cmd.exe keeps."""
    value = value.strip()
    return quoted(value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in _QUOTES else value)
