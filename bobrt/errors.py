"""Exit codes, and the one family of errors a user is meant to read.

An error says what happened with the values, and a hint gives a command to run. Whatever
is not a `BobrtError` is a bug: the CLI saves its traceback and ends with `INTERNAL`.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, Literal
from urllib.error import URLError

if TYPE_CHECKING:
    from collections.abc import Iterable

ErrorKind = Literal["usage", "unsupported", "machine", "nothing-matched", "failed", "internal", "interrupted"]


class ExitCode(IntEnum):
    """What the shell sees. Documented in README.md and frozen by a test."""

    OK = 0
    FAILED = 1
    """It ran, but a cell failed or a gate tripped."""
    USAGE = 2
    """The command line, a plan or an input file is wrong."""
    MACHINE = 3
    """This machine cannot: a library, a driver, the hub or the disk is missing."""
    NOTHING_MATCHED = 4
    INTERNAL = 70
    """A bug of ours; the traceback is saved to a file."""
    INTERRUPTED = 130


class BobrtError(Exception):
    """Something went wrong that the user can act on.

    Args:
        message: What happened, with the values, in one line.
        hint: What to do about it, usually a command to run.

    """

    kind: ClassVar[ErrorKind] = "failed"
    exit_code: ClassVar[ExitCode] = ExitCode.FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(BobrtError):
    """The command line, a plan, a config file or an input file is wrong."""

    kind = "usage"
    exit_code = ExitCode.USAGE


class MachineError(BobrtError):
    """This machine cannot do what was asked: a library, driver, network or disk is missing."""

    kind = "machine"
    exit_code = ExitCode.MACHINE


class AbsentDataError(MachineError):
    """A data set is not on this machine. In a plan a cell that is skipped, typed alone an error."""


class NothingMatchedError(BobrtError):
    """The request was well formed and matched nothing."""

    kind = "nothing-matched"
    exit_code = ExitCode.NOTHING_MATCHED


class UnsupportedError(BobrtError):
    """A runtime cannot do this, on any machine. In a plan a fact, typed alone a usage error."""

    kind = "unsupported"
    exit_code = ExitCode.USAGE


_HEAD, _TAIL = 300, 195
_COLOUR = re.compile("\x1b\\[[0-9;]*m")
_SIGNATURE = re.compile(r"/\S*?onnxruntime_src/\S+:\d+ [^(]*\((?:[^()]|\([^()]*\))*\)(?: const)? ?")
"""Where in its C++ ONNX Runtime noticed: longer than what it noticed, and in front of it."""


def one_line(said: BaseException | str) -> str:
    """Return what an error of a library says in one line of at most 500 characters, or else its name.

    Of a longer one the middle is left out: what went wrong is told at the start by some and last by others.
    """
    said = said.reason if isinstance(said, URLError) else said  # what the system said, without urllib's frame
    text = " ".join(_SIGNATURE.sub(" ", _COLOUR.sub("", str(said))).split())
    if not text and isinstance(said, BaseException):
        return type(said).__name__
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} ... {text[-_TAIL:]}"


_LISTED = {"backbone", "task", "question", "runtime", "precision", "protocol", "plan"}
"""Kinds of name that `bobrt list` lists."""


def unknown(kind: str, name: str, known: Iterable[str], where: str = "") -> UsageError:
    """Return the error for a name outside a vocabulary, with the nearest names as the hint.

    Args:
        kind: What the name should have been, in the singular: `"precision"`.
        name: The name as the user wrote it.
        known: The names that exist.
        where: File, key and line the name came from, when it came from a file.

    """
    known = sorted(set(known))
    near = get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    many = len(known) > 8 and kind in _LISTED  # noqa: PLR2004 - more than fit a line
    listed = f"bobrt list {kind}s" if many else f"one of: {', '.join(known)}"
    hint = f"did you mean {' or '.join(near)}? ({listed})" if near else listed
    prefix = f"{where}: " if where else ""
    return UsageError(f"{prefix}unknown {kind} {name!r}", hint)
