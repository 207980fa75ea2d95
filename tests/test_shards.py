"""Tar shards as content images."""

import io
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from conftest import ENVIRONMENT, picture, run, small

from fast_nst import data
from fast_nst.data import shards
from fast_nst.errors import UserError
from fast_nst.listing import UnreadablePictureWarning

SIZES = (3, 1, 4)  # unequal


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tars").mkdir()
    number = 0
    for index, size in enumerate(SIZES):
        with tarfile.open(tmp_path / "tars" / f"part-{index:03d}.tar", "w") as archive:
            for _ in range(size):
                add(archive, f"a/{number:05d}.json", b"{}")
                add(archive, f"a/{number:05d}.png", png(number))
                add(archive, f"a/{number:05d}.seg.png", png(99))  # another picture of the same sample
                number += 1
    return tmp_path / "tars"


def test_each_sample_is_read_once_in_order(folder, tmp_path):
    for root in (folder, folder / "part-*.tar", folder / "part-{000..002}.tar", f"file://{folder}/part-*.tar"):
        images = shards.Shards(root, 64, index_dir=tmp_path / "index")
        assert len(images) == sum(SIZES)
        for number in range(len(images)):
            assert np.array_equal(np.asarray(images[number]), np.asarray(picture(number)))


def test_index_is_cached_until_the_shard_changes(folder, tmp_path):
    index = tmp_path / "index"
    shards.Shards(folder, 64, index_dir=index)
    cached = {path: path.stat().st_mtime_ns for path in index.iterdir()}
    assert len(cached) == len(SIZES)
    shards.Shards(folder, 64, index_dir=index)
    assert {path: path.stat().st_mtime_ns for path in index.iterdir()} == cached
    with tarfile.open(folder / "part-001.tar", "w") as archive:
        add(archive, "x.png", png(50))
        add(archive, "y.png", png(51))
    assert len(shards.Shards(folder, 64, index_dir=index)) == sum(SIZES) + 1


def test_fsspec_url_is_read(folder, tmp_path):
    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe_file(f"/shards/{path.name}", path.read_bytes())
    for root in ("memory://shards/part-*.tar", "memory://shards/part-{000..002}.tar"):
        images = shards.Shards(root, 64, index_dir=tmp_path / "index")
        assert len(images) == sum(SIZES)
        assert np.array_equal(np.asarray(images[7]), np.asarray(picture(7)))


def test_processes_see_each_sample_once_an_epoch(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    crops = {"size": 32, "crop": "center", "scale": (0.25, 1.0), "ratio": (0.8, 1.25), "val_size": 32, "seed": 0}
    sets = data.build("shards", root=folder, val_images=1, **crops)
    samplers = [iter(data.dataset.StepSampler(1, rank=rank, world=7)) for rank in range(7)]
    seen = [sets.train[next(sampler)[0]].numpy().tobytes() for sampler in samplers]
    assert len(set(seen)) == len(sets.train) == 7


def test_damaged_picture_warns_and_damaged_shard_raises(folder, tmp_path):
    with tarfile.open(folder / "part-003.tar", "w") as archive:
        add(archive, "bad.jpg", b"no picture")
    images = shards.Shards(folder, 64, index_dir=tmp_path / "index")
    with pytest.warns(
        UnreadablePictureWarning, match=r"1 of 9 content images.*part-003.tar at byte 512: not a picture"
    ):
        assert images[8] is None
    (folder / "part-004.tar").write_bytes(b"no tar file at all" * 100)
    with pytest.raises(UserError, match=r"part-004.tar: cannot read the tar shard"):
        shards.Shards(folder, 64, index_dir=tmp_path / "index")


@pytest.mark.parametrize(
    ("root", "message"),
    [("nowhere", "no such shard"), ("x-{a..b}.tar", "is not a range"), ("abc://x.tar", "cannot read the tar shard")],
)
def test_missing_shards_raise(tmp_path, monkeypatch, root, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        shards.Shards(root, 64, index_dir=tmp_path / "index")


def test_training_runs_on_shards(folder, workplace, monkeypatch, tmp_path):
    monkeypatch.setitem(ENVIRONMENT, "XDG_CACHE_HOME", str(tmp_path))
    result = run(
        "train.py", *small(workplace), "data=shards", f"data.root={folder}", "data.workers=2", "trainer.max_steps=9",
        f"output_dir={tmp_path / 'run'}", cwd=workplace,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "7 content images" in result.stderr
