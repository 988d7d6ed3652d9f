"""What the page shows, as data: each cell once, all of it JSON, and a reason for what is missing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from boards import PUBLISHED

from bench import store
from bench.show import evidence, page_data
from bobrt.result import Answer
from bobrt.spec import Precision, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bobrt.result import Result

    Make = Callable[..., Result]


def shown(results: list[Result], folder: Path, **more: Any) -> dict[str, Any]:
    """Return the page as a strict reader of JSON sees it."""
    text = msgspec.json.encode(page_data.page(results, more.pop("beside", None), [folder], **more))
    content: dict[str, Any] = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    return content


def test_every_cell_is_a_row_with_its_evidence(make_result: Make, tmp_path: Path) -> None:
    """Ranked ones in order, what is not ranked last, with the reason."""
    failed = make_result("c", state=State.FAILED, reason="ran out of memory", accuracy=None, latency=[])
    page = shown([make_result("slow", 0.9, 2.0), failed, make_result("fast", 0.9, 1.0)], tmp_path)

    assert [row["backbone"] for row in page["rows"]] == ["fast", "slow", "c"]
    first, _, last = page["rows"]
    assert (first["rank"], first["front"], first["score"], first["unit"], first["p50"]) == (
        1,
        True,
        90.0,
        "%",
        1.0,
    )
    assert first["evidence"]["sha256"] == "0" * 64
    assert page["systems"][first["evidence"]["system"]]["id"] == first["system"]
    assert (last["rank"], last["reason"]) == (None, "failed: ran out of memory")
    assert "fast fp32 on ort-cpu is the fastest" in page["answers"][0]["text"]
    assert page["counts"] | {"cells": 3, "ranked": 2} == page["counts"]


@pytest.mark.parametrize("kind", ["none", "one", "failed"])
def test_a_page_is_made_of_whatever_there_is(kind: str, make_result: Make, tmp_path: Path) -> None:
    """No results, one, all failed: a page, never an exception."""
    results = {
        "none": [],
        "one": [make_result()],
        "failed": [make_result(n, state=State.FAILED, reason="no", accuracy=None, latency=[]) for n in "ab"],
    }[kind]
    page = shown(results, tmp_path)

    assert len(page["rows"]) == len(results)
    assert bool(page["answers"]) is (kind == "one")
    assert page["boards"] == []


def test_an_unknown_metric_is_shown_in_its_own_unit(make_result: Make, tmp_path: Path) -> None:
    """A score beyond 1 is no fraction: it is not made a per cent, in none of the task's rows."""
    rows = [make_result("a", 0.5), make_result("b", 12.0)]
    page = shown(rows, tmp_path)
    assert sorted(row["score"] for row in page["rows"]) == [0.5, 12.0]
    assert {row["unit"] for row in page["rows"]} == {""}


def test_what_is_not_known_is_null(make_result: Make, tmp_path: Path) -> None:
    """A record without accuracy, file or speed; an infinite number; a question that could not be asked."""
    asked = Answer(
        question="lookalikes", kind="retrieval", metric="map", value=None, n=0, higher_is_better=True,
        ci95=None, reference=None, drop=None, reason="no data",
    )  # fmt: skip
    bare = make_result(accuracy=None, artifact=None, latency=[], throughput=[], gauntlet=[asked])
    (row,) = shown([bare], tmp_path)["rows"]
    assert (row["score"], row["p50"], row["mb"], row["images_per_s"], row["asked"]) == (
        None, None, None, None, [[0, None, None, None]],
    )  # fmt: skip
    infinite = make_result(p50=float("inf"))
    assert shown([infinite], tmp_path)["rows"][0]["p50"] is None


def test_raw_times_become_a_histogram(make_result: Make, tmp_path: Path) -> None:
    """Every call is counted once, the late ones beyond the last bin."""
    result = make_result()
    path = store.path_of(tmp_path, result.system.id, result.cell, None)
    times = np.arange(1000, 2000, dtype=np.int64) * 1000
    samples = store.write_samples(path, {"latency-1": [times[:500], times[500:]]})
    result = msgspec.structs.replace(result, samples=samples)
    store.write(path, result)

    (row,) = shown([result], tmp_path)["rows"]
    found = row["histogram"]
    assert sum(found["counts"]) + found["beyond"] == 1000
    assert found["beyond"] == 10
    assert (found["start"], found["longest"]) == (1.0, 1.999)
    assert row["evidence"]["record"] == str(path.relative_to(tmp_path))

    path.with_name(samples.file).unlink()
    (row,) = shown([result], tmp_path)["rows"]
    assert row["histogram"] is None
    assert samples.file in row["no_histogram"]


def test_times_that_are_all_the_same_have_a_histogram() -> None:
    found = evidence.histogram(np.full(7, 0.25))
    assert sum(found["counts"]) + found["beyond"] == 7
    assert found["step"] > 0


def test_without_raw_times_the_page_says_so(make_result: Make, tmp_path: Path) -> None:
    (row,) = shown([make_result()], tmp_path)["rows"]
    assert (row["histogram"], row["no_histogram"]) == (None, "the record names no raw times")


def test_families_beyond_the_palette_are_one(make_result: Make, tmp_path: Path) -> None:
    names = ["test_resnet", "test_convnext2", "test_vit_patch8", "test_efficientnet", "test_coatnet", "mine"]
    assert shown([make_result(n) for n in names], tmp_path)["families"][-1] == page_data.UNKNOWN

    names += ["regnetx_004.pycls_in1k", "mobilenetv3_large_100.ra_in1k"]
    page = shown([make_result(n) for n in names], tmp_path)
    assert len(page["families"]) == 7
    assert page["families"][-1] == page_data.OTHER
    assert {row["hue"] for row in page["rows"]} <= set(page["families"])


def test_a_lower_precision_stands_beside_fp32(make_result: Make, tmp_path: Path) -> None:
    rows = [make_result("a", 0.9, 2.0), make_result("a", 0.88, 1.0, cell={"precision": Precision.INT8})]
    (step,) = shown(rows, tmp_path)["steps"]
    assert (step["faster"], step["gained"], step["told_apart"]) == (2.0, -2.0, True)


def test_a_published_table_has_its_figures(tmp_path: Path) -> None:
    """All of the z matrix, and every two settings both ways round."""
    (board,) = shown([], tmp_path, beside=store.read_boards(PUBLISHED))["boards"]
    assert (len(board["heat"]["rows"]), len(board["heat"]["columns"])) == (33, 8)
    rhos = np.array(board["agreement"]["values"], dtype=float)
    assert np.array_equal(rhos, rhos.T, equal_nan=True)
    assert (np.nanmin(rhos).round(2), np.nanmax(rhos).round(2)) == (0.42, 0.98)
    assert [place["rank"] for place in board["places"]] == list(range(1, 34))
    assert "nb_plotting.ipynb" in board["source"]


def test_too_many_cells_are_cut_to_the_best_of_each_ranking(
    make_result: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_data, "MOST", 4)
    rows = [
        make_result(f"b{i}", 0.9, 1.0 + i, cell={"task": task})
        for task in ("digits", "mine")
        for i in range(9)
    ]
    page = shown(rows, tmp_path)
    assert sorted((row["task"], row["backbone"]) for row in page["rows"]) == [
        ("digits", "b0"), ("digits", "b1"), ("mine", "b0"), ("mine", "b1"),
    ]  # fmt: skip
    assert page["bounded"].startswith("This page holds 4 of 18 cells")


def test_problems_are_told(tmp_path: Path) -> None:
    assert shown([], tmp_path, problems=["x.json is damaged"])["problems"] == ["x.json is damaged"]


def test_a_long_table_is_cut_and_says_so(
    make_result: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_data, "LONG", 2)
    precisions = (Precision.FP32, Precision.INT8)
    rows = [make_result(f"b{i}", cell={"precision": precision}) for i in range(5) for precision in precisions]
    ladders = next(table for table in shown(rows, tmp_path)["costs"] if table["title"] == "Precision ladders")
    assert (len(ladders["rows"]), ladders["of"]) == (2, 5)
