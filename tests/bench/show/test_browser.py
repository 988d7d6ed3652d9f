"""The page in a real browser: it draws, filters, sorts, opens evidence, and asks nothing of anybody."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from bench import store
from bobrt.result import Answer
from bobrt.spec import Precision, State

pytest.importorskip("vl_convert", reason="pip install 'bobrt[report]'")
sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")

from bench.show import html_report, vega  # noqa: E402 - not there without vl_convert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bobrt.result import Result

    Make = Callable[..., Result]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install -y chromium")
SCRIPT = "<script>document.title='attacked'</script>"
MB = 1_000_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(make_result: Make, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of two tasks, four backbones at two precisions, one of them an attack, and one that failed."""
    folder = tmp_path_factory.mktemp("results")
    rows = [
        make_result(
            name,
            0.9 + i / 100,
            (4.0 - i) * speed,
            cell={"precision": precision, "task": task},
            gauntlet=[_answer(i)],
        )
        for task in ("digits", "mine")
        for i, name in enumerate(["test_resnet", "test_vit_patch8", "test_convnext2", SCRIPT])
        for precision, speed in ((Precision.FP32, 1.0), (Precision.INT8, 0.7))
    ]
    rows[0] = _with_samples(msgspec.structs.replace(rows[0], caveats=["few-rounds", SCRIPT]), folder)
    rows.append(make_result("broken", state=State.FAILED, reason="out of memory", accuracy=None, latency=[]))
    html_report.write(rows, None, [folder], folder / "report.html")
    return (folder / "report.html").as_uri()


def _answer(i: int) -> Answer:
    return Answer(
        question="corruptions", kind="corruption", metric="top1", value=0.5 + i / 10, n=200,
        higher_is_better=True, ci95=(0.4, 0.9), reference=None, drop=None,
    )  # fmt: skip


def _with_samples(result: Result, folder: Path) -> Result:
    path = store.path_of(folder, result.system.id, result.cell, None)
    times = np.random.default_rng(0).normal(4e6, 1e5, 500).astype(np.int64)
    result = msgspec.structs.replace(result, samples=store.write_samples(path, {"latency-1": [times]}))
    store.write(path, result)
    return result


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open an address and wait until all is drawn; errors and requests end the test."""
    told: list[str] = []
    contexts = []

    def opened(address: str, **options: Any) -> Any:
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}))
        page = contexts[-1].new_page()
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith("file:") else told.append(asked.url))
        page.goto(address)
        page.wait_for_selector("html[data-drawn]")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert told == []


def backbones(page: Any) -> list[str]:
    found: list[str] = page.locator("#table tbody th button").all_inner_texts()
    return found


def settled(page: Any, ready: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 10
    while not ready():
        assert time.monotonic() < deadline
        page.wait_for_timeout(20)


def test_it_draws_and_answers(open_page: Callable[..., Any], report: str) -> None:
    """The answer, every figure with a text alternative, every row; the attack is a name."""
    page = open_page(report)

    assert "is the fastest of those tied for the best accuracy" in page.locator("h1").inner_text()
    charts = page.locator(".chart")
    assert charts.count() >= 7
    for chart in charts.all():
        assert chart.locator("svg path").count() > 0
        assert len(chart.get_attribute("aria-label")) > 20
    assert len(backbones(page)) == 17
    assert SCRIPT in backbones(page)
    assert page.title() == "bobrt report"
    assert "out of memory" in page.locator("#unranked").inner_text()


def test_a_filter_is_kept_in_the_address(open_page: Callable[..., Any], report: str) -> None:
    """Choosing one changes rows, figures and address; opening that address restores them."""
    page = open_page(report)
    page.select_option("#filter-task", "mine")
    page.select_option("#filter-precision", "int8")
    page.fill("#filter-q", "resnet")
    settled(page, lambda: backbones(page) == ["test_resnet"])
    assert page.locator("#front figure").count() == 1
    assert "1 of 17 rows" in page.locator("#matched").inner_text()
    page.click('[data-sort="p50"]')

    again = open_page(page.url)
    assert again.url.endswith("#task=mine&precision=int8&q=resnet&sort=p50")
    assert backbones(again) == ["test_resnet"]
    assert again.input_value("#filter-task") == "mine"
    assert again.input_value("#filter-q") == "resnet"
    again.click("#clear")
    assert len(backbones(again)) == 17


def test_a_heading_sorts(open_page: Callable[..., Any], report: str) -> None:
    """Up, then down, said to a screen reader; what was not measured stays last."""
    page = open_page(report)
    head = page.locator("th:has([data-sort=score])")
    for order, first in (("ascending", "test_resnet"), ("descending", SCRIPT)):
        page.click('[data-sort="score"]')
        assert head.get_attribute("aria-sort") == order
        assert (backbones(page)[0], backbones(page)[-1]) == (first, "broken")


def test_a_row_and_a_point_open_their_evidence(open_page: Callable[..., Any], report: str) -> None:
    """File, hash, caveats and remedies, the record's path, the histogram; closing gives the focus back."""
    page = open_page(f"{report}#task=digits&precision=fp32")
    page.click('[data-row]:text-is("test_resnet")')
    dialog = page.locator("dialog")
    dialog.locator(".chart svg").wait_for()
    said = dialog.inner_text().replace("\u00a0", " ")
    for part in ("0" * 64, "--repeat 3", SCRIPT, "/digits/test_resnet/", "p50 4.00 ms", "Versions"):
        assert part in said
    assert "row=" in page.url
    again = open_page(page.url)
    assert again.locator("dialog").is_visible()

    page.keyboard.press("Escape")
    settled(page, lambda: not dialog.is_visible())
    assert "row=" not in page.url
    assert page.evaluate("document.activeElement.textContent") == "test_resnet"
    page.locator("#front .mark-symbol path").first.click()
    assert dialog.is_visible()


def test_the_keyboard_alone_reaches_a_row(open_page: Callable[..., Any], report: str) -> None:
    """The skip link comes first; from the rows on, Tab reaches a name and Enter opens it."""
    page = open_page(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "rows-title"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('[data-row]')"):
            break
    page.keyboard.press("Enter")
    assert page.locator("dialog").is_visible()


def test_it_is_dark_where_that_is_preferred(open_page: Callable[..., Any], report: str) -> None:
    """As the system says, or as the button does; the figures' text follows."""
    page = open_page(report, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('.chart text')).fill"
    assert (page.evaluate(ground), page.evaluate(ink)) == ("rgb(20, 23, 26)", "rgb(231, 233, 235)")
    page.click("#theme")
    assert (page.evaluate(ground), page.evaluate(ink)) == ("rgb(255, 255, 255)", "rgb(28, 35, 41)")


def test_a_table_beside_a_figure_opens(open_page: Callable[..., Any], report: str) -> None:
    """Made when it is asked for, and still open after a filter has changed; printing opens all."""
    page = open_page(report)
    ladders = page.locator("#ladder details")
    assert ladders.locator("table").count() == 0
    ladders.locator("summary").click()
    ladders.locator("table").wait_for()
    page.select_option("#filter-precision", "int8")
    page.locator("#ladder details[open] table").wait_for()

    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details").count() == page.locator("details[open] table").count() > 1


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_of_the_window(open_page: Callable[..., Any], report: str, width: int) -> None:
    """Wide tables scroll in a frame of their own."""
    page = open_page(report, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("kind", ["none", "one", "failed"])
def test_an_empty_page_says_so(
    open_page: Callable[..., Any], make_result: Make, tmp_path: Path, kind: str
) -> None:
    """No error in the browser, and a line that says what there is."""
    failed = make_result(state=State.FAILED, reason="no", accuracy=None, latency=[])
    rows = {"none": [], "one": [make_result()], "failed": [failed]}[kind]
    html_report.write(rows, None, [tmp_path], tmp_path / "report.html")
    page = open_page((tmp_path / "report.html").as_uri())
    start = {"none": "No results yet", "one": "Of 1 verified", "failed": "No engine is ranked"}[kind]
    assert page.locator("h1").inner_text().startswith(start)


def test_a_thousand_cells_are_light_and_quick(
    open_page: Callable[..., Any], make_result: Make, tmp_path: Path
) -> None:
    """Under 3 MB with a histogram and a gauntlet in every row; a filter answers at once."""
    rows = []
    times = np.random.default_rng(0).normal(4e6, 1e5, 300).astype(np.int64)
    for i in range(1000):
        cell = {"precision": list(Precision)[i % 2], "task": f"task{i % 10}", "seed": i % 4}
        row = make_result(
            f"backbone{i // 20}", 0.5 + i / 2500, 1.0 + i / 100, cell=cell, gauntlet=[_answer(i % 5)]
        )
        path = store.path_of(tmp_path, row.system.id, row.cell, None)
        rows.append(msgspec.structs.replace(row, samples=store.write_samples(path, {"latency-1": [times]})))
        store.write(path, rows[-1])
    started = time.monotonic()
    html_report.write(rows, None, [tmp_path], tmp_path / "report.html")
    assert time.monotonic() - started < 10
    assert (tmp_path / "report.html").stat().st_size < 3 * MB

    page = open_page((tmp_path / "report.html").as_uri())
    assert len(backbones(page)) == 1000
    page.select_option("#filter-task", "task3")
    settled(page, lambda: len(backbones(page)) == 100)


def test_the_library_holds_no_end_of_a_script() -> None:
    """Else the page would end in the middle of it."""
    assert "</script" not in vega.bundle().lower()
