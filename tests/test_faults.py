"""A user's mistakes, through the real commands: one clear line, exit code 2, and nothing else touched."""

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import ENVIRONMENT, LOSS, ROOT, picture, random_vgg_state, run, small
from PIL import Image

from fast_nst import networks, weights
from fast_nst.commands import cli
from fast_nst.image import ImageError


class Bomb:
    """What a pickle may do: run a command when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("it-ran",)


@pytest.fixture(scope="module")
def faulty(trained, workplace: Path) -> Path:
    """A folder of every kind of bad file."""
    folder = workplace / "faulty"
    folder.mkdir()
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("a letter, not a picture")
    for name, format_ in (("cut.jpg", "JPEG"), ("cut.png", "PNG")):
        buffer = io.BytesIO()
        picture(1, 200, 200).save(buffer, format_)
        (folder / name).write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    Image.new("1", (30000, 30000)).save(folder / "bomb.png")
    Image.new("1", (2000, 2000)).save(folder / "large.png")
    picture(5, 64, 2).save(folder / "narrow.png")
    safetensors.torch.save_file(random_vgg_state("vgg19", 8), folder / "vgg.safetensors")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("RGB", (30000, 30)).save(folder / "thread.png")
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    good = trained[0] / "my painting.safetensors"
    (folder / "cut.safetensors").write_bytes(good.read_bytes()[:5000])
    tensors = safetensors.torch.load_file(good)

    def write(name: str, **change: object) -> None:
        metadata = {**weights.describe(good), **change}
        safetensors.torch.save_file(tensors, folder / name, {"fast_nst": json.dumps(metadata)})

    write("newer.safetensors", format_version=99)
    write("other.safetensors", network={"name": "johnson"})
    write("huge.safetensors", network={"name": "slim", "width": 10**9})
    wide = {"name": "slim", "width": 10, "blocks": 1}
    weights.save(folder / "wide.safetensors", networks.build(**wide), {"network": wide})
    write("nonsense.safetensors", style=[])
    broken = networks.build(**wide)
    broken.up[0].conv.weight.data.fill_(float("nan"))
    weights.save(folder / "nan.safetensors", broken, {"network": wide})
    rgb = {"name": "johnson", "pixels": "rgb255"}
    weights.save(folder / "rgb255.safetensors", networks.build(**rgb), {"network": rgb})
    mine = workplace / "mine"  # where there are good pictures too
    (mine / "there" / "folder.jpg.safetensors").mkdir(parents=True)
    weights.save(mine / "there" / "b.safetensors", networks.build(**wide), {"network": wide})
    for name in ("other/preview.png", "own/cat.png", "own/cat_my painting.png", "keep_unfinished.png"):
        (mine / name).parent.mkdir(exist_ok=True)
        picture(5).save(mine / name)
    (mine / "other" / "config.yaml").write_text("mine: true")
    foreign = workplace / "foreign"
    (foreign / "others").mkdir(parents=True)
    (foreign / "others" / "clip.mp4").write_bytes(b"no video")
    (foreign / "clip.MOV").write_bytes(b"\0\0\0\x14ftypqt  \0\0\0\0qt  ")
    (foreign / "renamed.jpg").write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0mp42")
    picture(2).save(foreign / "raw.NEF", "TIFF")
    (folder / "pipes").mkdir()
    os.mkfifo(folder / "pipes" / "pipe.png")
    (folder / "code.pth").write_bytes(pickle.dumps(Bomb()))
    torch.save(networks.build("slim").state_dict(), folder / "stranger.pth")
    locked = folder / "locked.png"
    picture(2).save(locked)
    locked.chmod(0)
    return folder


def train(*overrides: str) -> tuple[str, list[str]]:
    return "train.py", ["loss_network.weights=tiny.safetensors", "data=folder", "data.root=photographs", *overrides]


def infer(*arguments: str) -> tuple[str, list[str]]:
    return "infer.py", ["run/my painting.safetensors", *arguments]


PHOTO = "photographs/photo 0 (copy)=.png"
OPTIONAL = [
    "loss.tv_weight=2", "loss.light_weight=0.5", "loss.jitter=2", "loss.tv_reduction=half_sum",
    "loss.pixel_range=255",
]  # fmt: skip
FAULTS = {
    "unknown style": (*train("style=mona_lisa"), "starry_night"),
    "missing style": (*train("style.image=none.jpg"), "none.jpg: no such file"),
    "empty style": (*train("style.image=faulty/empty.jpg"), "empty.jpg: not a picture"),
    "text as style": (*train("style.image=faulty/text.jpg"), "text.jpg: not a picture"),
    "truncated JPEG": (*train("style.image=faulty/cut.jpg"), "cut.jpg: damaged picture"),
    "truncated PNG": (*train("style.image=faulty/cut.png"), "cut.png: damaged picture"),
    "decompression bomb": (*train("style.image=faulty/bomb.png"), "allowed: up to 179 megapixels"),
    "1x1 style": (*train("style.image=faulty/dot.png", "style.size=null"), "1x1 pixels are too few"),
    "30000x30 style": (*train("style.image=faulty/thread.png"), "30000x30 pixels are too long and narrow"),
    "folder as style": (*train("style.image=faulty/folder.jpg"), "folder.jpg: holds no picture"),
    "file as content": (*train("data.root='my painting.png'"), "is a file; give the folder"),
    "no folder": (*train("data.root=nowhere"), "data.root: nowhere: no such folder"),
    "too many damaged": (*train("data.root=faulty"), "more than max_unreadable allows"),
    "unknown key": (*train("loss.style_wait=3"), "style_wait"),
    "unknown key with a plus": (*train("+data.sise=64"), "+data.sise: unknown key"),
    "a precision of no use": (*train("trainer.precision=16-true"), "trainer.precision: got '16-true'"),
    "a name with a folder": (*train("style.name=a/b"), "style.name: got 'a/b'"),
    "after tables in the place of others": (
        *train("loss=lengstrom", "loss.content_layers={relu3_3: 1}", "loss.style_layers={relu1_2: 1}",
               "data.workers=foo"),
        "data.workers: got 'foo'",  # lengstrom's own layers would be missed before that
    ),
    "after all that a loss may be given": (
        *train("loss=johnson2016", *OPTIONAL, "loss.content_reduction=half_sum", "data.workers=foo"),
        "data.workers: got 'foo'",
    ),
    "after all that the default loss may be given": (
        *train(*OPTIONAL, "loss.content_reduction=mean", "data.workers=foo"), "data.workers: got 'foo'"
    ),
    "another optimizer's checkpoint": (
        *train("style.image='my painting.png'", "ckpt_path=run/checkpoints/last.ckpt", "optimizer=adam"),
        "optimizer.name: muon before, adam now",
    ),
    "an experiment of the other script": (*train("experiment=texture_synthesis"), "not an experiment of train.py"),
    "and the reverse": ("optimize.py", ["experiment=lengstrom"], "not an experiment of optimize.py, which has no data"),
    "an option with dashes": (*train("--style=cubist"), "--style: no such option; write settings without dashes"),
    "no style": (*train("style=null"), "style: got null; allowed: cubist"),
    "a list of networks": (*train("network=[1,2]"), "network: got [1,2]; allowed: conditional"),
    "no style image": (*train("style.image=null"), "style.image: got None; allowed: a path"),
    "a list of style images": (*train("style.image=[a,b]"), "a: no such file"),
    "a switch as output_dir": (*train("output_dir=true"), "output_dir: got True; allowed: a path; to use it"),
    "a table that is a number": (*train("loss.style_layers=7"), "loss.style_layers: got 7; allowed: {relu1_2: "),
    "a further table that is a number": (*train("loss.style_scales=7"), "loss.style_scales"),
    "a table of no loss": (*train("loss.light_scales={2: 1}"), "unknown key loss.light_scales; --help lists"),
    "a plus and a word like a key": (*train("+loss.tv_wait=1"), "+loss.tv_wait: unknown key"),
    "a table that is none": (*train("loss.content_layers=null"), "loss.content_layers: got None; allowed: {relu"),
    "a list as a value": (*train("loss.style_weight=[1,2]"), "loss.style_weight: got [1, 2]; allowed: a single value"),
    "a setting left out": (*train("~trainer.max_steps"), "~trainer.max_steps: cannot be left out"),
    "a bracket left out": (*train("loss.style_scales={1: 1"), "error: loss.style_scales={1: 1: not key=value"),
    "a style unknown to a series": (
        "train.py", ["-m", "style=cubist,mona_lisa"], "style: got mona_lisa; allowed: cubist, ink_wash, "
    ),
    "figures over a photograph": ("benchmark.py", ["data", "--json", PHOTO], "give a name that ends in .json"),
    "a photograph too narrow": (
        "optimize.py", ["content=faulty/narrow.png", "size=64"], "2 pixels; allowed: 32 or more, which takes size=1024"
    ),
    "a photograph too small for the loss": (
        "optimize.py",
        [f"content='{PHOTO}'", "size=48", "loss.style_scales={8: 1}", "output=o.png"],
        "size: got 48, which makes this photograph's shorter side 36 pixels; allowed: 64 or more, which takes size=86",
    ),
    "a format too small": (*infer("faulty/narrow.png", "--size", "16500", "-o", "a.webp"), "in a .webp: up to 16383"),
    "a word for a switch": ("optimize.py", ["overwrite=no"], "overwrite: got 'no'; allowed: true, false"),
    "a switch of a network": (*train("network=johnson", "network.bias=no"), "network.bias: got 'no'"),
    "a name for a folder above": (*train("style.name=.."), "style.name: got '..'"),
    "half precision on a CPU": (*train("trainer.precision=16-mixed", "trainer.accelerator=cpu"), "allowed on a CPU"),
    "workers of no number": (*train("data.workers=foo"), "data.workers: got 'foo'; allowed: auto, or"),
    "a root for leaves": ("train.py", ["data.root=photographs"], "data.root: data=synthetic, the default, draws"),
    "a count for a folder": (*train("data.count=50"), "data.count: allowed only with data=synthetic; folder"),
    "no root": ("train.py", ["data=coco"], "data.root: data=folder needs data.root=DIR"),
    "a huge style": (*train("style.size=100000"), "style.size: got 100000; allowed: an integer from 16 to 8192"),
    "a folder of no mean": (
        *train(
            "loss_network=vgg19", "loss_network.weights=faulty/vgg.safetensors", "loss_network.unit_mean=nowhere",
            "loss.content_layers={relu2_2: 1}", "loss.style_layers={relu3_4: 1}",
        ),
        "loss_network.unit_mean: nowhere: no such folder",
    ),
    "another loss network's file": (
        *train("loss_network=vgg16", "loss_network.weights=faulty/vgg.safetensors"), "which vgg16 lacks; give a file"
    ),
    "a layer that compact lacks": (*train("loss=lengstrom"), "loss_network=vgg16 and vgg19 have more"),
    "a layer that the file does not reach": (
        *train("loss_network=vgg19", "loss_network.weights=faulty/vgg.safetensors"),
        "the deepest layer in the file is relu3_4",
    ),
    "another network's file for compact": (
        *train("loss_network.weights='run/my painting.safetensors'"), "not made by scripts/assets/distill.py"
    ),
    "a repainting by no device": (
        "optimize.py", ["content='my painting.png'", "output=o.png", "device=abacus"], "device: got 'abacus'"
    ),
    "optimize.py's content is its output": (
        "optimize.py",
        ["content='my painting.png'", "output='my painting.png'", "overwrite=true"],
        "output: my painting.png: is also an input, which the result would overwrite",
    ),
    "optimize.py's painting is its output": (
        "optimize.py",
        ["style.image='my painting.png'", f"content='{PHOTO}'", "output='my painting.png'", "overwrite=true"],
        "result would overwrite",
    ),
    "sheet.py's photograph is its sheet": (
        "sheet.py",
        ["my painting.png", "--weights", "run/my painting.safetensors", "-o", "./my painting.png", "--overwrite"],
        "result would overwrite",
    ),
    "evaluate.py's photograph is its sheet": (
        "evaluate.py",
        ["run/my painting.safetensors", "--content", "photographs", "--sheet", "photographs/photo 0 (copy)=.png",
         "--overwrite"],
        "result would overwrite",
    ),
    "an empty folder": (*train("output_dir="), "output_dir: got an empty name"),
    "more steps than there are": (*train(f"trainer.max_steps={10**23}"), "trainer.max_steps: got 1000000000"),
    "a constant as a key": (*train("data.ratio=[1,2]"), "unknown key data.ratio"),
    "a number in a blend": (*train("style.blend={2024: 1}"), "2024: no such file"),
    "a time that never comes": (*train("trainer.max_time=99999999999:00:00:00"), "trainer.max_time: got"),
    "a machine of another kind": (*train("trainer.accelerator=tpu"), "error: trainer: "),
    "nothing to learn": (*train("loss.content_weight=0", "loss.style_layers={}"), "loss.style_layers: got {}"),
    "no size": (*train("loss.style_scales={}"), "loss.style_scales: got {}; allowed: at least one"),
    "a width beyond measure": (*train("network.width=8000"), "network.width: got 8000; allowed: an integer"),
    "a name too long for a file": (*train(f"style.name={'a' * 245}"), "style.name: got aaaaaaaaaaaaaaaaaaaa…; allowed"),
    "a folder for a file": (*train("style.name=folder.jpg", "output_dir=mine/there"), "safetensors: is a folder"),
    "weights that are there": (*train("style.name=b", "output_dir=mine/there"), "b.safetensors already exists"),
    "settings that are no run's": (*train("style.name=c", "output_dir=mine/other"), "config.yaml already exists"),
    "a painting in a place of the run's": (
        *train("style.image=mine/other/preview.png", "output_dir=mine/other", "ckpt_path=auto"), "would overwrite"
    ),
    "a start in a place of the run's": (
        *train("style.name=b", "output_dir=mine/there", "ckpt_path=auto", "init_from=mine/there/b.safetensors"),
        "result would overwrite",
    ),
    "a start with other pixels": (
        *train("network=johnson", "init_from=faulty/rgb255.safetensors"), "its pixels are 'rgb255'"
    ),
    "another style for a complete run": (
        *train(
            "data.size=32", "data.val_size=32", "data.batch_size=2", "network.width=8", "network.blocks=1",
            "trainer.max_steps=6", "style.image='my painting.png'", "output_dir=run", "ckpt_path=auto", *LOSS,
            "loss.style_weight=3",
        ),
        "ckpt_path: the run is complete, and the settings differ (loss.style_weight: 7 before, 3 now); start a new run",
    ),
    "a picture where an unfinished one goes": (
        "optimize.py", [f"content='{PHOTO}'", "output=mine/keep.png"], "keep_unfinished.png: unfinished results"
    ),
    "a start that is optimize.py's output": (
        "optimize.py",
        [f"content='{PHOTO}'", "init='my painting.png'", "output='my painting.png'", "overwrite=true"],
        "result would overwrite",
    ),
    "no number in a network": ("infer.py", ["faulty/nan.safetensors", PHOTO], "conv.weight is NaN or infinite"),
    "a description of nonsense": ("infer.py", ["faulty/nonsense.safetensors", PHOTO], "metadata cannot be read"),
    "a photograph called like a result": (
        *infer("mine/own/cat.png", "--overwrite"), "cat_my painting.png: not an output of infer.py"
    ),
    "a clip": (*infer("foreign/clip.MOV"), "clip.MOV: not a video, or damaged"),
    "a RAW photograph": (*infer("foreign/raw.NEF"), "raw.NEF: a RAW photograph, not a picture; export as JPEG or TIFF"),
    "a clip under another name": (*infer("foreign/renamed.jpg"), "renamed.jpg: seems to be a video"),
    "a folder of other files": (*train("data.root=foreign/others"), "others: holds no picture (1 video (.mp4): paint "),
    "pipes alone": (*infer("faulty/pipes"), "pipe.png: is not a regular file"),
    "bad override": (*train("loss.style_weight=a=b(c"), "error: loss.style_weight=a=b(c: not key=value as Hydra"),
    "a path with signs": (*train("style.image=none (c)=é.jpg"), "error: none (c)=é.jpg: no such file"),
    "a home folder": (*train("style.image=~/none.jpg"), f"{Path.home()}/none.jpg: no such file"),
    "wrong type": (*train("data.batch_size=four"), "data.batch_size: got 'four'"),
    "negative weight": (*train("loss.style_weight=-1"), "loss.style_weight: got -1"),
    "weights all zero": (*train("loss.style_weight=0", "loss.content_weight=0"), "at least one must be positive"),
    "a time in minutes": (*train("trainer.max_time=30"), "trainer.max_time: got 30; allowed: DD:HH:MM:SS"),
    "a start that is missing": (*train("init_from=nowhere.safetensors"), "nowhere.safetensors"),
    "less than no light": (*train("loss.light_weight=-1"), "loss.light_weight: got -1; allowed: a number >= 0"),
    "some light": (*train("loss=johnson2016", "loss.light_weight=some"), "loss.light_weight: got 'some'; allowed: a"),
    "lights for one": (*train("loss.light_weight=[1,2]"), "loss.light_weight: got [1, 2]; allowed: a single value"),
    "less of a size": (*train("loss.style_scales={4: -1}"), "loss.style_scales.4: got -1; allowed: a number >= 0"),
    "style at no size": (*train("loss.style_scales={0: 1}"), "loss.style_scales: got the divisor 0; allowed: integers"),
    "a sum in a relative loss": (
        *train("loss.content_reduction=half_sum"), "got 'half_sum'; allowed with normalize=true"
    ),
    "a jitter of halves": (*train("loss.jitter=1.5"), "loss.jitter: got 1.5; allowed: an integer >= 0"),
    "a case of a benchmark": ("benchmark.py", ["train", "--cases", "slim:tiny"], "--cases: got 'tiny'; allowed: "),
    "no time": (*train("trainer.max_time=00:00:00:00"), "trainer.max_time: got"),
    "a start of another shape": (
        *train("init_from='faulty/wide.safetensors'"), "wide.safetensors: a different network from this run's: "
    ),
    "zero steps": (*train("trainer.max_steps=0"), "trainer.max_steps: got 0"),
    "crops too small": (
        *train("data.size=64", "loss.style_scales={32: 1}", "loss.jitter=0"),
        "data.size: got 64; the loss at its coarsest scale needs 256 or more",
    ),
    "crops too small once moved": (
        *train("data.size=64", "loss.jitter=60"), "data.size: got 64; the loss at its coarsest scale needs 68 or more"
    ),
    "held-out squares too small": (
        *train("data.val_size=16", "loss.content_scales={4: 1}"),
        "data.val_size: got 16; the loss at its coarsest scale needs 32 or more",
    ),
    "after squares that are large enough": (
        *train("data.size=38", "data.val_size=32", "loss.content_scales={4: 1}", "loss.jitter=6", "data.workers=foo"),
        "data.workers: got 'foo'",
    ),
    "bad layer": (*train("loss.content_layers={relu9_9: 1}"), "layer 'relu9_9' does not exist"),
    "no checkpoint": (*train("ckpt_path=none.ckpt"), "ckpt_path: none.ckpt: no such checkpoint"),
    "weights as checkpoint": (*train("ckpt_path='run/my painting.safetensors'"), "not a checkpoint of"),
    "nowhere to write": (*train("output_dir=/proc/run"), "/proc/run/config.yaml: cannot be written"),
    "more memory than there is": (*train("data.batch_size=6", "data.size=100000"), "100000 x 100000 pixels takes"),
    "no GPU": (*train("trainer.accelerator=gpu"), "trainer: "),
    "code as loss network": (*train("loss_network=vgg19", "loss_network.weights=faulty/code.pth"), "cannot be read"),
    "missing photograph": (*infer("none.jpg"), "none.jpg: no such file"),
    "damaged photograph": (*infer("faulty/cut.png"), "cut.png: damaged picture"),
    "no photograph": ("infer.py", ["run/my painting.safetensors"], "WEIGHTS, INPUT: give a weights file"),
    "an empty name": (*infer(""), "INPUT, -o, --mask: got an empty name"),
    "nowhere for results": (*infer("photographs", "-o", "/proc/a"), "cannot be written"),
    "no picture in a folder": (*infer("run/checkpoints"), "INPUT: run/checkpoints: holds no picture"),
    "a file as output_dir": (*train("output_dir=tiny.safetensors"), "output_dir: tiny.safetensors: is a file"),
    "bad strength": (*infer(PHOTO, "--strength", "7"), "strength: got 7"),
    "no such device": (*infer(PHOTO, "--device", "abacus"), "--device: got 'abacus'"),
    "bad output format": (*infer(PHOTO, "-o", "a.xyz"), "a.xyz: cannot write"),
    "output is input": (*infer(PHOTO, "-o", PHOTO, "--overwrite"), "result would overwrite"),
    "output exists": (*infer(PHOTO, "-o", "my painting.png"), "exists already; give --overwrite"),
    "file for several": (*infer("photographs", "-o", "a.png"), "is one file, and there are 8 photographs"),
    "nowhere for a result": (*infer(PHOTO, "-o", "/proc/a.png"), "/proc/a.png: cannot be written"),
    "not our weights": ("infer.py", ["tiny.safetensors", PHOTO], "seems to be a VGG, which is a loss network"),
    "a pipe": (*infer("faulty/pipe.jpg"), "pipe.jpg: is not a regular file"),
    "a name too long": (*infer("a" * 300 + ".jpg"), "File name too long"),
    "a place in a file": (*infer("tiny.safetensors/a.jpg"), "Not a directory"),
    "little memory": (
        *infer("faulty/large.png", "--max-memory", "0.01"), "up to 1 megapixels within --max-memory 0.01"
    ),
    "another photograph's place": (
        *infer("photographs/a.png", "photographs/a_my painting.png", "--overwrite"), "result would overwrite"
    ),
    "truncated weights": ("infer.py", ["faulty/cut.safetensors", PHOTO], "damaged, or not a weights file"),
    "newer weights": ("infer.py", ["faulty/newer.safetensors", PHOTO], "format version 99"),
    "another network's": ("infer.py", ["faulty/other.safetensors", PHOTO], "does not fit the network it names"),
    "absurd network": ("infer.py", ["faulty/huge.safetensors", PHOTO], "too large"),
    "code in a .pth": ("infer.py", ["faulty/code.pth", PHOTO], "code.pth: seems to be a pickled mkdir, which"),
    "a stranger's .pth": ("infer.py", ["faulty/stranger.pth", PHOTO], "seems to be the weights of"),
    "folder as weights": ("infer.py", ["run", PHOTO], "give the .safetensors file in it"),
}  # fmt: skip


def snapshot(folder: Path) -> dict[Path, str]:
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and os.access(path, os.R_OK) else ""
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("name", FAULTS)
def test_a_mistake_is_one_line_and_exit_code_2(name, faulty, workplace):
    if name == "no GPU" and torch.cuda.is_available():
        pytest.skip("there is one")
    script, arguments, message = FAULTS[name]
    before = snapshot(workplace)
    result = run(script, *arguments, cwd=workplace)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    lines = result.stderr.strip().splitlines()
    if name == "too many damaged":  # each one skipped is told before
        lines = [line for line in lines if "skipped; " not in line]
    assert len(lines) == 1, result.stderr
    assert snapshot(workplace) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(faulty, workplace):
    result = run("train.py", *train("style.image=faulty/locked.png")[1], cwd=workplace)
    assert result.returncode == 2
    assert "locked.png: no permission" in result.stderr


class Broken(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> torch.Tensor:
        raise ImageError("a.jpg: damaged picture (too: short)")


def test_an_error_from_a_worker_process_is_one_line_too():
    with pytest.raises(ImageError) as caught:
        next(iter(torch.utils.data.DataLoader(Broken(), num_workers=1)))
    assert cli.one_line(caught.value) == "a.jpg: damaged picture (too: short)"


def limited(kilobytes: int, script: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that can write no file larger than this, as on a full disk."""
    line = f'ulimit -f {kilobytes}; exec "$@"'
    command = ["bash", "-c", line, "bash", sys.executable, str(ROOT / "scripts" / script), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)


def test_no_space_for_a_picture_leaves_the_old_one(trained, workplace, tmp_path):
    picture(1, 600, 600).save(tmp_path / "large.png")
    target = tmp_path / "out.png"
    target.write_bytes(b"old")
    weights_file = trained[0] / "my painting.safetensors"
    result = limited(64, "infer.py", weights_file, tmp_path / "large.png", "-o", target, "--overwrite", cwd=workplace)
    assert (result.returncode, len(result.stderr.strip().splitlines())) == (2, 1), result.stderr
    assert "out.png: cannot be written" in result.stderr
    assert target.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["large.png", "out.png"]


def test_no_space_for_a_checkpoint_keeps_the_last_one(trained, workplace):
    folder = workplace / "full"
    shutil.copytree(trained[0], folder)
    checkpoint = folder / "checkpoints" / "last.ckpt"
    before = checkpoint.read_bytes()
    settings = ["style.image='my painting.png'", *small(workplace), "trainer.max_steps=9"]
    result = limited(len(before) // 2048, "train.py", *settings, "output_dir=full", "ckpt_path=auto", cwd=workplace)
    assert result.returncode == 2, result.stderr
    assert "last.ckpt: cannot be written" in result.stderr
    assert "Traceback" not in result.stderr
    assert checkpoint.read_bytes() == before
    assert [p.name for p in checkpoint.parent.iterdir()] == ["last.ckpt"]


def test_little_space_is_for_the_weights_first(trained, workplace):
    file, checkpoint = (trained[0] / name for name in ("my painting.safetensors", "checkpoints/last.ckpt"))
    kilobytes = (file.stat().st_size + checkpoint.stat().st_size) // 2048
    settings = ["style.image='my painting.png'", *small(workplace), "output_dir=little"]
    result = limited(kilobytes, "train.py", *settings, cwd=workplace)
    assert result.returncode == 2, result.stderr
    assert "last.ckpt: cannot be written" in result.stderr.splitlines()[-1]
    assert "; the network is in little/my painting.safetensors" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    ours, theirs = (weights.load(path)[0].state_dict() for path in (workplace / "little" / file.name, file))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_odd_files_that_are_none_the_worse(trained, workplace, tmp_path):
    """Animations, deep and float pictures, CMYK, palettes, one pixel, a thread: they come out, of their size."""
    base = picture(3, 40, 60)
    frames = [picture(4, 40, 60)]
    turned = base.getexif()
    turned[0x0112] = 6
    base.save(tmp_path / "turned.jpg", exif=turned)
    base.save(tmp_path / "moving.gif", save_all=True, append_images=frames)
    base.save(tmp_path / "moving too.webp", save_all=True, append_images=frames)
    base.convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(np.asarray(base.convert("L")).astype(np.uint16) * 257).save(tmp_path / "deep.tif")
    base.convert("F").save(tmp_path / "float.tif")
    base.convert("P").save(tmp_path / "palette.png", transparency=3)
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.png")
    Image.new("RGB", (3000, 3), "red").save(tmp_path / "thread.png")
    result = run("infer.py", trained[0] / "my painting.safetensors", tmp_path, "-o", tmp_path / "out", cwd=workplace)
    assert result.returncode == 0, result.stderr
    sizes = {}
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as image:
            sizes[path.stem] = image.size
    assert sizes.pop("turned") == (40, 60)
    assert sizes.pop("dot") == (1, 1)
    assert sizes.pop("thread") == (3000, 3)
    assert set(sizes.values()) == {(60, 40)}
    assert len(sizes) == 6
