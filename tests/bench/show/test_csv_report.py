"""Every cell as a line a spreadsheet reads, and runs nothing of."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pytest

from bench.show import csv_report
from bobrt.spec import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from bobrt.result import Result

    Make = Callable[..., Result]


def lines(results: list[Result]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_report.text(results), newline="")))


def test_a_line_for_each_cell(make_result: Make) -> None:
    """Full numbers, fractions as fractions; null is empty; what is not ranked says why."""
    failed = make_result(
        "b", state=State.FAILED, reason="no memory", accuracy=None, latency=[], artifact=None
    )
    first, second = lines([make_result("a", 0.123456789, 1.5), failed])

    assert (first["backbone"], first["value"], first["p50_ms"], first["rank"]) == (
        "a",
        "0.123456789",
        "1.5",
        "1",
    )
    assert (first["front"], first["p99_ms"], first["sha256"]) == ("true", "", "0" * 64)
    assert (second["value"], second["rank"], second["reason"]) == ("", "", "failed: no memory")
    assert set(first) == set(second)


def test_it_is_rfc_4180(make_result: Make) -> None:
    """Lines end in CR LF; commas, quotes and line ends inside of a text survive."""
    name = 'a,"b"\nc'
    text = csv_report.text([make_result(name)])
    assert text.endswith("\r\n")
    assert lines([make_result(name)])[0]["backbone"] == name


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_a_name_is_no_formula(name: str, make_result: Make) -> None:
    """Texts begin with a quote; negative numbers stay numbers."""
    (line,) = lines([make_result(name)])
    assert line["backbone"] == f"'{name}"
    assert float(lines([make_result("a", -0.5)])[0]["value"]) == -0.5


def test_without_results_there_are_the_names() -> None:
    assert csv_report.text([]).startswith("backbone,weights,task,")
    assert csv_report.text([]).count("\r\n") == 1
