"""`bobrt doctor`: what this machine can do, what it cannot, and what to do about it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bobrt import artifacts, config, doctor
from bobrt.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import Ran


def checks(out: str) -> dict[str, dict[str, Any]]:
    """Return the checks by name."""
    return {check["name"]: check for check in json.loads(out)["checks"]}


def test_this_machine_is_well(bobrt: Callable[..., Ran], tmp_path: Path) -> None:
    """Here every test runs, so nothing is in the way: exit code 0; the folders are named, not made."""
    ran = bobrt("doctor", "--json")
    assert ran.code == ExitCode.OK
    assert not ran.err
    said = json.loads(ran.out)
    assert set(said) == {"schema", "ok", "checks"}
    assert (said["schema"], said["ok"]) == (1, True)
    for check in said["checks"]:
        assert set(check) == {"name", "status", "detail", "hint"}
        assert check["status"] in {"ok", "bang"}
        assert check["detail"]
    found = checks(ran.out)
    assert {"python", "processor", "gpu", "torch", "timm", "runtime torch", "runtime ort-cpu"} <= set(found)
    assert found["runtime ort-cpu"] == {
        "name": "runtime ort-cpu",
        "status": "ok",
        "detail": "runs here",
        "hint": "",
    }
    assert found["results"]["detail"].startswith(f"{tmp_path / 'results'} (from BOBRT_RESULTS), ")
    assert list(tmp_path.iterdir()) == []


def test_people_get_a_line_and_a_hint_for_each_check(bobrt: Callable[..., Ran]) -> None:
    """A mark, the name and the detail; the hint below it."""
    ran = bobrt("doctor")
    assert ran.code == ExitCode.OK
    lines = ran.out.splitlines()
    assert "✓ runtime ort-cpu: runs here" in lines
    assert all(line.startswith(("✓ ", "! ", "    hint: ")) for line in lines)


@pytest.mark.parametrize("name", ["cache", "results"])
@pytest.mark.parametrize("below", ["", "/deep/er"], ids=["a-file", "below-a-file"])
def test_a_folder_that_cannot_be_made_is_a_cross(
    bobrt: Callable[..., Ran], tmp_path: Path, name: str, below: str
) -> None:
    """Nothing can be kept below a regular file, by root neither: exit code 3, the path, and what to set."""
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    variable = f"BOBRT_{name.upper()}"
    ran = bobrt("doctor", "--json", env={variable: str(tmp_path / "file") + below})
    assert ran.code == ExitCode.MACHINE
    assert json.loads(ran.out)["ok"] is False
    cross = checks(ran.out)[name]
    assert cross["status"] == "cross"
    assert str(tmp_path / "file") in cross["detail"]
    assert cross["hint"] == f"set {variable} to a folder you can write"
    assert [check["name"] for check in checks(ran.out).values() if check["status"] == "cross"] == [name]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_cross_is_seen_by_people_too(bobrt: Callable[..., Ran], tmp_path: Path) -> None:
    """The mark, the line and the hint."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    ran = bobrt("doctor", env={"BOBRT_RESULTS": str(tmp_path / "file" / "r")})
    assert ran.code == ExitCode.MACHINE
    assert "✗ results: " in ran.out
    assert "hint: set BOBRT_RESULTS" in ran.out


def test_a_folder_that_is_there_is_proven_and_left_clean(bobrt: Callable[..., Ran], tmp_path: Path) -> None:
    """A file is written into it and taken away again."""
    (tmp_path / "results").mkdir()
    ran = bobrt("doctor", "--json")
    assert checks(ran.out)["results"]["status"] == "ok"
    assert list((tmp_path / "results").iterdir()) == []


def test_a_disk_that_is_nearly_full_is_worth_knowing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not in the way yet."""
    monkeypatch.setattr(doctor, "LOW_DISK_GB", 1e9)
    check = doctor._folder("cache", config.Setting(tmp_path / "cache", "default"))
    assert check.status == "bang"
    assert "(from default), only " in check.detail
    assert check.hint == "set BOBRT_CACHE to a folder you can write"


def test_what_is_not_installed_comes_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A light install can bench files made elsewhere: worth knowing, not in the way."""
    monkeypatch.setattr(doctor, "version", lambda name: None if name == "timm" else artifacts.version(name))
    timm = next(check for check in doctor._tools() if check.name == "timm")
    assert timm.status == "bang"
    assert timm.hint == "pip install 'bobrt[train]'"


def test_a_machine_on_which_nothing_runs_is_a_cross(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no runtime there is nothing to bench."""
    monkeypatch.setattr(doctor, "cannot_run", lambda _: "it is not here")
    crosses = [check for check in doctor._runtimes() if check.status == "cross"]
    assert [(check.name, check.detail) for check in crosses] == [("runtimes", "no runtime runs here")]
