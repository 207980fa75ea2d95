"""What every script does with an error: one line on stderr, no traceback; exit code 2 for a user's mistake, else 1."""

import sys
from collections.abc import Callable

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from fast_nst.validate import Failure, Invalid


def one_line(error: BaseException) -> str:
    """The message of `error` on one line."""
    return " ".join(str(error).split())


def run(main: Callable[[], int | None]) -> None:
    """Call `main` and exit with what it returns; 2 after a user's mistake, 1 after a failure, 130 after Ctrl-C."""
    try:
        sys.exit(main() or 0)
    except (Invalid, HydraException, OmegaConfBaseException) as error:
        cause: BaseException = error
        while not isinstance(cause, Invalid) and isinstance(cause.__cause__, Exception):
            cause = cause.__cause__  # Hydra wraps the error that names the key
        print(f"error: {one_line(cause)}", file=sys.stderr)
        sys.exit(2)
    except Failure as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
