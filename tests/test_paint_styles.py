"""The bundled style images and the programs that painted them."""

from types import ModuleType

import numpy as np
import pytest
from conftest import ROOT
from omegaconf import OmegaConf
from PIL import Image

STYLES = ROOT / "fast_nst" / "assets" / "styles"


@pytest.fixture
def paintings(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts" / "assets")
    import painting

    return painting


def test_bundled_images_are_large_but_small_files():
    paths = sorted(STYLES.glob("*.jpg"))
    assert len(paths) == 7
    for path in paths:
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode) == ("JPEG", "RGB"), path
            assert max(image.size) >= 768, path
    assert sum(path.stat().st_size for path in paths) < 2_500_000


def test_every_painting_has_an_image_and_a_config(paintings):
    assert sorted(paintings.PAINTINGS) == sorted(path.stem for path in STYLES.glob("*.jpg"))
    for name in paintings.PAINTINGS:
        config = OmegaConf.load(ROOT / "configs" / "style" / f"{name}.yaml")
        assert config.image == f"bundled:{name}.jpg"


def test_noise_depends_only_on_its_seed(paintings):
    def field(seed: int) -> np.ndarray:
        return paintings.fields.noise(np.random.default_rng(seed), (48, 64), (6, 20))

    assert field(1).shape == (48, 64)
    assert np.array_equal(field(1), field(1))
    assert not np.array_equal(field(1), field(2))


def test_strokes_depend_only_on_their_seed(paintings):
    def canvas(seed: int):
        strokes, rng = paintings.strokes, np.random.default_rng(seed)
        canvas = strokes.Canvas.primed((48, 64), (200, 180, 160))
        start = strokes.scatter(rng, 60, np.ones(canvas.shape, np.float32))
        paths = strokes.straight(start, np.full(len(start), 20.0), rng.uniform(0.0, np.pi, len(start)), 0.5)
        strokes.lay(canvas, rng, paths, np.full(len(start), 6.0), rng.random((len(start), 3)), dryness=0.3)
        return canvas

    first, again, other = canvas(1), canvas(1), canvas(2)
    assert first.thickness.max() > 0.0
    assert np.array_equal(first.color, again.color)
    assert np.array_equal(first.thickness, again.thickness)
    assert not np.array_equal(first.color, other.color)
