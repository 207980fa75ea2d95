"""Make the `--help` of a Hydra command: its groups and their keys, explained by the YAML files' comments."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from fast_nst.commands.cli import typed


class Key(NamedTuple):
    name: str
    value: Any
    comment: str


def read_keys(path: Path, prefix: str = "") -> dict[str, Key]:
    """Return the keys of a YAML file, by name.

    prefix: "GROUP." for a group's file. The keys of its `defaults` are added; its `name` is left out, except style's.
    """
    root = path.parents[1]
    tree: dict[str, Any] = OmegaConf.to_container(OmegaConf.load(path))  # type: ignore[assignment]
    comments, parent = {}, ""
    for indent, name, comment in re.findall(r"^( *)(\w+):(?:.*?# (.*))?$", path.read_text(), re.M):
        parent = parent if indent else name
        comments[f"{parent}.{name}" if indent else name] = comment
    keys: dict[str, Key] = {}
    for default in tree.pop("defaults", []) if prefix else []:
        if default != "_self_":
            name = default.partition("@")[0]  # "/crops@_here_" is a file of the root folder
            keys |= read_keys(
                (root / name[1:] if name.startswith("/") else path.parent / name).with_suffix(".yaml"), prefix
            )
    for name, value in tree.items():
        if name in ("hydra", "defaults") or (prefix and name == "name" and prefix != "style."):
            continue
        if isinstance(value, dict) and not prefix:
            keys |= {f"{name}.{key}": Key(f"{name}.{key}", v, comments[f"{name}.{key}"]) for key, v in value.items()}
        else:
            before = keys.get(name)
            keys[name] = Key(f"{prefix}{name}", value, comments.get(name) or (before.comment if before else ""))
    return keys


def sections(configs: Path, config: str, overrides: Sequence[str] = ()) -> dict[str, list[Key]]:
    """Return {heading: keys} for each group of configs/<config>.yaml with its choice, then for the command itself."""
    file = configs / f"{config}.yaml"
    defaults = OmegaConf.to_container(OmegaConf.load(file))["defaults"]  # type: ignore[index, call-overload]
    given = dict(word.split("=", 1) for word in overrides if "=" in word)
    result: dict[str, list[Key]] = {}
    for default in defaults:
        if not isinstance(default, dict) or next(iter(default)).startswith("override"):
            continue
        ((group, choice),) = default.items()
        choice = given.get(group, choice)
        names = sorted(path.stem for path in (configs / group).glob("*.yaml"))
        others = ", ".join(name for name in names if name != choice)
        base = read_keys(configs / "painting.yaml", "style.") if group == "style" else {}
        chosen = configs / group / f"{choice}.yaml"
        keys = {**base, **(read_keys(chosen, f"{group}.") if choice and group != "experiment" else {})}
        result[f"{group}={choice or ''}  (or {others})"] = list(keys.values())
    result[f"{config}.py"] = list(read_keys(file).values())
    return result


def help_text(configs: Path, config: str, overrides: Sequence[str] = ()) -> str:
    lines = [f"usage: {typed(config)} [GROUP=NAME | KEY=VALUE] …", "", "Every key with its value:"]
    for heading, keys in sections(configs, config, overrides).items():
        lines += ["", heading]
        for name, value, comment in keys:
            shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            setting = f"  {name}={shown}".replace("'", "")
            lines.append(f"{setting:<50} {comment}".rstrip())
    lines += [
        "",
        'Quote a table: "loss.style_layers={relu1_2: 1, relu3_3: 2}". A series of runs: -m style=cubist,ink_wash',
    ]
    return "\n".join(lines)
