"""What every runtime answers to: opened with `with`, fed numpy, answering numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np

from bobrt.errors import BobrtError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from numpy.typing import NDArray

IMAGES = "images"
"""The one input of every graph bobrt ships: `uint8 [batch, height, width, 3]`."""


class TensorMeta(NamedTuple):
    """Type and shape of an input; a free dimension is None."""

    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        """Return the type and shape as in an error message."""
        return f"{self.dtype} [{', '.join('?' if side is None else str(side) for side in self.shape)}]"


class Runner(Protocol):
    """An engine that can be asked. The device is untouched until it is entered."""

    def __enter__(self) -> Self:
        """Load the engine."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free what was loaded."""
        ...

    def inputs(self) -> Mapping[str, TensorMeta]:
        """Return the inputs by name."""
        ...

    def infer(self, feeds: Mapping[str, NDArray[np.uint8]]) -> Mapping[str, NDArray[np.float32]]:
        """Return the outputs by name for one batch."""
        ...


@runtime_checkable
class DeviceClock(Protocol):
    """What a runner has too, if its device can tell how long it computed."""

    def device_ns(self) -> int:
        """Return the nanoseconds of the last `infer` from its first kernel to its last, without copies."""
        ...


def out_of_memory(error: BaseException) -> bool:
    """Tell an allocator's complaint from other errors: torch, ONNX Runtime and C++ each have their own."""
    words = ("can't allocate memory", "bad_alloc", "Failed to allocate memory", "out of memory")
    return isinstance(error, MemoryError) or any(phrase in str(error) for phrase in words)


def require_images(inputs: Mapping[str, TensorMeta], path: object) -> TensorMeta:
    """Return the meta of `images`; raise if the file takes anything else.

    Raises:
        BobrtError: Names the inputs the file has.

    """
    meta = inputs.get(IMAGES)
    if len(inputs) == 1 and meta and meta.dtype == "uint8" and len(meta.shape) == 4 and meta.shape[3] == 3:  # noqa: PLR2004
        height, width = meta.shape[1:3]
        if height is not None and height == width:
            return meta
    had = ", ".join(f"{name} {meta}" for name, meta in inputs.items())
    raise BobrtError(
        f"{path} takes {had}; a bobrt engine takes {IMAGES} uint8 [batch, side, side, 3]",
        "export it with: bobrt export NAME --weights PATH",
    )


def answers(runner: Runner, images: NDArray[np.uint8], batch: int) -> dict[str, NDArray[np.float32]]:
    """Return every output for every image.

    Args:
        runner: An entered runner.
        images: `uint8 [n, side, side, 3]`.
        batch: Images at a time, where the engine leaves it open; an engine with a batch of
            its own is fed that, the last batch filled up with copies that are cut off again.

    """
    fixed = runner.inputs()[IMAGES].shape[0]
    step = fixed or batch
    parts: list[Mapping[str, NDArray[np.float32]]] = []
    for start in range(0, len(images), step):
        rows = images[start : start + step]
        missing = step - len(rows) if fixed else 0
        if missing:
            rows = np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])
        outputs = runner.infer({IMAGES: rows})
        # A runner may answer in buffers it will use again.
        parts.append({name: value[: len(rows) - missing].copy() for name, value in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
