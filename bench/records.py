"""Read records, one or a hundred thousand of them: what was edited or damaged is found out, every time.

Of many records another process looks at the seals, this one meanwhile decodes what was found sound.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec
from msgspec.structs import force_setattr

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
_LENGTH = 4
"""Bytes of a record's length on the pipe."""
_COMMAND = "from bench.records import main; main()"


class _Version(Record, frozen=True, kw_only=True):
    schema: int


_DECODER = msgspec.json.Decoder(Result)


def read(path: Path | str, content: bytes | None = None) -> Result:
    """Return one record, whatever became of its raw times.

    Args:
        path: Where it is.
        content: Its JSON, where that is known to be what its seal was put on.

    Raises:
        UsageError: It cannot be read, was edited, is damaged or too new; the message names the file.

    """
    try:
        content = content or sealed(_bytes_of(path))
        result = _DECODER.decode(content) if content else None
    except (OSError, UnicodeDecodeError, msgspec.DecodeError):
        result = None
    return result if result is not None and result.schema == SCHEMA else _closely(path)


def read_many(paths: Iterable[str]) -> Iterator[tuple[str, Result | UsageError]]:
    """Yield each path with its record, or why it cannot be used."""
    before = None
    for path, content in _contents(iter(paths)):
        try:
            before = _sharing(read(path, content), before)
            yield path, before
        except UsageError as error:
            yield path, error


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the garbage collector from walking over every record so far, again and again, now and later.

    Records hold no cycles: nothing of them could be left for it.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if on:
            gc.enable()


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


def _contents(paths: Iterator[str]) -> Iterator[tuple[str, bytes | None]]:
    """Yield each path, and what another process found sound there; None where nobody looked, or it is not."""
    first, rest = list(islice(paths, MANY)), list(paths)
    if not rest:
        yield from ((path, None) for path in first)
        return
    with tempfile.TemporaryFile() as listed:
        listed.write(b"\0".join(os.fsencode(path) for path in rest))
        listed.seek(0)
        with subprocess.Popen(  # noqa: S603 - our own interpreter and command
            [sys.executable, "-P", "-c", _COMMAND],
            bufsize=BLOCK,
            stdin=listed,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as other:
            pipe = cast("IO[bytes]", other.stdout)
            yield from ((path, None) for path in first)
            yield from ((path, _received(pipe)) for path in rest)


def _received(pipe: IO[bytes]) -> bytes | None:
    """Return the next record of another process; None if it was not sound, or that process is no more."""
    size = int.from_bytes(pipe.read(_LENGTH), "little")
    content = pipe.read(size)
    return content if content and len(content) == size else None


def main() -> None:
    """Write each sound record of the paths on stdin to stdout, its length before it; 0 for any other."""
    with open(sys.stdout.fileno(), "wb", buffering=BLOCK) as out:  # noqa: PTH123 - a descriptor has no path
        for path in sys.stdin.buffer.read().split(b"\0"):
            try:
                content = sealed(_bytes_of(path)) or b""
            except (OSError, msgspec.DecodeError):
                content = b""
            out.write(len(content).to_bytes(_LENGTH, "little"))
            out.write(content)


def _bytes_of(path: Path | str | bytes) -> bytes:
    """Return the bytes of a file, by the system's own calls: there may be a hundred thousand small ones."""
    handle = os.open(path, os.O_RDONLY)
    try:
        parts = [os.read(handle, BLOCK)]
        while len(parts[-1]) == BLOCK:
            parts.append(os.read(handle, BLOCK))
        return b"".join(parts)
    finally:
        os.close(handle)
