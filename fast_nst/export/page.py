"""Build a web page that repaints photographs in the browser, without a server: one HTML file or a website's folder.

`page/` holds its HTML, CSS and JavaScript; onnxruntime-web runs the networks. The page contains everything it
needs: its content security policy allows no request or, for a folder, only requests for the folder's own files.
"""

import base64
import gzip
import hashlib
import html
import json
import math
import re
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from fast_nst.atomic import atomic_write
from fast_nst.description import style_names
from fast_nst.export.graphs import split
from fast_nst.export.plain import PlainNetwork, PlainNoise, PlainResidual
from fast_nst.export.runtime import VERSION, Runtime

_TEMPLATE = resources.files("fast_nst.export") / "page"
_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; img-src blob: data:; media-src blob: mediastream:; "
_INSIDE = "worker-src blob:; script-src {app} blob: 'wasm-unsafe-eval'; style-src {style}"
_FOLDER = "worker-src blob:; script-src 'self' blob: 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self'"


class PageModel(NamedTuple):
    """A network of the page. model: its onnx.ModelProto (`onnx.to_onnx`). styles: the names that the page shows."""

    plain: PlainNetwork
    model: Any
    styles: list[str]


def name_styles(description: dict[str, Any], plain: PlainNetwork, fallback: str) -> list[str]:
    """Return a name for each style of a network, from the weights file's description.

    A painting trained at several sizes gives one style per size.
    """
    names, sizes = style_names(description), description.get("style", {}).get("sizes") or [None]
    if not plain.conditional:
        return [_title(" + ".join(names) or fallback)]
    sized = [name if size == sizes[0] else f"{name}, strokes {size / sizes[0]:g}x" for name in names for size in sizes]
    if len(sized) != plain.num_styles:
        sized = [f"style {k + 1}" for k in range(plain.num_styles)]
    return [_title(name) for name in sized]


def _title(name: str) -> str:
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]


def tiling(plain: PlainNetwork) -> dict[str, int]:
    """Return how the page paints a large image in tiles, in pixels of the image.

    overlap: how far away input can affect a pixel of the output, a multiple of 4. span: from one tile's start to the
    next, a multiple of the period of the network's noise. whole: pixels that take about 800 MB when painted at once.
    """
    reach, size, span, widest = 0.0, 1.0, 512, 1.0  # size: side of a layer's pixel, in pixels of the image
    for layer in plain.layers:
        parts: tuple[Any, ...] = (layer.first, layer.second) if isinstance(layer, PlainResidual) else (layer,)
        for part in parts:
            if isinstance(part, PlainNoise):
                span = max(span, int(part.side * size))
                continue
            conv, doubles = part.conv, part.doubles or part.conv.transposed
            size /= 1 + doubles
            widest = max(widest, (conv.in_channels if part.doubles else conv.out_channels) / size**2)
            reach += (conv.kernel_size[0] // 2 + 1) * size
            size *= 1 if conv.transposed else conv.stride[0]
    return {"overlap": 4 * math.ceil(reach / 4), "span": span, "whole": int(48e6 / widest)}


def build_files(models: list[PageModel], runtime: Runtime) -> dict[str, bytes]:
    """Return the page as {file name: bytes} for a folder; all but index.html, style.css and app.js are compressed."""
    listed, parts = _data_files(models, runtime)
    page = _fill(
        listed, policy=_POLICY + _FOLDER, style='<link rel="stylesheet" href="style.css">',
        scripts='<script type="module" src="app.js"></script>',
    )  # fmt: skip
    own = {name: (_TEMPLATE / name).read_bytes() for name in ("app.js", "style.css")}
    return {"index.html": page.encode(), **own, **parts}


def build_page(models: list[PageModel], runtime: Runtime) -> str:
    """Return the page as one HTML file."""
    listed, parts = _data_files(models, runtime)
    scripts = [
        f'<script type="text/plain" id="data-{name.removesuffix(".gz")}">{base64.b64encode(data).decode()}</script>'
        for name, data in parts.items()
    ]
    app, style = ((_TEMPLATE / name).read_text(encoding="utf-8") for name in ("app.js", "style.css"))
    scripts.append(f'<script type="module">{app}</script>')
    policy = _POLICY + _INSIDE.format(app=_hash(app), style=_hash(style))
    return _fill(listed, policy=policy, style=f"<style>{style}</style>", scripts="\n".join(scripts))


def _data_files(models: list[PageModel], runtime: Runtime) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Return what app.js must know about each model, and the compressed files that it reads, by name."""
    engine = (_TEMPLATE / "engine.js").read_bytes()
    listed, files = [], {"engine.js": engine, "ort.mjs": runtime.script, "ort.wasm": runtime.wasm}
    for number, (plain, model, styles) in enumerate(models):
        graphs, weights = split(model)
        name = f"network{number}"
        for part, data in {**graphs, "weights": weights}.items():
            files[f"{name}.{part}"] = data
        listed.append(
            {
                "name": name, "styles": styles, "conditional": plain.conditional, "smallest": plain.smallest,
                "graphs": list(graphs), **tiling(plain),
            }
        )  # fmt: skip
    return listed, {f"{name}.gz": gzip.compress(data, mtime=0) for name, data in files.items()}


def _fill(listed: list[dict[str, Any]], **parts: str) -> str:
    names = [name for model in listed for name in model["styles"]]
    parts |= {
        "title": html.escape(names[0] if len(names) == 1 else "Repaint a photograph"),
        "licenses": html.escape(_licenses()), "models": json.dumps(listed).replace("<", "\\u003c"),
    }  # fmt: skip
    page = (_TEMPLATE / "index.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], page)


def _licenses() -> str:
    return (_TEMPLATE / "licenses.txt").read_text(encoding="utf-8").replace("VERSION", VERSION)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def write_folder(parts: dict[str, bytes], folder: Path) -> None:
    """Write the page's files into `folder`, index.html last. Raises UserError."""
    for name in sorted(parts, key="index.html".__eq__):
        with atomic_write(folder / name) as temporary:
            temporary.write_bytes(parts[name])
