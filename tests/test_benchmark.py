"""The measuring and fuzzing scripts run, on little."""

import json

import pytest
import torch
from conftest import run


def test_the_reference_is_the_peer_s_network_and_computes_what_ours_does():
    import baseline

    from fast_nst import networks

    reference, ours = baseline.reference_network(), networks.build("johnson", pixels="rgb255")
    assert sum(p.numel() for p in reference.parameters()) == 1_679_235
    theirs = list(reference.parameters())
    for mine, other in zip(ours.parameters(), theirs, strict=True):
        mine.data.copy_(other.data)  # both list the layers in order
    x = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(ours.eval()(x) * 255, reference(x * 255), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("what", "options", "cases"),
    [
        ("train", ["--size", 64, "--batch", 1], {"reference", "johnson:vgg16", "slim:compact"}),
        ("train", ["--size", 64, "--no-reference", "--cases", "slim:vgg19"], {"slim:vgg19"}),
        ("infer", ["--sizes", 32], {"32"}),
        ("data", ["--root", "photographs"], {"synthetic", "folder"}),
    ],
)
def test_each_benchmark(workplace, what, options, cases):
    result = run("benchmark.py", what, *options, "--rounds", 1, "--json", "figures.json", "--overwrite", cwd=workplace)
    assert result.returncode == 0, result.stderr
    figures = json.loads((workplace / "figures.json").read_text())
    found = next(figures[key] for key in ("cases", "sizes", "sources") if key in figures)
    assert set(found) == cases
    if what != "data":
        peaks = figures.get("peak memory, MiB") or {name: case["peak memory, MiB"] for name, case in found.items()}
        assert min(peaks.values()) > 50
    if what == "train":
        assert all(case["GFLOP a step"] > 0 and case["seconds a step"] > 0 for case in found.values())


def test_a_little_fuzz(tmp_path):
    result = run("fuzz.py", "--minutes", 0.02, "--keep", tmp_path / "faults", cwd=tmp_path)
    assert result.returncode == 0, result.stderr + result.stdout
    assert "0 faults" in result.stdout
