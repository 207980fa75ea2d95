import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED
from safetensors.torch import save_file
from torch import nn

from fast_nst import networks, weights


def slim_file(path, **changes):
    network = networks.build("slim", width=4, blocks=1)
    weights.save(
        path, network, {"network": {"name": "slim", "width": 4, "blocks": 1}, "style": {"names": ["a"]}, **changes}
    )
    return network


def test_weights_file_round_trip(tmp_path):
    network = slim_file(tmp_path / "a.safetensors")
    loaded, metadata = weights.load(tmp_path / "a.safetensors")
    x = torch.rand(1, 3, 20, 30)
    assert torch.equal(loaded(x), network.eval()(x))
    assert not loaded.training
    assert metadata["format_version"] == 1
    assert metadata["package_version"]
    assert metadata["style"] == {"names": ["a"]}
    assert weights.describe(tmp_path / "a.safetensors") == metadata


def raw_file(path, text):
    save_file({"a": torch.zeros(1)}, path, None if text is None else {"fast_nst": text})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"seems to be the weights of another network \(a, …\)"),
        ("{", "metadata cannot be read"),
        (json.dumps({"format_version": 99, "network": {"name": "slim"}}), "format version 99.*reads up to 1"),
        (json.dumps({"format_version": 1, "network": {}}), "does not name a network"),
        (
            json.dumps({"format_version": 1, "network": {"name": "os.system", "command": "true"}}),
            "allowed: johnson, slim",
        ),
        (json.dumps({"format_version": 1, "network": {"name": "slim", "_target_": "os.system"}}), "does not fit"),
        (json.dumps({"format_version": 1, "network": {"name": "slim"}}), "does not fit the network it names"),
    ],
)
def test_foreign_safetensors_raises_in_one_line(tmp_path, text, message):
    raw_file(tmp_path / "a.safetensors", text)
    with pytest.raises(weights.WeightsError, match=message) as caught:
        weights.load(tmp_path / "a.safetensors")
    assert "\n" not in str(caught.value)


def test_truncated_or_missing_file_raises(tmp_path):
    slim_file(tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    for length in (0, 5, 200, len(content) - 10):
        (tmp_path / "b.safetensors").write_bytes(content[:length])
        with pytest.raises(weights.WeightsError, match=r"b\.safetensors"):
            weights.load(tmp_path / "b.safetensors")
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(weights.WeightsError):
            weights.load(path)


def test_message_does_not_explain_how_to_run_code_in_a_file(tmp_path):
    torch.save({"a": Path("b")}, tmp_path / "a.pth")
    with pytest.raises(
        weights.WeightsError, match="seems to be a pickled PosixPath, which runs code when it is read"
    ) as caught:
        weights.load(tmp_path / "a.pth")
    assert "weights_only" not in str(caught.value)


class ExamplesNetwork(nn.Module):
    """pytorch/examples' network: the published names, order and shapes of its state dict."""

    class Conv(nn.Module):
        def __init__(self, i, o, k, s=1):
            super().__init__()
            self.k = k
            self.conv2d = nn.Conv2d(i, o, k, s)

        def forward(self, x):
            return self.conv2d(nn.ReflectionPad2d(self.k // 2)(x))

    class Residual(nn.Module):
        def __init__(self, c, statistics):
            super().__init__()
            self.conv1, self.conv2 = ExamplesNetwork.Conv(c, c, 3), ExamplesNetwork.Conv(c, c, 3)
            self.in1, self.in2 = (nn.InstanceNorm2d(c, affine=True, track_running_stats=statistics) for _ in range(2))

        def forward(self, x):
            return x + self.in2(self.conv2(torch.relu(self.in1(self.conv1(x)))))

    def __init__(self, statistics):
        super().__init__()
        norm = lambda c: nn.InstanceNorm2d(c, affine=True, track_running_stats=statistics)  # noqa: E731
        self.conv1, self.in1 = self.Conv(3, 32, 9), norm(32)
        self.conv2, self.in2 = self.Conv(32, 64, 3, 2), norm(64)
        self.conv3, self.in3 = self.Conv(64, 128, 3, 2), norm(128)
        for i in range(1, 6):
            setattr(self, f"res{i}", self.Residual(128, statistics))
        self.deconv1, self.in4 = self.Conv(128, 64, 3), norm(64)
        self.deconv2, self.in5 = self.Conv(64, 32, 3), norm(32)
        self.deconv3 = self.Conv(32, 3, 9)

    def forward(self, x):
        up = nn.Upsample(scale_factor=2, mode="nearest")
        for i in (1, 2, 3):
            x = torch.relu(getattr(self, f"in{i}")(getattr(self, f"conv{i}")(x)))
        for i in range(1, 6):
            x = getattr(self, f"res{i}")(x)
        x = torch.relu(self.in4(self.deconv1(up(x))))
        x = torch.relu(self.in5(self.deconv2(up(x))))
        return self.deconv3(x)


@pytest.mark.parametrize("statistics", [False, True])
def test_pytorch_examples_file_matches_its_network(tmp_path, statistics):
    reference = ExamplesNetwork(statistics)
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.1)
    path = tmp_path / "candy.pth"
    torch.save(reference.state_dict(), path)
    assert ("in1.running_mean" in reference.state_dict()) == statistics
    ours, metadata = weights.load(path)
    assert metadata["source"] == "pytorch/examples"
    x = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        # Without tracked statistics, the norms use the image's own.
        plain = ExamplesNetwork(False)
        plain.load_state_dict(
            {k: v for k, v in reference.state_dict().items() if "running" not in k and "batches" not in k}
        )
        torch.testing.assert_close(ours(x), plain(x * 255) / 255, rtol=1e-3, atol=1e-4)


def test_other_pth_raises(tmp_path):
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "a.pth")
    with pytest.raises(weights.WeightsError, match="seems to be the weights of another network"):
        weights.load(tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(b"text")
    with pytest.raises(weights.WeightsError, match="cannot be read as weights"):
        weights.load(tmp_path / "b.pth")


@pytest.mark.parametrize(
    ("name", "tensors", "message"),
    [
        ("a.safetensors", {"unet.down_blocks.0.weight": 1}, "a network of diffusers"),
        ("a.safetensors", {"lora_unet_a.lora_up.weight": 1}, "a LoRA for a diffusion model"),
        ("a.safetensors", {"features.0.weight": 1}, "a VGG, which is a loss network"),
        ("a.safetensors", {"conv1.conv2d.weight": 1}, "not a network of pytorch/examples"),
        ("a.ckpt", {"model.diffusion_model.a": 1}, "a Stable Diffusion checkpoint"),
        ("a.onnx", None, "an ONNX model"),
        ("a.t7", None, "a Torch7 file"),
        ("model.ckpt.data-00000-of-00001", None, "a TensorFlow checkpoint"),
    ],
)
def test_a_foreign_file_is_named(tmp_path, name, tensors, message):
    path = tmp_path / name
    if tensors is None:
        path.write_bytes(b"\x08\x07\x12")
    elif path.suffix == ".safetensors":
        save_file({key: torch.zeros(1) for key in tensors}, path)
    else:
        torch.save({key: torch.zeros(1) for key in tensors}, path)
    with pytest.raises(weights.WeightsError, match=message) as caught:
        weights.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", [b"data.pkl", b"PK\1\2", b"PK\5\6", b"PK\6\7"])
def test_a_damaged_archive_raises_in_one_line(tmp_path, part):
    """Found by scripts/dev/fuzz.py."""
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(200)}, path)
    data = bytearray(path.read_bytes())
    if part == b"PK\6\7":  # an archive of several disks, of which the end tells
        end = data.rindex(b"PK\5\6")
        data[end:end] = part + bytes(4) + bytes(8) + (2).to_bytes(4, "little")
    else:
        data[data.index(part)] ^= 255
    path.write_bytes(data)
    with pytest.raises(weights.WeightsError, match=r"a\.pth: ") as caught:
        weights.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_whole_pickled_network_is_named_and_not_run(tmp_path, zipped):
    torch.save(ExamplesNetwork(False), tmp_path / "a.model", _use_new_zipfile_serialization=zipped)
    with pytest.raises(weights.WeightsError, match="seems to be a pickled ExamplesNetwork, which runs code"):
        weights.load(tmp_path / "a.model")


def test_pytorch_examples_of_any_width():
    path = SHARED / "networks" / "pytorch_examples_mosaic_16_32_64.pth"
    if not path.exists():
        pytest.skip("the network is not here")
    network, metadata = weights.load(path)
    assert metadata["network"]["filters"] == [16, 32, 64]
    output = network(torch.rand(1, 3, 40, 50))
    assert output.shape == (1, 3, 40, 50)
    assert 0.1 < output.std() < 1


def lengstrom_state(filters=(4, 5, 6)):
    """Random variables in lengstrom's order and layout."""
    generator = torch.Generator().manual_seed(1)
    full, half, quarter = filters
    shapes = [(9, 9, 3, full), (3, 3, full, half), (3, 3, half, quarter), *[(3, 3, quarter, quarter)] * 2 * 5]
    shapes += [(3, 3, half, quarter), (3, 3, full, half), (9, 9, full, 3)]
    state = {}
    for index, shape in enumerate(shapes):
        channels = shape[2] if index in (13, 14) else shape[3]
        for offset, size in enumerate((shape, (channels,), (channels,))):
            number = 3 * index + offset
            values = torch.randn(size, generator=generator) * 0.2 + (offset == 2)
            state["Variable" if number == 0 else f"Variable_{number}"] = values
    return state


class Twin:
    """lengstrom's transform.net in slow numpy: (H, W, C), TensorFlow's "SAME" as its documentation defines it."""

    def __init__(self, state):
        self.variables = [v.double().numpy() for _, v in sorted(state.items(), key=lambda i: int(i[0][9:] or 0))]

    def norm(self, x, layer):
        shift, scale = self.variables[3 * layer + 1 : 3 * layer + 3]
        return scale * (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + 1e-3) + shift

    @staticmethod
    def before(side, kernel, stride):
        return max((-(-side // stride) - 1) * stride + kernel - side, 0) // 2

    def conv(self, x, layer, stride=1, relu=True):
        kernel = self.variables[3 * layer]
        h, w, k = *x.shape[:2], len(kernel)
        top, left = (self.before(side, k, stride) for side in (h, w))
        y = np.zeros((-(-h // stride), -(-w // stride), kernel.shape[3]))
        for i, j in np.ndindex(*y.shape[:2]):
            for u, v in np.ndindex(k, k):
                row, column = i * stride + u - top, j * stride + v - left
                if 0 <= row < h and 0 <= column < w:
                    y[i, j] += x[row, column] @ kernel[u, v]
        y = self.norm(y, layer)
        return np.maximum(y, 0) if relu else y

    def transposed(self, x, layer):
        """The gradient of `conv` with a stride of 2, as in TensorFlow; the kernel is (H, W, out, in)."""
        kernel = self.variables[3 * layer]
        h, w = x.shape[:2]
        y = np.zeros((2 * h, 2 * w, kernel.shape[2]))
        before = self.before(2 * h, 3, 2)
        for i, j in np.ndindex(h, w):
            for u, v in np.ndindex(3, 3):
                row, column = 2 * i + u - before, 2 * j + v - before
                if 0 <= row < 2 * h and 0 <= column < 2 * w:
                    y[row, column] += kernel[u, v] @ x[i, j]
        return np.maximum(self.norm(y, layer), 0)

    def __call__(self, x):
        y = self.conv(self.conv(self.conv(x * 255.0, 0), 1, 2), 2, 2)
        for block in range(5):
            y = y + self.conv(self.conv(y, 3 + 2 * block), 4 + 2 * block, relu=False)
        y = self.conv(self.transposed(self.transposed(y, 13), 14), 15, relu=False)
        return (150 * np.tanh(y) + 127.5) / 255


@pytest.mark.parametrize(("height", "width"), [(20, 24), (17, 19), (18, 23)])
def test_lengstrom_equals_its_slow_twin(tmp_path, height, width):
    state = lengstrom_state()
    save_file(state, tmp_path / "a.safetensors")
    network, metadata = weights.load(tmp_path / "a.safetensors")
    assert metadata["source"] == "lengstrom"
    x = torch.rand(1, 3, height, width)
    with torch.no_grad():
        output = network(x)[0].permute(1, 2, 0)
    expected = Twin(state)(x[0].permute(1, 2, 0).double().numpy())[:height, :width]
    torch.testing.assert_close(output.double(), torch.from_numpy(expected), rtol=0, atol=1e-4)
    assert output.std() > 0.1
