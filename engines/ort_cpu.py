"""Runtime `ort-cpu`: ONNX Runtime's CPU provider, the embedded default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from bobrt.errors import BobrtError
from engines.runner import TensorMeta

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(float16)": "float16"}
_ERRORS_ONLY = 3


def open_session(model: str | bytes, threads: int, *, spin: bool = False) -> ort.InferenceSession:
    """Return a session on the CPU provider.

    Args:
        model: Path of an ONNX file, or its bytes.
        threads: Intra-op threads.
        spin: Whether they wait awake between two pieces of work. Not unless asked: on a shared
            CPU a spinning thread is the largest noise there is.

    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class OrtCpuRunner:
    """An ONNX file in ONNX Runtime.

    Args:
        path: The ONNX file.
        threads: Intra-op threads.

    """

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        self._threads = threads

    def __enter__(self) -> Self:
        try:
            self._session = open_session(str(self._path), self._threads)
        except (ort_errors.InvalidProtobuf, ort_errors.NoSuchFile) as error:
            raise BobrtError(f"{self._path} is not a whole ONNX file: {_line(error)}") from error
        except (
            ort_errors.NotImplemented,
            ort_errors.InvalidGraph,
            ort_errors.Fail,
            ort_errors.InvalidArgument,
        ) as error:
            raise BobrtError(
                f"ONNX Runtime cannot take {self._path}: {_line(error)}",
                "choose another precision or runtime; bobrt list runtimes shows them",
            ) from error
        self._outputs = [output.name for output in self._session.get_outputs()]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._session

    def inputs(self) -> Mapping[str, TensorMeta]:
        """Return the inputs by name."""
        return {
            tensor.name: TensorMeta(
                _TYPES.get(tensor.type, tensor.type),
                tuple(side if isinstance(side, int) else None for side in tensor.shape),
            )
            for tensor in self._session.get_inputs()
        }

    def infer(self, feeds: Mapping[str, NDArray[np.uint8]]) -> Mapping[str, NDArray[np.float32]]:
        """Return the outputs by name for one batch."""
        return dict(zip(self._outputs, self._session.run(self._outputs, feeds), strict=True))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
