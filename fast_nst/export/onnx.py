"""Convert a network to ONNX: opset 18, one file, with free batch, height and width.

Inputs: "content", (batch, 3, height, width), RGB in [0, 1], and "style", (batch, styles), if there are several styles.
Output: "output", like the content. The weights file's description is in the file's metadata, under "fast_nst".
"""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from fast_nst.description import KEY
from fast_nst.export.plain import PlainNetwork
from fast_nst.stylize.onnx import SIZES_KEY

OPSET = 18  # the newest opset of which onnxruntime-web has every operation on a GPU
_IMAGE = ("batch", "colors", "height", "width")
_AXES = {"content": _IMAGE, "style": ("batch", "styles"), "output": _IMAGE}


def to_onnx(program: ExportedProgram, plain: PlainNetwork, metadata: str, half: bool = True) -> Any:
    """Convert the `program` of `plain` to an onnx.ModelProto.

    metadata: the weights file's metadata, as JSON. half: store the weights in 16 bits; all arithmetic is in 32 bits.
    """
    inputs = ["content", "style"][: len(program.graph_signature.user_inputs)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = torch.onnx.export(
            program, input_names=inputs, output_names=["output"], dynamo=True, opset_version=OPSET,
            external_data=False, verbose=False,
        )  # fmt: skip
    assert converted is not None
    model = converted.model_proto
    _strip(model)
    if half:
        _halve(model)
    sizes = json.dumps({"smallest": plain.smallest, "channels": plain.widest})
    for key, value in ((KEY, metadata), (SIZES_KEY, sizes)):
        model.metadata_props.add(key=key, value=value)
    return model


def _strip(model: Any) -> None:
    """Remove what the exporter recorded about this machine, such as stack traces, and name the axes."""
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    model.doc_string = model.graph.doc_string = ""
    for item in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        item.doc_string = ""
        del item.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        for dim, name in zip(value.type.tensor_type.shape.dim, _AXES[value.name], strict=True):
            if dim.HasField("dim_param"):
                dim.dim_param = name


def _halve(model: Any) -> None:
    """Store large float32 constants as float16, each followed by a Cast; onnxruntime does that once, when it loads."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < 64:
            continue
        with np.errstate(over="ignore"):
            halved = values.astype(np.float16)
        if not np.isfinite(halved).all():
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(halved, f"{name}.half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def run_with_onnxruntime(path: Path, threads: int = 0) -> Callable[..., Tensor]:
    """Return a function that runs an ONNX file on the CPU. threads: how many; 0: as many as there are cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def function(*inputs: Tensor) -> Tensor:
        feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, feed)[0])

    return function
