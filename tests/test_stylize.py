import numpy as np
import pytest
import torch
from conftest import picture
from PIL import Image
from torch import nn

from fast_nst import image, networks
from fast_nst.errors import UserError
from fast_nst.networks.layers import ConvBlock, ResidualBlock, decode, encode
from fast_nst.networks.slim import Noise
from fast_nst.stylize import tiles
from fast_nst.stylize.color import Moments, keep_chroma, keep_statistics
from fast_nst.stylize.files import stylize_file
from fast_nst.stylize.image import stylize_tensor, stylize_tiles
from fast_nst.stylize.options import Options
from fast_nst.stylize.sheet import sheet


class Negative(nn.Module):
    """Invert an image, slightly beyond [0, 1]."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.2))

    def forward(self, x):
        return (0.5 - x) * self.scale + 0.5


@pytest.fixture
def content():
    return image.to_tensor(picture(3))


def test_strength_blends_content_and_output(content):
    full = stylize_tensor(Negative(), content)
    torch.testing.assert_close(full, ((0.5 - content) * 1.2 + 0.5).clamp(0, 1))
    assert torch.equal(stylize_tensor(Negative(), content, 0.0), content)
    half = stylize_tensor(Negative(), content, 0.5)
    torch.testing.assert_close(half, (full + content) / 2)
    with pytest.raises(UserError, match="strength: got 2"):
        stylize_tensor(Negative(), content, 2)


def test_keep_chroma_keeps_luma_of_output_and_chroma_of_content():
    gray, colored = torch.full((1, 3, 4, 4), 0.5), torch.tensor([0.5, 0.4, 0.3])[None, :, None, None].expand(1, 3, 4, 4)
    result = keep_chroma(gray, colored)
    torch.testing.assert_close(image.luma(result), image.luma(gray))
    torch.testing.assert_close(result - image.luma(result), colored - image.luma(colored))


def test_keep_statistics_matches_mean_and_covariance():
    generator = torch.Generator().manual_seed(0)
    # Far from 0 and 1: nothing is clipped.
    a, b = (0.5 + 0.05 * torch.randn(1, 3, 40, 40, generator=generator) for _ in range(2))
    b = b * torch.tensor([1.0, 0.5, 0.2])[:, None, None] + torch.tensor([0.1, 0.0, 0.2])[:, None, None]
    colors = keep_statistics(a, b).flatten(2)[0]
    torch.testing.assert_close(colors.mean(1), b.flatten(2)[0].mean(1))
    torch.testing.assert_close(torch.cov(colors), torch.cov(b.flatten(2)[0]), rtol=1e-2, atol=1e-5)
    torch.testing.assert_close(keep_statistics(a, a), a, rtol=1e-3, atol=1e-3)
    assert keep_statistics(torch.full_like(a, 0.3), b).isfinite().all()


class Mps(torch.Tensor):
    """A tensor that refuses what Apple's mps lacks: float64 and eigh. `cpu()` gives a plain one."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), options=None):
        if function is torch.Tensor.cpu:
            return arguments[0].as_subclass(torch.Tensor)
        if "eigh" in function.__name__:
            raise NotImplementedError("eigh on mps")
        result = super().__torch_function__(function, types, arguments, options or {})
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64")
        return result


def test_keep_statistics_needs_no_float64_on_the_device():
    a, b = torch.rand(2, 1, 3, 20, 30).unbind(0)
    result = keep_statistics(a.as_subclass(Mps), b.as_subclass(Mps))
    torch.testing.assert_close(result.cpu(), keep_statistics(a, b))


def test_moments_of_a_flat_image_are_exact():
    image_ = 0.9 + 1e-3 * torch.rand(2, 3, 90, 80)
    whole, strips = Moments(image_), Moments(*image_.split(17, 2))
    expected = torch.stack([torch.cov(colors, correction=0) for colors in image_.double().flatten(2)])
    for moments in (whole, strips):
        torch.testing.assert_close(torch.from_numpy(moments.get()[1]), expected, rtol=1e-4, atol=1e-11)


def test_file_keeps_size_and_transparency(tmp_path):
    network = networks.build("slim", width=4).eval()
    source = picture(0, 37, 53)
    source.putalpha(Image.new("L", source.size, 77))
    source.save(tmp_path / "in.png")
    stylize_file(network, tmp_path / "in.png", tmp_path / "new" / "out.png")
    with Image.open(tmp_path / "new" / "out.png") as result:
        assert result.size == (53, 37)
        assert np.asarray(result.getchannel("A")).max() == 77
    stylize_file(network, tmp_path / "in.png", tmp_path / "out.jpg", Options(size=20))
    with Image.open(tmp_path / "out.jpg") as result:
        assert result.size == (20, 14)


def test_sheet_places_style_contents_and_outputs(content):
    contents = content.repeat(2, 1, 1, 1)
    result = sheet(torch.zeros(1, 3, 60, 90), contents, contents * 0.5, gap=4)
    assert result.size == (150 + 2 * 68, 100)
    assert np.array_equal(np.asarray(result)[:48, 154:218], np.asarray(picture(3)))


NETWORKS = [
    ("slim", {"width": 8, "fine_noise": 0.2}),
    ("slim", {"width": 8, "noise": 0.0, "margin": 0}),
    ("johnson", {"filters": [4, 6, 8]}),
    ("johnson", {"filters": [4, 6, 8], "padding": "zero", "upsampling": "transposed", "pixels": "unit",
                 "final_norm": True, "norm_eps": 1e-3}),
    ("johnson", {"filters": [4, 6, 8], "padding": "reflection_once", "upsampling": "transposed", "norm": "batch"}),
    ("johnson", {"filters": [4, 6, 8], "padding": "tensorflow", "upsampling": "transposed", "pixels": "unit"}),
    ("johnson", {"filters": [4, 6, 8], "blocks": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), NETWORKS)
@pytest.mark.parametrize("keep_colors", [None, "chroma", "statistics"])
def test_tiles_equal_the_whole_image(name, options, keep_colors):
    """At odd sizes, to one 8-bit level."""
    network = networks.build(name, **options).eval()
    randomize_norms(network)
    tiled, whole, shares = stylize_both(network, keep_colors)
    assert np.abs(tiled - whole).max() <= 1
    assert whole.std() > 5
    assert shares == sorted(shares)
    assert shares[-1] == 1


class Custom(nn.Module):
    """Layers in another order and under other names than those of the networks here."""

    border, cut, pixels = 8, 8, "centred"

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([
            ConvBlock(3, 4, 5), Noise(2, 4, 64, 0.3), ResidualBlock(4), ConvBlock(4, 6, 3, stride=2),
            ConvBlock(6, 8, 3, stride=2), ConvBlock(8, 8, 3, norm=None), ConvBlock(8, 8, 3, stride=2), ResidualBlock(8),
            Noise(3, 8, 32, 0.2), ConvBlock(8, 8, 3, upsampling="nearest"), ConvBlock(8, 8, 3, upsampling="transposed"),
            ConvBlock(8, 8, 3, upsampling="nearest"), ConvBlock(8, 3, 5, norm=None, relu=False),
        ])  # fmt: skip

    def stages(self):
        kinds = {ConvBlock: "conv", ResidualBlock: "residual", Noise: "noise"}
        return [(kinds[type(layer)], layer) for layer in self.layers]

    def forward(self, content):
        height, width = content.shape[2:]
        x = encode(nn.functional.pad(content, (8,) * 4, mode="reflect"), self.pixels)
        for layer in self.layers:
            x = layer(x)
        return decode(x[:, :, 8 : 8 + height, 8 : 8 + width], self.pixels)


def test_tiles_follow_the_stages_of_any_network():
    network = Custom().eval()
    randomize_norms(network)
    tiled, whole, shares = stylize_both(network, None)
    assert np.abs(tiled - whole).max() <= 1
    assert whole.std() > 5
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_unknown_stage_raises():
    network = Custom().eval()
    network.stages = lambda: [("attention", nn.Identity())]
    with pytest.raises(TypeError, match="stages: got 'attention', Identity; allowed: conv, residual, noise"):
        stylize_tiles(network, picture(1, 80, 80), 32)


@pytest.mark.parametrize("height", [128, 130, 131])
def test_tiles_of_an_even_height_pad_like_the_whole_image(height):
    network = networks.build("johnson", filters=[4, 6, 8], padding="tensorflow", upsampling="transposed").eval()
    randomize_norms(network)
    tiled, whole, _ = stylize_both(network, None, height)
    assert np.abs(tiled - whole).max() <= 1


def stylize_both(network, keep_colors, height=131):
    """Stylize a picture in strips and whole; return both as integers, and the shares of work reported."""
    content, shares = picture(1, height, 167), []
    whole = image.to_pillow(stylize_tensor(network, image.to_tensor(content), 0.9, keep_colors))
    stylize_tiles(network, content, 40, 0.9, keep_colors, on_progress=shares.append)
    return np.asarray(content).astype(int), np.asarray(whole).astype(int), shares


def randomize_norms(network):
    for p in network.parameters():
        if p.ndim == 1:
            nn.init.normal_(p, 0.5, 0.5)


def test_full_disk_raises(monkeypatch):
    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(tiles.tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(UserError, match=r"no space for the strips of a large picture .No space left on device"):
        stylize_tiles(networks.build("slim", width=4).eval(), picture(1, 80, 80), 32)
