"""Exit codes and error kinds are an interface: scripts and programs read them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args
from urllib.error import URLError

import pytest

from bobrt.errors import (
    BobrtError,
    ErrorKind,
    ExitCode,
    MachineError,
    NothingMatchedError,
    UnsupportedError,
    UsageError,
    one_line,
    unknown,
)


def test_the_exit_codes_are_frozen() -> None:
    """Exactly the documented values."""
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "MACHINE": 3,
        "NOTHING_MATCHED": 4,
        "INTERNAL": 70,
        "INTERRUPTED": 130,
    }


def test_the_exit_codes_are_documented() -> None:
    """Each has its row in the README's table, and no other number has one."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| [a-z]", readme, re.MULTILINE)
    assert [int(row) for row in rows] == list(ExitCode)


def test_the_kinds_of_errors_are_a_closed_set() -> None:
    """`error.kind` of the JSON is one of these words."""
    assert set(get_args(ErrorKind)) == {
        "usage",
        "unsupported",
        "machine",
        "nothing-matched",
        "failed",
        "internal",
        "interrupted",
    }


SAID = (
    "[ONNXRuntimeError] : 1 : FAIL : Load model from it.onnx failed:"
    "/onnxruntime_src/onnxruntime/core/graph/model_load_utils.h:46 void onnxruntime::ValidateOpsetForDomain("
    "const std::unordered_map<std::__cxx11::basic_string<char>, int>&, const onnxruntime::logging::Logger&, "
    "std::function<void(int)>) const Opset 99 is under development"
)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (ValueError("two\n  lines"), "two lines"),
        (ValueError(), "ValueError"),
        ("\x1b[1mloud\x1b[0m", "loud"),
        ("", ""),
        (URLError(OSError("refused")), "refused"),
        (
            SAID,
            "[ONNXRuntimeError] : 1 : FAIL : Load model from it.onnx failed: Opset 99 is under development",
        ),
        ("a" * 500 + "why", "a" * 300 + " ... " + "a" * 192 + "why"),
    ],
)
def test_what_a_library_says_is_told_in_one_line(said: BaseException | str, told: str) -> None:
    """Without where in its code it was; from a long tale the middle is left out, never the end."""
    assert one_line(said) == told


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (BobrtError, "failed", ExitCode.FAILED),
        (UsageError, "usage", ExitCode.USAGE),
        (MachineError, "machine", ExitCode.MACHINE),
        (NothingMatchedError, "nothing-matched", ExitCode.NOTHING_MATCHED),
        (UnsupportedError, "unsupported", ExitCode.USAGE),
    ],
)
def test_an_error_knows_its_kind_and_its_exit_code(
    error: type[BobrtError], kind: str, code: ExitCode
) -> None:
    """What was raised decides what the shell sees."""
    raised = error("what happened", "what to do")
    assert (raised.kind, raised.exit_code) == (kind, code)
    assert (str(raised), raised.message, raised.hint) == ("what happened", "what happened", "what to do")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("fp61", "did you mean fp16 or fp8 or fp32? (one of: fp16, fp32, fp8, int8)"),
        ("INT8", "did you mean int8? (one of: fp16, fp32, fp8, int8)"),
        ("zzz", "one of: fp16, fp32, fp8, int8"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, hint: str) -> None:
    """The nearest names first, then all of a short list; each name once, however often it is known."""
    error = unknown("precision", name, ["fp32", "fp16", "int8", "fp8", "fp16"])
    assert error.message == f"unknown precision {name!r}"
    assert error.hint == hint


def test_a_long_list_is_a_command_to_run() -> None:
    """Nobody wants a hundred names in a hint."""
    assert unknown("backbone", "zzz", [f"net{i}" for i in range(20)]).hint == "bobrt list backbones"


def test_where_the_name_stands_is_said_first() -> None:
    """A name from a file is named with its place."""
    error = unknown("task", "digit", ["digits"], "plan p.toml, line 2, key 'tasks'")
    assert error.message == "plan p.toml, line 2, key 'tasks': unknown task 'digit'"
