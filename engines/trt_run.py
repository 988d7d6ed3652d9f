"""Runtimes `tensorrt` and `tensorrt-rtx`: a built engine on the GPU it was built for.

Host memory in, host memory out. The device's clock runs from the first kernel to the last, the
copies are outside it. Each batch size has an execution context of its own, since a CUDA graph
is good for one shape of one context; a few of them are kept.
"""

from __future__ import annotations

import importlib
import json
from collections import OrderedDict
from contextlib import ExitStack, contextmanager
from traceback import clear_frames
from typing import TYPE_CHECKING, Any, ClassVar, Self

import msgspec

from bobrt.errors import BobrtError, UsageError, one_line
from bobrt.garbage import uncollected
from bobrt.paths import read_sealed, write_sealed
from engines import trt_identity, trt_inspect
from engines.cuda import Device
from engines.runner import IMAGES, TensorMeta, out_of_memory, require_images
from engines.trt_build import MODULES
from engines.trt_log import Log
from engines.trt_slot import Slot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

SLOTS = 4
"""Batch sizes whose memory and CUDA graph are kept: one alone, one being timed, and the end of a split."""


class TensorRtRunner:
    """An engine of TensorRT 10 or 11.

    Args:
        path: The engine; what it was built for is read from the manifest beside it.
        _: Threads, precision and batch: an engine has its own.
        graphs: Launch each batch size as one CUDA graph after its first call.

    """

    runtime: ClassVar[str] = "tensorrt"

    def __init__(self, path: Path, *_: object, graphs: bool = True) -> None:
        self._path = path
        self._graphs = graphs
        self._trt = importlib.import_module(MODULES[self.runtime])
        self._notes: list[str] = []

    def __enter__(self) -> Self:
        if not self._path.is_file():
            raise UsageError(f"engine {self._path} does not exist")
        self._manifest = trt_identity.manifest_of(self._path)
        if self._manifest:
            trt_identity.require_here(self._trt, self._path, self._manifest)
        self._log = Log([])
        self._slots: OrderedDict[int, Slot] = OrderedDict()
        with ExitStack() as undo:
            self._device = undo.enter_context(Device())
            undo.callback(self._forget)
            with self._device.work(), _forgotten_if_it_fails():
                self._load()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.__exit__(kind, error, trace)

    def inputs(self) -> Mapping[str, TensorMeta]:
        """Return the inputs by name."""
        return self._inputs

    def infer(self, feeds: Mapping[str, NDArray[np.uint8]]) -> Mapping[str, NDArray[np.float32]]:
        """Return the outputs by name for one batch, in memory of their own.

        Raises:
            MemoryError: The batch does not fit on the device.
            BobrtError: The engine takes no such batch or size, or the GPU failed.

        """
        images = feeds[IMAGES]
        with self._device.work():
            return self._slot(len(images)).run(images, graph=self._graphs)

    def device_ns(self) -> int:
        """Return the nanoseconds of the last `infer` from its first kernel to its last, without copies."""
        with self._device.work():
            return self._device.elapsed_ns()

    def largest_batch(self) -> int:
        """Return the most images the engine takes at once."""
        return max(high for _, high in self._ranges)

    def notes(self) -> list[str]:
        """Return what a reader of its timings has to know: what was asked for and could not be done."""
        return [*self._notes, *(slot.note for slot in self._slots.values() if slot.note)]

    def realised(self) -> dict[str, float] | None:
        """Return the fraction of multiply-adds done at each precision; None if it cannot be told."""
        detail = self._manifest.detail if self._manifest else {}
        macs = msgspec.convert(detail.get("macs", {}), dict[str, int])
        with self._device.work(), _forgotten_if_it_fails():
            inspector = self._engine.create_engine_inspector()
            # Formats of a dynamic engine are known for a shape, not before.
            inspector.execution_context = self._slot(self._inputs[IMAGES].shape[0] or 1).context
            text = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        return trt_inspect.shares(json.loads(text), macs)

    @uncollected()  # as `trt_build.build`: the library logs with a lock held
    def _load(self) -> None:
        """Read the engine, what it takes and how its contexts are made."""
        trt = self._trt
        self._library = trt.Runtime(self._log.logger(trt, quiet=True))
        engine = self._engine = self._library.deserialize_cuda_engine(self._path.read_bytes())
        if engine is None:
            raise self._log.error(
                f"{self.runtime} {trt.__version__} cannot load {self._path}",
                "build it here: run bobrt build or bobrt bench again, or name its ONNX file",
            )
        self._inputs = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                shape = tuple(None if side < 0 else side for side in engine.get_tensor_shape(name))
                self._inputs[name] = TensorMeta(trt.nptype(engine.get_tensor_dtype(name)).__name__, shape)
        require_images(self._inputs, self._path)
        self._ranges: list[tuple[int, int]] = []
        for profile in range(engine.num_optimization_profiles):
            low, _, high = engine.get_tensor_profile_shape(IMAGES, profile)
            self._ranges.append((low[0], high[0]))
        self._configure()

    def _configure(self) -> None:
        """Say how contexts are made: with no memory of their own, so that each takes what its batch needs."""
        self._how: Any = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED

    def _slot(self, batch: int) -> Slot:
        """Return what answers so many images, making it if need be; the one unused the longest goes."""
        if batch in self._slots:
            self._slots.move_to_end(batch)
            return self._slots[batch]
        profile = self._profile(batch)
        while len(self._slots) >= SLOTS:
            self._close_oldest()
        try:
            slot = self._opened(profile, batch)
        except Exception as error:
            if not out_of_memory(error) or not self._slots:
                raise
            while self._slots:
                self._close_oldest()
            slot = self._opened(profile, batch)
        self._slots[batch] = slot
        return slot

    def _opened(self, profile: int, batch: int) -> Slot:
        slot = Slot(self._trt, self._device, self._log)
        with ExitStack() as undo:
            undo.callback(slot.close)
            with _forgotten_if_it_fails():
                slot.open(self._engine, self._how, profile, (batch, *self._sides))
            undo.pop_all()
        return slot

    def _close_oldest(self) -> None:
        _, slot = self._slots.popitem(last=False)
        if slot.note:
            self._notes.append(slot.note)
        slot.close()

    @property
    def _sides(self) -> tuple[int, ...]:
        return tuple(side for side in self._inputs[IMAGES].shape[1:] if side is not None)

    def _profile(self, batch: int) -> int:
        """Return the first optimization profile that takes a batch."""
        for index, (low, high) in enumerate(self._ranges):
            if low <= batch <= high:
                return index
        taken = ", ".join(str(low) if low == high else f"{low} to {high}" for low, high in self._ranges)
        raise BobrtError(
            f"{self._path.name} takes {taken} images at once, not {batch}",
            "ask for a batch it takes, or build an engine of that batch: bobrt build NAME --batch N",
        )

    def _forget(self) -> None:
        """Let go of everything of the library's: its objects end with their last reference."""
        while self._slots:
            self._close_oldest()
        self._how = self._engine = self._library = None


@contextmanager
def _forgotten_if_it_fails() -> Iterator[None]:
    """Let no frame of a failed call keep the library's objects: they would outlive their device."""
    try:
        yield
    except BaseException as error:
        clear_frames(error.__traceback__)
        raise


class RtxRunner(TensorRtRunner):
    """An engine of TensorRT for RTX, which makes its kernels on the GPU when they are first needed.

    They are kept in a file beside the engine, for the next process. Kernels for a batch size are
    made before its first answer and not in the background, so that nothing changes while it is timed.
    """

    runtime: ClassVar[str] = "tensorrt-rtx"

    @property
    def _kernels(self) -> Path:
        return self._path.with_suffix(".kernels")

    def _configure(self) -> None:
        trt = self._trt
        config = self._how = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        cache = self._cache = config.create_runtime_cache()
        kept = read_sealed(self._kernels)
        if not (kept and cache.deserialize(kept)):
            self._notes.append("kernels were made for this GPU before the first answers")
        config.set_runtime_cache(cache)

    def _forget(self) -> None:
        if self._slots:
            try:
                write_sealed(self._kernels, bytes(self._cache.serialize()))
            except Exception as error:  # noqa: BLE001 - whatever it is, the device is left
                self._notes.append(f"the kernels were not kept: {one_line(error)}")
        super()._forget()
        # Contexts look at it for as long as they live.
        self._cache = None
