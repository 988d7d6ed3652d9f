"""How much of a graph's arithmetic is held at which precision.

Counted in multiply-adds of convolutions, matrix products and recurrent layers, from the ONNX file
alone: what was asked for, read back from what was written, never from a flag.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import onnx

from bobrt.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_BY_TYPE = {
    onnx.TensorProto.FLOAT: Precision.FP32,
    onnx.TensorProto.FLOAT16: Precision.FP16,
    onnx.TensorProto.BFLOAT16: Precision.BF16,
    onnx.TensorProto.FLOAT8E4M3FN: Precision.FP8,
    onnx.TensorProto.INT8: Precision.INT8,
    onnx.TensorProto.UINT8: Precision.INT8,
}
RECURRENT = {"LSTM", "GRU", "RNN"}
INTEGER = {"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul"}
"""Products of eight-bit integers themselves: how ONNX Runtime quantises dynamically, or without Q/DQ."""
COUNTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", *INTEGER, *RECURRENT}
LAYOUT = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Slice", "Gather"}


def shares(model: onnx.ModelProto) -> dict[str, float]:
    """Return the fraction of multiply-adds at each precision, by its name; empty if the graph has none.

    A node counts as int8 or fp8 only if all its data inputs come from DequantizeLinear, the
    way a runtime decides it, or if it multiplies integers itself.
    """
    total: Counter[Precision] = Counter()
    for _, precision, macs in _counted(model):
        total[precision] += macs
    everything = sum(total.values())
    return {str(precision): macs / everything for precision, macs in total.items()}


def elsewhere(model: onnx.ModelProto, precision: Precision) -> dict[str, float]:
    """Return the fraction of multiply-adds that is not at a precision, by operator, the most first.

    A convolution in groups, as a rule one for each channel, is `depthwise Conv`: quantizers treat it apart.
    """
    total: Counter[str] = Counter()
    everything = 0
    for node, at, macs in _counted(model):
        everything += macs
        if at is not precision:
            groups = next((a.i for a in node.attribute if a.name == "group"), 1)
            total[f"depthwise {node.op_type}" if groups > 1 else node.op_type] += macs
    return {name: macs / everything for name, macs in total.most_common()}


def _counted(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, Precision, int]]:
    """Yield each node that multiplies and adds, its precision, and how often it does for one image."""
    inferred, shapes, types = _inferred(model)
    makers = {output: node for node in inferred.graph.node for output in node.output}
    for node in inferred.graph.node:
        if macs := _macs(node, shapes):
            yield node, _precision(node, makers, types), macs


def by_node(model: onnx.ModelProto) -> dict[str, int]:
    """Return the multiply-adds of one image in each node that has any, by TensorRT's name for the node."""
    inferred, shapes, _ = _inferred(model)
    nodes = {node.name or f"node_of_{node.output[0]}": _macs(node, shapes) for node in inferred.graph.node}
    return {name: macs for name, macs in nodes.items() if macs}


def _inferred(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, list[int]], dict[str, int]]:
    """Return the model for one image, and the shape and the type of each of its tensors."""
    inferred = onnx.shape_inference.infer_shapes(_with_batch_one(model), data_prop=True)
    return inferred, *_tensors(inferred.graph)


def _with_batch_one(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose free dimensions are 1, so that every shape is a number."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for tensor in [*fixed.graph.input, *fixed.graph.output]:
        for side in tensor.type.tensor_type.shape.dim:
            if not side.HasField("dim_value"):
                side.dim_value = 1
    for output in fixed.graph.output:
        output.type.tensor_type.ClearField("shape")
    return fixed


def _tensors(graph: onnx.GraphProto) -> tuple[dict[str, list[int]], dict[str, int]]:
    shapes = {init.name: list(init.dims) for init in graph.initializer}
    types = {init.name: init.data_type for init in graph.initializer}
    for info in [*graph.value_info, *graph.input, *graph.output]:
        kind = info.type.tensor_type
        types[info.name] = kind.elem_type
        if kind.HasField("shape"):
            # With one image no side is 0: that is a length the inference could not work out.
            shapes[info.name] = [side.dim_value or 1 for side in kind.shape.dim]
    return shapes, types


def _macs(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> int:
    """Return the multiply-adds of one node for one image, 0 for nodes that have none."""
    if node.op_type not in COUNTED:
        return 0
    factors = node.input[0:4:3] if node.op_type.startswith("QLinear") else node.input[:2]  # scales between
    left, right, out = (shapes.get(name) for name in (*factors, node.output[0]))
    if node.op_type in RECURRENT:
        again = shapes.get(node.input[2])
        # Data [steps, images, inputs]; at each step, every weight of both matrices [directions, ...] once.
        return math.prod(left[:2]) * (math.prod(right) + math.prod(again)) if left and right and again else 0
    return _product(node, left or [0], right, out) if right and out else 0


def _product(node: onnx.NodeProto, left: list[int], right: list[int], out: list[int]) -> int:
    """Return the multiply-adds of a convolution or a matrix product, from the shapes it has."""
    if node.op_type.endswith(("Conv", "ConvInteger")):  # weight [out, in / groups, *kernel]
        return math.prod(out) * math.prod(right[1:])
    if node.op_type == "ConvTranspose":  # weight [in, out / groups, *kernel]
        return math.prod(left) * math.prod(right[1:])
    if node.op_type == "Gemm":
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        return math.prod(out) * (right[1] if transposed else right[0])
    return math.prod(out) * right[-2 if len(right) > 1 else 0]


def _precision(
    node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], types: Mapping[str, int]
) -> Precision:
    if node.op_type in INTEGER:
        return Precision.INT8
    stored = [_dequantized_from(name, makers, types) for name in node.input[:2]]
    if all(kind is not None for kind in stored):
        return _BY_TYPE.get(stored[0] or 0, Precision.FP32)
    return _BY_TYPE.get(types.get(node.output[0], 0) or types.get(node.input[0], 0), Precision.FP32)


def _dequantized_from(
    name: str, makers: Mapping[str, onnx.NodeProto], types: Mapping[str, int]
) -> int | None:
    """Return the stored type if `name` is a dequantized tensor, seen through layout nodes, else None."""
    node = makers.get(name)
    while node is not None and node.op_type in LAYOUT:
        node = makers.get(node.input[0])
    if node is None or node.op_type != "DequantizeLinear":
        return None
    return types.get(node.input[0]) or onnx.TensorProto.INT8
