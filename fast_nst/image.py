"""Convert files to images and back: the only module that reads or writes image files.

Every image inside the package is RGB, float32, range [0, 1], shape (B, 3, H, W): a tensor or, without torch, an array.
EXIF orientation, ICC profiles, CMYK, 16 bits, grayscale, palettes, alpha and animation are handled here.
"""

import contextlib
import functools
import io
import os
import stat
import struct
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from fast_nst import deep, foreign
from fast_nst.atomic import atomic_write, check_place
from fast_nst.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

# Pillow's format name (only these are read) -> its file suffixes.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".mpo",),  # some cameras write it into a .jpg
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
}
MOST_PIXELS = 178_956_970  # Pillow's own limit; half a gigabyte as RGB
with contextlib.suppress(ImportError):  # the extra "heic"
    import pillow_heif

    pillow_heif.register_heif_opener()
Image.init()  # registers every reader; Pillow's lazy loading knows only some of these names
_READERS = tuple(name for name in FORMATS if name in Image.OPEN)
SUFFIXES = frozenset(suffix for name in _READERS for suffix in FORMATS[name])
WRITABLE = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
_LONGEST = {".webp": 16383, ".jpg": 65500, ".jpeg": 65500}  # most pixels a side that the formats' libraries can write
LOSSY = (".jpg", ".jpeg", ".webp")
DEEP = (".png", ".tif", ".tiff")  # can hold 16 bits a channel
_WITH_ALPHA = (".png", ".webp", ".tif", ".tiff")
# Marks an output: the key of a PNG's text chunk; the first word of a GIF's comment, or else of EXIF's software.
PROVENANCE = "fast_nst"
_SOFTWARE = 0x0131
_SRGB = ImageCms.createProfile("sRGB")


class ImageError(UserError):
    """An image file that cannot be read or written; the message is one line."""


class TooLarge(ImageError):
    """An image with more pixels than allowed."""


class Picture(NamedTuple):
    """A decoded file: `rgb` (mode RGB) and, if the file has transparency, `alpha` (mode L, the same size).

    Fully transparent pixels are white.
    """

    rgb: Image.Image
    alpha: Image.Image | None

    def on_white(self) -> Image.Image:
        """Flatten onto white."""
        return self.rgb if self.alpha is None else _on_white(self.rgb, self.alpha)


def _on_white(rgb: Image.Image, mask: Image.Image) -> Image.Image:
    return Image.composite(rgb, Image.new("RGB", rgb.size, "white"), mask)


class _AnySize:
    """A context that lifts Pillow's global pixel limit until the last thread leaves; the caller must check sizes."""

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0
        self.limit: int | None = None

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                Image.MAX_IMAGE_PIXELS = self.limit


_ANY_SIZE = _AnySize()


def open_picture(path: str | os.PathLike[str], shorter: int | None = None, most: int = MOST_PIXELS) -> Picture:
    """Decode the image file at `path` upright, in sRGB, with 8 bits a channel; of an animation, the first frame.

    shorter: allows decoding a JPEG at a reduced size (fast), its shorter side at least this many pixels.
    most: the most pixels allowed; a larger image raises TooLarge before it is decoded. Raises ImageError.
    """
    path = Path(path)
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from None
    if stat.S_ISDIR(kind):
        raise ImageError(f"{path}: is a directory, not a picture")
    if not stat.S_ISREG(kind):  # opening a pipe would block
        raise ImageError(f"{path}: is not a regular file")
    if foreign.find_kind(path) is foreign.RAW:  # often a TIFF, of which Pillow would read a thumbnail
        raise ImageError(f"{path}: a RAW photograph, not a picture; {foreign.RAW.remedy}")
    return _decode(path, str(path), shorter, most)


def from_pillow(image: Image.Image) -> Picture:
    """Convert any Pillow image as `open_picture` converts a file: upright, in sRGB, 8 bits a channel."""
    return _to_srgb(ImageOps.exif_transpose(image), image.info.get("icc_profile"))


def decode_picture(data: bytes, name: str, shorter: int | None = None) -> Picture:
    """Decode a file's bytes as `open_picture` does; errors call the file `name`."""
    return _decode(io.BytesIO(data), name, shorter)


def _decode(file: Path | io.BytesIO, path: str, shorter: int | None, most: int = MOST_PIXELS) -> Picture:
    try:
        with warnings.catch_warnings(), _ANY_SIZE if most > MOST_PIXELS else contextlib.nullcontext():
            # Pillow warns at half the size that it refuses; a large photograph needs no warning.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", module=r"PIL\.")
            with Image.open(file, formats=_READERS) as image:
                if image.width * image.height > most:
                    raise TooLarge(
                        f"{path}: {image.width} x {image.height} pixels; allowed: up to {most / 1e6:.0f} megapixels"
                    )
                if shorter is not None:
                    scale = shorter / min(image.size)
                    image.draft("RGB", (round(image.width * scale), round(image.height * scale)))
                profile = image.info.get("icc_profile")
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                return _to_srgb(image, profile)
    except PermissionError:
        raise ImageError(f"{path}: no permission to read it") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: {_explain_unreadable(file)}") from None
    except Image.DecompressionBombError:
        raise TooLarge(f"{path}: too many pixels; allowed: up to {most / 1e6:.0f} megapixels") from None
    except ImageError:
        raise
    except (  # what Pillow raises on damaged bytes
        OSError, SyntaxError, ValueError, TypeError, ArithmeticError, EOFError, LookupError, MemoryError, RuntimeError,
        struct.error,
    ) as error:  # fmt: skip
        raise ImageError(f"{path}: damaged picture ({str(error) or type(error).__name__})") from None


def _explain_unreadable(file: Path | io.BytesIO) -> str:
    """Say what a file that is not a readable picture seems to be, and what to do with it."""
    head = b""
    if isinstance(file, io.BytesIO):
        head = file.getvalue()[:16]
    else:
        with contextlib.suppress(OSError), open(file, "rb") as opened:
            head = opened.read(16)
    kind = foreign.recognize(head) or (None if isinstance(file, io.BytesIO) else foreign.find_kind(file))
    if kind is not None:
        return f"seems to be a {kind.name}, not a picture that can be read; {kind.remedy}"
    return f"not a picture that can be read ({', '.join(_READERS)})"


def _to_srgb(image: Image.Image, profile: bytes | None) -> Picture:
    alpha = None
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bits(image)
    if profile is not None:
        # Profiles that do not fit the data are common; such pixels are taken as sRGB.
        with contextlib.suppress(ImageCms.PyCMSError, OSError, ValueError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if image.mode not in ("L", "RGB", "CMYK", "LAB"):
                image = image.convert("RGB")
            converted = ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB")
            if converted is not None:
                image = converted
    if image.mode != "RGB":  # convert() copies even when the mode is the same, up to a gigabyte
        image = image.convert("RGB")
    return Picture(image if alpha is None else _on_white(image, alpha.point(lambda value: 255 * (value > 0))), alpha)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale a 16-bit or float gray image to 8 bits (Pillow's own conversion clips)."""
    with np.errstate(invalid="ignore"):
        values = np.nan_to_num(np.asarray(image).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if image.mode == "F":
        white = 1.0 if values.max(initial=0.0) <= 1.0 else float(values.max())
    else:
        white = 65535.0 if values.max(initial=0.0) > 255 or image.mode != "I" else 255.0
    return Image.fromarray(np.round(np.clip(values / white, 0, 1) * 255).astype(np.uint8))


def to_tensor(image: Image.Image) -> "Tensor":
    """Convert an RGB Pillow image to (1, 3, H, W) float32 in [0, 1]."""
    import torch  # takes seconds, and onnxruntime needs only arrays

    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float().div_(255)


def to_array(image: Image.Image) -> np.ndarray:
    """Convert an RGB Pillow image to an array (1, 3, H, W), float32 in [0, 1]."""
    values = np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)[None])
    return np.divide(values, np.float32(255), dtype=np.float32)


def to_pillow(image: "Tensor | np.ndarray") -> Image.Image:
    """Clip (1, 3, H, W) to [0, 1], round it to 8 bits and return it as an RGB Pillow image."""
    if isinstance(image, np.ndarray):
        return Image.fromarray(_scale_array(image, 255).astype(np.uint8))
    values = image[0].detach().float().clamp(0, 1).mul_(255).round_().byte().cpu()
    return Image.fromarray(values.permute(1, 2, 0).numpy())


def to_deep(image: "Tensor | np.ndarray") -> np.ndarray:
    """Clip (1, 3, H, W) to [0, 1], round it to 16 bits and return it as uint16, (H, W, 3)."""
    if isinstance(image, np.ndarray):
        return _scale_array(image, 65535).astype(np.uint16)
    values = image[0].detach().float().clamp(0, 1).mul_(65535).round_().cpu()
    return values.permute(1, 2, 0).numpy().astype(np.uint16)


def _scale_array(image: np.ndarray, most: int) -> np.ndarray:
    """Clip (1, 3, H, W) to [0, 1] and return it as whole numbers from 0 to `most`, float32, (H, W, 3)."""
    values = np.clip(image[0], 0, 1)
    values *= most
    return np.rint(values, out=values).transpose(1, 2, 0)


def luma(image: Any) -> Any:
    """Return the luma (ITU-R BT.601), (B, 1, H, W), of RGB tensors or arrays, (B, 3, H, W)."""
    red, green, blue = (image[:, k : k + 1] for k in range(3))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def resize_shorter(image: Image.Image, shorter: int) -> Image.Image:
    """Resize the shorter side to `shorter` pixels, keeping the aspect ratio: bicubic, antialiased."""
    return _scale(image, shorter / min(image.size))


def resize_longer(image: Image.Image, longer: int) -> Image.Image:
    """Resize the longer side to `longer` pixels, keeping the aspect ratio: bicubic, antialiased."""
    return _scale(image, longer / max(image.size))


def _scale(image: Image.Image, scale: float) -> Image.Image:
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image if (width, height) == image.size else image.resize((width, height), Image.Resampling.BICUBIC)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise UserError unless the suffix and folder of `path` let `save_picture` write it. For use before long work."""
    _check_format(path)
    check_place(path)


def _check_format(path: str | os.PathLike[str]) -> None:
    if Path(path).suffix.lower() not in WRITABLE:
        raise ImageError(f"{path}: cannot write this format; give one of {', '.join(WRITABLE)}")


def check_fits(path: str | os.PathLike[str], width: int, height: int) -> None:
    """Raise ImageError if the format of `path` cannot hold an image of this size. For use before long work."""
    suffix = Path(path).suffix.lower()
    if max(width, height) > (longest := _LONGEST.get(suffix, max(width, height))):
        raise ImageError(f"{path}: {width} x {height} pixels; allowed in a {suffix}: up to {longest} a side; use .png")


def save_picture(
    image: Image.Image | np.ndarray,
    path: str | os.PathLike[str],
    alpha: Image.Image | None = None,
    provenance: str | None = None,
    quality: int | None = None,
) -> None:
    """Write `image` to `path` in the format that the suffix of `path` names. Raises UserError.

    image: mode RGB; or uint16, (H, W, 3), for a .png or .tif with 16 bits a channel. alpha: transparency (mode L); if
    the format has none, the image is flattened onto white. provenance: text stored in the file (but not in a .bmp), by
    which `is_output` recognizes the file. No other metadata is written. quality: from 1 to 100, for a .jpg or .webp.
    """
    _check_format(path)
    path = Path(path)
    suffix = path.suffix.lower()
    if isinstance(image, np.ndarray):
        _save_deep(image, path, alpha, provenance)
        return
    check_fits(path, *image.size)
    if alpha is not None:
        alpha = alpha.resize(image.size)
        image = Image.merge("RGBA", (*image.split(), alpha)) if suffix in _WITH_ALPHA else _on_white(image, alpha)
    options: dict[str, Any] = {}
    if suffix in LOSSY:
        options = {"quality": 95 if quality is None else quality}
        if suffix != ".webp":
            options["subsampling"] = 0
    options |= provenance_options(suffix, provenance)
    with atomic_write(path) as temporary:
        image.save(temporary, **options)


def _save_deep(pixels: np.ndarray, path: Path, alpha: Image.Image | None, provenance: str | None) -> None:
    if path.suffix.lower() not in DEEP:
        raise ImageError(f"{path}: this format has 8 bits a channel; allowed with 16: {', '.join(DEEP)}")
    if alpha is not None:
        opacity = np.asarray(alpha.resize(pixels.shape[1::-1])).astype(np.uint16) * 257
        pixels = np.dstack([pixels, opacity])
    with atomic_write(path) as temporary:
        if path.suffix.lower() == ".png":
            deep.write_png(temporary, pixels, PROVENANCE if provenance is not None else "", provenance or "")
        else:
            deep.write_tiff(temporary, pixels, f"{PROVENANCE} {provenance}" if provenance is not None else "")


def provenance_options(suffix: str, provenance: str | None) -> dict[str, Any]:
    """Return the options of Pillow's `save` that mark an output for `is_output`, with the text `provenance`.

    There are none for a .bmp, or if `provenance` is None.
    """
    if provenance is None or suffix == ".bmp":
        return {}
    if suffix in (".png", ".apng"):
        text = PngImagePlugin.PngInfo()
        text.add_text(PROVENANCE, provenance)
        return {"pnginfo": text}
    if suffix == ".gif":
        return {"comment": f"{PROVENANCE} {provenance}".encode()}
    exif = Image.Exif()
    exif[_SOFTWARE] = f"{PROVENANCE} {provenance}"
    return {"exif": exif}


def is_output(path: str | os.PathLike[str]) -> bool:
    """Return whether the file at `path` is marked as an output of fast_nst (see PROVENANCE)."""
    if Path(path).suffix.lower() not in (*WRITABLE, ".gif", ".apng") or not Path(path).is_file():
        return False
    try:
        with _ANY_SIZE, Image.open(path, formats=_READERS) as image:  # reads only the header
            if PROVENANCE in image.info or str(image.getexif().get(_SOFTWARE, "")).startswith(f"{PROVENANCE} "):
                return True
            return image.format == "GIF" and image.info.get("comment", b"").startswith(f"{PROVENANCE} ".encode())
    except Exception:  # a damaged file; reported when it is decoded
        return False


def is_animation(path: str | os.PathLike[str]) -> bool:
    """Return whether `path` has several frames or pages; False if it cannot be read."""
    if Path(path).suffix.lower() not in (".gif", ".webp", ".png", ".apng", ".avif", ".tif", ".tiff"):
        return False
    if not Path(path).is_file():  # opening a named pipe would wait for a writer
        return False
    status = os.stat(path)
    return _has_frames(os.fspath(path), status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=2**16)  # planning, checking and stylizing a file all ask
def _has_frames(path: str, modified: int, size: int) -> bool:
    try:
        with _ANY_SIZE, Image.open(path, formats=_READERS) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged file; reported when it is decoded
        return False


def read_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return the width and height in the header of `path`, before EXIF rotation; None if it cannot be read."""
    if not Path(path).is_file():
        return None
    try:
        with _ANY_SIZE, Image.open(path, formats=_READERS) as image:
            return image.size
    except Exception:  # a damaged file; reported when it is decoded
        return None
