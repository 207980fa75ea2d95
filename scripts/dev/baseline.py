"""The baseline of benchmark.py: pytorch/examples' fast_neural_style as users run it, eager and in float32.

It uses none of the package's modules.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Step = Callable[[], object]


class BaselineConv(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, scale: int = 1, last: bool = False):
        layers: list[nn.Module] = [nn.Upsample(scale_factor=scale)] if scale > 1 else []
        layers += [nn.ReflectionPad2d(kernel // 2), nn.Conv2d(inputs, outputs, kernel, stride)]
        if not last:
            layers += [nn.InstanceNorm2d(outputs, affine=True), nn.ReLU()]
        super().__init__(*layers)


class BaselineResidual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(*BaselineConv(width, width, 3), *list(BaselineConv(width, width, 3))[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def baseline_network() -> nn.Module:
    """Build the image transformation network, with pixels of 0-255 in and out; 1,679,235 parameters."""
    return nn.Sequential(
        BaselineConv(3, 32, 9), BaselineConv(32, 64, 3, 2), BaselineConv(64, 128, 3, 2),
        *(BaselineResidual(128) for _ in range(5)),
        BaselineConv(128, 64, 3, scale=2), BaselineConv(64, 32, 3, scale=2), BaselineConv(32, 3, 9, last=True),
    )  # fmt: skip


def baseline_step(batch: Tensor, style: Tensor) -> Step:
    """Return a training step of the baseline, with VGG-16 up to relu4_3, all in float32."""
    network = baseline_network().to(batch.device)
    vgg = torchvision.models.vgg16(weights=None).features[:23].to(batch.device).requires_grad_(False)
    layers = (3, 8, 15, 22)  # relu1_2, relu2_2, relu3_3, relu4_3
    mean, std = (torch.tensor(v, device=batch.device)[:, None, None] for v in (MEAN, STD))

    def features(x: Tensor) -> list[Tensor]:
        x, outputs = (x / 255 - mean) / std, []
        for index, layer in enumerate(vgg):
            x = layer(x)
            if index in layers:
                outputs.append(x)
                x = x.clone()  # the next ReLU works in place
        return outputs

    def gram(x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        flat = x.view(b, c, h * w)
        return flat.bmm(flat.transpose(1, 2)) / (c * h * w)

    targets = [gram(f).detach() for f in features(style * 255)]
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    pixels = batch * 255

    def step() -> None:
        optimizer.zero_grad()
        output_features, content_features = features(network(pixels)), features(pixels)
        loss = 1e5 * F.mse_loss(output_features[1], content_features[1])
        for f, target in zip(output_features, targets, strict=True):
            loss = loss + 1e10 * F.mse_loss(gram(f), target.expand(len(f), -1, -1))
        loss.backward()
        optimizer.step()

    return step
