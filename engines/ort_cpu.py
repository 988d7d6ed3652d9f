"""Runtime `ort-cpu`: ONNX Runtime's CPU provider, the embedded default; and what all providers share."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from bobrt.errors import BobrtError, UnsupportedError, one_line
from engines import realised
from engines.runner import IMAGES, TensorMeta, require_answers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    Providers = Sequence[str | tuple[str, dict[str, Any]]]

CPU = "CPUExecutionProvider"
_TYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}
"""Where ONNX Runtime's word is not numpy's in brackets."""
_ERRORS_ONLY = 3
_DAMAGED = (ort_errors.InvalidProtobuf, ort_errors.NoSuchFile)
_REFUSED = (
    ort_errors.NotImplemented,
    ort_errors.InvalidGraph,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
)


def open_session(  # noqa: PLR0913 - one argument for each choice
    model: str | bytes,
    threads: int,
    *,
    spin: bool = False,
    plain: bool = False,
    providers: Providers = (CPU,),
    options: ort.SessionOptions | None = None,
) -> ort.InferenceSession:
    """Return a session that tells which provider took which node, and never changes providers by itself.

    Args:
        model: Path of an ONNX file, or its bytes.
        threads: Intra-op threads.
        spin: Whether they wait awake between two pieces of work. Not unless asked: on a shared
            CPU a spinning thread is the largest noise there is.
        plain: Leave the graph as it is written but for constants: how its eight-bit floats run at all.
        providers: Who may take nodes, the first choice first.
        options: More of ONNX Runtime's options, a profile's say.

    """
    options = options or ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")

    def opened(*without: str) -> ort.InferenceSession:
        return ort.InferenceSession(
            model, options, providers=list(providers), enable_fallback=0, disabled_optimizers=without
        )

    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        # It moves a Transpose between a Q and its DQ, where ONNX Runtime then refuses its own graph in fp8.
        return opened("TransposeOptimizer")
    try:
        return opened()
    except ort_errors.Fail as error:
        if "Tensor type mismatch" not in str(error):
            raise
        return opened("AttentionFusion")  # it takes FastViT's attention in fp16 for one in fp32, and breaks


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turn what ONNX Runtime says of a file it cannot take into one line.

    Raises:
        BobrtError: Names the file and what is wrong with it.
        UnsupportedError: There is no kernel for one of its nodes.

    """
    try:
        yield
    except _DAMAGED as error:
        raise BobrtError(f"{path} is not a whole ONNX file: {one_line(error)}") from error
    except _REFUSED as error:
        hint = "choose another precision or runtime; bobrt list runtimes shows them"
        if none := re.search(r"Provider type for (\w+) node with name '(.*?)' is not set", str(error)):
            lacks = f"it has no {none[1]} of the types that node {none[2]} has"
            raise UnsupportedError(f"ONNX Runtime cannot take {path}: {lacks}", hint) from error
        raise BobrtError(f"ONNX Runtime cannot take {path}: {one_line(error)}", hint) from error


def inputs_of(session: ort.InferenceSession) -> Mapping[str, TensorMeta]:
    """Return a session's inputs by name."""
    return _metas(session.get_inputs())


def outputs_of(session: ort.InferenceSession, path: Path) -> Mapping[str, TensorMeta]:
    """Return a session's outputs by name.

    Raises:
        BobrtError: One of them is no row of numbers for each image.

    """
    outputs, images = _metas(session.get_outputs()), inputs_of(session).get(IMAGES)
    if images and len(images.shape) == 4:  # noqa: PLR2004 - else it takes no images, which is told elsewhere
        require_answers(outputs, images.shape[0], path)
    return outputs


def _metas(tensors: Sequence[ort.NodeArg]) -> dict[str, TensorMeta]:
    return {
        tensor.name: TensorMeta(
            _TYPES.get(tensor.type, tensor.type.removeprefix("tensor(").removesuffix(")")),
            tuple(side if isinstance(side, int) else None for side in tensor.shape),
        )
        for tensor in tensors
    }


class OrtCpuRunner:
    """An ONNX file in ONNX Runtime.

    Args:
        path: The ONNX file, which says its precision and batch itself.
        threads: Intra-op threads.
        plain: See `open_session`.

    """

    def __init__(self, path: Path, threads: int, *_: object, plain: bool = False) -> None:
        self._path = path
        self._threads = threads
        self._plain = plain

    def __enter__(self) -> Self:
        with refusals(self._path):
            self._session = open_session(str(self._path), self._threads, plain=self._plain)
        self._outputs = list(outputs_of(self._session, self._path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._session

    def inputs(self) -> Mapping[str, TensorMeta]:
        """Return the inputs by name."""
        return inputs_of(self._session)

    def infer(self, feeds: Mapping[str, NDArray[np.uint8]]) -> Mapping[str, NDArray[np.float32]]:
        """Return the outputs by name for one batch."""
        found = zip(self._outputs, self._session.run(self._outputs, feeds), strict=True)
        return {name: value.astype(np.float32, copy=False) for name, value in found}

    def realised(self) -> dict[str, float] | None:
        """Return the fraction of multiply-adds at each precision, by a run of its own."""

        def opened(options: ort.SessionOptions) -> ort.InferenceSession:
            return open_session(str(self._path), self._threads, plain=self._plain, options=options)

        return realised.shares(opened, self.inputs())
