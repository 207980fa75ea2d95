"""Clips and animations, through `infer.py` where a user meets them."""

import os
import re
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ENVIRONMENT, ROOT, picture, run, started, wait_until
from PIL import Image
from torch import nn

from fast_nst import image, networks, weights
from fast_nst.errors import UserError
from fast_nst.networks.layers import ConvBlock
from fast_nst.networks.slim import Noise
from fast_nst.stylize import camera, clip, hdr
from fast_nst.stylize.animation import stylize_animation
from fast_nst.stylize.frames import FramePainter
from fast_nst.stylize.image import memory_per_pixel
from fast_nst.stylize.options import Options
from fast_nst.stylize.video import stylize_video

av = pytest.importorskip("av")
TICKS = (0, 3, 4, 9, 16, 17, 30, 31, 32, 33, 47, 60)  # a variable rate, in units of 1 / 30 s


class Same(nn.Module):
    """A network that paints nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.unused = ConvBlock(3, 3, 3)

    def forward(self, content: torch.Tensor, style: None = None) -> torch.Tensor:
        return content * self.scale


def scene(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A frame: a smooth picture whose upper left corner is white; it moves to the left."""
    array = np.asarray(picture(1, height, 4 * width))[:, 2 * index : 2 * index + width].copy()
    array[: height // 4, : width // 4] = 255
    return array


def write_clip(
    path: Path, ticks: Sequence[int] = TICKS, sound: str | None = None, sides: tuple[int, int] = (48, 64),
    codec: str = "libx264", pix_fmt: str = "yuv420p", tags: dict[str, int] | None = None,
    frames: Sequence[np.ndarray] = (), kind: str = "rgb24", **options: Any,
) -> Path:  # fmt: skip
    """Write a clip with a frame at each of `ticks`, and sound of the codec `sound`."""
    with av.open(str(path), "w", options=options) as output:
        video = output.add_stream(codec, rate=30, options={"crf": "10"} if codec == "libx264" else {})
        video.height, video.width, video.pix_fmt = *sides, pix_fmt
        video.codec_context.time_base = Fraction(1, 30)
        for name, value in (tags or {}).items():
            setattr(video.codec_context, name, value)
        audio = output.add_stream(sound, rate=48000) if sound else None
        for index, tick in enumerate(ticks):
            array = frames[index] if len(frames) else scene(index, *sides)
            frame = av.VideoFrame.from_ndarray(array, format=kind)
            frame = frame.reformat(format=pix_fmt, dst_colorspace=(tags or {}).get("colorspace"))
            frame.pts, frame.time_base = tick, Fraction(1, 30)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        if audio is not None:
            samples = np.random.default_rng(0).normal(0, 0.1, (1, 48000 * (ticks[-1] + 1) // 30)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, 0
            resampled = av.AudioResampler(format=audio.format, layout="mono", rate=48000).resample(frame)
            for part in resampled:
                output.mux(audio.encode(part))
            output.mux(audio.encode(None))
    return path


def read(path: Path) -> tuple[list[Fraction], list[np.ndarray]]:
    """The times of a clip's frames in seconds, and the frames."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return [f.pts * Fraction(f.time_base) for f in frames], [f.to_ndarray(format="rgb24") for f in frames]


def sound_of(path: Path) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        return [(p.pts * Fraction(p.time_base), bytes(p)) for p in container.demux(audio=0) if p.size]


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "wave.safetensors"
    settings = {"name": "slim", "width": 4, "blocks": 1}
    weights.save(path, networks.build(**settings), {"network": settings, "style": {"names": ["wave"]}})
    return path


# What stays as it is


@pytest.mark.parametrize(("name", "sound", "target"), [
    ("clip.mp4", "aac", "out.mp4"), ("clip.mkv", "libopus", "out.mkv"), ("clip.mkv", "libopus", "out.webm"),
    ("clip.mov", "pcm_s16le", "out.mov"), ("clip.mkv", "libmp3lame", "out.mov"),
])  # fmt: skip
def test_times_and_sound_stay(tmp_path, name, sound, target):
    source = write_clip(tmp_path / name, sound=sound)
    assert stylize_video(Same(), source, tmp_path / target, Options(provenance="wave")) == len(TICKS)
    assert (clip.is_output(tmp_path / target), clip.is_output(source)) == (True, False)
    times, frames = read(tmp_path / target)
    before, originals = read(source)
    assert times == before
    assert sound_of(tmp_path / target) == sound_of(source)
    assert max(np.abs(a.astype(int) - b).mean() for a, b in zip(frames, originals, strict=True)) < 5


def test_a_variable_rate_is_kept_to_the_tick_and_the_last_frame_its_duration(tmp_path):
    source = write_clip(tmp_path / "clip.mp4")
    stylize_video(Same(), source, tmp_path / "out.mp4")
    assert read(tmp_path / "out.mp4")[0] == [Fraction(tick, 30) for tick in TICKS]
    with av.open(str(source)) as a, av.open(str(tmp_path / "out.mp4")) as b:
        assert a.streams.video[0].duration * a.streams.video[0].time_base == (
            b.streams.video[0].duration * b.streams.video[0].time_base
        )


def test_a_broadcast_begins_at_zero(tmp_path):
    source = write_clip(tmp_path / "clip.ts", [300 + tick for tick in TICKS])
    before = read(source)[0]
    assert before[0] > 9
    stylize_video(Same(), source, tmp_path / "out.mp4")
    after = read(tmp_path / "out.mp4")[0]
    assert after[0] < 0.1
    np.testing.assert_allclose(np.diff([float(t) for t in after]), np.diff([float(t) for t in before]), atol=1e-6)


def turn(path: Path, matrix: Sequence[int]) -> None:
    """Write the matrix (a, b, c, d) into the track header of an MP4: a point (x, y) goes to (ax + cy, bx + dy)."""
    data = bytearray(path.read_bytes())
    a, b, c, d = (value.to_bytes(4, "big", signed=True) for value in (entry << 16 for entry in matrix))
    zero, one = bytes(4), (1 << 30).to_bytes(4, "big")
    place = data.index(b"tkhd") + 4 + 40  # after version, times, identifiers, layer, volume
    data[place : place + 36] = a + b + zero + c + d + zero + zero + zero + one
    path.write_bytes(data)


@pytest.mark.parametrize(("matrix", "corner", "upright"), [
    ((0, 1, -1, 0), "upper right", (64, 48)),  # as a phone held upright writes: turn clockwise
    ((0, -1, 1, 0), "lower left", (64, 48)),
    ((-1, 0, 0, -1), "lower right", (48, 64)),
    ((1, 0, 0, 1), "upper left", (48, 64)),
])  # fmt: skip
def test_a_turned_clip_comes_out_upright(tmp_path, matrix, corner, upright):
    source = write_clip(tmp_path / "clip.mp4", range(3))
    turn(source, matrix)
    stylize_video(Same(), source, tmp_path / "out.mp4")
    frame = read(tmp_path / "out.mp4")[1][0]
    assert frame.shape[:2] == upright
    vertical, horizontal = corner.split()
    rows = slice(0, 8) if vertical == "upper" else slice(-8, None)
    columns = slice(0, 8) if horizontal == "left" else slice(-8, None)
    assert frame[rows, columns].min() > 240
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert next(container.decode(video=0)).rotation == 0


def test_ten_bits_and_other_formats_are_read(tmp_path):
    for codec, pix_fmt in (("libx265", "yuv420p10le"), ("ffv1", "yuv444p"), ("prores_ks", "yuv422p10le")):
        source = write_clip(tmp_path / f"{codec}.mkv", range(3), codec=codec, pix_fmt=pix_fmt)
        stylize_video(Same(), source, tmp_path / f"{codec}.mp4")
        with av.open(str(tmp_path / f"{codec}.mp4")) as container:
            assert container.streams.video[0].pix_fmt == "yuv420p"
        for frame, original in zip(read(tmp_path / f"{codec}.mp4")[1], read(source)[1], strict=True):
            assert np.abs(frame.astype(int) - original).mean() < 5, codec


@pytest.mark.parametrize("colorspace", [1, 5, 9])
def test_colors_do_not_shift(tmp_path, colorspace):
    color = np.full((48, 64, 3), (180, 60, 40), np.uint8)
    source = write_clip(tmp_path / "clip.mp4", range(3), frames=[color] * 3, tags={"colorspace": colorspace})
    painted = []
    network = Same()
    network.register_forward_hook(lambda module, inputs, output: painted.append(inputs[0].mean((0, 2, 3)) * 255))
    stylize_video(network, source, tmp_path / "out.mp4")
    np.testing.assert_allclose(painted[0].detach(), (180, 60, 40), atol=2)
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert frame.colorspace == {5: 6}.get(colorspace, colorspace)
        np.testing.assert_allclose(frame.to_ndarray(format="rgb24")[24, 32], (180, 60, 40), atol=3)


# High dynamic range


def test_transfer_functions_give_the_light_of_the_standards():
    """BT.2408-7, table 1: white of 203 cd/m2 is 58 % PQ and 75 % HLG; ST 2084: 1,000 cd/m2 is 75.18 %."""
    gray = lambda level: torch.full((1, 3, 1, 1), level)  # noqa: E731
    for level, light in ((0.5081, 100), (0.5807, 203), (0.7518, 1000), (1.0, 10000)):
        assert hdr.pq_to_light(gray(level)).mean().item() == pytest.approx(light, rel=2e-3)
        assert hdr.light_to_pq(gray(float(light))).mean().item() == pytest.approx(level, abs=1e-3)
    for level, light in ((0.75, 203), (1.0, 1000)):
        assert hdr.hlg_to_light(gray(level)).mean().item() == pytest.approx(light, rel=5e-3)


def test_the_roll_off_leaves_the_dark_and_fits_the_bright():
    light = torch.tensor([0.5, 5, 50, 80])
    torch.testing.assert_close(hdr.roll_off(light), light, rtol=1e-3, atol=1e-3)
    curve = hdr.roll_off(torch.arange(1.0, 1001))
    assert bool((curve.diff() > -1e-3).all())
    assert curve[-1].item() == pytest.approx(203, rel=1e-3)
    assert hdr.roll_off(torch.tensor([4000.0])).item() == pytest.approx(203, rel=1e-3)


def test_the_primaries_of_bt709_come_back():
    """A BT.709 red, as BT.2087 writes it in BT.2020, at 50 cd/m2."""
    red = torch.tensor([0.6274, 0.0691, 0.0164])[None, :, None, None] * 50
    result = hdr.to_standard_range(hdr.light_to_pq(red), 16).flatten()
    np.testing.assert_allclose(result, [(50 / 203) ** (1 / 2.4), 0, 0], atol=0.06)


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_is_tone_mapped_and_said(tmp_path, transfer, name):
    level = 0.5 if transfer == 16 else 0.6
    gray = np.full((48, 64, 3), round(level * 65535), np.uint16)
    tags = {"colorspace": 9, "color_primaries": 9, "color_trc": transfer}
    source = write_clip(
        tmp_path / "clip.mp4", range(3), codec="libx265", pix_fmt="yuv420p10le", tags=tags, frames=[gray] * 3,
        kind="rgb48le",
    )  # fmt: skip
    said: list[str] = []
    stylize_video(Same(), source, tmp_path / "out.mp4", on_note=said.append)
    assert said == [f"{source}: high dynamic range ({name}) becomes standard range"]
    expected = hdr.to_standard_range(torch.full((1, 3, 1, 1), level), transfer).mean().item()
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_trc, frame.color_primaries) == (1, 1, 1)
        assert frame.to_ndarray(format="rgb24").mean() / 255 == pytest.approx(expected, abs=0.015)


# Size and memory


@pytest.mark.parametrize(("sides", "size", "expected"), [
    ((47, 63), None, (48, 64)), ((48, 64), 33, (26, 34)), ((48, 64), 32, (24, 32)), ((48, 64), 128, (96, 128)),
])  # fmt: skip
def test_odd_sides_get_one_more_row_or_column(tmp_path, sides, size, expected):
    source = write_clip(tmp_path / "clip.mkv", range(3), sides=sides, codec="ffv1", pix_fmt="bgr0")
    painted = []
    network = Same()
    network.register_forward_hook(lambda module, inputs, output: painted.append(tuple(output.shape[2:])))
    stylize_video(network, source, tmp_path / "out.mp4", Options(size))
    assert read(tmp_path / "out.mp4")[1][0].shape[:2] == expected
    assert painted[0] == (sides if size is None else tuple(round(side * size / 64) for side in sides))


def test_a_long_clip_keeps_no_frames(tmp_path):
    source = write_clip(tmp_path / "clip.mp4", range(200), frames=[scene(0)] * 200)
    network, seen, most = Same(), [], 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal most
        seen.append(weakref.ref(inputs[0]))
        most = max(most, sum(reference() is not None for reference in seen))

    network.register_forward_hook(count)
    assert stylize_video(network, source, tmp_path / "out.mp4") == 200
    assert most <= 2


# Strokes that follow the camera


def crop(still: Image.Image, left: float, top: float, zoom: float = 1.0, turn: float = 0.0) -> torch.Tensor:
    """A frame of 160 x 120 pixels, zoomed and turned (degrees) around its center."""
    angle = np.deg2rad(turn)
    a, b = np.cos(angle) / zoom, -np.sin(angle) / zoom
    box = (a, b, left + 80 - 80 * a - 60 * b, -b, a, top + 60 + 80 * b - 60 * a)
    return image.to_tensor(still.transform((160, 120), Image.Transform.AFFINE, box, Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def still() -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (90, 120, 3), dtype=np.uint8)).resize((480, 360))


def corners(matrix: torch.Tensor) -> torch.Tensor:
    return camera.apply(matrix, torch.tensor([[0, 160, 0, 160], [0, 0, 120, 120]], dtype=torch.float64))


@pytest.mark.parametrize(("right", "down", "zoom", "turn"), [(4.3, 1.6, 1, 0), (0, 0, 1.01, 0), (1, 0.5, 1, -0.5)])
def test_the_camera_is_followed_without_drift(still, right, down, zoom, turn):
    """20 frames, over several references: the corners of each frame are where they are in the scene."""
    follower = camera.Camera()
    for index in range(20):
        matrix = follower.follow(crop(still, 10 + right * index, 20 + down * index, zoom**index, turn * index))
        angle = np.deg2rad(turn * index)
        a, b = np.cos(angle) / zoom**index, -np.sin(angle) / zoom**index
        linear = torch.tensor([[a, b], [-b, a]], dtype=torch.float64)
        middle = torch.tensor([[80.0], [60]], dtype=torch.float64)
        moved = torch.tensor([[right], [down]], dtype=torch.float64) * index
        if not (linear - torch.eye(2)).abs().max() < 0.1:
            break
        expected = corners(torch.cat([linear, middle + moved - linear @ middle], 1))
        assert (corners(matrix) - expected).abs().max() < 1, index


def test_much_zoom_begins_anew(still):
    follower = camera.Camera()
    for index in range(60):
        matrix = follower.follow(crop(still, 160, 120, 1.01**index))
        assert (matrix[:, :2] - torch.eye(2)).abs().max() < 0.21


def test_a_cut_moves_nothing(still):
    follower = camera.Camera()
    follower.follow(crop(still, 10, 20))
    assert torch.equal(follower.follow(image.to_tensor(picture(5, 120, 160))), camera.IDENTITY)
    first, second = (image.luma(crop(still, *at))[0] for at in ((0, 0), (200, 100)))
    assert camera.shifts(first, second)[1] < 0.1


def test_after_a_cut_nothing_is_interpolated(still):
    """Neither the fraction of a pixel nor the zoom of the scene before stays."""
    follower = camera.Camera()
    for index in range(6):
        tilted = follower.follow(crop(still, 10 + 1.3 * index, 20, 1.02**index))
    assert tilted[0, 0] < 0.95
    matrix = follower.follow(image.to_tensor(picture(5, 120, 160)))
    assert torch.equal(matrix[:, :2], camera.IDENTITY[:, :2])
    assert torch.equal(matrix, matrix.round())


def test_a_large_object_does_not_move_the_camera():
    """Blocks that show it and blocks that do not would together look like a zoom."""
    torch.manual_seed(0)
    background, thing = torch.rand(1, 3, 45, 80), torch.rand(1, 3, 30, 60)
    background, thing = (nn.functional.interpolate(x, scale_factor=4, mode="bicubic") for x in (background, thing))
    follower = camera.Camera()
    for index in range(6):
        left, frame = 10 + 2 * index, (background + 0.01 * torch.randn_like(background)).clamp(0, 1)
        frame[..., 60:180, left : left + 120] = thing[..., :120]
        assert (corners(follower.follow(frame)) - corners(camera.IDENTITY)).abs().max() < 0.5


@pytest.mark.parametrize("sides", [(17, 23), (3, 200), (32, 32), (48, 48)])
def test_noise_of_a_tiny_frame_is_no_motion(sides):
    torch.manual_seed(0)
    follower = camera.Camera()
    for _ in range(12):
        assert torch.equal(follower.follow(torch.rand(1, 3, *sides)), camera.IDENTITY)


def test_a_camera_that_trembles_moves_nothing(still):
    follower = camera.Camera()
    for shake in (0.0, 0.05, -0.05, 0.02):
        noise = 0.01 * torch.randn(1, 3, 120, 160)
        assert torch.equal(follower.follow(crop(still, 10 + shake, 20) + noise), camera.IDENTITY)


@pytest.mark.parametrize("sides", [(1, 1), (3, 50), (17, 33)])
def test_tiny_frames_are_followed_too(still, sides):
    follower = camera.Camera()
    for index in range(3):
        matrix = follower.follow(crop(still, 10 + index, 20)[..., : sides[0], : sides[1]])
        assert matrix.isfinite().all()
    assert sides == (1, 1) or abs(matrix[0, 2] - 2) < 0.3


@pytest.mark.parametrize("name", ["slim", "johnson"])
@pytest.mark.parametrize("move", [{"left": 15, "top": 23}, {"left": 12.5, "top": 20}, {"zoom": 1.02}, {"turn": 1.0}])
def test_strokes_move_with_the_scene(still, name, move):
    """Without it, the strided convolutions see the scene at another phase, and the noise stays in place."""
    torch.manual_seed(0)
    arguments = {"width": 8, "noise": 1.0, "fine_noise": 1.0} if name == "slim" else {"filters": (4, 8, 16)}
    network = networks.build(name, blocks=1, **arguments).eval().requires_grad_(False)
    frames = crop(still, 10, 20), crop(still, **{"left": 10, "top": 20, **move})
    alone = [network(frame).clamp(0, 1) for frame in frames]
    with FramePainter(network) as paint:
        followed = [paint(frame) for frame in frames]
        back = camera.inverse(paint.camera.matrix)
    assert torch.equal(followed[0], alone[0])  # a still camera changes nothing

    def changes(outputs: list[torch.Tensor]) -> float:
        first = camera.warp(outputs[1], back, 120, 160)
        return float((first - outputs[0])[..., 32:88, 32:120].abs().mean())

    assert changes(followed) < 0.5 * changes(alone)


def test_noise_is_where_it_was_after_a_clip(still):
    network = networks.build("slim", width=4, blocks=1, noise=1.0, fine_noise=1.0).eval()
    noises = [module for module in network.modules() if isinstance(module, Noise)]
    with FramePainter(network) as paint:
        paint(crop(still, 10, 20))
        paint(crop(still, 34, 28))
        assert all(noise.origin != (0, 0) for noise in noises)
    assert [noise.origin for noise in noises] == [(0, 0), (0, 0)]


def test_a_frame_that_fits_into_the_memory_stays_within_it(still):
    """Drawn in the scene, a frame takes more pixels; without memory for them it is painted as it is."""
    network = networks.build("slim", width=4, blocks=1).eval()
    frames, painted = [crop(still, 10, 20), crop(still, 15, 23, turn=3)], []
    network.register_forward_hook(lambda module, inputs, output: painted.append(tuple(output.shape[2:])))
    with FramePainter(network, Options(memory=memory_per_pixel(network) * 160 * 120)) as paint:
        paint.check_memory("clip.mp4", 160, 120)
        outputs = [paint(frame) for frame in frames]
    assert painted == [(120, 160)] * 2
    torch.testing.assert_close(outputs[1], network(frames[1]).detach().clamp(0, 1))


def test_strength_and_colors_are_those_of_the_frame(still):
    """A network that returns a flat gray: what comes from the photograph is not drawn twice."""
    flat = nn.Conv2d(3, 3, 1)
    nn.init.zeros_(flat.weight)
    nn.init.constant_(flat.bias, 0.5)
    second = crop(still, 12.5, 20.5)
    with FramePainter(flat, Options(strength=0.25)) as paint:
        paint(crop(still, 10, 20))
        output = paint(second)
    assert not torch.equal(paint.camera.matrix, camera.IDENTITY)
    torch.testing.assert_close(output, 0.75 * second + 0.125)


# Animations


def write_animation(path: Path, mode: str = "RGB", loop: int | None = 3) -> Path:
    frames = [Image.fromarray(scene(index)).convert(mode) for index in range(4)]
    if mode == "RGBA":
        for frame in frames:
            frame.putalpha(Image.new("L", frame.size, 255))
            frame.paste((0, 0, 0, 0), (0, 24, 32, 48))
    options = {"lossless": True} if path.suffix == ".webp" else {}
    more = {} if loop is None else {"loop": loop}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[40, 200, 90, 70], **options, **more)
    return path


def read_animation(path: Path) -> tuple[list[float], list[np.ndarray], int | None]:
    with Image.open(path) as animation:
        durations, frames = [], []
        for index in range(animation.n_frames):
            animation.seek(index)
            animation.load()
            durations.append(animation.info["duration"])
            frames.append(np.asarray(animation.convert("RGBA")).astype(int))
        return durations, frames, animation.info.get("loop")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("source", [".gif", ".webp", ".png"])
@pytest.mark.parametrize("target", [".gif", ".webp", ".png"])
def test_animations_keep_durations_loop_and_transparency(tmp_path, mode, source, target):
    file = write_animation(tmp_path / f"in{source}", mode)
    assert stylize_animation(Same(), file, tmp_path / f"out{target}", Options(provenance="wave")) == 4
    assert image.is_output(tmp_path / f"out{target}")
    assert not image.is_output(file)
    durations, frames, loop = read_animation(tmp_path / f"out{target}")
    before = read_animation(file)
    assert (durations, loop) == (before[0], before[2])
    for frame, original in zip(frames, before[1], strict=True):
        assert np.array_equal(frame[..., 3], original[..., 3])
        assert (np.abs(frame - original)[original[..., 3] > 0]).mean() < 8


def test_an_animation_that_plays_once_still_does(tmp_path):
    file = write_animation(tmp_path / "in.gif", loop=None)
    stylize_animation(Same(), file, tmp_path / "out.gif")
    assert read_animation(tmp_path / "out.gif")[2] is None


# Through the function: what must not happen


def test_another_thread_can_stylize_a_clip(tmp_path):
    source = write_clip(tmp_path / "clip.mp4", range(3))
    with ThreadPoolExecutor(1) as pool:  # signals belong to the main thread
        assert pool.submit(stylize_video, Same(), source, tmp_path / "out.mp4").result() == 3


def test_sound_that_the_target_cannot_hold_is_one_line(tmp_path):
    source = write_clip(tmp_path / "clip.mp4", range(3), sound="aac")
    with pytest.raises(UserError, match=r"out.webm: cannot hold the clip's sound \(aac\); give -o FILE.mkv"):
        stylize_video(Same(), source, tmp_path / "out.webm")
    assert not (tmp_path / "out.webm").exists()


def test_a_failure_in_the_middle_leaves_nothing(tmp_path):
    source = write_clip(tmp_path / "clip.mp4")
    network, calls = Same(), []

    def fail(*_: object) -> None:
        calls.append(None)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("no memory")

    network.register_forward_pre_hook(fail)
    (tmp_path / "out.mp4").write_bytes(b"old")
    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        stylize_video(network, source, tmp_path / "out.mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"old"


# Through the command


def infer(weights_file: Path, *arguments: object, cwd: Path) -> tuple[int, str, list[str]]:
    """The exit code of `infer.py`, its output, and the lines of its errors."""
    result = run("infer.py", weights_file, *arguments, cwd=cwd)
    return result.returncode, result.stdout.strip(), result.stderr.strip().splitlines()


def test_infer_paints_a_clip_with_the_options_of_a_photograph(tmp_path, weights_file):
    source = write_clip(tmp_path / "clip.mp4", range(4), sound="aac")
    assert infer(weights_file, "clip.mp4", cwd=tmp_path) == (0, "clip_wave.mp4", [])
    plain = read(tmp_path / "clip_wave.mp4")[1][2].astype(int)
    assert np.abs(plain - read(source)[1][2]).mean() > 5
    assert sound_of(tmp_path / "clip_wave.mp4") == sound_of(source)
    options = ["--strength", "0", "--size", "32", "--device", "cpu", "--precision", "float32", "--keep-colors"]
    assert infer(weights_file, *options, "clip.mp4", "-o", "out.mkv", cwd=tmp_path) == (0, "out.mkv", [])
    small = read(tmp_path / "out.mkv")[1][2]
    assert small.shape == (24, 32, 3)
    shrunk = np.asarray(Image.fromarray(read(source)[1][2]).resize((32, 24), Image.Resampling.BICUBIC))
    assert np.abs(small.astype(int) - shrunk).mean() < 12


def test_an_output_is_replaced_only_with_overwrite(tmp_path, weights_file):
    write_clip(tmp_path / "clip.mp4", range(2))
    assert infer(weights_file, "clip.mp4", cwd=tmp_path)[0] == 0
    code, _, errors = infer(weights_file, "clip.mp4", cwd=tmp_path)
    assert (code, len(errors)) == (2, 1)
    assert "clip_wave.mp4: exists already; give --overwrite" in errors[0]
    assert infer(weights_file, "clip.mp4", "--overwrite", cwd=tmp_path)[0] == 0
    write_clip(tmp_path / "clip_wave.mp4", range(2))  # a clip of mine
    before = (tmp_path / "clip_wave.mp4").read_bytes()
    code, _, errors = infer(weights_file, "clip.mp4", "--overwrite", cwd=tmp_path)
    assert (code, len(errors)) == (2, 1)
    assert "not an output of infer.py" in errors[0]
    assert (tmp_path / "clip_wave.mp4").read_bytes() == before


def test_photographs_clips_and_animations_in_one_call(tmp_path, weights_file):
    write_clip(tmp_path / "clip.avi", range(2), codec="mpeg4")
    write_animation(tmp_path / "moving.gif")
    picture(1).save(tmp_path / "photo.png")
    code, said, errors = infer(weights_file, "clip.avi", "moving.gif", "photo.png", "-o", "out/", cwd=tmp_path)
    assert (code, errors) == (0, [])
    assert said == "3 of 3 files stylized, into out"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"clip.mp4", "moving.gif", "photo.png"}
    assert read_animation(tmp_path / "out" / "moving.gif")[0] == [40, 200, 90, 70]
    code, said, errors = infer(weights_file, "moving.gif", "-o", "still.jpg", cwd=tmp_path)
    assert (code, said) == (0, "still.jpg")
    assert errors == ["moving.gif: several frames or pages; only the first one is stylized"]


def faulty_clip(folder: Path, fault: str) -> Path:
    """Write clip.mp4 with `fault`."""
    path = folder / "clip.mp4"
    if fault == "sound only":
        with av.open(str(path), "w") as output:
            audio = output.add_stream("aac", rate=48000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 48000
            output.mux(audio.encode(frame))
            output.mux(audio.encode(None))
        return path
    options = {} if fault == "cut header" else {"movflags": "+faststart"}
    write_clip(path, range(60), sides=(96, 128), **options)
    data = path.read_bytes()
    frames = data.index(b"mdat") + 4
    path.write_bytes({
        "cut header": data[: len(data) // 2], "cut frames": data[: frames + (len(data) - frames) * 2 // 3],
        "no frames": data[:frames], "no codec": data.replace(b"avc1", b"xyz1"), "empty": b"", "text": b"a letter",
        "noise": data[: frames + 4000] + np.random.default_rng(0).bytes(3000) + data[frames + 7000 :],
    }[fault])  # fmt: skip
    return path


@pytest.mark.parametrize(("fault", "message"), [
    ("cut header", "clip.mp4: not a video, or damaged"), ("empty", "clip.mp4: not a video, or damaged"),
    ("text", "clip.mp4: not a video, or damaged"), ("no frames", "clip.mp4: has no frame that can be decoded"),
    ("sound only", "clip.mp4: has no video stream"), ("no codec", "clip.mp4: its video codec cannot be decoded"),
])  # fmt: skip
def test_a_clip_that_cannot_be_read_is_one_line_and_leaves_the_old_output(tmp_path, weights_file, fault, message):
    faulty_clip(tmp_path, fault)
    (tmp_path / "out.mp4").write_bytes(b"old")
    code, said, errors = infer(weights_file, "clip.mp4", "-o", "out.mp4", "--overwrite", cwd=tmp_path)
    assert (code, said, len(errors)) == (2, "", 1), errors
    assert message in errors[0]
    assert (tmp_path / "out.mp4").read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", "out.mp4"}


@pytest.mark.parametrize(("fault", "message"), [
    ("cut frames", r"is cut short, after 1\.\d of 2\.0 seconds"), ("noise", r"\d+ damaged packets were left out"),
])  # fmt: skip
def test_of_a_damaged_clip_what_can_be_read_is_kept_and_counted(tmp_path, weights_file, fault, message):
    faulty_clip(tmp_path, fault)
    code, _, errors = infer(weights_file, "clip.mp4", "-o", "out.mp4", cwd=tmp_path)
    assert (code, len(errors)) == (2, 1), errors
    found = re.fullmatch(
        rf"error: clip\.mp4: {message}; out\.mp4 has the (\d+) frames that could be read", errors[0]
    )  # fmt: skip
    assert found, errors
    assert 10 < len(read(tmp_path / "out.mp4")[0]) == int(found[1]) < 60


def test_a_wrong_target_is_one_line(tmp_path, weights_file):
    write_clip(tmp_path / "clip.mp4", range(2))
    write_animation(tmp_path / "moving.gif")
    for arguments, message in (
        (["clip.mp4", "-o", "out.png"], "allowed for a clip: .mp4"), (["clip.mp4", "-o", "clip.mp4"], "an input"),
        (["none.mp4"], "none.mp4: no such file"), (["moving.gif", "-o", "out.mp4"], "cannot write this format"),
        (["clip.mp4", "--mask", "mask.png"], "--mask: is for photographs; clip.mp4 is a clip"),
        (["clip.mp4", "--max-memory", "0.00001"], "frames of 64 x 48; allowed: up to"),
        (["moving.gif", "--format", "png", "--depth", "16"], "8 bits a channel; leave out --depth"),
    ):  # fmt: skip
        code, _, errors = infer(weights_file, *arguments, cwd=tmp_path)
        assert (code, len(errors), message in errors[0]) == (2, 1, True), errors
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", "moving.gif"}


def command(weights_file: Path, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / "infer.py"), str(weights_file), *map(str, arguments)]


def test_without_pyav_one_line_names_the_extra(tmp_path, weights_file):
    write_clip(tmp_path / "clip.mp4", range(2))
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "av.py").write_text("raise ImportError('no PyAV here')")
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{tmp_path / 'none'}{os.pathsep}{ROOT}"}
    result = subprocess.run(
        command(weights_file, "clip.mp4"), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (2, "error: video: needs PyAV; pip install fast-nst[video]\n")


def test_a_full_disk_in_the_middle_leaves_the_old_output(tmp_path, weights_file):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (96, 128, 3), dtype=np.uint8) for _ in range(40)]
    write_clip(tmp_path / "clip.mp4", range(40), sides=(96, 128), frames=noise)
    (tmp_path / "out.mp4").write_bytes(b"old")
    arguments = command(weights_file, "clip.mp4", "-o", "out.mp4", "--overwrite", "--strength", "0")
    full = ["bash", "-c", 'ulimit -f 64; exec "$@"', "bash", *arguments]  # no file above 64 kB
    result = subprocess.run(full, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (result.returncode, len(result.stderr.strip().splitlines())) == (2, 1), result.stderr
    assert "out.mp4: cannot be written" in result.stderr
    assert (tmp_path / "out.mp4").read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", "out.mp4"}


def test_ctrl_c_leaves_a_playable_file_and_says_how_much_is_in_it(tmp_path, weights_file):
    write_clip(tmp_path / "clip.mp4", range(400), frames=[scene(0)] * 400, sound="aac")
    arguments = command(weights_file, "clip.mp4", "-o", "out.mp4", "--size", "320")
    with started("infer.py", *arguments[2:], cwd=tmp_path) as process:
        wait_until(lambda: any(path.stat().st_size for path in tmp_path.glob(".out-*.mp4")), process)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    found = re.fullmatch(r"interrupted: out\.mp4 has the first (\d+) frames of clip\.mp4\n", errors)
    assert process.returncode == 130
    assert found, errors
    times, _ = read(tmp_path / "out.mp4")
    assert times == [Fraction(tick, 30) for tick in range(int(found[1]))]
    assert 0 < len(times) < 400
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", "out.mp4"}
