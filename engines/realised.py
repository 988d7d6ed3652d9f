"""Which precision ONNX Runtime really computes in: read from the kernels of one run, not from the file.

Its optimiser fuses Q/DQ into integer kernels, or leaves a dequantised product in fp32; its CPU
provider casts what it has no kernel for. The profile of a run names every kernel with the types and
shapes of what it read.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from bobrt.errors import MachineError
from bobrt.paths import ROOM
from bobrt.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from engines.runner import TensorMeta

    Tensor = tuple[str, list[int]]

_ATTENTION = {"Attention", "QAttention"}
"""ONNX Runtime's own, with the projections in them."""
_RECURRENT = {"LSTM", "GRU", "RNN"}
_CONVOLUTIONS = {"Conv", "FusedConv", "NhwcFusedConv", "QLinearConv", "ConvInteger"}
_PRODUCTS = {"MatMul", "FusedMatMul", "Gemm", "FusedGemm", "QLinearMatMul", "QGemm"}
_PRODUCTS |= {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}
_BY_TYPE = {
    "float": Precision.FP32,
    "float16": Precision.FP16,
    "bfloat16": Precision.BF16,
    "float8e4m3fn": Precision.FP8,
    "int8": Precision.INT8,
    "uint8": Precision.INT8,
}


def shares(
    open_session: Callable[[ort.SessionOptions], ort.InferenceSession],
    inputs: Mapping[str, TensorMeta],
) -> dict[str, float] | None:
    """Return the fraction of multiply-adds computed at each precision, by its name, in one run.

    None if no kernel of it tells: they are inside another library's.

    Args:
        open_session: Opens the file as it is timed, with these options beside its own.
        inputs: What the file takes; it is run on zeros.

    Raises:
        MachineError: There was no room for the profile.

    """
    feeds = {name: np.zeros([side or 1 for side in meta.shape], meta.dtype) for name, meta in inputs.items()}
    with tempfile.TemporaryDirectory(prefix="bobrt-") as folder:
        options = ort.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "run")
        # Weights packed ahead are no longer among a kernel's inputs, and their shapes are wanted.
        options.add_session_config_entry("session.disable_prepacking", "1")
        session = open_session(options)
        session.run(None, feeds)
        try:
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        except ValueError:  # ONNX Runtime does not look whether what it writes is written
            raise MachineError(f"ONNX Runtime's profile of a run was cut short in {folder}", ROOM) from None
    return of_events(events) or None


def of_events(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the fraction of multiply-adds at each precision of ONNX Runtime's profile events."""
    total: Counter[Precision] = Counter()
    for event in events:
        told = event.get("args", {})
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            operation = told.get("op_name", "")
            inputs, outputs = _tensors(told["input_type_shape"]), _tensors(told["output_type_shape"])
            if macs := _macs(operation, inputs, outputs):
                # It makes bytes of its floats itself, and tells it by the weight.
                factor = inputs[1 if operation == "DynamicQuantizeMatMul" else 0]
                total[_BY_TYPE.get(factor[0], Precision.FP32)] += macs
    everything = sum(total.values())
    return {str(precision): macs / everything for precision, macs in total.items()} if everything else {}


def _macs(operation: str, inputs: list[Tensor], outputs: list[Tensor]) -> int:
    """Return a kernel's multiply-adds, 0 for those that have none."""
    matrices = [shape for _, shape in inputs if len(shape) > 1]
    if not outputs or len(matrices) < 2:  # noqa: PLR2004 - two factors
        return 0
    if operation in _CONVOLUTIONS:  # weight [out, in / groups, *kernel]
        return math.prod(outputs[0][1]) * math.prod(matrices[1][1:])
    if operation == "ConvTranspose":  # weight [in, out / groups, *kernel]
        return math.prod(matrices[0]) * math.prod(matrices[1][1:])
    if operation in _RECURRENT:  # data [steps, images, inputs]; at each step, every weight of both matrices
        return math.prod(matrices[0][:2]) * sum(map(math.prod, matrices[1:3]))
    if operation in _ATTENTION:  # data [images, tokens, inputs], weight [inputs, 3 x outputs]
        (images, tokens, width), three = matrices[0], matrices[1][1]
        return images * tokens * (width * three + 2 * tokens * three // 3)
    return math.prod(outputs[0][1]) * matrices[0][-1] if operation in _PRODUCTS else 0


def _tensors(told: Iterable[Mapping[str, list[int]]]) -> list[Tensor]:
    """Return type and shape of each tensor: the profile has `[{"float": [1, 3]}, ...]`."""
    return [(kind, shape) for tensor in told for kind, shape in tensor.items()]
