"""File names as people have them, on the real command line: each character stands for itself."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, ROOT, picture, run, small

from fast_nst.commands.paths import assign, expand, parse, quote_path

NAMES = [
    "Gemälde.jpg", "星空.jpg", "wave (1).jpg", "a=b.jpg", "#1.jpg", "100%.jpg", "Q&A.jpg", "[HD].jpg", "don't.jpg",
    "$5.jpg", r"C:\new\table.jpg", "a, b.jpg", "2024", "1e5", "{x}.jpg", "two  blanks.jpg", r"end\\'.jpg", "true",
]  # fmt: skip


@pytest.fixture(scope="module")
def named(workplace: Path) -> Path:
    folder = workplace / "named"
    folder.mkdir()
    for name in [*NAMES, "D:\\my photos\\"]:
        picture(100, 64, 64).save(folder / name, "PNG")
    small(folder)
    return folder


def read(cwd: Path, *words: str) -> str:
    """The last line of train.py, which stops at `data.workers` once it has read the style images."""
    result = run("train.py", "loss_network.weights=tiny.safetensors", *words, "data.workers=foo", cwd=cwd)
    assert result.returncode == 2, result.stderr
    return result.stderr.strip()


@pytest.mark.parametrize("name", NAMES)
def test_a_style_image_is_found_under_any_name(named, name):
    assert read(named, f"style.image={name}").startswith("error: data.workers: got 'foo'")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("true", "two  blanks.jpg")])
def test_a_missing_style_image_is_reported_under_its_name(workplace, name):
    (workplace / "nothing").mkdir(exist_ok=True)
    small(workplace / "nothing")
    error = read(workplace / "nothing", f"style.image={name}")
    assert error.startswith(f"error: {name}: no such file")


def test_quotes_that_windows_leaves_around_a_name_are_taken_off(named):
    assert read(named, "style.image='D:\\my photos\\'").startswith("error: data.workers")
    assert read(named, 'style.image="wave (1).jpg"').startswith("error: data.workers")


def test_lists_series_and_blends_take_any_name(named):
    two = "[Gemälde.jpg,wave (1).jpg]"
    assert read(named, f"style.image={two}", "network=conditional").startswith("error: data.workers")
    assert read(named, "style.image=100%.jpg", "style.blend={Gemälde.jpg: 0.5}").startswith("error: data.workers")
    assert read(named, "style.image=100%.jpg", "style.blend={ä: [").startswith("error: style.blend: got {ä: [;")
    result = run("train.py", "-m", "style.image=Gemälde.jpg,none (1).jpg", "data.workers=foo", cwd=named)
    assert "data.workers" in result.stderr
    assert "none (1).jpg: no such file" in result.stderr


@pytest.mark.slow
def test_home_and_variables_in_every_path_of_every_command(named, trained):
    weights = trained[0] / "my painting.safetensors"
    environment = {**ENVIRONMENT, "HOME": str(named), "PLACE": str(named)}
    shutil.copy(weights, named / "w.safetensors")
    (named / "photos").mkdir()
    picture(1).save(named / "photos" / "photo.png")

    def call(script: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "scripts" / script), *words]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    for a, b, c in (("~", "$PLACE", "${PLACE}"), ("${PLACE}", "~", "$PLACE")):
        result = call(
            "train.py", f"style.image={a}/100%.jpg", f"loss_network.weights={b}/tiny.safetensors",
            "data=folder", f"init_from={c}/w.safetensors", "network.width=8", "network.blocks=1",
            f"data.root={a}/photos", f"output_dir={b}/new", "data.workers=foo",
            f"style.blend={{{b}/Gemälde.jpg: 1}}",
        )  # fmt: skip
        assert result.stderr.startswith("error: data.workers"), result.stderr
    result = call("infer.py", "~/w.safetensors", "$PLACE/photos/photo.png", "--output=~/out.png")
    assert result.stdout.strip() == str(named / "out.png"), result.stderr
    for script, words in {
        "evaluate.py": ["~/w.safetensors", "--content=~/photos", "--style=~/none.jpg"],
        "sheet.py": ["~/none.jpg", "--weights", "~/w.safetensors", "-o", "~/sheet.png"],
        "optimize.py": ["content=~/none.jpg"],
    }.items():
        assert f"{named}/none.jpg: no such file" in call(script, *words).stderr


def test_a_name_survives_hydra_and_the_command_that_resumes():
    for name in (*NAMES, "D:\\my photos\\", "a\\'b", "\\'", "ends\\"):
        word = assign("style.image", name)
        assert quote_path(word) == word  # a process that Lightning starts reads it again
        assert parse(word).value() == name


def test_a_file_wins_over_an_expansion(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert expand("$HOME/x") == "/home/me/x"
    assert expand("~/x") == os.path.join("/home/me", "x")
    (tmp_path / "$HOME").touch()
    assert expand("$HOME") == "$HOME"
