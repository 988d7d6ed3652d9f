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
FP16_REACH = 65504 / 8
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
    """Return the nodes that read or make a value larger than `reach`, or one that is no number."""
    return [
        node.name
        for node in model.graph.node
        if not all(values.get(name, 0.0) <= reach for name in [*node.input, *node.output])
    ]
