"""What every runtime answers to: opened with `with`, fed numpy, answering numpy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np

from bobrt.errors import BobrtError, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from numpy.typing import NDArray

IMAGES = "images"
"""The one input of every graph bobrt ships: `uint8 [batch, height, width, 3]`."""


NUMBERS = frozenset({"float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"})
"""What an engine may answer: numpy has no 16-bit float of the other kind, and none of eight bits."""


class TensorMeta(NamedTuple):
    """Type and shape of an input or output; a free dimension is None."""

    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        """Return the type and shape as in an error message."""
        return f"{self.dtype} [{', '.join('?' if side is None else str(side) for side in self.shape)}]"


class Runner(Protocol):
    """An engine that can be asked. The device is untouched until it is entered.

    Its class is called with a path, a number of threads, a `Precision` and a `Batch`. The last two are
    what a cell asks for; a runner whose file says both itself takes them as `*_`.
    """

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
    """What a runner has too, if its device can tell how long it computed.

    One that has it on some machines only says `device_ns = None` in its class.
    """

    def device_ns(self) -> int:
        """Return the nanoseconds of the last `infer` from its first kernel to its last, without copies."""
        ...


@runtime_checkable
class Bounded(Protocol):
    """What a runner has too, if its engine was built for so many images at once and no more."""

    def largest_batch(self) -> int:
        """Return the most images it takes in one batch."""
        ...


@runtime_checkable
class Noted(Protocol):
    """What a runner has too, if something about its timings has to be told."""

    def notes(self) -> list[str]:
        """Return what was asked for and could not be done, or is done once only, a line each."""
        ...


@runtime_checkable
class ReadBack(Protocol):
    """What a runner has too, if its library tells which precision it really computes in."""

    def realised(self) -> dict[str, float] | None:
        """Return the fraction of the engine's multiply-adds at each precision, or None if it is not told."""
        ...


def out_of_memory(error: BaseException) -> bool:
    """Tell an allocator's complaint from other errors: torch, ONNX Runtime, CUDA and C++ have their own."""
    words = (
        "can't allocate memory",
        "bad_alloc",
        "Failed to allocate memory",
        "out of memory",
        "ALLOC_FAILED",
    )
    return isinstance(error, MemoryError) or any(phrase in str(error) for phrase in words)


class GpuFailure:
    """A `with` block in which a GPU that fails is one line, whichever library was the one to notice.

    Want of memory is no failure of the GPU and passes as it is: the climb over the batches ends there.

    Raises:
        BobrtError: The line, with what the library said.

    """

    _WORDS = re.compile(
        r"CUDA (?:driver )?error|(?:CUDA|CUDNN|CUBLAS) failure|cuDNN error"
        r"|Triton Error \[CUDA\]|\bcu[A-Z]\w+ failed"
    )

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Turn the error, if it is one of the GPU, into a `BobrtError`."""
        if not isinstance(error, Exception) or isinstance(error, BobrtError) or out_of_memory(error):
            return
        if self._WORDS.search(str(error)):
            raise BobrtError(
                f"the GPU failed: {one_line(error)}",
                "nvidia-smi shows whether it is there, dmesg why it is not",
            ) from error


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
        f"{path} takes {had}; a bobrt engine takes {IMAGES} uint8 [batch, side, side, 3]", _how(meta)
    )


def _how(meta: TensorMeta | None) -> str:
    """Return what would make a file one that takes images, where it is nearly one."""
    if meta and len(meta.shape) == 4 and meta.shape[3] == 3 and None in meta.shape[1:3]:  # noqa: PLR2004
        fix = f"python -m onnxruntime.tools.make_dynamic_shape_fixed --input_name {IMAGES}"
        return f"fix its height and width: {fix} --input_shape 1,224,224,3 IN.onnx OUT.onnx"
    if meta and len(meta.shape) == 3 and meta.shape[2] == 3:  # noqa: PLR2004
        return "it takes one image and no batch: export it again with a batch axis in front"
    return "export it with: bobrt export NAME --weights PATH"


def require_answers(outputs: Mapping[str, TensorMeta], batch: int | None, path: object) -> None:
    """Raise if a file answers what is no row of numbers for each image.

    Args:
        outputs: Those of the file, by name; of a shape nobody knows nothing is asked.
        batch: Images it takes at once; None where that is free.
        path: The file, for the message.

    Raises:
        BobrtError: Names the output, its type and its shape.

    """
    for name, meta in outputs.items():
        rows = meta.shape[0] if meta.shape else None
        if meta.dtype not in NUMBERS or rows not in {None, batch}:
            raise BobrtError(
                f"{path} answers {name} {meta}; a bobrt engine answers numbers, a row for each image",
                "end its graph in a Cast to float32 with the batch axis in front, or: bobrt export NAME",
            )


def answers(runner: Runner, images: NDArray[np.uint8], batch: int) -> dict[str, NDArray[np.float32]]:
    """Return every output for every image.

    Every call asks for a whole batch, the last one filled up with copies that are cut off again: a
    shape an engine has not seen costs it a compilation, a captured graph or new buffers.

    Args:
        runner: An entered runner.
        images: `uint8 [n, side, side, 3]`.
        batch: Images at a time, where the engine has no batch of its own.

    Raises:
        BobrtError: It does not answer a row for each image.

    """
    step = runner.inputs()[IMAGES].shape[0] or batch
    parts: list[Mapping[str, NDArray[np.float32]]] = []
    for start in range(0, len(images), step):
        rows = images[start : start + step]
        asked = len(rows)
        if asked < step:
            rows = np.concatenate([rows, np.repeat(rows[-1:], step - asked, axis=0)])
        outputs = runner.infer({IMAGES: rows})
        if odd := [name for name, value in outputs.items() if value.shape[:1] != (step,)]:
            had = f"{odd[0]} {list(outputs[odd[0]].shape)}"
            raise BobrtError(
                f"the engine answers {had} for {step} images, not a row for each",
                "export it again, with the batch axis in front of every output",
            )
        # A runner may answer in buffers it will use again.
        parts.append({name: value[:asked].copy() for name, value in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
