"""Several styles in one network: choosing, mixing, adding, strength, masks."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture, run, small
from PIL import Image

import fast_nst
from fast_nst import networks, weights
from fast_nst.errors import UserError
from fast_nst.networks.styles import replace, select, tables
from fast_nst.stylize.choice import brush_weights, choose, style_weights

SIZES = {"width": 8, "blocks": 2, "fine_noise": 0.1}


@pytest.fixture
def network() -> networks.Slim:
    """A network of three styles whose tables differ in every row."""
    network = networks.build("conditional", num_styles=3, **SIZES).eval()
    for table in tables(network).values():
        torch.nn.init.normal_(table, 0.5, 0.3)
    return network


@pytest.fixture(scope="module")
def two_styles(workplace: Path) -> Path:
    """The weights file of a run of two styles."""
    for seed, name in ((100, "first"), (101, "second")):
        picture(seed, 64, 64).save(workplace / f"{name}.png")
    train(workplace, "style=[first.png,second.png]", "output_dir=two", "init_from=null")
    return workplace / "two" / "2_styles.safetensors"


def train(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    result = run("train.py", *small(folder), *overrides, cwd=folder)
    assert result.returncode == 0, result.stderr
    return result


def repaint(folder: Path, *arguments: object) -> np.ndarray:
    result = run("infer.py", *arguments, "-o", "painted.png", "--overwrite", cwd=folder)
    assert result.returncode == 0, result.stderr
    return np.asarray(Image.open(folder / "painted.png"))


@torch.no_grad()
def test_each_item_of_a_batch_gets_its_own_style(network):
    content, style = torch.rand(3, 3, 40, 36), torch.tensor([[1.0, 0, 0], [0, 0.3, 0.9], [0, 0, 0]])
    together = network(content, style)
    for item in range(3):
        alone = select(network, style[item]).eval()
        assert not tables(alone)
        torch.testing.assert_close(together[item : item + 1], alone(content[item : item + 1]), rtol=0, atol=1e-5)
    assert (together[0] - network(content[:1], style[1:2])[0]).abs().max() > 0.01


@torch.no_grad()
def test_gradients_of_a_batch_are_those_of_its_items(network):
    network.train().to(memory_format=torch.channels_last)
    content = torch.rand(2, 3, 40, 36).contiguous(memory_format=torch.channels_last)
    style = torch.tensor([[1.0, 0, 0], [0, 0.5, 1.0]])
    for module in network.modules():
        if hasattr(module, "shift"):
            module.shift = torch.zeros(2, dtype=torch.long)

    def gradients(rows: slice) -> list[torch.Tensor]:
        with torch.enable_grad():
            return list(torch.autograd.grad(network(content[rows], style[rows]).square().sum(), network.parameters()))

    for both, first, second in zip(*map(gradients, (slice(None), slice(0, 1), slice(1, 2))), strict=True):
        torch.testing.assert_close(both, first + second, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_kept_styles_are_bit_identical_and_dropped_ones_gone(network):
    content = torch.rand(1, 3, 40, 36)
    larger, smaller = replace(network, [0, 1, 2], 2), replace(network, [2], 0)
    assert (larger.num_styles, smaller.num_styles) == (5, 1)
    before = network(content, torch.tensor([[0.0, 0, 1]]))
    assert torch.equal(larger(content, torch.tensor([[0.0, 0, 1, 0, 0]])), before)
    assert torch.equal(smaller(content, torch.ones(1, 1)), before)


def test_a_style_is_chosen_by_name_or_by_weights():
    names = ["a", "b:c", "d"]
    assert style_weights(names, "b:c:3,a").tolist() == [0.25, 0.75, 0]
    assert style_weights(names, {"d": 0.2}).tolist() == [0, 0, 1]
    assert style_weights(["a"], None).tolist() == [1]
    for style in (None, "e", "a:0", "a:-1", "a:nan", "a:x", "", "a,a", {"a": "b"}):
        with pytest.raises(UserError, match="style"):
            style_weights(names, style)


def test_strength_is_trained_up_to_two_and_faded_elsewhere(network):
    several, one = {"style": {"names": ["a", "b", "c"]}}, {"style": {"names": ["a"]}}
    assert choose(network, several, "a", 0)[1] == 0
    assert choose(network, several, "a", 2)[1] == 1
    with pytest.raises(UserError, match="strength"):
        choose(network, several, "a", 2.1)
    plain = networks.build("slim", **SIZES)
    assert choose(plain, one, None, 0.3) == (plain, 0.3)
    with pytest.raises(UserError, match="strength"):
        choose(plain, one, None, 1.1)


def test_a_brush_is_a_mixture_of_the_sizes_next_to_it():
    assert brush_weights([256, 512, 1024], 1).tolist() == [1, 0, 0]
    assert brush_weights([256, 512, 1024], 2).tolist() == [0, 1, 0]
    np.testing.assert_allclose(brush_weights([256, 512, 1024], 8**0.5), [0, 0.5, 0.5], atol=1e-6)
    for sizes, brush in (([256], 2), ([256, 512], 0.9), ([256, 512], 2.1), ([256, 512], float("nan"))):
        with pytest.raises(UserError, match="brush"):
            brush_weights(sizes, brush)


@torch.no_grad()
def test_a_painting_of_several_sizes_is_several_styles(network):
    described = {"style": {"names": ["a"], "sizes": [256, 512, 1024]}}
    content = torch.rand(1, 3, 40, 36)
    chosen = choose(network, described, "a", brush=2)[0].eval()
    torch.testing.assert_close(chosen(content), network(content, torch.eye(3)[1:2]), rtol=0, atol=1e-5)


def test_a_run_of_two_styles_paints_each_and_mixtures(two_styles):
    folder = two_styles.parents[1]
    assert weights.describe(two_styles)["style"]["names"] == ["first", "second"]
    photo = next((folder / "photographs").iterdir())
    outputs = [repaint(folder, two_styles, photo, "--style", style) for style in ("first", "second", "first,second:2")]
    assert not np.array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2])
    assert run("infer.py", "--list", two_styles, cwd=folder).stdout.split() == ["first", "second"]
    model = fast_nst.load(two_styles)
    assert model.styles == ["first", "second"]
    difference = np.asarray(model(photo, style={"first": 1, "second": 2})).astype(int) - outputs[2]
    assert np.abs(difference).max() <= 1
    assert np.array_equal(repaint(folder, two_styles, photo, "--style", "first", "--strength", 0), Image.open(photo))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "choose one or mix: first, second"),
        (["--style", "third"], "allowed: first, second"),
        (["--style", "first:0"], "one must be positive"),
        (["--style", "first", "--strength", "3"], "strength: got 3"),
        (["--style", "first", "--mask", "none.png"], "none.png: no such file"),
        (["--style", "first", "--mask", "my painting.png"], "mask: got 64x64 pixels; allowed: the size of "),
        (["--style", "first", "--outside", "second"], "--outside"),
        (["--style", "first:0.5,first:0.5"], "got first twice"),
    ],
)
def test_wrong_choices_are_one_line(two_styles, arguments, message):
    folder = two_styles.parents[1]
    photo = next((folder / "photographs").iterdir())
    result = run("infer.py", two_styles, photo, "-o", "never.png", *arguments, cwd=folder)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert message in result.stderr
    assert not (folder / "never.png").exists()


def test_a_mask_keeps_the_photograph_or_another_style_outside(two_styles):
    folder = two_styles.parents[1]
    photo = next((folder / "photographs").iterdir())
    mask = np.zeros((48, 64), np.uint8)
    mask[:, 24:40], mask[:, 40:] = 128, 255
    Image.fromarray(mask).save(folder / "mask.png")
    first, second = (repaint(folder, two_styles, photo, "--style", name) for name in ("first", "second"))
    masked = repaint(folder, two_styles, photo, "--style", "first", "--mask", "mask.png")
    assert np.array_equal(masked[:, :24], np.asarray(Image.open(photo))[:, :24])
    assert np.array_equal(masked[:, 40:], first[:, 40:])
    both = repaint(folder, two_styles, photo, "--style", "first", "--mask", "mask.png", "--outside", "second")
    assert np.array_equal(both[:, :24], second[:, :24])
    middle = (first[:, 24:40].astype(float) * 128 + second[:, 24:40] * 127.0) / 255
    assert np.abs(both[:, 24:40] - middle).max() <= 1
    shape = Image.new("RGBA", (64, 48), "white")
    shape.putalpha(Image.fromarray(mask))
    shape.save(folder / "shape.png")
    shaped = repaint(folder, two_styles, photo, "--style", "first", "--mask", "shape.png")
    assert np.array_equal(shaped[:, :24], masked[:, :24])
    assert np.array_equal(shaped[:, 40:], masked[:, 40:])
    model = fast_nst.load(two_styles)
    again = np.asarray(model(photo, style="first", mask=folder / "mask.png"))
    assert np.abs(again.astype(int) - masked).max() <= 1
    assert np.array_equal(again[:, :24], masked[:, :24])
    for given in (mask, Image.fromarray(mask), shape):
        same = np.asarray(model(photo, style="first", mask=given))
        assert np.array_equal(same[:, :24], again[:, :24])
        assert np.array_equal(same[:, 40:], again[:, 40:])
    again = np.asarray(model(photo, style="first", mask=mask, outside="second"))
    assert np.abs(again.astype(int) - both).max() <= 1


def test_adding_a_style_leaves_the_others_bit_identical(two_styles):
    folder = two_styles.parents[1]
    picture(102, 64, 64).save(folder / "third.png")
    result = train(folder, "style.image=third.png", f"init_from={two_styles}", "output_dir=three")
    assert result.stdout.strip().endswith("three/third.safetensors PHOTOGRAPH --style third")
    (before, _), (after, described) = (weights.load(f) for f in (two_styles, folder / "three" / "third.safetensors"))
    assert described["style"]["names"] == ["first", "second", "third"]
    content = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        for index in range(2):
            old, new = (torch.eye(count)[index : index + 1] for count in (2, 3))
            assert torch.equal(before(content, old), after(content, new))
        third = after(content, torch.eye(3)[2:])
        mean = replace(before, [], 1)(content, torch.ones(1, 1))
    assert not torch.equal(third, mean)  # it has learned


def test_two_phases_train_the_shared_layers_in_the_second_only(two_styles):
    folder = two_styles.parents[1]
    picture(102, 64, 64).save(folder / "third.png")
    shared = {}
    for share, name in ((0.5, "two_phases"), (1.0, "one_phase")):
        train(
            folder, "style.image=third.png", f"init_from={two_styles}", "method=transfer",
            f"method.first_phase={share}", f"output_dir={name}",
        )  # fmt: skip
        state = weights.load(folder / name / "third.safetensors")[0].state_dict()
        shared[name] = state["down.0.conv.weight"]
    before = weights.load(two_styles)[0].state_dict()["down.0.conv.weight"]
    assert torch.equal(shared["one_phase"], before)
    assert not torch.equal(shared["two_phases"], before)
    assert weights.describe(folder / "two_phases" / "third.safetensors")["style"]["names"] == ["third"]


def test_a_style_of_a_file_has_a_name_for_every_command(two_styles):
    folder = two_styles.parents[1]
    photo = next((folder / "photographs").iterdir())
    assert np.array_equal(
        repaint(folder, f"{two_styles}:second", photo), repaint(folder, two_styles, photo, "--style", "second")
    )
    assert np.array_equal(
        repaint(folder, f"{two_styles}:first:1,second:2", photo),
        repaint(folder, two_styles, photo, "--style", "first:1,second:2"),
    )
    result = run(
        "sheet.py", photo, "--weights", two_styles, f"{two_styles}:first", "-o", "s.png", "--size", 32, cwd=folder
    )
    assert result.returncode == 0, result.stderr
    with Image.open(folder / "s.png") as sheet:
        assert sheet.width == 4 * 32 + 3 * 4  # the photograph, both styles, one again
    with pytest.raises(UserError, match="allowed: first, second"):
        fast_nst.load(f"{two_styles}:third")
