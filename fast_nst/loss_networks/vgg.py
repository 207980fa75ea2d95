"""VGG-16 and VGG-19 (Simonyan and Zisserman 2014, arXiv 1409.1556) as frozen loss networks, through torchvision.

For example, `relu3_2` is the ReLU after the second convolution of the third block.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from fast_nst.errors import UserError
from fast_nst.loss_networks.network import LossNetwork, check_layers
from fast_nst.safe_load import load_state

# torchvision's names: the configuration and the ImageNet weights.
VARIANTS = {
    "vgg16": ("D", torchvision.models.VGG16_Weights.IMAGENET1K_V1),
    "vgg19": ("E", torchvision.models.VGG19_Weights.IMAGENET1K_V1),
}
# ImageNet's statistics of RGB in [0, 1], which torchvision's weights require; `LossNetwork.normalize` applies them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def layer_indices(variant: str) -> dict[str, int]:
    """Return {layer name: index in torchvision's `features`}, shallow to deep."""
    indices, index, block, conv = {}, 0, 1, 0
    for entry in torchvision.models.vgg.cfgs[VARIANTS[variant][0]]:
        if entry == "M":
            index, block, conv = index + 1, block + 1, 0
        else:
            conv += 1
            indices[f"relu{block}_{conv}"] = index + 1
            index += 2
    return indices


def build_vgg(
    variant: str,
    layers: Iterable[str],
    weights: str | os.PathLike[str] | None = None,
    pooling: str = "max",
) -> LossNetwork:
    """Build VGG up to the deepest of `layers`.

    variant: "vgg16" or "vgg19". weights: a .safetensors or .pth file in torchvision's layout (`features.0.weight` …;
    later layers may be missing; no pickled code runs), or None to download torchvision's weights (cached).
    pooling: "max", or "average" (Gatys 2015, sec. Methods: slightly more appealing results).
    Raises UserError for an unknown layer, a layer missing from the file, or tensors of the wrong shape.
    """
    if pooling not in ("max", "average"):
        raise UserError(f"loss_network.pooling: got {pooling!r}; allowed: 'max', 'average'")
    indices = layer_indices(variant)
    wanted = check_layers(layers, indices)
    deepest = max(wanted, key=indices.__getitem__)
    state = _download(variant) if weights is None else _read(weights)
    source = f"{variant}'s download" if weights is None else str(weights)
    expected = {f"features.{index - 1}.{part}" for index in indices.values() for part in ("weight", "bias")}
    if unknown := [key for key in state if key.startswith("features.") and key not in expected]:
        raise UserError(f"{source}: has {unknown[0]}, which {variant} lacks; give a file of {variant}'s weights")
    _check_depth(state, indices, deepest, source)
    with torch.device("meta"):  # skips random initialization; the file's weights are assigned
        features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs[VARIANTS[variant][0]])
    features = features[: indices[deepest] + 1]
    for key, value in features.state_dict().items():
        shape, needed = tuple(state[f"features.{key}"].shape), tuple(value.shape)
        if shape != needed:
            raise UserError(
                f"{source}: features.{key} has shape {shape}; allowed: {needed}; give a file of {variant}'s weights"
            )
    features.load_state_dict({key: state[f"features.{key}"].float() for key in features.state_dict()}, assign=True)
    for index, module in enumerate(features):
        if isinstance(module, nn.MaxPool2d) and pooling == "average":
            features[index] = nn.AvgPool2d(2)
    return LossNetwork(features, {indices[name]: name for name in wanted}, MEAN, STD)


@torch.no_grad()
def rescale_to_unit_mean(network: LossNetwork, images: Iterable[Tensor]) -> None:
    """Scale each filter of a VGG in place to a mean activation of 1 over `images` (Gatys 2015, sec. Methods).

    images: batches (B, 3, H, W) in [0, 1]. Every convolution undoes the scale of its inputs, so the network computes
    the same features up to one factor per filter. Filters that never activate are not scaled.
    Raises UserError if `network` is not a VGG or there are no images.
    """
    if len(network.heads):
        raise UserError("loss_network.unit_mean: only a VGG can be rescaled; use loss_network=vgg19 or vgg16")
    activations = [network.normalize(image) for image in images]
    if not activations:
        raise UserError("rescaling to unit mean activation needs at least one image")
    undo: Tensor | None = None
    for module in network.features:
        if isinstance(module, nn.Conv2d):
            assert module.bias is not None  # torchvision's VGG has biases
            if undo is not None:
                module.weight *= undo[None, :, None, None]
            sums = torch.stack([module(x).relu().mean((2, 3)).sum(0) for x in activations])
            means = sums.sum(0) / sum(len(x) for x in activations)
            undo = torch.where(means > 0, means, torch.ones_like(means))
            module.weight /= undo[:, None, None, None]
            module.bias /= undo
        activations = [module(x) for x in activations]


def _read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    try:
        return load_state(path)
    except UserError as error:
        raise UserError(f"loss_network.weights: {error}") from None


def _check_depth(state: dict[str, Tensor], indices: dict[str, int], deepest: str, source: str) -> None:
    available = None
    for name, index in indices.items():
        if not all(f"features.{index - 1}.{part}" in state for part in ("weight", "bias")):
            break
        available = name
    if available is None:
        raise UserError(f"{source}: contains no VGG weights in torchvision's layout (features.0.weight …)")
    if indices[deepest] > indices[available]:
        raise UserError(f"{source}: {deepest} is missing; the deepest layer in the file is {available}")


def _download(variant: str) -> dict[str, Tensor]:
    weights = VARIANTS[variant][1]
    path = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    try:
        if not path.exists():  # torchvision would announce the download, even if it then failed
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, str(path), path.stem.rpartition("-")[2])
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except OSError as error:  # URLError too
        raise UserError(
            f"loss_network={variant}: its weights cannot be downloaded here ({error}); give a file in torchvision's "
            f"layout with loss_network.weights=FILE, or use loss_network=compact, which ships with the package"
        ) from None
