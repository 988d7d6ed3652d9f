"""What ONNX Runtime really computes in, from real runs and from events of its profile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engines import realised

if TYPE_CHECKING:
    from collections.abc import Sequence


def event(
    operation: str, inputs: Sequence[dict[str, list[int]]], output: dict[str, list[int]]
) -> dict[str, Any]:
    """Return one kernel's line of a profile."""
    told = {"op_name": operation, "input_type_shape": list(inputs), "output_type_shape": [output]}
    return {"cat": "Node", "name": f"{operation}_0_kernel_time", "args": told}


CONV = event(
    "Conv", [{"float": [1, 3, 8, 8]}, {"float": [4, 3, 3, 3]}, {"float": [4]}], {"float": [1, 4, 6, 6]}
)
"""4 x 6 x 6 outputs of 27 products: 3,888."""
SCALES = [{"float": []}, {"uint8": []}]
QLINEAR = event(
    "QLinearConv",
    [{"uint8": [1, 3, 8, 8]}, *SCALES, {"int8": [4, 3, 3, 3]}, {"float": [4]}, {"int8": [4]}, *SCALES],
    {"uint8": [1, 4, 6, 6]},
)
PRODUCT = event("MatMul", [{"float16": [1, 36, 27]}, {"float16": [27, 4]}], {"float16": [1, 36, 4]})
"""36 x 4 outputs of 27 products: 3,888."""


TRANSPOSED = event(
    "ConvTranspose", [{"float": [1, 9, 6, 6]}, {"float": [9, 3, 2, 2]}], {"float": [1, 3, 12, 12]}
)
"""9 x 6 x 6 inputs into 3 x 2 x 2 each: 3,888."""
LSTM = event(
    "LSTM",
    [{"float": [3, 9, 4]}, {"float": [1, 12, 4]}, {"float": [1, 12, 8]}, {"float": [1, 24]}],
    {"float": [3, 1, 9, 8]},
)
"""3 steps of 9 rows, 12 x 4 + 12 x 8 products each: 3,888."""
DYNAMIC = event(
    "DynamicQuantizeMatMul", [{"float": [9, 12]}, {"int8": [12, 36]}, {"float": [36]}], {"float": [9, 36]}
)
"""9 x 36 outputs of 12 products each: 3,888, in bytes that it makes of its floats."""
ATTENTION = event(
    "Attention", [{"float": [1, 9, 6]}, {"float": [6, 36]}, {"float": [36]}], {"float": [1, 9, 12]}
)
"""9 tokens: 6 x 36 for their projections, and twice 9 x 12: 3,888."""


@pytest.mark.parametrize(
    ("events", "want"),
    [
        ([CONV], {"fp32": 1.0}),
        ([QLINEAR], {"int8": 1.0}),
        ([CONV, QLINEAR, PRODUCT, PRODUCT], {"fp32": 0.25, "int8": 0.25, "fp16": 0.5}),
        ([event("Relu", [{"float": [1, 4]}], {"float": [1, 4]})], {}),
        (
            [event("Gemm", [{"float": [2, 8]}, {"float": [4, 8]}, {"float": [4]}], {"float": [2, 4]})],
            {"fp32": 1.0},
        ),
        ([{"cat": "Session", "name": "model_run", "args": {}}], {}),
        ([PRODUCT, TRANSPOSED], {"fp16": 0.5, "fp32": 0.5}),
        ([PRODUCT, LSTM], {"fp16": 0.5, "fp32": 0.5}),
        ([PRODUCT, ATTENTION], {"fp16": 0.5, "fp32": 0.5}),
        ([PRODUCT, DYNAMIC], {"fp16": 0.5, "int8": 0.5}),
    ],
)
def test_a_kernel_counts_at_the_type_it_reads(events: list[dict[str, Any]], want: dict[str, float]) -> None:
    """Multiply-adds by hand: a convolution and a product of 3,888 each weigh the same."""
    assert realised.of_events(events) == pytest.approx(want)
