"""Image transformation networks by name: `build(name)(content, style)` -> output. Each has `num_styles` and `scale`."""

from typing import Any

from fast_nst.errors import UserError
from fast_nst.networks.johnson import Johnson
from fast_nst.networks.slim import Slim
from fast_nst.networks.style_bank import SingleStyle, StyleBank
from fast_nst.networks.super_resolution import SuperResolution

Network = Johnson | Slim | StyleBank | SingleStyle | SuperResolution
NETWORKS: dict[str, type[Johnson] | type[Slim] | type[StyleBank] | type[SuperResolution]] = {
    "johnson": Johnson, "slim": Slim, "conditional": Slim, "style_bank": StyleBank, "super_resolution": SuperResolution,
}  # fmt: skip

__all__ = ["NETWORKS", "Network", "build"]


def build(name: str, **arguments: Any) -> Network:
    """Build the network `name` with its constructor's `arguments`; torch's global random generator initializes it.

    Raises UserError for an unknown `name` or an invalid argument.
    """
    if name not in NETWORKS:
        raise UserError(f"network.name: got {name!r}; allowed: {', '.join(NETWORKS)}")
    try:
        return NETWORKS[name](**arguments)
    except TypeError as error:
        raise UserError(f"network {name}: {error}") from None
    except ValueError as error:
        raise UserError(f"network.{error}") from None
