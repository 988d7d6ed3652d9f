"""Read records, one or a hundred thousand of them: what was edited or damaged is found out, every time.

Of many records another process looks at the seals, while this one decodes them.
"""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import force_setattr

from bobrt import garbage
from bobrt.errors import UsageError
from bobrt.result import SCHEMA, Result
from bobrt.spec import Record, seal_of, sealed
from bobrt.strict import parse_json, read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import IO

MANY = 5000
"""Records that are read before another process would be ready to help."""
BLOCK = 1 << 18
"""Bytes read at once."""
TOLD = 1 << 12
"""Bytes that another process tells at once: this one waits for no more than some hundred records."""
_COMMAND = "from bench.records import main; main()"


class _Version(Record, frozen=True, kw_only=True):
    schema: int


_DECODER = msgspec.json.Decoder(Result)


class _File(NamedTuple):
    """A file's content, and which state of the file it is."""

    content: bytes
    state: bytes


_UNSOUND = bytes(16)
"""In place of a state."""


def read(path: Path | str, sound: bytes = _UNSOUND) -> Result:
    """Return one record, whatever became of its raw times.

    Args:
        path: Where it is.
        sound: The state of the file in which another process has found its seal to be right.

    Raises:
        UsageError: It cannot be read, was edited, is damaged or too new; the message names the file.

    """
    try:
        file = _read(path)
        content = file.content if file.state == sound else sealed(file.content)
        result = _DECODER.decode(content) if content else None
    except (OSError, UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        result = None
    return result if result is not None and result.schema == SCHEMA else _closely(path)


def read_many(paths: Iterable[str]) -> Iterator[tuple[str, Result | UsageError]]:
    """Yield each path with its record, or why it cannot be used."""
    before = None
    for path, sound in _looked_at(iter(paths)):
        try:
            before = _sharing(read(path, sound), before)
            yield path, before
        except UsageError as error:
            yield path, error


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector from walking over every record so far, again and again, now and later.

    Records hold no cycles: nothing of them could be left for it.
    """
    with garbage.uncollected():
        try:
            yield
        finally:
            gc.freeze()


def leave(results: list[Result]) -> None:
    """Leave records to the system, which takes a process's memory back at once when it ends.

    Python would free each of their objects first: a tenth of the time that a listing of very many takes.
    """
    if len(results) > MANY:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(results))


def _closely(path: Path | str) -> Result:
    """Return a record that is not as bobrt writes it, or say what is wrong with it."""
    name = f"result {path}"
    text = read_text(Path(path), "result")
    schema = parse_json(text, _Version, name).schema
    if schema != SCHEMA:
        raise UsageError(f"{name} has schema {schema}; this bobrt reads {SCHEMA}", "install a newer bobrt")
    result = parse_json(text, Result, name)
    if seal_of(text) != result.seal:
        raise UsageError(f"{name} was edited: it is not what its seal was put on", "bench the cell again")
    return result


def _sharing(result: Result, before: Result | None) -> Result:
    """Return a record that nobody has seen yet, with what is the same in the one before it kept once.

    Most records of a folder are of one machine and one plan.
    """
    for name in ("system", "timing") if before else ():
        if getattr(result, name) == (same := getattr(before, name)):
            force_setattr(result, name, same)
    return result


def _looked_at(paths: Iterator[str]) -> Iterator[tuple[str, bytes]]:
    """Yield each path with the state in which another process found it sound, if one looked and it was."""
    first, rest = list(islice(paths, MANY)), list(paths)
    with _looking(rest) as told:
        yield from ((path, _UNSOUND) for path in first)
        yield from ((path, told.read(len(_UNSOUND)) if told else _UNSOUND) for path in rest)


@contextmanager
def _looking(paths: list[str]) -> Iterator[IO[bytes] | None]:
    """Have another process look at some records, and return what it tells; None where there is none."""
    if not paths:
        yield None
        return
    with tempfile.TemporaryFile() as listed:
        listed.write(b"\0".join(os.fsencode(path) for path in paths))
        listed.seek(0)
        try:
            other = subprocess.Popen(  # noqa: S603 - our own interpreter and command
                [sys.executable, "-P", "-c", _COMMAND],
                stdin=listed,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError:  # no more processes, or no memory for one
            yield None
            return
        with other:
            yield other.stdout


def main() -> None:
    """Write the state of each sound record of the paths on stdin to stdout; zeros for any other."""
    with open(sys.stdout.fileno(), "wb", buffering=TOLD) as out:  # noqa: PTH123 - a descriptor has no path
        for path in sys.stdin.buffer.read().split(b"\0"):
            try:
                file = _read(path)
                out.write(file.state if sealed(file.content) else _UNSOUND)
            except (OSError, msgspec.DecodeError):
                out.write(_UNSOUND)


def _read(path: Path | str | bytes) -> _File:
    """Return a file, by the system's own calls: there may be a hundred thousand small ones."""
    handle = os.open(path, os.O_RDONLY)
    try:
        status = os.fstat(handle)
        parts = [os.read(handle, BLOCK)]
        while len(parts[-1]) == BLOCK:
            parts.append(os.read(handle, BLOCK))
        state = status.st_mtime_ns.to_bytes(8, "little", signed=True) + status.st_size.to_bytes(8, "little")
        return _File(b"".join(parts), state)
    finally:
        os.close(handle)
