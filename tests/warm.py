"""A Python that has already imported what the scripts import, and forks for each command: importing is most of the time
of a short one. Started by `conftest.run`; it reads a line of JSON for each command, and answers with its exit code."""

import atexit
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import hydra  # noqa: F401
import pytorch_lightning  # noqa: F401
import torch.utils.tensorboard  # noqa: F401
import torchvision  # noqa: F401


def execute(script: str, arguments: list[str], cwd: str, output: str, error: str) -> int:
    """Be the process of that command, as far as it can tell."""
    os.chdir(cwd)
    for number, (name, flags) in enumerate(
        [(os.devnull, os.O_RDONLY), (output, os.O_WRONLY | os.O_CREAT), (error, os.O_WRONLY | os.O_CREAT)]
    ):
        os.dup2(os.open(name, flags), number)
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).parent)
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        return 1
    return 0


def main() -> None:
    for line in iter(sys.stdin.readline, ""):
        request: dict[str, Any] = json.loads(line)
        child = os.fork()
        if child == 0:
            code = execute(**request)
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
