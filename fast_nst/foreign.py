"""Name the kind of a file that cannot be read as a picture (a video, a RAW photograph, a document), and the remedy."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of file that cannot be read as a picture: its name in the singular and plural, and the remedy."""

    name: str
    plural: str
    remedy: str


_EXPORT = "export as JPEG or PNG"
VIDEO = Kind("video", "videos", "paint each with infer.py, or extract its frames with ffmpeg")
RAW = Kind("RAW photograph", "RAW photographs", "export as JPEG or TIFF")
HEIC = Kind("HEIC photograph", "HEIC photographs", "pip install 'fast-nst[heic]', or export as JPEG")
AVIF = Kind("AVIF picture", "AVIF pictures", "pip install 'pillow>=11.3'")
# Suffixes -> kind. On some machines, image.py can read .heic and .avif files.
_SUFFIXES = {
    ".mp4 .mov .m4v .avi .mkv .webm .mpg .mpeg .mts .m2ts .wmv .3gp .ogv .flv": VIDEO,
    ".cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .dng .raf .orf .rw2 .pef .srw .3fr .iiq .x3f": RAW,
    ".heic .heif .hif": HEIC,
    ".avif": AVIF,
    ".psd .psb": Kind("Photoshop file", "Photoshop files", _EXPORT),
    ".xcf": Kind("GIMP file", "GIMP files", _EXPORT),
    ".jxl": Kind("JPEG XL picture", "JPEG XL pictures", _EXPORT),
    ".jp2 .j2k": Kind("JPEG 2000 picture", "JPEG 2000 pictures", _EXPORT),
    ".exr .hdr": Kind("HDR picture", "HDR pictures", _EXPORT),
    ".pdf": Kind("PDF", "PDFs", _EXPORT),
    ".svg .svgz": Kind("SVG", "SVGs", _EXPORT),
}
KINDS = {suffix: kind for suffixes, kind in _SUFFIXES.items() for suffix in suffixes.split()}
# Brands of ISO media files, bytes 8 to 11 -> suffix.
_BRANDS = {b"heic": ".heic", b"heix": ".heic", b"hevc": ".heic", b"mif1": ".heic", b"msf1": ".heic", b"crx ": ".cr3"}
_MAGIC = {b"8BPS": ".psd", b"%PDF": ".pdf", b"<svg": ".svg", b"\xff\n": ".jxl", b"\0\0\0\x0cJXL ": ".jxl",
          b"\x1aE\xdf\xa3": ".mkv", b"\0\0\0\x0cjP  ": ".jp2", b"gimp xcf": ".xcf"}  # fmt: skip


def find_kind(path: str | Path) -> Kind | None:
    """Return the kind that the suffix of `path` names, or None."""
    return KINDS.get(Path(path).suffix.lower())


def recognize(head: bytes) -> Kind | None:
    """Return the kind of file that starts with the bytes `head` (at least 12); None if unknown."""
    if head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"avis"):
        return KINDS[_BRANDS.get(head[8:12], ".mp4")]
    return next((KINDS[suffix] for magic, suffix in _MAGIC.items() if head.startswith(magic)), None)


def summarize(paths: Iterable[Path]) -> str:
    """Count foreign files by kind in one line, each kind with its remedy; "" if there are none."""
    groups: dict[Kind, list[Path]] = {}
    for path in paths:
        kind = find_kind(path)
        if kind is not None:
            groups.setdefault(kind, []).append(path)
    parts = []
    for kind, files in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0].name)):
        suffixes = ", ".join(sorted({path.suffix for path in files}))
        name = kind.name if len(files) == 1 else kind.plural
        parts.append(f"{len(files)} {name} ({suffixes}): {kind.remedy}")
    return "; ".join(parts)
