"""One NVIDIA GPU for as long as a runner is open: its memory, one stream, its clock and CUDA graphs.

pycuda on the primary context, the one that TensorRT, ONNX Runtime and PyTorch share in a process;
CUDA graphs through cuda-bindings on the same stream. Importing this file touches no device.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias

from cuda.bindings import driver as cuda  # type: ignore[import-untyped]
from cuda.bindings import runtime
from pycuda import driver  # type: ignore[import-not-found]

from bobrt.errors import BobrtError, MachineError, one_line
from engines.runner import GpuFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from numpy.typing import DTypeLike, NDArray

    Held: TypeAlias = "Buffer | Graph | NDArray[Any]"

NS_PER_MS = 1e6


class Gpu(NamedTuple):
    """What CUDA says of a GPU without opening it."""

    name: str
    compute_capability: str
    """`"9.0"`."""
    cuda: str
    """The CUDA version that the driver speaks, `"13.2"`."""


def gpu_here() -> Gpu:
    """Return the GPU that CUDA calls device 0; `CUDA_VISIBLE_DEVICES` is honoured.

    Raises:
        MachineError: There is no driver that answers, or no GPU.

    """
    try:
        driver.init()
        device = driver.Device(0)
        version = driver.get_driver_version()
        major, minor = device.compute_capability()
        return Gpu(device.name(), f"{major}.{minor}", f"{version // 1000}.{version % 1000 // 10}")
    except driver.Error as error:
        raise MachineError(f"no GPU answers CUDA: {one_line(error)}", "bobrt doctor") from error


class Buffer:
    """Memory on the device.

    Args:
        nbytes: How much.

    """

    def __init__(self, nbytes: int) -> None:
        self._memory = driver.mem_alloc(nbytes)
        self.ptr = int(self._memory)
        """Its address on the device; 0 once it is free."""

    def free(self) -> None:
        """Give it back; a second time does nothing."""
        if self.ptr:
            self.ptr = 0
            self._memory.free()


class Graph:
    """Work that was captured from a stream and can be launched again in one call.

    Args:
        executable: CUDA's `cudaGraphExec_t`.
        stream: CUDA's `cudaStream_t`.

    """

    def __init__(self, executable: Any, stream: Any) -> None:  # noqa: ANN401 - handles of an untyped library
        self._executable = executable
        self._stream = stream

    def launch(self) -> None:
        """Do the work once more, after what the stream already has to do."""
        _told(runtime.cudaGraphLaunch(self._executable, self._stream))

    def free(self) -> None:
        """Give it back; a second time does nothing."""
        if self._executable is not None:
            runtime.cudaGraphExecDestroy(self._executable)
            self._executable = None


class Device:
    """CUDA's device 0, opened with `with`: nothing is touched before, and everything is given back after.

    All work goes to one stream. It may be given from another thread than the one that opened
    the device, inside `work()`.
    """

    def __init__(self) -> None:
        self._held: list[Held] = []
        self._stream: Any = None
        self._began: Any = None
        self._ended: Any = None

    def __enter__(self) -> Self:
        with GpuFailure(), ExitStack() as undo:
            driver.init()
            self._context = driver.Device(0).retain_primary_context()
            undo.callback(_let_go, self._context)
            self._context.push()
            undo.callback(self._forget)
            self._thread = get_ident()
            # Not CUDA's default stream, nor one that waits for it: others may use that.
            self._stream = driver.Stream(int(cuda.CUstream_flags.CU_STREAM_NON_BLOCKING))
            self._began, self._ended = driver.Event(), driver.Event()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A GPU that is gone fails here a second time; the first error is the one to tell.
        with suppress(*([BobrtError] if error else [])), GpuFailure():
            self._undo.close()

    @property
    def stream(self) -> int:
        """The handle of the stream, as TensorRT takes it."""
        return int(self._stream.handle)

    @contextmanager
    def work(self) -> Iterator[None]:
        """Work on the device, from any thread; an error of CUDA becomes one line.

        Raises:
            MemoryError: The device has no memory left; the text says `out of memory`.
            BobrtError: Any other error of CUDA: the device is gone, or a kernel failed.

        """
        with GpuFailure():
            if get_ident() == self._thread:
                yield
                return
            self._context.push()
            try:
                yield
            finally:
                self._context.pop()

    def buffer(self, nbytes: int) -> Buffer:
        """Return so much memory on the device."""
        buffer = Buffer(nbytes)
        self._held.append(buffer)
        return buffer

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array in page-locked host memory, which copies need not wait for.

        Nobody may look at it once it is free, or the device is left.
        """
        array: NDArray[Any] = driver.pagelocked_empty(shape, dtype)
        self._held.append(array)
        return array

    def free(self, *held: Held) -> None:
        """Give back buffers, pinned arrays and graphs before the device is left."""
        for one in held:
            self._held = [other for other in self._held if other is not one]
            if isinstance(one, Buffer | Graph):
                one.free()
            else:
                one.base.free()  # type: ignore[union-attr]  # pycuda's allocation

    def upload(self, buffer: Buffer, host: NDArray[Any]) -> None:
        """Copy a pinned array to the device, in the stream's turn."""
        driver.memcpy_htod_async(buffer.ptr, host, self._stream)

    def download(self, host: NDArray[Any], buffer: Buffer) -> None:
        """Copy from the device into a pinned array, in the stream's turn."""
        driver.memcpy_dtoh_async(host, buffer.ptr, self._stream)

    def start(self) -> None:
        """Note the time on the device, in the stream's turn."""
        self._began.record(self._stream)

    def stop(self) -> None:
        """Note the time on the device at the end of what is timed."""
        self._ended.record(self._stream)

    def sync(self) -> None:
        """Wait until the stream has nothing left to do."""
        self._stream.synchronize()

    def elapsed_ns(self) -> int:
        """Return the nanoseconds from `start` to `stop`, by the device's clock; after `sync`."""
        milliseconds: float = self._began.time_till(self._ended)
        return round(milliseconds * NS_PER_MS)

    def capture(self, work: Callable[[], None]) -> Graph:
        """Record what `work` gives to the stream, without doing it.

        Args:
            work: Gives all of it to this stream, allocates nothing, and was done once before, so
                that its kernels are loaded.

        Raises:
            RuntimeError: It cannot be captured; the text is the reason, and the stream is as before.

        """
        stream = runtime.cudaStream_t(self.stream)
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _told(runtime.cudaStreamBeginCapture(stream, mode))
        try:
            work()
        except BaseException:
            runtime.cudaGraphDestroy(runtime.cudaStreamEndCapture(stream)[1])
            runtime.cudaGetLastError()  # or the next call of anyone reports it
            raise
        graph = _told(runtime.cudaStreamEndCapture(stream))
        try:
            captured = Graph(_told(runtime.cudaGraphInstantiate(graph, 0)), stream)
        finally:
            runtime.cudaGraphDestroy(graph)
        self._held.append(captured)
        return captured

    def _forget(self) -> None:
        self.free(*reversed(self._held))
        # They go with their last reference, and must before their context does.
        self._stream = self._began = self._ended = None


def _let_go(context: Any) -> None:  # noqa: ANN401 - pycuda is untyped
    """Release the primary context, and leave the thread's stack of contexts as it was found.

    pycuda takes a released context for popped; CUDA never pops a primary one.
    """
    context.detach()
    cuda.cuCtxPopCurrent()


def _told(result: tuple[Any, ...]) -> Any:  # noqa: ANN401 - cuda-bindings is untyped
    """Return what a call of the CUDA runtime answers beside its code; raise if the code is an error."""
    code, *answer = result
    if code != runtime.cudaError_t.cudaSuccess:
        runtime.cudaGetLastError()  # or the next call of anyone reports it
        raise RuntimeError(f"CUDA error: {runtime.cudaGetErrorString(code)[1].decode()}")
    return answer[0] if answer else None
