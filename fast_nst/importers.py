"""Import networks of other programs; say what a file that cannot be imported seems to be. Runs no code from files."""

import contextlib
import io
import os
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from fast_nst import foreign, networks
from fast_nst.errors import UserError, WeightsError, one_line
from fast_nst.networks import Network
from fast_nst.networks.layers import LARGEST
from fast_nst.safe_load import is_safetensors, load_pickle, load_state

ALLOWED = (
    "a weights file or checkpoint of train.py, or a network of pytorch/examples' or lengstrom's fast style transfer"
)
Reader = Callable[[dict[str, Any]], tuple[dict[str, Any], dict[str, Tensor]]]
_LARGEST_PICKLE = 2**26  # bytes that are searched for classes in a pickle


def load_foreign(path: str | os.PathLike[str]) -> tuple[Network, dict[str, Any]]:
    """Return the network (in evaluation mode) and a description of a file that is not a fast_nst weights file.

    Reads networks of pytorch/examples' fast_neural_style and lengstrom's fast-style-transfer, and checkpoints of
    train.py. Raises WeightsError with the path, what the file seems to be, and what is allowed.
    """
    path = Path(path)
    what = recognize(path)
    if what is not None:
        raise WeightsError(f"{path}: seems to be {what}; allowed: {ALLOWED}")
    try:
        content = load_state(path) if is_safetensors(path) else load_pickle(path)
    except UserError as error:
        raise WeightsError(str(error)) from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}; allowed: {ALLOWED}")
    if isinstance(content.get("state_dict"), dict) and isinstance(content.get("fast_nst"), dict):
        return _load_checkpoint(path, content)
    if "conv1.conv2d.weight" in content:
        return _build(path, content, "pytorch/examples", _read_pytorch_examples)
    if {"Variable", "Variable_47"} <= content.keys():
        return _build(path, content, "lengstrom", _read_lengstrom)
    raise WeightsError(f"{path}: seems to be {_recognize_names(map(str, content))}; allowed: {ALLOWED}")


def _build(path: Path, state: dict[str, Any], source: str, read: Reader) -> tuple[Network, dict[str, Any]]:
    """Build a network from the recipe and state dict that `read` makes from a foreign state dict."""
    try:
        recipe, renamed = read(state)
        network = build_network(recipe, renamed)
    except (RuntimeError, LookupError, ValueError, AttributeError, TypeError) as error:
        raise WeightsError(f"{path}: not a network of {source} ({one_line(error)})") from None
    return network, {"network": recipe, "source": source}


def build_network(recipe: dict[str, Any], state: dict[str, Tensor], build: Callable[..., Any] = networks.build) -> Any:
    """Return the network `build(**recipe)` with the tensors `state`, in evaluation mode.

    Raises UserError, RuntimeError, ValueError or TypeError if they do not fit, or a tensor is not finite.
    """
    if any(isinstance(value, int) and value > LARGEST for value in recipe.values()):
        raise UserError("a number in its metadata is too large")
    with torch.device("meta"):  # a false description allocates no memory
        shapes = {name: value.shape for name, value in build(**recipe).state_dict().items()}
    if shapes != {name: value.shape for name, value in state.items()}:
        raise UserError("its tensors have other names or shapes")
    with torch.random.fork_rng(devices=()):  # the caller's random state stays as it is
        network = build(**recipe)
    network.load_state_dict(state)
    check_finite(state)
    return network.eval()


def check_finite(state: dict[str, Tensor]) -> None:
    """Raise ValueError if a tensor contains NaN or infinity."""
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} is NaN or infinite")


def _load_checkpoint(path: Path, content: dict[str, Any]) -> tuple[Network, dict[str, Any]]:
    """Load the network from a checkpoint of train.py."""

    def read(checkpoint: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        prefix = "network."
        state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
        return dict(checkpoint["fast_nst"]["network"]), state

    network, description = _build(path, content, "train.py", read)
    try:
        style = content["fast_nst"]["style"]
        labels = [style["image"]] if isinstance(style["image"], str) else list(style["image"])
        names = [label.rpartition(" (")[0] or label for label in labels]  # "name (sha256)"
    except (LookupError, TypeError, AttributeError):
        names = []
    # The checkpoint lacks the names of the styles from init_from. A network that enlarges has no styles.
    kept = network.num_styles - len(names) if network.scale == 1 else 0
    names = [*(f"style {index + 1}" for index in range(kept)), *names]
    return network, {"network": description["network"], "style": {"names": names}, "steps": content.get("global_step")}


# Modules of pytorch/examples' transformer_net.py -> our modules.
_EXAMPLES = {
    "conv1": "down.0", "conv2": "down.1", "conv3": "down.2",
    "in1": "down.0", "in2": "down.1", "in3": "down.2",
    "deconv1": "up.0", "deconv2": "up.1", "deconv3": "up.2",
    "in4": "up.0", "in5": "up.1",
}  # fmt: skip


def _read_pytorch_examples(state: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the recipe and renamed tensors of a network of any width and number of blocks.

    Drops the norms' running statistics, which old files contain but which were never used.
    """
    filters = [len(state[f"conv{index}.conv2d.weight"]) for index in (1, 2, 3)]
    blocks = len({name.partition(".")[0] for name in state if name.startswith("res")})
    kernel = state["conv1.conv2d.weight"].shape[2]
    recipe = {"name": "johnson", "filters": filters, "blocks": blocks, "kernel": kernel, "pixels": "rgb255"}
    statistic = re.compile(r"in\d+\.(running_mean|running_var|num_batches_tracked)$")
    return recipe, {_rename(name): value for name, value in state.items() if not statistic.search(name)}


def _rename(name: str) -> str:
    module, *rest = name.split(".")
    kind = "norm" if "in" in (module[:2], rest[0][:2]) else "conv"
    if module.startswith("res"):
        position = "first" if rest[0].endswith("1") else "second"
        return f"blocks.{int(module[3:]) - 1}.{position}.{kind}.{rest[-1]}"
    return f"{_EXAMPLES[module]}.{kind}.{rest[-1]}"


def _read_lengstrom(state: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the recipe and renamed tensors of a network.

    Variables are in the order of transform.py: for each layer a kernel (H, W, in, out), then the norm's shift and
    scale. Transposed kernels are (H, W, out, in). The network takes 255 times our range, so its first kernel is
    multiplied by 255.
    """
    variables = [state["Variable"], *(state[f"Variable_{index}"] for index in range(1, len(state)))]
    filters = [variables[3 * layer].shape[3] for layer in range(3)]
    blocks = (len(variables) // 3 - 6) // 2
    recipe = {
        "name": "johnson", "filters": filters, "blocks": blocks, "kernel": variables[0].shape[0], "norm_eps": 1e-3,
        "upsampling": "transposed", "padding": "tensorflow", "bias": False, "pixels": "unit", "final_norm": True,
    }  # fmt: skip
    layers = [f"down.{index}" for index in range(3)]
    layers += [f"blocks.{index}.{part}" for index in range(blocks) for part in ("first", "second")]
    layers += [f"up.{index}" for index in range(3)]
    renamed = {}
    for index, layer in enumerate(layers):
        kernel, shift, scale = variables[3 * index : 3 * index + 3]
        renamed[f"{layer}.conv.weight"] = kernel.permute(3, 2, 0, 1).contiguous() * (255 if index == 0 else 1)
        renamed[f"{layer}.norm.weight"], renamed[f"{layer}.norm.bias"] = scale, shift
    return recipe, renamed


_SUFFIXES = {
    ".onnx": "an ONNX model, which onnxruntime runs",
    ".t7": "a Torch7 file, which only Lua reads",
    ".pb": "a TensorFlow graph",
    ".meta": "a TensorFlow checkpoint",
    ".index": "a TensorFlow checkpoint",
    ".tflite": "a TensorFlow Lite model",
    ".h5": "a Keras model",
    ".keras": "a Keras model",
    ".mlmodel": "a Core ML model",
    ".gguf": "a GGUF model",
}
# First bytes -> the picture's format.
_PICTURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
# First bytes, in lower case, of texts that a failed download leaves -> what the file is.
_TEXTS = {
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"version https://git-lfs": "a Git LFS pointer, which git lfs pull replaces with the file",
}
# Words in the names of tensors -> what contains such tensors.
_NAMES = {
    "lora": "a LoRA for a diffusion model",
    "model.diffusion_model": "a Stable Diffusion checkpoint",
    "diffusion_pytorch_model": "a network of diffusers",
    "down_blocks": "a network of diffusers",
    "text_model": "a text encoder",
    "features.": "a VGG, which is a loss network",
}


def recognize(path: Path) -> str | None:
    """Return what a file that cannot be imported seems to be, without loading it; None if it may be importable."""
    if path.suffix.lower() in _SUFFIXES:
        return _SUFFIXES[path.suffix.lower()]
    if ".ckpt.data-" in path.name:
        return "a TensorFlow checkpoint"
    if is_safetensors(path):
        with safetensors.safe_open(path, "pt") as file:
            names = list(file.keys())
        return None if {"Variable", "conv1.conv2d.weight"} & {*names} else _recognize_names(names)
    with open(path, "rb") as opened:
        head = opened.read(_LARGEST_PICKLE)
    if picture := _recognize_picture(head):
        return picture
    if text := next((name for magic, name in _TEXTS.items() if head.lstrip().lower().startswith(magic)), None):
        return text
    if not head:
        return "an empty file"
    try:
        if zipfile.is_zipfile(path):
            return _recognize_archive(path)
    except Exception:  # zipfile may raise anything on damaged bytes; torch's reader then says what is wrong
        return None
    return _recognize_pickle(head) if head.startswith(b"\x80") else None


def _recognize_picture(head: bytes) -> str | None:
    name = next((name for magic, name in _PICTURES.items() if head.startswith(magic)), None)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        name = "WebP"
    if name is not None:
        return f"a {name} picture"
    kind = foreign.recognize(head[:16])
    return None if kind is None else f"a {kind.name}"


def _recognize_archive(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.filename.endswith("/constants.pkl") for entry in entries):
            return "a TorchScript program"
        pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
        if not pickles:
            return "a zip archive"
        return _recognize_pickle(archive.read(pickles[0])) if pickles[0].file_size <= _LARGEST_PICKLE else None


def is_foreign(path: Path, key: str) -> bool:
    """Return whether a safetensors file can be read but has no metadata under `key`."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return key not in (file.metadata() or {})
    except (safetensors.SafetensorError, OSError, ValueError):
        return False


def _recognize_pickle(data: bytes) -> str | None:
    """Describe the pickles in `data` if they name classes other than those of tensors, else return None. Runs none."""
    strings: list[str] = []
    classes: list[str] = []
    stream = io.BytesIO(data)
    with contextlib.suppress(Exception):  # the tensors of an old file follow its pickles
        while stream.tell() < len(data):
            for operation, argument, _ in pickletools.genops(stream):
                if operation.name == "GLOBAL":
                    classes.append(str(argument).replace(" ", "."))
                elif operation.name == "STACK_GLOBAL":
                    classes.append(".".join(strings[-2:]))
                elif isinstance(argument, str):
                    strings.append(argument)
    plain = ("torch._utils.", "torch.", "collections.OrderedDict", "numpy.", "_codecs.")
    foreign = [name for name in classes if not name.startswith(plain) or name.startswith("torch.nn.")]
    if not foreign:
        return None
    name = foreign[0].rpartition(".")[2]
    return f"a pickled {name}, which runs code when it is read (save only the state_dict, in the program that made it)"


def _recognize_names(names: Iterable[str]) -> str:
    names = list(names)
    for word, what in _NAMES.items():
        if any(word in name for name in names):
            return what
    return f"the weights of another network ({', '.join(names[:2])}, …)" if names else "an empty file of weights"
