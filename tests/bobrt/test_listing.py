"""What can be named can be listed, for people and for programs."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from bobrt import listing
from bobrt.catalogue import ALIASES
from bobrt.errors import ExitCode
from bobrt.options import Listable
from bobrt.spec import Precision, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import Ran

KEYS = {
    "backbones": {*("name", "alias", "family", "params_m", "px", "pretraining", "data", "data_m", "licence")},
    "tasks": {"name", "kind", "metric", "classes", "train", "validation", "test", "licence", "here"},
    "questions": {"name", "kind", "of", "metric", "here"},
    "runtimes": {"name", "opens", "precisions", "here", "note"},
    "precisions": {"name", "meaning", "runtimes"},
    "protocols": {"name", "meaning"},
    "plans": {"name"},
}


def test_everything_that_is_listable_is_listed() -> None:
    """The words of the command line and the tables behind them are the same."""
    assert set(listing.ENTRIES) == {str(word) for word in Listable} == {*KEYS, "cache"}


def test_the_cache_is_listed_by_folder(
    here: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept, in how many entries and megabytes; a folder that was removed is not there any more."""
    monkeypatch.setenv("BOBRT_CACHE", str(tmp_path / "cache"))
    ran = here("list", "cache")
    assert (ran.code, ran.out) == (ExitCode.OK, "")
    assert "no cache yet" in ran.err
    assert json.loads(here("list", "cache", "--json").out)["cache"] == []

    for name, sizes in {"onnx": (1_000_000, 500_000), "features": (200_000,)}.items():
        for number, size in enumerate(sizes):
            (tmp_path / "cache" / name / str(number)).mkdir(parents=True)
            (tmp_path / "cache" / name / str(number) / "file").write_bytes(bytes(size))
    said = json.loads(here("list", "cache", "--json").out)["cache"]
    told = {entry["name"]: (entry["entries"], entry["mb"]) for entry in said}
    assert told == {"features": (1, 0.2), "onnx": (2, 1.5)}
    shutil.rmtree(said[0]["folder"])
    assert [line.split()[0] for line in here("list", "cache").out.splitlines()] == ["name", "onnx"]


@pytest.mark.parametrize("what", sorted(KEYS))
def test_a_list_is_strict_json_for_programs(here: Callable[..., Ran], what: str) -> None:
    """One versioned document, every entry of one shape; keys may be added, never taken away."""
    ran = here("list", what, "--json")
    assert (ran.code, ran.err) == (ExitCode.OK, "")
    said = json.loads(ran.out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert set(said) == {"schema", what}
    assert said["schema"] == 1
    assert said[what]
    for entry in said[what]:
        assert set(entry) >= KEYS[what]
    names = [entry["name"] for entry in said[what]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("what", sorted(KEYS))
def test_a_list_is_a_table_for_people(here: Callable[..., Ran], what: str) -> None:
    """Piped it is plain text: a header, and a line that starts with each name."""
    ran = here("list", what)
    assert (ran.code, ran.err) == (ExitCode.OK, "")
    header, *lines = ran.out.splitlines()
    assert header.split()[0] == "name"
    assert [line.split()[0] for line in lines] == [entry["name"] for entry in listing.ENTRIES[what]()]
    assert "\x1b" not in ran.out
    assert "None" not in ran.out


def test_aliases_stand_beside_the_entry_they_mean() -> None:
    """Who reads the list can type the short word."""
    entries = {entry["name"]: entry for entry in listing.backbones()}
    for alias, name in ALIASES.items():
        assert alias in entries[name]["alias"].split(", ")


def test_the_vocabulary_is_listed_whole() -> None:
    """No precision and no protocol is forgotten; each precision says which runtimes take it."""
    assert [entry["name"] for entry in listing.precisions()] == [str(word) for word in Precision]
    assert {entry["name"] for entry in listing.protocols()} == {str(word) for word in Protocol}
    takers = {entry["name"]: entry["runtimes"].split(", ") for entry in listing.precisions()}
    assert "ort-cpu" in takers["int8"]
    assert "torch" not in takers["int8"]


def test_without_a_word_the_backbones_are_listed(here: Callable[..., Ran]) -> None:
    """`bobrt list` is what most people want."""
    assert here("list").out == here("list", "backbones").out
