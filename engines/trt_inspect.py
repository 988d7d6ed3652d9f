"""What a built engine came to: the precision of its layers, from TensorRT's engine inspector.

The inspector's JSON is documented for TensorRT 10
(docs.nvidia.com/deeplearning/tensorrt/10.16.1/inference-library/engine-tools.html) and, with
`Format/Datatype` split in two, for TensorRT 11
(docs.nvidia.com/deeplearning/tensorrt/11.4.0/api/migration/tensorrt-10x-to-11x-IEngineInspector.html).
It needs an engine built with `ProfilingVerbosity.DETAILED`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from bobrt.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Mapping

    Layer = Mapping[str, Any]

_WORDS = {
    Precision.INT8: r"int8",
    Precision.FP8: r"fp8|float8|e4m3\w*",
    Precision.BF16: r"bf16|bfloat16",
    Precision.FP16: r"fp16|half|float16",
    Precision.FP32: r"fp32|float|float32",
}
"""How the inspector spells a type, narrowest first."""
_WIDTH = {precision: width for width, precision in enumerate(_WORDS)}
_MOVES = {"kgen", "reformat", "noop", "shuffle", "copy", "cast", "quantize", "dequantize"}
"""Layers that also carry the name of a node whose arithmetic another layer does; `kgen` may do it itself."""
ACCOUNTED = 0.9
"""Part of a graph's multiply-adds that must be found in the engine, or nothing is said."""


def shares(information: Layer, macs: Mapping[str, int]) -> dict[str, float] | None:
    """Return the fraction of multiply-adds that the engine does at each precision.

    A fused layer names the ONNX nodes it does in its `Metadata`; each node's multiply-adds count
    at the precision of its layer. Where several layers name it, one that computes goes before
    one that moves, and the widest counts.

    Args:
        information: `get_engine_information(LayerInformationFormat.JSON)`, parsed, with an
            execution context set: without one a dynamic engine tells no formats.
        macs: Multiply-adds of each ONNX node, by its name.

    Returns:
        Fractions by name, or None where less than nine tenths of the multiply-adds can be found.

    """
    doers: defaultdict[str, list[Layer]] = defaultdict(list)
    for layer in information.get("Layers", []):
        if isinstance(layer, dict):  # a bare name, where the engine was built without details
            for name in _nodes(layer):
                doers[name].append(layer)
    total: Counter[Precision] = Counter()
    for name, count in macs.items():
        computing = [layer for layer in doers[name] if not _moves(layer)] or doers[name]
        found = [precision for layer in computing if (precision := _precision(layer))]
        if found:
            total[max(found, key=_WIDTH.__getitem__)] += count
    everything = sum(macs.values())
    if not everything or sum(total.values()) < ACCOUNTED * everything:
        return None
    return {str(precision): count / everything for precision, count in total.items()}


def _nodes(layer: Layer) -> set[str]:
    """Return the ONNX nodes a layer does: those of its metadata, or else of its name."""
    named = re.findall(r"\[ONNX Layer: (.*?)\]", str(layer.get("Metadata", "")))
    return set(named or str(layer.get("Name", "")).split(" + "))


def _moves(layer: Layer) -> bool:
    return str(layer.get("LayerType", "")).lower() in _MOVES


def _precision(layer: Layer) -> Precision | None:
    """Return what a layer computes in: its weights' type where it tells, else its narrowest input's."""
    weights = layer.get("Weights")
    if isinstance(weights, dict) and (precision := _spelled(str(weights.get("Type", "")))):
        return precision
    types = [
        str(tensor.get("Format/Datatype") or tensor.get("Datatype") or tensor.get("DataType") or "")
        for tensor in layer.get("Inputs", [])
        if isinstance(tensor, dict)
    ]
    found = [precision for text in types if (precision := _spelled(text))]
    return min(found, key=_WIDTH.__getitem__, default=None)


def _spelled(text: str) -> Precision | None:
    for precision, words in _WORDS.items():
        if re.search(rf"\b(?:{words})\b", text, re.IGNORECASE):
            return precision
    return None
