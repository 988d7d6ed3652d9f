"""Revisited Oxford and Paris in the published layout: a pickle, and images that lie flat or in folders."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from photographs import photograph
from PIL import Image

from bobrt.data import formats
from bobrt.errors import UsageError
from bobrt.tasks.retrieval import score

if TYPE_CHECKING:
    from pathlib import Path

DATABASE = [f"all_souls_{row:06}" for row in range(6)]
QUERIES = ["all_souls_000100", "radcliffe_camera_000101", "oxford_000102"]


def truth() -> dict[str, Any]:
    """Return what the published pickles hold: lists of names, and per query a box and three lists of rows."""
    return {
        "imlist": DATABASE,
        "qimlist": QUERIES,
        "gnd": [
            {"bbx": [2.5, 1.4, 6.0, 5.0], "easy": np.array([0, 2]), "hard": np.array([1]), "junk": [4]},
            {"bbx": np.array([0.0, 0.0, 8.0, 6.0]), "easy": [], "hard": [3, 5], "junk": np.array([])},
            {"bbx": (1, 1, 3, 2), "easy": [1], "hard": [], "junk": []},
        ],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in [*DATABASE, *QUERIES]:
        photograph(tmp_path / "jpg" / f"{name}.jpg")
    (tmp_path / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(truth(), protocol=2))
    return tmp_path


def test_settings_say_what_is_right_and_what_is_junk(folder: Path) -> None:
    """A query with nothing to find in a setting is in it, with no positives."""
    found = formats.read("roxford5k", folder)
    assert found.queries.ids == [f"jpg/{name}.jpg" for name in QUERIES]
    assert found.database.ids == [f"jpg/{name}.jpg" for name in DATABASE]
    rows = {
        setting: [(sorted(one.positives.tolist()), sorted(one.junk.tolist())) for one in relevant]
        for setting, relevant in found.settings.items()
    }
    assert rows == {
        "easy": [([0, 2], [1, 4]), ([], [3, 5]), ([1], [])],
        "medium": [([0, 1, 2], [4]), ([3, 5], []), ([1], [])],
        "hard": [([1], [0, 2, 4]), ([3, 5], []), ([], [1])],
    }
    features = np.random.default_rng(0).standard_normal((9, 4), dtype=np.float32)
    scored = score(features[:3], features[3:], found.settings, {"setting": "medium"})
    assert (scored.n, scored.extra["n_easy"], scored.extra["n_hard"]) == (3, 2, 2)


def test_queries_are_cut_to_their_box_and_the_database_is_not(folder: Path) -> None:
    """The protocol's own code gives the box to Pillow's `crop`, which rounds it."""
    picture = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    Image.fromarray(picture).save(folder / "jpg" / f"{QUERIES[0]}.jpg", quality=100)
    found = formats.read("roxford5k", folder)
    with Image.open(folder / "jpg" / f"{QUERIES[0]}.jpg") as whole:
        assert np.array_equal(found.queries.images[0], np.asarray(whole.crop((2.5, 1.4, 6.0, 5.0))))
    assert [image.shape for image in found.queries.images] == [(4, 4, 3), (6, 8, 3), (1, 2, 3)]
    assert {image.shape for image in found.database.images} == {(6, 8, 3)}


def test_the_archive_of_paris_has_a_folder_for_each_landmark(tmp_path: Path) -> None:
    for row, name in enumerate([*DATABASE, *QUERIES]):
        photograph(tmp_path / "jpg" / "paris" / f"landmark{row % 3}" / f"{name}.jpg")
    (tmp_path / "gnd_rparis6k.pkl").write_bytes(pickle.dumps(truth()))
    found = formats.read("rparis6k", tmp_path)
    assert found.queries.ids[1] == f"jpg/paris/landmark1/{QUERIES[1]}.jpg"
    assert len(found.database.ids) == 6


def _without(key: str) -> dict[str, Any]:
    return {name: value for name, value in truth().items() if name != key}


def _changed(**of_query: Any) -> dict[str, Any]:
    told = truth()
    told["gnd"][1] |= of_query
    return told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (_without("gnd"), "has no 'gnd'"),
        (_without("qimlist"), "has no 'qimlist'"),
        ([1, 2, 3], "is malformed"),
        ({**truth(), "gnd": truth()["gnd"][:2]}, "2 judgements for 3 queries"),
        ({**truth(), "imlist": [*DATABASE[:5], 7]}, "7 in imlist is no name"),
        (_changed(hard=[3, 6]), "judgements on rows 3 to 6, and there are 6"),
        (_changed(hard=[-1]), "judgements on rows -1 to -1"),
        (_changed(hard=[3, 3]), "two are on the same"),
        (_changed(easy=[3], hard=[3]), "two are on the same"),
        (_changed(hard=[2.5]), "no whole row"),
        (_changed(hard=["3"]), "is malformed"),
        (_changed(bbx=[4, 4, 2, 2]), "holds nothing"),
        (_changed(bbx=[0, 0, 8]), "is malformed"),
        (_changed(bbx=[0, 0, 8, float("inf")]), "is malformed"),
    ],
)
def test_what_is_wrong_with_the_pickle_is_said(folder: Path, content: object, told: str) -> None:
    (folder / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UsageError, match=r"gnd_roxford5k\.pkl") as caught:
        formats.read("roxford5k", folder)
    assert told in caught.value.message


def test_a_pickle_that_would_run_something_is_refused(folder: Path) -> None:
    """Nothing but plain containers, numbers, strings and arrays comes out of it."""

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (print, ("run",))

    (folder / "gnd_roxford5k.pkl").write_bytes(pickle.dumps({**truth(), "imlist": Payload()}))
    with pytest.raises(UsageError, match="print"):
        formats.read("roxford5k", folder)


def test_a_missing_image_is_named(folder: Path) -> None:
    (folder / "jpg" / f"{DATABASE[3]}.jpg").unlink()
    with pytest.raises(UsageError, match=rf"gnd_roxford5k\.pkl: the image .*{DATABASE[3]}\.jpg is not there"):
        formats.read("roxford5k", folder)
