"""CheXpert v1.0, or its small version: chest radiographs, and two tables of what their reports say."""

from __future__ import annotations

import csv
import hashlib
import math
from typing import TYPE_CHECKING, NamedTuple

from bobrt.data import Listing
from bobrt.data.formats.labelled import split, top
from bobrt.data.formats.listed import AGAIN
from bobrt.errors import UsageError
from bobrt.strict import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bobrt.data import Split

UNCERTAIN = {"Atelectasis": 1, "Cardiomegaly": 0, "Consolidation": 0, "Edema": 1, "Pleural Effusion": 0}
"""The five findings of the competition, and what a report in doubt counts as in Battle of the Backbones."""

HELD_OUT = 0.05
"""Share of the training patients who validate."""

PATH, VIEW = "Path", "Frontal/Lateral"
FRONTAL, LATERAL = "Frontal", "Lateral"


class _Row(NamedTuple):
    name: str
    labels: list[int]
    line: int


def read(root: Path) -> Listing:
    """Return the frontal views with five labels each.

    The publisher's `valid` is the test; its reports were read by radiologists. Validation is taken from
    the training images by patient, so that nobody is on both sides.

    Args:
        root: The folder with `train.csv` and `valid.csv`, or the one with `CheXpert-v1.0-small/` or
            `CheXpert-v1.0/`.

    Raises:
        UsageError: A table is missing, has not the columns, or has a row that is malformed or whose
            image is not there.

    """
    base = top(root, "CheXpert-v1.0-small", "CheXpert-v1.0")
    train = list(_rows(base / "train.csv"))
    validating = _some([_patient(row.name) for row in train])
    sides = {
        "train": [row for row in train if _patient(row.name) not in validating],
        "validation": [row for row in train if _patient(row.name) in validating],
    }
    splits = {name: _split(base, base / "train.csv", rows) for name, rows in sides.items()}
    splits["test"] = _split(base, base / "valid.csv", list(_rows(base / "valid.csv")))
    return Listing(list(UNCERTAIN), splits)


def _split(base: Path, table: Path, rows: Sequence[_Row]) -> Split:
    names, labels = [row.name for row in rows], [row.labels for row in rows]
    return split(base, names, labels, lambda row: f"{table}, line {rows[row].line}")


def _rows(path: Path) -> Iterator[_Row]:
    """Yield the frontal rows of a table."""
    rows = csv.reader(read_text(path, "table").splitlines())
    heading = next(rows, [])
    if missing := [name for name in (PATH, VIEW, *UNCERTAIN) if name not in heading]:
        raise UsageError(f"{path}, line 1: there is no column {missing[0]!r}", AGAIN)
    for cells in rows:
        where = f"{path}, line {rows.line_num}"
        if len(cells) != len(heading):
            raise UsageError(f"{where}: {len(cells)} cells, not {len(heading)}", AGAIN)
        row = dict(zip(heading, cells, strict=True))
        # A path starts with the folder's own name, which the user may have changed.
        name = row[PATH].partition("/")[2]
        if name.count("/") < 2:  # noqa: PLR2004 - split, patient, and at least a file
            raise UsageError(f"{where}: {row[PATH]!r} is not '<folder>/<split>/<patient>/...'", AGAIN)
        if row[VIEW] not in {FRONTAL, LATERAL}:
            raise UsageError(f"{where}: the view {row[VIEW]!r} is neither {FRONTAL} nor {LATERAL}", AGAIN)
        labels = [_label(row[finding], finding, where) for finding in UNCERTAIN]
        if row[VIEW] == FRONTAL:
            yield _Row(name, labels, rows.line_num)


def _label(cell: str, finding: str, where: str) -> int:
    """Return 1 for present and 0 for absent or not mentioned."""
    told = {"1.0": 1, "0.0": 0, "": 0, "-1.0": UNCERTAIN[finding]}
    if cell not in told:
        raise UsageError(f"{where}: {finding} is {cell!r}, not 1.0, 0.0, -1.0 or nothing", AGAIN)
    return told[cell]


def _patient(name: str) -> str:
    return name.split("/")[1]


def _some(patients: Sequence[str]) -> set[str]:
    """Return a share of the patients: the same on every machine, whatever the order of the table."""
    everyone = sorted(set(patients), key=lambda patient: hashlib.sha256(patient.encode()).digest())
    return set(everyone[: math.ceil(HELD_OUT * len(everyone))])
