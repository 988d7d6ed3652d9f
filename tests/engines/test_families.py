"""One member of each family, cut down: exported, proven, converted, and built for TensorRT-RTX.

The same steps as `make matrix` takes the whole catalogue through, at its own sizes and at every precision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import architecture
import pytest
from families import FAMILIES, entry

from bobrt.spec import Precision
from engines import onnx_file

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = {"resnet", "convnext", "vit", "swin", "efficientnet"}
"""Families whose member goes through every precision here; the others through fp32 and fp16."""


SIZES = {"mobileone": 128}
"""Larger sides: at 32 its twin's statistics are of four values a channel, and rounding is all one sees."""
GAPS = {"mobileone": 1.0, "regnet": 0.6, "mobilenet": 0.3}
"""How far fp16 may be from fp32, of the answers' own spread, where random weights make much of rounding."""


@pytest.mark.parametrize("family", FAMILIES)
def test_a_member_goes_all_the_way(family: str, tmp_path: Path) -> None:
    """fp32 agrees with PyTorch where every block shows; the rest is at its precision; RTX takes all.

    And fp16 answers as fp32 does, in ONNX Runtime: BEiT's values are the ones to watch.
    """
    member = FAMILIES[family][0]
    made = architecture.exported(entry(member), tmp_path, SIZES.get(family, member.size))

    assert architecture.built(made.path, Precision.FP32) > 1000
    for low in architecture.CONVERSIONS if family in WHOLE else [Precision.FP16]:
        path, share = architecture.converted(made.path, low, tmp_path / str(low))
        # ModelOpt leaves convolutions of 16 channels and fewer out of fp8: most of a small EfficientNet.
        assert share >= (0.25 if low is Precision.FP8 else 0.5), low
        assert architecture.built(path, low) > 1000, low
        if low is Precision.FP16:
            assert architecture.gap(made.path, path, low) < GAPS.get(family, 0.1)


@pytest.mark.parametrize(("family", "operator"), [("volo", "ConvTranspose"), ("mobilenet", "HardSwish")])
def test_what_tensorrt_has_not_in_bf16_stays_in_fp32(family: str, operator: str, tmp_path: Path) -> None:
    """Listed as islands in the file's card, between casts; the builder takes it then."""
    member = FAMILIES[family][0]
    made = architecture.exported(entry(member), tmp_path, member.size)
    path, _ = architecture.converted(made.path, Precision.BF16, tmp_path / "bf16")
    asked = {node.name for node in onnx_file.load(made.path).graph.node if node.op_type == operator}

    assert asked
    assert asked <= {*onnx_file.require_card(onnx_file.load(path), path).islands}
    assert architecture.built(path, Precision.BF16) > 1000


def test_what_reads_a_recurrent_layer_is_not_in_eight_bits(tmp_path: Path) -> None:
    """TensorRT-RTX breaks down over Q/DQ between the two, in networks wider than this one."""
    member = FAMILIES["sequencer"][0]
    made = architecture.exported(entry(member), tmp_path, member.size)
    path, share = architecture.converted(made.path, Precision.INT8, tmp_path / "int8")
    graph = onnx_file.load(path).graph
    eight = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    behind = [node for node in products if "rnn_tokens.fc" in node.name]

    assert [bool(eight & {*node.input}) for node in behind] == [False] * 4
    assert [bool(eight & {*node.input}) for node in products if node not in behind] == [True] * 8
    assert 0.5 < share < 1
