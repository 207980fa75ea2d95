"""Reading and writing image files of every kind."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
import torch
from conftest import picture
from PIL import Image, ImageCms

from fast_nst import image
from fast_nst.atomic import atomic_write


def write(path, content: Image.Image, **options):
    content.save(path, **options)
    return path


def halves(mode: str, left, right, size=(8, 6)) -> Image.Image:
    """A picture of two flat halves."""
    result = Image.new(mode, size, right)
    result.paste(left, (0, 0, size[0] // 2, size[1]))
    return result


def pixels(path) -> np.ndarray:
    return np.asarray(image.open_picture(path).rgb)


def test_tensor_round_trips_through_a_png(tmp_path):
    x = image.to_tensor(picture(0))
    assert x.shape == (1, 3, 48, 64)
    assert 0 <= x.min() < x.max() <= 1
    image.save_picture(image.to_pillow(x), tmp_path / "a.png")
    assert torch.equal(image.to_tensor(image.open_picture(tmp_path / "a.png").rgb), x)


@pytest.mark.parametrize("suffix", image.WRITABLE)
def test_every_written_format_reads_back(tmp_path, suffix):
    image.save_picture(picture(0), tmp_path / f"a{suffix}")
    difference = np.abs(pixels(tmp_path / f"a{suffix}").astype(int) - np.asarray(picture(0)))
    assert difference.mean() < 3


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated 90 degrees clockwise
    path = write(tmp_path / "a.jpg", halves("RGB", "red", "blue"), exif=exif, quality=95)
    values = pixels(path)
    assert values.shape == (8, 6, 3)
    assert values[0, 3, 0] > 200  # the left half is now at the top
    assert values[7, 3, 2] > 200


def test_no_metadata_is_written(tmp_path):
    exif = Image.Exif()
    exif[0x8825] = {1: "N"}
    source = write(tmp_path / "a.jpg", picture(0), exif=exif)
    for suffix in (".jpg", ".png"):
        image.save_picture(image.open_picture(source).rgb, tmp_path / f"b{suffix}")
        with Image.open(tmp_path / f"b{suffix}") as result:
            assert not result.getexif()


def test_16_bit_gray_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    path = write(tmp_path / "a.png", Image.fromarray(values))
    assert pixels(path)[0, :, 0].tolist() == [0, 100, 255]
    path = write(tmp_path / "a.tif", Image.fromarray(values))
    assert pixels(path)[0, :, 0].tolist() == [0, 100, 255]


def test_float_tiff_is_scaled_and_nan_is_black(tmp_path):
    path = write(tmp_path / "a.tif", Image.fromarray(np.array([[0.0, 0.5, 1.0, np.nan]], dtype=np.float32)))
    assert pixels(path)[0, :, 0].tolist() == [0, 128, 255, 0]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_color_modes_convert_to_rgb(tmp_path, mode):
    suffix = {"CMYK": "tif", "YCbCr": "jpg"}.get(mode, "png")
    path = write(tmp_path / f"a.{suffix}", halves("L", 255, 0).convert("RGB").convert(mode))
    values = pixels(path)
    assert values[3, 1].min() > 250
    assert values[3, 6].max() < 5


def test_alpha_is_kept(tmp_path):
    source = Image.merge("RGBA", (*picture(0).split(), halves("L", 255, 0, (64, 48))))
    opened = image.open_picture(write(tmp_path / "a.png", source))
    assert np.asarray(opened.alpha)[0].tolist() == [255] * 32 + [0] * 32
    image.save_picture(opened.rgb, tmp_path / "b.png", opened.alpha)
    with Image.open(tmp_path / "b.png") as result:
        assert result.mode == "RGBA"


def test_palette_transparency_becomes_alpha(tmp_path):
    source = halves("RGB", "red", "blue").quantize(4)
    index = source.getpixel((7, 0))
    opened = image.open_picture(write(tmp_path / "a.png", source, transparency=index))
    assert np.asarray(opened.alpha)[0].tolist() == [255] * 4 + [0] * 4


def test_fully_transparent_pixels_are_white(tmp_path):
    hidden = Image.merge("RGBA", (*halves("RGB", "red", "blue").split(), halves("L", 255, 0)))
    opened = image.open_picture(write(tmp_path / "a.png", hidden))
    assert np.asarray(opened.rgb)[0].tolist() == [[255, 0, 0]] * 4 + [[255, 255, 255]] * 4
    assert np.array_equal(np.asarray(opened.on_white()), np.asarray(opened.rgb))
    image.save_picture(Image.new("RGB", (8, 6), "blue"), tmp_path / "b.bmp", opened.alpha)
    assert pixels(tmp_path / "b.bmp")[0].tolist() == [[0, 0, 255]] * 4 + [[255, 255, 255]] * 4


def test_partial_alpha_is_blended_with_white(tmp_path):
    half = Image.merge("RGBA", (*Image.new("RGB", (4, 4), (200, 0, 100)).split(), Image.new("L", (4, 4), 51)))
    opened = image.open_picture(write(tmp_path / "a.png", half))
    assert np.asarray(opened.rgb)[0, 0].tolist() == [200, 0, 100]
    assert np.asarray(opened.on_white())[0, 0].tolist() == [244, 204, 224]  # 0.2 of the color, 0.8 of white
    assert image.open_picture(write(tmp_path / "b.png", picture(0))).on_white().size == (64, 48)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_picture_with_provenance_is_an_output(tmp_path, suffix, deep):
    if deep and suffix not in image.DEEP:
        pytest.skip("8 bits")
    source = np.asarray(picture(0)).astype(np.uint16) * 257 if deep else picture(0)
    image.save_picture(source, tmp_path / f"a{suffix}", provenance="by hand é")
    image.save_picture(source, tmp_path / f"b{suffix}")
    (tmp_path / f"c{suffix}").write_bytes(b"no picture")
    assert [image.is_output(tmp_path / f"{name}{suffix}") for name in "abc"] == [True, False, False]


@pytest.mark.parametrize("channels", [3, 4])
def test_16_bits_are_written_exactly(tmp_path, channels):
    """Pillow checks the structure and reads the upper 8 bits; all 16 are decoded here."""
    pixels = np.random.default_rng(0).integers(0, 65536, (150, 70, 3)).astype(np.uint16)
    alpha = picture(1, 150, 70).convert("L") if channels == 4 else None
    expected = pixels if alpha is None else np.dstack([pixels, np.asarray(alpha).astype(np.uint16) * 257])
    for suffix in (".png", ".tif"):
        image.save_picture(pixels, tmp_path / f"a{suffix}", alpha, "by hand")
        with Image.open(tmp_path / f"a{suffix}") as result:
            assert np.array_equal(np.asarray(result), expected >> 8)
            tags = getattr(result, "tag_v2", {})
    raw = (tmp_path / "a.tif").read_bytes()
    strips = [zlib.decompress(raw[a : a + n]) for a, n in zip(tags[273], tags[279], strict=True)]
    differences = np.frombuffer(b"".join(strips), np.uint16).reshape(150, 70, channels)
    assert np.array_equal(np.cumsum(differences, 1, dtype=np.uint16), expected)
    raw, data, start = (tmp_path / "a.png").read_bytes(), b"", 8
    while start < len(raw):
        size, kind = struct.unpack(">I4s", raw[start : start + 8])
        data += raw[start + 8 : start + 8 + size] if kind == b"IDAT" else b""
        start += size + 12
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(150, -1)
    assert (rows[:, 0] == 2).all()
    assert np.array_equal(np.cumsum(rows[:, 1:], 0, dtype=np.uint8).view(">u2").reshape(expected.shape), expected)


def test_icc_profile_is_applied(tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    srgb = ImageCms.createProfile("sRGB")
    red = Image.new("RGB", (4, 4), (200, 30, 40))
    source = ImageCms.profileToProfile(red, srgb, lab, outputMode="LAB")
    path = write(tmp_path / "a.tif", source, icc_profile=lab.tobytes())
    assert np.abs(pixels(path)[0, 0].astype(int) - (200, 30, 40)).max() <= 3


def test_broken_icc_profile_is_ignored(tmp_path):
    path = write(tmp_path / "a.png", picture(0), icc_profile=b"nonsense" * 20)
    assert np.array_equal(pixels(path), np.asarray(picture(0)))


def test_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for suffix in ("gif", "webp"):
        path = tmp_path / f"a.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        assert pixels(path)[0, 0, 0] > 200


def truncated(content: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    content.save(buffer, form)
    return buffer.getvalue()[: len(buffer.getvalue()) * 2 // 3]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jpg", b"", "not a picture"),
        ("a.jpg", b"this is text, whatever its name says", "not a picture"),
        ("a.jpg", truncated(picture(0, 200, 300), "JPEG"), "damaged"),
        ("a.png", truncated(picture(0, 200, 300), "PNG"), "damaged"),
    ],
)
def test_damaged_file_raises_a_one_line_error(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(image.ImageError, match=message) as caught:
        image.open_picture(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_missing_file_directory_and_bomb_raise(tmp_path):
    with pytest.raises(image.ImageError, match="no such file"):
        image.open_picture(tmp_path / "a.png")
    with pytest.raises(image.ImageError, match="is a directory"):
        image.open_picture(tmp_path)
    Image.new("1", (30000, 30000)).save(tmp_path / "bomb.png")
    with pytest.raises(image.ImageError, match="allowed: up to 179 megapixels"):
        image.open_picture(tmp_path / "bomb.png")


def test_large_limit_leaves_pillow_limit_unchanged(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow refuses 64 x 48 pixels
    path = write(tmp_path / "a.png", picture(0))
    with pytest.raises(image.TooLarge):
        image.open_picture(path)
    assert image.open_picture(path, most=image.MOST_PIXELS + 1).rgb.size == (64, 48)
    assert Image.MAX_IMAGE_PIXELS == 100
    path.write_bytes(truncated(picture(0), "PNG"))
    with pytest.raises(image.ImageError, match="damaged"):
        image.open_picture(path, most=image.MOST_PIXELS + 1)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_pillow_limit_returns_with_the_last_reader(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    first.enter_context(image._ANY_SIZE)
    second.enter_context(image._ANY_SIZE)
    first.close()
    assert Image.MAX_IMAGE_PIXELS is None
    second.close()
    assert Image.MAX_IMAGE_PIXELS == 100


def test_output_above_pillow_limit_is_recognized(tmp_path, monkeypatch):
    image.save_picture(picture(0), tmp_path / "a.png", provenance="by hand")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert image.is_output(tmp_path / "a.png")
    assert Image.MAX_IMAGE_PIXELS == 100


def test_unknown_suffix_raises_and_writes_nothing(tmp_path):
    with pytest.raises(image.ImageError, match=r"\.png"):
        image.save_picture(picture(0), tmp_path / "a.xyz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("suffix", "longest"), [(".webp", 16383), (".jpg", 65500)])
def test_side_above_the_limit_of_a_format_raises(tmp_path, suffix, longest):
    path = tmp_path / f"long{suffix}"
    image.save_picture(Image.new("RGB", (longest, 1)), path)
    before = path.read_bytes()
    with pytest.raises(image.ImageError, match=f"2 x {longest + 1} pixels; allowed in a {suffix}: up to {longest}"):
        image.save_picture(Image.new("RGB", (2, longest + 1)), path)
    assert path.read_bytes() == before


def test_heic_is_read_or_the_message_names_what_reads_it(tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif")
    source = picture(0)
    heif.from_pillow(source).save(tmp_path / "a.heic", quality=100)
    (tmp_path / "renamed.jpg").write_bytes((tmp_path / "a.heic").read_bytes())
    for name in ("a.heic", "renamed.jpg"):
        assert np.abs(np.asarray(image.open_picture(tmp_path / name).rgb).astype(int) - np.asarray(source)).mean() < 9
    monkeypatch.setattr(image, "_READERS", ("JPEG", "PNG"))
    for name in ("a.heic", "renamed.jpg"):
        with pytest.raises(image.ImageError, match=r"seems to be a HEIC photograph.*pip install 'fast-nst\[heic\]'"):
            image.open_picture(tmp_path / name)


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_resizing_keeps_the_aspect_ratio():
    assert image.resize_shorter(picture(0), 24).size == (32, 24)
    assert image.resize_longer(picture(0), 32).size == (32, 24)
    assert image.resize_longer(Image.new("RGB", (1000, 1)), 10).size == (10, 1)


def test_large_jpeg_is_decoded_at_reduced_size(tmp_path):
    path = write(tmp_path / "a.jpg", picture(0, 480, 640))
    assert min(image.open_picture(path, shorter=100).rgb.size) == 120  # a quarter, at least the requested size
    assert image.open_picture(path).rgb.size == (640, 480)


def test_a_tiff_with_a_fraction_as_offset_is_a_damaged_picture(tmp_path):
    """Found by scripts/dev/fuzz.py: Pillow raises TypeError."""
    picture(0).save(tmp_path / "a.tif")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    entry = data.index(b"\x11\x01\x04\0")  # StripOffsets, of type LONG
    data[entry + 2] = 11  # FLOAT
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(image.ImageError, match=r"a\.tif: damaged picture"):
        image.open_picture(tmp_path / "a.tif")
