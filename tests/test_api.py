"""fast_nst from Python: load, call, train."""

import ctypes
import json
import re
import resource
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, picture, small
from PIL import Image

import fast_nst
from fast_nst import image
from fast_nst.errors import UserError


@pytest.fixture(scope="module")
def model(trained):
    return fast_nst.load(trained[0] / "my painting.safetensors", device="cpu")


def test_every_kind_of_image_comes_back_as_the_same_kind(model, tmp_path):
    photo = picture(3)
    photo.save(tmp_path / "photo.png")
    output = model(photo)
    assert isinstance(output, Image.Image)
    assert output.size == photo.size
    expected = np.asarray(output)
    np.testing.assert_array_equal(np.asarray(model(str(tmp_path / "photo.png"))), expected)
    np.testing.assert_array_equal(model(np.asarray(photo)), expected)
    tensor = model(image.to_tensor(photo))
    np.testing.assert_array_equal(np.asarray(image.to_pillow(tensor)), expected)
    assert np.abs(expected.astype(int) - np.asarray(photo)).mean() > 2


def test_a_pillow_image_is_read_as_its_file(model, tmp_path):
    """Upright, and transparent parts white."""
    photo = picture(3).convert("RGBA")
    photo.putalpha(Image.linear_gradient("L").resize(photo.size))
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "photo.png", exif=exif)
    with Image.open(tmp_path / "photo.png") as opened:
        outputs = model(opened, strength=0.5), model.stylize(tmp_path / "photo.png", strength=0.5)
    assert outputs[0].size == (48, 64)
    np.testing.assert_array_equal(*map(np.asarray, outputs))


def test_a_batch_is_its_images(model):
    batch = torch.rand(3, 3, 40, 48)
    outputs = model(batch)
    for content, output in zip(batch, outputs, strict=True):
        torch.testing.assert_close(model(content[None])[0], output, rtol=0, atol=2 / 255)


def test_options_of_stylize(model):
    photo = picture(3)
    assert model.stylize(photo, size=32).size == (32, 24)
    np.testing.assert_array_equal(np.asarray(model.stylize(photo, strength=0)), np.asarray(photo))
    kept = image.to_tensor(model.stylize(photo, keep_colors="chroma"))
    assert (kept - image.to_tensor(model(photo))).abs().mean() > 0.01


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.rand(3, 8, 8), "image: got a tensor"),
        (np.zeros((8, 8, 3)), "image: got an array .* allowed: uint8"),
        (torch.rand(1, 3, 8, 8) * 255, "image: got values from .* allowed: from 0 to 1"),
        (torch.full((1, 3, 8, 8), float("nan")), "image: got values"),
        (7, "image: got int; allowed: a path"),
        ("none.jpg", "none.jpg: no such file"),
    ],
)
def test_wrong_images_raise(model, given, message):
    with pytest.raises(UserError, match=message):
        model(given)


def test_wrong_options_raise(model):
    for name, value in {"strength": 2.5, "keep_colors": "no", "size": 0}.items():
        with pytest.raises(UserError, match=name):
            model.stylize(picture(3), **{name: value})
    with pytest.raises(UserError, match="no such file"):
        fast_nst.load("none.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": 3}, "style: got int; allowed: a name"),
        ({"style": ["a"]}, "style: got list; allowed: a name"),
        ({"style": {"a": "much"}}, "style.a: got 'much'; allowed: a number"),
        ({"brush": "big"}, "brush: got 'big'; allowed: a number"),
        ({"strength": [1]}, r"strength: got \[1\]; allowed: a number"),
        ({"mask": 3}, "mask: got int; allowed: a path"),
        (
            {"mask": np.zeros((48, 64, 3), np.uint8)},
            "mask: got an array .* allowed: uint8, .H, W.",
        ),
        ({"outside": "a"}, "outside: got a style but no mask"),
        ({"mask": np.zeros((48, 64), np.uint8), "outside": 3}, "outside: got int; allowed: a name"),
        ({"size": "big"}, "size: got 'big'; allowed: an integer"),
        ({"keep_colors": True}, "keep_colors: got True; allowed: chroma"),
    ],
)
def test_options_of_a_wrong_type_are_one_line(model, options, message):
    with pytest.raises(UserError, match=message):
        model.stylize(picture(3), **options)


@pytest.mark.parametrize(("name", "kind"), [(None, "NoneType"), (3, "int"), (b"a", "bytes")])
def test_a_name_of_a_wrong_type_is_one_line(name, kind):
    with pytest.raises(UserError, match=f"weights: got {kind}; allowed: a path, or a bundled style's name"):
        fast_nst.load(name)


def test_calls_from_several_threads_agree(model):
    sides = np.random.default_rng(0).integers(20, 90, (12, 2))
    photos = [picture(seed, *map(int, both)) for seed, both in enumerate(sides)]
    alone = [np.asarray(model(photo)) for photo in photos]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda photo: np.asarray(model(photo)), photos))
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell the memory in use in other ways")
def test_many_sizes_take_no_more_memory(model):
    """oneDNN keeps the convolutions of the last 1,024 shapes, some 50 MiB, so the first pictures take more."""
    in_use = []
    for count, (height, width) in enumerate(np.random.default_rng(0).integers(8, 201, (500, 2)), 1):
        model(picture(count, int(height), int(width)))
        if count in (50, 250, 500):
            ctypes.CDLL(None).malloc_trim(0)
            in_use.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20)
    assert in_use[1] < in_use[0] + 80
    assert in_use[2] < in_use[1] + 20


def test_train_returns_a_model_and_leaves_no_trace_in_the_process(workplace, monkeypatch):
    import signal

    monkeypatch.chdir(workplace)
    hooks = sys.excepthook, threading.excepthook, signal.getsignal(signal.SIGINT), Image.MAX_IMAGE_PIXELS
    settings = [word for word in small(workplace) if not word.startswith(("data=", "data.root"))]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    model = fast_nst.train("my painting.png", "photographs", max_steps=2, output_dir="from python", overrides=settings)
    assert model(picture(3)).size == (64, 48)
    assert (workplace / "from python" / "my painting.safetensors").is_file()
    assert torch.equal(torch.get_rng_state(), state)
    assert hooks == (sys.excepthook, threading.excepthook, signal.getsignal(signal.SIGINT), Image.MAX_IMAGE_PIXELS)


def test_train_names_a_wrong_setting(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    with pytest.raises(UserError, match="nowhere: no such file; the bundled styles are cubist"):
        fast_nst.train("nowhere")
    with pytest.raises(UserError, match="allowed: a list of settings"):
        fast_nst.train("my painting.png", overrides="seed=1")
    for override, message in (("loss.stile_weight=3", "unknown key loss.stile_weight"), ("network=none", "none")):
        with pytest.raises(UserError, match=message):
            fast_nst.train("my painting.png", overrides=[override], output_dir="never")


def test_the_python_of_the_readme_runs(trained, workplace, monkeypatch):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len([line for line in block.splitlines() if line]) == 6
    monkeypatch.chdir(workplace)
    shutil.copy(trained[0] / "my painting.safetensors", "starry_night.safetensors")
    picture(1).save("photo.jpg")
    picture(100, 64, 64).save("painting.jpg")
    settings = [*small(workplace), "trainer.max_steps=2"]
    exec(block.replace("max_steps=2000", f"overrides={settings!r}"), {})
    assert {path.name for path in workplace.glob("*.png")} >= {"painted.png", "my_style.png"}


def test_the_notebook_runs(workplace, tmp_path, monkeypatch):
    cells = json.loads((ROOT / "docs" / "quickstart.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    monkeypatch.chdir(tmp_path)
    picture(1).save("photo.jpg")
    picture(100, 64, 64).save("painting.jpg")
    settings = [*small(tmp_path), f"data.root={workplace / 'photographs'}", "trainer.max_steps=2"]
    exec(code.replace("max_steps=2000", f"overrides={settings!r}"), {})
    with Image.open("painted.jpg") as output:
        assert output.size == (1024, 768)
