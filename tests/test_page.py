"""The web page of `fast-nst export` in Chromium, from file://: what it paints is what the network paints in Python."""

import functools
import http.server
import io
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import picture, run
from PIL import Image
from test_export import network_of, saved

from fast_nst import image
from fast_nst.commands import export as command
from fast_nst.export.plain import PlainNetwork
from fast_nst.stylize.image import stylize_tensor

pytestmark = pytest.mark.slow  # Chromium
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
    "--enable-unsafe-webgpu",  # WebGPU on the processor, which the page uses only if asked to
]  # fmt: skip


@pytest.fixture(scope="module")
def runtime() -> Path:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from fast_nst.export.runtime import cache_path

    if not cache_path().exists():
        pytest.skip("onnxruntime-web is not in the cache; an export of a page puts it there")
    return cache_path()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def exported(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a network of one style and one of three."""
    folder = tmp_path_factory.mktemp("page")
    files = [saved(name, folder)[0] for name in ("slim", "conditional")]
    result = run("export.py", *files, "-o", "page.html", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("MB; open it in a browser, no server needed\n")
    picture(5, 64, 96).save(folder / "photo.png")
    return folder / "page.html"


class Tab:
    """The page in a tab, and the requests that it made."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page, self.requests, self.errors = self.context.new_page(), [], []
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)
        self.page.wait_for_selector("body[data-state]", timeout=120_000)
        assert self.page.get_attribute("body", "data-state") == "ready", self.status()

    def __enter__(self) -> "Tab":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def status(self) -> str:
        return str(self.page.inner_text("#status"))

    def wait(self) -> None:
        self.page.wait_for_selector("body[data-state=done], body[data-state=error]", timeout=120_000)
        assert self.page.get_attribute("body", "data-state") == "done", (self.status(), self.errors)

    def open(self, path: Path) -> None:
        self.page.set_input_files("#file", path)
        self.wait()

    def set(self, selector: str, value: object) -> None:
        """Move a slider as a user does, and wait for what it causes."""
        self.page.eval_on_selector(
            selector, "(e, v) => { e.value = v; for (const k of ['input', 'change']) e.dispatchEvent(new Event(k)); }",
            str(value),
        )  # fmt: skip
        self.page.wait_for_timeout(100)
        self.wait()

    def painted(self) -> torch.Tensor:
        """What the page shows, (1, 3, H, W) in [0, 255]."""
        data, width, height = self.page.eval_on_selector(
            "#after",
            "c => [Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data), c.width, c.height]",
        )
        return torch.tensor(data, dtype=torch.float32).view(1, height, width, 4)[..., :3].permute(0, 3, 1, 2)


def content_of(path: Path) -> torch.Tensor:
    return image.to_tensor(image.open_picture(path).on_white())


def worst(painted: torch.Tensor, expected: torch.Tensor) -> float:
    return float((painted - 255 * expected.clamp(0, 1)).abs().max())


def test_the_page_paints_what_the_network_paints(browser, exported):
    photo, network = exported.with_name("photo.png"), network_of("slim")
    content = content_of(photo)
    with Tab(browser, exported.as_uri()) as tab:
        tab.open(photo)
        assert "96 \u00d7 64" in tab.page.inner_text("#size option:checked")
        assert tab.page.inner_text("#engine") == "Runs on the processor (WebAssembly)."  # no real graphics card
        assert worst(tab.painted(), stylize_tensor(network, content)) < 2
        tab.page.check("#keep")
        tab.set("#strength", 40)
        assert worst(tab.painted(), stylize_tensor(network, content, 0.4, "chroma")) < 2
        with tab.page.expect_download() as download:
            tab.page.click("#save")
        assert download.value.suggested_filename == "photo_Style_0.png"
        with Image.open(download.value.path()) as kept:
            assert worst(tab.painted(), image.to_tensor(kept.convert("RGB"))) < 0.01
        outside = [url for url in tab.requests if not url.startswith(("blob:", "data:"))]
        assert outside == [exported.as_uri()]


def test_webgpu_paints_the_same(browser, exported):
    photo = exported.with_name("photo.png")
    with Tab(browser, f"{exported.as_uri()}?engine=webgpu") as tab:
        if "WebGPU" not in tab.page.inner_text("#engine"):
            pytest.skip("this Chromium has no WebGPU")
        tab.open(photo)
        assert tab.status().endswith("on the graphics card (WebGPU)")
        assert worst(tab.painted(), stylize_tensor(network_of("slim"), content_of(photo))) < 2


@torch.no_grad()
def test_several_styles_are_chosen_mixed_and_exaggerated(browser, exported):
    photo, network = exported.with_name("photo.png"), network_of("conditional")
    content = content_of(photo)
    with Tab(browser, exported.as_uri()) as tab:
        tab.open(photo)
        names = tab.page.eval_on_selector_all("#styles label", "labels => labels.map(l => l.textContent)")
        assert names == ["Style 0"] * 2 + ["Style 1", "Style 2"]
        assert not tab.page.is_visible("#mixing")
        tab.page.locator("#styles label").nth(2).click()
        tab.wait()
        assert worst(tab.painted(), network(content, torch.tensor([[0.0, 1, 0]]))) < 2
        tab.set("#strength", 150)
        tab.page.select_option("#second", label="Style 2")
        tab.set("#share", 20)
        assert worst(tab.painted(), network(content, 1.5 * torch.tensor([[0.0, 0.8, 0.2]]))) < 2


def test_a_large_picture_is_painted_in_tiles_without_seams(browser, exported, tmp_path):
    small = tmp_path / "small.html"
    text = exported.read_text()
    assert text.count('"whole": ') == 2
    small.write_text(text.replace('"whole": ', '"whole": 70000, "was": '))
    picture(6, 64, 1500).save(tmp_path / "wide.png")
    painted = {}
    for path in (exported, small):
        with Tab(browser, path.as_uri()) as tab:
            tab.page.set_input_files("#file", tmp_path / "wide.png")
            tab.wait()
            tab.page.select_option("#size", label="1500 \u00d7 64 (full size)")
            tab.page.wait_for_timeout(100)
            tab.wait()
            painted[path] = tab.painted()
    difference = painted[small] - painted[exported]
    assert difference.abs().mean() < 6
    steps = (difference[..., 1:] - difference[..., :-1]).abs().mean((0, 1, 2))
    assert steps.max() < 4 * steps.mean()


def test_tiles_equal_the_whole_given_its_statistics(runtime, tmp_path):
    import onnxruntime

    from fast_nst.export import graphs, onnx, page, program

    for name in ("slim", "johnson", "conditional"):
        plain = PlainNetwork(network_of(name))
        made, weights = graphs.split(onnx.to_onnx(program.export_program(plain), plain, "{}"))
        (tmp_path / "weights").write_bytes(weights)
        session = {}
        for graph, data in made.items():
            (tmp_path / f"{graph}.onnx").write_bytes(data)
            session[graph] = onnxruntime.InferenceSession(tmp_path / f"{graph}.onnx")
        tiling = page.tiling(plain)
        overlap, span = tiling["overlap"], tiling["span"]
        assert overlap % 4 == 0
        inputs = {"content": np.random.default_rng(0).random((1, 3, 40, span + 2 * overlap + 50), np.float32)}
        if plain.conditional:
            inputs["style"] = np.array([[0.2, 0.3, 0.6]], np.float32)
        (whole,) = session["whole"].run(None, inputs)
        inputs["statistics"] = session["measure"].run(None, inputs)[0]
        tile = inputs | {"content": inputs["content"][..., span:]}
        (right,) = session["tiles"].run(None, tile)
        np.testing.assert_allclose(right[..., overlap:], whole[..., span + overlap :], atol=1e-4)
        assert np.abs(right[..., 0] - whole[..., span]).max() > 1e-3  # this pixel sees the tile's edge
        inputs["statistics"] = inputs["statistics"] * 0.9
        assert np.abs(session["tiles"].run(None, inputs)[0] - whole).max() > 1e-3


def test_the_camera_is_painted_live(browser, exported):
    with Tab(browser, exported.as_uri(), permissions=["camera"]) as tab:
        tab.page.click("#camera")
        tab.page.wait_for_selector("#status:has-text('frames per second')", timeout=60_000)
        tab.page.click("#save")
        tab.wait()
        assert "full size" in tab.page.inner_text("#size")
        assert tab.page.inner_text("#save") == "Download"


def test_a_folder_is_a_website(browser, exported, tmp_path):
    folder = tmp_path / "site"
    weights_file = exported.with_name("slim.safetensors")
    result = run("export.py", weights_file, "--folder", folder, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        with Tab(browser, address) as tab:
            photo = exported.with_name("photo.png")
            tab.open(photo)
            assert tab.page.title() == "Style 0"
            assert worst(tab.painted(), stylize_tensor(network_of("slim"), content_of(photo))) < 2
            assert not [url for url in tab.requests if not url.startswith(("blob:", "data:", address))]
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_what_is_no_picture_is_said(browser, exported, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    picture(1, 8, 40).save(tmp_path / "flat.png")
    with Tab(browser, exported.as_uri()) as tab:
        for name, message in (
            ("text.png", "text.png is not a picture that this browser can read."),
            ("flat.png", "The picture is too small; its sides must be at least 17 pixels."),
        ):
            tab.page.set_input_files("#file", tmp_path / name)
            tab.page.wait_for_selector("#status.error")
            assert tab.status() == message


def test_every_control_has_a_label_and_keys(browser, exported):
    with Tab(browser, exported.as_uri()) as tab:
        tab.open(exported.with_name("photo.png"))
        unnamed = tab.page.eval_on_selector_all(
            "input, select, button, canvas",
            "all => all.filter(e => !(e.ariaLabel || e.labels?.length || e.innerText || e.ariaHidden)).map(e => e.id)",
        )
        assert unnamed == []
        tab.page.focus("#divider")
        tab.page.keyboard.press("End")
        clip = "getComputedStyle(document.getElementById('after')).clipPath"
        assert tab.page.evaluate(clip) == "inset(0px 0px 0px 100%)"
        tab.page.focus("#styles input:checked")
        tab.page.keyboard.press("ArrowRight")
        assert tab.page.eval_on_selector("#styles input:checked", "input => input.value") == "1"


def test_bad_input_of_a_page(tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    path, _ = saved("slim", tmp_path)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    (tmp_path / "ort.tgz").write_bytes(io.BytesIO(b"no archive").getvalue())
    monkeypatch.chdir(tmp_path)
    for words, message in (
        (["-o", "a.html", "--runtime", "ort.tgz"], "--runtime: ort.tgz: not the package onnxruntime-web 1."),
        (["-o", "a.html", "--runtime", "none.tgz"], "--runtime: none.tgz: not the package onnxruntime-web 1."),
        (["--folder", "site"], "--folder: site/index.html already exists; give --overwrite or another file"),
        (["--folder", "ort.tgz"], "--folder: ort.tgz: is a file"),
        (["--folder", "x", "-o", "a.html"], "argument -o/--output: not allowed with argument --folder"),
    ):
        monkeypatch.setattr("sys.argv", ["export.py", str(path), *words])
        with pytest.raises(SystemExit) as end:
            command.command_line()
        error = capsys.readouterr().err
        assert (end.value.code, error.count("\n")) == (2, 1)
        assert message in error
    assert not (tmp_path / "a.html").exists()
