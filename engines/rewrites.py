"""What an exported graph says otherwise than PyTorch: a runtime would refuse it, or get it wrong."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

LOWEST = -65504.0
"""fp16's lowest number, so that the file means the same at every precision."""


@contextmanager
def fold_by_convolution() -> Iterator[None]:
    """Have `torch.nn.functional.fold` done by a transposed convolution meanwhile (VOLO's outlook attention).

    It becomes the operator Col2Im else, which TensorRT does not have.
    """
    original = functional.fold
    functional.fold = _folded
    try:
        yield
    finally:
        functional.fold = original


def _folded(  # noqa: PLR0913, PLR0917 - the signature of `torch.nn.functional.fold`
    input: Tensor,  # noqa: A002
    output_size: int | tuple[int, int],
    kernel_size: int | tuple[int, int],
    dilation: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    stride: int | tuple[int, int] = 1,
) -> Tensor:
    """Sum overlapping blocks `[n, channels * kernel, blocks]` into `[n, channels, height, width]`.

    One group for each channel, whose kernel puts the block's k-th value at its k-th place.
    """
    size, kernel, dilate, pad, step = (
        (value, value) if isinstance(value, int) else tuple(value)
        for value in (output_size, kernel_size, dilation, padding, stride)
    )
    places = kernel[0] * kernel[1]
    channels = input.shape[1] // places
    reach = [dilate[i] * (kernel[i] - 1) + 1 for i in range(2)]
    grid = [(size[i] + 2 * pad[i] - reach[i]) // step[i] + 1 for i in range(2)]
    beyond = [size[i] - ((grid[i] - 1) * step[i] - 2 * pad[i] + reach[i]) for i in range(2)]
    weight = torch.eye(places, dtype=input.dtype).reshape(places, 1, *kernel).repeat(channels, 1, 1, 1)
    return functional.conv_transpose2d(
        input.reshape(-1, channels * places, *grid), weight, None, step, pad, beyond, channels, dilate
    )


def keep_pads_apart(model_proto: onnx.ModelProto) -> None:
    """Put a Clip that changes nothing between a Pad and a MaxPool (PP-HGNet V2's stem).

    ONNX Runtime's optimiser makes one of the two, and a MaxPool's own padding is less than any number
    where the Pad had zeros: with values below zero the answers differ.
    """
    graph = model_proto.graph
    padded = {node.output[0] for node in graph.node if node.op_type == "Pad"}
    pools = [node for node in graph.node if node.op_type == "MaxPool" and node.input[0] in padded]
    if pools:
        graph.initializer.append(helper.make_tensor("lowest", TensorProto.FLOAT, [], [LOWEST]))
    for pool in pools:
        clipped = f"{pool.input[0]}_apart"
        clip = helper.make_node("Clip", [pool.input[0], "lowest"], [clipped])
        clip.metadata_props.extend(pool.metadata_props)
        graph.node.insert(list(graph.node).index(pool), clip)
        pool.input[0] = clipped


def fold_constants(model_proto: onnx.ModelProto) -> None:
    """Put in what is made of constants alone, and should not be made again for every image.

    The result of a Resize (NaFlexViT's position embeddings on the image's grid): it may be an antialiased
    one, which TensorRT does not have. The weights of a convolution (BiT standardises them): a quantizer
    takes only weights that are there.
    """
    graph = model_proto.graph
    made = [node.output[0] for node in graph.node if node.op_type == "Resize"]
    made += [node.input[1] for node in graph.node if node.op_type == "Conv"]
    for name in dict.fromkeys(made):
        if steps := _constant_steps(graph, name):
            value = _computed(model_proto, steps, name)
            graph.initializer.append(numpy_helper.from_array(value, f"{name}_folded"))
            for node in graph.node:
                node.input[:] = [f"{name}_folded" if read == name else read for read in node.input]
    _drop_unused(graph)


def _constant_steps(graph: onnx.GraphProto, wanted: str) -> list[onnx.NodeProto]:
    """Return the nodes that make a value, in order; none if it is given, or they need the images."""
    makers = {name: node for node in graph.node for name in node.output}
    given = {initializer.name for initializer in graph.initializer}
    needed: set[str] = set()
    waiting = [wanted]
    while waiting:
        name = waiting.pop()
        if name and name not in given | needed:
            if name not in makers:
                return []
            needed.add(name)
            waiting += makers[name].input
    return [node for node in graph.node if needed & {*node.output}]


def _computed(model_proto: onnx.ModelProto, steps: list[onnx.NodeProto], wanted: str) -> NDArray[np.float32]:
    """Return the value that some nodes make, in ONNX Runtime."""
    used = {name for node in steps for name in node.input}
    given = [initializer for initializer in model_proto.graph.initializer if initializer.name in used]
    output = helper.make_tensor_value_info(wanted, TensorProto.FLOAT, None)
    part = helper.make_model(
        helper.make_graph(steps, "constant", [], [output], given),
        opset_imports=model_proto.opset_import,
        ir_version=model_proto.ir_version,
    )
    value: NDArray[np.float32] = ort.InferenceSession(part.SerializeToString()).run(None, {})[0]
    return value


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Take out the nodes and constants that nothing uses any more."""
    used = {output.name for output in graph.output}
    for node in reversed([*graph.node]):
        if used & {*node.output}:
            used |= {*node.input}
        else:
            graph.node.remove(node)
    made = {name for node in graph.node for name in node.output}
    for kept, names in ((graph.initializer, used), (graph.value_info, made)):
        for entry in [entry for entry in kept if entry.name not in names]:
            kept.remove(entry)
