"""The code in docs/extending.md runs: each block on its own, in an empty folder."""

import re

import pytest
from conftest import ROOT

from fast_nst import networks

PAGE = (ROOT / "docs" / "extending.md").read_text()
SECTIONS = {
    title: block[1]
    for title, text in re.findall(r"^##+ ([^\n]+)\n(.*?)(?=^## |^### |\Z)", PAGE, re.M | re.S)
    if (block := re.search(r"^```python\n(.*?)^```", text, re.M | re.S))
}


def test_every_section_has_one_block_of_code():
    assert list(SECTIONS) == ["A network", "A loss term", "A method", "Inpainting", "A data source"]
    assert PAGE.count("```python\n") == len(SECTIONS)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training")
@pytest.mark.filterwarnings("ignore:.*LeafSpec")  # Lightning on the newest torch
@pytest.mark.parametrize("title", SECTIONS)
def test_the_code_runs(title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(networks, "NETWORKS", dict(networks.NETWORKS))  # what a block adds is gone after the test
    first_line = PAGE[: PAGE.index(SECTIONS[title])].count("\n")
    code = compile("\n" * first_line + SECTIONS[title], str(ROOT / "docs" / "extending.md"), "exec")
    exec(code, {"__name__": "extending"})


def test_every_file_named_exists():
    for path in re.findall(r"`((?:configs|fast_nst|scripts|docs|tests)/[\w./]*)`", PAGE):
        assert (ROOT / path).exists(), path
