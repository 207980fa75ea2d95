import json
from pathlib import Path

import pytest
import torch
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
        (None, "not one that fast_nst wrote"),
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
    with pytest.raises(weights.WeightsError, match="contains objects other than tensors and plain values") as caught:
        weights.load(tmp_path / "a.pth")
    assert "weights_only" not in str(caught.value)


def test_loading_a_checkpoint_raises(tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"")
    with pytest.raises(weights.WeightsError, match="a checkpoint"):
        weights.load(tmp_path / "last.ckpt")


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
    with pytest.raises(weights.WeightsError, match="not a network of pytorch/examples"):
        weights.load(tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(b"text")
    with pytest.raises(weights.WeightsError, match="cannot be read as weights"):
        weights.load(tmp_path / "b.pth")
