"""The base install: no torch, and files made elsewhere are benched all the same."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from support import TINY, Ran, Workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "cache", tmp_path / "results")


def test_it_lists_without_torch(light: Callable[..., Ran], space: Workspace) -> None:
    """Names are data: every list is there, and says what is not installed."""
    ran = light(space, "list", "backbones", "--json")
    assert ran.code == 0, ran.err
    assert "test_resnet" in {entry["name"] for entry in json.loads(ran.out)["backbones"]}
    runtimes = {
        entry["name"]: entry
        for entry in json.loads(light(space, "list", "runtimes", "--json").out)["runtimes"]
    }
    assert runtimes["ort-cpu"]["here"] == "runs"
    assert runtimes["torch"]["here"] == "torch is not installed (pip install 'bobrt[train]')"


def test_doctor_says_what_is_missing_and_that_benching_works(
    light: Callable[..., Ran], space: Workspace
) -> None:
    """Nothing is in the way: exit code 0, each missing library with the line that installs it."""
    ran = light(space, "doctor", "--json")
    assert ran.code == 0, ran.err
    checks = {check["name"]: check for check in json.loads(ran.out)["checks"]}
    assert checks["torch"]["status"] == "bang"
    assert checks["torch"]["hint"] == "pip install 'bobrt[train]'"
    assert checks["nvidia-modelopt"]["hint"] == "pip install 'bobrt[quant]'"
    assert checks["runtime ort-cpu"]["status"] == "ok"


def test_a_file_made_elsewhere_is_benched_and_reported(
    light: Callable[..., Ran], space: Workspace, tiny_run: tuple[Workspace, Ran], tmp_path: Path
) -> None:
    """Accuracy and latency of the file, as on the machine that made it; the report can be read again."""
    for stage in ("onnx", "int8-onnxruntime"):
        (file,) = (tiny_run[0].cache / stage).glob("*/model.onnx")
        shutil.copyfile(file, tmp_path / f"{stage}.onnx")
    files = [tmp_path / "onnx.onnx", tmp_path / "int8-onnxruntime.onnx"]
    ran = light(space, "bench", "--plan", TINY, *files, "--json")
    assert ran.code == 0, ran.err
    results = json.loads(ran.out)["results"]
    assert [record["cell"]["precision"] for record in results] == ["fp32", "int8"]
    made = {
        (r["cell"]["runtime"], r["cell"]["precision"]): r
        for r in json.loads(tiny_run[0].bobrt("report", "--json").out)["results"]
    }
    for record in results:
        twin = made["ort-cpu", record["cell"]["precision"]]
        assert record["state"] == "complete"
        assert record["artifact"]["sha256"] == twin["artifact"]["sha256"]
        assert record["accuracy"]["value"] == twin["accuracy"]["value"]
        assert record["latency"][0]["p50_ms"] > 0
        assert record["system"]["torch"] is None
        assert "no-reference" in record["caveats"]
    ran = light(space, "report")
    assert ran.code == 0, ran.err
    assert "Of 2 verified engines for digits" in ran.out


def test_the_default_plan_names_the_extra_it_needs(light: Callable[..., Ran], space: Workspace) -> None:
    """Nothing can be made here: exit code 3, one line, the install line, and no column of failures."""
    ran = light(space, "bench")
    assert ran.code == 3
    assert ran.out == ""
    error, _, hint = ran.err.rstrip("\n").split("\n")
    assert error.startswith("error: making its checkpoint needs torch, ")
    assert hint == "hint: pip install 'bobrt[train]'"
    assert not list(space.results.rglob("*.json"))
