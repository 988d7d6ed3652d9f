"""The two streams: data on stdout, talk on stderr. `print` is used nowhere else.

Colour follows rich (`NO_COLOR`, `FORCE_COLOR`, `TERM`). The live line exists only on a
terminal; piped, each phase is one plain line.
"""

from __future__ import annotations

import os
import sys
import time
from typing import IO, TYPE_CHECKING, Literal, NamedTuple, Self

import msgspec

from bobrt.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.console import Console
    from rich.status import Status

    from bobrt.spec import Json


def data(text: str) -> None:
    """Write what was asked for, unchanged, to stdout."""
    _write(sys.stdout, text)


def document(content: Mapping[str, Json]) -> None:
    """Write one strict JSON document to stdout."""
    data(msgspec.json.encode({"schema": 1, **content}).decode())


def note(text: str) -> None:
    """Write one line of talk to stderr."""
    _write(sys.stderr, text)


def warn(text: str) -> None:
    """Write one warning line to stderr."""
    _write(sys.stderr, f"warning: {text}")


def error(message: str, hint: str) -> None:
    """Write an error and its hint to stderr."""
    _write(sys.stderr, f"error: {message}" + (f"\n\nhint: {hint}" if hint else ""))


GAP = 3
"""Characters between two columns of a drawn table."""


class Table(NamedTuple):
    """Text cells, ready to be drawn or piped."""

    header: list[str]
    rows: list[list[str]]
    right: Sequence[int] = ()
    """Columns of numbers."""
    spare: Sequence[int] = ()
    """Columns a narrow terminal leaves out, the least needed first."""


def table(content: Table) -> None:
    """Write a table to stdout: drawn to the width of a terminal, whole and plain when piped."""
    if not sys.stdout.isatty():
        for line in _aligned(content):
            data(line)
        return
    from rich import box  # noqa: PLC0415 - rich costs start-up time that a piped run need not pay
    from rich.table import Table as Drawn  # noqa: PLC0415

    console = _console(sys.stdout)
    left_out = _left_out(content, console.width)
    drawn = Drawn(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    kept = [index for index in range(len(content.header)) if index not in left_out]
    for index in kept:
        last = index == len(content.header) - 1
        justify: Literal["right", "left"] = "right" if index in content.right else "left"
        drawn.add_column(content.header[index], justify=justify, no_wrap=not last, overflow="fold")
    for row in content.rows:
        drawn.add_row(*(row[index] for index in kept))
    console.print(drawn)
    if left_out:
        names = ", ".join(content.header[index] for index in sorted(left_out))
        note(f"too narrow for: {names}; widen the terminal, or pipe it")


def _aligned(content: Table) -> list[str]:
    widths = _widths(content)
    lines = []
    for row in [content.header, *content.rows]:
        cells = [
            text.rjust(width) if i in content.right else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _left_out(content: Table, width: int) -> set[int]:
    """Return the spare columns that must go for the rest to fit."""
    widths = _widths(content)
    left_out: set[int] = set()
    for index in content.spare:
        if sum(w + GAP for i, w in enumerate(widths) if i not in left_out) <= width:
            break
        left_out.add(index)
    return left_out


def _widths(content: Table) -> list[int]:
    return [max(len(row[i]) for row in [content.header, *content.rows]) for i in range(len(content.header))]


class Progress:
    """One live line on a terminal, one line per change of phase when piped.

    `BOBRT_NO_PROGRESS=1` silences both; `done` lines are always written.
    """

    def __init__(self) -> None:
        self._silent = _silent()
        self._live = sys.stderr.isatty() and not self._silent
        self._status: Status | None = None
        self._last = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def update(self, label: str, phase: str, detail: str = "") -> None:
        """Show what is happening now.

        Args:
            label: The cell or file being worked on.
            phase: The step it is in; a piped run prints only its changes.
            detail: A figure that moves within a phase.

        """
        line = f"{label} · {phase}"
        if self._live:
            if self._status is None:
                self._status = _console(sys.stderr).status("")
                self._status.start()
            self._status.update(f"{line} · {detail}" if detail else line)
        elif not self._silent and line != self._last:
            note(f"  {line}")
        self._last = line

    def done(self, line: str) -> None:
        """Replace the live line by one that stays."""
        self._clear()
        note(line)

    def _clear(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
        self._last = ""


def counting(what: str, every_s: float = 5.0) -> Callable[[int, int], None]:
    """Return what tells every few seconds how far something has come that is usually over at once.

    Args:
        what: What goes on, as a sentence begins.
        every_s: Seconds between two lines, and before the first.

    """
    last = time.monotonic()

    def told(done: int, total: int) -> None:
        nonlocal last
        if not _silent() and time.monotonic() >= last + every_s:
            note(f"  {what}: {done:,} of {total:,}")
            last = time.monotonic()

    return told


def _silent() -> bool:
    return os.environ.get("BOBRT_NO_PROGRESS", "") not in {"", "0"}


def _console(stream: IO[str]) -> Console:
    from rich.console import Console  # noqa: PLC0415

    return Console(file=stream, highlight=False, markup=False)


def _write(stream: IO[str], text: str) -> None:
    try:
        stream.write(text + "\n")
        stream.flush()
    except OSError as error:
        # What is still in the buffer must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        # A reader that has gone (`| head`) has had enough; a full disk has lost what was asked for.
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            raise MachineError(f"cannot write to stdout: {error.strerror}", "free some space") from error
