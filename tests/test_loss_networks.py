import itertools

import pytest
import torch
import torch.nn.functional as F
import torchvision
from conftest import RECIPE, VGG19, little_compact, random_vgg_state
from safetensors.torch import save_file

from fast_nst import loss_networks
from fast_nst.errors import UserError
from fast_nst.image import to_tensor
from fast_nst.loss_networks import compact, vgg


@pytest.fixture
def vgg19_file(tmp_path):
    path = tmp_path / "vgg19.safetensors"
    save_file(random_vgg_state("vgg19", 8), path)
    return path


def slow_vgg19(state, image, last):
    """Compute VGG-19 convolution by convolution, as in the paper's table 1."""
    table = [(0, "relu1_1"), (2, "relu1_2"), (5, "relu2_1"), (7, "relu2_2"), (10, "relu3_1"), (12, "relu3_2"),
            (14, "relu3_3"), (16, "relu3_4")]  # fmt: skip
    x = (image - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    for index, name in table:
        if name in ("relu2_1", "relu3_1"):
            x = F.max_pool2d(x, 2)
        x = F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1).clamp_min(0)
        if name == last:
            return x
    raise AssertionError(last)


@pytest.mark.parametrize("layer", ["relu1_1", "relu2_2", "relu3_3", "relu3_4"])
def test_vgg19_matches_slow_reference(vgg19_file, layer):
    image = torch.rand(1, 3, 32, 40)
    before = image.clone()
    network = loss_networks.build("vgg19", [layer, "relu1_2"], vgg19_file)
    features = network(image)
    assert list(features) == sorted({layer, "relu1_2"})
    torch.testing.assert_close(features[layer], slow_vgg19(_state(vgg19_file), image, layer), rtol=1e-4, atol=1e-5)
    assert torch.equal(image, before)


def _state(path):
    from safetensors.torch import load_file

    return load_file(path)


def test_vgg16_layer_names_match_the_paper():
    names = list(vgg.layer_indices("vgg16"))
    assert names == ["relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3", "relu4_1", "relu4_2",
                     "relu4_3", "relu5_1", "relu5_2", "relu5_3"]  # fmt: skip
    assert vgg.layer_indices("vgg16")["relu4_3"] == 22  # as in torchvision's and pytorch/examples' slices


def test_network_is_frozen_and_stays_in_evaluation_mode(vgg19_file):
    network = loss_networks.build("vgg19", ["relu1_2"], vgg19_file)
    network.train()
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert len(network.features) == 4  # ends after the deepest layer used


def test_pth_file_matches_safetensors(vgg19_file, tmp_path):
    path = tmp_path / "vgg19.pth"
    torch.save(_state(vgg19_file), path)
    image = torch.rand(1, 3, 16, 16)
    a, b = (loss_networks.build("vgg19", ["relu2_1"], file)(image)["relu2_1"] for file in (path, vgg19_file))
    assert torch.equal(a, b)


def test_pth_file_with_code_raises_and_does_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "trapped"), "w"))

    path = tmp_path / "trap.pth"
    torch.save({"features.0.weight": Trap()}, path)
    with pytest.raises(UserError, match="cannot be read as weights"):
        loss_networks.build("vgg19", ["relu1_1"], path)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("name", "layers", "message"),
    [
        ("vgg19", ["relu4_1"], "deepest layer in the file is relu3_4"),
        ("vgg19", ["relu9_1"], "layer 'relu9_1' does not exist.*relu1_1"),
        ("resnet", ["relu1_1"], "allowed: compact, vgg16, vgg19"),
        ("vgg19", [], "no layers given"),
    ],
)
def test_unknown_network_or_layer_raises(name, layers, message, vgg19_file):
    with pytest.raises(UserError, match=message):
        loss_networks.build(name, layers, vgg19_file)


def test_missing_file_raises(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        loss_networks.build("vgg19", ["relu1_1"], tmp_path / "none.safetensors")


def test_failed_download_suggests_alternatives(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", refuse)
    with pytest.raises(UserError, match=r"loss_network.weights=FILE.*loss_network=compact"):
        loss_networks.build("vgg19", ["relu1_1"])


def test_average_pooling_averages_2x2_blocks(vgg19_file):
    image = torch.rand(1, 3, 16, 16)
    network = loss_networks.build("vgg19", ["relu1_2", "relu2_1"], vgg19_file, pooling="average")
    features, state = network(image), _state(vgg19_file)
    pooled = features["relu1_2"].unflatten(2, (8, 2)).unflatten(4, (8, 2)).mean((3, 5))
    expected = F.conv2d(pooled, state["features.5.weight"], state["features.5.bias"], padding=1).relu()
    torch.testing.assert_close(features["relu2_1"], expected)


def test_rescale_gives_unit_mean_activation(vgg19_file):
    images = [torch.rand(1, 3, 24, 24), torch.rand(2, 3, 16, 32)]
    network = loss_networks.build("vgg19", ["relu1_1", "relu1_2", "relu2_2"], vgg19_file)
    before = network(images[0])
    loss_networks.rescale_to_unit_mean(network, images)
    for name in ("relu1_1", "relu1_2", "relu2_2"):
        means = sum(network(image)[name].mean((2, 3)).sum(0) for image in images) / 3
        alive = means > 0
        torch.testing.assert_close(means[alive], torch.ones_like(means[alive]), rtol=1e-3, atol=1e-4)
        after = network(images[0])[name]
        ratio = after.amax((0, 2, 3)) / before[name].amax((0, 2, 3)).clamp_min(1e-12)
        torch.testing.assert_close(
            after, before[name] * torch.where(ratio > 0, ratio, 1.0)[:, None, None], rtol=1e-2, atol=1e-4
        )


def test_rescaling_compact_raises():
    with pytest.raises(UserError, match=r"loss_network\.unit_mean: only a VGG can be rescaled"):
        loss_networks.rescale_to_unit_mean(little_compact(), [torch.rand(1, 3, 16, 16)])


def test_features_have_the_precision_of_the_weights_under_autocast(vgg19_file):
    network = loss_networks.build("vgg19", ["relu1_2"], vgg19_file)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(torch.rand(1, 3, 16, 16))["relu1_2"].dtype == torch.float32
    network.to(torch.bfloat16)
    assert network(torch.rand(1, 3, 16, 16))["relu1_2"].dtype == torch.bfloat16


def test_compact_file_round_trip(tmp_path):
    network, image = little_compact(), torch.rand(2, 3, 16, 24)
    compact.save(tmp_path / "c.safetensors", network, {**RECIPE, "made_by": "a test"})
    loaded = loss_networks.build("compact", ["relu2_2", "relu4_3"], tmp_path / "c.safetensors")
    features, expected = loaded(image), network(image)
    assert list(features) == ["relu2_2", "relu4_3"]
    assert tuple(expected) == compact.LAYERS
    assert {name: tuple(value.shape) for name, value in features.items()} == {
        "relu2_2": (2, 128, 8, 12), "relu4_3": (2, 512, 2, 3),
    }  # fmt: skip
    for name, value in features.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-2, atol=1e-2)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    with pytest.raises(UserError, match=r"'relu3_1' does not exist.* it has relu1_2, relu2_2, relu3_3, relu4_3"):
        loss_networks.build("compact", ["relu3_1"], tmp_path / "c.safetensors")


@pytest.mark.parametrize("change", [{"narrow": (4, 6)}, {"ranks": ((8, 4),) * 7}, {}])
def test_file_that_is_not_compact_raises(change, tmp_path):
    recipe = {**RECIPE, **change} if change else {}
    compact.save(tmp_path / "c.safetensors", little_compact(), recipe)
    with pytest.raises(UserError, match=r"c\.safetensors: not made by scripts/assets/distill\.py"):
        loss_networks.build("compact", ["relu1_2"], tmp_path / "c.safetensors")


def test_compact_with_average_pooling_raises():
    with pytest.raises(UserError, match=r"loss_network\.pooling: got 'average'; allowed with compact: max"):
        loss_networks.build("compact", ["relu1_2"], pooling="average")


def test_compact_matches_slow_reference():
    """Two narrow convolutions; each later one is a 1x1 (but not the first), a 3x3 and a 1x1 with bias."""
    network, image = little_compact(), torch.rand(2, 3, 33, 40)
    x = (image - torch.tensor(vgg.MEAN)[:, None, None]) / torch.tensor(vgg.STD)[:, None, None]
    state = dict(network.features.named_parameters())
    weights = iter([value for name, value in state.items() if name.endswith("weight")])
    biases = iter([value for name, value in state.items() if name.endswith("bias")])
    channels = {"relu1_1": 4, "relu1_2": 8, "relu2_1": 128, "relu2_2": 128, "relu3_1": 256, "relu3_2": 256,
                "relu3_3": 256, "relu4_1": 512, "relu4_2": 512, "relu4_3": 512}  # fmt: skip
    features = network(image)
    assert list(features) == ["relu1_2", "relu2_2", "relu3_3", "relu4_3"]
    for name, width in channels.items():
        if name in ("relu2_1", "relu3_1", "relu4_1"):
            x = F.max_pool2d(x, 2)
        if name not in ("relu1_1", "relu1_2"):
            if name != "relu2_1":
                x = torch.einsum("oc,bchw->bohw", next(weights)[:, :, 0, 0], x)
                assert x.shape[1] == 4
            x = F.conv2d(x, next(weights), padding=1)
            assert x.shape[1] == 4
            x = torch.einsum("oc,bchw->bohw", next(weights)[:, :, 0, 0], x) + next(biases)[:, None, None]
        else:
            x = F.conv2d(x, next(weights), next(biases), padding=1)
        x = x.clamp_min(0)
        assert x.shape[1] == width
        if name in features:
            expected = torch.einsum("oc,bchw->bohw", network.heads[name].weight, x) if name == "relu1_2" else x
            torch.testing.assert_close(features[name], expected, rtol=1e-4, atol=1e-4)
    assert next(weights, None) is next(biases, None) is None


def test_full_rank_convolution_has_a_1x1_too():
    """The layers of a file do not depend on its ranks."""
    channels = [8, *list(compact.VGG_16.values())[2:]]
    network = compact.low_rank_vgg((4, 8), [(inputs, 4) for inputs in channels[:-1]])
    shapes = [tuple(layer.weight.shape) for layer in network.features if isinstance(layer, torch.nn.Conv2d)]
    expected = [(4, 3, 3, 3), (8, 4, 3, 3)]
    for index, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
        expected += [(inputs, inputs, 1, 1)] * (index > 0) + [(4, inputs, 3, 3), (outputs, 4, 1, 1)]
    assert shapes == expected


def test_only_requested_layers_are_computed():
    network, image = little_compact(), torch.rand(1, 3, 16, 16)
    ran = []
    for index, layer in enumerate(network.features):
        layer.register_forward_hook(lambda *_, index=index: ran.append(index))
    full = network(image)
    last = {name: index for index, name in network.taps.items()}
    for layers in (["relu1_2"], ["relu3_3", "relu2_2", "relu3_3"]):
        ran.clear()
        features = network(image, layers)
        assert set(features) == set(layers)
        assert all(torch.equal(value, full[name]) for name, value in features.items())
        assert ran == list(range(1 + max(last[name] for name in layers)))
    with pytest.raises(UserError, match="layer 'relu5_1' does not exist"):
        network(image, ["relu1_2", "relu5_1"])


@pytest.mark.skipif(not VGG19.exists(), reason="needs the real VGG-19")
def test_real_vgg19_activations_are_sparse_on_a_photograph():
    from conftest import SHARED

    from fast_nst.image import open_picture

    network = loss_networks.build("vgg19", ["relu3_4"], VGG19)
    photograph = to_tensor(open_picture(SHARED / "content" / "chicago.jpg").rgb)
    noise = torch.rand_like(photograph)
    active = [float((network(image)["relu3_4"] > 0).float().mean()) for image in (photograph, noise)]
    assert 0.05 < active[0] < 0.6
