"""VGG-16 at a low rank: narrow first convolutions, and kernels projected on principal components of activations."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fast_nst.loss_networks import LossNetwork, compact


class Moments:
    """Of activations, over images: the mean (C,) and the uncentered second moment (C, C), float64."""

    def __init__(self) -> None:
        self.images, self.first, self.second = 0, torch.zeros(()), torch.zeros(())

    def add(self, features: Tensor) -> None:
        flat = features.flatten(2)
        self.images += len(flat)
        self.first = self.first + flat.mean(2).sum(0).double()
        self.second = self.second + (flat @ flat.transpose(1, 2) / flat.shape[2]).sum(0).double()

    def uncentered(self) -> Tensor:
        return self.second / self.images

    def centered(self) -> tuple[Tensor, Tensor]:
        """The covariance (C, C) and the mean (C,)."""
        mean = self.first / self.images
        return self.uncentered() - torch.outer(mean, mean), mean


def leading(moment: Tensor, components: int) -> Tensor:
    """The eigenvectors (C, K) of the largest eigenvalues of a symmetric (C, C)."""
    return torch.linalg.eigh(moment)[1].flip(1)[:, :components]


def fit_first_block(
    teacher: LossNetwork, images: Sequence[Tensor], block: nn.Sequential, steps: int, rng: np.random.Generator
) -> Tensor:
    """Train `block`, two narrow convolutions with ReLUs, until a linear map, (64, C), makes of its outputs the
    teacher's relu1_2, before and after the pooling; that map."""
    last = block[2]
    assert isinstance(last, nn.Conv2d)
    back = nn.Conv2d(last.out_channels, compact.VGG_16["relu1_2"], 1, bias=False)
    parameters = [*block.parameters(), *back.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    with torch.no_grad():  # Adam's steps are of the order of 1, Caffe's activations are not
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
            wanted = teacher(batch, ["relu1_2"])["relu1_2"] / scale
        ours = block(teacher.normalize(batch))
        loss = sum(
            (error.square().mean((1, 2, 3)) / wanted.square().mean((1, 2, 3))).sqrt().mean()
            for error in (back(ours) - wanted, back(F.max_pool2d(ours, 2)) - F.max_pool2d(wanted, 2))
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return back.weight.detach().flatten(1) * scale


@torch.no_grad()
def low_rank(
    teacher: LossNetwork,
    images: Sequence[Tensor],
    narrow: Sequence[int],
    ranks: Sequence[Sequence[int]],
    rng: np.random.Generator,
    steps: int = 600,
) -> LossNetwork:
    """`teacher`, VGG-16 up to relu4_3, as `compact.low_rank_vgg` of `narrow` and `ranks`.

    The first block is trained for `steps`. Each later convolution's input is projected on its leading uncentered
    principal components over `images`, each (B, 3, H, W), and its output, before the ReLU, on its centered ones.
    """
    convolutions = [layer for layer in teacher.features if isinstance(layer, nn.Conv2d)]
    entering, leaving = ([Moments() for _ in convolutions] for _ in range(2))
    for image in images:
        x, index = teacher.normalize(image), 0
        for layer in teacher.features:
            y = layer(x)
            if isinstance(layer, nn.Conv2d):
                entering[index].add(x)
                leaving[index].add(y)
                index += 1
            x = y
    network = compact.low_rank_vgg(narrow, ranks)
    with torch.enable_grad():
        back = fit_first_block(teacher, images, network.features[:4], steps, rng).double()
    ours = iter([layer for layer in network.features if isinstance(layer, nn.Conv2d)][2:])
    for index, (layer, (into_rank, out_rank)) in enumerate(zip(convolutions[2:], ranks, strict=True), 2):
        assert layer.bias is not None
        into = back if index == 2 else leading(entering[index].uncentered(), into_rank)
        if index > 2:
            next(ours).weight.copy_(into.T[:, :, None, None])
        core, wide = next(ours), next(ours)
        covariance, mean = leaving[index].centered()
        out = leading(covariance, out_rank)
        weight, bias = layer.weight.double(), layer.bias.double()
        core.weight.copy_(torch.einsum("ochw,os,cr->srhw", weight, out, into))
        wide.weight.copy_(out[:, :, None, None])
        assert wide.bias is not None
        wide.bias.copy_(out @ (out.T @ (bias - mean)) + mean)
    network.heads["relu1_2"].weight.copy_(back)  # type: ignore[operator]
    return network
