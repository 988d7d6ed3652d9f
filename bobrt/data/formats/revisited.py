"""Revisited Oxford and Paris (Radenovic et al. 2018): `jpg/` and one pickle of names, boxes and judgements.

Seventy queries each, cut to the landmark; a query's own image is not in the database. What is neither
right nor wrong in a setting is junk there:

- `easy`: the easy ones are right, the hard ones and the unclear ones are junk;
- `medium`: easy and hard ones are right, the unclear ones are junk;
- `hard`: the hard ones are right, the easy ones and the unclear ones are junk.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bobrt.data import Relevant, Retrieval, pickles
from bobrt.data.formats.labelled import split
from bobrt.data.formats.listed import AGAIN
from bobrt.data.images import Files
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bobrt.data import Split
    from bobrt.data.images import Box

SETTINGS = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}
"""For each setting, what is right and what is junk."""
JUDGED = ("easy", "hard", "junk")


def read_oxford(root: Path) -> Retrieval:
    """Return Revisited Oxford.

    Args:
        root: The folder with `gnd_roxford5k.pkl` and `jpg/`.

    Raises:
        UsageError: The pickle is missing, or holds anything else, or an image it names is not there.

    """
    return _read(root, root / "gnd_roxford5k.pkl")


def read_paris(root: Path) -> Retrieval:
    """Return Revisited Paris.

    Args:
        root: The folder with `gnd_rparis6k.pkl` and `jpg/`.

    Raises:
        UsageError: As for `read_oxford`.

    """
    return _read(root, root / "gnd_rparis6k.pkl")


def _read(root: Path, truth: Path) -> Retrieval:
    found = pickles.load(truth)
    try:
        database, queries = (_names(found[key], key) for key in ("imlist", "qimlist"))
        judged = [_judged(of_query, len(database)) for of_query in found["gnd"]]
        boxes = [_box(of_query["bbx"]) for of_query in found["gnd"]]
        if len(judged) != len(queries):
            raise ValueError(f"{len(judged)} judgements for {len(queries)} queries")  # noqa: TRY301
    except KeyError as error:
        raise UsageError(f"{truth} has no {error}", AGAIN) from None
    except (IndexError, TypeError, ValueError) as error:
        raise UsageError(f"{truth} is malformed: {error}", AGAIN) from None
    files = {path.stem: path.relative_to(root).as_posix() for path in sorted((root / "jpg").rglob("*.jpg"))}
    settings = {
        setting: [Relevant(_joined(one, right), _joined(one, junk)) for one in judged]
        for setting, (right, junk) in SETTINGS.items()
    }

    def images(names: list[str]) -> Split:
        paths = [files.get(name, f"jpg/{name}.jpg") for name in names]
        return split(root, paths, [-1] * len(paths), lambda _: str(truth))

    asking = images(queries)
    cut = asking._replace(images=Files([root / name for name in asking.ids], boxes))
    return Retrieval(cut, images(database), settings)


def _names(names: Any, key: str) -> list[str]:  # noqa: ANN401 - of a pickle
    """Return a list of image names."""
    found = [name for name in names if isinstance(name, str)]
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise ValueError(f"{wrong[0]!r} in {key} is no name")
    return found


def _judged(of_query: dict[str, Any], count: int) -> dict[str, NDArray[np.int64]]:
    """Return the rows of the database that a query has a judgement on, one each."""
    told = {key: np.asarray(of_query[key]).reshape(-1) for key in JUDGED}
    judged = {key: values.astype(np.int64) for key, values in told.items()}
    rows = np.concatenate([*judged.values()])
    if any((judged[key] != told[key]).any() for key in JUDGED) or len(np.unique(rows)) < len(rows):
        raise ValueError("a judgement is on no whole row, or two are on the same")
    if rows.size and (rows.min() < 0 or rows.max() >= count):
        raise ValueError(f"judgements on rows {rows.min()} to {rows.max()}, and there are {count}")
    return judged


def _joined(judged: dict[str, NDArray[np.int64]], which: tuple[str, ...]) -> NDArray[np.int64]:
    return np.concatenate([judged[key] for key in which])


def _box(values: Any) -> Box:  # noqa: ANN401 - of a pickle
    """Return a box, as left, upper, right and lower side."""
    left, upper, right, lower = (float(value) for value in values)
    if not (left < right < math.inf and upper < lower < math.inf):
        raise ValueError(f"the box {values} holds nothing")
    return left, upper, right, lower
