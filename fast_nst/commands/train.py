"""Train a network, by default an image transformation network for one painting.

python scripts/train.py style=starry_night
python scripts/train.py style.image=painting.jpg data=folder data.root=photographs trainer.max_steps=10000
"""

import logging
import math
import os
import re
import shlex
import signal
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import hydra
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tqdm import tqdm

from fast_nst.atomic import atomic_write
from fast_nst.commands import cli, train_length
from fast_nst.commands.build import file_name, further_paintings
from fast_nst.commands.config import CONFIGS, compose, run, settle
from fast_nst.commands.initial import AUTO
from fast_nst.commands.job import Files, Module
from fast_nst.commands.paths import assign
from fast_nst.commands.run_dir import RUN_DIR, check_files, run_directory
from fast_nst.commands.train_methods import check_given, find_method
from fast_nst.data import shared_memory, styles
from fast_nst.device import choose_precision, free_memory
from fast_nst.errors import RunError, UserError, check_int
from fast_nst.machine import is_out_of_memory, keep_freed_memory
from fast_nst.methods.style_transfer import StyleTransfer
from fast_nst.training import callbacks, resume
from fast_nst.training.checkpoint import AtomicCheckpointIO, SaveCheckpoint
from fast_nst.training.divergence import StopOnNan
from fast_nst.training.length import UNKNOWN, FitMinutes
from fast_nst.training.preview import Preview

LIGHTNING_ERRORS = (
    ValueError, TypeError, RuntimeError, ImportError, OverflowError, pl.utilities.exceptions.MisconfigurationException,
)  # fmt: skip

LIGHTNING_NOISE = (  # harmless warnings: the sampler itself resumes by step; Lightning lags behind the newest torch
    ".*does not have many workers.*", ".*dataloader is not resumable.*", ".*LeafSpec.*",
)  # fmt: skip


def plan_files(cfg: dict[str, Any]) -> Files:
    """Choose and check the files of a run. Raises UserError."""
    method = find_method(cfg)
    paintings = styles.find_all(cfg["style"]["image"]) if method.paints else []
    name = file_name(cfg, method.label(cfg, paintings))
    folder, checkpoint = run_directory(cfg["output_dir"], cfg["ckpt_path"], name)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output_dir: {folder}: is a file")
    files = Files(name, paintings, further_paintings(cfg) if method.paints else [], folder, checkpoint)
    start = [] if cfg["init_from"] in (None, AUTO) else [Path(cfg["init_from"])]
    inputs = [*paintings, *(path for path, _ in files.blend), *start]
    first_process = "LOCAL_RANK" not in os.environ  # the others may find its files
    new = cfg["ckpt_path"] is None and first_process
    check_files(files.config, [files.weights, files.preview, files.last], inputs, new)
    return files


def resume_command(checkpoint: Path, overrides: Sequence[str], python: bool) -> str:
    """Return the command that resumes from `checkpoint`, or, if `python`, how to call `fast_nst.train` again."""
    plain = re.fullmatch(r"[\w./-]+", str(checkpoint))
    last = f"ckpt_path={checkpoint}" if plain else assign("ckpt_path", checkpoint)
    if python:
        return f"the same call with overrides=[{last!r}] added"
    kept = [item for item in overrides if not item.startswith("ckpt_path=")]
    return f"{cli.typed('train')} {shlex.join([*kept, last])}"


def in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def build_trainer(cfg: dict[str, Any], precision: str, **arguments: Any) -> pl.Trainer:
    """Build Lightning's Trainer. Raises UserError for settings that it does not accept."""
    check_int("trainer.log_every_n_steps", cfg["log_every_n_steps"], 1)
    check_int("trainer.val_every_n_steps", cfg["val_every_n_steps"], 1)
    if cfg["max_time"] is not None and not re.fullmatch(r"(?=.*[1-9])\d{1,5}(:\d{1,2}){3}", str(cfg["max_time"])):
        raise UserError(
            f"trainer.max_time: got {cfg['max_time']!r}; allowed: DD:HH:MM:SS, such as 00:01:00:00 for an hour"
        )
    try:
        return pl.Trainer(
            accelerator=cfg["accelerator"], devices=cfg["devices"], num_nodes=cfg["num_nodes"],
            strategy=cfg["strategy"], precision=cast(Any, precision), max_time=cfg["max_time"], max_epochs=-1,
            log_every_n_steps=cfg["log_every_n_steps"],
            val_check_interval=cfg["val_every_n_steps"], check_val_every_n_epoch=None, num_sanity_val_steps=0,
            use_distributed_sampler=False, enable_checkpointing=False, enable_model_summary=False, **arguments,
        )  # fmt: skip
    except LIGHTNING_ERRORS as error:
        raise UserError(f"trainer: {cli.one_line(error)}") from None


def check_memory(module: Module, batch_size: int, size: int, bf16: bool, processes: int) -> None:
    """Raise UserError if a step needs more memory than is free; the system would kill the process later."""
    needed = module.memory_needed(batch_size, size, bf16) * processes
    if needed > (free := free_memory(module.device)):
        raise UserError(
            f"data.batch_size, data.size: a step of {batch_size} images of {size} x {size} pixels takes about "
            f"{needed / 2**30:.1f} GiB of memory, but {free / 2**30:.1f} are free; fewer or smaller ones need less"
        )


class Run:
    """A training run. The constructor builds everything; then call `fit`, and `report` to print the result."""

    def __init__(self, cfg: dict[str, Any], overrides: Sequence[str] = (), python: bool = False) -> None:
        """overrides: as on the command line. python: whether `fast_nst.train` starts the run. Raises UserError."""
        self.cfg, self.started = cfg, time.monotonic()
        given = [word.partition("=")[0].lstrip("+") for word in overrides]
        check_given(cfg, given)
        self.files = files = plan_files(cfg)
        train_length.settle_minutes(cfg, given, files.checkpoint)
        pl.seed_everything(check_int("seed", cfg["seed"], 0, 2**32 - 1), verbose=False)
        job = find_method(cfg).build(cfg, files, given)
        self.data, self.module = job.data, job.module
        self.precision = choose_precision(cfg["trainer"]["precision"], cfg["trainer"]["accelerator"])
        self.progress = callbacks.Progress()
        every = check_int("checkpoint.every_n_steps", cfg["checkpoint"]["every_n_steps"], 1)
        self.resume_command = resume_command(files.last, overrides, python)
        signals = SaveCheckpoint.SIGNALS if not python else (signal.SIGINT,) if in_main_thread() else ()
        self.save_checkpoint = SaveCheckpoint(
            files.last, every, job.settings, files.weights, self.resume_command, signals
        )
        self.save_weights = callbacks.SaveWeights(files.weights, job.description)
        every = cfg["preview"]["every_n_steps"]
        self.preview = Preview(
            files.preview, job.draw, UNKNOWN if every is None else check_int("preview.every_n_steps", every, 1)
        )
        self.trainer = build_trainer(
            cfg["trainer"], self.precision,
            logger=pl.loggers.TensorBoardLogger(files.folder, name="tensorboard", version=""),
            plugins=[AtomicCheckpointIO()],
            callbacks=[  # weights first: the disk may not have space for all files
                *self.fit_minutes(), self.progress, StopOnNan(cfg["trainer"]["log_every_n_steps"]),
                callbacks.UseFreeCores(), pl.callbacks.LearningRateMonitor("step"), self.save_weights,
                self.save_checkpoint, self.preview,
            ],
        )  # fmt: skip
        batch = self.data.batch_size * self.trainer.world_size
        self.steps = train_length.total_steps(cfg, len(self.data.sets.train), batch)
        # The steps of an epoch depend on the number of processes, which only the trainer knows.
        self.trainer.fit_loop.epoch_loop.max_steps = self.steps
        self.module.total_steps = self.steps
        if every is None:
            self.preview.every_n_steps = math.ceil(len(self.data.sets.train) / batch)
        self.save_checkpoint.settings["processes"] = self.trainer.world_size
        if self.trainer.strategy.root_device.type == "cpu":
            bf16 = self.precision.startswith("bf16")
            check_memory(self.module, self.data.batch_size, cfg["data"]["size"], bf16, self.trainer.num_devices)

    def fit_minutes(self) -> list[FitMinutes]:
        """Return a list of the callback that sets the length of a run of `minutes`; empty for any other run."""
        cfg = self.cfg
        if cfg["minutes"] is None:
            return []
        reserve = train_length.reserve(cfg, len(self.data.sets.val))
        return [FitMinutes(cfg["minutes"], self.started, train_length.measured_steps(cfg), reserve, self.set_length)]

    def set_length(self, steps: int) -> None:
        """Set the length of the run to `steps`, and record it in the checkpoint's settings and in config.yaml."""
        self.steps = self.module.total_steps = self.cfg["trainer"]["max_steps"] = steps
        self.save_checkpoint.settings["trainer"] = self.cfg["trainer"]
        if not self.trainer.is_global_zero:
            return
        self.write_config()
        same = f"trainer.max_steps={steps}"
        if self.cfg["data"]["name"] == "synthetic":
            same += f" data.count={self.cfg['data']['count']}"
        text = f"minutes={self.cfg['minutes']:g}: {steps} steps; to train the same network again, give {same}"
        tqdm.write(text, sys.stderr)

    def write_config(self) -> None:
        with atomic_write(self.files.config) as temporary:
            OmegaConf.save(OmegaConf.create(self.cfg), temporary)

    def resume(self) -> int:
        """Compare the settings with the checkpoint's and return the step to resume at. Raises UserError."""
        if self.files.checkpoint is None:
            return 0
        before = resume.read(self.files.checkpoint)
        start = before["settings"].get("init_from")
        self.save_checkpoint.settings["init_from"] = self.save_weights.description["init_from"] = start
        changed = resume.check(before["settings"], self.save_checkpoint.settings, before["step"], self.steps)
        if changed and before["step"] >= self.steps:
            raise UserError(
                f"ckpt_path: the run is complete, and the settings differ ({'; '.join(changed)}); start a new run"
            )
        if self.trainer.is_global_zero:
            print(f"resuming from {self.files.checkpoint}, at step {before['step']}", file=sys.stderr)
            for text in changed:
                print(f"changed: {text}", file=sys.stderr)
        return int(before["step"])

    def announce(self) -> None:
        """Write config.yaml and print what will be done, in the first process."""
        trainer, sets = self.trainer, self.data.sets
        if not trainer.is_global_zero:
            return
        os.environ[RUN_DIR] = str(self.files.folder)
        self.write_config()
        steps = "about 1 minute" if self.cfg["minutes"] == 1 else f"about {self.cfg['minutes']} minutes"
        steps = steps if self.steps == UNKNOWN else f"{self.steps} steps"
        print(
            f"{self.files.name}: {steps} on {trainer.world_size} x {trainer.strategy.root_device.type}, "
            f"{self.precision}, {len(sets.train)} content images and {len(sets.val)} held out; writing to "
            f"{self.files.folder}",
            file=sys.stderr,
        )
        for note in self.data.notes():
            print(note, file=sys.stderr)
        if self.files.checkpoint is None and self.cfg["ckpt_path"] is not None:
            print(f"no checkpoint in {self.files.folder} yet; starting a new run", file=sys.stderr)
        if trainer.num_nodes > 1:
            cluster = getattr(trainer.strategy, "cluster_environment", None)
            where = f" at {cluster.main_address}:{cluster.main_port}" if cluster is not None else ""
            print(f"waiting for the processes of {trainer.num_nodes} machines{where}", file=sys.stderr)

    def fit(self) -> None:
        """Train and save the results. Raises UserError or RunError, whose messages say how to resume."""
        step = self.resume()
        self.save_checkpoint.listen()
        self.announce()
        try:
            self.trainer.fit(self.module, self.data, ckpt_path=self.files.checkpoint, weights_only=True)
        except SystemExit:  # Lightning turns a second Ctrl-C into this
            raise KeyboardInterrupt from None
        except (UserError, OSError, RuntimeError) as error:
            raise self.explain(error) from None
        finally:
            if isinstance(self.module, StyleTransfer):
                self.module.close_graph()
        if step >= self.steps:  # the run may have ended after its last step, before the results were saved
            self.trainer.validate(self.module, self.data, verbose=False)
            self.save_weights.on_train_end(self.trainer, self.module)
            self.preview.on_train_end(self.trainer, self.module)

    def explain(self, error: Exception) -> Exception:
        """Return `error` as one line, with the command that resumes if there is a checkpoint; others unchanged."""
        kind: type[Exception]
        if "combined_loader" in str(error) and isinstance(error.__context__, Exception):
            error = error.__context__  # the first error; Lightning's cleanup after it failed too
        if not isinstance(error, UserError) and shared_memory.is_lack_of_it(error):
            text, kind = f"shared memory is full ({cli.one_line(error)}); {shared_memory.REMEDY}", RunError
        elif isinstance(error, UserError | OSError):
            text, kind = cli.one_line(error), UserError
            if not isinstance(error, UserError):  # from TensorBoard
                text = f"{self.files.folder}: {text}"
            if self.files.weights.is_file() and self.trainer.global_step >= self.steps:
                text += f"; the network is in {self.files.weights}"
        elif is_out_of_memory(cast(RuntimeError, error)):
            text, kind = "out of memory; a smaller data.batch_size or data.size needs less", RunError
        elif "DataLoader worker" in str(error):
            return RunError(f"a worker process for the content images ended unexpectedly: {cli.one_line(error)}")
        else:
            return error
        return kind(f"{text}; resume with: {self.resume_command}" if self.files.last.is_file() else text)

    def report(self) -> None:
        """Print the time taken and the command that uses the network, in the first process."""
        if not self.trainer.is_global_zero:
            return
        minutes = (time.monotonic() - self.started) / 60
        on_cpu = self.trainer.strategy.root_device.type == "cpu"
        share = f" ({self.progress.outside:.1%} of the time outside training steps)" if on_cpu else ""
        if self.trainer.global_step < self.steps:
            print(f"stopped by trainer.max_time at step {self.trainer.global_step} of {self.steps}", file=sys.stderr)
        method = find_method(self.cfg)
        does, command, rest = method.next
        print(f"done in {minutes:.1f} min{share}. See {self.files.preview}; {does} with", file=sys.stderr)
        names = self.save_weights.description.get("style", {}).get("names", [])
        style = f" --style {shlex.quote(names[-1])}" if method.paints and len(names) > 1 else ""
        print(f"{cli.typed(command)} {shlex.quote(str(self.files.weights))} {rest}{style}")


def train_from_python(
    style: str | os.PathLike[str],
    content: str | os.PathLike[str] | None,
    max_steps: int | None,
    minutes: float | None,
    output_dir: str | os.PathLike[str] | None,
    overrides: Sequence[str],
) -> Path:
    """Train as `fast_nst.train` does and return the weights file's path. Raises UserError and RunError."""
    names = sorted(path.stem for path in (CONFIGS / "style").glob("*.yaml"))
    bundled = str(style) in names
    if not bundled and not Path(style).expanduser().exists():
        raise UserError(f"style: {style}: no such file; the bundled styles are {', '.join(names)}")
    if isinstance(overrides, str):
        raise UserError(f"overrides: got {overrides!r}; allowed: a list of settings, [{overrides!r}]")
    words = [f"style={style}" if bundled else assign("style.image", style)]
    if content is not None:
        words += ["data=folder", assign("data.root", content)]
    words += [] if max_steps is None else [f"trainer.max_steps={max_steps}"]
    words += [] if minutes is None else [f"minutes={minutes}"]
    words += [] if output_dir is None else [assign("output_dir", output_dir)]
    words += overrides
    try:
        cfg = compose("train", words)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(cli.explain(error)) from None
    with torch.random.fork_rng(devices=()), warnings.catch_warnings():
        for message in LIGHTNING_NOISE:
            warnings.filterwarnings("ignore", message=message)
        before = signal.getsignal(signal.SIGINT)
        try:
            training = Run(cfg, words, python=True)
            training.fit()
        finally:
            if in_main_thread():  # Lightning restores the handler that it found, which is the run's
                signal.signal(signal.SIGINT, before)
    return training.files.weights


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
def main(composed: DictConfig) -> None:
    keep_freed_memory()
    try:
        settle(composed)
        cfg: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
        training = Run(cfg, list(HydraConfig.get().overrides.task))
        training.fit()
        training.report()
    except cli.known_errors() as error:
        code = cli.report(error)  # Hydra would add a line of its own to an exception that reached it
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            sys.exit(code)
        if code > 128:
            print("the remaining runs of the series were skipped", file=sys.stderr)
            sys.exit(code)
        raise RunError("some runs of the series failed") from None  # Hydra raises it after the last run


def _ignore_tensorboard_thread(arguments: threading.ExceptHookArgs) -> None:
    """Ignore an OSError, such as a full disk, in TensorBoard's thread: the next log call raises it again."""
    if not issubclass(arguments.exc_type, OSError):
        threading.__excepthook__(arguments)


def command_line() -> None:
    threading.excepthook = _ignore_tensorboard_thread
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    for message in LIGHTNING_NOISE:
        warnings.filterwarnings("ignore", message=message)
    run(main, "train")
