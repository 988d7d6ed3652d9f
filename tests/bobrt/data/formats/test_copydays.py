"""Copydays in the layout of its archives: whose copy an image is, is in its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from photographs import photograph

from bobrt.data import formats
from bobrt.errors import UsageError
from bobrt.tasks.retrieval import score

if TYPE_CHECKING:
    from pathlib import Path

BLOCKS = ["2000", "2001", "2104"]
QUALITIES = [3, 5, 75]
SHARES = [10, 80]
STRONG = ["200001", "200002", "210401"]
"""The second block has no strong copy."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for block in BLOCKS:
        photograph(tmp_path / "original" / f"{block}00.jpg")
        for quality in QUALITIES:
            photograph(tmp_path / "jpegqual" / str(quality) / f"{block}00.jpg")
        for share in SHARES:
            photograph(tmp_path / "crops" / str(share) / f"{block}00.jpg")
    for name in STRONG:
        photograph(tmp_path / "strong" / f"{name}.jpg")
    return tmp_path


def test_originals_ask_for_the_copies_of_their_block(folder: Path) -> None:
    """All copies at once, and each kind with the others as junk."""
    found = formats.read("copydays", folder)
    assert found.queries.ids == [f"original/{block}00.jpg" for block in BLOCKS]
    assert len(found.database.ids) == len(BLOCKS) * (len(QUALITIES) + len(SHARES)) + len(STRONG)
    for setting, folders in {
        "all": {"jpegqual", "crops", "strong"},
        "jpeg": {"jpegqual"},
        "crops": {"crops"},
        "strong": {"strong"},
    }.items():
        counts = [name.partition("/")[0] in folders for name in found.database.ids]
        for block, one in zip(BLOCKS, found.settings[setting], strict=True):
            right = [
                row
                for row, name in enumerate(found.database.ids)
                if counts[row] and name.rpartition("/")[2].startswith(block)
            ]
            assert one.positives.tolist() == right
            assert one.junk.tolist() == [row for row, counted in enumerate(counts) if not counted]
    assert [len(one.positives) for one in found.settings["strong"]] == [2, 0, 1]


def test_the_strong_copies_alone_are_the_strong_setting(folder: Path) -> None:
    """The study's task needs two of the four folders, and scores what the setting of all of them does."""
    whole = formats.read("copydays", folder)
    for kind in ("jpegqual", "crops"):
        (folder / kind).rename(folder.parent / f"not-{kind}")
    alone = formats.read("copydays-strong", folder)
    assert alone.database.ids == [f"strong/{name}.jpg" for name in STRONG]
    features = {
        name: np.random.default_rng(int(name.rpartition("/")[2][:6]) + len(name)).standard_normal(6)
        for name in {*whole.queries.ids, *whole.database.ids}
    }

    def scored(found: object, setting: str) -> object:
        queries, database = (
            np.array([features[name] for name in split.ids], dtype=np.float32)
            for split in (found.queries, found.database)
        )
        return score(queries, database, {"all": found.settings[setting]}, {})

    assert scored(alone, "all") == scored(whole, "strong")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("strong/2222001.jpg", "no name of Copydays"),
        ("strong/scan.jpg", "no name of Copydays"),
        ("crops/30/999900.jpg", "999900.jpg is a copy of no image in"),
        ("original/200001.jpg", "has two images of one block"),
    ],
)
def test_a_name_that_tells_nothing_is_named(folder: Path, wrong: str, told: str) -> None:
    photograph(folder / wrong)
    with pytest.raises(UsageError, match=told):
        formats.read("copydays", folder)


def test_a_folder_that_is_not_there_is_named(folder: Path) -> None:
    (folder / "jpegqual").rename(folder / "jpeg")
    with pytest.raises(UsageError, match="jpegqual has no images"):
        formats.read("copydays", folder)
