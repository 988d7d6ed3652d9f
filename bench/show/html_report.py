"""The report as one HTML file: opens from disk, asks no network, shows what records say as text.

The page's own code and style are in the folder `page`. What comes from records is one block of JSON, never
markup; a content security policy lets run the two scripts that are in the file, by their digests, and
nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import TYPE_CHECKING

import msgspec

from bench.show import figures, page_data, vega
from bobrt import __version__
from bobrt.paths import write_atomic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.store import Boards
    from bobrt.result import Result
    from bobrt.spec import Json

SCRIPTS = ("base.js", "figures.js", "sections.js", "tables.js", "evidence.js", "page.js")
"""The page's own code: one script in the file, in this order."""
NAME = "report.html"
"""What the file is called where nobody says, in the results folder."""


def write(
    results: Sequence[Result],
    beside: Boards | None,
    folders: Sequence[Path],
    path: Path,
    problems: Sequence[str] = (),
) -> None:
    """Write the page.

    Args:
        results: Records of one folder or several, each cell once; none is a page that says so.
        beside: Published tables, and what the results are measured against.
        folders: Where the records lie, to find their raw times.
        path: The file.
        problems: Files that could not be read, a line each.

    Raises:
        MachineError: The file cannot be written.

    """
    write_atomic(path, document(page_data.page(results, beside, folders, problems)).encode())


def document(page: dict[str, Json]) -> str:
    """Return the page's HTML around its data."""
    content = {**page, "bobrt": __version__, "config": figures.CONFIG, "figures": _figures(page["families"])}
    library, code = vega.bundle(), "\n".join(map(_part, SCRIPTS))
    parts = {
        "POLICY": _policy(library, code),
        "STYLE": _part("page.css"),
        "DATA": _embedded(content),
        "LIBRARY": library,
        "CODE": code,
    }
    html = _part("page.html")
    for name, part in parts.items():
        before, _, after = html.partition(f"<!--{name}-->")
        html = before + part + after
    return html


def _figures(families: list[str]) -> dict[str, Json]:
    return {
        "front": figures.front(families, ""),
        "ladder": figures.ladder(families),
        "question": figures.question(families, ""),
        "ranks": figures.ranks(),
        "heat": figures.heat(),
        "agreement": figures.agreement(),
        "histogram": figures.histogram(),
    }


def _part(name: str) -> str:
    return resources.files("bench.show").joinpath("page", name).read_text(encoding="utf-8")


def _embedded(content: dict[str, Json]) -> str:
    """Return JSON that no text in it can end: `<` and the line ends of JavaScript are escaped."""
    text = msgspec.json.encode(content).decode()
    for character in "<\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _policy(*scripts: str) -> str:
    """Return a policy under which these scripts run and nothing is fetched."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    sources = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
