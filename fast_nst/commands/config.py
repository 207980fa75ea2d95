"""Check the keys, groups and types of Hydra overrides, and report errors in one line.

Ranges are checked where a value is used, by `errors.check_int`, `check_number` and `check_choice`.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fast_nst.commands import cli
from fast_nst.commands.help import help_text
from fast_nst.commands.paths import PATHS, assign, expand, parse, quote_path
from fast_nst.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
# In a wheel, configs/ is inside the package; in a clone, it is next to it.
CONFIGS = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parent / "configs"
TABLES = tuple(f"loss.{name}" for name in ("content_layers", "style_layers", "content_scales", "style_scales"))
# Loss arguments that a preset may omit.
OPTIONAL = tuple(
    f"loss.{name}" for name in (
        "normalize", "tv_weight", "light_weight", "jitter", "content_reduction", "tv_reduction", "pixel_range",
        "temporal_weight",
    )
)  # fmt: skip
# Groups whose `name` is the name of the chosen file, unless the file sets `name`.
NAMED = ("network", "loss_network", "data", "optimizer", "method")
LISTS = ("network.filters", "trainer.devices", "method.styles", "style.image", "style.size")
HYDRA_OPTIONS = (
    "--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun",
    "--shell-completion", "--config-path", "--config-name", "--config-dir", "--experimental-rerun", "--info",
)  # fmt: skip


def normalize(word: str, series: bool = False) -> str:
    """Return a word of the command line as Hydra reads it: add (++) a key that a preset may omit, and quote a path.

    series: whether there are several runs (-m), so that commas separate values.
    """
    key, equals, value = word.partition("=")
    if not equals:
        return word
    if key == "style" and value.startswith("["):  # several paintings
        key, word = "style.image", f"style.image={value}"
    if key in PATHS:
        return quote_path(word, series)
    if key in ("style", "style.blend") and parse(word) is None:
        return assign(key, value)
    return f"++{word}" if key in (*TABLES, *OPTIONAL) else word


def compose(config: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the settings of configs/<config>.yaml with `overrides`, given as on a command line.

    Raises UserError, or Hydra's errors.
    """
    instance = HydraConfig.instance()
    before = instance.cfg
    try:
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            words = [normalize(word) for word in overrides]
            composed = hydra.compose(config, words, return_hydra_config=True)
            instance.set_config(composed)
            OmegaConf.set_struct(composed, False)
            composed.pop("hydra")
            OmegaConf.set_struct(composed, True)
            settle(composed)
    finally:
        instance.cfg = before
    return OmegaConf.to_container(composed, resolve=True)  # type: ignore[return-value]


def run(main: Callable[[], None], config: str) -> None:
    """Check the command line, then run the Hydra function `main`, which composes configs/<config>.yaml.

    A table may have keys that the file does not have (`settle`); an experiment must belong to this command.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to cli.run, which prints one line

    def checked() -> None:
        series = bool({"-m", "--multirun"} & {*sys.argv})
        sys.argv[1:] = [normalize(word, series) for word in sys.argv[1:]]
        if {"--help", "-h"} & {*sys.argv[1:]}:
            print(help_text(CONFIGS, config, sys.argv[1:]))
            return
        own = OmegaConf.load(CONFIGS / f"{config}.yaml")
        assert isinstance(own, DictConfig)
        groups = {key for default in own["defaults"] if not isinstance(default, str) for key in default}
        for word in sys.argv[1:]:
            option, _, value = word.partition("=")
            if option.startswith("--") and not any(known.startswith(option) for known in HYDRA_OPTIONS):
                like = f"{option.removeprefix('--')}={value or 'VALUE'}"
                raise UserError(f"{option}: no such option; write settings without dashes: {like}; see --help")
            if "=" in word and not word.startswith("-"):
                check_group(OverridesParser.create().parse_overrides([word])[0], config, {*own}, groups)
            if word.startswith("~") and not word.startswith(tuple(f"~{name}." for name in TABLES)):
                raise UserError(f"{word}: cannot be left out; give another value")
        main()

    cli.run(checked)


def check_group(override: Override, config: str, keys: set[str], groups: set[str]) -> None:
    """Raise UserError if `override` chooses a group member that does not exist, or an experiment that sets keys that
    this command does not have."""
    group = override.key_or_group
    if group not in groups or override.value_type == ValueType.GLOB_CHOICE_SWEEP:  # Hydra resolves glob(…) itself
        return
    own = not any(word.startswith("--config-") for word in sys.argv)  # --config-dir brings groups from elsewhere
    series = override.is_sweep_override()
    for name in override.sweep_iterator() if series else [override.value()]:
        name = getattr(name, "text", name)  # the text inside quotes
        file = CONFIGS / group / f"{name}.yaml"
        if not isinstance(name, str) or (own and not file.is_file()):  # checks a whole series before it starts
            known = ", ".join(sorted(path.stem for path in (CONFIGS / group).glob("*.yaml")))
            more = "; for a painting of your own, give style.image=FILE" if group == "style" else ""
            got = name if series else override.get_value_element_as_str()
            raise UserError(f"{group}: got {got}; allowed: {known}{more}")
        known_file = group == "experiment" and file.is_file()
        if strange := sorted({*OmegaConf.load(file)} - groups - keys if known_file else ()):
            raise UserError(f"experiment={name}: not an experiment of {config}.py, which has no {', '.join(strange)}")


def settle(composed: DictConfig) -> None:
    """Apply rules that Hydra lacks: a group's choice becomes its `name`, and a table on the command line replaces the
    file's table instead of being merged. A new key, with a plus, is an error except in a table or `OPTIONAL`."""
    check_kinds(composed)
    parser = OverridesParser.create()
    groups = HydraConfig.get().runtime.choices
    for group in (group for group in NAMED if group in composed):
        composed[group] = {"name": groups[group], **composed[group]}
    for override in parser.parse_overrides(list(HydraConfig.get().overrides.task)):
        key = override.key_or_group
        known = key in (*groups, *OPTIONAL) or key.startswith((*(f"{name}." for name in TABLES), "style.blend"))
        if override.is_add() and not known and key not in TABLES:
            raise UserError(f"+{key}: unknown key; --help lists all keys")
        if key in TABLES and isinstance(table := override.value(), dict):
            OmegaConf.update(composed, key, table, merge=False)


def check_kinds(composed: DictConfig) -> None:
    """Raise UserError if the command line turned a single value into a table or list, or the reverse, or gave something
    other than a path for a path. Also turn whole numbers into paths, and expand ~ and $VARIABLES in paths."""
    job = HydraConfig.get()
    choices = [f"{group}={name}" for group, name in job.runtime.choices.items() if name and "/" not in group]
    reference = OmegaConf.to_container(hydra.compose(str(job.job.config_name), choices), resolve=True)
    for key, value, plain in _pairs(OmegaConf.to_container(composed), reference):
        if key in PATHS and isinstance(value, str):
            value = expand(value)
        if isinstance(value, str) and value.startswith("${"):
            continue  # it refers to another setting, which is checked itself
        if key == "style.blend" and isinstance(value, str | dict):
            value = read_blend(value)
            OmegaConf.update(composed, key, value, merge=False)
        if key in PATHS and value == "":
            raise UserError(f"{key}: got an empty name; allowed: a path")  # an unset shell variable; pathlib's "."
        if key in PATHS and isinstance(value, int) and not isinstance(value, bool):
            OmegaConf.update(composed, key, str(value))
        elif key in PATHS and isinstance(value, str):
            OmegaConf.update(composed, key, value)
        elif key == "style.image" and isinstance(value, list):
            OmegaConf.update(composed, key, [expand(str(path)) for path in value], merge=False)
        elif isinstance(plain, dict):
            if not isinstance(value, dict):
                like = str(plain).replace("'", "")
                raise UserError(f"{key}: got {value!r}; allowed: {like}, or the like")
        elif isinstance(plain, bool) and not isinstance(value, bool):
            raise UserError(f"{key}: got {value!r}; allowed: true, false")
        elif (isinstance(value, dict) and key != "style.blend") or (isinstance(value, list) and key not in LISTS):
            raise UserError(f"{key}: got {value!r}; allowed: a single value")
        elif key in PATHS and not isinstance(value, str) and (value is not None or key in ("style.image", "init")):
            quoted = "" if value is None else f"; to use it as a path, quote it: \"{key}='{value}'\""
            raise UserError(f"{key}: got {value!r}; allowed: a path{quoted}")


def read_blend(value: str | dict[Any, Any]) -> Any:
    """Read {FILE: weight} and expand the file names. Text is read as YAML, which allows more characters than Hydra."""
    if isinstance(value, str):
        try:
            value = OmegaConf.to_container(OmegaConf.create(value))  # type: ignore[assignment]
        except (YAMLError, OmegaConfBaseException):
            raise UserError(f"style.blend: got {value}; allowed: {{FILE: weight}}") from None
    return {expand(str(name)): share for name, share in value.items()} if isinstance(value, dict) else value


def _pairs(value: Any, plain: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (key, its value in `value`, its value in `plain`) for each key that both trees have, outer keys first.

    The keys inside `TABLES` are not compared.
    """
    if key:
        yield key, value, plain
    if isinstance(value, dict) and isinstance(plain, dict) and key not in TABLES:
        for name in value.keys() & plain.keys():
            yield from _pairs(value[name], plain[name], f"{key}.{name}" if key else name)
