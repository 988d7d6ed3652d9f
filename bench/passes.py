"""Ask an engine every image of a split once, and keep what it answered.

What was asked before - by another protocol, another question, another run - is read from disk,
memory-mapped. A folder is named by a hash of the engine's file, its runtime and tools, the images and
their preprocessing, and holds an array file per output and, written last, `pass.json`.
"""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, closing
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self

import msgspec
import numpy as np

from bench import measure
from bobrt.data import feed
from bobrt.data.resize import resize
from bobrt.errors import BobrtError
from bobrt.paths import CANNOT_WRITE, lock, write_atomic
from bobrt.spec import Record, digest
from engines.runner import IMAGES, answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bobrt.data import Split
    from bobrt.spec import Json, Transform
    from engines.runner import Runner

    Outputs = Mapping[str, NDArray[Any]]
    """`float32`, but for images that are kept."""

BATCH = 32
LIMIT_BYTES = 20 * 10**9
"""What all kept passes together may take; the longest unused go first."""
FOLDER = "features"
_RECORD = "pass.json"


class Pass(NamedTuple):
    """What an engine answered to every image of a split."""

    outputs: Outputs
    """`[n, k]` each."""
    images_per_s: float | None
    """From the images as they are to the last answer, resizing included; None if it was read from disk."""


class _Kept(Record, frozen=True, kw_only=True):
    outputs: list[str]
    n: int


class Passes:
    """The passes of one open engine.

    Args:
        runner: Entered.
        transform: How an image becomes its input.
        identity: What its answers depend on besides: file, runtime, tools.
        workers: Threads that decode and resize meanwhile.
        folder: Where passes are kept.
        batch: Images at a time at most, where the engine leaves it open.
        clock: Nanoseconds.

    """

    def __init__(  # noqa: PLR0913, PLR0917 - an engine, its images, and where what it answers is kept
        self,
        runner: Runner,
        transform: Transform,
        identity: dict[str, Json],
        workers: int,
        folder: Path,
        batch: int = BATCH,
        clock: Callable[[], int] = measure.HOST.now,
    ) -> None:
        self.batch = runner.inputs()[IMAGES].shape[0] or feed.at_a_time(batch, transform.size)
        self._clock = clock
        self._runner = runner
        self._transform = transform
        self._identity = identity
        self._workers = workers
        self._folder = folder
        self.notes: list[str] = []
        """What could not be kept, and why."""

    def over(self, split: Split, data: str, *, fresh: bool = False) -> Pass:
        """Return what the engine answers to a split.

        Args:
            split: The images.
            data: What tells these images from all others: a digest, a split's name, a limit.
            fresh: Ask, even if it was asked before: the rate is measured then.

        Raises:
            BobrtError: An answer is no number.

        """
        transform = msgspec.to_builtins(self._transform)
        place = self._folder / digest({"data": data, "transform": transform, **self._identity})
        with lock(str(place)):
            if not fresh and (kept := _read(place, len(split.ids))) is not None:
                return Pass(kept, None)
            return self._asked(split, place)

    def asked(
        self,
        images: Sequence[NDArray[np.uint8]],
        change: Callable[..., NDArray[np.uint8]],
        kept: Json = None,
    ) -> Outputs:
        """Return what the engine answers to changed images; the answers are not kept.

        Args:
            images: Each `uint8 [height, width, 3]`.
            change: From resized images and their row numbers to what the engine is asked.
            kept: What tells the changed images from all others; they are kept then, for the other engines of
                the same size. None where changing them costs nothing.

        """

        def prepare(rows: Sequence[int]) -> NDArray[np.uint8]:
            return change(resize([images[row] for row in rows], self._transform), rows)

        if kept is None:
            parts = list(self._batches(range(len(images)), prepare))
        else:
            changed = self._changed(len(images), prepare, kept)
            parts = list(self._batches(range(len(images)), lambda rows: changed[list(rows)]))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _changed(
        self, n: int, prepare: Callable[[Sequence[int]], NDArray[np.uint8]], what: Json
    ) -> NDArray[np.uint8]:
        """Return changed images, made once for all engines that take them so."""
        transform = msgspec.to_builtins(self._transform)
        place = self._folder / digest({"changed": what, "n": n, "transform": transform})
        with lock(str(place)):
            if (found := _read(place, n)) is not None:
                return np.asarray(found[IMAGES])
            ready = feed.batches(range(n), prepare, self._transform.size, self.batch, self._workers)
            with closing(ready), _Writer(place, n) as writer:
                parts = []
                for images in ready:
                    parts.append(images)
                    writer.add({IMAGES: images})
            self._told_of(writer)
            return np.concatenate(parts)

    def _told_of(self, writer: _Writer) -> None:
        if writer.error:
            self.notes.append(f"what the engine answered is not kept: {writer.error}")
        else:
            prune(self._folder, LIMIT_BYTES)

    def _asked(self, split: Split, place: Path) -> Pass:
        def prepare(rows: Sequence[int]) -> NDArray[np.uint8]:
            return resize([split.images[row] for row in rows], self._transform)

        began = self._clock()
        with _Writer(place, len(split.ids)) as writer:
            parts = []
            for part in self._batches(range(len(split.ids)), prepare):
                parts.append(part)
                writer.add(part)
        seconds = (self._clock() - began) / measure.NS
        self._told_of(writer)
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return Pass(outputs, len(split.ids) / seconds)

    def _batches(
        self, rows: Sequence[int], prepare: Callable[[Sequence[int]], NDArray[np.uint8]]
    ) -> Iterator[Outputs]:
        ready = feed.batches(rows, prepare, self._transform.size, self.batch, self._workers)
        with closing(ready):
            for images in ready:
                outputs = answers(self._runner, images, self.batch)
                if broken := [name for name, value in outputs.items() if not np.isfinite(value).all()]:
                    raise BobrtError(
                        f"the engine answers NaN or infinity in {', '.join(broken)}",
                        "choose another precision",
                    )
                yield outputs


def prune(folder: Path, limit: int) -> int:
    """Remove the longest unused passes until the others take at most `limit` bytes; return how many went."""
    found = []
    for record in folder.glob(f"*/{_RECORD}"):
        size = sum(file.stat().st_size for file in record.parent.iterdir())
        found.append((record.stat().st_mtime, size, record.parent))
    total, gone = sum(size for _, size, _ in found), 0
    for _, size, place in sorted(found)[:-1]:  # the last was just made
        if total <= limit:
            break
        shutil.rmtree(place, ignore_errors=True)
        total, gone = total - size, gone + 1
    return gone


def _read(place: Path, n: int) -> Outputs | None:
    """Return what was kept, memory-mapped, or None if there is nothing whole."""
    try:
        record = msgspec.json.decode((place / _RECORD).read_bytes(), type=_Kept)
        outputs = {name: np.load(place / f"{name}.npy", mmap_mode="r") for name in record.outputs}
    except (OSError, ValueError, EOFError, msgspec.MsgspecError, RecursionError):
        return None
    if not outputs or {len(output) for output in outputs.values()} != {n}:
        return None
    os.utime(place / _RECORD)  # used just now
    return outputs


class _Writer:
    """Writes a pass while it goes on; a disk that fills up ends the keeping, not the pass."""

    def __init__(self, place: Path, n: int) -> None:
        self._place, self._n = place, n
        self._partial = place.with_suffix(".partial")
        self._files: dict[str, IO[bytes]] = {}
        self._stack = ExitStack()
        self.error = ""

    def __enter__(self) -> Self:
        with self._noticed():
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir(parents=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._noticed():
            self._stack.close()
            if kind is None and not self.error:
                record = _Kept(outputs=sorted(self._files), n=self._n)
                write_atomic(self._partial / _RECORD, msgspec.json.encode(record))
                shutil.rmtree(self._place, ignore_errors=True)
                self._partial.rename(self._place)
        shutil.rmtree(self._partial, ignore_errors=True)

    def add(self, part: Outputs) -> None:
        """Write a batch. By `write`, not through a map: a full disk is an error then, not a signal."""
        if self.error:
            return
        with self._noticed():
            for name, rows in part.items():
                if name not in self._files:
                    file = self._stack.enter_context((self._partial / f"{name}.npy").open("wb"))
                    shape = (self._n, *rows.shape[1:])
                    header = {"descr": rows.dtype.str, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_2_0(file, header)
                    self._files[name] = file
                self._files[name].write(np.ascontiguousarray(rows).tobytes())

    def _noticed(self) -> _Noticed:
        return _Noticed(self)


class _Noticed:
    def __init__(self, writer: _Writer) -> None:
        self._writer = writer

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> bool:
        cause = error.__cause__ if isinstance(error, BobrtError) else error
        if isinstance(cause, OSError) and cause.errno in CANNOT_WRITE:
            self._writer.error = cause.strerror or str(cause)
            return True
        return False
