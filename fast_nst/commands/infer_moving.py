"""Stylize clips and animations one after another in the main thread, because only it gets Ctrl-C."""

import sys
from collections.abc import Callable, Sequence

from fast_nst.commands import cli
from fast_nst.commands.infer_plan import Pair
from fast_nst.errors import UserError


def stylize_clips(stylizer: Callable[[Sequence[Pair]], list[str]], clips: Sequence[Pair], single: bool) -> int:
    """Call `stylizer` for each of `clips`, print each error and return how many failed.

    single: whether there is only one input; its failure raises UserError. Also raises NoSpace and cli.Interrupted.
    """
    failed = 0
    for done, clip in enumerate(clips):
        try:
            errors = stylizer([clip])
        except KeyboardInterrupt as error:
            rest = "" if single else f"{done} of {len(clips)} clips are complete; continue with --skip-existing"
            raise cli.Interrupted("; ".join(filter(None, (str(error), rest))) or str(clip[0])) from None
        if errors and single:
            raise UserError(errors[0])
        for line in errors:
            print(f"error: {line}", file=sys.stderr)
        failed += len(errors)
    return failed
