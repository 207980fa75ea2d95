"""The package as pip installs it; .ci/run tries the wheel itself."""

import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_a_wheel_has_every_package():
    listed = set(SETTINGS["tool"]["setuptools"]["packages"])
    here = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "fast_nst").rglob("*.py")}
    assert listed == here | {"fast_nst.scripts", "fast_nst.scripts.painting", "fast_nst.configs"}


@pytest.mark.parametrize("name", ["train", "infer"])
def test_the_commands_run_from_anywhere(name, tmp_path):
    module, function = SETTINGS["project"]["scripts"][f"fast-nst-{name}"].split(":")
    code = f"import sys; sys.argv = ['fast-nst-{name}', '--help']; from {module} import {function}; {function}()"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert result.returncode == 0, result.stderr
    assert "style_weight" in result.stdout if name == "train" else "--strength" in result.stdout
