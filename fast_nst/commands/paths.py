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
    """Expand a command's argument like `expand`, also the path in --option=PATH, where shells do not expand ~."""
    option, equals, value = word.partition("=")
    return f"{option}={expand(value)}" if option.startswith("--") and equals else expand(word)


def quoted(value: str | os.PathLike[str]) -> str:
    """Return `value` in quotes for Hydra. Only quotes, and backslashes before a quote, are escaped."""
    text = re.sub(r"(\\*)'", r"\1\1\\'", os.fspath(value))
    return "'" + re.sub(r"(\\+)$", r"\1\1", text) + "'"


def assign(key: str, value: str | os.PathLike[str]) -> str:
    """Return the override that sets `key` to the text `value`."""
    return f"{key}={quoted(value)}"


def parse(word: str) -> "Override | None":
    """Parse an override as Hydra does; return None if Hydra's grammar does not allow it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def quote_path(word: str, series: bool = False) -> str:
    """Return the override `word`, KEY=PATH, with the path quoted for Hydra.

    A value that Hydra reads as null, a boolean, a list, ${…} or quoted text stays as it is, unless a file of that name
    exists. series: whether commas separate several values (-m).
    """
    key, _, value = word.partition("=")
    if "${" in value:  # environment variables are expanded, OmegaConf's keys stay
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
    """Quote `value` for Hydra in place of the quotes around it, if any (Windows' cmd.exe keeps them)."""
    value = value.strip()
    return quoted(value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in _QUOTES else value)
