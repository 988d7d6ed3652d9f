"""A GPU that is none: its memory is the host's, its stream a queue, its clock the work it was given.

It stands behind the names of pycuda and of cuda-bindings' runtime and has no others: a test proves
that the real libraries have them all. Work is done when it is waited for, so an answer read too early
is wrong; an address that was freed, a call in a thread without a context and an object that outlives
its context are errors, as on a GPU.
"""

from __future__ import annotations

import gc
import sys
import threading
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np
from cuda.bindings import driver, runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Work = Callable[[], None]

COPY_MS = 0.25


class FakeGpu:
    """What the doubles share: one device with its memory, its clock, and what is alive on it."""

    def __init__(self, memory: int = 1 << 20) -> None:
        self.memory = memory
        self.name, self.capability, self.cuda = "NVIDIA Pretend 9000", (9, 0), 13020
        self.touched = self.lost = self.captures_fail = False
        self.retained = 0
        self.alive: dict[str, int] = {}
        self.held: dict[int, NDArray[np.uint8]] = {}
        self.lent: WeakKeyDictionary[object, set[int]] = WeakKeyDictionary()
        """Addresses that something alive may still look at."""
        self.peak = 0
        self.now_ms = 0.0
        self.launches: list[str] = []
        self.last_error = 0
        self._stacks = threading.local()

    @property
    def stack(self) -> list[str]:
        """CUDA's own stack of contexts of this thread."""
        if not hasattr(self._stacks, "cuda"):
            self._stacks.cuda = []
        return self._stacks.cuda  # type: ignore[no-any-return]

    @property
    def entered(self) -> list[Context]:
        """pycuda's stack of contexts of this thread."""
        if not hasattr(self._stacks, "pycuda"):
            self._stacks.pycuda = []
        return self._stacks.pycuda  # type: ignore[no-any-return]

    def used(self) -> int:
        return sum(block.nbytes for block in self.held.values())

    def left(self) -> dict[str, int]:
        """What is still there: nothing, once everything was given back."""
        gc.collect()
        kept = {name: count for name, count in self.alive.items() if count}
        return kept | {k: v for k, v in (("bytes", self.used()), ("retained", self.retained)) if v}

    def born(self, kind: str) -> None:
        self.require(kind)
        self.alive[kind] = self.alive.get(kind, 0) + 1

    def died(self, kind: str) -> None:
        """What dies without its context is never given back."""
        if self.stack and self.retained:
            self.alive[kind] -= 1

    def require(self, call: str) -> None:
        if self.lost:
            raise Driver.LogicError(f"{call} failed: GPU is lost")
        if not self.stack:
            raise Driver.LogicError(f"{call} failed: invalid device context")

    def allocate(self, nbytes: int) -> int:
        self.require("cuMemAlloc")
        if self.used() + nbytes > self.memory:
            raise Driver.MemoryError("cuMemAlloc failed: out of memory")
        block = np.zeros(nbytes, np.uint8)
        address = block.ctypes.data
        self.held[address] = block
        self.peak = max(self.peak, self.used())
        return address

    def at(self, address: int) -> NDArray[np.uint8]:
        if address not in self.held:
            raise AssertionError(f"{address} is no memory of the device")
        return self.held[address]


class Driver(ModuleType):
    """`pycuda.driver`, as far as `engines.cuda` uses it."""

    class Error(Exception):
        pass

    class MemoryError(Error):  # noqa: A001 - not Python's, as in pycuda
        pass

    class LogicError(Error):
        pass

    def __init__(self, gpu: FakeGpu) -> None:
        super().__init__("pycuda.driver")
        self._gpu = gpu

    def init(self) -> None:
        self._gpu.touched = True
        if self._gpu.lost:
            raise self.LogicError("cuInit failed: no CUDA-capable device is detected")

    def get_driver_version(self) -> int:
        return self._gpu.cuda

    def Device(self, ordinal: int) -> Device:  # noqa: N802 - pycuda's name
        assert ordinal == 0
        return Device(self._gpu)

    def Stream(self, flags: int = 0) -> Stream:  # noqa: N802
        assert flags == 1, "a blocking stream waits for the default one"
        return Stream(self._gpu)

    def Event(self) -> Event:  # noqa: N802
        return Event(self._gpu)

    def mem_alloc(self, nbytes: int) -> DeviceAllocation:
        assert nbytes > 0, "cuMemAlloc takes no 0"
        return DeviceAllocation(self._gpu, self._gpu.allocate(nbytes))

    def pagelocked_empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        memory = PagelockedHostAllocation(self._gpu, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        return np.ndarray(shape, dtype, buffer=memory)

    def memcpy_htod_async(self, dest: int, src: NDArray[Any], stream: Stream) -> None:
        self._gpu.require("cuMemcpyHtoDAsync")
        stream._give(lambda: self._copy(self._gpu.at(dest), src.reshape(-1).view(np.uint8)))

    def memcpy_dtoh_async(self, dest: NDArray[Any], src: int, stream: Stream) -> None:
        self._gpu.require("cuMemcpyDtoHAsync")
        stream._give(lambda: self._copy(dest.reshape(-1).view(np.uint8), self._gpu.at(src)))

    def _copy(self, dest: NDArray[np.uint8], source: NDArray[np.uint8]) -> None:
        self._gpu.now_ms += COPY_MS
        dest[: len(source)] = source[: len(dest)]


class Device:
    """A device of pycuda."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu

    def name(self) -> str:
        return self._gpu.name

    def compute_capability(self) -> tuple[int, int]:
        return self._gpu.capability

    def retain_primary_context(self) -> Context:
        self._gpu.retained += 1
        return Context(self._gpu)


class Context:
    """A primary context of pycuda.

    pycuda keeps a stack of its own and only its top on CUDA's; `detach` releases the context, which
    pycuda takes for popped, and CUDA does not.
    """

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self._valid = True

    def push(self) -> None:
        if self._gpu.entered:
            self._gpu.stack.pop()
        self._gpu.stack.append("primary")
        self._gpu.entered.append(self)

    def pop(self) -> None:
        self._gpu.stack.pop()
        self._gpu.entered.pop()
        if self._gpu.entered:
            self._gpu.stack.append("primary")

    def detach(self) -> None:
        assert self._valid, "cannot detach from invalid context"
        active = self._gpu.entered[-1:] == [self]
        if not active:
            self._gpu.stack.append("primary")
        self._gpu.retained -= 1
        self._valid = False
        while active and self._gpu.entered:
            if self._gpu.entered[-1]._valid:
                self._gpu.stack.append("primary")
                break
            self._gpu.entered.pop()


class Stream:
    """A stream of pycuda."""

    by_handle: WeakValueDictionary[int, Stream] = WeakValueDictionary()

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self._queue: list[Work] = []
        self._capturing: list[Work] | None = None
        self.handle = id(self) & 0xFFFFFFFF
        Stream.by_handle[self.handle] = self
        gpu.born("stream")

    def _give(self, work: Work) -> None:
        (self._queue if self._capturing is None else self._capturing).append(work)

    def synchronize(self) -> None:
        self._gpu.require("cuStreamSynchronize")
        for work in self._queue:
            work()
        self._queue = []

    def __del__(self) -> None:
        self._gpu.died("stream")


class Event:
    """An event of pycuda."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self._at_ms = float("nan")
        gpu.born("event")

    def record(self, stream: Stream) -> None:
        self._gpu.require("cuEventRecord")
        stream._give(self._note)

    def _note(self) -> None:
        self._at_ms = self._gpu.now_ms

    def time_till(self, end: Event) -> float:
        self._gpu.require("cuEventElapsedTime")
        return end._at_ms - self._at_ms

    def __del__(self) -> None:
        self._gpu.died("event")


class DeviceAllocation:
    """Device memory of pycuda."""

    def __init__(self, gpu: FakeGpu, address: int) -> None:
        self._gpu, self._address = gpu, address

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        lent = any(self._address in addresses for addresses in self._gpu.lent.values())
        assert not lent, f"{self._address} is freed under a context that holds it"
        if self._gpu.stack and not self._gpu.lost:  # else pycuda warns, and it is lost
            del self._gpu.held[self._address]


class PagelockedHostAllocation(bytearray):
    """Page-locked memory of pycuda."""

    def __init__(self, gpu: FakeGpu, nbytes: int) -> None:
        super().__init__(nbytes)
        self._gpu = gpu
        self._valid = True
        gpu.born("pinned")

    def free(self) -> None:
        if not self._valid:
            raise Driver.LogicError("pagelocked_host_allocation::free failed: invalid resource handle")
        self._valid = False
        self._gpu.died("pinned")


class Runtime:
    """The calls of `cuda.bindings.runtime` that need a GPU; its types and constants are the real ones."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self._graphs: dict[int, list[Work]] = {}

    def _code(self, failed: bool) -> Any:
        self._gpu.last_error = int(failed)
        kinds = runtime.cudaError_t
        return kinds.cudaErrorStreamCaptureInvalidated if failed else kinds.cudaSuccess

    def cudaGetLastError(self) -> tuple[Any]:  # noqa: N802
        self._gpu.last_error = 0
        return (runtime.cudaError_t.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> tuple[Any]:  # noqa: N802
        assert mode == runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        Stream.by_handle[int(stream)]._capturing = []
        return (runtime.cudaError_t.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: Any) -> tuple[Any, Any]:  # noqa: N802
        its = Stream.by_handle[int(stream)]
        captured, its._capturing = its._capturing, None
        if self._gpu.captures_fail or self._gpu.lost or captured is None:
            return self._code(True), runtime.cudaGraph_t(0)
        key = len(self._graphs) + 1
        self._graphs[key] = captured
        self._gpu.born("graph")
        return self._code(False), runtime.cudaGraph_t(key)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, Any]:  # noqa: N802
        assert flags == 0
        self._gpu.born("executable")
        return self._code(False), runtime.cudaGraphExec_t(int(graph))

    def cudaGraphDestroy(self, graph: Any) -> tuple[Any]:  # noqa: N802
        if int(graph):
            self._gpu.died("graph")
        return (self._code(not int(graph)),)

    def cudaGraphExecDestroy(self, executable: Any) -> tuple[Any]:  # noqa: N802
        assert int(executable)
        self._gpu.died("executable")
        return (self._code(False),)

    def cudaGraphLaunch(self, executable: Any, stream: Any) -> tuple[Any]:  # noqa: N802
        its = Stream.by_handle[int(stream)]
        its._give(lambda: self._gpu.launches.append("graph"))
        for work in self._graphs[int(executable)]:
            its._give(work)
        return (self._code(False),)


@contextmanager
def installed(gpu: FakeGpu, *libraries: ModuleType) -> Iterator[None]:
    """Put the doubles in the libraries' places, and forget afterwards what was imported on them."""
    package, ours = ModuleType("pycuda"), ("engines.cuda", "engines.trt_slot", "engines.trt_run")
    package.driver = Driver(gpu)  # type: ignore[attr-defined]
    modules = {
        "pycuda": package,
        "pycuda.driver": package.driver,
        **{each.__name__: each for each in libraries},
    }
    before = {name: sys.modules.pop(name, None) for name in (*modules, *ours)}
    sys.modules.update(modules)
    calls = Runtime(gpu)
    with ExitStack() as undo:
        for name in (name for name in dir(calls) if name.startswith("cuda")):
            undo.enter_context(patch.object(runtime, name, getattr(calls, name)))
        undo.enter_context(patch.object(driver, "cuCtxPopCurrent", gpu.stack.pop))
        try:
            yield
        finally:
            for name, module in before.items():
                sys.modules.pop(name, None)
                if module is not None:
                    sys.modules[name] = module
