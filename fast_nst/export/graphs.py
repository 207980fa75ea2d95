"""Split one model into the graphs of a page, which share their weights.

"whole" repaints an image. A large image does not fit into a browser's memory, so two more graphs repaint it in tiles.
An instance norm needs the mean and variance of the whole image. "measure" computes them from a reduced copy, as one
scale and one shift per channel, and "tiles" repaints a tile with these. So the tiles have no seams.
"""

from typing import Any

from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

_LARGE = 1024  # bytes; smaller tensors stay in the graph
_AXES = "page.axes"  # name of the tensor that holds the axes of height and width


def split(model: ModelProto) -> tuple[dict[str, bytes], bytes]:
    """Return the serialized graphs of `model` (from `onnx.to_onnx`) by name, and the weights that they share."""
    shared, weights = ModelProto(), bytearray()
    shared.CopyFrom(model)
    for tensor in shared.graph.initializer:
        data = numpy_helper.to_array(tensor).tobytes()
        if len(data) < _LARGE:
            continue
        tensor.ClearField("raw_data")
        for field in ("float_data", "int32_data", "int64_data"):
            tensor.ClearField(field)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weights"), ("offset", len(weights)), ("length", len(data))):
            tensor.external_data.add(key=key, value=str(value))
        weights += data
    graphs = {"whole": shared}
    if any(node.op_type == "InstanceNormalization" for node in shared.graph.node):
        graphs |= {"measure": _measure(shared), "tiles": _tiles(shared)}
    return {name: graph.SerializeToString() for name, graph in graphs.items()}, bytes(weights)


def _measure(model: ModelProto) -> ModelProto:
    """Build "measure": content, style -> statistics, (1, T), each instance norm's scales and shifts per channel."""
    result, nodes, parts = ModelProto(), [], []
    result.CopyFrom(model)
    for node in result.graph.node:
        nodes.append(node)
        if node.op_type == "InstanceNormalization":
            added, scale, shift = _statistics(node)
            nodes += added
            parts += [scale, shift]
    nodes.append(helper.make_node("Concat", parts, ["statistics"], axis=1))
    output = helper.make_tensor_value_info("statistics", TensorProto.FLOAT, [1, None])
    _replace(result, nodes, output, helper.make_tensor(_AXES, TensorProto.INT64, [2], [2, 3]))
    return result


def _statistics(node: NodeProto) -> tuple[list[NodeProto], str, str]:
    """Return nodes that compute the scale and the shift of `node`, (1, C) each, and the names of the two outputs."""
    x, weight, bias = node.input
    made: list[NodeProto] = []

    def add(operation: str, *inputs: str, **attributes: Any) -> str:
        made.append(helper.make_node(operation, inputs, [f"{node.output[0]}.measured{len(made)}"], **attributes))
        return str(made[-1].output[0])

    epsilon = next(attribute.f for attribute in node.attribute if attribute.name == "epsilon")
    eps = f"{node.output[0]}.epsilon"
    made.append(helper.make_node("Constant", [], [eps], value_float=epsilon))
    mean = add("ReduceMean", x, _AXES, keepdims=1)
    centered = add("Sub", x, mean)
    variance = add("ReduceMean", add("Mul", centered, centered), _AXES, keepdims=0)
    scale = add("Div", weight, add("Sqrt", add("Add", variance, eps)))
    shift = add("Sub", bias, add("Mul", add("ReduceMean", x, _AXES, keepdims=0), scale))
    return made, scale, shift


def _tiles(model: ModelProto) -> ModelProto:
    """Build "tiles": content, style, statistics -> output."""
    result, nodes, names, sizes = ModelProto(), [], [], []
    result.CopyFrom(model)
    shapes = {tensor.name: tensor.dims for tensor in result.graph.initializer}
    casts = {node.output[0]: node.input[0] for node in result.graph.node if node.op_type == "Cast"}
    for node in result.graph.node:
        if node.op_type != "InstanceNormalization":
            nodes.append(node)
            continue
        weight, out = node.input[1], node.output[0]
        sizes += 2 * [shapes[casts.get(weight, weight)][0]]
        names += [f"{out}.scale", f"{out}.shift"]
        nodes += [helper.make_node("Unsqueeze", [name, _AXES], [f"{name}.image"]) for name in names[-2:]]
        nodes.append(helper.make_node("Mul", [node.input[0], f"{names[-2]}.image"], [f"{out}.scaled"]))
        nodes.append(helper.make_node("Add", [f"{out}.scaled", f"{names[-1]}.image"], [out]))
    nodes.insert(0, helper.make_node("Split", ["statistics", "page.sizes"], names, axis=1))
    axes = helper.make_tensor(_AXES, TensorProto.INT64, [2], [2, 3])
    _replace(result, nodes, None, axes, helper.make_tensor("page.sizes", TensorProto.INT64, [len(sizes)], sizes))
    result.graph.input.append(helper.make_tensor_value_info("statistics", TensorProto.FLOAT, [1, sum(sizes)]))
    return result


def _replace(model: ModelProto, nodes: list[NodeProto], output: Any, *constants: TensorProto) -> None:
    """Replace the nodes of `model`, and its output unless `output` is None; add `constants`, drop unused constants."""
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    if output is not None:
        del model.graph.output[:]
        model.graph.output.append(output)
    model.graph.initializer.extend(constants)
    needed = {name for node in copies for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in needed]:
        model.graph.initializer.remove(tensor)
