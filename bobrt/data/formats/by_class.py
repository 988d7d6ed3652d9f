"""Retrieval made of classes, as in Battle of the Backbones: the first fifth of each asks for the rest of it.

First is what comes first by name. An image of another class is wrong, and there is no junk.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from bobrt.data import Relevant, Retrieval
from bobrt.data.formats import objectnet
from bobrt.data.formats.labelled import Margins, class_folders, of_folders, top, trimmed
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from bobrt.data import Split

FIFTH = 5


def read_inaturalist(root: Path) -> Retrieval:
    """Return the validation images of iNaturalist 2021: of each species one asks for four.

    Args:
        root: The folder with `val/`, which holds a folder for each species.

    Raises:
        UsageError: There are no such folders, or one is empty.

    """
    return asked(_folders(root, "val"), 5)


def read_instre(root: Path) -> Retrieval:
    """Return INSTRE-S1: of each object ten images ask for forty.

    Args:
        root: The folder with `INSTRE-S1/`, which holds a folder for each object, or that with
            `INSTRE_release/`. The boxes, in text files beside the images, are not needed.

    Raises:
        UsageError: There are no such folders, or one is empty.

    """
    return asked(_folders(top(root, "INSTRE_release"), "INSTRE-S1"), 50)


def read_objectnet(root: Path) -> Retrieval:
    """Return ObjectNet without its red frames: of each class at most ten images ask for at most forty.

    Args:
        root: The folder with `images/`, which holds a folder for each class, or that with `objectnet-1.0/`.

    Raises:
        UsageError: There are no such folders, or one is empty.

    """
    base = top(root, "objectnet-1.0")
    found = asked(_folders(base, "images"), 50)
    frame = Margins(*[objectnet.BORDER] * 4)
    return found._replace(
        queries=trimmed(base, found.queries, frame), database=trimmed(base, found.database, frame)
    )


def asked(images: Split, limit: int | None = None) -> Retrieval:
    """Return a split as queries and database.

    A class of fewer than five images has no query and stays in the database.

    Args:
        images: With one class each.
        limit: How many images of a class take part, the first by name; None for all.

    Raises:
        UsageError: No class has five images.

    """
    asking: list[int] = []
    kept: list[int] = []
    relevant: list[Relevant] = []
    by_name = sorted(range(len(images.ids)), key=lambda row: (images.targets[row], images.ids[row]))
    for _, group in groupby(by_name, key=lambda row: images.targets[row]):
        rows = list(group)[:limit]
        first = len(rows) // FIFTH
        positives = np.arange(len(kept), len(kept) + len(rows) - first)
        relevant += [Relevant(positives, np.zeros(0, dtype=np.int64))] * first
        asking += rows[:first]
        kept += rows[first:]
    if not asking:
        raise UsageError(f"none of the classes has the {FIFTH} images that retrieval needs")
    return Retrieval(images.some(asking), images.some(kept), {"all": relevant})


def _folders(base: Path, below: str) -> Split:
    """Return the images of class folders; the classes are numbered by name."""
    return of_folders(base, {name: row for row, name in enumerate(class_folders(base / below))}, below)
