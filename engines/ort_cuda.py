"""Runtime `ort-cuda`: ONNX Runtime's CUDA provider, on buffers of the device and a stream of ours.

Copies go through page-locked memory and wait for nothing but their turn; CUDA events stand around
the computation alone. That takes pycuda. Without it the device's memory is ONNX Runtime's own, and
the row has the wall clock alone (`engines.ort_memory`).
"""

from __future__ import annotations

import ctypes
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
import onnxruntime as ort

from bobrt.errors import BobrtError, UnsupportedError, one_line
from bobrt.spec import Precision
from engines import realised, runtimes
from engines.ort_cpu import CPU, inputs_of, open_session, outputs_of, refusals
from engines.ort_memory import OrtMemory
from engines.runner import IMAGES, GpuFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from engines.runner import TensorMeta

CUDA = "CUDAExecutionProvider"

BOOKKEEPING = frozenset(
    (
        *("Shape", "Size", "Constant", "ConstantOfShape", "Range", "Identity", "Cast"),
        *("Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "Reshape", "Expand"),
        *("Add", "Sub", "Mul", "Div", "Mod", "Floor", "Ceil", "Min", "Max", "ReduceProd"),
        *("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Not", "And", "Or", "Where"),
    )
)
"""What graphs compute shapes with: ONNX Runtime leaves such nodes to the CPU on purpose, where their
operands are. CUDA has kernels for all of them, so none is there for want of one."""


class _Bound(NamedTuple):
    """What one size of batch lies in."""

    binding: ort.IOBinding
    images: NDArray[np.uint8]
    """On the host, as are the `answers`."""
    source: Any
    answers: dict[str, NDArray[Any]]
    sinks: dict[str, Any]


class OrtCudaRunner:
    """An ONNX file in ONNX Runtime on the GPU.

    Args:
        path: The ONNX file, which says its batch itself.
        threads: Intra-op threads, for what is left to the CPU.
        precision: What the file is at; `tf32` allows that arithmetic to an fp32 file, all else forbids it.

    """

    kind: ClassVar[str] = "cuda"
    provider: ClassVar[str] = CUDA
    """Who must take every node that is not bookkeeping."""
    device_ns: Callable[[], int] | None = None
    """With pycuda alone."""

    def __init__(self, path: Path, threads: int, precision: Precision = Precision.FP32, *_: object) -> None:
        self._path = path
        self._threads = threads
        self._precision = precision
        self._preload()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._device = self._memory()
            stack.enter_context(self._device)
            providers = self._providers(self._device.stream)
            with refusals(self._path), GpuFailure():
                self._session = open_session(str(self._path), self._threads, providers=providers)
            stack.callback(self._forget)
            self._outputs = outputs_of(self._session, self._path)
            self._placed = _require(self._session, self.provider, self._path)
            self._bound: dict[int, _Bound] = {}
            self._options = ort.RunOptions()
            if self._device.stream is not None:
                # Our own events and copies follow in the same stream; nobody has to wait in between.
                self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
                self.device_ns = self._elapsed_ns
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def inputs(self) -> Mapping[str, TensorMeta]:
        """Return the inputs by name."""
        return inputs_of(self._session)

    def infer(self, feeds: Mapping[str, NDArray[np.uint8]]) -> Mapping[str, NDArray[np.float32]]:
        """Return the outputs by name for one batch, in buffers that the next call of its size uses again."""
        images, device = feeds[IMAGES], self._device
        with GpuFailure(), device.work():
            bound = self._bound.get(len(images)) or self._bind(images)
            np.copyto(bound.images, images)
            device.upload(bound.source, bound.images)
            device.start()
            self._session.run_with_iobinding(bound.binding, self._options)
            device.stop()
            for name, sink in bound.sinks.items():
                device.download(bound.answers[name], sink)
            device.sync()
        return {name: answer.astype(np.float32, copy=False) for name, answer in bound.answers.items()}

    def realised(self) -> dict[str, float] | None:
        """Return the fraction of multiply-adds at each precision, by a run of its own."""

        def opened(options: ort.SessionOptions) -> ort.InferenceSession:
            providers = self._providers(None)
            return open_session(str(self._path), self._threads, providers=providers, options=options)

        with GpuFailure(), self._device.work():
            return realised.shares(opened, self.inputs())

    def notes(self) -> list[str]:
        """Return what is not as a reader would expect."""
        left = sum(kinds.total() for name, kinds in self._placed.items() if name != self.provider)
        told = [f"{left} nodes that compute shapes are not on {self.provider}"] if left else []
        if self.device_ns is None:
            told.append("pycuda or cuda-bindings is not installed: no clock of the device")
        return told

    def _elapsed_ns(self) -> int:
        with self._device.work():
            return int(self._device.elapsed_ns())

    def _preload(self) -> None:
        """Load the libraries that lie in wheels, in no folder that the loader knows; touches no device."""
        ort.preload_dlls(directory="")

    def _memory(self) -> Any:  # noqa: ANN401 - `Device`, or what answers as it does
        """Return the device, or ONNX Runtime's view of it where pycuda or cuda-bindings is not installed."""
        try:
            from engines.cuda import Device  # noqa: PLC0415 - it may be absent
        except ModuleNotFoundError:
            return OrtMemory(self.kind)
        except ImportError as error:
            raise BobrtError(
                f"pycuda does not load: {one_line(error)}", "build it again, or uninstall it"
            ) from error
        return Device()

    def _providers(self, stream: int | None) -> list[tuple[str, dict[str, Any]]]:
        options: dict[str, Any] = {"device_id": 0, "use_tf32": int(self._precision is Precision.TF32)}
        if stream is not None:
            options["user_compute_stream"] = stream
        return [(CUDA, options), (CPU, {})]

    def _bind(self, images: NDArray[np.uint8]) -> _Bound:
        """Return buffers for a batch of this size; one run of it tells how large the answers are."""
        device, binding = self._device, self._session.io_binding()
        host = device.pinned(images.shape, np.uint8)
        source = device.buffer(images.nbytes)
        binding.bind_input(IMAGES, self.kind, 0, np.uint8, images.shape, source.ptr)
        for name in self._outputs:
            binding.bind_output(name, self.kind, 0)
        np.copyto(host, images)
        device.upload(source, host)
        self._session.run_with_iobinding(binding, self._options)
        device.sync()
        shapes = [tuple(value.shape()) for value in binding.get_outputs()]
        binding.clear_binding_outputs()
        answers = {
            name: device.pinned(shape, np.dtype(meta.dtype))
            for (name, meta), shape in zip(self._outputs.items(), shapes, strict=True)
        }
        sinks = {name: device.buffer(answer.nbytes) for name, answer in answers.items()}
        for name, answer in answers.items():
            binding.bind_output(name, self.kind, 0, answer.dtype, answer.shape, sinks[name].ptr)
        self._bound[len(images)] = _Bound(binding, host, source, answers, sinks)
        return self._bound[len(images)]

    def _forget(self) -> None:
        """Let go of what lies on the device, before the device itself."""
        self._bound = {}
        self.device_ns = None
        del self._session


def placed(session: ort.InferenceSession) -> dict[str, Counter[str]]:
    """Return how many nodes of each type each provider took, by the provider's name."""
    found: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        found.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return found


def strays(nodes: Mapping[str, Counter[str]], provider: str) -> Counter[str]:
    """Return how many nodes of each type other providers took, bookkeeping aside.

    Args:
        nodes: As of `placed`.
        provider: Who should have taken them.

    """
    found: Counter[str] = Counter()
    for name, kinds in nodes.items():
        if name != provider:
            found.update({kind: count for kind, count in kinds.items() if kind not in BOOKKEEPING})
    return found


def _require(session: ort.InferenceSession, provider: str, path: Path) -> dict[str, Counter[str]]:
    """Return what each provider took; raise if it is not who was asked. ONNX Runtime would go on in silence.

    Raises:
        BobrtError: The provider does not load here.
        UnsupportedError: It has no kernel for some node.

    """
    if provider not in session.get_providers():
        raise BobrtError(
            f"ONNX Runtime's {provider} does not load here: {_unloadable(provider)}",
            "pip install 'onnxruntime-gpu[cuda,cudnn]', a newer driver, or bobrt doctor",
        )
    nodes = placed(session)
    if found := strays(nodes, provider):
        listed = ", ".join(f"{count} {kind}" for kind, count in found.most_common())
        raise UnsupportedError(
            f"{provider} does not take {found.total()} nodes of {path} ({listed}): they would run elsewhere",
            "choose another precision or runtime; bobrt list runtimes shows them",
        )
    return nodes


def _unloadable(provider: str) -> str:
    """Return why a provider's library does not load: ONNX Runtime only prints it."""
    try:
        for word in ("shared", provider.removesuffix("ExecutionProvider").lower()):
            ctypes.CDLL(str(runtimes.provider(word)), ctypes.RTLD_GLOBAL)
    except OSError as error:
        return one_line(error)
    return "its library does, and it refuses this GPU or its driver"
