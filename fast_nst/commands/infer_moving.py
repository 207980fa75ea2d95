"""Stylize clips and animations one after the other, in the main thread, the only one that gets Ctrl-C."""

import sys
from collections.abc import Callable, Sequence

from fast_nst.commands import cli
from fast_nst.commands.infer_plan import Pair
from fast_nst.errors import UserError


def stylize_clips(stylizer: Callable[[Sequence[Pair]], list[str]], clips: Sequence[Pair], single: bool) -> int:
    """Call `stylizer` for each of `clips` and return how many failed, each reported.

    single: there is no other input. Raises UserError if the only one fails, NoSpace, cli.Interrupted.
    """
    failed = 0
    for done, clip in enumerate(clips):
        try:
            errors = stylizer([clip])
        except KeyboardInterrupt as error:
            rest = "" if single else f"{done} of {len(clips)} clips are complete; --skip-existing continues"
            raise cli.Interrupted("; ".join(filter(None, (str(error), rest))) or str(clip[0])) from None
        if errors and single:
            raise UserError(errors[0])
        for line in errors:
            print(f"error: {line}", file=sys.stderr)
        failed += len(errors)
    return failed
