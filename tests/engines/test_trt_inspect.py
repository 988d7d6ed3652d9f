"""The inspector's JSON of TensorRT 10 and 11, read back into shares of multiply-adds."""

from __future__ import annotations

from typing import Any

import onnx
import pytest

from engines import macs, trt_inspect

INT8_10 = "Thirty-two wide channel vectorized row major Int8 format."


def tensor(kind: str, generation: int, shape: list[int] | None = None) -> dict[str, Any]:
    """A layer's input or output, as the documentation of either generation shows it."""
    plain = {"Name": "x", "Location": "Device", "Dimensions": shape or [16, 512, 28, 28]}
    if generation == 10:
        return {**plain, "Format/Datatype": kind}
    return {**plain, "Format": "Row major linear", "Datatype": kind}


def layer(name: str, kind: str, generation: int = 10, **more: Any) -> dict[str, Any]:
    """A fused layer and the ONNX nodes it does."""
    return {
        "Name": f"{name}_fused",
        "LayerType": "CaskConvolution",
        "Inputs": [tensor(kind, generation)],
        "Outputs": [tensor(kind, generation)],
        "Metadata": f"[ONNX Layer: {name}]\x1e[ONNX Layer: {name}_relu]",
        **more,
    }


DOCUMENTED_10 = {
    "Name": "node_of_gpu_0/res4_0_branch2a_1 + node_of_gpu_0/res4_0_branch2a_bn_1",
    "LayerType": "CaskConvolution",
    "Inputs": [{"Name": "gpu_0/res3_3", "Dimensions": [16, 512, 28, 28], "Format/Datatype": INT8_10}],
    "Outputs": [{"Name": "gpu_0/res4_0", "Dimensions": [16, 256, 28, 28], "Format/Datatype": INT8_10}],
    "ParameterType": "Convolution",
    "Kernel": [1, 1],
    "OutMaps": 256,
    "Groups": 1,
    "Weights": {"Type": "Int8", "Count": 131072},
    "Bias": {"Type": "Float", "Count": 256},
    "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32",
}
"""A layer as the developer guide of TensorRT 10 shows it for `kDETAILED`: without metadata."""


def test_the_layer_in_tensorrt_s_guide_is_int8() -> None:
    """Its nodes are in its name, its precision is its weights'."""
    information = {"Layers": [DOCUMENTED_10], "Bindings": ["input", "output"]}

    assert trt_inspect.shares(information, {"node_of_gpu_0/res4_0_branch2a_1": 10}) == {"int8": 1.0}


@pytest.mark.parametrize(
    ("generation", "kind", "precision"),
    [
        (10, "Row major linear FP32", "fp32"),
        (10, "Channel major FP16 format where channel % 8 == 0", "fp16"),
        (10, INT8_10, "int8"),
        (10, "Half", "fp16"),
        (10, "Float", "fp32"),
        (10, "Row major linear BFloat16 format", "bf16"),
        (10, "Row major linear FP8 format", "fp8"),
        (11, "Float", "fp32"),
        (11, "Half", "fp16"),
        (11, "BFloat16", "bf16"),
        (11, "Int8", "int8"),
        (11, "FP8", "fp8"),
    ],
)
def test_both_generations_spell_each_precision(generation: int, kind: str, precision: str) -> None:
    """One string for format and type in 10, two in 11."""
    information = {"Layers": [layer("conv", kind, generation)]}

    assert trt_inspect.shares(information, {"conv": 7}) == {precision: 1.0}


def test_shares_are_of_the_multiply_adds() -> None:
    """Not of the layers: what has none counts for nothing."""
    layers = [layer("a", "Half"), layer("b", "Float"), layer("pool", "Float"), layer("c", "Half")]

    assert trt_inspect.shares({"Layers": layers}, {"a": 600, "b": 100, "c": 300}) == {
        "fp16": 0.9,
        "fp32": 0.1,
    }


def test_a_residual_in_another_type_does_not_change_what_is_multiplied() -> None:
    """The weights tell, or else the narrowest input: a wider one is only added."""
    told = layer("a", INT8_10, Weights={"Type": "Int8", "Count": 4})
    told["Inputs"].append(tensor("Half", 10))
    silent = layer("b", "Int8", 11)
    silent["Inputs"].append(tensor("Float", 11))

    assert trt_inspect.shares({"Layers": [told, silent]}, {"a": 1, "b": 1}) == {"int8": 1.0}


def test_a_layer_that_moves_does_not_speak_for_the_one_that_computes() -> None:
    """A reformat carries the node's name as well; alone, a fused kernel is what computes."""
    moved = layer("qk", "Float", LayerType="Reformat")
    fused = layer("attention", "Half", LayerType="kgen")

    assert trt_inspect.shares({"Layers": [moved, layer("qk", "Half"), fused]}, {"qk": 1, "attention": 1}) == {
        "fp16": 1.0
    }


def test_of_two_layers_that_compute_a_node_the_wider_counts() -> None:
    """Nothing is called realised that was so in part."""
    assert trt_inspect.shares({"Layers": [layer("a", INT8_10), layer("a", "Half")]}, {"a": 1}) == {
        "fp16": 1.0
    }


@pytest.mark.parametrize(
    "information",
    [
        {"Layers": ["a + relu", "b"]},
        {"Layers": []},
        {},
        {"Layers": [layer("a", "N/A due to dynamic shapes")]},
        {"Layers": [layer("a", "Half")]},
    ],
    ids=["names only", "no layers", "nothing", "no context was set", "half of the graph"],
)
def test_what_cannot_be_told_is_not_told(information: dict[str, Any]) -> None:
    """Nine tenths of the multiply-adds must be found, or the answer is None."""
    assert trt_inspect.shares(information, {"a": 50, "b": 50}) is None


def test_a_graph_without_multiply_adds_has_no_shares() -> None:
    """None, not a division by zero."""
    assert trt_inspect.shares({"Layers": [layer("a", "Half")]}, {}) is None


def test_nodes_go_by_tensorrt_s_names() -> None:
    """Their own, or that of what they give; the multiply-adds are an image's."""
    node = onnx.helper.make_node
    whole = onnx.helper.make_graph(
        [
            node("MatMul", ["x", "w"], ["y"], name="first"),
            node("MatMul", ["y", "v"], ["z"]),
            node("Relu", ["z"], ["o"]),
        ],
        "by hand",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 5, 4])],
        [onnx.helper.make_tensor_value_info("o", onnx.TensorProto.FLOAT, None)],
        [
            onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [4, 3], [1.0] * 12),
            onnx.helper.make_tensor("v", onnx.TensorProto.FLOAT, [3, 2], [1.0] * 6),
        ],
    )

    assert macs.by_node(onnx.helper.make_model(whole)) == {"first": 5 * 4 * 3, "node_of_z": 5 * 3 * 2}
