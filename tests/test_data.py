import gzip
import os
import pickle
import struct
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SHARED, picture
from PIL import Image

from fast_nst import data, image
from fast_nst.data import datamodule, dataset, folder, styles
from fast_nst.data.mnist import Mnist
from fast_nst.errors import UserError
from fast_nst.listing import UnreadablePictureWarning

CROPS = {"size": 32, "crop": "random_resized", "scale": (0.25, 1.0), "ratio": (0.8, 1.25), "val_images": 2,
         "val_size": 48, "seed": 0}  # fmt: skip


def test_crop_depends_only_on_seed_and_position(photographs):
    first, second = (data.build("folder", root=photographs, **CROPS).train for _ in range(2))
    assert torch.equal(first[5], second[5])
    again = pickle.loads(pickle.dumps(second))
    assert torch.equal(first[40], again[40])
    assert not torch.equal(first[5], first[5 + len(first)])  # another epoch, another crop
    other = data.build("folder", root=photographs, **{**CROPS, "seed": 1}).train
    assert not torch.equal(first[5], other[5])
    assert first[5].shape == (3, 32, 32)
    assert first[5].dtype == torch.float32


def test_each_epoch_has_each_picture_once():
    class Source:
        def __len__(self):
            return 7

        def __getitem__(self, index):
            return Image.new("RGB", (20, 20), (index, 0, 0))

    images = dataset.ContentImages(Source(), list(range(7)), 16)
    for epoch in range(3):
        seen = [round(float(images[7 * epoch + i][0, 0, 0]) * 255) for i in range(7)]
        assert sorted(seen) == list(range(7))


def test_training_and_validation_sets_are_disjoint(photographs):
    sets = data.build("folder", root=photographs, **{**CROPS, "val_images": 16})
    assert len(sets.train) == 7  # at most a fifth of eight are held out
    assert not set(sets.train.indices) & set(sets.val.indices)
    assert sets.val[0].shape == (3, 48, 48)
    assert torch.equal(sets.val[0], sets.val[0 + len(sets.val)])


def test_single_photograph_is_in_both_sets(tmp_path):
    picture(0).save(tmp_path / "only.png")
    sets = data.build("folder", root=tmp_path, **CROPS)
    assert (len(sets.train), len(sets.val)) == (1, 1)


def test_random_box_has_the_requested_area_and_ratio():
    rng = np.random.default_rng(0)
    boxes = [dataset.random_resized_box(rng, 300, 200, (0.2, 0.5), (0.5, 2.0)) for _ in range(500)]
    shares = [(r - l) * (b - t) / 60000 for l, t, r, b in boxes]  # noqa: E741
    ratios = [(r - l) / (b - t) for l, t, r, b in boxes]  # noqa: E741
    assert 0.19 < min(shares) < 0.22 < 0.45 < max(shares) < 0.51
    assert 0.49 < min(ratios) < 0.6 < 1.5 < max(ratios) < 2.01
    assert all(l >= 0 and t >= 0 and r <= 300.001 and b <= 200.001 for l, t, r, b in boxes)  # noqa: E741


def test_box_that_cannot_fit_is_centered():
    left, top, right, bottom = dataset.random_resized_box(np.random.default_rng(0), 1000, 10, (0.9, 1.0), (0.8, 1.25))
    assert (right - left) / (bottom - top) == pytest.approx(1.25)
    assert left + right == pytest.approx(1000)


def test_center_crop_equals_resizing_and_cropping(photographs):
    source = folder.Folder(photographs, 1000)
    crop = dataset.ContentImages(source, [0], 24, crop="center", shuffle=False)[0]
    expected = image.to_tensor(image.resize_shorter(source[0], 24))[0][:, :, 4:28]
    assert (crop - expected).abs().max() < 0.02


def test_two_processes_see_the_same_batches_as_one():
    one = iter(dataset.StepSampler(4))
    two = [iter(dataset.StepSampler(2, rank=rank, world=2)) for rank in range(2)]
    for _ in range(5):
        assert next(one) == [*next(two[0]), *next(two[1])]
    later = iter(dataset.StepSampler(4, first=5))
    assert next(later) == next(one)


def test_unreadable_picture_is_skipped_with_one_warning(photographs):
    (photographs / "broken.jpg").write_bytes(b"no picture")
    (photographs / "notes.txt").write_text("ignored")
    images = dataset.ContentImages(folder.Folder(photographs, 64), list(range(9)), 32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for position in range(27):
            assert images[position].shape == (3, 32, 32)
    assert len(caught) == 1
    assert "broken.jpg" in str(caught[0].message)


def test_too_many_unreadable_pictures_raise(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(image.ImageError, match=r"1 of 1 content images cannot be read, more than max_unreadable"):
        dataset.ContentImages(folder.Folder(tmp_path, 64), [0], 32)[0]
    images = dataset.ContentImages(folder.Folder(tmp_path, 64, max_unreadable=1), [0], 32)
    with pytest.warns(UnreadablePictureWarning), pytest.raises(image.ImageError, match="none of the content"):
        images[0]


def test_validation_set_is_readable(photographs):
    settings = {**CROPS, "val_images": 1}
    paths = folder.list_pictures(photographs)
    first = paths[data.build("folder", root=photographs, **settings).val.indices[0]]
    first.write_bytes(b"no picture")
    with pytest.warns(UnreadablePictureWarning):
        sets = data.build("folder", root=photographs, **settings)
    assert sets.val[0].shape == (3, 48, 48)
    assert paths.index(first) not in {*sets.train.indices, *sets.val.indices}
    assert len(sets.train) == 6


def test_single_readable_photograph_is_in_both_sets(tmp_path):
    picture(0).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.warns(UnreadablePictureWarning):
        sets = data.build("folder", root=tmp_path, **CROPS)
    assert sets.train.indices == sets.val.indices == [0]


def test_locked_folder_warns_or_raises(photographs, monkeypatch):
    scandir = os.scandir

    def locked(path):
        if str(path).endswith(name):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    name = "below"
    errors = []
    assert len(folder.list_pictures(photographs, "INPUT", errors.append)) == 7
    assert [error.filename for error in errors] == [str(photographs / "below")]
    with pytest.warns(UnreadablePictureWarning, match="below: Permission denied"):
        folder.list_pictures(photographs)
    name = "photographs"
    with pytest.raises(image.ImageError, match=r"data\.root: .*photographs: cannot be opened \(Permission denied\)"):
        folder.list_pictures(photographs)


def test_other_files_are_counted_by_kind_in_one_line(photographs):
    for file in ("a.MOV", "b.mp4", "c.CR2", "d.psd", "below/e.pdf", ".DS_Store", "._a.mov", "Thumbs.db", "desktop.ini"):
        (photographs / file).write_bytes(b"")
    with pytest.warns(UnreadablePictureWarning) as warned:
        assert len(folder.list_pictures(photographs)) == 8
    assert [str(warning.message) for warning in warned] == [
        f"{photographs}: left out 2 videos (.MOV, .mp4): paint each with infer.py, or extract its frames with ffmpeg; "
        "1 PDF (.pdf): export as JPEG or PNG; 1 Photoshop file (.psd): export as JPEG or PNG; "
        "1 RAW photograph (.CR2): export as JPEG or TIFF"
    ]


def test_links_to_folders_are_followed_once(photographs, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    picture(9).save(elsewhere / "linked.png")
    (elsewhere / "back").symlink_to(photographs)
    (photographs / "a link").symlink_to(elsewhere)
    (photographs / "again").symlink_to(photographs / "below")
    (photographs / "below" / "loop").symlink_to(photographs)
    paths = [str(path.relative_to(photographs)) for path in folder.list_pictures(photographs)]
    assert paths == ["a link/linked.png", "below/photo 7.png", *(f"photo {index}.png" for index in range(7))]


def test_unusable_folder_raises(tmp_path, photographs):
    (tmp_path / "empty").mkdir()
    for root, message in ((tmp_path / "none", "no such folder"), (tmp_path / "empty", "holds no picture"),
                          (photographs / "photo 0.png", "is a file"), (None, "data.root=DIR")):  # fmt: skip
        with pytest.raises(image.ImageError, match=message):
            data.build("folder", root=root, **CROPS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 8}, "data.size: got 8"),
        ({"size": 32.5}, "data.size: got 32.5"),
        ({"crop": "round"}, "data.crop: got 'round'; allowed: random_resized, random, center"),
        ({"scale": (0.5, 0.2)}, "data.scale"),
        ({"scale": 0.5}, "data.scale"),
        ({"ratio": ["a", "b"]}, "data.ratio"),
        ({"ratio": (0, 1)}, "data.ratio"),
        ({"val_images": 0}, "data.val_images"),
    ],
)
def test_wrong_value_raises_with_its_key(photographs, change, message):
    with pytest.raises(UserError, match=message):
        data.build("folder", root=photographs, **{**CROPS, **change})


def test_mnist_digits_are_rgb(tmp_path):
    """In torchvision's file layout, with three made-up digits."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    digits = np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28)
    for part in ("train", "t10k"):
        with gzip.open(raw / f"{part}-images-idx3-ubyte.gz", "wb") as file:
            file.write(struct.pack(">IIII", 2051, 3, 28, 28) + digits.tobytes())
        with gzip.open(raw / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(struct.pack(">II", 2049, 3) + bytes(3))
        for name in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            (raw / f"{part}-{name}").write_bytes(gzip.decompress((raw / f"{part}-{name}.gz").read_bytes()))
    sets = data.build("mnist", root=tmp_path, **{**CROPS, "crop": "center", "size": 28})
    assert len(sets.train) + len(sets.val) == 3
    digit = sets.train.source[1]
    assert digit.mode == "RGB"
    assert np.array_equal(np.asarray(digit)[..., 2], digits[1])


@pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason="needs the real digits")
def test_real_digits_are_read_without_a_download(monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", None)
    train, test = (Mnist(SHARED / "mnist", train) for train in (True, False))
    assert set(train.labels) == set(test.labels) == set(range(10))
    assert train[len(train) - 1].size == (28, 28)


def test_synthetic_source_needs_no_files():
    sets = data.build("synthetic", count=3, **CROPS)
    assert sets.train[0].shape == (3, 32, 32)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_drawing_loader_draws_the_images_of_all_steps(monkeypatch):
    sets = data.build("synthetic", count=12, **CROPS)
    images = content_data(sets, first=1, steps=4)
    assert len(list(images.drawing())) == 6 + 2
    assert len(images.drawing()) == 0
    assert len(content_data(sets, 0, 10**6).drawing()) == 4
    assert len(content_data(sets, 0, 2, rank=0, world=2).drawing()) == 2  # positions 0, 1, 4 and 5
    assert len(content_data(sets, 0, 2, rank=1, world=2).drawing()) == 0  # 2, 3, 6 and 7
    assert content_data(sets, 0, 4, device="cuda").drawing() is None
    monkeypatch.setattr("fast_nst.data.synthetic.photographs.draw", None)  # nothing is drawn here
    for position in range(2, 8):
        assert sets.train[position].shape == (3, 32, 32)
    assert sets.val[1].shape == (3, 48, 48)
    with pytest.raises(TypeError):
        sets.train[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_predrawn_images_use_no_workers(photographs):
    sets = data.build("synthetic", count=12, **CROPS)
    assert content_data(sets, 0, 4, workers="auto").train_dataloader().num_workers == 0
    assert content_data(sets, 0, 4, workers="auto", device="cuda").train_dataloader().num_workers > 0
    assert content_data(sets, 0, 4).train_dataloader().num_workers == 1
    read = data.build("folder", root=photographs, **CROPS)
    assert content_data(read, 0, 4, workers="auto").train_dataloader().num_workers > 0


def test_folder_has_no_drawing_loader(photographs):
    assert content_data(data.build("folder", root=photographs, **CROPS), 0, 10).drawing() is None


def content_data(sets, first, steps, rank=0, world=1, device="cpu", workers=1):
    """Return the data module of a trainer at step `first`."""
    images = datamodule.ContentData(sets, batch_size=2, workers=workers)
    images.trainer = SimpleNamespace(
        global_step=first, max_steps=steps, global_rank=rank, world_size=world, num_devices=1,
        strategy=SimpleNamespace(root_device=torch.device(device)),
    )  # fmt: skip
    return images


def test_style_image_is_resized_and_checked(tmp_path):
    picture(0, 120, 160).save(tmp_path / "a.png")
    assert styles.load(tmp_path / "a.png", 60).shape == (1, 3, 60, 80)
    assert styles.load(tmp_path / "a.png", 80, "longer").shape == (1, 3, 60, 80)
    assert styles.load(tmp_path / "a.png", None).shape == (1, 3, 120, 160)
    picture(0, 8, 8).save(tmp_path / "tiny.png")
    with pytest.raises(image.ImageError, match="too few"):
        styles.load(tmp_path / "tiny.png", None)
    Image.new("RGB", (64, 64), (90, 80, 70)).save(tmp_path / "flat.png")
    with pytest.raises(image.ImageError, match="has a single color"):
        styles.load(tmp_path / "flat.png")


def test_bundled_style_is_found_by_name():
    assert styles.find("bundled:starry_night.jpg").is_file()
    with pytest.raises(image.ImageError, match=r"bundled:starry_night\.jpg"):
        styles.find("bundled:mona_lisa.jpg")
