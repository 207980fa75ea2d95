"""Super-resolution: the network, its loss and its data; training and enlarging through the real commands."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import RECIPE, little_compact, picture, run, started, wait_until
from PIL import Image
from torch import nn

from fast_nst import image, networks, weights
from fast_nst.commands import evaluate_enlarged
from fast_nst.data.dataset import ContentImages, random_box
from fast_nst.data.shrunk import ShrunkImages
from fast_nst.errors import UserError
from fast_nst.loss_networks import compact
from fast_nst.losses.restoration import RestorationLoss
from fast_nst.methods.super_resolution import Restoration
from fast_nst.networks.super_resolution import enlarge, shrink
from fast_nst.stylize.enlarge import enlarge_picture
from fast_nst.stylize.files import stylize_file
from fast_nst.stylize.image import stylize_tensor
from fast_nst.stylize.options import Options
from fast_nst.training import resume


def network(scale: int = 4, **arguments: int) -> networks.Network:
    """A small network that has learned something, namely noise."""
    built = networks.build("super_resolution", scale=scale, **{"width": 8, "blocks": 2, **arguments}).eval()
    nn.init.normal_(built.last.conv.weight, std=0.3)
    return built


def pixels(name_or_picture) -> np.ndarray:
    return np.asarray(image.open_picture(name_or_picture).rgb if isinstance(name_or_picture, Path) else name_or_picture)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (5, 3), (20, 31)])
def test_the_output_is_larger_by_the_scale(scale, size):
    assert network(scale)(torch.rand(2, 3, *size)).shape == (2, 3, scale * size[0], scale * size[1])


def test_a_new_network_is_bicubic_interpolation_as_pillow_has_it():
    small = picture(1, 24, 32)
    content = image.to_tensor(small)
    output = networks.build("super_resolution", scale=4, width=8, blocks=1)(content)
    torch.testing.assert_close(output, enlarge(content, 4), rtol=0, atol=1e-6)
    theirs = pixels(small.resize((128, 96), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(pixels(image.to_pillow(output)).astype(int) - theirs).max() <= 2


def test_shrinking_blurs_and_then_interpolates():
    """Against a slow Gaussian blur of each pixel, and Pillow's bicubic interpolation of floats."""
    large = np.random.default_rng(0).random((12, 16))
    padded, blurred = np.pad(large, 3, mode="reflect"), np.zeros_like(large)
    weight = np.exp(-0.5 * np.arange(-3, 4) ** 2.0)
    weight /= weight.sum()
    for y in range(12):
        for x in range(16):
            blurred[y, x] = weight @ padded[y : y + 7, x : x + 7] @ weight
    expected = Image.fromarray(blurred.astype(np.float32)).resize((4, 3), Image.Resampling.BICUBIC)
    found = shrink(torch.from_numpy(large).float().expand(1, 3, -1, -1), 4)
    assert found.shape == (1, 3, 3, 4)
    np.testing.assert_allclose(found[0, 1], np.asarray(expected), atol=1e-5)


@pytest.mark.parametrize("keep_colors", [None, "chroma", "statistics"])
@pytest.mark.parametrize("strip", [1, 13, 40])
def test_strips_equal_the_whole(strip, keep_colors):
    built, content = network(scale=4), picture(2, 40, 24)
    whole = stylize_tensor(built, image.to_tensor(content), 0.7, keep_colors)
    shares: list[float] = []
    strips = enlarge_picture(built, content, strip, 0.7, keep_colors, on_progress=shares.append)
    difference = np.abs(pixels(strips).astype(int) - pixels(image.to_pillow(whole)).astype(int))
    assert difference.max() <= 1
    assert shares == sorted(shares)
    assert shares[-1] == 1
    deep = enlarge_picture(built, content, strip, 0.7, keep_colors, depth=16)
    assert np.abs(deep.astype(int) - image.to_deep(whole).astype(int)).max() <= 3


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_no_row_beyond_the_reach_matters(scale):
    built = network(scale, blocks=1).double()
    content = torch.rand(1, 3, 40, 3, dtype=torch.float64, requires_grad=True)
    built.pixels = "unit"
    y = built.last(built.up(built.blocks(built.first(content))))  # without the interpolation, which is float32
    (gradient,) = torch.autograd.grad(y[:, :, 20 * scale : 21 * scale].sum(), content)
    touched = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
    assert 20 - built.reach <= touched.min()
    assert touched.max() <= 20 + built.reach


def test_the_loss_is_what_it_says():
    loss_network = little_compact()
    loss_network.select_layers(["relu2_2"])
    output, target = torch.rand(2, 2, 3, 16, 16)
    terms = RestorationLoss(loss_network, 2.0, 3.0)(output, target)
    found, wanted = (loss_network(x)["relu2_2"].double() for x in (output, target))
    ratios = [((a - b) ** 2).mean() / (b**2).mean() for a, b in zip(found, wanted, strict=True)]
    assert float(terms["feature"]) == pytest.approx(float(sum(ratios)) / 2, rel=1e-5)
    assert float(terms["pixel"]) == pytest.approx(float(((output - target) ** 2).mean()), rel=1e-5)
    assert float(terms["loss"]) == pytest.approx(2 * float(terms["feature"]) + 3 * float(terms["pixel"]), rel=1e-5)
    assert set(RestorationLoss(loss_network, 0.0, 1.0)(output, target)) == {"loss", "pixel"}
    with pytest.raises(UserError, match="one above 0"):
        RestorationLoss(loss_network, 0.0, 0.0)


def test_a_batch_has_a_small_image_and_its_original():
    source = [picture(index) for index in range(3)]
    pairs = ShrunkImages(ContentImages(source, [0, 1, 2], 32, "random"), 4)
    pair = pairs[4]
    assert (pair["content"].shape, pair["target"].shape) == ((3, 8, 8), (3, 32, 32))
    torch.testing.assert_close(pair["content"], shrink(pair["target"][None], 4)[0])
    assert torch.equal(pairs[4]["content"], pair["content"])  # by its position only


def test_a_random_crop_is_not_resized_and_lies_anywhere():
    rng = np.random.default_rng(0)
    boxes = [random_box(rng, 40, 30, 20) for _ in range(300)]
    assert {(box[2] - box[0], box[3] - box[1]) for box in boxes} == {(20, 20)}
    assert ({box[0] for box in boxes}, {box[1] for box in boxes}) == (set(range(21)), set(range(11)))
    assert random_box(rng, 12, 30, 20)[2] == 12  # of a smaller image, the largest square


def test_training_comes_closer_to_the_original_than_bicubic_interpolation():
    target = image.to_tensor(picture(3, 64, 64))
    target[:, :, ::8] = 0  # lines, which interpolation blurs
    content, loss_network = shrink(target, 4), little_compact()
    loss_network.select_layers(["relu2_2"])
    built = networks.build("super_resolution", scale=4, width=16, blocks=1)
    module = Restoration(built, RestorationLoss(loss_network), "adam", 3e-3, "constant", 0, 100)
    optimizer = module.configure_optimizers()["optimizer"]
    losses = []
    for _ in range(30):
        terms = module.terms({"content": content, "target": target})
        losses.append(float(terms["loss"].detach()))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]  # the first is that of bicubic interpolation


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("enlarge")
    (folder / "photographs").mkdir()
    for index in range(6):
        picture(index, 80, 96).save(folder / "photographs" / f"{index}.png")
    compact.save(folder / "tiny.safetensors", little_compact(), RECIPE)
    return folder


def words(steps: int = 3) -> list[str]:
    return [
        "experiment=super_resolution", "loss_network.weights=tiny.safetensors", "data=folder", "data.root=photographs",
        "data.size=64", "data.val_size=64", "data.batch_size=2", "network.width=8", "network.blocks=1",
        f"trainer.max_steps={steps}", "checkpoint.every_n_steps=2", "trainer.accelerator=cpu", "data.workers=0",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(work: Path) -> Path:
    result = run("train.py", *words(), "output_dir=run", cwd=work)
    assert result.returncode == 0, result.stderr
    return work / "run" / "super_resolution_x4.safetensors"


def test_a_run_leaves_its_files(trained):
    description = weights.describe(trained)
    assert description["network"] == {"name": "super_resolution", "scale": 4, "width": 8, "blocks": 1}
    assert set(description["held_out_losses"]) == {"loss", "feature"}
    assert image.read_size(trained.parent / "preview.png")[0] == 3 * (64 + 4) - 4


def test_infer_enlarges_and_keeps_transparency(work, trained):
    small = picture(7, 30, 44).convert("RGBA")
    small.putalpha(Image.linear_gradient("L").resize((44, 30)))
    small.save(work / "small.png")
    result = run("infer.py", trained, "small.png", "--precision", "float32", cwd=work)
    assert result.returncode == 0, result.stderr
    output = Image.open(work / "small_super_resolution_x4.png")
    assert (output.size, output.mode) == ((176, 120), "RGBA")
    expected = stylize_tensor(weights.load(trained)[0], image.to_tensor(image.open_picture(work / "small.png").rgb))
    difference = pixels(output.convert("RGB")).astype(int) - pixels(image.to_pillow(expected)).astype(int)
    assert np.abs(difference).max() <= 1
    alpha = np.asarray(output.getchannel("A")).astype(int)
    assert alpha[0].mean() < 5
    assert alpha[-1].mean() > 250


@pytest.mark.parametrize("depth", [8, 16])
def test_a_gray_photograph_stays_gray(work, trained, depth):
    picture(6, 40, 30).convert("L").save(work / "gray.png")
    result = run("infer.py", trained, "gray.png", "-o", "large.png", "--overwrite", "--depth", depth, cwd=work)
    assert result.returncode == 0, result.stderr
    assert np.ptp(pixels(work / "large.png").astype(int), axis=2).max() == 0


def test_short_memory_gives_the_same_picture(work, trained):
    picture(8, 700, 90).save(work / "tall.png")
    for name, more in (("whole", []), ("strips", ["--max-memory", "0.001"])):
        options = ["-o", f"{name}.png", "--precision", "float32", "--keep-colors", "statistics"]
        result = run("infer.py", trained, "tall.png", *options, *more, cwd=work)
        if more:  # what the process has already is more than that
            assert result.returncode == 2
            assert "2800 pixels do not fit within --max-memory 0.001" in result.stderr
            continue
        assert result.returncode == 0, result.stderr
    built = weights.load(trained)[0]
    options = Options(keep_colors="statistics", memory=5 * 360 * 2800 + 2**20)
    stylize_file(built, work / "tall.png", work / "strips.png", options)
    difference = pixels(work / "strips.png").astype(int) - pixels(work / "whole.png").astype(int)
    assert np.abs(difference).max() <= 1


def test_python_enlarges_too(trained):
    import fast_nst

    model = fast_nst.load(trained, device="cpu")
    assert model(picture(1, 20, 30)).size == (120, 80)
    assert model(torch.rand(2, 3, 9, 7), strength=0.5).shape == (2, 3, 36, 28)
    with pytest.raises(UserError, match="mask"):
        model.stylize(picture(1), mask=picture(1).convert("L"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mask", "photographs/0.png"], "--mask: is for networks that paint"),
        (["--style", "cubist"], "this network has no styles"),
        (["--strength", "1.5"], "strength: got 1.5; allowed: a number from 0 to 1"),
    ],
)
def test_options_of_painting_are_refused_in_one_line(work, trained, options, message):
    result = run("infer.py", trained, "photographs/0.png", "-o", "refused.png", *options, cwd=work)
    assert (result.returncode, len(result.stderr.strip().splitlines())) == (2, 1)
    assert message in result.stderr
    assert not (work / "refused.png").exists()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("network.scale=3", "network.scale: got 3; allowed: 2, 4, 8"),
        ("network.width=6", "network.width: got 6; allowed with scale 4: a multiple of 4"),
        ("data.size=66", "data.size: got 66; allowed: a multiple of network.scale, 4"),
        ("network=slim", "network: got slim; allowed with method=super_resolution: super_resolution"),
        ("method.feature_weight=0", "allowed: at least one above 0"),
        ("method.layer=relu9_9", "relu9_9"),
        ("style=cubist", "style: method=super_resolution does not use it"),
        ("loss.style_weight=3", "loss.style_weight: method=super_resolution does not use it"),
    ],
)
def test_bad_settings_are_one_line(work, word, message):
    given = [item for item in words() if not (word.startswith("network=") and item.startswith("network."))]
    result = run("train.py", *given, word, "output_dir=bad", cwd=work)
    assert (result.returncode, len(result.stderr.strip().splitlines())) == (2, 1), result.stderr
    assert message in result.stderr


def test_evaluate_compares_with_bicubic_interpolation(work, trained):
    result = run(
        "evaluate.py", trained, "--content", "photographs", "--images", 2, "--json", "scores.json",
        "--sheet", "scores.png", "--overwrite", cwd=work,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["bicubic", str(trained)]
    assert all(name in lines[1] for name in ("PSNR", "SSIM", "feature loss", "sharpness"))
    assert image.read_size(work / "scores.png")[0] == 3 * 260 - 4
    for option, value in (("--sizes", 64), ("--style", "painting.png")):
        result = run("evaluate.py", trained, "--content", "photographs", option, value, cwd=work)
        assert result.returncode == 2
        assert result.stderr == f"error: {option}: is for networks that paint; these enlarge\n"


def test_scores_are_those_of_the_formulas():
    loss_network = little_compact()
    loss_network.select_layers(["relu2_2"])
    a, b = torch.rand(2, 1, 3, 32, 32)
    scores = evaluate_enlarged.compare(a, b, 4, RestorationLoss(loss_network))
    gray = [(0.299 * x[0, 0] + 0.587 * x[0, 1] + 0.114 * x[0, 2])[4:-4, 4:-4].numpy() for x in (a, b)]
    assert scores["PSNR"] == pytest.approx(-10 * np.log10(((gray[0] - gray[1]) ** 2).mean()), rel=1e-4)
    steep = [np.abs(np.diff(x, axis=0)).mean() + np.abs(np.diff(x, axis=1)).mean() for x in gray]
    assert scores["sharpness"] == pytest.approx(steep[0] / steep[1], rel=1e-4)
    same = evaluate_enlarged.compare(a, a, 4, RestorationLoss(loss_network))
    assert (same["SSIM"], same["feature loss"], same["sharpness"]) == (pytest.approx(1), 0, pytest.approx(1))


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_file(work):
    settings = words(40)
    result = run("train.py", *settings, "output_dir=unbroken", cwd=work)
    assert result.returncode == 0, result.stderr
    checkpoint = work / "killed" / "checkpoints" / "last.ckpt"
    with started("train.py", *settings, "output_dir=killed", cwd=work) as process:
        wait_until(lambda: checkpoint.exists() and resume.read(checkpoint)["step"] >= 4, process)
    assert not (work / "killed" / "super_resolution_x4.safetensors").exists()
    result = run("train.py", *settings, "output_dir=killed", "ckpt_path=auto", cwd=work)
    assert result.returncode == 0, result.stderr
    ours, theirs = ((work / name / "super_resolution_x4.safetensors").read_bytes() for name in ("killed", "unbroken"))
    assert ours == theirs
