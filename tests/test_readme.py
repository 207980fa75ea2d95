"""What README.md and docs/usage.md tell people to type exists, and their numbers are those of docs/results.md."""

import ast
import inspect
import re
import shlex

import pytest
import yaml
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import fast_nst
from fast_nst.commands import NAMES, config

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CHANGELOG.md"]
README, USAGE = ((ROOT / name).read_text() for name in ("README.md", "docs/usage.md"))
BOTH = README + USAGE
COMMANDS = [
    line.split(" #")[0] for block in re.findall(r"```bash\n(.*?)```", BOTH, re.S) for line in block.splitlines()
]


def overrides(script: str) -> list[str]:
    return list(dict.fromkeys(line.split(script, 1)[1] for line in COMMANDS if script in line))


def composed(name: str, line: str):
    words = shlex.split(line)
    if "-m" in words:
        words.remove("-m")
        words = [word.split(",")[0] for word in words]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose(name, words)


def test_the_readme_has_its_two_commands():
    one_line = [line for line in README.splitlines() if line.startswith("python3 -m venv")]
    start = "python3 -m venv .venv && . .venv/bin/activate && "
    assert one_line == [
        start + 'pip install -e ".[train]" && python scripts/train.py style=starry_night',
        start + 'pip install -e ".[dev]" && python -m pytest',
    ]
    assert set(one_line) < set(COMMANDS)


@pytest.mark.parametrize("line", overrides("scripts/train.py"))
def test_every_training_command_composes(line):
    composed("train", line)


@pytest.mark.parametrize("line", overrides("scripts/optimize.py"))
def test_every_optimizing_command_composes(line):
    composed("optimize", line)


def test_every_key_exists():
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        train, optimize = compose("train"), compose("optimize")
    text = BOTH + (ROOT / "docs" / "design.md").read_text()
    keys = re.findall(r"[`\" ]((?:data|trainer|loss|style|loss_network|network|optimizer)\.\w+)[=`]", text)
    assert len(set(keys)) > 10
    assert any(key in config.TABLES for key in keys)
    for key in keys:
        group, name = key.split(".")
        choices = [OmegaConf.load(path) for path in (ROOT / "configs" / group).glob("*.yaml")]
        assert any(name in keys for keys in (train[group], *choices)) or key in (*config.OPTIONAL, *config.TABLES), key
    for key in re.findall(r"`(?:data=\w+ )?([a-z]\w*)=[^`]*`", USAGE):
        assert key in train or key in optimize or key == "experiment", key


def test_every_choice_of_a_group_exists():
    for group, name in re.findall(
        r"[` ](style|data|loss_network|network|optimizer|trainer|experiment|loss)=(\w+)", BOTH
    ):
        assert (ROOT / "configs" / group / f"{name}.yaml").is_file(), f"{group}={name}"
    recipes = re.search(r"\| `experiment=` .*?\n\n", USAGE, re.S)
    assert recipes
    for name in re.findall(r"^\| `(\w+)`", recipes[0], re.M):
        assert (ROOT / "configs" / "experiment" / f"{name}.yaml").is_file(), name


def test_every_option_exists():
    sources = "".join(path.read_text() for path in (ROOT / "fast_nst" / "commands").glob("*.py"))
    ours = [line for line in COMMANDS if re.search(r"scripts/(infer|evaluate|sheet)\.py", line)]
    tables = re.findall(r"^\| (`--.*?) \|", USAGE, re.M)
    for option in re.findall(r"--[a-z][a-z-]+", " ".join([*ours, *tables])):
        assert f'"{option}"' in sources, option
    assert set(re.findall(r"fast-nst (\w+)", USAGE)) == set(NAMES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_file_named_exists(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)]*)\)", text):
        file, _, heading = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), target
        titles = re.findall(r"^#+ (.*)", linked.read_text(), re.M) if heading else []
        assert not heading or heading in {title.lower().replace(" ", "-") for title in titles}, target
    for path in re.findall(r"\b(?:configs|fast_nst|scripts|docs|tests)/[\w./]*\w/?", text):
        assert (ROOT / path).exists(), path


def test_every_bundled_style_is_named():
    styles = re.search(r"Bundled styles: (.*?),\nall", USAGE, re.S)
    assert styles
    assert set(re.findall(r"`(\w+)`", styles[1])) == {p.stem for p in (ROOT / "configs" / "style").glob("*.yaml")}


def test_every_call_in_python_fits_the_api():
    from fast_nst.stylize.model import StyleModel

    known = {
        "load": fast_nst.load,
        "train": fast_nst.train,
        "stylize": StyleModel.stylize,
        "model": StyleModel.__call__,
    }
    called = set()
    for block in re.findall(r"```python\n(.*?)```", BOTH, re.S):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                if name != "save":
                    called.add(name)
                    first = [None] * (name in ("stylize", "model"))
                    inspect.signature(known[name]).bind(*first, *node.args, **{k.arg: k.value for k in node.keywords})
    assert called == set(known)


def test_the_results_are_those_of_docs_results():
    results = (ROOT / "docs" / "results.md").read_text()
    table = re.search(r"## Results\n.*?\n(\|.*?)\n\n", README, re.S)
    assert table
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table[1].splitlines()[2:]]
    assert len(rows) > 3
    for name, style, content, objective, published in rows:
        assert re.search(rf"^\| {name} \|.*\| {style} \| {content} \| {objective} \|", results, re.M), name
        assert float(objective) == pytest.approx(10 * float(style) + float(content), abs=0.02)
        assert not published or published in results
    design = (ROOT / "docs" / "design.md").read_text()
    for number in re.findall(r"\b\d+\.\d{2,3}\b", design):
        assert number in results, number


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert citation["version"] == fast_nst.__version__
    assert f"## [{fast_nst.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
