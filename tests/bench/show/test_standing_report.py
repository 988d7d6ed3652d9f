"""What a reader sees of a standing: the published one, one of results, and where there is too little."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from boards import PUBLISHED, drawn, made, published

from bench import store
from bench.show import report, standing_report
from bobrt.result import Answer
from bobrt.spec import Cell, Precision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import Ran

    from bobrt.result import Result

    Make = Callable[..., Result]


@pytest.fixture
def rows(make_result: Make) -> list[Result]:
    """Three backbones with two questions each, at two precisions."""
    found = []
    for i, name in enumerate(["test_resnet", "test_convnext2", "mine|<b>"]):
        for precision in (Precision.FP32, Precision.INT8):
            asked = Answer(
                question="corruptions",
                kind="corruption",
                metric="top1",
                value=0.5 + i / 10,
                n=200,
                higher_is_better=True,
                ci95=None,
                reference=None,
                drop=None,
            )
            cell = {"precision": precision}
            found.append(make_result(name, 0.9 + i / 100, 1.0 + i, cell=cell, gauntlet=[asked]))
    return found


def test_the_published_table_is_shown_by_its_folder(here: Callable[..., Ran]) -> None:
    """`bobrt report` on it: the order, the span of Spearman, the source; nothing else is there."""
    ran = here("report", "--results", PUBLISHED)

    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[0] == "Standing: Battle of the Backbones: retrieval"
    first = next(line.split() for line in lines if line.split()[:1] == ["1"])
    assert first[1:3] == ["timm-swinv2_base_window12to24_192to384_22kft1k", "+1.03"]
    assert "How alike settings rank: Spearman 0.42 to 0.98, median 0.72" in lines
    assert any("nb_plotting.ipynb, cell 8" in line for line in lines)
    assert ran.err == ""


def test_as_json_it_is_whole_and_strict(here: Callable[..., Ran]) -> None:
    """All places, all pairs, every z; no records."""
    ran = here("report", "--results", PUBLISHED, "--json")
    content = json.loads(ran.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    (found,) = content["standings"]

    assert (content["schema"], content["results"]) == (1, [])
    assert [place["rank"] for place in found["places"]] == list(range(1, 34))
    assert (len(found["z"]), len(found["alike"]), len(found["pool"])) == (33, 28, 33)
    assert found["settings"][0] == {
        "name": "CUB200",
        "group": "retrieval",
        "metric": "mrr",
        "higher_is_better": True,
        "random": 0.0,
        "perfect": 1.0,
    }


def test_a_damaged_table_is_named_and_the_rest_is_shown(here: Callable[..., Ran], tmp_path: Path) -> None:
    """One line on stderr; with nothing else there, nothing matched."""
    (tmp_path / "scores.toml").write_text("title = 1\n")
    ran = here("report", "--results", tmp_path)
    assert ran.code == 4
    assert "line 1" in ran.err
    assert "left out" in ran.err

    (tmp_path / "good").mkdir()
    for name in ("scores.toml", "scores.csv"):
        (tmp_path / "good" / name).write_bytes((PUBLISHED / name).read_bytes())
    ran = here("report", "--results", tmp_path)
    assert ran.code == 0
    assert "left out" in ran.err
    assert ran.out.startswith("Standing: ")


def test_results_have_a_standing_for_each_kind_of_engine(
    rows: list[Result], capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind the rankings of the tasks, with what the engines cost; in every format."""
    report.as_table(rows)
    out = capsys.readouterr().out
    assert out.index("Standing: ort-cpu fp32") > out.index("digits, finetune, on")
    assert out.index("Standing: ort-cpu int8") > out.index("Standing: ort-cpu fp32")

    title, table = standing_report.tables(standing_report.boards(rows)[0], rows)[0]
    assert title.startswith("Standing: ort-cpu fp32, on ")
    assert table.header[-2:] == ["p50 ms", "front"]
    assert [(line[1], *line[-2:]) for line in table.rows] == [
        ("mine|<b>", "3", "*"),
        ("test_convnext2", "2", "*"),
        ("test_resnet", "1", "*"),
    ]
    budgets = dict(standing_report.tables(standing_report.boards(rows)[0], rows))["The best under a budget"]
    assert [line[:3] for line in budgets.rows if line[0] == "p50_ms"] == [
        ["p50_ms", "1", "test_resnet"],
        ["p50_ms", "2", "test_convnext2"],
        ["p50_ms", "3", "mine|<b>"],
    ]
    assert [line[:3] for line in budgets.rows if line[0] == "bytes"] == [["bytes", "1.5e+06", "mine|<b>"]]
    assert budgets.rows[2][4] == "0.00"
    page = report.as_markdown(rows)
    assert "## Standing: ort-cpu fp32" in page
    assert "mine\\|<b>" in page
    assert standing_report.LEGEND in page

    report.as_json(rows)
    content = json.loads(capsys.readouterr().out)
    assert [s["engines"]["precision"] for s in content["standings"]] == ["fp32", "int8"]


def test_a_folder_s_pool_is_the_scale(rows: list[Result], here: Callable[..., Ran], tmp_path: Path) -> None:
    """With a pool of two the third moves neither; without one it does."""
    for result in rows:
        store.write(store.path_of(tmp_path, result.system.id, cell_of(result), None), result)
    said = here("report", "--results", tmp_path, "--json")
    assert json.loads(said.out)["standings"][0]["places"][-1]["z"] == pytest.approx(-(1.5**0.5))

    (tmp_path / "standing.toml").write_text('pool = ["test_resnet", "test_convnext2"]\n')
    said = here("report", "--results", tmp_path, "--json")
    (found, _) = json.loads(said.out)["standings"]
    assert found["pool"] == ["test_convnext2", "test_resnet"]
    assert [place["z"] for place in found["places"]] == pytest.approx([3.0, 1.0, -1.0])
    report.write_markdown(store.read_all(tmp_path).results, tmp_path / "report.md")
    assert "Pool: 2 of 3 backbones." in (tmp_path / "report.md").read_text()


def cell_of(result: Result) -> Cell:
    """Return the cell of a record."""
    return Cell(**{name: getattr(result.cell, name) for name in Cell.__struct_fields__})


def test_with_too_little_there_is_no_standing(
    make_result: Make, rows: list[Result], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two backbones, or one setting: the rankings say it all, and JSON is as it was."""
    assert standing_report.boards([make_result(name) for name in "abc"]) == []
    assert standing_report.boards(rows[:4]) == []
    report.as_json([make_result(name) for name in "abc"])
    assert json.loads(capsys.readouterr().out).keys() == {"schema", "results"}
    assert standing_report.LEGEND not in report.as_markdown(rows[:4])


def test_whoever_is_not_placed_is_named() -> None:
    """In a table of its own, with the reason; a setting that says nothing in a line."""
    nan = float("nan")
    board = made([[0.9, 0.8, 0.5], [0.5, 0.6, 0.5], [nan, 0.3, 0.5], [nan, nan, nan]])
    parts = dict(standing_report.tables(board))
    assert [row[0] for row in parts["Not in the standing: made up"].rows] == ["b3"]
    notes = standing_report.notes(board)
    assert "s2 says nothing: all of the pool score the same." in notes
    assert "Pool: 4 of 4 backbones." in notes


def test_nobody_placed_is_said() -> None:
    """A board of one backbone, or without a score, is a sentence and no failure."""
    for scores in ([[0.9, 0.8]], [[float("nan")] * 2] * 3):
        board = made(scores)
        assert standing_report.notes(board)[0].startswith("No backbone of made up has a standing")
        assert dict(standing_report.tables(board))["Standing: made up"].rows == []
        assert standing_report.as_dict(board)["places"] == []


def test_what_has_no_room_is_counted() -> None:
    """A table of pairs has thirty rows; the rest is in the JSON, and that is said."""
    board = drawn(0, 10, 10)
    parts = dict(standing_report.tables(board))
    title = next(title for title in parts if title.startswith("How alike settings rank"))
    assert len(parts[title].rows) == standing_report.MOST
    assert "How alike settings rank: 15 more pairs in `--format json`." in standing_report.notes(board)
    assert len([a for a in standing_report.as_dict(board)["alike"] if a["a"].startswith("s")]) == 45


def test_a_tie_is_shown() -> None:
    """An equals sign before the rank of who is not told apart from the one above."""
    board = made([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7], [0.1, 0.1, 0.1]])
    ranks = [row[0] for row in standing_report.tables(board)[0][1].rows]
    assert ranks == ["1", "=1", "3"]


def test_the_sentence_of_the_published_table() -> None:
    """Who is first, of how many, and how firmly."""
    assert standing_report.notes(published())[0] == (
        "Over 8 settings timm-swinv2_base_window12to24_192to384_22kft1k is first of 33 backbones: z +1.03, "
        "rank 1-6 with other settings like these."
    )
