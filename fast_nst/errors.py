"""Checks of a single value at the boundary: each error names the key, what came and what is allowed."""

from typing import Any


class UserError(ValueError):
    """A user's mistake: bad input or a value out of range. The message is one line that says what to do."""


class RunError(RuntimeError):
    """Work that could not be finished through no mistake of the user's. The message is one line."""

    exit_code = 1


def check_int(name: str, value: Any, minimum: int, maximum: float = float("inf")) -> int:
    """`value` if it is an int within [minimum, maximum]; UserError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        limit = f"from {minimum} on" if maximum == float("inf") else f"from {minimum} to {maximum}"
        raise UserError(f"{name}: got {value!r}; allowed: a whole number {limit}")
    return value


def check_number(name: str, value: Any, minimum: float, maximum: float = float("inf")) -> float:
    """`value` if it is a finite number within [minimum, maximum]; UserError otherwise."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if not numeric or not minimum <= value <= maximum or value == float("inf"):
        limit = f"from {minimum:g} on" if maximum == float("inf") else f"from {minimum:g} to {maximum:g}"
        raise UserError(f"{name}: got {value!r}; allowed: a number {limit}")
    return value


def check_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    """`value` if it is among `allowed`; UserError otherwise."""
    if value not in allowed:
        raise UserError(f"{name}: got {value!r}; allowed: {', '.join(map(str, allowed))}")
    return value
