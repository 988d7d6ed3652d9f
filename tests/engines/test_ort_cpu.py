"""The runtime `ort-cpu`: files it runs, and files it refuses in one line."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bobrt.errors import BobrtError
from engines.ort_cpu import OrtCpuRunner
from engines.runner import TensorMeta

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Graph = Callable[..., onnx.ModelProto]

node = helper.make_node
DOUBLE = [node("Add", ["x", "x"], ["y"])]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[onnx.ModelProto], Path]:
    """Write a graph, unchecked."""

    def save(model: onnx.ModelProto) -> Path:
        onnx.save(model, tmp_path / "it.onnx")
        return tmp_path / "it.onnx"

    return save


def test_a_file_is_opened_asked_and_let_go(graph: Graph, write: Callable[[onnx.ModelProto], Path]) -> None:
    """It names its inputs, a free side as None; answers by name; and holds nothing once it is left."""
    images = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3)
    runner = OrtCpuRunner(write(graph(DOUBLE)), threads=1)

    with runner as opened:
        session = weakref.ref(opened._session)
        assert opened.inputs() == {"images": TensorMeta("uint8", (None, 4, 4, 3))}
        assert session().get_session_options().intra_op_num_threads == 1
        got = opened.infer({"images": images})

    np.testing.assert_array_equal(got["y"], 2.0 * images)
    assert session() is None
    with pytest.raises(AttributeError):
        runner.infer({"images": images})


def test_nothing_is_touched_before_it_is_entered(tmp_path: Path) -> None:
    """A runner for a file that is not there can be made; entering it names the file."""
    runner = OrtCpuRunner(tmp_path / "gone.onnx", threads=1)

    with pytest.raises(BobrtError, match=r"gone\.onnx is not a whole ONNX file"):
        runner.__enter__()


BFLOAT = [
    node("Cast", ["x"], ["b"], to=TensorProto.BFLOAT16),
    node("Transpose", ["b"], ["c"], perm=[0, 3, 1, 2]),
    node("Conv", ["c", "w"], ["d"]),
    node("Cast", ["d"], ["y"], to=TensorProto.FLOAT),
]
WEIGHT = helper.make_tensor("w", TensorProto.BFLOAT16, [2, 3, 1, 1], [1.0] * 6)


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        (([node("Frobnicate", ["x"], ["y"])], [], 20), "Frobnicate"),
        (([node("Frobnicate", ["x"], ["y"], domain="acme")], [], 20), "acme"),
        ((BFLOAT, [WEIGHT], 22), "Conv"),
        (([node("Add", ["x", "nowhere"], ["y"])], [], 20), "nowhere"),
        ((DOUBLE, [], 99), r"till opset \d+"),
    ],
    ids=["unknown node type", "unknown domain", "no kernel on the CPU", "broken graph", "opset too new"],
)
def test_a_file_it_cannot_run_is_refused_in_one_line(
    graph: Graph,
    write: Callable[[onnx.ModelProto], Path],
    parts: tuple[list[onnx.NodeProto], list[onnx.TensorProto], int],
    named: str,
) -> None:
    """The file and what is wrong with it are named; the hint leads to another runtime."""
    nodes, weights, opset = parts
    model = graph(nodes, weights, opset=opset)
    if nodes[0].domain:
        model.opset_import.append(helper.make_opsetid(nodes[0].domain, 1))
    path = write(model)

    with pytest.raises(BobrtError, match=named) as caught, OrtCpuRunner(path, 1):
        pass

    assert caught.value.message.startswith(f"ONNX Runtime cannot take {path}: ")
    assert "\n" not in caught.value.message
    assert "bobrt list runtimes" in caught.value.hint


def test_a_plain_file_is_not_rewritten_into_one_that_is_refused(
    graph: Graph, write: Callable[[onnx.ModelProto], Path]
) -> None:
    """ONNX Runtime moves a Transpose between Q and DQ, and has none for eight-bit floats."""
    one = helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])
    zero = helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], [0.0])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2, 3, 1, 1], [1.0] * 6)
    nodes = [
        node("Transpose", ["x"], ["c"], perm=[0, 3, 1, 2]),
        node("QuantizeLinear", ["c", "one", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "one", "zero"], ["d"]),
        node("Transpose", ["d"], ["t"], perm=[0, 1, 3, 2]),
        node("Conv", ["t", "w"], ["y"]),
    ]
    path = write(graph(nodes, [weight, one, zero]))
    images = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3) // 3

    with OrtCpuRunner(path, 1, plain=True) as runner:
        got = runner.infer({"images": images})["y"]
    assert got[0, 0] == pytest.approx(images[0].astype(np.float32).sum(axis=2).T, abs=3)
    with pytest.raises(BobrtError, match="float8e4m3fn"), OrtCpuRunner(path, 1):
        pass


def test_half_a_file_is_refused_in_one_line(graph: Graph, write: Callable[[onnx.ModelProto], Path]) -> None:
    """A truncated file is named."""
    path = write(graph(DOUBLE))
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(BobrtError) as caught, OrtCpuRunner(path, 1):
        pass

    assert caught.value.message.startswith(f"{path} is not a whole ONNX file: ")
    assert "\n" not in caught.value.message
