"""Records that another process looks at first: what is read is the same, whatever becomes of that process."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from bench import records, store
from bobrt.errors import UsageError
from bobrt.spec import seal_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from bobrt.result import Result

    Make = Callable[..., Result]

N = 12


@pytest.fixture
def paths(make_result: Make, tmp_path: Path) -> list[str]:
    """Records as bobrt writes them, and one of each kind that is not."""
    found = [tmp_path / f"{i:02d} ü.json" for i in range(N)]
    for i, path in enumerate(found):
        store.write(path, make_result(f"net{i}"))
    content = json.loads(found[3].read_text())
    found[3].write_text(json.dumps(content | {"seconds": 2.0}))
    found[4].write_text(found[4].read_text()[:500])
    found[5].unlink()
    found[6].write_bytes(b"\xff\xfe")
    found[7].write_text(found[7].read_text().replace('"schema": 1', '"schema": 9'))
    content = json.loads(found[8].read_text()) | {"carbon": 3}
    found[8].write_text(json.dumps(content | {"seal": seal_of(json.dumps(content))}))
    found[9].write_bytes(b"")
    return [str(path) for path in found]


def children() -> list[str]:
    """Return the process numbers of the helpers this process has now."""
    found = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    return [pid for pid in found if b"bench.records" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def told(paths: list[str]) -> list[tuple[str, str]]:
    """Return what became of each path, in words."""
    return [
        (path, found.message if isinstance(found, UsageError) else msgspec.json.encode(found).decode())
        for path, found in records.read_many(paths)
    ]


@pytest.mark.parametrize("here", [0, 1, 5, N - 1])
def test_another_process_changes_nothing(
    paths: list[str], here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sound, edited, cut, gone, of a newer schema or rewritten: as one process alone reads them."""
    alone = told(paths)
    words = [
        "was edited",
        "is damaged",
        "does not exist",
        "cannot be read",
        "has schema 9",
        '"net8"',
        "is damaged",
    ]
    assert [path for path, _ in alone] == paths
    for word, (_, line) in zip(words, alone[3:10], strict=True):
        assert word in line

    monkeypatch.setattr(records, "MANY", here)
    assert told(paths) == alone


@pytest.mark.parametrize(
    "command",
    [
        "raise SystemExit(1)",
        "import sys; sys.stdout.buffer.write(b'\\x09')",
        "import os, sys; sys.stdout.buffer.write(b'\\0' * 40); sys.stdout.flush(); os.kill(os.getpid(), 9)",
        "import sys; sys.stdout.buffer.write(b'\\x09' * 160)",
    ],
)
def test_a_process_that_dies_costs_nothing(
    paths: list[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, inside a state, after some, or having told of other files: this one looks itself."""
    alone = told(paths)
    monkeypatch.setattr(records, "MANY", 2)
    monkeypatch.setattr(records, "_COMMAND", command)
    assert told(paths) == alone


def test_without_another_process_this_one_looks(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that lets no more processes be started reads its records all the same."""
    alone = told(paths)
    monkeypatch.setattr(records, "MANY", 2)
    monkeypatch.setattr(records.sys, "executable", "/no/such/python")
    assert told(paths) == alone


def test_a_record_that_is_edited_after_it_was_looked_at_is_found_out(paths: list[str]) -> None:
    """The other process's word is for the very state of the file that it saw."""
    path = Path(paths[0])
    state = records._read(path).state
    assert records.read(path, state).cell.backbone == "net0"
    path.write_text(path.read_text().replace('"net0"', '"nett0"'))
    with pytest.raises(UsageError, match="was edited"):
        records.read(path, state)


def test_a_record_of_before_1970_is_read(paths: list[str]) -> None:
    """An archive's times may be anything."""
    os.utime(paths[0], ns=(-1, -1))
    assert records.read(paths[0]).cell.backbone == "net0"


@pytest.mark.parametrize(("many", "kept"), [(0, True), (N, False)])
def test_very_many_records_are_left_to_the_system(
    make_result: Make, monkeypatch: pytest.MonkeyPatch, many: int, kept: bool
) -> None:
    """Nothing of them is freed one by one; of few everything is."""
    monkeypatch.setattr(records, "MANY", many)
    results = [make_result("a")]
    before = sys.getrefcount(results)
    records.leave(results)
    assert sys.getrefcount(results) - before == kept


def test_whoever_stops_reading_leaves_no_process(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An error or Ctrl-C in the middle of a hundred thousand records."""
    monkeypatch.setattr(records, "MANY", 1)
    reading = records.read_many(paths * 2000)
    for _ in range(3):
        next(reading)
    (other,) = children()
    reading.close()
    assert not Path(f"/proc/{other}").exists()


def test_records_of_one_machine_and_plan_keep_what_is_theirs_once(paths: list[str]) -> None:
    """A hundred thousand of them in memory would say a hundred thousand times what the machine is."""
    found = [result for _, result in records.read_many(paths) if not isinstance(result, UsageError)]
    assert len({id(result.system) for result in found}) == 1
    assert len({result.cell.backbone for result in found}) == len(found)


def test_records_of_two_machines_keep_their_own(make_result: Make, tmp_path: Path) -> None:
    """What differs in anything is not shared."""
    result = make_result("a")
    others = [msgspec.structs.replace(result.system, threads=n) for n in (1, 2, 1)]
    for i, system in enumerate(others):
        store.write(tmp_path / f"{i}.json", msgspec.structs.replace(result, system=system))
    found = dict(records.read_many(str(tmp_path / f"{i}.json") for i in range(3)))
    assert [result.system for result in found.values() if not isinstance(result, UsageError)] == others
