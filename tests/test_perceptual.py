"""Compare each published preset with its formula in slow numpy, with the constants of the published code."""

import numpy as np
import pytest
import torch
from conftest import ROOT, picture
from losses import loss_network, settings

from fast_nst import loss_networks, networks
from fast_nst.errors import UserError
from fast_nst.image import to_tensor
from fast_nst.losses import PerceptualLoss, functional, layers_needed
from fast_nst.losses.terms import TV

PRESETS = sorted(path.stem for path in (ROOT / "configs" / "loss").glob("*.yaml"))


def numpy_features(network, image):
    with torch.no_grad():
        return {name: value.double().numpy() for name, value in network(image).items()}


def slow_gram(feature):
    """(C, H, W) -> (C, C), divided by C H W."""
    channels, height, width = feature.shape
    flat = feature.reshape(channels, height * width)
    return np.array([[np.dot(a, b) for b in flat] for a in flat]) / (channels * height * width)


def mse(a, b):
    return float(np.mean((a - b) ** 2))


def slow_shrink(image, divisor):
    """Average (B, C, H, W) over blocks of `divisor` x `divisor`; a remainder is dropped."""
    rows, columns = (side // divisor for side in image.shape[2:])
    small = np.zeros((*image.shape[:2], rows, columns))
    for row in range(rows):
        for column in range(columns):
            block = image[:, :, row * divisor : (row + 1) * divisor, column * divisor : (column + 1) * divisor]
            small[:, :, row, column] = block.mean((2, 3))
    return small


def slow_features(network, images, divisor):
    small = [slow_shrink(image.double().numpy(), divisor) for image in images]
    return [numpy_features(network, torch.from_numpy(x).float()) for x in small]


def slow_content(network, table, images, relative):
    """Compute the content term."""
    term = 0.0
    for divisor, weight in table.get("content_scales", {1: 1.0}).items():
        features, targets = slow_features(network, images, divisor)
        for layer, layer_weight in table["content_layers"].items():
            pairs = zip(features[layer], targets[layer], strict=True)
            errors = [mse(a, b) / (np.mean(b**2) if relative else 1) for a, b in pairs]
            term += weight * layer_weight * np.mean(errors)
    return term


def slow_style(network, table, images, relative):
    """Compute the style term."""
    term = 0.0
    for divisor, weight in table.get("style_scales", {1: 1.0}).items():
        features, style = slow_features(network, images, divisor)
        for layer, layer_weight in table["style_layers"].items():
            target = slow_gram(style[layer][0])
            errors = [mse(slow_gram(f), target) / (np.mean(target**2) if relative else 1) for f in features[layer]]
            term += weight * layer_weight * np.mean(errors)
    return term


def evaluate(name, images):
    output, content, style = images
    table = settings(name)
    network = loss_network(layers_needed(table["content_layers"], table["style_layers"]))
    loss = PerceptualLoss(network, style, **table)
    return loss(output, content), *(numpy_features(network, image) for image in images), output.double().numpy()


def test_johnson2016_matches_its_formula(images):
    terms, output, content, style, pixels = evaluate("johnson2016", images)
    content_term = 1.0 * mse(output["relu3_3"], content["relu3_3"])
    style_term = 0.0
    for layer in ("relu1_2", "relu2_2", "relu3_3", "relu4_3"):
        target = slow_gram(style[layer][0])
        style_term += 5.0 * mse(np.stack([slow_gram(f) for f in output[layer]]), np.stack([target] * 2))
    tv = 0.0
    for image in pixels * 255:
        for channel in image:
            for row in range(channel.shape[0] - 1):
                for column in range(channel.shape[1] - 1):
                    here = channel[row, column]
                    tv += 0.5 * ((here - channel[row, column + 1]) ** 2 + (here - channel[row + 1, column]) ** 2)
    assert float(terms["loss"]) == pytest.approx(content_term + style_term + 1e-6 * tv, rel=1e-5)


def test_pytorch_examples_matches_its_formula(images):
    terms, output, content, style, _ = evaluate("pytorch_examples", images)
    content_term = 1e5 * mse(output["relu2_2"], content["relu2_2"])
    style_term = 0.0
    for layer in ("relu1_2", "relu2_2", "relu3_3", "relu4_3"):
        target = slow_gram(style[layer][0])
        style_term += mse(np.stack([slow_gram(f) for f in output[layer]]), np.stack([target] * 2))
    assert float(terms["loss"]) == pytest.approx(content_term + 1e10 * style_term, rel=1e-5)


def test_lengstrom_matches_its_formula(images):
    terms, output, content, style, pixels = evaluate("lengstrom", images)
    batch = 2
    difference = output["relu4_2"] - content["relu4_2"]
    content_term = 7.5 * (2 * (np.sum(difference**2) / 2) / difference.size)
    style_term = 0.0
    for layer in ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"):
        target = slow_gram(style[layer][0])
        grams = np.stack([slow_gram(f) for f in output[layer]])
        style_term += 2 * (np.sum((grams - target) ** 2) / 2) / target.size
    pixels = pixels * 255
    down, across = np.diff(pixels, axis=2), np.diff(pixels, axis=3)
    tv = 2e2 * 2 * (np.sum(across**2) / 2 / across[0].size + np.sum(down**2) / 2 / down[0].size) / batch
    assert float(terms["loss"]) == pytest.approx(content_term + 1e2 * style_term / batch + tv, rel=1e-5)


def test_gatys2015_matches_its_formula(images):
    """Eq. 1 and 3 to 5 with VGG-19's filter counts, on which the layer weights depend."""
    table = settings("gatys2015")
    filters = {"relu1_1": 64, "relu2_1": 128, "relu3_1": 256, "relu4_1": 512, "relu5_1": 512, "relu4_2": 512}
    network = loss_network(filters, filters)
    output, content, style = (numpy_features(network, image[:1]) for image in images)
    content_term = 0.5 * np.sum((output["relu4_2"] - content["relu4_2"]) ** 2)
    style_term = 0.0
    for layer in ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"):
        flat = [features[layer][0].reshape(filters[layer], -1) for features in (output, style)]
        grams = [f @ f.T / f.shape[1] for f in flat]  # each divided by its own M, because the sizes may differ
        style_term += 0.2 * np.sum((grams[0] - grams[1]) ** 2) / (4 * filters[layer] ** 2)
    terms = PerceptualLoss(network, images[2], **table)(images[0][:1], images[1][:1])
    assert float(terms["loss"]) == pytest.approx(1.0 * content_term + 1e3 * style_term, rel=1e-4)


def test_tnst_matches_its_formula(images):
    """Of two outputs the mean of their content and style terms, and the sum of their TV terms."""
    table = settings("tnst")
    filters = {"relu1_2": 64, "relu2_2": 128, "relu3_3": 256, "relu4_3": 512}
    network = loss_network(filters, filters)
    output, content, style = (numpy_features(network, image) for image in images)
    content_term = 0.25 * np.sum((output["relu3_3"] - content["relu3_3"]) ** 2) / 2
    style_term = 0.0
    for layer, n in filters.items():
        painting = style[layer][0].reshape(n, -1)
        target = painting @ painting.T / painting.shape[1]  # each divided by its own M, because the sizes may differ
        for feature in output[layer]:
            flat = feature.reshape(n, -1)
            style_term += np.sum((flat @ flat.T / flat.shape[1] - target) ** 2) / (4 * n**2) / 2
    pixels = images[0].double().numpy() * 255
    across, down = np.diff(pixels, axis=3)[:, :, :-1], np.diff(pixels, axis=2)[:, :, :, :-1]
    tv = 0.5 * (np.sum(across**2) + np.sum(down**2))
    terms = PerceptualLoss(network, images[2], **table)(*images[:2])
    total = content_term + table["style_weight"] * style_term + table["tv_weight"] * tv
    assert float(terms["loss"]) == pytest.approx(total, rel=1e-4)
    assert (table["content_weight"], float(terms["content"])) == (1.0, pytest.approx(content_term, rel=1e-4))


def test_blended_styles_have_the_weighted_mean_gram(images):
    table = {**settings("default"), "style_scales": {1: 1.0}}
    network = loss_network(layers_needed(table["content_layers"], table["style_layers"]))
    other = images[1][:1, :, :20]
    blended = PerceptualLoss(network, [images[2], other], [1.0, 0.5], **table)
    first, second = (numpy_features(network, image)["relu2_2"][0] for image in (images[2], other))
    target = blended.grams[1]["relu2_2"][0]
    expected = (slow_gram(first) + 0.5 * slow_gram(second)) / 1.5
    np.testing.assert_allclose(target.numpy(), expected, rtol=1e-4)


def test_style_weights_select_and_mix_styles_per_image(images):
    table = settings("default")
    network = loss_network(layers_needed(table["content_layers"], table["style_layers"]))
    output, content, first = images
    second = content[:1, :, :40]
    both = PerceptualLoss(network, [first, second], **table)
    single = [PerceptualLoss(network, style, **table) for style in (first, second)]
    chosen = both(output, content, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    expected = [loss(output[i : i + 1], content[i : i + 1])["style"] for i, loss in enumerate(single)]
    torch.testing.assert_close(chosen["style"], sum(expected) / 2)
    mixed = PerceptualLoss(network, [first, second], [0.25, 0.75], **table)(output, content)
    torch.testing.assert_close(both(output, content, torch.tensor([[0.25, 0.75]]))["style"], mixed["style"])


def test_strength_scales_the_style_term_by_its_square_and_brings_the_photo_term(images):
    table = settings("default")
    loss = PerceptualLoss(
        loss_network(layers_needed(table["content_layers"], table["style_layers"])), images[2], **table
    )
    output, content = images[:2]
    full, half, none = (loss(output, content, torch.full((2, 1), strength)) for strength in (1.0, 0.5, 0.0))
    torch.testing.assert_close(half["style"], full["style"] / 4)
    assert float(none["style"]) == float(full["photo"]) == 0
    variance = content.flatten(1).var(1)
    expected = ((output - content).square().flatten(1).mean(1) / variance).mean()
    torch.testing.assert_close(none["photo"], expected)
    torch.testing.assert_close(half["photo"], expected / 4)
    torch.testing.assert_close(loss(output, content)["loss"], full["loss"])


# Scales that do not divide a 64 x 80 image evenly.
SCALES = {"content_scales": {1: 0.5, 3: 0.7, 6: 0.2}, "style_scales": {1: 0.5, 2: 0.3, 3: 0.2}}


@pytest.mark.parametrize("scales", [{}, SCALES], ids=["one scale", "several scales"])
def test_default_is_normalized(scales, images):
    """Every scale and layer is divided by its own reference energy, image by image."""
    table = {**settings("default"), **scales}
    network = loss_network(layers_needed(table["content_layers"], table["style_layers"]))
    output, content, style = images
    terms = {name: float(x) for name, x in PerceptualLoss(network, style, **table)(output, content).items()}
    others = [name for name in ("light", "tv") if table.get(f"{name}_weight")]
    assert "light" in others
    assert set(terms) == {"loss", "content", "style", *others}
    content_term = slow_content(network, table, (output, content), relative=True)
    style_term = slow_style(network, table, (output, style), relative=True)
    assert terms["content"] == pytest.approx(content_term, rel=1e-4)
    assert terms["style"] == pytest.approx(style_term, rel=1e-4)
    total = table["content_weight"] * content_term + table["style_weight"] * style_term
    total += sum(table[f"{name}_weight"] * terms[name] for name in others)
    assert terms["loss"] == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("normalize", [True, False])
def test_terms_are_weighted_sums_over_scales_and_layers(normalize, images):
    table = {
        "content_layers": {"relu1_2": 0.5, "relu2_2": 2.0}, "style_layers": {"relu1_2": 1.5, "relu3_3": 0.5},
        "content_weight": 3.0, "style_weight": 2.0, "normalize": normalize, **SCALES,
    }  # fmt: skip
    network = loss_network(layers_needed(table["content_layers"], table["style_layers"]))
    output, content, style = images
    content_term = slow_content(network, table, (output, content), normalize)
    style_term = slow_style(network, table, (output, style), normalize)
    terms = PerceptualLoss(network, style, **table)(output, content)
    assert float(terms["content"]) == pytest.approx(content_term, rel=1e-4)
    assert float(terms["style"]) == pytest.approx(style_term, rel=1e-4)
    assert float(terms["loss"]) == pytest.approx(3 * content_term + 2 * style_term, rel=1e-4)


def test_light_term_compares_outputs_with_content(images):
    table = {
        "content_layers": {"relu1_2": 1.0}, "style_layers": {"relu1_2": 1.0}, "content_weight": 1.0,
        "style_weight": 2.0, "light_weight": 5.0,
    }  # fmt: skip
    loss = PerceptualLoss(loss_network(["relu1_2"]), images[2], **table)
    output = torch.cat([images[1][:1], 1 - images[1][1:]])  # one content unchanged, and the negative of another
    terms = {name: float(value) for name, value in loss(output, images[1]).items()}
    values = functional.light_loss(output, images[1])
    assert values[0] < 1 < values[1]
    assert terms["light"] == pytest.approx(float(values.mean()))
    assert terms["loss"] == pytest.approx(terms["content"] + 2 * terms["style"] + 5 * terms["light"])


def test_only_weighted_terms_are_returned(images):
    table = {"content_layers": {"relu1_2": 1.0}, "style_layers": {"relu1_2": 1.0}}
    weights = {"content": 1.0, "style": 2.0, "light": 0.5, "tv": 0.25}
    network = loss_network(["relu1_2"])
    for omitted in (*weights, None):
        given = {**weights, **({omitted: 0.0} if omitted else {})}
        loss = PerceptualLoss(network, images[2], **table, **{f"{name}_weight": w for name, w in given.items()})
        assert loss.weights == given
        terms = loss(*images[:2])
        assert set(terms) == {"loss", "content", "style", *(name for name, weight in given.items() if weight)}
        assert next(iter(terms)) == "loss"
        assert all(value.dtype == torch.float32 and value.shape == () for value in terms.values())
        total = sum(weight * float(terms[name]) for name, weight in given.items() if weight)
        assert float(terms["loss"]) == pytest.approx(total)


def test_normalized_loss_ignores_the_scale_of_activations(images):
    table = {**settings("default"), "style_scales": {1: 1.0}}
    network = loss_network(layers_needed(table["content_layers"], table["style_layers"]))
    before = PerceptualLoss(network, images[2], **table)(*images[:2])
    for head in network.heads.values():
        head.weight *= 100
        head.bias *= 100
    after = PerceptualLoss(network, images[2], **table)(*images[:2])
    for name in before:
        torch.testing.assert_close(before[name], after[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", PRESETS)
def test_content_term_of_the_content_itself_is_zero(name, images):
    table = settings(name)
    network = loss_network(layers_needed(table["content_layers"], table["style_layers"]))
    terms = PerceptualLoss(network, images[2], **table)(images[1], images[1])
    assert terms["content"] == 0
    assert terms["style"] > 0


def test_scales_are_block_averages_of_the_image(images):
    seen = {}

    class Spy(torch.nn.Module):
        def forward(self, image, layers=None):
            seen[image.shape[2:]] = image
            return {"relu1_2": image}

    image = torch.rand(1, 3, 50, 49)
    terms = {"content_layers": {}, "style_layers": {"relu1_2": 1.0}, "content_weight": 0, "style_weight": 1}
    loss = PerceptualLoss(Spy(), images[2], **terms, style_scales={4: 1.0, 6: 1.0, 2: 1.0, 3: 1.0})
    seen.clear()
    loss(image, image)
    assert len(seen) == 4
    for divisor in (2, 3, 4, 6):
        rows, columns = 50 // divisor, 49 // divisor
        blocks = image[:, :, : rows * divisor, : columns * divisor].unflatten(3, (columns, divisor))
        expected = blocks.unflatten(2, (rows, divisor)).mean((3, 5))
        torch.testing.assert_close(seen[torch.Size((rows, columns))], expected)


def test_bfloat16_losses_match_float32():
    """As with `trainer=auto`: the trained network under autocast, the loss network in bfloat16."""
    content, style = (to_tensor(picture(seed, 128, 128)) for seed in (1, 2))
    table = settings("default")
    network, terms = networks.build("slim"), {}
    for dtype in (torch.float32, torch.bfloat16):
        layers = layers_needed(table["content_layers"], table["style_layers"])
        compact = loss_networks.build("compact", layers)
        loss = PerceptualLoss(compact, style, **table).to("cpu", dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            terms[dtype] = loss(network.eval()(content), content)
    for name in ("loss", "content", "style"):
        torch.testing.assert_close(terms[torch.bfloat16][name], terms[torch.float32][name], rtol=0.01, atol=0)


def test_unweighted_feature_term_is_not_computed(images):
    network = loss_network(["relu1_2", "relu2_2"])
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    loss = PerceptualLoss(
        network, images[2], content_layers={"relu2_2": 1.0}, style_layers={"relu1_2": 1.0}, content_weight=1.0,
        style_weight=0.0,
    )  # fmt: skip
    calls.clear()
    terms = loss(*images[:2])
    assert len(calls) == 2
    assert terms["style"] == 0
    assert terms["loss"] == terms["content"]
    loss = PerceptualLoss(
        network, images[2], content_layers={"relu2_2": 1.0}, style_layers={"relu1_2": 1.0}, content_weight=0.0,
        style_weight=1.0,
    )  # fmt: skip
    calls.clear()
    terms = loss(*images[:2])
    assert len(calls) == 1
    assert terms["content"] == 0
    assert terms["loss"] == terms["style"]


def test_unweighted_pixel_term_is_not_computed(images, monkeypatch):
    monkeypatch.setattr(functional, "light_loss", None)
    for function in ("mean", "half_sum"):
        monkeypatch.setitem(TV, function, None)
    table = {"content_layers": {"relu1_2": 1.0}, "style_layers": {"relu1_2": 1.0}, "content_weight": 1.0}
    network = loss_network(["relu1_2"])
    terms = PerceptualLoss(network, images[2], **table, style_weight=1.0)(*images[:2])
    assert set(terms) == {"loss", "content", "style"}


def test_smallest_image_is_eight_pixels_at_the_coarsest_scale(images):
    table = {
        "content_layers": {"relu3_3": 1.0}, "style_layers": {"relu4_3": 1.0}, "content_weight": 1, "style_weight": 1,
    }  # fmt: skip
    network = loss_network(["relu3_3", "relu4_3"])
    for scales, smallest in (
        ({}, 8), ({"style_scales": {1: 1, 5: 1}}, 40), ({"content_scales": {2: 1}}, 16),
        ({"light_weight": 1.0}, 8), ({"style_scales": {1: 1, 5: 1}, "style_weight": 0}, 8),
    ):  # fmt: skip
        loss = PerceptualLoss(network, images[2], **{**table, **scales})
        assert loss.smallest == smallest
        output, content = torch.rand(2, 1, 3, smallest, smallest)
        terms = loss(output.requires_grad_(), content)
        assert all(value.isfinite() for value in terms.values())
        assert torch.autograd.grad(terms["loss"], output)[0].isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"style_weight": -1.0}, "style_weight: got -1.0"),
        ({"style_weight": float("nan")}, "style_weight"),
        ({"style_weight": "much"}, "style_weight: got 'much'"),
        ({"tv_weight": -1}, "tv_weight: got -1"),
        ({"light_weight": -1}, "loss.light_weight: got -1; allowed: a number >= 0"),
        ({"light_weight": float("inf")}, "loss.light_weight: got inf"),
        ({"content_weight": 0, "style_weight": 0}, "all 0"),
        ({"content_weight": 0, "style_weight": 0, "light_weight": 1}, "all 0"),
        ({"content_reduction": "sum"}, "loss.content_reduction: got 'sum'; allowed: mean, half_sum"),
        ({"content_reduction": "half_sum", "normalize": True}, "'half_sum'; allowed with normalize=true: mean$"),
        ({"tv_reduction": "max"}, "allowed: mean, half_sum"),
        ({"style_scales": {0: 1.0}}, "loss.style_scales: got the divisor 0; allowed: integers >= 1"),
        ({"style_scales": {4: -1}}, "loss.style_scales.4: got -1"),
        ({"content_scales": {1.5: 1.0}}, "loss.content_scales: got the divisor 1.5"),
        ({"content_scales": 4}, "loss.content_scales: got 4; allowed: a table of weights"),
        ({"style_layers": {"relu1_2": -1}}, "style_layers.relu1_2"),
        ({"style_layers": [1]}, "style_layers: got .1.; allowed: a table of weights"),
        ({"style_layers": {}}, "style_layers: got {}; allowed: at least one positive weight, or loss.style_weight=0"),
        ({"content_scales": {2: 0}}, "content_scales: got {2: 0}; allowed: .*, or loss.content_weight=0"),
        ({"pixel_range": 0}, "loss.pixel_range: got 0"),
    ],
)
def test_invalid_value_raises(change, message, images):
    table = {
        "content_layers": {"relu2_2": 1.0}, "style_layers": {"relu1_2": 1.0}, "content_weight": 1, "style_weight": 10,
        **change,
    }  # fmt: skip
    with pytest.raises(UserError, match=message):
        PerceptualLoss(loss_network(["relu1_2", "relu2_2"]), images[2], **table)


def test_every_term_is_a_mean_over_the_batch():
    """Then two processes with two images each have the gradient of one process with four."""
    network = loss_network(["relu1_2", "relu3_3"]).double()
    table = {
        "content_layers": {"relu3_3": 1.0}, "style_layers": {"relu1_2": 1.0, "relu3_3": 1.0}, "content_weight": 1.0,
        "style_weight": 10.0, "light_weight": 3.0, "tv_weight": 0.5, "style_scales": {1: 0.6, 2: 0.4},
    }  # fmt: skip
    loss = PerceptualLoss(network, torch.rand(1, 3, 64, 64), **table).to("cpu", torch.float64)
    output, content = torch.rand(4, 3, 48, 48), torch.rand(4, 3, 48, 48)
    full = loss(output, content)
    halves = [loss(output[i : i + 2], content[i : i + 2]) for i in (0, 2)]
    for name, value in full.items():
        torch.testing.assert_close(value, (halves[0][name] + halves[1][name]) / 2, rtol=1e-6, atol=0)
