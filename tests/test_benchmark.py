"""The benchmark and fuzzing scripts, on small inputs."""

import json
import math

import pytest
import torch
from conftest import run


def test_baseline_equals_johnson():
    import baseline

    from fast_nst import networks

    network, johnson = baseline.baseline_network(), networks.build("johnson", pixels="rgb255")
    assert sum(p.numel() for p in network.parameters()) == 1_679_235
    for target, source in zip(johnson.parameters(), network.parameters(), strict=True):
        target.data.copy_(source.data)  # both list the layers in order
    x = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(johnson.eval()(x) * 255, network(x * 255), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("what", "options", "cases"),
    [
        ("train", ["--size", 64, "--batch", 1], {"baseline", "johnson:vgg16", "slim:compact"}),
        ("train", ["--size", 64, "--no-reference", "--cases", "slim:vgg19"], {"slim:vgg19"}),
        ("infer", ["--sizes", 32], {"32"}),
        ("data", ["--root", "photographs"], {"synthetic", "folder"}),
    ],
)
@pytest.mark.slow
def test_benchmark_measures_every_case(workplace, what, options, cases):
    result = run("benchmark.py", what, *options, "--rounds", 1, "--json", "figures.json", "--overwrite", cwd=workplace)
    assert result.returncode == 0, result.stderr
    figures = json.loads((workplace / "figures.json").read_text())
    table = next(figures[key] for key in ("cases", "sizes", "sources") if key in figures)
    assert set(table) == cases
    if what != "data":
        peaks = figures.get("peak memory, MiB") or {name: case["peak memory, MiB"] for name, case in table.items()}
        assert min(peaks.values()) > 50
    if what == "train":
        assert all(case["GFLOP a step"] > 0 and case["seconds a step"] > 0 for case in table.values())


@pytest.mark.slow
def test_growth_measures_every_case(tmp_path):
    result = run("growth.py", "--small", "--rounds", 1, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = [line.split(" | ") for line in result.stdout.splitlines()[2:]]
    assert len(rows) == 7
    for _, figures, exponent in rows:
        (a, first), (b, last) = ([float(number) for number in figure.split(": ")] for figure in figures.split(", "))
        assert min(first, last) > 0
        assert float(exponent.rstrip(" |")) == pytest.approx(math.log(last / first) / math.log(b / a), abs=0.1)


def test_short_fuzz_finds_no_fault(tmp_path):
    result = run("fuzz.py", "--minutes", 0.02, "--keep", tmp_path / "faults", cwd=tmp_path)
    assert result.returncode == 0, result.stderr + result.stdout
    assert "0 faults" in result.stdout
