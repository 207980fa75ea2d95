"""Image transformation networks: photograph in, stylised photograph out. `build` is the one way to make one."""

from typing import Any

from fast_nst.networks.johnson import Johnson
from fast_nst.networks.slim import Slim
from fast_nst.validate import Invalid

Network = Johnson | Slim
NETWORKS: dict[str, type[Network]] = {"johnson": Johnson, "slim": Slim}

__all__ = ["NETWORKS", "Network", "build"]


def build(name: str, **arguments: Any) -> Network:
    """The network `name` with its constructor's `arguments`, freshly initialised from torch's global generator.

    Raises Invalid naming the argument, what came and what is allowed.
    """
    if name not in NETWORKS:
        raise Invalid(f"network.name: got {name!r}; allowed: {', '.join(NETWORKS)}")
    try:
        return NETWORKS[name](**arguments)
    except TypeError as error:
        raise Invalid(f"network {name}: {error}") from None
    except ValueError as error:
        raise Invalid(f"network.{error}") from None
