"""The page as a file: whole, self-contained, and nothing from a record can become markup."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("vl_convert", reason="pip install 'bobrt[report]'")

from bench import show, store
from bench.show import html_report

if TYPE_CHECKING:
    from collections.abc import Callable

    from support import Ran

    from bobrt.result import Result

    Make = Callable[..., Result]

STYLE = Path(html_report.__file__).with_name("page") / "page.css"
NASTY = "</script><script>alert(1)</script><!--\u2028"
LEAST_CONTRAST = 4.5


@pytest.fixture(scope="module")
def page(make_result: Make, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of rows whose names are attacks."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    rows = [make_result(NASTY, caveats=[NASTY]), make_result("b", 0.8)]
    html_report.write(rows, None, [path.parent], path, [NASTY])
    return path.read_text()


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="page-data">(.*?)</script>', page, re.DOTALL)
    assert found
    content: dict[str, Any] = json.loads(found[1])
    return content


def test_a_name_cannot_leave_the_data(page: str) -> None:
    """It is there as text, and nowhere else."""
    assert data_of(page)["rows"][0]["backbone"] == NASTY
    assert "alert(1)</script>" not in page
    assert page.count("</script>") == 3
    assert "\u2028" not in page.partition('id="page-data"')[2].partition("</script>")[0]


def test_nothing_is_fetched(page: str) -> None:
    """No address in the markup, and a policy that would not let one be followed."""
    markup = re.sub(r"<script.*?</script>|<style>.*?</style>", "", page, flags=re.DOTALL)
    assert not re.search(r"\b(?:src|href)=\"(?!#)", markup)
    assert "url(" not in STYLE.read_text()
    assert "default-src 'none'; script-src 'sha256-" in markup


def test_no_part_is_left_out(page: str) -> None:
    assert not re.search(r"<!--[A-Z]+-->", page)
    assert "window.vegaEmbed=" in page


def test_the_same_results_give_the_same_page(make_result: Make, tmp_path: Path) -> None:
    for name in ("a", "b"):
        html_report.write([make_result()], None, [tmp_path], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("ink", ["ink", "quiet", "link", "warn"])
@pytest.mark.parametrize("ground", ["ground", "raised", "tag"])
def test_text_can_be_read(ink: str, ground: str, mode: int) -> None:
    """WCAG 2's contrast of every text colour on every ground, from the stylesheet."""
    found = re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", STYLE.read_text())
    colours = {name: both[mode] for name, *both in found}
    lighter, darker = sorted(map(luminance, (colours[ink], colours[ground])), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= LEAST_CONTRAST


def luminance(colour: str) -> float:
    """Return WCAG's relative luminance of `#rrggbb`."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.fixture
def folder(make_result: Make, tmp_path: Path) -> Path:
    """A results folder of two rows."""
    for name in ("a", "b"):
        result = make_result(name)
        store.write(store.path_of(tmp_path, result.system.id, result.cell, None), result)
    return tmp_path


def test_the_page_is_written_where_it_is_asked_for(here: Callable[..., Ran], folder: Path) -> None:
    """Beside the results if nobody says; the path alone is on stdout; what cannot be read is on the page."""
    ran = here("report", "--results", folder, "--format", "html")
    assert (ran.code, ran.out) == (0, f"{folder / 'report.html'}\n")

    (folder / "broken.json").write_text("{")
    path = folder / "new" / "page.html"
    ran = here("report", "--results", folder, "--format", "html", "--output", path)
    assert (ran.code, ran.out) == (0, f"{path}\n")
    content = data_of(path.read_text())
    assert sorted(row["backbone"] for row in content["rows"]) == ["a", "b"]
    assert "broken.json" in content["problems"][0]


@pytest.mark.parametrize(("kind", "start"), [("svg", b"<svg"), ("png", b"\x89PNG")])
def test_the_figures_are_written_into_a_folder(
    here: Callable[..., Ran], folder: Path, kind: str, start: bytes
) -> None:
    ran = here("report", "--results", folder, "--format", kind, "--output", folder / "paper")
    paths = [Path(line) for line in ran.out.splitlines()]
    assert ran.code == 0
    assert [path.parent for path in paths] == [folder / "paper"]
    assert all(path.read_bytes().startswith(start) for path in paths)


def test_csv_is_on_stdout(here: Callable[..., Ran], folder: Path) -> None:
    lines = here("report", "--results", folder, "--format", "csv").out.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["backbone", "a", "b"]


def test_an_output_is_for_files(here: Callable[..., Ran], folder: Path) -> None:
    """A table goes to stdout: where else it should go is a mistake."""
    ran = here("report", "--results", folder, "--output", folder / "x")
    assert ran.code == 2
    assert "--format html" in ran.err


def test_without_the_extra_there_is_a_line_to_install_it(
    here: Callable[..., Ran], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    for name in ("vega", "html_report", "figure_report"):
        monkeypatch.delitem(sys.modules, f"bench.show.{name}", raising=False)
        monkeypatch.delattr(show, name, raising=False)
    ran = here("report", "--results", folder, "--format", "html")
    assert ran.code == 3
    assert "pip install 'bobrt[report]'" in ran.err
