"""Build the network that a run starts from: random, or from a weights file, to which the run's styles are added."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fast_nst import networks, weights
from fast_nst.errors import UserError, check_number
from fast_nst.networks import Network
from fast_nst.networks.styles import Conditional, is_conditional, replace
from fast_nst.stylize.choice import BUNDLED
from fast_nst.weights import sha256

AUTO = "auto"
CONDITIONAL = ("conditional", "style_bank")  # networks that can have several styles


@dataclass
class Start:
    """The network that a run starts from.

    network: its styles are those kept from a file, if any, then the run's. first_phase: the share of the steps that
    train only the new styles. label: the file's name in records. names, digests: the names and SHA-256 of the kept
    styles. sizes: how many sizes, for different brushes, each kept style has.
    """

    network: Network
    first_phase: float = 0.0
    label: str | None = None
    names: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    sizes: int = 1

    @property
    def num_styles(self) -> int:
        """The number of styles of a conditional network; 0 for any other."""
        return self.network.num_styles if is_conditional(self.network) else 0

    @property
    def kept(self) -> int:
        """The number of the network's styles before the run's, counting each size."""
        return self.sizes * len(self.names)


def initial_network(cfg: dict[str, Any], paintings: int, sizes: Sequence[int | None]) -> Start:
    """Build the network for a run with `paintings` style images, each in all `sizes`. Raises UserError."""
    count = paintings * len(sizes)
    recipe, path = dict(cfg["network"]), cfg["init_from"]
    conditional = recipe["name"] in CONDITIONAL
    if conditional:
        recipe["num_styles"] = count
    elif count > 1:
        raise UserError(
            f"style.image: got {paintings} paintings in {len(sizes)} sizes; several styles need "
            f"network={' or '.join(CONDITIONAL)}"
        )
    network = networks.build(**recipe)
    share = cfg["method"]["first_phase"]
    given = None if share is None else check_number("method.first_phase", share, 0, 1)
    if path == AUTO and not (is_conditional(network) and _fits(recipe["name"], network, BUNDLED)):
        path = None
    if path is None:
        return Start(network, given or 0.0)
    file = BUNDLED if path == AUTO else Path(path)
    try:
        other, description = weights.load(file)
    except weights.WeightsError as error:
        raise UserError(f"init_from: {error}") from None
    label = "bundled styles" if path == AUTO else f"{file.stem} ({sha256(file)[:12]})"
    if not is_conditional(network):
        return Start(_copied(network, other, file, _difference(description["network"], cfg["network"])), label=label)
    if not (is_conditional(other) and type(other) is type(network) and other.arguments == network.arguments):
        raise UserError(f"init_from: {file}: {_difference(description['network'], cfg['network'])}")
    first_phase = (0.0 if path == AUTO else 1.0) if given is None else given
    if first_phase < 1 or path == AUTO:  # the second phase changes all styles, so none is kept
        return Start(replace(other, (), count).train(), first_phase, label)
    style = description["style"]
    if style["sizes"] != list(sizes):
        raise UserError(f"style.size: got {cfg['style']['size']}; allowed: the same as in init_from, {style['sizes']}")
    network = replace(other, range(other.num_styles), count).train()
    return Start(network, first_phase, label, style["names"], style["sha256"], len(sizes))


def _fits(name: str, network: Conditional, file: Path) -> bool:
    """Return whether the network in `file` has the name `name` and the arguments of `network`."""
    if not file.is_file():
        return False
    recipe = weights.describe(file)["network"]
    return name == recipe["name"] and all(value == recipe.get(key, value) for key, value in network.arguments.items())


def _difference(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """Return a message that names the arguments in which a file's network, `theirs`, differs from the run's, `ours`."""
    keys = [key for key in {**ours, **theirs} if theirs.get(key) != ours.get(key) and key != "num_styles"]
    keys = ["name"] if "name" in keys else keys
    there, here = (
        ", ".join(f"network{'' if key == 'name' else '.' + key}={values.get(key, 'default')}" for key in keys)
        for values in (theirs, ours)
    )
    return f"a different network from this run's: {there}; allowed: {here}"


def _copied(network: Network, other: Network, file: Path, difference: str) -> Network:
    """Copy the weights of `other` into `network` and return it. Raises UserError if the networks differ."""
    try:
        network.load_state_dict(other.state_dict())
    except RuntimeError:
        raise UserError(f"init_from: {file}: {difference}") from None
    if other.pixels != network.pixels:
        raise UserError(f"init_from: {file}: its pixels are {other.pixels!r}; allowed: this run's, {network.pixels!r}")
    return network
