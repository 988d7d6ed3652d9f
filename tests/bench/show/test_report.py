"""What a reader sees: numbers, tables, caveats."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

import bench
from bench.caveats import CAVEATS
from bench.show import report
from bench.show.numbers import digits
from bench.verdict import rank
from bobrt.result import Artifact
from bobrt.spec import Input, State
from bobrt.speed import Memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from bobrt.result import Result

    Make = Callable[..., Result]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123, "0.0123"),
        (1.23, "1.23"),
        (12.3, "12.3"),
        (123.0, "123"),
        (1230.0, "1230"),
        (0.999, "0.999"),
        (9.999, "10.0"),
        (0.9999, "1.00"),
        (99.99, "100"),
        (999.9, "1000"),
        (0.00012345, "0.000123"),
        (1.0, "1.00"),
        (24321.0, "24300"),
        (0.0, "0"),
        (0.00999999, "0.0100"),
        (-1.234, "-1.23"),
    ],
)
def test_three_significant_digits_and_no_exponent(value: float, text: str) -> None:
    """Every number for people has three digits that count, also where rounding carries over."""
    assert digits(value) == text


def cells(line: str) -> list[str]:
    """Split a line of a Markdown table as a renderer does: at bars that are not escaped."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def test_markdown_tables_have_as_many_cells_in_every_line(make_result: Make) -> None:
    """A bar inside a cell is escaped, so that no renderer takes it for a border."""
    odd = make_result("odd|name", state=State.FAILED, reason="a | b failed")
    text = report.as_markdown([make_result("a"), make_result("b|c", 0.8), odd])
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    widths = [len(report.RANKED), 7, 8, len(report.LEFT_OUT)]  # between them the fronts and the budgets
    for table, width in zip(tables, widths, strict=True):
        header, rule, *rows = table.splitlines()
        assert [len(cells(line)) for line in (header, rule, *rows)] == [width] * (len(rows) + 2)
        assert all(re.fullmatch("-{3,}:?", cell) for cell in cells(rule))
    assert r"b\|c" in tables[0]
    assert cells(tables[-1].splitlines()[2])[-1] == r"a \| b failed"


def test_markdown_gives_each_caveat_its_text_and_remedy(make_result: Make) -> None:
    """A name in the table is explained once below it; what nobody earned is not mentioned."""
    rows = [make_result("a", caveats=["few-samples"]), make_result("b", caveats=["few-samples", "limited"])]
    text = report.as_markdown(rows)
    for name in ("few-samples", "limited"):
        assert text.count(f"- **{name}**: {CAVEATS[name].text}. Remedy: {CAVEATS[name].remedy}.") == 1
    assert "stolen-cpu" not in text
    assert "## Caveats" not in report.as_markdown([make_result("a")])


def test_every_caveat_the_code_gives_is_explained_and_every_explanation_is_used() -> None:
    """The names in the code and the table of texts and remedies are the same set."""
    given: set[str] = set()
    for path in Path(str(bench.__file__)).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            parts: list[ast.expr] = []
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "caveats.add":
                parts = node.args
            elif isinstance(node, ast.Set) and path.stem in {"cell", "rounds", "watch"}:
                parts = node.elts
            given |= {str(part.value) for part in parts if isinstance(part, ast.Constant)}
    assert given == set(CAVEATS)
    for caveat in CAVEATS.values():
        assert len(caveat.text) > 20
        assert len(caveat.remedy) > 20
        assert not (caveat.text + caveat.remedy).endswith(".")


def test_a_ranked_row_shows_what_was_measured(make_result: Make) -> None:
    """Each figure of a record stands in its column, in the unit the header names."""
    row = make_result(
        "a", 0.9123, 0.06243, half=0.01, memory=Memory(engine_bytes=1, peak_bytes=129_100_000, what="")
    )
    (ranking,), _ = rank([row])
    table = report.ranked_table(ranking)
    assert dict(zip(table.header, table.rows[0], strict=True)) == {
        "rank": "1",
        "front": "*",
        "backbone": "a",
        "runtime": "ort-cpu",
        "precision": "fp32",
        "accuracy %": "91.2",
        "accuracy 95 %": "90.2-92.2",
        "drop": "+0.0",
        "p50 ms": "0.0624",
        "p50 bar": "0.0562-0.0687",
        "p90 ms": "",
        "p99 ms": "",
        "images/s": "128000",
        "file MB": "1.50",
        "peak MB": "129.1",
        "caveats": "",
    }


def test_a_machine_too_unsteady_for_an_answer_is_said(
    make_result: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where every row is unstable the last line says so and what to do, in the table and in the page."""
    row = make_result("a").latency[0]
    latency = [msgspec.structs.replace(row, spread_ms=(1.0, 2.0))]
    rows = [make_result(name, latency=latency, caveats=["unstable"]) for name in ("a", "b")]
    words = "No engine is ranked: 2 were timed and are unstable; quieten the machine"
    report.as_table(rows)
    assert capsys.readouterr().out.splitlines()[-1].startswith(words)
    assert words in report.as_markdown(rows)
    assert "No engine is ranked" not in report.as_markdown([*rows, make_result("c")])


def test_a_row_left_out_shows_its_file_and_the_reason_without_its_state_twice(make_result: Make) -> None:
    """An engine that was built and cannot run here still shows its size and build time."""
    engine = Artifact(kind="engine", path="e", sha256="0" * 64, bytes=2_680_000, build_s=0.214)
    odd = make_result("a", state=State.UNSUPPORTED, reason="no driver", artifact=engine)
    none = make_result("b", state=State.FAILED, reason="no file", artifact=None)
    table = report.left_out_table(rank([odd, none])[1])
    assert table.rows == [
        ["a", "ort-cpu", "fp32", "unsupported", "2.68", "0.21", "no driver"],
        ["b", "ort-cpu", "fp32", "failed", "", "", "no file"],
    ]


def test_piped_table_is_plain_and_marks_the_front(
    make_result: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """One row per line, columns aligned, the front marked, the answer in the last line."""
    report.as_table([make_result("a", 0.9, 1.0), make_result("b", 0.9, 2.0), make_result("c", accuracy=None)])
    lines = capsys.readouterr().out.splitlines()
    header = next(line for line in lines if line.startswith("rank"))
    starred = [line.split()[1:3] for line in lines if line.startswith("1") or line.lstrip().startswith("1 ")]
    assert ["*", "a"] in starred
    assert not any("*" in line and " b " in line for line in lines)
    assert all(len(line) <= max(map(len, lines)) and "\x1b" not in line for line in lines)
    assert header.index("backbone") == next(line for line in lines if " a " in line).index(" a ") + 1
    assert "unverified: its accuracy was not measured" in "\n".join(lines)
    assert lines[-1].startswith("Of 2 verified engines for digits, a fp32 on ort-cpu")


def test_json_is_strict_versioned_and_complete(make_result: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """Every record is there whole, whatever its state, in one document without NaN."""
    report.as_json([make_result("a"), make_result("b", state=State.FAILED, reason="no", accuracy=None)])

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    content = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert content["schema"] == 1
    assert [(r["cell"]["backbone"], r["state"]) for r in content["results"]] == [
        ("a", "complete"),
        ("b", "failed"),
    ]
    assert content["results"][1]["accuracy"] is None


def test_rows_at_different_sizes_say_so(make_result: Make) -> None:
    """Two checkpoints at their own sizes: the ranking has a column for it, and none where all are alike."""

    def at(name: str, size: int) -> Result:
        own = Input(size=size, crop_pct=0.9, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
        return msgspec.structs.replace(make_result(name), input=own)

    (ranking,), _ = rank([at("a", 224), at("b", 384)])
    table = report.ranked_table(ranking)
    assert sorted(row[table.header.index("px")] for row in table.rows) == ["224", "384"]
    (ranking,), _ = rank([at("a", 224), at("b", 224)])
    assert "px" not in report.ranked_table(ranking).header
