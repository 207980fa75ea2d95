"""Synthetic photographs: determinism, the pool, and the statistics of natural images."""

import hashlib
import itertools
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from fast_nst.data.synthetic import SyntheticPhotographs, draw, shapes, textures

_SAMPLE = 40


@pytest.fixture(scope="module")
def luminances() -> np.ndarray:
    """(40, 192, 192) luminances in [0, 1] of one pool."""
    pool = SyntheticPhotographs(_SAMPLE, 192, seed=5)
    return np.stack([np.asarray(pool[i].convert("L"), np.float64) / 255 for i in range(_SAMPLE)])


def _pixels(pool: SyntheticPhotographs, index: int) -> np.ndarray:
    return np.asarray(pool[index])


def _spectral_slope(image: np.ndarray) -> float:
    """Return the slope of log power over log frequency: 4 to 64 cycles per image, Hann window."""
    side = image.shape[0]
    window = np.hanning(side)[:, None] * np.hanning(side)
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    frequency = np.fft.fftfreq(side) * side
    radius = np.hypot(frequency[:, None], frequency)
    edges = np.geomspace(4, 64, 9)
    rings = [power[(radius >= low) & (radius < high)].mean() for low, high in itertools.pairwise(edges)]
    return float(np.polyfit(np.log(np.sqrt(edges[:-1] * edges[1:])), np.log(rings), 1)[0])


def _flat_share(image: np.ndarray) -> float:
    """Return the share of 8 x 8 blocks with a standard deviation below 0.02."""
    n = image.shape[0] // 8
    blocks = image[: 8 * n, : 8 * n].reshape(n, 8, n, 8).swapaxes(1, 2).reshape(-1, 64)
    return float((blocks.std(axis=1) < 0.02).mean())


def test_images_are_rgb_of_the_requested_size() -> None:
    pool = SyntheticPhotographs(3, 64)
    assert len(pool) == 3
    assert isinstance(pool[0], Image.Image)
    assert (pool[0].mode, pool[0].size) == ("RGB", (64, 64))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 37), (90, 50), (33, 400), (16, 16)])
def test_draw_supports_any_shape(height: int, width: int) -> None:
    for seed in range(6):
        picture = draw(np.random.default_rng(seed), height, width)
        assert picture.shape == (height, width, 3)
        assert picture.dtype == np.uint8


def test_shadow_outside_the_picture_is_clipped() -> None:
    assert draw(np.random.default_rng((7, 3)), 256, 256).shape == (256, 256, 3)  # has a rock at the left border


def test_image_depends_only_on_seed_and_index() -> None:
    forward, backward = SyntheticPhotographs(4, 64, seed=3), SyntheticPhotographs(9, 64, seed=3)
    first = [_pixels(forward, i) for i in range(4)]
    last = [_pixels(backward, i) for i in reversed(range(4))][::-1]
    for a, b in zip(first, last, strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_process_draws_the_same_image() -> None:
    code = (
        "import hashlib, numpy as np; from fast_nst.data.synthetic import SyntheticPhotographs; "
        "print(hashlib.sha256(np.asarray(SyntheticPhotographs(3, 48, 7)[2]).tobytes()).hexdigest())"
    )
    environment = {"PYTHONHASHSEED": "1", "PYTHONPATH": ":".join(sys.path)}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    here = hashlib.sha256(_pixels(SyntheticPhotographs(3, 48, 7), 2).tobytes()).hexdigest()
    assert there.stdout.strip() == here


def test_indices_and_seeds_give_different_images() -> None:
    pictures = [_pixels(SyntheticPhotographs(3, 48, seed), index).tobytes() for seed in (0, 1) for index in range(3)]
    assert len(set(pictures)) == 6


def test_global_random_state_is_unchanged() -> None:
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    SyntheticPhotographs(1, 48)[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_caller_cannot_change_a_stored_image() -> None:
    pool = SyntheticPhotographs(1, 48)
    taken = pool[0]
    kept = np.array(taken)
    taken.paste((0, 0, 0), (0, 0, 48, 48))
    np.testing.assert_array_equal(_pixels(pool, 0), kept)


def test_pickle_excludes_the_images() -> None:
    pool = SyntheticPhotographs(2, 128)
    empty = len(pickle.dumps(pool))
    kept = _pixels(pool, 1)
    assert len(pickle.dumps(pool)) == empty < 1000
    np.testing.assert_array_equal(_pixels(pickle.loads(pickle.dumps(pool)), 1), kept)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_workers_share_drawn_images(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = SyntheticPhotographs(3, 48)
    loader: DataLoader = DataLoader(pool, None, num_workers=1, multiprocessing_context="fork")  # type: ignore[arg-type]
    there = [np.asarray(picture) for picture in loader]
    monkeypatch.setattr("fast_nst.data.synthetic.photographs.draw", None)  # nothing is drawn here
    for index, picture in enumerate(there):
        np.testing.assert_array_equal(_pixels(pool, index), picture)


def test_pool_larger_than_memory_raises() -> None:
    with pytest.raises(ValueError, match=r"data\.count: got 1000000000000; pictures of 64 x 64 .* take 1.14e\+07 GiB"):
        SyntheticPhotographs(10**12, 64)


@pytest.mark.parametrize("name", ["count", "size"])
@pytest.mark.parametrize("value", [0, -3, 2.5, "8", True, None])
def test_bad_argument_raises_with_its_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{name}.*{value!r}.*1"):
        SyntheticPhotographs(**{name: value})


def test_bad_seed_raises_with_its_name() -> None:
    with pytest.raises(ValueError, match=r"seed.*-1.*0"):
        SyntheticPhotographs(seed=-1)


@pytest.mark.parametrize("index", [-1, 2, 100])
def test_index_out_of_range_raises(index: int) -> None:
    with pytest.raises(IndexError, match=rf"{index}.*0 to 1"):
        SyntheticPhotographs(2, 32)[index]


def test_iteration_ends() -> None:
    assert len(list(SyntheticPhotographs(2, 32))) == 2


def test_spectrum_falls_as_in_photographs(luminances: np.ndarray) -> None:
    # Natural images: power ~ f ** -2 on average (Field 1987), between about -1.2 and -3.3 for a single image.
    slopes = [_spectral_slope(image) for image in luminances]
    assert -2.8 < np.mean(slopes) < -1.8


def test_some_pictures_are_mostly_smooth_and_some_are_busy(luminances: np.ndarray) -> None:
    shares = np.array([_flat_share(image) for image in luminances])
    assert (shares > 0.5).any()
    assert (shares < 0.15).mean() > 0.15


def test_exposure_varies_as_in_photographs(luminances: np.ndarray) -> None:
    means, contrasts = luminances.mean(axis=(1, 2)), luminances.std(axis=(1, 2))
    assert 0.35 < means.mean() < 0.55
    assert 0.05 < means.std() < 0.2
    assert 0.12 < contrasts.mean() < 0.28


def test_sizes_follow_the_inverse_cube() -> None:
    radii = textures.power_law(np.random.default_rng(0), 1.0, 10.0, 20000)
    assert radii.min() >= 1
    assert radii.max() <= 10
    # P(r > 2) for the density ~ r ** -3 on [1, 10] is (2 ** -2 - 10 ** -2) / (1 - 10 ** -2)
    assert (radii > 2).mean() == pytest.approx((0.25 - 0.01) / 0.99, abs=0.01)


def test_noise_has_the_requested_spectrum() -> None:
    noise = textures.spectral_noise(0, 1.0)
    assert abs(noise.mean()) < 1e-3
    assert noise.std() == pytest.approx(1, abs=1e-3)
    assert _spectral_slope(noise) == pytest.approx(-2, abs=0.15)  # amplitude 1/f is power 1/f ** 2


def test_mask_covers_the_area_of_its_shape() -> None:
    placed = shapes.place([shapes.rectangle(-1, -0.5, 1, 0.5)], 30, 20, 10, np.pi / 2)
    image, left, top = shapes.mask(placed, 60, 60)
    area = np.asarray(image, float).sum() / 255
    assert area == pytest.approx(20 * 10, rel=0.1)
    assert left <= 25
    assert top <= 10
    assert shapes.mask(shapes.place(placed, 500, 0, 1), 60, 60) is None
