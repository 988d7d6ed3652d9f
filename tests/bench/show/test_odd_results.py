"""Reports of what is odd: nothing of it is lost, nothing of it is an exception, and JSON stays strict."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from bench import store
from bench.show import report
from bobrt.errors import ExitCode
from bobrt.spec import State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import Ran

    from bobrt.result import Result

    Make = Callable[..., Result]
    Odd = Callable[[Make], list[Result]]


def _without(make: Make, name: str, **nulls: Any) -> Result:
    return msgspec.structs.replace(make(name), **nulls)


def _metric(make: Make, name: str, metric: str) -> Result:
    result = make(name)
    assert result.accuracy is not None
    return msgspec.structs.replace(result, accuracy=msgspec.structs.replace(result.accuracy, metric=metric))


ODD: dict[str, Odd] = {
    "one result": lambda make: [make("only")],
    "all failed": lambda make: [make(name, state=State.FAILED, reason="it crashed") for name in ("a", "b")],
    "all skipped": lambda make: [make("a", state=State.SKIPPED, reason="the data of flowers102 is not here")],
    "no accuracy": lambda make: [_without(make, "bare", accuracy=None), make("whole")],
    "no latency": lambda make: [_without(make, "slow", latency=[], throughput=[]), make("whole")],
    "nothing measured": lambda make: [
        _without(make, "empty", accuracy=None, latency=[], throughput=[], artifact=None, memory=None)
    ],
    "a task nobody finished": lambda make: [
        make("a"),
        make("b", state=State.FAILED, reason="it crashed", cell={"task": "flowers102"}),
    ],
    "a metric unknown here": lambda make: [_metric(make, "a", "zorp"), _metric(make, "b", "zorp")],
    "a task unknown here": lambda make: [make("a", cell={"task": "mylab/moles"})],
    "a backbone unknown here": lambda make: [make("mylab/odd"), make("a")],
    "names that are markup": lambda make: [make("<script>alert(1)</script>"), make("a|b `c` *d*")],
}


@pytest.mark.parametrize("odd", list(ODD))
def test_every_format_shows_what_is_odd(
    odd: str, make_result: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each cell's name is somewhere in each of them, and so is why it is not ranked."""
    results = ODD[odd](make_result)
    for name in ("table", "markdown", "json"):
        report.FORMATS[name](results)
        shown = capsys.readouterr().out.replace("\\|", "|")
        assert shown.strip()
        for result in results:
            assert result.cell.backbone in shown, name
            assert result.reason in shown
        assert "nan" not in shown.lower().replace("finance", "")


@pytest.mark.parametrize("odd", list(ODD))
def test_the_verb_ends_well_and_its_json_is_strict(
    odd: str, make_result: Make, tmp_path: Path, here: Callable[..., Ran]
) -> None:
    """A failure in the past is no failure of the report."""
    for result in ODD[odd](make_result):
        store.write(store.path_of(tmp_path, result.system.id, result.cell, None), result)
    ran = here("report", tmp_path, "--json")
    assert ran.code == ExitCode.OK, ran.err
    said = json.loads(ran.out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert len(said["results"]) == len(ODD[odd](make_result))
    assert here("report", tmp_path).code == ExitCode.OK


def test_a_record_of_a_later_schema_is_named_and_the_rest_shown(
    make_result: Make, tmp_path: Path, here: Callable[..., Ran]
) -> None:
    store.write(tmp_path / "good.json", make_result("good"))
    (tmp_path / "later.json").write_text('{"schema": 2, "everything": "else"}')
    ran = here("report", tmp_path)
    assert ran.code == ExitCode.OK
    assert "good" in ran.out
    assert "later.json has schema 2; this bobrt reads 1; left out" in ran.err


def test_a_folder_with_nothing_but_damage_is_no_result(tmp_path: Path, here: Callable[..., Ran]) -> None:
    """What could not be read is named, then that there is nothing."""
    (tmp_path / "bad.json").write_text("{")
    ran = here("report", tmp_path)
    assert ran.code == ExitCode.NOTHING_MATCHED
    assert "bad.json is damaged" in ran.err
    assert "no results in " in ran.err


def test_a_table_that_nobody_would_read_to_its_end_is_cut_and_says_so(
    make_result: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first rows, how many more there are, and the format that has them all; the answer is over all."""
    monkeypatch.setattr(report, "MOST", 3)
    rows = [make_result(f"backbone-{i}", 0.5, 1.0 + i) for i in range(5)]
    failed = [make_result(f"failed-{i}", state=State.FAILED, reason="it crashed") for i in range(4)]
    report.as_table([*rows, *failed])
    shown = capsys.readouterr().out
    assert [f"backbone-{i}" in shown for i in range(5)] == [True, True, True, False, False]
    assert "2 more rows: bobrt report --format csv" in shown
    assert "1 more row: bobrt report --format csv" in shown
    assert "Of 5 verified engines for digits" in shown
    report.FORMATS["csv"]([*rows, *failed])
    assert len(capsys.readouterr().out.strip().splitlines()) == 10
