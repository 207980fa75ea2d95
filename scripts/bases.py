"""What the distillation takes from VGG-19 before anything learns: the bases of the outputs, and the first reference."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_nst.loss_networks import LossNetwork, compact
from fast_nst.loss_networks.network import Features

OUTPUTS = {"relu1_2": 24, "relu2_2": 64, "relu3_2": 64, "relu3_4": 64}
RANKS = ((36, 48), (48, 72), (80, 80), (72, 104), (88, 104), (80, 80), (72, 84))  # of the reference, `low_rank_vgg`


class Targets(NamedTuple):
    """The teacher, and for each layer the (K, C) matrix that takes its activations to the students' output."""

    teacher: LossNetwork
    bases: dict[str, Tensor]

    @torch.no_grad()
    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        found = self.teacher(x)
        return {name: F.conv2d(found[name], basis.to(found[name].dtype)[:, :, None, None]).float()
                for name, basis in self.bases.items()}  # fmt: skip


class Moments:
    """Of activations, over pictures: the mean (C,) and the uncentred second moment (C, C)."""

    def __init__(self) -> None:
        self.pictures, self.first, self.second = 0, torch.zeros(()), torch.zeros(())

    def add(self, found: Tensor) -> None:
        flat = found.flatten(2).double()
        self.pictures += len(flat)
        self.first = self.first + flat.mean(2).sum(0)
        self.second = self.second + (flat @ flat.transpose(1, 2)).sum(0) / flat.shape[2]

    def uncentred(self) -> Tensor:
        return self.second / self.pictures

    def centred(self) -> tuple[Tensor, Tensor]:
        """The covariance, and the mean."""
        mean = self.first / self.pictures
        return self.uncentred() - torch.outer(mean, mean), mean


def leading(moment: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues of (C, C), all of them, and the leading eigenvectors (C, K)."""
    values, vectors = torch.linalg.eigh(moment.double())
    return values.flip(0), vectors.flip(1)[:, :components]


def principal_basis(moment: Tensor, components: int) -> tuple[Tensor, float]:
    """The leading eigenvectors (K, C) of an uncentred second moment (C, C), scaled so that the outputs have a mean
    square of 1; and the share of the Gram's squared norm that they keep."""
    values, vectors = leading(moment, components)
    kept = values[:components]
    share = float(kept.square().sum() / values.square().sum())
    return (vectors.T * (kept.sum() / components).rsqrt()).float(), share


@torch.no_grad()
def find_bases(teacher: LossNetwork, batches: list[Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
    moments = {name: Moments() for name in OUTPUTS}
    for batch in batches:
        for name, found in teacher(batch).items():
            moments[name].add(found)
    found = {name: principal_basis(moments[name].uncentred(), OUTPUTS[name]) for name in OUTPUTS}
    return {name: basis for name, (basis, _) in found.items()}, {name: share for name, (_, share) in found.items()}


@torch.no_grad()
def make_reference(teacher: LossNetwork, bases: dict[str, Tensor], batches: list[Tensor]) -> Features:
    """The teacher with each convolution's input projected on the leading uncentred principal components over `batches`,
    as many as `RANKS` has, and what it gives, before its ReLU, on centred ones; and the students' bases for heads."""
    assert isinstance(teacher, Features)
    convolutions = [layer for layer in teacher.features if isinstance(layer, nn.Conv2d)]
    moments = {layer: (Moments(), Moments()) for layer in convolutions}
    for batch in batches:
        x = teacher.normalize(batch)
        for layer in teacher.features:
            if isinstance(layer, nn.Conv2d):
                moments[layer][0].add(x)
                moments[layer][1].add(layer(x))
            x = layer(x)
    reference = compact.low_rank_vgg(RANKS, OUTPUTS)
    first, *ours = [layer for layer in reference.features if isinstance(layer, nn.Conv2d)]
    first.load_state_dict(convolutions[0].state_dict())
    for index, layer in enumerate(convolutions[1:]):
        narrow, core, wide = ours[3 * index : 3 * index + 3]
        assert layer.bias is not None
        assert wide.bias is not None
        covariance, mean = moments[layer][1].centred()
        _, into = leading(moments[layer][0].uncentred(), RANKS[index][0])
        _, out = leading(covariance, RANKS[index][1])
        weight, bias = layer.weight.double(), layer.bias.double()
        narrow.weight.copy_(into.T[:, :, None, None])
        core.weight.copy_(torch.einsum("ochw,os,cr->srhw", weight, out, into))
        wide.weight.copy_(out[:, :, None, None])
        wide.bias.copy_(out @ (out.T @ (bias - mean)) + mean)
    for name, basis in bases.items():
        reference.heads[name].weight.copy_(basis)  # type: ignore[operator]
    return reference
