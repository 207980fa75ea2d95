"""The commands, one module each. Run `fast-nst COMMAND …` if installed, or `scripts/COMMAND.py` in a clone."""

import importlib
import os
import sys
from pathlib import Path
from types import TracebackType

from fast_nst import __version__
from fast_nst.errors import UserError, needs_torch

running = ""  # the name of the running command
NAMES = ("train", "infer", "optimize", "evaluate", "sheet", "export", "generate")


def _without_traceback(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


def run_command(name: str) -> None:
    """Run the command `name` with sys.argv, and exit."""
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed, as a service may leave it
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115
    global running
    running = name
    sys.excepthook = _without_traceback  # before the import, because Ctrl-C may come while a command imports torch
    try:
        with needs_torch(name):
            command = importlib.import_module(f"fast_nst.commands.{name}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    command.command_line()


def main() -> None:
    """Run `fast-nst COMMAND …`."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(f"usage: fast-nst COMMAND …\n\ncommands: {', '.join(NAMES)}; fast-nst COMMAND --help explains one")
        return
    if name == "--version":
        print(f"fast-nst {__version__}")
        return
    if name not in NAMES:
        print(f"error: fast-nst: unknown command {name!r}; use one of {', '.join(NAMES)}", file=sys.stderr)
        sys.exit(2)
    # Lightning starts further processes with argv[0] and the rest of argv, so argv[0] must name the command.
    own = Path(sys.argv[0]).with_name(f"fast-nst-{name}")
    sys.argv = [str(own) if own.exists() else sys.argv[0], *sys.argv[2:]]
    run_command(name)


def train_command() -> None:
    """Run `fast-nst-train`."""
    run_command("train")


def infer_command() -> None:
    """Run `fast-nst-infer`."""
    run_command("infer")
