"""`fast-nst export` to ONNX and torch.export: the exported network equals the network, at every size."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, run, slow
from torch import Tensor

from fast_nst import networks, weights
from fast_nst.commands import export as command
from fast_nst.errors import RunError, UserError
from fast_nst.export import program
from fast_nst.export.plain import PlainNetwork
from fast_nst.networks.style_bank import StyleBank
from fast_nst.stylize.image import memory_per_pixel
from fast_nst.stylize.onnx import OnnxNetwork

NETWORKS: dict[str, dict[str, Any]] = {
    "slim": {"name": "slim", "width": 8, "blocks": 1, "fine_noise": 0.1},
    "conditional": {"name": "slim", "width": 8, "blocks": 1, "num_styles": 3},
    "johnson": {"name": "johnson", "filters": [4, 8, 8], "blocks": 1, "pixels": "rgb255"},
    "transposed": {
        "name": "johnson", "filters": [4, 8, 8], "blocks": 1, "padding": "reflection_once", "upsampling": "transposed",
        "norm": "batch", "final_norm": True,
    },
    "lengstrom": {
        "name": "johnson", "filters": [4, 8, 8], "blocks": 1, "padding": "tensorflow", "upsampling": "transposed",
        "bias": False, "pixels": "unit", "final_norm": True,
    },
}  # fmt: skip
SIZES = [(1, 17, 33), (3, 50, 64), (1, 768, 1024)]


def network_of(name: str) -> networks.Network:
    torch.manual_seed(1)
    network = networks.build(**NETWORKS[name])
    with torch.no_grad():
        for parameter in network.parameters():  # no scale of a norm is 1, no shift 0, no style like another
            if parameter.aminmax()[0] == parameter.aminmax()[1]:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return network.eval()


def saved(name: str, folder: Path) -> tuple[Path, networks.Network]:
    path, network = folder / f"{name}.safetensors", network_of(name)
    count = network.num_styles
    style = {"names": [f"style {k}" for k in range(count)], "sha256": ["0" * 64] * count}
    weights.save(path, network, {"network": NETWORKS[name], "style": style})
    return path, network


def inputs(network: networks.Network, batch: int, height: int, width: int) -> list[Tensor]:
    style = [torch.rand(batch, network.num_styles)] if getattr(network, "conditional", False) else []
    return [torch.rand(batch, 3, height, width), *style]


def numbers(network: networks.Network) -> int:
    return sum(tensor.numel() for tensor in (*network.parameters(), *network.buffers()))


@torch.no_grad()
def largest_difference(exported: Any, network: networks.Network) -> float:
    worst = 0.0
    for size in SIZES:
        given = inputs(network, *size)
        worst = max(worst, float((exported(*given) - network(*given).clamp(0, 1)).abs().max()))
    return worst


@pytest.mark.parametrize("name", NETWORKS)
def test_the_plain_layers_compute_the_same(name):
    network = network_of(name)
    assert largest_difference(PlainNetwork(network), network) < 5e-4


@pytest.mark.parametrize("name", ["slim", "conditional", *slow("johnson", "lengstrom")])
def test_onnx_equals_the_network(name, tmp_path):
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    path, network = saved(name, tmp_path)
    result = run("export.py", path, "-o", "a.onnx", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (result.stderr, sorted(p.name for p in tmp_path.iterdir())) == ("", ["a.onnx", path.name])
    assert (tmp_path / "a.onnx").stat().st_size < 2 * numbers(network) + 50_000
    model = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    image, count = ["batch", 3, "height", "width"], network.num_styles
    assert shapes == {"content": image, "output": image, **({"style": ["batch", count]} if count > 1 else {})}
    counts = [node.op_type for node in model.graph.node]
    assert not {"ScatterND", "ScatterElements", "RandomNormalLike"} & {*counts}
    assert counts.count("InstanceNormalization") == sum("Norm" in type(module).__name__ for module in network.modules())
    session = runtime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    description = json.loads(session.get_modelmeta().custom_metadata_map["fast_nst"])
    assert description == weights.describe(path)
    names = [value.name for value in session.get_inputs()]

    def exported(*given: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {k: v.numpy() for k, v in zip(names, given, strict=True)})[0])

    assert largest_difference(exported, network) < 2 / 255  # random networks enlarge what 16 bits round
    painter = OnnxNetwork.load(tmp_path / "a.onnx")
    assert painter.memory_per_pixel() > memory_per_pixel(network)
    content, *style = inputs(network, 1, 7, 19)  # smaller than the file takes
    chosen = painter.select(style[0][0].numpy()) if style else painter
    with torch.no_grad():
        expected = network(content, *style).clamp(0, 1).numpy()
    assert np.abs(chosen(content.numpy()) - expected).max() < 2 / 255


def test_float32_is_exact_and_names_no_folder(tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    path, network = saved("slim", tmp_path)
    assert run("export.py", path, "-o", "a.onnx", "--precision", "float32", cwd=tmp_path).returncode == 0
    data = (tmp_path / "a.onnx").read_bytes()
    assert not [word for word in (str(ROOT), str(tmp_path), "site-packages") if word.encode() in data]
    assert len(data) > 4 * numbers(network)
    from fast_nst.export.onnx import run_with_onnxruntime

    assert largest_difference(run_with_onnxruntime(tmp_path / "a.onnx"), network) < 5e-4


def test_a_program_of_torch_export_equals_the_network(tmp_path):
    path, network = saved("conditional", tmp_path)
    result = run("export.py", path, "-o", "a.pt2", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    extra = {"fast_nst": ""}
    loaded = torch.export.load(tmp_path / "a.pt2", extra_files=extra)
    assert json.loads(extra["fast_nst"]) == weights.describe(path)
    assert str(ROOT).encode() not in (tmp_path / "a.pt2").read_bytes()
    assert largest_difference(loaded.module(), network) < 5e-4


def test_one_style_of_several_is_exported_alone(tmp_path):
    path, network = saved("conditional", tmp_path)
    result = run("export.py", f"{path}:style 1", "-o", "a.pt2", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    content, extra = torch.rand(1, 3, 40, 50), {"fast_nst": ""}
    alone = torch.export.load(tmp_path / "a.pt2", extra_files=extra).module()
    with torch.no_grad():
        expected = network(content, torch.tensor([[0.0, 1, 0]])).clamp(0, 1)
        torch.testing.assert_close(alone(content), expected, atol=5e-4, rtol=0)
    assert json.loads(extra["fast_nst"])["style"] == {"names": ["style 1"]}


@torch.no_grad()
def test_a_style_of_a_style_bank_is_plain():
    bank, content = StyleBank(width=4, blocks=1, num_styles=2).eval(), torch.rand(1, 3, 40, 50)
    with pytest.raises(UserError, match=r"name one: WEIGHTS:STYLE$"):
        PlainNetwork(bank)  # type: ignore[arg-type]
    single = PlainNetwork(bank.select(torch.tensor([0.0, 1])))  # type: ignore[arg-type]
    expected = bank(content, torch.tensor([[0.0, 1]])).clamp(0, 1)
    torch.testing.assert_close(single(content), expected, atol=1e-4, rtol=0)


def test_a_difference_is_an_error_and_leaves_no_file(tmp_path, monkeypatch):
    network = network_of("slim")
    monkeypatch.setattr(program, "load_program", lambda path: lambda content: network(content).clamp(0, 1) + 0.01)
    message = r"^the exported network differs from the network by 2\.5\d of 255 at 64 x 64; nothing was written$"
    with pytest.raises(RunError, match=message):
        command.export_network(network, {}, tmp_path / "a.pt2", half=False)
    assert not list(tmp_path.iterdir())


def test_too_coarse_16_bits_name_the_remedy(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = network_of("slim")
    with torch.no_grad():
        network.up[2].conv.weight.mul_(1000)  # almost black and white, with an edge at every rounding error
    with pytest.raises(RunError, match=r"nothing was written; --precision float32 is exact$"):
        command.export_network(network, {}, tmp_path / "a.onnx", half=True)
    assert not list(tmp_path.iterdir())


def test_nan_is_a_difference():
    network = network_of("slim")
    with pytest.raises(RunError, match="nan of 255"):
        program.check_equal(lambda content: content * float("nan"), network, PlainNetwork(network))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(UserError, match=r"^export: onnxscript not installed; run: pip install 'fast-nst\[export\]'$"):
        command.check_installed()


def test_bad_input(tmp_path, capsys, monkeypatch):
    path, _ = saved("slim", tmp_path)
    (tmp_path / "there.pt2").write_text("mine")
    (tmp_path / "foreign.safetensors").write_text("no weights")
    for words, message in (
        ([path, "-o", "a.tflite"], "-o a.tflite: cannot write this format; give one of .onnx, .pt2"),
        ([path, "-o", tmp_path / "there.pt2"], "there.pt2 already exists; give --overwrite or another file"),
        ([path, path, "-o", "a.pt2"], "-o a.pt2: got 2 weights files; allowed: one"),
        ([tmp_path / "foreign.safetensors", "-o", "a.pt2"], "foreign.safetensors: damaged, or not a weights file"),
        ([path], "one of the arguments -o/--output --folder is required"),
    ):
        monkeypatch.setattr(sys, "argv", ["export.py", *map(str, words)])
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as end:
            command.command_line()
        error = capsys.readouterr().err
        assert (end.value.code, error.count("\n")) == (2, 1)
        assert message in error
    assert (tmp_path / "there.pt2").read_text() == "mine"
