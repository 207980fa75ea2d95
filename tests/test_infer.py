"""infer.py on folders, through the real command."""

import errno
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, picture, run, started, wait_until
from PIL import Image

from fast_nst import networks, weights
from fast_nst.commands import cli, infer
from fast_nst.stylize.files import stylize_file
from fast_nst.stylize.options import Options

NETWORK = {"name": "slim", "width": 8, "blocks": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The working folder: a.safetensors, a network of the style "a", and seven photographs in in/."""
    weights.save(tmp_path / "a.safetensors", networks.build(**NETWORK), {"network": NETWORK, "style": {"names": ["a"]}})
    (tmp_path / "in" / "below").mkdir(parents=True)
    for index in range(7):
        picture(index).save(tmp_path / "in" / ("below" if index == 6 else "") / f"{index}.png")
    return tmp_path


def outputs(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_folder_broken_off_is_continued(folder):
    (folder / "out").mkdir()
    for name in ("0.png", "3.png"):
        (folder / "out" / name).write_bytes(b"of an earlier call")
    command = ["infer.py", "a.safetensors", "in", "-o", "out/"]
    result = run(*command, cwd=folder)
    assert (result.returncode, "and 1 more: exists already" in result.stderr) == (2, True)
    result = run(*command, "--skip-existing", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "--skip-existing: left out 2 of 7 photographs\n" in result.stderr
    assert "5 of 5 photographs stylized" in result.stdout
    assert (folder / "out" / "3.png").read_bytes() == b"of an earlier call"
    result = run(*command, "--skip-existing", cwd=folder)
    assert (result.returncode, "left out 7 of 7 photographs" in result.stderr) == (0, True)
    (folder / "in" / "5.png").write_bytes(b"broken")
    (folder / "out" / "5.png").unlink()
    result = run(*command, "--skip-existing", cwd=folder)  # the exit code and the line of several photographs
    assert (result.returncode, result.stdout) == (1, "0 of 1 photographs stylized, into out\n")
    assert run(*command, "--skip-existing", "--overwrite", cwd=folder).returncode == 2


def test_shards_are_the_parts_of_a_folder(folder):
    names = []
    for index in range(1, 4):
        target = f"out {index}/"
        result = run("infer.py", "a.safetensors", "in", "-o", target, "--shard", f"{index}/3", cwd=folder)
        assert result.returncode == 0, result.stderr
        names.append(outputs(folder / target))
        assert f"--shard {index}/3: {len(names[-1])} of 7 photographs\n" in result.stderr
    assert sorted(name for part in names for name in part) == [f"{index}.png" for index in range(7)]
    assert [len(part) for part in names] == [3, 2, 2]
    result = run("infer.py", "a.safetensors", "in", "-o", "none/", "--shard", "9/9", cwd=folder)
    assert (result.returncode, (folder / "none").exists()) == (0, False)
    for wrong in ("0/3", "4/3", "3"):
        result = run("infer.py", "a.safetensors", "in", "--shard", wrong, cwd=folder)
        assert (result.returncode, f"--shard: got '{wrong}'; allowed: 1/N to N/N" in result.stderr) == (2, True)


@pytest.mark.parametrize("name", ["jpg", "webp", "tif"])
def test_outputs_have_the_format_asked_for_and_are_left_out_later(folder, name):
    result = run("infer.py", "a.safetensors", "in", "--format", name, cwd=folder)
    assert result.returncode == 0, result.stderr
    made = list((folder / "in").rglob(f"*_a.{name}"))
    assert len(made) == 7
    (folder / "b.safetensors").write_bytes((folder / "a.safetensors").read_bytes())
    for path in made[1:]:
        path.rename(path.with_name(path.name.replace("_a.", "_b.")))  # outputs of another style
    result = run("infer.py", "a.safetensors", "in", "-o", "out/", cwd=folder)
    assert "7 of 7 photographs stylized" in result.stdout, result.stderr


def test_quality_and_its_limits(folder):
    sizes = []
    for quality in ("20", "100"):
        command = ["infer.py", "a.safetensors", "in/0.png", "--format", "jpg", "--quality", quality, "--overwrite"]
        assert run(*command, cwd=folder).returncode == 0
        sizes.append((folder / "in" / "0_a.jpg").stat().st_size)
    assert sizes[0] < sizes[1] / 2
    for options, message in (
        (["--quality", "0", "--format", "jpg"], "--quality: got 0; allowed: an integer from 1 to 100"),
        (["--quality", "50"], "0_a.png: has no quality setting; leave it out, or give a .jpg or .webp"),
        (["--depth", "16", "--format", "jpg"], "--depth: got 16 for in/0_a.jpg; allowed: 8, or a .png or .tif"),
        (["--format", "jpg", "-o", "x.png"], "--format: got jpg for x.png"),
    ):
        result = run("infer.py", "a.safetensors", "in/0.png", *options, "--overwrite", cwd=folder)
        assert (result.returncode, message in result.stderr) == (2, True), result.stderr


@pytest.mark.parametrize("memory", [[], ["--max-memory", "0.01"]])
def test_16_bits_come_from_the_float_output(folder, memory):
    """The upper 8 of 16 bits are those of the 8-bit output."""
    picture(8, 90, 110).save(folder / "large.png")
    pixels = []
    for depth in ("8", "16"):
        command = ["infer.py", "a.safetensors", "large.png", "-o", f"{depth}.png", "--precision", "float32"]
        result = run(*command, "--depth", depth, *memory, cwd=folder)
        assert result.returncode == 0, result.stderr
        pixels.append(np.asarray(Image.open(folder / f"{depth}.png")).astype(int))  # Pillow reads the upper 8 bits
    assert np.abs(pixels[0] - pixels[1]).max() <= 1
    raw = (folder / "16.png").read_bytes()
    assert (raw[24], raw[25]) == (16, 2)  # bits, RGB


def test_other_files_and_animations_are_said(folder):
    frames = [picture(index) for index in range(3)]
    frames[0].save(folder / "in" / "moving.gif", save_all=True, append_images=frames[1:])
    for name in ("a.MOV", "b.CR2", ".DS_Store", "._c.png"):
        (folder / "in" / name).write_bytes(b"")
    (folder / "elsewhere").mkdir()
    picture(9).save(folder / "elsewhere" / "linked.jpg")
    (folder / "in" / "link").symlink_to(folder / "elsewhere")
    result = run("infer.py", "a.safetensors", "in", "-o", "out/", "--format", "jpg", cwd=folder)
    assert result.returncode == 0, result.stderr
    notes = [line for line in result.stderr.splitlines() if "photo/s" not in line and line.strip()]
    assert notes == [
        "in: left out 1 RAW photograph (.CR2): export as JPEG or TIFF; "
        "1 video (.MOV): paint each with infer.py, or extract its frames with ffmpeg",
        "in/moving.gif: several frames or pages; only the first one is stylized",
    ]
    assert (folder / "out" / "link" / "linked.jpg").exists()
    assert "9 of 9 photographs stylized" in result.stdout


def test_small_pictures_in_batches_equal_one_by_one(folder):
    (folder / "small").mkdir()
    for index in range(9):
        source = picture(index, 32, 32 if index < 6 else 20)
        turned = source.getexif()
        turned[0x0112] = 6 if index == 2 else 1
        source.save(folder / "small" / f"{index}.jpg", exif=turned)
    transparent = picture(9, 32, 32)
    transparent.putalpha(Image.new("L", (32, 32), 99))
    transparent.save(folder / "small" / "9.png")
    (folder / "small" / "bad.jpg").write_bytes((folder / "small" / "1.jpg").read_bytes()[:400])
    options = ["--precision", "float32", "--keep-colors", "statistics"]
    result = run("infer.py", "a.safetensors", "small", "-o", "out/", *options, cwd=folder)
    assert result.returncode == 1
    assert result.stderr.count("error: small/bad.jpg: damaged picture") == 1
    assert "10 of 11 photographs stylized" in result.stdout
    network = weights.load(folder / "a.safetensors")[0]
    for path in sorted((folder / "out").iterdir()):
        source = next((folder / "small").glob(f"{path.stem}.*"))
        stylize_file(network, source, folder / "one.png", Options(keep_colors="statistics"))
        alone, batched = (np.asarray(Image.open(file)).astype(int) for file in (folder / "one.png", path))
        assert alone.shape == batched.shape
        assert np.abs(alone - batched).max() <= 1


def test_small_pictures_share_a_batch(folder, monkeypatch):
    batches = []
    forward = networks.Slim.forward
    monkeypatch.setattr(
        networks.Slim, "forward", lambda self, x, *rest: (batches.append(len(x)), forward(self, x, *rest))[1]
    )
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["infer.py", "a.safetensors", "in", "-o", "out/", "--device", "cpu"])
    monkeypatch.setattr(infer, "keep_freed_memory", lambda huge_pages: None)
    assert infer.main() == 0
    assert batches == [7]


def test_a_full_disk_ends_a_folder_with_one_line(folder, monkeypatch, capsys):
    for index in range(7):
        picture(index, 300, 300).save(folder / "in" / f"{index}.png")  # too large for batches
    mkstemp, made = tempfile.mkstemp, []

    def fill(*arguments: object, **options: object) -> object:
        made.append(1)
        if len(made) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return mkstemp(*arguments, **options)

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["infer.py", "a.safetensors", "in", "-o", "out/", "--device", "cpu"])
    monkeypatch.setattr(infer, "keep_freed_memory", lambda huge_pages: None)
    monkeypatch.setattr("fast_nst.atomic.tempfile.mkstemp", fill)
    with pytest.raises(SystemExit) as caught:
        cli.run(infer.main)
    lines = [line for line in capsys.readouterr().err.splitlines() if "photo/s" not in line and line.strip()]
    assert caught.value.code == 2
    assert len(lines) == 1
    assert lines[0].endswith(
        "cannot be written (No space left on device); 2 of 8 photographs are stylized; continue with --skip-existing"
    )
    assert len(outputs(folder / "out")) == 2


def test_a_read_only_folder_is_one_line(folder):
    """On a real read-only file system, where this machine lets a test mount one."""
    (folder / "out").mkdir()
    command = [sys.executable, str(ROOT / "scripts" / "infer.py"), "a.safetensors", "in", "-o", "out/new/"]
    mount = 'mount --bind out out && mount -o remount,ro,bind out || exit 99; exec "$@"'
    if shutil.which("unshare") is None:
        pytest.skip("no unshare")
    result = subprocess.run(
        ["unshare", "-rm", "bash", "-c", mount, "bash", *command], cwd=folder, env=ENVIRONMENT, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip
    if result.returncode in (1, 99):
        pytest.skip("no mount")
    assert result.returncode == 2
    assert result.stderr == "error: out/new/0.png: cannot be written (Read-only file system)\n"


def test_ctrl_c_says_how_far_it_came(folder):
    for index in range(60):
        picture(index % 7, 300, 300).save(folder / "in" / f"more {index}.png")
    with started(
        "infer.py", "a.safetensors", "in", "-o", "out/", cwd=folder,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    ) as process:  # fmt: skip
        wait_until(lambda: (folder / "out").exists() and outputs(folder / "out"), process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    count = len(outputs(folder / "out"))
    line = f"interrupted: {count} of 67 photographs are stylized; continue with --skip-existing"
    assert errors.splitlines()[-1] == line
    assert 0 < count < 67
