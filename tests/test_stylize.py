import numpy as np
import pytest
import torch
from conftest import picture
from PIL import Image
from torch import nn

from fast_nst import image, networks, stylize
from fast_nst.errors import UserError
from fast_nst.stylize import tiles
from fast_nst.stylize.color import keep_chroma, keep_statistics, luma
from fast_nst.stylize.sheet import sheet


class Negative(nn.Module):
    """Turns an image into its negative, a little out of range."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.2))

    def forward(self, x):
        return (0.5 - x) * self.scale + 0.5


@pytest.fixture
def photograph():
    return image.to_tensor(picture(3))


def test_strength(photograph):
    full = stylize.stylize_tensor(Negative(), photograph)
    torch.testing.assert_close(full, ((0.5 - photograph) * 1.2 + 0.5).clamp(0, 1))
    assert torch.equal(stylize.stylize_tensor(Negative(), photograph, 0.0), photograph)
    half = stylize.stylize_tensor(Negative(), photograph, 0.5)
    torch.testing.assert_close(half, (full + photograph) / 2)
    with pytest.raises(UserError, match="strength: got 2"):
        stylize.stylize_tensor(Negative(), photograph, 2)


def test_keep_chroma():
    grey, colored = torch.full((1, 3, 4, 4), 0.5), torch.tensor([0.5, 0.4, 0.3])[None, :, None, None].expand(1, 3, 4, 4)
    found = keep_chroma(grey, colored)
    torch.testing.assert_close(luma(found), luma(grey))
    torch.testing.assert_close(found - luma(found), colored - luma(colored))


def test_keep_statistics():
    generator = torch.Generator().manual_seed(0)
    # Far from 0 and 1, so that nothing is clipped.
    a, b = (0.5 + 0.05 * torch.randn(1, 3, 40, 40, generator=generator) for _ in range(2))
    b = b * torch.tensor([1.0, 0.5, 0.2])[:, None, None] + torch.tensor([0.1, 0.0, 0.2])[:, None, None]
    found = keep_statistics(a, b).flatten(2)[0]
    torch.testing.assert_close(found.mean(1), b.flatten(2)[0].mean(1))
    torch.testing.assert_close(torch.cov(found), torch.cov(b.flatten(2)[0]), rtol=1e-2, atol=1e-5)
    torch.testing.assert_close(keep_statistics(a, a), a, rtol=1e-3, atol=1e-3)
    assert keep_statistics(torch.full_like(a, 0.3), b).isfinite().all()


def test_a_file_keeps_its_size_and_its_transparency(tmp_path):
    network = networks.build("slim", width=4).eval()
    source = picture(0, 37, 53)
    source.putalpha(Image.new("L", source.size, 77))
    source.save(tmp_path / "in.png")
    stylize.stylize_file(network, tmp_path / "in.png", tmp_path / "new" / "out.png")
    with Image.open(tmp_path / "new" / "out.png") as result:
        assert result.size == (53, 37)
        assert np.asarray(result.getchannel("A")).max() == 77
    stylize.stylize_file(network, tmp_path / "in.png", tmp_path / "out.jpg", size=20)
    with Image.open(tmp_path / "out.jpg") as result:
        assert result.size == (20, 14)


def test_the_sheet_shows_everything(photograph):
    painting = torch.zeros(1, 3, 60, 90)
    found = sheet(painting, photograph.repeat(2, 1, 1, 1), photograph.repeat(2, 1, 1, 1) * 0.5, gap=4)
    assert found.size == (150 + 2 * 68, 100)
    assert np.array_equal(np.asarray(found)[:48, 154:218], np.asarray(picture(3)))


STRIPPED = [
    ("slim", {"width": 8, "fine_noise": 0.2}),
    ("slim", {"width": 8, "noise": 0.0, "margin": 0}),
    ("johnson", {"filters": [4, 6, 8]}),
    ("johnson", {"filters": [4, 6, 8], "padding": "zero", "upsampling": "transposed", "pixels": "unit",
                 "final_norm": True, "norm_eps": 1e-3}),
    ("johnson", {"filters": [4, 6, 8], "padding": "reflection_once", "upsampling": "transposed", "norm": "batch"}),
    ("johnson", {"filters": [4, 6, 8], "blocks": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), STRIPPED)
@pytest.mark.parametrize("keep_colors", [None, "chroma", "statistics"])
def test_strips_are_the_whole_picture(name, options, keep_colors):
    """Strips of any height, odd sizes: the same picture to a step of 8 bits."""
    torch.manual_seed(0)
    network = networks.build(name, **options).eval()
    for p in network.parameters():
        if p.ndim == 1:  # of the norms
            torch.nn.init.normal_(p, 0.5, 0.5)
    photograph = picture(1, 131, 167)
    whole = image.to_pillow(stylize.stylize_tensor(network, image.to_tensor(photograph), 0.9, keep_colors))
    shares = []
    stylize.stylize_strips(network, photograph, 40, 0.9, keep_colors, tell=shares.append)
    difference = np.asarray(photograph).astype(int) - np.asarray(whole)
    assert np.abs(difference).max() <= 1
    assert np.asarray(whole).std() > 5
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_strips_without_room_on_the_disk_say_so(monkeypatch):
    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(tiles.tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(UserError, match=r"no room for a large picture's strips .No space left on device"):
        stylize.stylize_strips(networks.build("slim", width=4).eval(), picture(1, 80, 80), 32)
