"""TensorRT's runtime classes on the fake GPU; all else is the real TensorRT for RTX.

The classes have the names of the real ones, and none that those lack: a test proves it.
"""

from __future__ import annotations

import json
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorrt_rtx as trt
from fake_gpu import Stream

if TYPE_CHECKING:
    from pathlib import Path

    from fake_gpu import FakeGpu
    from numpy.typing import NDArray

RUN_MS = 1.0
"""What the kernels take for one image."""
SIDE = 4


class Library(ModuleType):
    """The real TensorRT for RTX, under any name and version, with a runtime that runs on the fake GPU."""

    def __init__(self, gpu: FakeGpu, name: str = "tensorrt", version: str = "11.4.0.106") -> None:
        super().__init__(name)
        self.gpu = gpu
        self.__version__ = version
        self.profiles: list[int] = []
        """The optimization profile of each context, as they were made."""
        self.inspected: dict[str, Any] = {"Layers": []}

    def Runtime(self, logger: Any) -> EngineRuntime:  # noqa: N802 - TensorRT's name
        return EngineRuntime(self, logger)

    def __getattr__(self, name: str) -> Any:
        return getattr(trt, name)


def engine_file(path: Path, **changes: Any) -> Path:
    """Write an engine of the fake library: what it takes and answers, and what it costs."""
    plain = {
        "batch": -1,
        "profiles": [[1, 1, 1], [2, 4, 8]],
        "outputs": {"logits": "FLOAT", "features": "HALF"},
    }
    path.write_text(json.dumps({**plain, "side": SIDE, "scratch": 64, **changes}), encoding="utf-8")
    return path


def expected(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What every output of the fake engine is: each channel's sum, in an image."""
    return images.sum(axis=(1, 2), dtype=np.float32)


class EngineRuntime:
    """TensorRT's Runtime."""

    def __init__(self, library: Library, logger: Any) -> None:
        self._library, self._logger = library, logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
        self._library.gpu.require("cudaMalloc")
        self._logger.log(trt.ILogger.Severity.VERBOSE, "Deserialization required 12 microseconds.")
        try:
            spec = json.loads(serialized_engine)
        except ValueError:
            self._logger.log(
                trt.ILogger.Severity.ERROR, "Error Code 1: Serialization\n (assertion magicTag failed.)"
            )
            return None
        return Engine(self._library, self._logger, spec)


class Engine:
    """TensorRT's ICudaEngine."""

    def __init__(self, library: Library, logger: Any, spec: dict[str, Any]) -> None:
        self._library, self._logger, self._spec = library, logger, spec
        self._tensors = {"images": "UINT8", **spec["outputs"]}
        library.gpu.born("engine")

    def __del__(self) -> None:
        self._library.gpu.died("engine")

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._spec["profiles"])

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return trt.TensorIOMode.INPUT if name == "images" else trt.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(trt.DataType, self._tensors[name])

    def get_tensor_shape(self, name: str) -> Any:
        side = self._spec["side"]
        return trt.Dims([self._spec["batch"], *((side, side, 3) if name == "images" else (3,))])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
        side = self._spec["side"]
        assert name == "images"
        return [trt.Dims([batch, side, side, 3]) for batch in self._spec["profiles"][profile_index]]

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig(self._library)

    def create_execution_context(self, how: Any) -> ExecutionContext | None:
        strategy = how._get() if isinstance(how, RuntimeConfig) else how
        assert strategy == trt.ExecutionContextAllocationStrategy.USER_MANAGED
        return ExecutionContext(self._library, self._logger, self, self._spec)

    def create_engine_inspector(self) -> Inspector:
        return Inspector(self._library)


class RuntimeCache:
    """TensorRT-RTX's IRuntimeCache."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._content = b""
        library.gpu.born("cache")

    def __del__(self) -> None:
        """The contexts that use it look at it for as long as they live."""
        if not self._library.gpu.alive.get("context"):
            self._library.gpu.died("cache")

    def deserialize(self, blob: bytes) -> bool:
        self._content = blob if blob.startswith(b"kernels") else b""
        return bool(self._content)

    def serialize(self) -> bytes | None:
        return None if self._library.gpu.lost else self._content or b"kernels of the fake GPU"


class RuntimeConfig:
    """TensorRT-RTX's IRuntimeConfig."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self.dynamic_shapes_kernel_specialization_strategy: Any = None
        self._strategy: Any = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self._strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache(self._library)

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        return isinstance(cache, RuntimeCache)

    def _get(self) -> Any:
        eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        assert self.dynamic_shapes_kernel_specialization_strategy == eager
        return self._strategy


class Inspector:
    """TensorRT's EngineInspector."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self.execution_context: Any = None

    def get_engine_information(self, format: Any) -> str:  # noqa: A002 - TensorRT's name
        assert format == trt.LayerInformationFormat.JSON
        assert isinstance(self.execution_context, ExecutionContext)
        return json.dumps(self._library.inspected)


class ExecutionContext:
    """TensorRT's IExecutionContext, with no memory of its own."""

    def __init__(self, library: Library, logger: Any, engine: Engine, spec: dict[str, Any]) -> None:
        self._library, self._logger, self._engine, self._spec = library, logger, engine, spec
        self._profile: int | None = None
        self._batch = 0
        self._addresses: dict[str, int] = {}
        self._scratch = (0, 0)
        self._runs = 0
        library.gpu.born("context")
        self._lent = library.gpu.lent[self] = set()

    def __del__(self) -> None:
        self._library.gpu.died("context")

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle in Stream.by_handle
        self._profile = profile_index
        self._library.profiles.append(profile_index)
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._spec["profiles"][self._profile or 0]
        assert name == "images"
        if not low <= shape[0] <= high or shape[1:] != (self._spec["side"], self._spec["side"], 3):
            self._logger.log(trt.ILogger.Severity.ERROR, "IExecutionContext::setInputShape: Error Code 3")
            return False
        self._batch = shape[0]
        return True

    def get_tensor_shape(self, name: str) -> Any:
        return trt.Dims([self._batch, *tuple(self._engine.get_tensor_shape(name))[1:]])

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        self._lent.add(memory)
        return True

    def update_device_memory_size_for_shapes(self) -> int:
        assert self._batch, "shapes first"
        return int(self._spec["scratch"]) * self._batch

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= self._spec["scratch"] * self._batch
        self._scratch = memory, size
        self._lent.add(memory)

    def execute_async_v3(self, stream_handle: int) -> bool:
        stream = Stream.by_handle[stream_handle]
        missing = {"images", *self._spec["outputs"]} - self._addresses.keys()
        if missing or self._library.gpu.lost or self._spec.get("refuses"):
            self._logger.log(
                trt.ILogger.Severity.ERROR, "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime"
            )
            return False
        if stream._capturing is not None and not self._runs:
            raise AssertionError("captured before its kernels were loaded")
        self._runs += 1
        stream._give(_Run(self._library.gpu, self._spec, self._batch, dict(self._addresses), self._scratch))
        return True


class _Run:
    """The kernels of one call: they hold addresses and no object, like a captured graph."""

    def __init__(
        self,
        gpu: FakeGpu,
        spec: dict[str, Any],
        batch: int,
        addresses: dict[str, int],
        scratch: tuple[int, int],
    ) -> None:
        self._gpu, self._spec, self._batch = gpu, spec, batch
        self._addresses, self._scratch = addresses, scratch

    def __call__(self) -> None:
        gpu, side = self._gpu, self._spec["side"]
        gpu.launches.append("kernels")
        gpu.now_ms += RUN_MS * self._batch
        if self._scratch[1]:
            gpu.at(self._scratch[0])[:] = 255
        images = gpu.at(self._addresses["images"]).reshape(self._batch, side, side, 3)
        for name, kind in self._spec["outputs"].items():
            answer = expected(images).astype(trt.nptype(getattr(trt.DataType, kind)))
            gpu.at(self._addresses[name])[:] = answer.reshape(-1).view(np.uint8)
