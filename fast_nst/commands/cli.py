"""Parse options, check outputs, and report errors: one line on stderr, no traceback (exit codes: see `run`)."""

import argparse
import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from fast_nst import commands
from fast_nst.atomic import check_place
from fast_nst.commands.paths import expand_word
from fast_nst.errors import RunError, UserError


def known_errors() -> tuple[type[Exception], ...]:
    """Return the types of errors that are reported in one line. OSError: an unreadable folder, a full disk."""
    if "hydra" not in sys.modules:  # importing it takes time
        return UserError, RunError, OSError
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    return UserError, RunError, OSError, HydraException, OmegaConfBaseException


class Interrupted(RunError):
    """Ctrl-C ended a command. The message says what the command has done."""

    exit_code = 130


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors, options allowed between inputs, and ~ and $VARIABLES expanded."""

    def __init__(self, **options: Any) -> None:
        own = Path(sys.argv[0]).stem == "fast-nst"  # one program for all commands
        super().__init__(**{"prog": f"fast-nst {commands.running}" if own else None, **options})

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = sys.argv[1:] if args is None else args
        return self.parse_intermixed_args([expand_word(word) for word in words], namespace)

    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2].split()
        if file := next((word for word in unknown if Path(word).exists()), None):
            message += f"; give the file as ./{file}"
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def typed(name: str) -> str:
    """Return how to call the command `name` in the way that the running command was called."""
    if Path(sys.argv[0]).stem.startswith("fast-nst"):
        return f"fast-nst {name}"
    return f"python {shlex.quote(str(Path(sys.argv[0]).with_name(f'{name}.py')))}"


def one_line(error: BaseException) -> str:
    """Return the message of `error` on one line, without the traceback of a worker process that passed it on."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    text = str(error).strip()
    if text.startswith("Caught ") and "Original Traceback" in text:
        text = text.splitlines()[-1].partition(": ")[2]
    if unknown := re.search(r"Key '.*' is not in struct\s+full_key: (\S+)", text):
        return f"unknown key {unknown[1]}; --help lists all keys"
    return " ".join(text.partition("Config search path:")[0].split())


def explain(error: BaseException) -> str:
    """Return one line that says what is wrong: for a bad override, how to quote it; else the message of the cause."""
    hydra = sys.modules.get("hydra.errors")
    if hydra is not None and isinstance(error, hydra.OverrideParseException):
        key, _, value = str(error.override).removeprefix("++").partition("=")  # `config.normalize` may have added ++
        word = f"{key}='{value or '…'}'"
        quoted = shlex.quote(word) if re.search(r'["$`\\!]', word) else f'"{word}"'
        return f"{key}={value}: not key=value as Hydra reads it; a value with special characters needs quotes: {quoted}"
    while not isinstance(error, UserError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return one_line(error)


def report(error: BaseException) -> int:
    """Print what went wrong, on one line, and return the exit code for it."""
    message = explain(error)
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
    if rank == "0" or not isinstance(error, RunError) or error.exit_code < 128:  # every process is interrupted
        stopped = isinstance(error, RunError) and error.exit_code >= 128  # by a signal
        print(f"{'interrupted' if stopped else 'error'}: {message}", file=sys.stderr)
    return error.exit_code if isinstance(error, RunError) else 2


def check_new(
    option: str, path: str | Path, overwrite: bool, inputs: Iterable[str | Path], more: str = "--overwrite"
) -> None:
    """Raise UserError if `path` is one of `inputs`, cannot be written, or exists and `overwrite` is false.

    more: what to give to allow overwriting, for the message.
    """
    if Path(path).is_dir():
        raise UserError(f"{option}: {path}: is a folder; give a file")
    check_apart(option, [path], inputs)
    if Path(path).exists() and not overwrite:
        raise UserError(f"{option}: {path} already exists; give {more} or another file")
    check_place(path)


def check_json(path: Path, overwrite: bool, inputs: Iterable[str | Path] = ()) -> None:
    """Check the file that --json names as `check_new` does; its name must end in .json."""
    if path.suffix != ".json":
        raise UserError(f"--json: {path}: give a name that ends in .json")
    check_new("--json", path, overwrite, inputs)


def check_apart(option: str, results: Iterable[str | Path], inputs: Iterable[str | Path]) -> None:
    """Raise UserError if one of `results` is one of `inputs`, which are never overwritten."""
    kept = {os.path.realpath(path) for path in inputs}
    for path in results:
        if os.path.realpath(path) in kept:
            raise UserError(f"{option}: {path}: is also an input, which the result would overwrite; give another file")


def run(main: Callable[[], int | None]) -> None:
    """Call `main` and exit with the code it returns; 2 after a user's mistake, 1 after a failure, 130 after Ctrl-C."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a file name may contain bytes that are not text
    try:
        sys.exit(main() or 0)
    except known_errors() as error:
        sys.exit(report(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
