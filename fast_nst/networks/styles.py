"""The styles of a conditional network: choose one for good, keep, add or drop them.

Everything that belongs to a style is a row of a table of parameters, (S + 1, …), whose row 0 belongs to the content
itself (`layers.mix`); everything else is shared.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fast_nst.networks.johnson import Johnson
from fast_nst.networks.layers import ConditionalInstanceNorm, mix
from fast_nst.networks.slim import Noise, Slim


def tables(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the tables of styles of `network` by name, each (S + 1, …); none if it has a single style."""
    found: dict[str, nn.Parameter] = {}
    for name, module in network.named_modules():
        if isinstance(module, ConditionalInstanceNorm) or (isinstance(module, Noise) and module.weight.dim() == 3):
            found |= {f"{name}.{key}": parameter for key, parameter in module.named_parameters()}
    return found


def _same_but(network: Slim, num_styles: int) -> Slim:
    """Return a new network like `network`, with other styles; its parameters are on the same device."""
    with torch.random.fork_rng(devices=()):
        new = Slim(**network.arguments, num_styles=num_styles)
    return new.to(next(network.parameters()).device).train(network.training)


@torch.no_grad()
def select(network: Johnson | Slim, style: Tensor) -> Johnson | Slim:
    """Return a network of one style, the mixture `style` of those of a conditional network; others unchanged.

    style: (S,) weights, whose sum is the strength.
    """
    if not (isinstance(network, Slim) and network.conditional):
        return network
    single, state = _same_but(network, 0), network.state_dict()
    shapes = {name: value.shape for name, value in single.state_dict().items()}
    for name, table in tables(network).items():
        state[name] = mix(table, style[None].to(table.device)).view(shapes[name])
    single.load_state_dict(state)
    return single


@torch.no_grad()
def replace(network: Slim, kept: Sequence[int], new: int) -> Slim:
    """Return a conditional network with the styles `kept` of `network` and `new` more, each the mean of all its styles.

    With the weights it has, a kept style gives the same output, bit for bit.
    """
    state = network.state_dict()
    for name, table in tables(network).items():
        mean = table[1:].mean(0, keepdim=True)
        state[name] = torch.cat([table[:1], *(table[1 + k : 2 + k] for k in kept), *[mean] * new])
    changed = _same_but(network, len(kept) + new)
    changed.load_state_dict(state)
    return changed
