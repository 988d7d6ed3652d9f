"""How large each value of a graph becomes on real images, and which nodes that puts out of fp16's reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort

from engines.ort_cpu import open_session
from engines.runner import IMAGES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

ENDS = ("ReduceMax", "ReduceMin")
FP16_LARGEST = 65504.0
FP16_REACH = FP16_LARGEST / 8
"""fp16's largest number, with a factor of eight for images that calibration did not see."""


def largest(model: onnx.ModelProto, images: NDArray[np.uint8], batch: int, threads: int) -> dict[str, float]:
    """Return the largest absolute value of every float32 tensor a node makes.

    The graph itself reduces each to its ends: held all at once, the tensors of a large network are many
    gigabytes.

    Args:
        model: An fp32 graph that takes `images`.
        images: `uint8 [n, side, side, 3]`.
        batch: Images at a time.
        threads: Intra-op threads.

    """
    inferred = onnx.shape_inference.infer_shapes(model)
    floats = {
        info.name
        for info in [*inferred.graph.value_info, *inferred.graph.output]
        if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    made = [name for node in model.graph.node for name in node.output if name in floats]
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    del seen.graph.output[:]
    for name in made:
        for end in ENDS:
            seen.graph.node.append(onnx.helper.make_node(end, [name], [f"{name} {end}"], keepdims=0))
            out = onnx.helper.make_tensor_value_info(f"{name} {end}", onnx.TensorProto.FLOAT, [])
            seen.graph.output.append(out)
    options = ort.SessionOptions()
    # In the usual order many of the new nodes come last, and their tensors wait for them.
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    session = open_session(seen.SerializeToString(), threads, options=options)
    starts = range(0, len(images), batch)
    told = [session.run(None, {IMAGES: images[start : start + batch]}) for start in starts]
    ends = np.array(told, np.float32).reshape(len(starts), len(made), len(ENDS))
    ends[ends[..., 0] < ends[..., 1]] = 0.0  # of a tensor without a value
    return dict(zip(made, np.abs(ends).max(axis=(0, 2)).tolist(), strict=True))


def beyond(model: onnx.ModelProto, values: Mapping[str, float], reach: float = FP16_REACH) -> list[str]:
    """Return the nodes that read or make a value larger than `reach`, or one that is no number.

    A constant of the graph is known for what it is, and has all of fp16's reach.
    """
    out = {name for name, value in values.items() if not value <= reach}
    out |= {tensor.name for tensor in model.graph.initializer if _largest_constant(tensor) > FP16_LARGEST}
    return [node.name for node in model.graph.node if out & {*node.input, *node.output}]


def _largest_constant(tensor: onnx.TensorProto) -> float:
    """Return a float32 constant's largest absolute value; a mask's, as small as can be, is none."""
    if tensor.data_type != onnx.TensorProto.FLOAT:
        return 0.0
    values = np.abs(onnx.numpy_helper.to_array(tensor))
    return float(values.max(initial=0.0, where=values < np.finfo(np.float32).max))


def in_fp32(model: onnx.ModelProto) -> list[str]:
    """Return the nodes of a 16-bit graph that are still fp32; casts and constants are no arithmetic."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]  # it may tell of the types before
    known = onnx.shape_inference.infer_shapes(bare).graph
    floats = {
        info.name
        for info in [*known.value_info, *known.output]
        if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    moved = {"Cast", "Constant"}
    return [node.name for node in model.graph.node if node.op_type not in moved and floats & {*node.output}]
