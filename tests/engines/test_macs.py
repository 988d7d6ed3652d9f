"""How much arithmetic is at which precision, against counts made by hand and by torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.utils.flop_counter import FlopCounterMode

from bobrt.spec import Precision
from engines.macs import elsewhere, shares

if TYPE_CHECKING:
    from collections.abc import Callable

    Graph = Callable[..., onnx.ModelProto]

node = helper.make_node


def tensor(name: str, *dims: int, kind: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(dims, kind), name)


def count(model: onnx.ModelProto, precision: str = "fp32") -> float:
    """Return the multiply-adds at a precision of a graph, by laying a thousand at fp16 beside them."""
    ruler = onnx.ModelProto()
    ruler.CopyFrom(model)
    ruler.graph.node.append(node("MatMul", ["ruler", "ruler"], ["measured"]))
    ruler.graph.initializer.append(tensor("ruler", 10, 10, kind=np.float16))
    found = shares(ruler)
    return round(1000 * found.get(precision, 0.0) / found["fp16"], 3)


CONV = [node("Transpose", ["x"], ["nchw"], perm=[0, 3, 1, 2])]
"""From `x [1, 4, 4, 3]` to `nchw [1, 3, 4, 4]`."""


@pytest.mark.parametrize(
    ("nodes", "weights", "by_hand"),
    [
        pytest.param(
            [*CONV, node("Conv", ["nchw", "w"], ["y"], pads=[1, 1, 1, 1])],
            [tensor("w", 8, 3, 3, 3)],
            (8 * 4 * 4) * (3 * 3 * 3),
            id="conv",
        ),
        pytest.param(
            [*CONV, node("Conv", ["nchw", "w"], ["y"], group=3, strides=[2, 2])],
            [tensor("w", 6, 1, 2, 2)],
            (6 * 2 * 2) * (1 * 2 * 2),
            id="conv in groups, with strides",
        ),
        pytest.param(
            [*CONV, node("ConvTranspose", ["nchw", "w"], ["y"], strides=[2, 2])],
            [tensor("w", 3, 5, 2, 2)],
            (3 * 4 * 4) * (5 * 2 * 2),
            id="conv, transposed",
        ),
        pytest.param(
            [
                node("Squeeze", ["x", "first"], ["steps"]),
                node("LSTM", ["steps", "w", "again"], ["y"], hidden_size=6, direction="bidirectional"),
            ],
            [
                tensor("w", 2, 4 * 6, 3),
                tensor("again", 2, 4 * 6, 6),
                numpy_helper.from_array(np.array([0], np.int64), "first"),
            ],
            (4 * 4) * 2 * (4 * 6) * (3 + 6),
            id="lstm, both ways",
        ),
        pytest.param(
            [node("Flatten", ["x"], ["flat"]), node("Gemm", ["flat", "w"], ["y"])],
            [tensor("w", 48, 5)],
            48 * 5,
            id="gemm",
        ),
        pytest.param(
            [node("Flatten", ["x"], ["flat"]), node("Gemm", ["flat", "w", "b"], ["y"], transB=1)],
            [tensor("w", 5, 48), tensor("b", 5)],
            48 * 5,
            id="gemm, transposed",
        ),
        pytest.param(
            [node("MatMul", ["x", "w"], ["y"])],
            [tensor("w", 3, 7)],
            (4 * 4) * 3 * 7,
            id="matmul with one matrix",
        ),
        pytest.param(
            [
                node("Transpose", ["x"], ["keys"], perm=[0, 1, 3, 2]),
                node("MatMul", ["x", "keys"], ["y"]),
            ],
            [],
            4 * (4 * 3 * 4),
            id="matmul of a stack with a stack",
        ),
        pytest.param(
            [node("MatMul", ["x", "w"], ["y"])], [tensor("w", 3)], 4 * 4 * 3, id="matmul with a vector"
        ),
        pytest.param(
            [*CONV, node("Relu", ["nchw"], ["r"]), node("MaxPool", ["r"], ["y"], kernel_shape=[2, 2])],
            [],
            0,
            id="nothing that multiplies and adds",
        ),
    ],
)
def test_multiply_adds_are_those_counted_by_hand(
    graph: Graph, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], by_hand: int
) -> None:
    """For one image, whatever the batch axis says: outputs times the terms each is a sum of."""
    assert count(graph(nodes, weights)) == by_hand


def test_a_graph_without_arithmetic_has_no_shares(graph: Graph) -> None:
    """Nothing is at any precision."""
    assert shares(graph([node("Relu", ["x"], ["y"])])) == {}


def test_a_stale_shape_in_the_file_is_not_believed(graph: Graph) -> None:
    """Shapes that a tool left behind are worked out anew."""
    model = graph([node("MatMul", ["x", "w"], ["z"]), node("Relu", ["z"], ["y"])], [tensor("w", 3, 7)])
    model.graph.value_info.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [9, 9, 9, 9]))

    assert count(model) == 4 * 4 * 3 * 7


def test_a_file_s_own_batch_does_not_change_its_shares(graph: Graph) -> None:
    """Two precisions keep their proportion at a batch of 64."""
    nodes = [
        node("MatMul", ["x", "w"], ["z"]),
        node("Cast", ["z"], ["half"], to=TensorProto.FLOAT16),
        node("MatMul", ["half", "v"], ["out"]),
        node("Cast", ["out"], ["y"], to=TensorProto.FLOAT),
    ]
    weights = [tensor("w", 3, 6), tensor("v", 6, 1, kind=np.float16)]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, [64, 4, 4, 3])

    assert shares(graph(nodes, weights, [images])) == {"fp32": 0.75, "fp16": 0.25}
    assert shares(graph(nodes, weights)) == {"fp32": 0.75, "fp16": 0.25}


def test_what_is_not_at_a_precision_is_told_by_operator(graph: Graph) -> None:
    """A convolution, one by channels, and a product in fp16, against counts made by hand."""
    nodes = [
        *CONV,
        node("Conv", ["nchw", "w"], ["three"], pads=[1, 1, 1, 1]),
        node("Conv", ["three", "each"], ["apart"], group=3),
        node("Cast", ["apart"], ["half"], to=TensorProto.FLOAT16),
        node("MatMul", ["half", "v"], ["out"]),
        node("Cast", ["out"], ["y"], to=TensorProto.FLOAT),
    ]
    weights = [tensor("w", 3, 3, 3, 3), tensor("each", 3, 1, 3, 3), tensor("v", 2, 5, kind=np.float16)]
    everything = (3 * 4 * 4) * 27 + (3 * 2 * 2) * 9 + (3 * 2 * 5) * 2
    found = elsewhere(graph(nodes, weights), Precision.FP16)

    assert list(found) == ["Conv", "depthwise Conv"]
    assert found["Conv"] == pytest.approx(3 * 4 * 4 * 27 / everything)
    assert found["depthwise Conv"] == pytest.approx(3 * 2 * 2 * 9 / everything)
    assert elsewhere(graph(nodes, weights), Precision.FP32) == {"MatMul": pytest.approx(60 / everything)}


def quantized(name: str, source: str, kind: int = TensorProto.INT8) -> list[onnx.NodeProto]:
    """Return the Q/DQ pair that makes `name` of `source`."""
    zero = f"zero{kind}"
    return [
        node("QuantizeLinear", [source, "scale", zero], [f"{name}.q"]),
        node("DequantizeLinear", [f"{name}.q", "scale", zero], [name]),
    ]


def scales(kind: int = TensorProto.INT8) -> list[onnx.TensorProto]:
    return [
        tensor("scale"),
        helper.make_tensor(f"zero{kind}", kind, [], [0]),
        helper.make_tensor("w.q", kind, [3, 7], [1] * 21),
        tensor("w", 3, 7),
    ]


STORED = [node("DequantizeLinear", ["w.q", "scale", f"zero{TensorProto.INT8}"], ["w.dq"])]
"""A weight kept in eight bits."""


@pytest.mark.parametrize(
    ("nodes", "precision"),
    [
        pytest.param(
            [*quantized("a", "x"), *STORED, node("MatMul", ["a", "w.dq"], ["y"])], "int8", id="both"
        ),
        pytest.param([*STORED, node("MatMul", ["x", "w.dq"], ["y"])], "fp32", id="the weight alone"),
        pytest.param(
            [*quantized("a", "x"), node("MatMul", ["a", "w"], ["y"])], "fp32", id="the images alone"
        ),
        pytest.param(
            [
                *quantized("a", "x"),
                node("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3]),
                *STORED,
                node("Identity", ["w.dq"], ["v"]),
                node("MatMul", ["b", "v"], ["y"]),
            ],
            "int8",
            id="both, through layout",
        ),
        pytest.param(
            [
                *quantized("a", "x"),
                node("Relu", ["a"], ["b"]),
                *STORED,
                node("MatMul", ["b", "w.dq"], ["y"]),
            ],
            "fp32",
            id="not through arithmetic",
        ),
    ],
)
def test_int8_is_what_reads_two_dequantized_inputs(
    graph: Graph, nodes: list[onnx.NodeProto], precision: str
) -> None:
    """Weights in eight bits that meet floats are multiplied as floats, and counted so."""
    model = graph(nodes, scales())
    onnx.checker.check_model(model, full_check=True)

    assert shares(model) == {precision: 1.0}


@pytest.mark.parametrize(
    ("kind", "precision"), [(TensorProto.UINT8, "int8"), (TensorProto.FLOAT8E4M3FN, "fp8")]
)
def test_eight_bits_are_told_apart_by_their_type(graph: Graph, kind: int, precision: str) -> None:
    """Unsigned bytes are int8 too, and eight-bit floats are fp8."""
    stored = node("DequantizeLinear", ["w.q", "scale", f"zero{kind}"], ["w.dq"])
    nodes = [*quantized("a", "x", kind), stored, node("MatMul", ["a", "w.dq"], ["y"])]

    assert shares(graph(nodes, scales(kind))) == {precision: 1.0}


def test_integers_that_are_multiplied_are_int8(graph: Graph) -> None:
    """Files that were quantised dynamically, or as whole operators, have no Q/DQ around their products."""
    weight = numpy_helper.from_array(np.ones((3, 7), np.int8), "w")
    byte = numpy_helper.from_array(np.zeros((), np.int8), "w0")
    scale = numpy_helper.from_array(np.ones((), np.float32), "one")
    quantised = node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"])
    dynamic = [quantised, node("MatMulInteger", ["q", "w", "z"], ["i"]), node("Cast", ["i"], ["y"], to=1)]
    whole = [
        quantised,
        node("QLinearMatMul", ["q", "s", "z", "w", "one", "w0", "s", "z"], ["p"]),
        node("DequantizeLinear", ["p", "s", "z"], ["y"]),
    ]
    kernel = numpy_helper.from_array(np.ones((5, 3, 2, 2), np.int8), "w")
    images = [CONV[0], node("DynamicQuantizeLinear", ["nchw"], ["q", "s", "z"])]
    convolved = [
        *images,
        node("QLinearConv", ["q", "s", "z", "w", "one", "w0", "s", "z"], ["p"]),
        node("DequantizeLinear", ["p", "s", "z"], ["y"]),
    ]
    for nodes, weights, by_hand in (
        (dynamic, [weight], 4 * 4 * 3 * 7),
        (whole, [weight, byte, scale], 4 * 4 * 3 * 7),
        (convolved, [kernel, byte, scale], (5 * 3 * 3) * (3 * 2 * 2)),
    ):
        model = graph(nodes, weights)
        assert shares(model) == {"int8": 1.0}
        assert count(model, "int8") == by_hand


@pytest.mark.parametrize(
    ("kind", "precision"), [(TensorProto.FLOAT16, "fp16"), (TensorProto.BFLOAT16, "bf16")]
)
def test_sixteen_bits_are_read_from_the_casts(graph: Graph, kind: int, precision: str) -> None:
    """A product of two casts is at what they cast to."""
    nodes = [
        node("Cast", ["x"], ["a"], to=kind),
        node("Cast", ["w"], ["v"], to=kind),
        node("MatMul", ["a", "v"], ["z"]),
        node("Cast", ["z"], ["y"], to=TensorProto.FLOAT),
    ]

    assert shares(graph(nodes, [tensor("w", 3, 7)])) == {precision: 1.0}


def test_no_arithmetic_of_a_real_backbone_is_left_out(untrained: Any) -> None:
    """For each family of the quick plan the count is torch's own, to the last multiply-add."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        untrained.twin(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))

    assert count(onnx.load(untrained.path)) == pytest.approx(counter.get_total_flops() / 2, rel=1e-6)
