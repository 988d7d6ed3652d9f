"""Data on stdout, talk on stderr; drawn on a terminal, plain when piped."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest
from support import environment

from bobrt import console
from bobrt.console import Progress, Table

if TYPE_CHECKING:
    from pathlib import Path

COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-8]")
TABLE = Table(["name", "n", "what it is"], [["a", "1", "short"], ["bbbbbb", "222", ""]], right=[1], spare=[2])

DRAW = """
from bobrt.console import Table, table
table(Table(["name", "n", "what it is"], [["a", "1", "x" * 60]], right=[1], spare=[2]))
"""
WORK = """
from bobrt.console import Progress
with Progress() as progress:
    progress.update("cell", "parity")
    progress.update("cell", "timing", "3 ms")
    progress.done("cell: 3 ms")
"""


def on_terminal(code: str, columns: int = 100, **env: str) -> str:
    """Return what a Python of its own shows on a terminal."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    given = environment({"TERM": "xterm-256color", "NO_COLOR": "", **env})
    process = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=given)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # what Linux answers when the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    return shown.decode()


def test_the_two_streams_are_kept_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """Only what was asked for is on stdout."""
    console.data("an answer")
    console.note("by the way")
    console.warn("look out")
    console.error("it broke", "mend it")
    console.error("it broke", "")
    out, err = capsys.readouterr()
    assert out == "an answer\n"
    assert err == "by the way\nwarning: look out\nerror: it broke\n\nhint: mend it\nerror: it broke\n"


def test_a_piped_table_is_plain_aligned_text(capsys: pytest.CaptureFixture[str]) -> None:
    """One record a line, numbers to the right, nothing left out, no trailing spaces, no drawing."""
    console.table(TABLE)
    assert capsys.readouterr().out == "name      n  what it is\na         1  short\nbbbbbb  222\n"


def test_a_table_without_rows_is_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty table is no error."""
    console.table(Table(["name", "n"], []))
    assert capsys.readouterr().out == "name  n\n"


def test_a_terminal_gets_a_drawing_of_its_width() -> None:
    """Wide, every column is there; narrow, the spare one goes, and that is said."""
    wide, narrow = on_terminal(DRAW), on_terminal(DRAW, columns=40)
    assert "─" in wide
    assert "x" * 60 in wide
    assert "too narrow" not in wide
    assert "xxx" not in narrow
    assert "too narrow for: what it is; widen the terminal, or pipe it" in narrow


def test_a_terminal_gets_one_live_line_that_is_cleared() -> None:
    """The phases come and go; the line that says how it ended stays. The spinner is in colour."""
    shown = on_terminal(WORK)
    assert "timing · 3 ms" in shown
    assert shown.rstrip().endswith("cell: 3 ms")
    assert COLOUR.search(shown)


def test_no_color_means_no_colour() -> None:
    """NO_COLOR is honoured on a terminal, too."""
    assert not COLOUR.search(on_terminal(WORK, NO_COLOR="1"))


def test_a_dumb_terminal_gets_no_escape_at_all() -> None:
    """A table for TERM=dumb is text."""
    assert "\x1b" not in on_terminal(DRAW, TERM="dumb")


def test_piped_progress_is_a_line_for_each_phase(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A phase is told once, however often its figures move; stdout is untouched."""
    monkeypatch.delenv("BOBRT_NO_PROGRESS", raising=False)
    with Progress() as progress:
        progress.update("one", "timing", "1 ms")
        progress.update("one", "timing", "2 ms")
        progress.update("one", "accuracy")
        progress.done("one: done")
        progress.update("one", "accuracy")
    out, err = capsys.readouterr()
    assert not out
    assert err == "  one · timing\n  one · accuracy\none: done\n  one · accuracy\n"


@pytest.mark.parametrize(("value", "silent"), [("1", True), ("0", False), ("", False)])
def test_progress_can_be_silenced_and_results_cannot(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, value: str, *, silent: bool
) -> None:
    """BOBRT_NO_PROGRESS leaves the lines that say how it ended."""
    monkeypatch.setenv("BOBRT_NO_PROGRESS", value)
    with Progress() as progress:
        progress.update("one", "timing")
        progress.done("one: done")
    assert capsys.readouterr().err == ("one: done\n" if silent else "  one · timing\none: done\n")


def test_a_reader_that_has_had_enough_is_no_error(tmp_path: Path) -> None:
    """`| head` ends neither the work nor its exit code; what the work writes elsewhere is still written."""
    code = """
import sys
from pathlib import Path
from bobrt.console import data, note
data("x" * 100)
note("to nobody")
data("more")
Path(sys.argv[1]).write_text("went on")
"""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    done = subprocess.run(command, stdout=write, stderr=write, check=False)
    os.close(write)
    assert done.returncode == 0
    assert (tmp_path / "file").read_text(encoding="utf-8") == "went on"


def test_a_full_stdout_is_a_machine_error() -> None:
    """An answer that could not be written is not passed over."""
    code = """
from bobrt.console import data, note
from bobrt.errors import MachineError
try:
    data("x")
except MachineError as error:
    note(error.message)
"""
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 0
    assert done.stderr == "cannot write to stdout: No space left on device\n"


def test_what_takes_long_is_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line every five seconds, the first after five; what is over at once says nothing."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    told = console.counting("looking at the images of photos")
    for second, done in ((1, 900), (6, 5400), (9, 8100), (12, 10800)):
        now[0] = 100.0 + second
        told(done, 100_000)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "  looking at the images of photos: 5,400 of 100,000",
        "  looking at the images of photos: 10,800 of 100,000",
    ]
    monkeypatch.setenv("BOBRT_NO_PROGRESS", "1")
    now[0] += 60
    told(20_000, 100_000)
    assert capsys.readouterr().err == ""
