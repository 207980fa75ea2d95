"""VGG-16 at a low rank: narrow first convolutions, and kernels projected onto principal components of activations."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_nst.loss_networks import LossNetwork, compact


class Moments:
    """Mean (C,) and uncentered second moment (C, C) of activations over images, in float64."""

    def __init__(self) -> None:
        self.images, self.first, self.second = 0, torch.zeros(()), torch.zeros(())

    def add(self, features: Tensor) -> None:
        """Add the activations (B, C, H, W) of B images; each image counts the same, whatever its size."""
        flat = features.flatten(2)
        self.images += len(flat)
        self.first = self.first + flat.mean(2).sum(0).double()
        self.second = self.second + (flat @ flat.transpose(1, 2) / flat.shape[2]).sum(0).double()

    def uncentered(self) -> Tensor:
        """Return the uncentered second moment (C, C)."""
        return self.second / self.images

    def centered(self) -> tuple[Tensor, Tensor]:
        """Return the covariance (C, C) and the mean (C,)."""
        mean = self.first / self.images
        return self.uncentered() - torch.outer(mean, mean), mean


def leading(moment: Tensor, components: int) -> Tensor:
    """Return the eigenvectors (C, K) of the K largest eigenvalues of a symmetric (C, C)."""
    return torch.linalg.eigh(moment)[1].flip(1)[:, :components]


def fit_first_block(
    teacher: LossNetwork, images: Sequence[Tensor], block: nn.Sequential, steps: int, rng: np.random.Generator
) -> Tensor:
    """Train `block`, two narrow convolutions with ReLUs, and a linear map from its outputs to the teacher's relu1_2.

    Return the map (64, C). Both are fitted to relu1_2 before and after the pooling.
    """
    last = block[2]
    assert isinstance(last, nn.Conv2d)
    expand = nn.Conv2d(last.out_channels, compact.VGG_16["relu1_2"], 1, bias=False)
    parameters = [*block.parameters(), *expand.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    with torch.no_grad():  # Adam's steps do not grow with the targets, so fit targets of RMS 1
        scale = float(teacher(images[0], ["relu1_2"])["relu1_2"].square().mean().sqrt())
    optimizer = torch.optim.Adam(parameters, 0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        crops = []
        for index in rng.integers(len(images), size=6):
            top, left = (int(rng.integers(side - 63)) for side in images[index].shape[2:])
            crops.append(images[index][:, :, top : top + 64, left : left + 64])
        batch = torch.cat(crops)
        batch[0] = torch.from_numpy(rng.random((3, 64, 64), np.float32))
        with torch.no_grad():
            target = teacher(batch, ["relu1_2"])["relu1_2"] / scale
        narrow = block(teacher.normalize(batch))
        loss = sum(
            (error.square().mean((1, 2, 3)) / target.square().mean((1, 2, 3))).sqrt().mean()
            for error in (expand(narrow) - target, expand(F.max_pool2d(narrow, 2)) - F.max_pool2d(target, 2))
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return expand.weight.detach().flatten(1) * scale


@torch.no_grad()
def low_rank(
    teacher: LossNetwork,
    images: Sequence[Tensor],
    narrow: Sequence[int],
    ranks: Sequence[Sequence[int]],
    rng: np.random.Generator,
    steps: int = 600,
) -> LossNetwork:
    """Approximate `teacher`, VGG-16 up to relu4_3, by `compact.low_rank_vgg(narrow, ranks)`.

    The first block is trained for `steps` steps. Each later convolution's input is projected onto its leading
    uncentered principal components over `images`, each (B, 3, H, W), and its output, before the ReLU, onto its
    centered ones.
    """
    convolutions = [layer for layer in teacher.features if isinstance(layer, nn.Conv2d)]
    inputs, outputs = ([Moments() for _ in convolutions] for _ in range(2))
    for image in images:
        x, index = teacher.normalize(image), 0
        for layer in teacher.features:
            y = layer(x)
            if isinstance(layer, nn.Conv2d):
                inputs[index].add(x)
                outputs[index].add(y)
                index += 1
            x = y
    network = compact.low_rank_vgg(narrow, ranks)
    with torch.enable_grad():
        expand = fit_first_block(teacher, images, network.features[:4], steps, rng).double()
    layers = iter([layer for layer in network.features if isinstance(layer, nn.Conv2d)][2:])
    for index, (layer, (in_rank, out_rank)) in enumerate(zip(convolutions[2:], ranks, strict=True), 2):
        assert layer.bias is not None
        basis_in = expand if index == 2 else leading(inputs[index].uncentered(), in_rank)
        if index > 2:
            next(layers).weight.copy_(basis_in.T[:, :, None, None])
        core, expansion = next(layers), next(layers)
        covariance, mean = outputs[index].centered()
        basis_out = leading(covariance, out_rank)
        weight, bias = layer.weight.double(), layer.bias.double()
        core.weight.copy_(torch.einsum("ochw,os,cr->srhw", weight, basis_out, basis_in))
        expansion.weight.copy_(basis_out[:, :, None, None])
        assert expansion.bias is not None
        expansion.bias.copy_(basis_out @ (basis_out.T @ (bias - mean)) + mean)
    network.heads["relu1_2"].weight.copy_(expand)  # type: ignore[operator]
    return network
