"""The package as pip installs it; .ci/run tries the wheel itself."""

import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT

from fast_nst.commands import main

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("name", ["train", "infer"])
def test_the_commands_run_from_anywhere(name, tmp_path):
    module, function = SETTINGS["project"]["scripts"][f"fast-nst-{name}"].split(":")
    code = f"import sys; sys.argv = ['fast-nst-{name}', '--help']; from {module} import {function}; {function}()"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert result.returncode == 0, result.stderr
    assert "style_weight" in result.stdout if name == "train" else "--strength" in result.stdout


def test_version(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fast-nst", "--version"])
    main()
    assert capsys.readouterr().out == f"fast-nst {SETTINGS['project']['version']}\n"
