"""Repainting where torch is not installed: every import of it fails, in a process of its own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ENVIRONMENT, ROOT, picture, run
from PIL import Image

import fast_nst
from fast_nst import weights
from fast_nst.commands import infer_choice
from fast_nst.errors import UserError
from fast_nst.stylize import choice
from fast_nst.stylize.onnx import OnnxNetwork

HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "pytorch_lightning", "hydra", "omegaconf"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The working folder: photo.jpg, photo.png with transparency, mask.png, in/ with three pictures, styles.onnx."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(HIDE)
    picture(1, 60, 80).save(tmp_path / "photo.jpg")
    transparent = picture(2, 50, 40)
    transparent.putalpha(Image.linear_gradient("L").resize(transparent.size))
    transparent.save(tmp_path / "photo.png")
    Image.linear_gradient("L").resize((80, 60)).save(tmp_path / "mask.png")
    (tmp_path / "in").mkdir()
    for index in range(3):
        picture(index, 30, 40 + 10 * (index == 2)).save(tmp_path / "in" / f"{index}.png")
    shutil.copy(choice.BUNDLED_ONNX, tmp_path)
    shutil.copy(choice.BUNDLED, tmp_path)
    return tmp_path


def without_torch(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    paths = f"{folder / 'hidden'}:{ROOT}"
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env={**ENVIRONMENT, "PYTHONPATH": paths}, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip


def command(folder: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return without_torch(folder, str(ROOT / "scripts" / f"{name}.py"), *words)


def difference(first: Path, second: Path) -> int:
    a, b = (np.asarray(Image.open(path)).astype(int) for path in (first, second))
    assert a.shape == b.shape
    return int(np.abs(a - b).max())


@pytest.mark.parametrize(
    "words",
    [
        ["photo.png", "--style", "cubist:0.7,ink_wash:0.3", "--strength", "1.3", "--depth", "16", "-o", "{}.png"],
        ["photo.jpg", "--style", "cubist", "--keep-colors", "--size", "64", "-o", "{}.jpg", "--quality", "100"],
        ["photo.jpg", "--style", "cubist", "--keep-colors", "statistics", "--depth", "16", "-o", "{}.tif"],
        ["photo.jpg", "--style", "cubist", "--mask", "mask.png", "--outside", "ink_wash", "-o", "{}.png"],
        ["in", "--style", "ink_wash", "--shard", "1/2", "-o", "{}/", "--format", "tif"],
    ],
)
def test_an_onnx_file_paints_as_torch_does(folder, words):
    said = {}
    for name, start in (("torch", run), ("onnx", None)):
        given = [word.format(name) for word in words]
        if start is None:
            result = command(folder, "infer", "styles.onnx", *given)
        else:
            result = run("infer.py", "styles.safetensors", *given, "--precision", "float32", cwd=folder)
        assert result.returncode == 0, result.stderr
        said[name] = (result.stdout + result.stderr.split("\r")[0]).replace("torch", "onnx")
    assert said["torch"].splitlines()[0] == said["onnx"].splitlines()[0]
    if words[0] == "in":
        made = sorted(path.name for path in (folder / "onnx").iterdir())
        assert made == ["0.tif", "2.tif"]
        pairs = [(folder / "torch" / name, folder / "onnx" / name) for name in made]
    else:
        suffix = words[words.index("-o") + 1][2:]
        pairs = [(folder / f"torch{suffix}", folder / f"onnx{suffix}")]
    for pair in pairs:
        assert difference(*pair) <= (4 if pair[0].suffix == ".jpg" else 2)


def test_a_bundled_style_paints_by_its_name(folder):
    result = command(folder, "infer", "cubist", "photo.jpg")
    assert (result.returncode, result.stdout) == (0, "photo_cubist.png\n"), result.stderr
    code = "import fast_nst; m = fast_nst.load('cubist'); m('photo.jpg').save('python.png'); print(m)"
    result = without_torch(folder, "-c", code)
    assert result.returncode == 0, result.stderr
    assert "conditional, cpu" in result.stdout
    assert difference(folder / "photo_cubist.png", folder / "python.png") == 0
    listed = command(folder, "infer", "--list")
    assert listed.stdout.split() == choice.bundled_names()
    assert command(folder, "infer", "styles.onnx", "--list").stdout == listed.stdout
    wrong = command(folder, "infer", "cubism", "photo.jpg")
    assert (wrong.returncode, wrong.stderr) == (2, run("infer.py", "cubism", "photo.jpg", cwd=folder).stderr)


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("train", ["style=cubist"], 'train needs torch: pip install "fast-nst[train]"'),
        ("export", ["--help"], 'export needs torch: pip install "fast-nst[train]"'),
        ("infer", ["styles.safetensors", "photo.jpg"], 'styles.safetensors needs torch: pip install "fast-nst[train]"'),
        ("infer", ["none.safetensors", "photo.jpg"], "none.safetensors: no such file"),
        ("infer", ["cubist", "photo.jpg", "--device", "cuda"], 'needs torch: pip install "fast-nst[train]"'),
        ("infer", ["cubist", "large.png", "--max-memory", "0.5"], "allowed without torch: up to --size "),
        ("infer", ["styles.onnx", "photo.jpg"], "style: this network has several; choose one or mix: "),
        ("infer", ["styles.onnx:cubist", "photo.jpg", "--strength", "3"], "strength: got 3.0; allowed: a number"),
        ("infer", ["styles.onnx:cubist", "photo.jpg", "--device", "cuda"], "--device: got cuda; an .onnx file runs on"),
        ("infer", ["foreign.onnx", "photo.jpg"], "foreign.onnx: damaged, or not an ONNX file"),
        ("infer", ["cubist", "moving.gif"], "moving.gif: clips and animations need torch"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line(folder, name, words, message):
    (folder / "foreign.onnx").write_bytes(b"no network")
    Image.new("RGB", (1500, 1600)).save(folder / "large.png")
    picture(1).save(folder / "moving.gif", save_all=True, append_images=[picture(2)])
    result = command(folder, name, *words)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert message in result.stderr
    assert result.stderr.startswith("error: ")


def test_python_says_what_to_install(folder):
    for call in ("load('styles.safetensors')", "train('cubist')"):
        result = without_torch(folder, "-c", f"import fast_nst; fast_nst.{call}")
        assert 'needs torch: pip install "fast-nst[train]"' in result.stderr.splitlines()[-1]
        assert "UserError" in result.stderr


def test_a_bundled_style_on_a_processor_imports_no_torch(folder):
    code = (
        "import sys; sys.argv = ['infer.py', 'cubist', 'photo.jpg', '--device', 'cpu']\n"
        "from fast_nst.commands import infer; infer.main(); print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["photo_cubist.png", "False"]


def test_torch_paints_what_onnxruntime_cannot(folder, monkeypatch):
    """An animation, a photograph beyond the memory, many pixels in bfloat16; in a bundled style, if both are there."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["infer.py", "cubist", "photo.jpg"])
    from fast_nst.commands import infer

    arguments = infer.parse()
    arguments.device = "cpu"
    chosen = infer_choice.load_choice(arguments)
    assert isinstance(chosen.networks[0], OnnxNetwork)
    picture(1).save("moving.gif", save_all=True, append_images=[picture(2)])
    still, moving = (Path("photo.jpg"), Path("a.png")), (Path("moving.gif"), Path("a.gif"))
    for fast, pairs, memory, expected in (
        (False, [still], 2**30, False), (False, [still, moving], 2**30, True), (False, [still], 2**16, True),
        (True, [still], 2**30, False), (True, [still] * 2000, 2**30, True), (False, [still] * 2000, 2**30, False),
    ):  # fmt: skip
        monkeypatch.setattr("fast_nst.machine.has_fast_bfloat16", lambda fast=fast: fast)
        assert infer_choice.needs_torch(chosen, pairs, arguments, memory) is expected
    arguments.weights = "styles.onnx:cubist"  # has no network in torch
    assert not infer_choice.needs_torch(chosen, [moving], arguments, 2**16)
    result = run("infer.py", "cubist", "moving.gif", "--device", "cpu", cwd=folder)
    assert (result.returncode, result.stdout) == (0, "moving_cubist.gif\n"), result.stderr


@torch.no_grad()
def test_the_bundled_onnx_file_is_the_bundled_network():
    """If this fails: python scripts/export.py fast_nst/assets/styles.safetensors -o fast_nst/assets/styles.onnx"""
    network, description = weights.load(choice.BUNDLED)
    onnx = OnnxNetwork.load(choice.BUNDLED_ONNX)
    assert onnx.description == description
    assert choice.BUNDLED_ONNX.stat().st_size < 1_500_000
    for sides in ((7, 30), (61, 90)):
        content = torch.rand(2, 3, *sides)
        style = torch.rand(onnx.num_styles)
        expected = network(content, style.expand(2, -1)).clamp(0, 1).numpy()
        assert np.abs(onnx.select(style.numpy())(content.numpy()) - expected).max() < 2 / 255


def test_a_model_of_an_onnx_file_takes_every_kind_of_image(folder):
    model = fast_nst.load(folder / "styles.onnx:cubist")
    photo = Image.open(folder / "photo.jpg")
    expected = np.asarray(model(photo))
    np.testing.assert_array_equal(model(np.asarray(photo)), expected)
    tensor = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255
    painted = (model(tensor, mask=folder / "mask.png", size=40)).numpy()
    assert painted.shape == (1, 3, 30, 40)
    np.testing.assert_allclose(model(tensor)[0].permute(1, 2, 0).numpy() * 255, expected, atol=0.51)
    np.testing.assert_array_equal(np.asarray(model(photo, strength=0)), np.asarray(photo))
    masked = np.asarray(model(photo, mask=folder / "mask.png")).astype(int)
    assert np.abs(masked - photo)[0].max() <= 4 < np.abs(masked - photo)[-1].max()
    with pytest.raises(UserError, match=r"device: got cuda; an \.onnx file runs on the processor"):
        fast_nst.load(folder / "styles.onnx", device="cuda")


def test_another_onnx_file_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(choice.BUNDLED_ONNX)
    for kept, message in (([], "not one that fast-nst export wrote"), (model.metadata_props[:], "cannot be read")):
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
        if kept:
            model.metadata_props[0].value = json.dumps({"format_version": 1})
        onnx.save(model, tmp_path / "a.onnx")
        with pytest.raises(weights.WeightsError, match=message):
            fast_nst.load(tmp_path / "a.onnx")
