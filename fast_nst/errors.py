"""Errors, and checks of a single value: each error names the key, the value given and the values allowed."""

import contextlib
from collections.abc import Iterator
from typing import Any

_TRAIN = ("torch", "torchvision", "torchmetrics", "pytorch_lightning", "hydra", "omegaconf", "tensorboard", "fsspec")


class UserError(ValueError):
    """A user's mistake: bad input or a value out of range. The message is one line that suggests a fix."""


class WeightsError(UserError):
    """A weights file that cannot be read. The message is one line."""


class RunError(RuntimeError):
    """A failure that is not the user's mistake. The message is one line."""

    exit_code = 1


@contextlib.contextmanager
def needs_torch(what: str) -> Iterator[None]:
    """Raise UserError if the block imports a package of the extra "train" that is not installed; `what` needs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _TRAIN:
            raise
        raise UserError(f'{what} needs torch: pip install "fast-nst[train]"') from None


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 200 characters; without a message, its type's name."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def check_int(name: str, value: Any, minimum: int, maximum: float = float("inf")) -> int:
    """Return `value` if it is an int in [minimum, maximum]; raise UserError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        limit = f">= {minimum}" if maximum == float("inf") else f"from {minimum} to {maximum}"
        raise UserError(f"{name}: got {value!r}; allowed: an integer {limit}")
    return value


def check_number(name: str, value: Any, minimum: float, maximum: float = float("inf")) -> float:
    """Return `value` if it is a finite number in [minimum, maximum]; raise UserError otherwise."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if not numeric or not minimum <= value <= maximum or value == float("inf"):
        limit = f">= {minimum:g}" if maximum == float("inf") else f"from {minimum:g} to {maximum:g}"
        raise UserError(f"{name}: got {value!r}; allowed: a number {limit}")
    return value


def check_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """Return `value` if it is one of `allowed`; raise UserError otherwise."""
    if value not in allowed:
        raise UserError(f"{name}: got {value!r}; allowed: {', '.join(map(str, allowed))}")
    return value
