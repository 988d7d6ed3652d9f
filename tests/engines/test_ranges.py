"""Which nodes are beyond fp16: seen on the images themselves."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from onnx import TensorProto, helper

from engines import ranges

BYTE = 255.0


def graph() -> helper.ModelProto:
    """A byte image, cast, scaled by a thousand, summed over its pixels, and scaled back."""
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "thousand"], ["large"], name="up"),
        helper.make_node("ReduceSum", ["large"], ["sum"], name="sum", keepdims=0),
        helper.make_node("Mul", ["floats", "thousandth"], ["small"], name="down"),
    ]
    constants = [
        helper.make_tensor("thousand", TensorProto.FLOAT, [], [1000.0]),
        helper.make_tensor("thousandth", TensorProto.FLOAT, [], [0.001]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 2, 2, 3])
    out = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("sum", "small")]
    made = helper.make_graph(nodes, "g", [images], out, constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_the_largest_value_over_all_images_and_batches_is_found() -> None:
    """The brightest pixel of the last image decides; outputs and values in between are both seen."""
    images = np.zeros((5, 2, 2, 3), np.uint8)
    images[4, 1, 1, 2] = 200

    found = ranges.largest(graph(), images, 2, 1)

    assert found["floats"] == 200
    assert found["large"] == 200_000
    assert found["sum"] == 200_000
    assert found["small"] == np.float32(200) * np.float32(0.001)


def test_signs_do_not_count_and_nothing_is_no_value() -> None:
    """The most negative value is as large as its opposite; a tensor without elements is not infinite."""
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Neg", ["floats"], ["negative"], name="neg"),
        helper.make_node("Slice", ["floats", "one", "one"], ["nothing"], name="slice"),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 2, 2, 3])
    out = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("negative", "nothing")]
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    made = helper.make_graph(nodes, "g", [images], out, [one])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    found = ranges.largest(model, np.full((3, 2, 2, 3), 7, np.uint8), 2, 1)

    assert found == {"floats": 7.0, "negative": 7.0, "nothing": 0.0}


MANY_LARGE = """
import resource, sys
import numpy as np
from onnx import TensorProto, helper
from engines import ranges

nodes = [helper.make_node("Cast", ["images"], ["0"], to=TensorProto.FLOAT)]
for i in range(0, 80, 2):
    nodes += [helper.make_node("Neg", [f"{i}"], [f"{i + 1}"])]
    nodes += [helper.make_node("Add", [f"{i + 1}", f"{i}"], [f"{i + 2}"])]
ends = [helper.make_tensor_value_info("80", TensorProto.FLOAT, ["batch", 512, 512, 3])]
images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 512, 512, 3])
graph = helper.make_graph(nodes, "g", [images], ends)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert len(ranges.largest(model, np.full((4, 512, 512, 3), 7, np.uint8), 4, 1)) == 81
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_no_more_than_a_few_tensors_are_held_at_once() -> None:
    """Eighty of twelve megabytes each, one after the other: a large network's do not fit together."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", MANY_LARGE], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) < 400


def test_a_node_is_beyond_reach_by_what_it_reads_or_makes() -> None:
    """Both ends of a large value stay in fp32; a small one beside them does not."""
    values = {"floats": BYTE, "large": 9000.0, "sum": 100.0, "small": 0.2}

    assert ranges.beyond(graph(), values) == ["up", "sum"]
    assert ranges.beyond(graph(), values, reach=10_000) == []
    assert ranges.beyond(graph(), values | {"small": float("nan")}, reach=10_000) == ["down"]


def test_a_constant_counts_for_what_it_is_and_a_mask_for_nothing() -> None:
    """One beyond fp16's largest number is out of reach; as small as can be, or infinite, it masks."""
    model, numbers = graph(), {"vast": 70_000.0, "edge": 65_504.0, "mask": np.finfo(np.float32).min}
    for name, value in {**numbers, "nothing": -np.inf}.items():
        model.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [2], [1.0, value]))
        model.graph.node.append(helper.make_node("Mul", ["floats", name], [f"{name}*"], name=f"by {name}"))

    assert ranges.beyond(model, {}) == ["by vast"]


def test_what_is_left_in_fp32_is_read_from_the_graph() -> None:
    """Whatever was asked: types are inferred anew, and a cast or a constant is no arithmetic."""
    model = graph()
    del model.graph.output[:]
    half, whole = TensorProto.FLOAT16, TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["images"], ["halves"], name="down", to=half),
        helper.make_node("Neg", ["halves"], ["negative"], name="neg"),
        helper.make_node("Cast", ["negative"], ["wholes"], name="up again", to=whole),
        helper.make_node("Neg", ["wholes"], ["answer"], name="neg again"),
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.output.append(helper.make_tensor_value_info("answer", whole, None))
    model.graph.value_info.append(helper.make_tensor_value_info("negative", whole, None))

    assert ranges.in_fp32(model) == ["neg again"]
