"""Change the styles of a network that has several: reduce it to one style, or keep, drop and add styles.

In a conditional `Slim`, each style has a row in every table of parameters, (S + 1, …). Row 0 belongs to the content
itself (`layers.mix`). In a `StyleBank`, each style has a bank. All other parameters are shared.
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
    """Return whether `network` has parameters for each style: a `StyleBank`, or a `Slim` with `num_styles` above 0."""
    return isinstance(network, Slim | StyleBank) and network.conditional


def tables(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the style tables of `network` by name, each (S + 1, …); none unless it is a conditional `Slim`."""
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
    """Clear all gradients but those of the styles after the first `kept`, so that a step changes nothing else."""
    for parameter in shared_parameters(network):
        parameter.grad = None
    for table in tables(network).values():
        if table.grad is not None:
            table.grad[: kept + 1] = 0
    if isinstance(network, StyleBank):
        for bank in network.banks[:kept]:
            bank.zero_grad()


def _same_but(network: Slim, num_styles: int) -> Slim:
    """Return a newly initialized network like `network`, on the same device, but with `num_styles` styles."""
    with torch.random.fork_rng(devices=()):
        new = Slim(**network.arguments, num_styles=num_styles)
    return new.to(next(network.parameters()).device).train(network.training)


@torch.no_grad()
def select(network: Conditional, style: Tensor) -> Slim | SingleStyle:
    """Return a network of one style: the mixture of the styles of `network` with the weights `style`.

    style: (S,); its sum is the strength.
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
    """Return a network with the styles `kept` of `network`, given by index, and `new` more styles.

    Until it is trained, the new network gives the same output for a kept style, bit for bit. In a `Slim`, a new style
    starts as the mean of all styles. In a `StyleBank` it starts as a copy of the first bank, because the mean of
    convolutions paints nothing.
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
