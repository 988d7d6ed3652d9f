"""The README's picture: the top of the HTML report of committed results, in a real browser.

    .venv/bin/python -P tests/benchmarks/screenshot.py [RESULTS [PICTURE]]

Needs Debian's chromium and the extras `report` and `dev`.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from bench import store
from bench.show import html_report
from bobrt import console

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "published" / "gauntlet"
PICTURE = ROOT / "docs" / "images" / "report.png"
SIZE = {"width": 1280, "height": 1180}
COLOURS = 255
"""Of the picture's palette: a page of text and dots needs no more, and a repository keeps every version."""


def shot(page: Path) -> bytes:
    """Return what a window of `SIZE` shows of a page, as PNG."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        window = browser.new_page(viewport=SIZE, color_scheme="light")
        window.goto(page.as_uri())
        window.wait_for_selector("html[data-drawn]")
        picture: bytes = window.screenshot()
        browser.close()
    return picture


def main(results: Path = RESULTS, picture: Path = PICTURE) -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / html_report.NAME
        loaded = store.read_all(results)
        html_report.write(loaded.results, store.read_boards(results), [results], page, loaded.problems)
        drawn = Image.open(BytesIO(shot(page))).convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE)
    picture.parent.mkdir(parents=True, exist_ok=True)
    drawn.save(picture, optimize=True)
    console.data(f"{picture}, {picture.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
