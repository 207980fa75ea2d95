"""Resume from a checkpoint: read its settings and check whether those that changed may differ."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from fast_nst.errors import UserError
from fast_nst.safe_load import load_pickle

SEED_STRIDE = 0x9E3779B1  # an odd number: Knuth's multiplicative hash
KEY = "fast_nst"  # the key of the settings in a checkpoint
# Settings that do not affect the result.
_IGNORED = (
    "output_dir", "ckpt_path", "preview", "checkpoint", "data.workers", "trainer.accelerator",
    "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.max_time", "trainer.log_every_n_steps",
    "trainer.val_every_n_steps", "trainer.cuda_graphs",
)  # fmt: skip
_FIXED = ("network", "style", "optimizer.name", "method.name")  # must not change


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the settings and the step of a checkpoint: {"settings", "step"}. Raises UserError."""
    try:
        checkpoint = load_pickle(path)
        return {"settings": dict(checkpoint[KEY]), "step": int(checkpoint["global_step"])}
    except (UserError, LookupError, ValueError, TypeError):
        raise UserError(f"ckpt_path: {os.fspath(path)}: damaged, or not a checkpoint of train.py") from None


def check(before: Mapping[str, Any], now: Mapping[str, Any], step: int, steps: int) -> list[str]:
    """Return the settings that changed, one text each, for a run that resumes at `step` of `steps`.

    Raises UserError for changes that make resuming impossible.
    """
    changed = list(_differences(dict(_flat(before)), dict(_flat(now))))
    if refused := [text for name, text in changed if _is_under(name, _FIXED)]:
        raise UserError(
            f"ckpt_path: its run cannot be resumed with other settings ({'; '.join(refused)}); start a new run"
        )
    if steps < step:
        raise UserError(f"trainer.max_steps: got {steps}; the checkpoint is already at step {step}")
    return [text for _, text in changed]


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        # Arguments that only one of the two versions has are at their default.
        missing = _is_under(name, ("network", "data", "loss_network", "method")) and not (
            name in before and name in now
        )
        if old != new and not missing and not _is_under(name, _IGNORED):
            yield name, f"{name}: {old} before, {new} now"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_under(name: str, groups: tuple[str, ...]) -> bool:
    return any(name == group or name.startswith(f"{group}.") for group in groups)


def set_learning_rate(checkpoint: dict[str, Any], learning_rate: float) -> None:
    """Scale the optimizer and scheduler states of `checkpoint` to `learning_rate`, so that it replaces the old rate."""
    groups = [group for state in checkpoint.get("optimizer_states", ()) for group in state["param_groups"]]
    before = groups[-1]["initial_lr"] if groups else 0  # the last group is the kernels'
    if before in (0, learning_rate):
        return
    factor = learning_rate / before
    for group in groups:
        group["lr"], group["initial_lr"] = group["lr"] * factor, group["initial_lr"] * factor
    for state in checkpoint["lr_schedulers"]:
        for key in ("base_lrs", "_last_lr"):
            state[key] = [rate * factor for rate in state[key]]


def seed_step(seed: int, step: int) -> None:
    """Seed the CPU's generator for a step, so that its randomness depends on the seed and the step only."""
    # The generator uses the lower 32 bits of a seed. Seeding the GPUs' too would take a millisecond.
    torch.default_generator.manual_seed((seed * SEED_STRIDE + step) % 2**32)
