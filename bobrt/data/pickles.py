"""Reading a pickle as data: plain containers, numbers, text and numpy arrays, and nothing that runs.

A pickle is a program: it calls what it names. Here the few names of plain data mean functions of this
file, every other is refused before anything is called. Arrays are made from their bytes and not by
numpy's own `__setstate__`, which trusts its input.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bobrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

AGAIN = "fetch it again from its publisher"

_SINCE_PYTHON_3 = {"__builtin__": "builtins"}
"""What modules are called since; Python 3 writes the old names too, in protocols 0 to 2."""
_CORES = ("numpy.core", "numpy._core")
"""What numpy called a part of itself before version 2, and since."""
_KINDS = "biufcSU"
"""numpy's kinds of numbers and text: no objects, no records."""
_PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic)
_CONTAINERS = {dict, OrderedDict, list, tuple, set, frozenset}
_DEPTH = 100
"""How deep containers may lie in each other."""


def load(source: Path | bytes, encoding: str = "latin1") -> Any:  # noqa: ANN401 - whatever plain data it holds
    """Return what a pickle holds.

    Args:
        source: A file, or its content.
        encoding: Of text written by Python 2; `bytes` leaves that as bytes, keys of dictionaries too.

    Returns:
        Numbers, text, bytes, None, numpy arrays, and dictionaries, lists, tuples and sets of them.

    Raises:
        UsageError: It is missing, cut off or no pickle, or names anything else, which is named.

    """
    name = str(source) if isinstance(source, Path) else "the pickle"
    try:
        content = source.read_bytes() if isinstance(source, Path) else source
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}", AGAIN) from error
    try:
        return _settled(_Unpickler(io.BytesIO(content), encoding=encoding).load(), {})
    except _RefusedError as error:
        raise UsageError(
            f"{name} is refused: it holds {error}, and a pickle may hold plain data and numpy arrays only",
            f"nothing of it was run; {AGAIN}",
        ) from None
    except Exception as error:  # bytes that are no pickle can end in any
        said = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{name} is damaged, cut off or no pickle: {said}", AGAIN) from error


class _RefusedError(Exception):
    """Says what is no plain data."""


class _Unpickler(pickle._Unpickler):  # noqa: SLF001 - as below
    """The one in Python: that in C makes room for as many values as a damaged byte says there are."""

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Return what a name means here; raise if that is nothing."""
        try:
            return _KNOWN[_SINCE_PYTHON_3.get(module, module), name]
        except KeyError:
            raise _RefusedError(f"{module}.{name}") from None


class _Dtype:
    """What a pickle says of numbers: their kind, then their byte order."""

    __slots__ = ("_dtype",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, kind: str | bytes, *_: object) -> None:
        dtype = np.dtype(kind.decode("ascii") if isinstance(kind, bytes) else str(kind))
        if dtype.kind not in _KINDS:
            raise _RefusedError(f"an array of {dtype}")
        self._dtype = dtype

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._dtype = self._dtype.newbyteorder(">" if state[1] in {">", b">"} else "<")

    def settled(self) -> np.dtype[Any]:
        return self._dtype


class _Array:
    """What a pickle says of an array."""

    __slots__ = ("_array",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, *_: object) -> None:
        self._array: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_column, content = state
        self._array = _filled(content, dtype, shape, "F" if by_column else "C")

    def settled(self) -> np.ndarray:
        if self._array is None:
            raise ValueError("an array without content")
        return self._array


def _filled(
    content: str | bytes | bytearray, dtype: _Dtype, shape: tuple[int, ...], order: Literal["C", "F"]
) -> np.ndarray:
    # Python 2's bytes come as text.
    raw = content.encode("latin1") if isinstance(content, str) else content
    # A copy: what is made from bytes cannot be written to.
    return np.frombuffer(raw, dtype.settled()).reshape(shape, order=order).copy(order="K")


def _from_buffer(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str, *_: object) -> _Array:
    array = _Array()
    array._array = _filled(content, dtype, shape, "F" if order == "F" else "C")  # noqa: SLF001
    return array


def _scalar(dtype: _Dtype, content: str | bytes) -> Any:  # noqa: ANN401 - a number or a text of numpy
    return _filled(content, dtype, (), "C")[()]


def _encoded(text: str, encoding: str) -> bytes:
    """Return bytes that Python 3 wrote for Python 2, as text of one letter each."""
    if encoding not in {"latin1", "latin-1"}:
        raise ValueError(f"bytes in the encoding {encoding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "complex"): complex,
    ("builtins", "bytes"): _no_bytes,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encoded,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
}
for _core in _CORES:
    _KNOWN[f"{_core}.multiarray", "_reconstruct"] = _Array
    _KNOWN[f"{_core}.multiarray", "scalar"] = _scalar
    _KNOWN[f"{_core}.numeric", "_frombuffer"] = _from_buffer


def _settled(value: Any, done: dict[int, Any], depth: int = 0) -> Any:  # noqa: ANN401 - plain data of any kind
    """Return plain data with arrays in their places; what is shared stays shared.

    Args:
        value: What was unpickled.
        done: The containers that were met, by identity; None is one that is not done yet.
        depth: Containers around it.

    """
    if isinstance(value, _Array | _Dtype):
        return value.settled()
    if isinstance(value, _PLAIN):
        return value
    if type(value) not in _CONTAINERS:
        raise _RefusedError(f"a {type(value).__name__}")
    if id(value) in done:
        if done[id(value)] is None:
            raise _RefusedError(f"a {type(value).__name__} that holds itself")
        return done[id(value)]
    if depth == _DEPTH:
        raise _RefusedError(f"more than {_DEPTH} containers in each other")
    done[id(value)] = None
    if isinstance(value, dict):
        made: Any = {_settled(k, done, depth + 1): _settled(v, done, depth + 1) for k, v in value.items()}
    else:
        made = type(value)(_settled(part, done, depth + 1) for part in value)
    done[id(value)] = made
    return made
