"""Fronts, budgets and ladders as a reader sees them, worked out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from bench.show import costs_report, report
from bobrt.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from bobrt.console import Table
    from bobrt.result import Result

    Make = Callable[..., Result]


def sized(result: Result, size: int) -> Result:
    assert result.artifact is not None
    return msgspec.structs.replace(result, artifact=msgspec.structs.replace(result.artifact, bytes=size))


@pytest.fixture
def rows(make_result: Make) -> list[Result]:
    """The best is slow and large, the next fast and larger, the third small, the last worse than all."""
    return [
        sized(make_result("best", 0.95, 8.0), 40_000_000),
        sized(make_result("fast", 0.90, 2.0), 50_000_000),
        sized(make_result("small", 0.80, 4.0), 1_000_000),
        sized(make_result("worst", 0.70, 9.0), 60_000_000),
    ]


def table(results: list[Result], title: str) -> Table:
    return next(found for name, found in costs_report.tables(results) if name.startswith(title))


def test_a_row_has_a_star_for_each_front_it_is_on(rows: list[Result]) -> None:
    """By p50 the best and the fast one, by size the best and the small one; the worst is not shown."""
    found = table(rows, "Fronts: digits, finetune, on ")
    assert found.header == ["backbone", "runtime", "precision", "accuracy %", "p50 ms", "images/s", "file MB"]
    told = {row[0]: [cell.strip() for cell in row[4:]] for row in found.rows}
    assert told == {
        "best": ["8.00 *", "1000 *", "40.00 *"],
        "fast": ["2.00 *", "4000 *", "50.00"],
        "small": ["4.00", "2000", "1.00 *"],
    }


def test_each_budget_names_its_best_and_what_it_loses(rows: list[Result]) -> None:
    """The tightest budgets that the front keeps; at the loosest nothing is lost."""
    found = [[cell for cell in row if cell] for row in table(rows, "Budgets").rows]
    assert ["p50 ms", "at most", "2.00", "fast", "ort-cpu", "fp32", "90.0", "5.0"] in found
    assert ["p50 ms", "at most", "8.00", "best", "ort-cpu", "fp32", "95.0", "0.0"] in found
    assert ["images/s", "at least", "4000", "fast", "ort-cpu", "fp32", "90.0", "5.0"] in found
    assert ["file MB", "at most", "1.00", "small", "ort-cpu", "fp32", "80.0", "15.0"] in found
    assert len(found) == 6


@pytest.mark.parametrize(("p50", "told"), [(2.0, "4.00"), (7.9, "(1.01)")])
def test_a_ladder_says_what_a_precision_costs_and_gains(
    rows: list[Result], make_result: Make, p50: float, told: str
) -> None:
    """Beside fp32 of the same backbone; a gain within noise is in brackets."""
    int8 = sized(make_result("best", 0.94, p50, cell={"precision": Precision.INT8}), 10_000_000)
    (row,) = table([*rows, int8], "Precision ladders").rows
    assert row[2:7] == ["best", "ort-cpu", "int8", "+1.0", told]
    assert row[-1] == "4.00"


def test_one_row_has_no_front_and_fp32_alone_no_ladder(rows: list[Result]) -> None:
    assert costs_report.tables(rows[:1]) == []


def test_markdown_explains_them(rows: list[Result]) -> None:
    text = report.as_markdown(rows)
    assert costs_report.LEGEND in text
    assert "## Budgets: digits, finetune, on " in text
    assert costs_report.LEGEND not in report.as_markdown(rows[:1])
