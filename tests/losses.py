"""Helpers for tests of losses: the settings of a loss preset, and a small random loss network."""

from collections.abc import Iterable, Mapping

import torch
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fast_nst.loss_networks import LossNetwork


def settings(name: str) -> dict:
    """Return the arguments of the loss preset `name`."""
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        table = OmegaConf.to_container(compose("train", [f"loss={name}"]), resolve=True)["loss"]
    table.pop("jitter", None)  # an argument of the training method
    return table


def loss_network(layers: Iterable[str], widths: Mapping[str, int] | None = None) -> LossNetwork:
    """Build a random network with VGG-19's layer names and 4 channels; outputs have `widths` channels, or 3."""
    torch.manual_seed(1)
    modules: list[torch.nn.Module] = []
    taps, heads = {}, {}
    for block, convolutions in enumerate((2, 2, 4, 4, 4), 1):
        if block > 1:
            modules.append(torch.nn.MaxPool2d(2))
        for convolution in range(1, convolutions + 1):
            modules += [torch.nn.Conv2d(4 if modules else 3, 4, 3, padding=1), torch.nn.ReLU()]
            if (name := f"relu{block}_{convolution}") in layers:
                taps[len(modules) - 1] = name
                heads[name] = torch.nn.Linear(4, (widths or {}).get(name, 3))
    network = LossNetwork(torch.nn.Sequential(*modules), taps, (0.5,) * 3, (0.25,) * 3, heads)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return network
