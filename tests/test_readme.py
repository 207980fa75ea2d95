"""What the README tells people to type exists."""

import re
import shlex

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir

from fast_nst.commands import config

README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split(" #")[0] for block in re.findall(r"```bash\n(.*?)```", README, re.S) for line in block.splitlines()
]
TRAIN = [line.split("scripts/train.py", 1)[1] for line in COMMANDS if "scripts/train.py" in line]


def test_the_readme_has_its_two_commands():
    one_line = [line for line in COMMANDS if line.startswith("python3 -m venv")]
    assert len(one_line) == 2
    assert one_line[0].endswith("pip install -e . && python scripts/train.py style=starry_night")
    assert one_line[1].endswith('pip install -e ".[dev]" && python -m pytest')


@pytest.mark.parametrize("line", TRAIN)
def test_every_training_command_composes(line):
    overrides = shlex.split(line)
    if "-m" in overrides:
        overrides.remove("-m")
        overrides = [override.split(",")[0] for override in overrides]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        compose("train", overrides)


def test_every_key_of_the_table_exists():
    keys = re.findall(r"[`\"]((?:data|trainer|loss|style|loss_network|optimizer)\.\w+)=", README)
    assert len(keys) > 5
    assert any(key in config.TABLES for key in keys)
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("train")
    for key in keys:
        group, name = key.split(".")
        assert name in cfg[group] or key in (*config.OPTIONAL, *config.TABLES), key


def test_every_file_and_style_named_exists():
    for path in re.findall(r"`((?:configs|fast_nst|scripts|docs)/[\w./]*)`", README) + re.findall(
        r"\]\((docs/.*?)\)", README
    ):
        assert (ROOT / path).exists(), path
    styles = re.search(r"Bundled styles: (.*?),\nall", README, re.S)
    assert styles
    assert set(re.findall(r"`(\w+)`", styles[1])) == {p.stem for p in (ROOT / "configs" / "style").glob("*.yaml")}
