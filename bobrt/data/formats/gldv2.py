"""Google Landmarks v2: `index/` and `test/` in folders by the first three letters, and three tables.

The tables are where the publisher's scripts leave them: beside `index/` and `test/`, or inside.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from bobrt.data import Relevant, Retrieval
from bobrt.data.formats.labelled import split
from bobrt.data.formats.listed import AGAIN, table
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from bobrt.data import Split

SOLUTION = "retrieval_solution_v2.1.csv"
IGNORED = "Ignored"
USAGES = ("Public", "Private")
"""The two halves of the queries: what the challenge's leaderboard showed, and what it was decided by."""
NONE = np.zeros(0, dtype=np.int64)
_ID = re.compile(r"[0-9a-f]{16}")


def read(root: Path) -> Retrieval:
    """Return the index as the database, and those test images as queries that show something in it.

    Test images of the usage `Ignored` show no landmark of the index; they are no queries. The settings
    are `all`, `public` and `private`.

    Args:
        root: The folder with `index/` and `test/`.

    Raises:
        UsageError: A table is missing or malformed, or an image it names is not there.

    """
    index, test = _ids(root, "index"), _ids(root, "test")
    row_of = {name: row for row, name in enumerate(index)}
    queries: dict[str, str] = {}
    relevant: list[Relevant] = []
    usages: list[str] = []
    for where, (query, found, usage) in table(_table(root, "test", SOLUTION), ("id", "images", "Usage")):
        if query not in test:
            raise UsageError(f"{where}: image {query!r} is not in test.csv", AGAIN)
        if usage == IGNORED:
            continue
        if usage not in USAGES:
            raise UsageError(f"{where}: usage {usage!r} is none of {', '.join((*USAGES, IGNORED))}", AGAIN)
        if unknown := [name for name in found.split() if name not in row_of]:
            raise UsageError(f"{where}: image {unknown[0]!r} is not in index.csv", AGAIN)
        rows = sorted({row_of[name] for name in found.split()})
        if query in queries:
            raise UsageError(f"{where}: query {query!r} is there twice", AGAIN)
        queries[query] = where
        usages.append(usage)
        relevant.append(Relevant(np.array(rows, dtype=np.int64), NONE))
    settings = {"all": relevant}
    for usage in USAGES:
        settings[usage.lower()] = [
            one if its == usage else Relevant(NONE, NONE) for one, its in zip(relevant, usages, strict=True)
        ]
    return Retrieval(_images(root, "test", queries), _images(root, "index", index), settings)


def _ids(root: Path, part: str) -> dict[str, str]:
    """Return the images that the table of `index` or `test` lists, each with where it does."""
    ids: dict[str, str] = {}
    for where, (name,) in table(_table(root, part, f"{part}.csv"), ("id",)):
        if not _ID.fullmatch(name):
            raise UsageError(f"{where}: {name!r} is no image: sixteen hex digits", AGAIN)
        if name in ids:
            raise UsageError(f"{where}: image {name!r} is there twice", AGAIN)
        ids[name] = where
    return ids


def _table(root: Path, part: str, name: str) -> Path:
    """Return where a table is: inside its part's folder, else beside it."""
    inside = root / part / name
    return inside if inside.is_file() else root / name


def _images(root: Path, part: str, ids: dict[str, str]) -> Split:
    """Return images by their ids; they have no classes."""
    names = [f"{part}/{name[0]}/{name[1]}/{name[2]}/{name}.jpg" for name in ids]
    places = [*ids.values()]
    return split(root, names, [-1] * len(names), places.__getitem__)
