"""Results of several machines: merged, side by side, and never in one ranking."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from bench import store
from bench.show import systems_report
from bench.verdict import rank
from bobrt.errors import ExitCode
from bobrt.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import Ran

    from bobrt.result import Result

    Make = Callable[..., Result]


def on(result: Result, machine: str, p50: float | None = None) -> Result:
    """Return a row as another machine measured it."""
    row = result.latency[0]
    row = msgspec.structs.replace(row, p50_ms=p50 or row.p50_ms)
    system = msgspec.structs.replace(result.system, id=machine)
    return msgspec.structs.replace(result, system=system, latency=[row])


@pytest.fixture
def rows(make_result: Make) -> list[Result]:
    """Two engines on a laptop, one of them on a server too."""
    a, b = make_result("a", 0.9), make_result("b", 0.8, cell={"precision": Precision.INT8})
    return [on(a, "laptop", 4.0), on(b, "laptop", 2.0), on(a, "server", 0.5)]


def test_each_machine_has_a_column(rows: list[Result]) -> None:
    """What a machine did not measure is empty; what all rows share is not said."""
    ((title, table),) = systems_report.tables(rank(rows)[0])
    assert title == "Side by side: digits, finetune"
    assert table.header == ["backbone", "runtime", "precision", "laptop", "server"]
    assert table.rows == [["a", "ort-cpu", "fp32", "4", "0.5"], ["b", "ort-cpu", "int8", "2", ""]]


def test_another_accuracy_is_said(rows: list[Result], make_result: Make) -> None:
    """The same cell need not answer alike everywhere: other kernels, another file."""
    worse = on(make_result("a", 0.85), "server", 0.5)
    ((_, table),) = systems_report.tables(rank([*rows[:2], worse])[0])
    assert table.rows[0][-2:] == ["4", "0.5 (85.0 %)"]


def test_one_machine_has_nothing_beside_it(rows: list[Result]) -> None:
    assert systems_report.tables(rank(rows[:2])[0]) == []


def test_machines_are_never_in_one_ranking(rows: list[Result]) -> None:
    rankings, _ = rank(rows)
    assert [(ranking.system, len(ranking.rows)) for ranking in rankings] == [("laptop", 2), ("server", 1)]


def test_folders_are_merged_by_the_verb(rows: list[Result], tmp_path: Path, here: Callable[..., Ran]) -> None:
    """A folder for each machine, one report; a folder that is not there is named."""
    for folder, those in (("A", rows[:2]), ("B", rows[2:])):
        for result in those:
            store.write(store.path_of(tmp_path / folder, result.system.id, result.cell, None), result)
    ran = here("report", tmp_path / "A", tmp_path / "B")
    assert ran.code == ExitCode.OK, ran.err
    assert "Side by side: digits, finetune" in ran.out
    assert "laptop  server" in ran.out
    assert systems_report.LEGEND in here("report", tmp_path / "A", tmp_path / "B", "--format", "markdown").out
    ran = here("report", tmp_path / "A", tmp_path / "C")
    assert ran.code == ExitCode.USAGE
    assert f"{tmp_path / 'C'} is no results folder" in ran.err
