"""Records on disk: whole or not there, found out when touched, and never in each other's way."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from bench import store
from bobrt.errors import UsageError
from bobrt.result import Samples
from bobrt.spec import Cell, Precision, Protocol, seal_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import Workspace

    from bobrt.result import Result

    Make = Callable[..., Result]

CELL = Cell(
    backbone="a",
    weights="random",
    task="digits",
    protocol=Protocol.FINETUNE,
    runtime="ort-cpu",
    precision=Precision.FP32,
    batch="dynamic",
    seed=0,
)


def test_a_record_is_read_as_it_was_written(make_result: Make, tmp_path: Path) -> None:
    """Every field survives, and the seal is on it."""
    result = make_result("a")
    store.write(tmp_path / "x" / "r.json", result)
    again = store.read(tmp_path / "x" / "r.json")
    assert again == result.sealed()
    assert len(again.seal) == 64


def test_records_are_filed_by_machine_task_and_backbone(tmp_path: Path) -> None:
    """A name with a slash stays one folder; so do limited runs and cells without a task."""
    assert (
        store.path_of(tmp_path, "box", CELL, None) == tmp_path / "box" / "digits" / "a" / f"{CELL.key}.json"
    )
    assert store.path_of(tmp_path, "box", CELL, 50).name == f"{CELL.key}-limit50.json"
    published = msgspec.structs.replace(CELL, backbone="mylab/a", task="")
    assert store.path_of(tmp_path, "box", published, None).parent == tmp_path / "box" / "no-task" / "mylab_a"


@pytest.mark.parametrize("name", ["..", "../../up", "/etc", ".", "a/../.."])
def test_a_name_from_elsewhere_stays_inside_the_results(tmp_path: Path, name: str) -> None:
    """A model file may call itself and its task anything; its record is still filed four folders deep."""
    odd = msgspec.structs.replace(CELL, backbone=name, task=name)
    path = store.path_of(tmp_path, "box", odd, None)
    assert path.resolve() == path
    assert len(path.relative_to(tmp_path).parts) == 4


def test_samples_stand_beside_the_record_and_are_named_by_hash(tmp_path: Path) -> None:
    """The raw times are written whole, in nanoseconds and in order."""
    samples = store.write_samples(tmp_path / "r.json", {"latency-1": [np.array([3, 1, 2])]})
    path = tmp_path / samples.file
    assert json.loads(path.read_text()) == {
        "schema": 1,
        "unit": "ns",
        "times": {"latency-1": [3, 1, 2]},
        "rounds": {"latency-1": [3]},
    }
    assert samples.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_samples_of_several_rounds_are_read_as_they_were_written(make_result: Make, tmp_path: Path) -> None:
    """A later round has a file of its own; once the record names it, the earlier one goes, and no other."""
    path = tmp_path / "r.json"
    rounds = {"latency-1": [np.array([3, 1]), np.array([2])], "throughput-8": [np.array([9]), np.array([8])]}
    first = store.write_samples(path, {name: loops[:1] for name, loops in rounds.items()})
    store.write(path, make_result("a", samples=first))
    other = store.write_samples(tmp_path / "r-limit5.json", {})
    second = store.write_samples(path, rounds)
    assert store.read(path).samples == first
    result = make_result("a", samples=second)
    store.write(path, result)
    store.drop_old_samples(path, result)
    read = store.read_samples(path, store.read(path))
    assert {name: [times.tolist() for times in loops] for name, loops in read.items()} == {
        "latency-1": [[3, 1], [2]],
        "throughput-8": [[9], [8]],
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["r.json", second.file, other.file])


def test_samples_of_an_earlier_version_are_one_round(make_result: Make, tmp_path: Path) -> None:
    """Raw times without a count of rounds are those of the only one."""
    path = tmp_path / "r.json"
    samples = store.write_samples(path, {"latency-1": [np.array([5, 4])]})
    file = tmp_path / samples.file
    content = json.loads(file.read_text())
    del content["rounds"]
    file.write_text(json.dumps(content))
    samples = Samples(file=file.name, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    (times,) = store.read_samples(path, make_result("a", samples=samples))["latency-1"]
    assert times.tolist() == [5, 4]


def changed(**changes: Any) -> Callable[[dict[str, Any]], str]:
    """Return a function that edits a record and leaves its seal."""
    return lambda record: json.dumps(record | changes)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (changed(seconds=2.0), "was edited"),
        (changed(caveats=["limited"]), "was edited"),
        (changed(seal="0" * 64), "was edited"),
        (changed(added_by_hand=1), "was edited"),
        (changed(schema=2), "has schema 2; this bobrt reads 1"),
        (changed(schema="one"), "is damaged: key 'schema'"),
        (changed(state="splendid"), "is damaged: key 'state'"),
        (lambda record: json.dumps({k: v for k, v in record.items() if k != "cell"}), "'cell' is missing"),
        (lambda record: json.dumps(record)[:700], "is damaged"),
        (lambda _: "", "is damaged"),
        (lambda _: "[]", "is damaged"),
        (lambda _: 5000 * "[" + 5000 * "]", "is damaged"),
        (changed(notes=json.loads(900 * "[" + 900 * "]")), "is damaged"),
        (
            lambda record: json.dumps(record)[:-1] + ', "x": ' + 3000 * "[" + 3000 * "]" + "}",
            "nested too deeply",
        ),
        (lambda record: json.dumps(record).replace('"seconds": 1.0', '"seconds": NaN'), "is damaged"),
    ],
)
def test_a_touched_record_is_named_and_never_used(
    make_result: Make, tmp_path: Path, damage: Callable[[dict[str, Any]], str], words: str
) -> None:
    """Edited, truncated, of a newer schema or of a wrong type: the error names the file and what is wrong."""
    path = tmp_path / "r.json"
    store.write(path, make_result("a"))
    text = damage(json.loads(path.read_text()))
    path.write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        store.read(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_keys_of_a_later_version_are_let_pass(make_result: Make, tmp_path: Path) -> None:
    """Within a schema keys may be added: a sealed record that has more of them is read."""
    path = tmp_path / "r.json"
    store.write(path, make_result("a"))
    record = json.loads(path.read_text()) | {"carbon": {"grams": 3}}
    path.write_text(json.dumps(record | {"seal": seal_of(json.dumps(record))}))
    assert store.read(path).cell.backbone == "a"


def test_keys_an_earlier_version_did_not_have_are_not_held_against_it(
    make_result: Make, tmp_path: Path
) -> None:
    """A record written before a key existed is not an edited one."""
    path = tmp_path / "r.json"
    store.write(path, make_result("a"))
    record = json.loads(path.read_text())
    del record["log"], record["system"]["tools"]
    path.write_text(json.dumps(record | {"seal": seal_of(json.dumps(record))}))
    assert store.read(path).system.tools == {}


def test_reading_a_folder_names_what_is_damaged_and_uses_the_rest(make_result: Make, tmp_path: Path) -> None:
    """One bad file costs one row; raw times, logs and half-written files are no records."""
    store.write(tmp_path / "box" / "good.json", make_result("good"))
    store.write(tmp_path / "box" / "bad.json", make_result("bad"))
    (tmp_path / "box" / "bad.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "box" / "folder.json").mkdir()
    store.write_samples(tmp_path / "box" / "good.json", {"latency-1": [np.array([1])]})
    (tmp_path / "box" / ".good.json.x.tmp").write_text("{")
    (tmp_path / "box" / ".hidden.json").write_text("{")
    (tmp_path / "box" / "good.log").write_text("talk")
    loaded = store.read_all(tmp_path)
    assert [result.cell.backbone for result in loaded.results] == ["good"]
    assert len(loaded.problems) == 2
    assert str(tmp_path / "box" / "bad.json") in loaded.problems[0]
    assert str(tmp_path / "box" / "folder.json") in loaded.problems[1]


def test_an_empty_place_holds_nothing(tmp_path: Path) -> None:
    """No folder, or a file where the folder should be, is no results and no error."""
    (tmp_path / "file").write_text("x")
    assert store.read_all(tmp_path / "none") == ([], [])
    assert store.read_all(tmp_path / "file") == ([], [])


def test_samples_that_were_edited_are_found_out(workspace: Workspace) -> None:
    """Whoever reads the raw times, or adds a round to them, is told; a list of records does not look."""
    samples = next(workspace.results.rglob("*.samples.json"))
    path = samples.with_name(f"{samples.name.partition('.')[0]}.json")
    result = store.read(path)
    samples.write_text(
        samples.read_text(encoding="utf-8").replace('"unit":"ns"', '"unit":"us"'), encoding="utf-8"
    )

    with pytest.raises(UsageError, match=f"was edited: not its samples, {samples.name}"):
        store.read(path)
    with pytest.raises(UsageError, match="was edited: not its samples"):
        store.read_samples(path, result)
    assert store.read_all(workspace.results).problems == []


def test_of_two_records_of_one_cell_the_later_one_is_used(make_result: Make, tmp_path: Path) -> None:
    """Two folders may claim one cell; the same record twice is no news."""
    early = make_result("a", 0.8, started="2026-01-01T00:00:00+00:00")
    late = make_result("a", 0.9, started="2026-02-01T00:00:00+00:00")
    for folder, result in (("one", late), ("two", early), ("three", late)):
        store.write(tmp_path / folder / "r.json", result)
    loaded = store.read_all(tmp_path / "two", tmp_path / "one", tmp_path / "three")
    assert [result.accuracy.value for result in loaded.results if result.accuracy] == [0.9]
    assert loaded.problems == [
        f"{tmp_path / 'two' / 'r.json'} is an earlier record of the cell in {tmp_path / 'one' / 'r.json'}"
    ]


def test_a_limited_record_and_a_whole_one_are_two(make_result: Make, tmp_path: Path) -> None:
    """So are those of two machines."""
    whole = make_result("a")
    other = msgspec.structs.replace(whole, system=msgspec.structs.replace(whole.system, id="other"))
    for name, result in (("a", whole), ("b", msgspec.structs.replace(whole, limit=5)), ("c", other)):
        store.write(tmp_path / f"{name}.json", result)
    assert len(store.read_all(tmp_path).results) == 3
