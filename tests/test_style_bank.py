"""StyleBank: banks between an auto-encoder's halves, and the method that trains them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture, run, small
from PIL import Image

from fast_nst import networks, weights
from fast_nst.image import to_tensor
from fast_nst.methods.style_bank import STYLIZING, StyleBankTransfer
from fast_nst.networks.styles import clear_gradients, replace, select, shared_parameters
from fast_nst.stylize.image import stylize_tensor, stylize_tiles
from fast_nst.training.muon import Muon

SIZES = {"width": 8, "blocks": 2}
METHOD = ["network=style_bank", "method=style_bank"]


@pytest.fixture
def network() -> networks.StyleBank:
    """A network of three styles with random norms."""
    network = networks.build("style_bank", num_styles=3, **SIZES).eval()
    for name, parameter in network.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, 0.5, 0.3)
    return network


@torch.no_grad()
def test_outputs_of_banks_are_mixed_by_their_weights(network):
    content, style = torch.rand(3, 3, 40, 36), torch.tensor([[0.0, 1, 0], [0.5, 0, 1.2], [0, 0, 0]])
    features = network.down(torch.rand(3, 3, 40, 36))
    outputs = [bank(features) for bank in network.banks]
    mixed = network.mix(features, style)
    torch.testing.assert_close(mixed[0], outputs[1][0])
    expected = 0.5 * outputs[0][1] + 1.2 * outputs[2][1] - 0.7 * features[1]
    torch.testing.assert_close(mixed[1], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[2], features[2])
    torch.testing.assert_close(network(content, style[1:2])[0], network(content, style[1:2].expand(3, 3))[0])


@pytest.mark.parametrize("style", [[0.0, 1, 0], [0.7, 0.3, 0], [0.5, 0, 1.2], [0, 0, 0], [0.2, 0, 0]])
@torch.no_grad()
def test_a_mixture_has_plain_layers_that_run_in_strips(network, style):
    photograph = picture(5, 150, 90)
    content, style = to_tensor(photograph), torch.tensor(style)
    alone = select(network, style)
    torch.testing.assert_close(alone(content), network(content, style[None]), rtol=0, atol=1e-5)
    whole = stylize_tensor(alone, content)
    strips = photograph.copy()
    stylize_tiles(alone, strips, 40)
    assert (to_tensor(strips) - whole).abs().max() < 0.6 / 255


@torch.no_grad()
def test_the_autoencoder_keeps_brightness(network):
    """Which the norms of the decoder would remove."""
    dark, bright = torch.full((1, 3, 40, 36), 0.2), torch.full((1, 3, 40, 36), 0.8)
    assert (network(bright) - network(dark)).abs().mean() > 1e-3
    style = torch.zeros(1, 3)  # the features themselves
    torch.testing.assert_close(network(bright, style), network(dark, style), rtol=0, atol=1e-3)


@torch.no_grad()
def test_kept_banks_are_bit_identical_and_dropped_ones_gone(network):
    content = torch.rand(1, 3, 40, 36)
    larger, smaller = replace(network, [0, 1, 2], 1), replace(network, [2], 0)
    assert (larger.num_styles, smaller.num_styles) == (4, 1)
    before = network(content, torch.tensor([[0.0, 0, 1]]))
    assert torch.equal(larger(content, torch.tensor([[0.0, 0, 1, 0]])), before)
    assert torch.equal(smaller(content, torch.ones(1, 1)), before)


def test_the_first_phase_leaves_gradients_of_new_banks_only(network):
    network(torch.rand(2, 3, 40, 36), torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5]])).sum().backward()
    clear_gradients(network, 2)
    assert {name.partition(".")[0] for name, p in network.named_parameters() if p.grad is not None} == {"banks"}
    assert [any(p.grad is not None for p in bank.parameters()) for bank in network.banks] == [False, False, True]


class Turns(StyleBankTransfer):
    """At a step that the test sets, without a trainer."""

    step = 0
    global_step = property(lambda self: self.step)


def test_the_autoencoder_step_has_the_gradient_norm_of_the_step_before(network):
    module = Turns(network, None, "adam", 1e-3, "constant", 0, 9, 0)
    shared = shared_parameters(network)
    norms = []
    for module.step in range(2 * (STYLIZING + 1)):
        network.zero_grad()
        style = None if module.autoencodes() else torch.eye(3)[:1]
        (network(torch.rand(1, 3, 32, 32), style).square().mean() * (module.step + 1)).backward()
        module.on_before_optimizer_step(None)
        norms.append(float(torch.cat([p.grad.flatten() for p in shared if p.grad is not None]).norm()))
        assert module.autoencodes() == (module.step in (2, 5))
    assert norms[2] == pytest.approx(norms[1], rel=1e-4)
    assert norms[5] == pytest.approx(norms[4], rel=1e-4)
    assert norms[4] != pytest.approx(norms[1], rel=1e-2)


def train(folder: Path, *overrides: str) -> None:
    result = run("train.py", *small(folder), *METHOD, *overrides, cwd=folder)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def two_styles(workplace: Path) -> Path:
    """The weights file of a run of two styles."""
    for seed, name in ((100, "first"), (101, "second"), (102, "third")):
        picture(seed, 64, 64).save(workplace / f"{name}.png")
    train(workplace, "style=[first.png,second.png]", "output_dir=banks")
    return workplace / "banks" / "2_styles.safetensors"


def repaint(folder: Path, *arguments: object) -> np.ndarray:
    result = run("infer.py", *arguments, "-o", "painted.png", "--overwrite", cwd=folder)
    assert result.returncode == 0, result.stderr
    return np.asarray(Image.open(folder / "painted.png"))


def test_a_run_paints_styles_mixtures_and_regions(two_styles):
    folder = two_styles.parents[1]
    description = weights.describe(two_styles)
    assert description["style"]["names"] == ["first", "second"]
    assert np.isfinite(description["held_out_losses"]["autoencoder_psnr"])
    photo = next((folder / "photographs").iterdir())
    first, second, both = (
        repaint(folder, two_styles, photo, "--style", style).astype(float)
        for style in ("first", "second", "first,second")
    )
    assert min(np.abs(a - b).mean() for a, b in ((first, second), (first, both), (second, both))) > 0
    mask = np.zeros((48, 64), np.uint8)
    mask[:, 32:] = 255
    Image.fromarray(mask).save(folder / "half.png")
    regions = repaint(folder, two_styles, photo, "--style", "first", "--mask", "half.png", "--outside", "second")
    assert np.array_equal(regions[:, :32], second[:, :32])
    assert np.array_equal(regions[:, 32:], first[:, 32:])


def test_a_new_bank_leaves_the_rest_bit_identical(two_styles):
    folder = two_styles.parents[1]
    train(folder, "style.image=third.png", f"init_from={two_styles}", "output_dir=three banks")
    (before, _), (after, description) = map(weights.load, (two_styles, folder / "three banks" / "third.safetensors"))
    assert description["style"]["names"] == ["first", "second", "third"]
    new = after.state_dict()
    assert all(torch.equal(value, new[name]) for name, value in before.state_dict().items())
    assert not torch.equal(new["banks.2.1.first.conv.weight"], new["banks.0.1.first.conv.weight"])


def test_a_resumed_run_is_bit_identical(two_styles):
    folder = two_styles.parents[1]
    words = ["style=[first.png,second.png]", "output_dir=bank_stopped", "checkpoint.every_n_steps=2"]
    train(folder, *words, "trainer.max_steps=2", "optimizer.schedule=constant")
    train(folder, *words, "trainer.max_steps=6", "optimizer.schedule=constant", "ckpt_path=auto")
    train(folder, words[0], "output_dir=bank_whole", "trainer.max_steps=6", "optimizer.schedule=constant")
    files = [folder / name / "2_styles.safetensors" for name in ("bank_stopped", "bank_whole")]
    states = [weights.load(file)[0].state_dict() for file in files]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("words", [METHOD[:1], METHOD[1:]])
def test_network_and_method_go_together(two_styles, words):
    folder = two_styles.parents[1]
    result = run("train.py", *small(folder), *words, "style.image=first.png", "output_dir=never", cwd=folder)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert "network=style_bank and method=style_bank must be used together" in result.stderr


def test_muon_leaves_encoder_and_decoder_to_adam(network):
    rest, kernels = (group["params"] for group in Muon(network, 0.04).param_groups)
    names = {parameter: name for name, parameter in network.named_parameters()}
    assert len(rest) + len(kernels) == len(names)
    assert {names[kernel].rpartition(".conv.")[0].split(".")[0] for kernel in kernels} == {"banks"}
    assert len(kernels) == 3 * 2 * SIZES["blocks"]
