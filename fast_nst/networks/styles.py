"""The styles of a network that has several: choose one for good, keep, add or drop them.

What belongs to a style of a conditional network is a row of each of its tables of parameters, (S + 1, …), whose row 0
belongs to the content itself (`layers.mix`). In a `StyleBank` it is a bank. Everything else is shared.
"""

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor, nn

from fast_nst.networks.layers import ConditionalInstanceNorm, mix
from fast_nst.networks.slim import Noise, Slim
from fast_nst.networks.style_bank import SingleStyle, StyleBank

Conditional = Slim | StyleBank


def is_conditional(network: nn.Module) -> TypeGuard[Conditional]:
    """Return whether `network` has parameters of its own for each style, and one style or more."""
    return isinstance(network, Slim | StyleBank) and network.conditional


def tables(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the tables of styles of `network` by name, each (S + 1, …); none if it is not a conditional `Slim`."""
    found: dict[str, nn.Parameter] = {}
    for name, module in network.named_modules():
        if isinstance(module, ConditionalInstanceNorm) or (isinstance(module, Noise) and module.weight.dim() == 3):
            found |= {f"{name}.{key}": parameter for key, parameter in module.named_parameters()}
    return found


def shared_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that belong to no style."""
    own = {*tables(network)}
    return [p for name, p in network.named_parameters() if name not in own and not name.startswith("banks.")]


def clear_gradients(network: nn.Module, kept: int) -> None:
    """Leave only the gradients of the styles after the first `kept`, so that a step changes nothing else."""
    for parameter in shared_parameters(network):
        parameter.grad = None
    for table in tables(network).values():
        if table.grad is not None:
            table.grad[: kept + 1] = 0
    if isinstance(network, StyleBank):
        for bank in network.banks[:kept]:
            bank.zero_grad()


def _same_but(network: Slim, num_styles: int) -> Slim:
    """Return a new network like `network`, with other styles; its parameters are on the same device."""
    with torch.random.fork_rng(devices=()):
        new = Slim(**network.arguments, num_styles=num_styles)
    return new.to(next(network.parameters()).device).train(network.training)


@torch.no_grad()
def select(network: Conditional, style: Tensor) -> Slim | SingleStyle:
    """Return a network of one style, the mixture `style` of those of `network`.

    style: (S,) weights, whose sum is the strength.
    """
    if isinstance(network, StyleBank):
        return network.select(style)
    single, state = _same_but(network, 0), network.state_dict()
    shapes = {name: value.shape for name, value in single.state_dict().items()}
    for name, table in tables(network).items():
        state[name] = mix(table, style[None].to(table.device)).view(shapes[name])
    single.load_state_dict(state)
    return single


@torch.no_grad()
def replace(network: Conditional, kept: Sequence[int], new: int) -> Conditional:
    """Return a network with the styles `kept` of `network` and `new` more.

    With the weights it has, a kept style gives the same output, bit for bit. A new one is the mean of all styles of a
    conditional network; a bank is a copy of the first, because the mean of convolutions paints nothing.
    """
    if isinstance(network, StyleBank):
        return network.replace(kept, new)
    state = network.state_dict()
    for name, table in tables(network).items():
        mean = table[1:].mean(0, keepdim=True)
        state[name] = torch.cat([table[:1], *(table[1 + k : 2 + k] for k in kept), *[mean] * new])
    changed = _same_but(network, len(kept) + new)
    changed.load_state_dict(state)
    return changed
