"""Train an image transformation network for one painting.

python scripts/train.py style=starry_night
python scripts/train.py style.image=painting.jpg data=folder data.root=photographs trainer.max_steps=10000
"""

import logging
import math
import os
import re
import shlex
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any, cast

import hydra
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fast_nst import data, networks, weights
from fast_nst.commands import cli
from fast_nst.commands.build import further_paintings, make_loss, style_name
from fast_nst.commands.config import CONFIGS, run, settle
from fast_nst.commands.run_dir import RUN_DIR, check_files, run_directory
from fast_nst.data import styles
from fast_nst.data.datamodule import ContentData
from fast_nst.device import choose_precision, free_memory, is_out_of_memory, keep_memory
from fast_nst.errors import RunError, UserError, check_int
from fast_nst.image import replacing
from fast_nst.methods.style_transfer import StyleTransfer
from fast_nst.training import callbacks, resume
from fast_nst.training import checkpoint as checkpoint_callbacks
from fast_nst.training.divergence import StopOnNan
from fast_nst.weights import sha256

MOST_STEPS = 10**9
REFUSALS = (  # Lightning's
    ValueError, TypeError, RuntimeError, ImportError, OverflowError, pl.utilities.exceptions.MisconfigurationException,
)  # fmt: skip


def check_source(name: str, given: list[str]) -> None:
    """Raises UserError where one of the keys `given` on the command line means another source of content images."""
    if name == "synthetic" and "data.root" in given and "data" not in given:
        raise UserError("data.root: data=synthetic, the default, draws its own pictures; add data=folder")
    if name != "synthetic" and "data.count" in given:
        raise UserError(f"data.count: how many pictures data=synthetic draws; {name} takes all there are")


def command_to_go_on(checkpoint: Path) -> str:
    """What to type to go on from `checkpoint`: this command with ckpt_path."""
    path = str(checkpoint)
    if not re.fullmatch(r"[\w./-]+", path):
        path = "'" + path.replace("'", "\\'") + "'"  # as Hydra quotes
    overrides = [item for item in HydraConfig.get().overrides.task if not item.startswith("ckpt_path=")]
    return f"{cli.typed('train')} {shlex.join([*overrides, f'ckpt_path={path}'])}"


def with_a_way_on(text: str, checkpoint: Path) -> str:
    """An error and, where there is a `checkpoint`, what to type to go on from it."""
    return f"{text}; go on with: {command_to_go_on(checkpoint)}" if checkpoint.is_file() else text


def total_steps(cfg: dict[str, Any], images: int, batch: int) -> int:
    """The length of the run: max_steps, or as many steps of `batch` images as max_epochs takes."""
    steps, epochs = cfg["max_steps"], cfg["max_epochs"]
    if (steps is None) == (epochs is None):
        raise UserError(f"trainer.max_steps, max_epochs: got {steps} and {epochs}; set one, the other null")
    if steps is not None:
        return check_int("trainer.max_steps", steps, 1, MOST_STEPS)
    return math.ceil(check_int("trainer.max_epochs", epochs, 1, MOST_STEPS) * images / batch)


def make_trainer(cfg: dict[str, Any], precision: str, **arguments: Any) -> pl.Trainer:
    """Lightning's Trainer; what it does not accept is a user's mistake."""
    check_int("trainer.log_every_n_steps", cfg["log_every_n_steps"], 1)
    check_int("trainer.val_every_n_steps", cfg["val_every_n_steps"], 1)
    if cfg["max_time"] is not None and not re.fullmatch(r"(?=.*[1-9])\d{1,5}(:\d{1,2}){3}", str(cfg["max_time"])):
        raise UserError(f"trainer.max_time: got {cfg['max_time']!r}; allowed: DD:HH:MM:SS, 00:01:00:00 for an hour")
    try:
        return pl.Trainer(
            accelerator=cfg["accelerator"], devices=cfg["devices"], num_nodes=cfg["num_nodes"],
            strategy=cfg["strategy"], precision=cast(Any, precision), max_time=cfg["max_time"], max_epochs=-1,
            log_every_n_steps=cfg["log_every_n_steps"],
            val_check_interval=cfg["val_every_n_steps"], check_val_every_n_epoch=None, num_sanity_val_steps=0,
            use_distributed_sampler=False, enable_checkpointing=False, enable_model_summary=False, **arguments,
        )  # fmt: skip
    except REFUSALS as error:
        raise UserError(f"trainer: {cli.one_line(error)}") from None


def start_from(network: networks.Network, path: str) -> str:
    """Give `network` the weights of a file trained for another painting; how the records name that."""
    try:
        other, description = weights.load(path)
        network.load_state_dict(other.state_dict())
    except weights.WeightsError as error:
        raise UserError(f"start: {error}") from None
    except RuntimeError:
        raise UserError(f"start: {path}: another network than this run's: {description['network']}") from None
    if other.pixels != network.pixels:
        raise UserError(f"start: {path}: its pixels are {other.pixels!r}, this run's {network.pixels!r}")
    return f"{Path(path).stem} ({sha256(path)[:12]})"


def check_memory(module: StyleTransfer, batch_size: int, size: int, low: bool, processes: int) -> None:
    """A system ends who takes more memory than there is without a word."""
    needed = module.memory_needed(batch_size, size, low) * processes
    if needed > (free := free_memory(module.device)):
        raise UserError(
            f"data.batch_size, data.size: a step of {batch_size} images of {size} x {size} pixels takes about "
            f"{needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} are free; fewer or smaller ones need less"
        )


def train(composed: DictConfig) -> None:
    settle(composed)
    cfg: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    begun = time.monotonic()
    painting = styles.find(cfg["style"]["image"])
    name = style_name(cfg, painting)
    folder, checkpoint = run_directory(cfg["output_dir"], cfg["ckpt_path"], name)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output_dir: {folder}: is a file")
    weights_file, last = folder / f"{name}.safetensors", folder / "checkpoints" / "last.ckpt"
    preview_file, config_file = folder / "preview.png", folder / "config.yaml"
    further = further_paintings(cfg)
    inputs = [painting, *(path for path, _ in further), *([] if cfg["start"] is None else [Path(cfg["start"])])]
    first_process = "LOCAL_RANK" not in os.environ  # the others may find what this one wrote
    check_files(config_file, [weights_file, preview_file, last], inputs, cfg["ckpt_path"] is None and first_process)
    pl.seed_everything(check_int("seed", cfg["seed"], 0, 2**32 - 1), verbose=False)
    network = networks.build(**cfg["network"])
    start = None if cfg["start"] is None or checkpoint is not None else start_from(network, str(cfg["start"]))
    loss = make_loss(cfg, painting, cfg["style"]["size"])
    content = dict(cfg["data"])
    check_source(content["name"], [word.partition("=")[0] for word in HydraConfig.get().overrides.task])
    jitter = check_int("loss.jitter", cfg["loss"].get("jitter", 0), 0)
    for key, least in (("size", loss.smallest + jitter), ("val_size", loss.smallest)):
        if check_int(f"data.{key}", content[key], 16) < least:
            raise UserError(f"data.{key}: got {content[key]}; the loss at its coarsest scale needs {least} on")
    batch_size, workers = content.pop("batch_size"), content.pop("workers")
    sets = data.build(**content, seed=cfg["seed"])
    datamodule = ContentData(sets, batch_size, workers)
    precision = choose_precision(cfg["trainer"]["precision"], cfg["trainer"]["accelerator"])
    every = {key: check_int(f"{key}.every_n_steps", cfg[key]["every_n_steps"], 1) for key in ("checkpoint", "preview")}
    count = check_int("preview.images", cfg["preview"]["images"], 1)

    names = [name, *(path.stem for path, _ in further)]
    digests = [sha256(path) for path in (painting, *(path for path, _ in further))]
    first, *others = (f"{name} ({digest[:12]})" for name, digest in zip(names, digests, strict=True))
    shares = dict(zip(others, (share for _, share in further), strict=True))
    settings = {**cfg, "start": start, "style": {**cfg["style"], "image": first, "blend": shares}}
    progress = callbacks.Progress()
    saving = checkpoint_callbacks.SaveCheckpoint(last, every["checkpoint"], settings, command_to_go_on(last))
    description = {
        "network": cfg["network"],
        "style": {"names": names, "sha256": digests},
        "loss_network": cfg["loss_network"]["name"],
        "loss": cfg["loss"],
        "start": start,
    }
    preview = callbacks.Preview(preview_file, loss.styles[0], sets.val, count, every["preview"])
    last_word = callbacks.SaveWeights(weights_file, description)
    trainer = make_trainer(
        cfg["trainer"],
        precision,
        logger=pl.loggers.TensorBoardLogger(folder, name="tensorboard", version=""),
        plugins=[checkpoint_callbacks.AtomicCheckpointIO()],
        callbacks=[
            progress,
            StopOnNan(cfg["trainer"]["log_every_n_steps"]),
            pl.callbacks.LearningRateMonitor("step"),
            last_word,  # before what is of less worth, for there may be no space for all
            saving,
            preview,
        ],
    )
    steps = total_steps(cfg["trainer"], len(sets.train), batch_size * trainer.world_size)
    trainer.fit_loop.epoch_loop.max_steps = steps  # max_epochs needs the number of processes, which the trainer knows
    settled = {
        "total_steps": steps, "seed": cfg["seed"], "jitter": jitter,
        "cuda_graphs": cfg["trainer"]["cuda_graphs"],
    }  # fmt: skip
    module = StyleTransfer(network, loss, **settled, **cfg["optimizer"])
    saving.settings["processes"] = trainer.world_size
    if trainer.strategy.root_device.type == "cpu":
        check_memory(module, batch_size, content["size"], precision.startswith("bf16"), trainer.num_devices)
    changed = []
    if checkpoint is not None:
        before = resume.read(checkpoint)
        saving.settings["start"] = last_word.description["start"] = before["settings"].get("start")
        changed = resume.check(before["settings"], saving.settings, before["step"], steps)
        if changed and before["step"] >= steps:
            raise UserError(f"ckpt_path: a complete run, with other settings ({'; '.join(changed)}); start a new one")
    saving.listen()
    if trainer.is_global_zero:
        os.environ[RUN_DIR] = str(folder)
        with replacing(config_file) as temporary:
            OmegaConf.save(composed, temporary)
        device = trainer.strategy.root_device.type
        print(
            f"{name}: {steps} steps on {trainer.world_size} x {device}, {precision}, {len(sets.train)} content images "
            f"and {len(sets.val)} held out; writing to {folder}",
            file=sys.stderr,
        )
        if checkpoint is not None:
            print(f"going on from {checkpoint}, at step {before['step']}", file=sys.stderr)
        elif cfg["ckpt_path"] is not None:
            print(f"no checkpoint in {folder} yet: a new run", file=sys.stderr)
        for text in changed:
            print(f"changed: {text}", file=sys.stderr)
        if trainer.num_nodes > 1:
            place = getattr(trainer.strategy, "cluster_environment", None)
            where = f" at {place.main_address}:{place.main_port}" if place is not None else ""
            print(f"waiting for the processes of {trainer.num_nodes} machines{where}", file=sys.stderr)
    try:
        trainer.fit(module, datamodule, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:  # what Lightning makes of a second Ctrl-C, without a word
        raise KeyboardInterrupt from None
    except (UserError, OSError) as error:
        text = cli.one_line(error)
        if not isinstance(error, UserError):  # TensorBoard's
            text = f"{folder}: {text}"
        if weights_file.is_file() and trainer.global_step >= steps:
            text += f"; the network is in {weights_file}"
        raise UserError(with_a_way_on(text, last)) from None
    except RuntimeError as error:
        if is_out_of_memory(error):
            text = "out of memory; a smaller data.batch_size or data.size needs less"
            raise RunError(with_a_way_on(text, last)) from None
        if "DataLoader worker" not in str(error):
            raise
        raise RunError(f"a process that makes the content images ended: {cli.one_line(error)}") from None
    finally:
        module.close_graph()
    if checkpoint is not None and before["step"] >= steps:  # killed after its last step: what is left is to write
        if steps % cfg["trainer"]["val_every_n_steps"] == 0:
            trainer.validate(module, datamodule, verbose=False)
        last_word.on_train_end(trainer, module)
        preview.on_train_end(trainer, module)
    if trainer.is_global_zero:
        minutes = (time.monotonic() - begun) / 60
        share = f" ({progress.outside:.1%} of the training outside steps)" if device == "cpu" else ""
        if trainer.global_step < steps:
            print(f"stopped by trainer.max_time at step {trainer.global_step} of {steps}", file=sys.stderr)
        print(
            f"done in {minutes:.1f} min{share}. Look at {folder / 'preview.png'}; repaint a photograph with",
            file=sys.stderr,
        )
        print(f"{cli.typed('infer')} {shlex.quote(str(weights_file))} PHOTOGRAPH")


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
def main(composed: DictConfig) -> None:
    keep_memory()
    try:
        train(composed)
    except (*cli.MISTAKES, RunError) as error:
        code = cli.report(error)  # an exception that reached Hydra would get a line of Hydra's as well
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            sys.exit(code)
        if code > 128:
            print("the rest of the series was not begun", file=sys.stderr)
            sys.exit(code)
        raise RunError("not every run of the series was done") from None  # Hydra raises it when all have had their turn


def _leave_to_who_waits(arguments: threading.ExceptHookArgs) -> None:
    """TensorBoard writes in a thread; what stops it, a full disk, is raised again where the next thing is logged."""
    if not issubclass(arguments.exc_type, OSError):
        threading.__excepthook__(arguments)


def command_line() -> None:
    threading.excepthook = _leave_to_who_waits
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")  # its sampler goes on where it was
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning on the newest torch
    run(main, "train")
