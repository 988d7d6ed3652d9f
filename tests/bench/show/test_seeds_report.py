"""Means over seeds: against SciPy, and only of what differs by its seed alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from scipy import stats

from bench.show import report, seeds_report
from bench.verdict import rank
from bobrt.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from bobrt.result import Result

    Make = Callable[..., Result]


def seeded(result: Result, seed: int, **cell: object) -> Result:
    return msgspec.structs.replace(result, cell=msgspec.structs.replace(result.cell, seed=seed, **cell))


@pytest.fixture
def three(make_result: Make) -> list[Result]:
    """One engine from three seeds."""
    return [seeded(make_result("a", value), seed) for seed, value in enumerate((0.90, 0.94, 0.92))]


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_interval_is_student_s(n: int) -> None:
    values = np.random.default_rng(n).uniform(0, 1, n)
    found = seeds_report.mean(values.tolist())
    low, high = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    assert (found.value - found.half, found.value + found.half) == pytest.approx((low, high), abs=1e-9)
    assert (found.low, found.high, found.n) == (values.min(), values.max(), n)


def test_engines_that_differ_by_their_seed_are_one_row(three: list[Result]) -> None:
    """By hand: the mean of 90, 94 and 92 is 92, and 4.303 times 2 over the root of 3 is 4.97."""
    ((title, table, count),) = seeds_report.tables(rank(three)[0])
    assert title.startswith("Over seeds: digits, finetune, on ")
    (row,) = table.rows
    assert count == 1
    told = dict(zip(table.header, row, strict=True))
    assert (told["seeds"], told["accuracy %"], told["lowest-highest"]) == ("0,1,2", "92.0 ± 5.0", "90.0-94.0")


def test_what_differs_in_more_is_not_averaged(three: list[Result], make_result: Make) -> None:
    """Another precision, or another backbone, of one seed each: nothing to take a mean of."""
    others = [seeded(make_result("a", 0.5), 3, precision=Precision.INT8), seeded(make_result("b", 0.5), 4)]
    ((_, table, _),) = seeds_report.tables(rank([*three, *others])[0])
    assert [row[0] for row in table.rows] == ["a"]
    assert seeds_report.tables(rank([three[0], *others])[0]) == []


def test_no_more_rows_are_made_than_are_shown(three: list[Result], make_result: Make) -> None:
    """The first ones by name; how many there are is told."""
    both = [*three, *(seeded(make_result("b", 0.5), n) for n in (1, 2))]
    ((_, table, count),) = seeds_report.tables(rank(both)[0], 1)
    assert ([row[0] for row in table.rows], count) == (["a"], 2)


def test_a_row_that_is_not_ranked_is_in_no_mean(three: list[Result]) -> None:
    """A limited run would pull the mean of whole ones."""
    limited = msgspec.structs.replace(three[2], limit=10)
    ((_, table, _),) = seeds_report.tables(rank([*three[:2], limited])[0])
    assert dict(zip(table.header, table.rows[0], strict=True))["seeds"] == "0,1"


def test_a_ranking_of_several_seeds_says_whose_row_is_whose(three: list[Result]) -> None:
    """A column where rows differ in it, and none where they do not."""
    (ranking,), _ = rank(three)
    table = report.ranked_table(ranking)
    assert sorted(row[table.header.index("seed")] for row in table.rows) == ["0", "1", "2"]
    assert table.header[table.right[1]] == "accuracy %"
    assert "weights" not in table.header
    assert "seed" not in report.ranked_table(rank(three[:1])[0][0]).header


def test_markdown_explains_the_means(three: list[Result]) -> None:
    assert seeds_report.LEGEND in report.as_markdown(three)
    assert seeds_report.LEGEND not in report.as_markdown(three[:1])
