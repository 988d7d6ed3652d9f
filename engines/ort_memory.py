"""Device memory by ONNX Runtime's own means, where `engines.cuda` cannot be: no pycuda is installed.

Answers what `engines.cuda.Device` does, as far as a runner of ONNX Runtime asks it, but has no
clock and no stream of its own to share: copies wait, and a row on it is timed by the wall clock.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import onnxruntime as ort

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from numpy.typing import DTypeLike, NDArray


class Buffer:
    """Memory on the device, held by ONNX Runtime.

    Args:
        nbytes: How much.
        kind: The device's word: `cuda` or `cpu`.

    """

    def __init__(self, nbytes: int, kind: str) -> None:
        self.value = ort.OrtValue.ortvalue_from_shape_and_type([nbytes], np.uint8, kind, 0)
        self.ptr: int = self.value.data_ptr()


class OrtMemory:
    """The device as ONNX Runtime's allocator sees it.

    Args:
        kind: The device's word: `cuda`, or `cpu` for the same road without a GPU.

    """

    stream: int | None = None
    """ONNX Runtime makes its own."""

    def __init__(self, kind: str = "cuda") -> None:
        self._kind = kind

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hold nothing: a buffer goes with its last reference."""

    @contextmanager
    def work(self) -> Iterator[None]:
        """Need nothing: ONNX Runtime knows its device from any thread."""
        yield

    def buffer(self, nbytes: int) -> Buffer:
        """Return so much memory on the device."""
        return Buffer(nbytes, self._kind)

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array; its pages are not locked."""
        return np.empty(shape, dtype)

    def upload(self, buffer: Buffer, host: NDArray[Any]) -> None:
        """Copy to the device, and wait."""
        buffer.value.update_inplace(host.reshape(-1).view(np.uint8))

    def download(self, host: NDArray[Any], buffer: Buffer) -> None:
        """Copy from the device, and wait."""
        np.copyto(host, buffer.value.numpy().view(host.dtype).reshape(host.shape))

    def start(self) -> None:
        """Note nothing: there is no clock."""

    def stop(self) -> None:
        """Note nothing."""

    def sync(self) -> None:
        """Wait for nothing: every step has waited."""
