"""A folder of one's own images, from its name to a ranking."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from support import TINY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import Ran


def coloured(folder: Path) -> Path:
    """Write reddish and bluish images: any features tell them apart."""
    rng = np.random.default_rng(0)
    for row, label in enumerate(("red", "blue")):
        (folder / label).mkdir(parents=True)
        for number in range(40):
            pixels = rng.integers(0, 128, (24, 30, 3), dtype=np.uint8)
            pixels[..., 2 * row] += 127
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


@pytest.mark.heavy
def test_a_folder_is_benched_by_its_path_and_then_by_its_name(
    here: Callable[..., Ran], tmp_path: Path
) -> None:
    """Split, probed, quantised, asked and ranked; a broken image is told in the record, no hindrance."""
    folder, home = coloured(tmp_path / "my colours"), {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    (folder / "red" / "broken.png").write_bytes(b"no image")
    common = ("--plan", TINY, "--weights", "random", "--runtime", "ort-cpu", "--precision", "fp32,int8")
    asked = ("--protocol", "probe", "--gauntlet", "reliability", "--json")
    ran = here("bench", "test_resnet", "--data", folder, *common, *asked, env=home)
    assert ran.code == 0, ran.err
    assert f"{folder} is the task my-colours from now on" in ran.err.replace("\n", " ")
    results = json.loads(ran.out)["results"]
    asked_at = [r["cell"]["precision"] for r in results if r["cell"]["runtime"] == "ort-cpu"]
    assert asked_at == ["fp32", "int8"]
    for result in results:
        assert result["cell"]["task"] == "my-colours"
        assert result["state"] == "complete", result["reason"]
        assert result["accuracy"]["n"] == 12
        assert result["accuracy"]["value"] > 0.8
        assert any("broken.png" in note for note in result["notes"])
        assert [answer["question"] for answer in result["gauntlet"]] == ["reliability"]
    again = here("bench", "test_resnet", "--task", "my-colours", *common, *asked, "--dry-run", env=home)
    assert {cell["action"] for cell in json.loads(again.out)["plan"]} == {"done"}
    listed = here("list", "tasks", env=home)
    assert "my-colours" in listed.out


def test_a_folder_that_is_not_there_or_has_another_tasks_name_is_refused(
    here: Callable[..., Ran], tmp_path: Path
) -> None:
    home = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    gone = here("bench", "--data", tmp_path / "gone", "--json", env=home)
    assert (gone.code, json.loads(gone.out)["error"]["kind"]) == (2, "usage")
    assert "is no folder" in json.loads(gone.out)["error"]["message"]
    (tmp_path / "cifar10").mkdir()
    taken = json.loads(here("bench", "--data", tmp_path / "cifar10", "--json", env=home).out)["error"]
    assert "is called like the task cifar10" in taken["message"]
    assert "--task cifar10 --data" in taken["hint"]
    needless = here("bench", "--task", "digits", "--data", tmp_path, "--json", env=home)
    assert "needs no folder" in json.loads(needless.out)["error"]["message"]


def test_an_archive_is_unpacked_beside_itself_once(here: Callable[..., Ran], tmp_path: Path) -> None:
    """The folder is the task; asked again, what is there is not written over."""
    coloured(tmp_path / "mine")
    shutil.make_archive(str(tmp_path / "colours"), "zip", tmp_path / "mine")
    home = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    command = (
        "bench",
        "test_resnet",
        "--data",
        tmp_path / "colours.zip",
        "--plan",
        TINY,
        "--dry-run",
        "--json",
    )
    ran = here(*command, env=home)
    assert ran.code == 0, ran.err
    assert {cell["cell"]["task"] for cell in json.loads(ran.out)["plan"]} == {"colours"}
    assert len(list((tmp_path / "colours").rglob("*.png"))) == 80
    again = json.loads(here(*command, env=home).out)["error"]
    assert "is there already" in again["message"]
    odd = tmp_path / "odd.png"
    odd.write_bytes(b"")
    assert (
        "no archive by its name"
        in json.loads(here("bench", "--data", odd, "--json", env=home).out)["error"]["message"]
    )


def test_data_that_is_absent_skips_its_cells_and_names_the_line_that_fetches_it(
    here: Callable[..., Ran], tmp_path: Path
) -> None:
    """In a plan a skipped cell; for one verb alone an error of the machine."""
    home = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    told = here("bench", "test_resnet", "--task", "flowers102", "--dry-run", "--json", env=home)
    plan = json.loads(told.out)
    assert {cell["action"] for cell in plan["plan"]} == {"skipped"}
    (line,) = plan["missing"].values()
    assert "102flowers.tgz" in line
    alone = here("train", "test_resnet", "--task", "flowers102", "--json", env=home)
    assert alone.code == 3
    assert "the data of task flowers102 is not here" in json.loads(alone.out)["error"]["message"]


def test_the_study_is_laid_out_with_what_is_missing(here: Callable[..., Ran], tmp_path: Path) -> None:
    """Every task of the round, and the line that fetches each."""
    told = here("bench", "--plan", "battle", "--dry-run", "--json", env={"XDG_CONFIG_HOME": str(tmp_path)})
    assert told.code == 0, told.err
    plan = json.loads(told.out)
    assert len(plan["plan"]) == 49 * 18 * 7
    assert {cell["action"] for cell in plan["plan"]} == {"skipped"}
    assert len(plan["missing"]) == 17 + 5
    assert all(plan["missing"].values())
