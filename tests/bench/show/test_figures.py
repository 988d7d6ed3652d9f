"""The figures: Vega-Lite takes every one of them, and what is drawn is what was measured."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from boards import PUBLISHED

pytest.importorskip("vl_convert", reason="pip install 'bobrt[report]'")

from bench import store
from bench.show import figure_report, figures, vega
from bobrt.result import Answer
from bobrt.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bobrt.result import Result

    Make = Callable[..., Result]


@pytest.fixture
def rows(make_result: Make) -> list[Result]:
    """Three backbones at two precisions, one of a name no file may have, asked one question each."""
    asked = Answer(
        question="corruptions", kind="corruption", metric="top1", value=0.5, n=200, higher_is_better=True,
        ci95=(0.4, 0.6), reference=None, drop=None,
    )  # fmt: skip
    return [
        make_result(
            name,
            0.9 + i / 100,
            (1.0 + i) * speed,
            cell={"precision": precision, "task": "a/b"},
            gauntlet=[asked],
        )
        for i, name in enumerate(["test_resnet", "test_vit_patch8", "<b>&"])
        for precision, speed in ((Precision.FP32, 1.0), (Precision.INT8, 0.5))
    ]


def point(**changes: Any) -> dict[str, Any]:
    given = {"backbone": "a", "family": "f", "precision": "fp32", "told": "", "front": True}
    bars = {"score": 90.0, "low": 89.0, "high": 91.0, "p50": 1.0, "p50_low": 0.9, "p50_high": 1.1}
    return {**given, **bars, **changes}


def drawn(spec: dict[str, Any]) -> str:
    return vega.svg(spec).decode()


def test_every_figure_becomes_a_file(rows: list[Result], tmp_path: Path) -> None:
    """Results and a published table: one file each, under names any system takes."""
    paths = figure_report.write(rows, store.read_boards(PUBLISHED), tmp_path, "svg")

    assert sorted(tmp_path.iterdir()) == sorted(paths)
    kinds = {path.name.partition("-")[0].removesuffix(".svg") for path in paths}
    assert kinds == {"front", "precision", "gauntlet", "z", "ranks", "alike"}
    for path in paths:
        assert re.fullmatch(r"[\w.@-]+\.svg", path.name)
        assert path.read_text().startswith("<svg")
    (front,) = (path.read_text() for path in paths if path.name.startswith("front"))
    assert "&lt;b&gt;&amp;" in front
    assert "<b>" not in front


def test_a_figure_becomes_a_picture(tmp_path: Path, rows: list[Result]) -> None:
    (first, *_) = figure_report.write(rows[:1], None, tmp_path, "png")
    assert first.read_bytes().startswith(b"\x89PNG")


def test_nothing_measured_is_no_figure(tmp_path: Path) -> None:
    assert figure_report.write([], None, tmp_path, "svg") == []


def test_families_differ_in_colour_and_precisions_in_shape() -> None:
    """Colours of the palette, one grey beyond it."""
    families = [f"f{i}" for i in range(7)]
    points = [point(family=name, p50=1.0 + i) for i, name in enumerate(families)]
    svg = drawn(figures.filled(figures.front(families), points))
    for colour in (*figures.PALETTE, figures.OTHERS):
        assert f'fill="{colour}"' in svg
    assert len(set(figures.SHAPES.values())) == len(Precision)


def test_text_takes_the_colour_around_it() -> None:
    """So that one figure is read on light and on dark."""
    svg = drawn(figures.filled(figures.front(["f"]), [point()]))
    assert set(re.findall(r'<text[^>]* fill="([^"]+)"', svg)) == {"currentColor"}


def test_what_no_row_has_is_no_layer() -> None:
    """No front and no bar of latency among these rows: a figure without them, not an error."""
    spec = figures.filled(figures.front(["f"]), [point(front=False, p50_low=None, p50_high=None)])
    assert len(spec["layer"]) == len(figures.front(["f"])["layer"]) - 3
    assert "<svg" in drawn(spec)


def test_a_figure_is_as_tall_as_its_names() -> None:
    few, many = (figures.filled(figures.heat(), figures.cells(matrix(count)))["height"] for count in (2, 20))
    assert many == 10 * few


def test_a_missing_number_is_no_cell() -> None:
    cells = figures.cells({"rows": ["a", "b"], "columns": ["x"], "values": [[1.0], [None]]})
    assert cells == [{"row": "a", "column": "x", "value": 1.0, "order": 0, "place": 0}]


def matrix(count: int) -> dict[str, Any]:
    return {
        "rows": [f"b{i}" for i in range(count)],
        "columns": ["s"],
        "values": [[float(i)] for i in range(count)],
    }
