"""How long a run trains: trainer.max_steps, trainer.max_epochs or minutes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fast_nst.errors import UserError, check_int, check_number
from fast_nst.training import resume
from fast_nst.training.length import LEAST, UNKNOWN

MAX_STEPS = 10**9
IMAGES_A_MINUTE = 100  # synthetic images; two cores draw them in about a seventh of the time


def settle_minutes(cfg: dict[str, Any], given: Sequence[str], checkpoint: Path | None) -> None:
    """Prepare `cfg` for a run of `minutes`; without them, do nothing.

    trainer.max_steps becomes null, or the number of steps that the run of `checkpoint` measured. A short run draws
    fewer synthetic images. given: the keys on the command line. Raises UserError.
    """
    minutes = cfg["minutes"]
    if minutes is None:
        return
    check_number("minutes", minutes, 0.01, 10**6)
    if other := {"trainer.max_steps", "trainer.max_epochs", "trainer.max_time"} & {*given}:
        raise UserError(f"minutes: got {minutes} and {min(other)}; give one of them")
    warmup = check_int("optimizer.warmup_steps", cfg["optimizer"]["warmup_steps"], 0)
    if cfg["optimizer"]["schedule"] != "constant" and warmup < LEAST:
        raise UserError(f"optimizer.warmup_steps: got {warmup}; allowed with minutes: {LEAST} or more")
    trainer = cfg["trainer"]
    trainer["max_steps"] = trainer["max_epochs"] = trainer["max_time"] = None
    if cfg["data"]["name"] == "synthetic" and "data.count" not in given:
        count = math.ceil(IMAGES_A_MINUTE * minutes)
        cfg["data"]["count"] = min(cfg["data"]["count"], max(20, count))
    if checkpoint is not None:
        before = resume.read(checkpoint)["settings"]
        if before.get("minutes") != minutes:
            raise UserError(
                f"minutes: got {minutes}; the run of ckpt_path has {before.get('minutes')}; to lengthen it, give "
                f"trainer.max_steps instead (now {before['trainer']['max_steps']})"
            )
        trainer["max_steps"] = before["trainer"]["max_steps"]


def total_steps(cfg: dict[str, Any], images: int, batch: int) -> int:
    """Return the length of the run in steps: max_steps, or the steps that max_epochs takes with `batch` images each.

    UNKNOWN for a run of `minutes` that has not been measured. Raises UserError.
    """
    steps, epochs = cfg["trainer"]["max_steps"], cfg["trainer"]["max_epochs"]
    if cfg["minutes"] is not None and steps is None:
        return UNKNOWN
    if (steps is None) == (epochs is None):
        raise UserError(f"trainer.max_steps, max_epochs: got {steps} and {epochs}; set one, and the other to null")
    if steps is not None:
        return check_int("trainer.max_steps", steps, 1, MAX_STEPS)
    return math.ceil(check_int("trainer.max_epochs", epochs, 1, MAX_STEPS) * images / batch)


def measured_steps(cfg: dict[str, Any]) -> int:
    """Return the most steps to measure the speed: 50, or fewer if later learning rates depend on the run's length."""
    steps: int = cfg["optimizer"]["warmup_steps"]
    return min(steps, 50) if cfg["optimizer"]["schedule"] != "constant" else 50


def reserve(cfg: dict[str, Any], held_out: int) -> float:
    """Return how many steps take as long as the held-out images and the preview at the end, which need no gradient."""
    data = cfg["data"]
    images = (held_out + cfg["preview"]["images"]) * (data["val_size"] / data["size"]) ** 2
    return float(images / data["batch_size"] / 3)
