"""What an exported graph says otherwise than PyTorch: a runtime would refuse it, or get it wrong."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import onnx
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        graph.initializer.append(onnx.helper.make_tensor("lowest", onnx.TensorProto.FLOAT, [], [LOWEST]))
    for pool in pools:
        clipped = f"{pool.input[0]}_apart"
        clip = onnx.helper.make_node("Clip", [pool.input[0], "lowest"], [clipped])
        clip.metadata_props.extend(pool.metadata_props)
        graph.node.insert(list(graph.node).index(pool), clip)
        pool.input[0] = clipped
