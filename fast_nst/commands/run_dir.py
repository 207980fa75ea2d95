"""The folder that a run writes to, and the checkpoint that it resumes from."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

from fast_nst.atomic import check_place
from fast_nst.commands import cli
from fast_nst.errors import UserError

RUN_DIR = "FAST_NST_RUN_DIR"  # passes the folder to the further processes that Lightning starts


def run_directory(output_dir: str | None, ckpt_path: str | None, name: str) -> tuple[Path, Path | None]:
    """Return the folder of this run, and the checkpoint to resume from, or None.

    A resumed run stays in its folder, unless `output_dir` is another one. A `ckpt_path` of "auto" is the checkpoint in
    `output_dir`; if there is none yet, the run is new. Without an `output_dir`, "auto" is the checkpoint of the newest
    run called `name`. Raises UserError.
    """
    if ckpt_path is None:
        if output_dir is not None:
            if (Path(output_dir) / "checkpoints" / "last.ckpt").exists():
                raise UserError(
                    f"output_dir: {output_dir} holds a run; resume with ckpt_path=auto, or give another folder"
                )
            return Path(output_dir), None
        if RUN_DIR in os.environ and "LOCAL_RANK" in os.environ:
            return Path(os.environ[RUN_DIR]), None
        return new_directory(name), None
    if ckpt_path != "auto":
        checkpoint = Path(ckpt_path)
    elif output_dir is not None:
        checkpoint = Path(output_dir) / "checkpoints" / "last.ckpt"
    else:
        found = sorted((Path("outputs") / name).glob("*/checkpoints/last.ckpt"), key=lambda p: p.stat().st_mtime)
        checkpoint = found[-1] if found else Path("outputs") / name / "*" / "checkpoints" / "last.ckpt"
    if not checkpoint.is_file() and ckpt_path == "auto" and output_dir is not None:
        return Path(output_dir), None  # the first start of a job that is restarted until it is done
    if checkpoint.is_dir():
        raise UserError(f"ckpt_path: {checkpoint}: is a directory; give the last.ckpt in its checkpoints/")
    if not checkpoint.is_file():
        raise UserError(f"ckpt_path: {checkpoint}: no such checkpoint")
    if output_dir is None:
        own = checkpoint.parent.name == "checkpoints"  # a copy elsewhere belongs to no run's folder
        return (checkpoint.parent.parent if own else new_directory(name)), checkpoint
    last = Path(output_dir) / "checkpoints" / "last.ckpt"
    if last.exists() and not last.samefile(checkpoint):
        raise UserError(
            f"output_dir: {output_dir} holds another run, not the one of ckpt_path, {checkpoint}; give another folder, "
            "or ckpt_path=auto to resume the run in output_dir"
        )
    return Path(output_dir), checkpoint


def new_directory(name: str) -> Path:
    """Return outputs/<style>/<time>, a folder that does not exist yet."""
    folder = base = Path("outputs") / name / time.strftime("%Y-%m-%d_%H-%M-%S")
    count = 1
    while folder.exists():  # two runs of a series may start within a second
        count += 1
        folder = base.with_name(f"{base.name}_{count}")
    return folder


def check_files(config: Path, results: Iterable[Path], inputs: Iterable[Path], new: bool) -> None:
    """Raise UserError, before the work starts, if an output is one of `inputs` or cannot be written.

    new: whether an existing output is an error too, except a run's config.yaml, which a failed run also leaves.
    """
    files = [config, *results]
    cli.check_apart("output_dir", files, inputs)
    for file in files:
        if file.is_dir():
            raise UserError(f"output_dir: {file}: is a folder")
        if new and file.exists() and (file != config or "ckpt_path:" not in config.read_text(errors="replace")):
            raise UserError(f"output_dir: {file} already exists; give another folder")
        check_place(file)
