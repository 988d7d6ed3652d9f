"""The two streams: data on stdout, talk on stderr. `print` is used nowhere else.

Colour follows rich (`NO_COLOR`, `FORCE_COLOR`, `TERM`). The live line exists only on a
terminal; piped, each phase is one plain line.
"""

from __future__ import annotations

import os
import sys
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.status import Status


def data(text: str) -> None:
    """Write what was asked for, unchanged, to stdout."""
    _write(sys.stdout, text)


def note(text: str) -> None:
    """Write one line of talk to stderr."""
    _write(sys.stderr, text)


def warn(text: str) -> None:
    """Write one warning line to stderr."""
    _write(sys.stderr, f"warning: {text}")


def error(message: str, hint: str) -> None:
    """Write an error and its hint to stderr."""
    _write(sys.stderr, f"error: {message}" + (f"\n\nhint: {hint}" if hint else ""))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Write a table to stdout: drawn on a terminal, plain aligned text when piped.

    Args:
        header: One name per column.
        rows: One cell per column in each row.
        right: Indices of the columns to align right.

    """
    if sys.stdout.isatty():
        from rich import box  # noqa: PLC0415 - rich costs start-up time that a piped run need not pay
        from rich.table import Table  # noqa: PLC0415

        drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for index, name in enumerate(header):
            drawn.add_column(name, justify="right" if index in right else "left", overflow="fold")
        for row in rows:
            drawn.add_row(*row)
        _console(sys.stdout).print(drawn)
        return
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        cells = [
            text.rjust(width) if i in right else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        data("  ".join(cells).rstrip())


class Progress:
    """One live line on a terminal, one line per change of phase when piped.

    `BOBRT_NO_PROGRESS=1` silences both; `done` lines are always written.
    """

    def __init__(self) -> None:
        self._silent = os.environ.get("BOBRT_NO_PROGRESS", "") not in {"", "0"}
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


def _console(stream: IO[str]) -> Console:
    from rich.console import Console  # noqa: PLC0415

    return Console(file=stream, highlight=False, markup=False)


def _write(stream: IO[str], text: str) -> None:
    stream.write(text + "\n")
    stream.flush()
