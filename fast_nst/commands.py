"""The commands of an installed package: the scripts, which lie beside it in a clone and within it in a wheel."""

import importlib
import sys
from pathlib import Path


def _run(name: str) -> None:
    package = Path(__file__).resolve().parent
    folder = package / "scripts" if (package / "scripts").is_dir() else package.parent / "scripts"
    sys.path.insert(0, str(folder))  # as Python does for a script
    importlib.import_module(name).command_line()


def train() -> None:
    _run("train")


def infer() -> None:
    _run("infer")
