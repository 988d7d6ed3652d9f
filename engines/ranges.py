"""How large each value of a graph becomes on real images, and which nodes that puts out of fp16's reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx

from engines.ort_cpu import open_session
from engines.runner import IMAGES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

FP16_REACH = 65504 / 8
"""fp16's largest number, with a factor of eight for images that calibration did not see."""


def largest(model: onnx.ModelProto, images: NDArray[np.uint8], batch: int, threads: int) -> dict[str, float]:
    """Return the largest absolute value of every float32 tensor a node makes.

    Args:
        model: An fp32 graph that takes `images`.
        images: `uint8 [n, side, side, 3]`.
        batch: Images at a time: all their activations are held at once.
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
    seen.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in made
    )
    session = open_session(seen.SerializeToString(), threads)
    found = dict.fromkeys(made, 0.0)
    for start in range(0, len(images), batch):
        for name, value in zip(made, session.run(made, {IMAGES: images[start : start + batch]}), strict=True):
            if value.size:
                found[name] = max(found[name], float(np.abs(value).max()))
    return found


def beyond(model: onnx.ModelProto, values: Mapping[str, float], reach: float = FP16_REACH) -> list[str]:
    """Return the nodes that read or make a value larger than `reach`, or one that is no number."""
    return [
        node.name
        for node in model.graph.node
        if not all(values.get(name, 0.0) <= reach for name in [*node.input, *node.output])
    ]
