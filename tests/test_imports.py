"""Imports run one way, and the heavy ones stay where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

PACKAGE = ROOT / "fast_nst"
# Left to right: a part may import those left of it, and itself.
ORDER = [
    "errors", "foreign", "deep", "machine", "device", "threads", "safe_load", "atomic", "image", "listing",
    "description", "ops", "networks", "loss_networks", "losses", "data", "importers", "weights", "optimize", "evaluate",
    "stylize", "export", "training", "methods", "commands",
]  # fmt: skip


# What repaints without torch.
LIGHT = [
    "errors", "foreign", "deep", "machine", "atomic", "image", "listing", "description", "stylize.files",
    "stylize.batch", "stylize.onnx", "stylize.model", "stylize.moving", "stylize.clip", "stylize.animation",
    "commands.infer",
]  # fmt: skip


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_parts_import_only_what_is_left_of_them():
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        for name in imported(path):
            other = name.split(".")[1] if name.startswith("fast_nst.") else None
            if other in ORDER:
                assert ORDER.index(other) <= ORDER.index(part), f"{path} imports {name}"
            assert other is None or other in ORDER or name == "fast_nst.__version__", f"{path} imports {name}"


def test_lightning_and_hydra_stay_where_they_belong():
    for path in PACKAGE.rglob("*.py"):
        roots = {name.split(".")[0] for name in imported(path)}
        part = path.relative_to(PACKAGE).parts[0]
        assert part == "commands" or not roots & {"hydra", "omegaconf"}, path
        if part not in ("methods", "training", "commands") and path.name != "datamodule.py":
            assert not roots & {"pytorch_lightning", "lightning", "lightning_fabric"}, path


def test_a_bare_import_is_light():
    assert heavy_ones_after("fast_nst") == "[]"


def test_repainting_imports_no_torch():
    assert heavy_ones_after(*(f"fast_nst.{name}" for name in LIGHT)) == "[]"


def heavy_ones_after(*modules: str) -> str:
    heavy = ("torch", "torchvision", "pytorch_lightning", "hydra", "omegaconf", "onnx")
    code = f"import sys, {', '.join(modules)}; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return result.stdout.strip()
