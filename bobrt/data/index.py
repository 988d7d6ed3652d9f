"""What was learned of a folder's images, so that each is read once: its hash, its size, what is wrong."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from PIL import __version__ as pillow

from bobrt.data.images import ImageError, decode
from bobrt.errors import MachineError
from bobrt.paths import sha256_of, write_atomic
from bobrt.spec import digest
from bobrt.system import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SCHEMA = 1
CHUNK = 1000
"""Files that are under way at once."""
SAVE_S = 60
"""Seconds of work that a power cut may cost."""


class Known(msgspec.Struct, frozen=True, array_like=True):
    """What is known of one file."""

    bytes: int
    mtime_ns: int
    sha256: str
    """Empty if it cannot be opened."""
    width: int
    height: int
    problem: str
    """A `Problem` of `bobrt.data.images`, or empty."""
    detail: str
    """The line that explains it."""


class _Index(msgspec.Struct, frozen=True):
    schema: int
    pillow: str
    """Another version may read more, or less."""
    files: dict[str, Known]


class Learned(NamedTuple):
    """What is known of every file, and what happened to the index."""

    files: dict[str, Known]
    notes: list[str]


def learn(
    root: Path,
    names: Sequence[str],
    cache: Path | None = None,
    report: Callable[[int, int], None] = lambda _done, _all: None,
) -> Learned:
    """Return what is known of each image, having read those that are new or changed.

    Args:
        root: The folder.
        names: Of the images, from there.
        cache: The folder in which the index is kept; without one there is none. An index that is damaged is
            made anew; one that cannot be written costs nobody what was learned.
        report: Called now and then with how many images are done, of how many.

    """
    path = cache / f"{digest(str(root.resolve()))}.json" if cache else None
    before, notes = _read(path)
    found: dict[str, Known] = {}
    saved = time.monotonic()
    try:
        with ThreadPoolExecutor(cores(), "bobrt-index") as pool:
            for first in range(0, len(names), CHUNK):
                chunk = names[first : first + CHUNK]
                looked = pool.map(partial(_look, root, before), chunk)
                found.update(zip(chunk, looked, strict=True))
                report(len(found), len(names))
                if time.monotonic() > saved + SAVE_S:
                    _write(path, {**before, **found})
                    saved = time.monotonic()
    finally:
        # Interrupted, what is known of the rest stays known.
        whole = found if len(found) == len(names) else {**before, **found}
        if whole != before:
            notes += _write(path, whole)
    return Learned(found, notes)


def _look(root: Path, before: dict[str, Known], name: str) -> Known:
    path = root / name
    try:
        status = path.stat()
        known = before.get(name)
        if known and (known.bytes, known.mtime_ns) == (status.st_size, status.st_mtime_ns):
            return known
        sha256 = sha256_of(path)
    except OSError as error:
        return Known(0, 0, "", 0, 0, "unreadable", f"cannot open the image {path}: {error.strerror}")
    try:
        height, width, _ = decode(path).shape
    except ImageError as error:
        return Known(status.st_size, status.st_mtime_ns, sha256, 0, 0, error.problem, error.message)
    return Known(status.st_size, status.st_mtime_ns, sha256, width, height, "", "")


def _read(path: Path | None) -> tuple[dict[str, Known], list[str]]:
    """Return what an index holds, and a note if it was there and could not be read."""
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=_Index) if path else None
    except FileNotFoundError:
        return {}, []
    except (OSError, msgspec.MsgspecError, RecursionError) as error:
        return {}, [f"the index {path} was damaged and is made anew: {error}"]
    usable = kept and (kept.schema, kept.pillow) == (SCHEMA, pillow)
    return (kept.files if kept and usable else {}), []


def _write(path: Path | None, files: dict[str, Known]) -> list[str]:
    """Keep an index, and return a note if that failed."""
    if path is None:
        return []
    try:
        write_atomic(path, msgspec.json.encode(_Index(SCHEMA, pillow, files)))
    except MachineError as error:
        return [f"the images will be read again next time: {error.message}"]
    return []
