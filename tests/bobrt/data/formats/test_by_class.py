"""A fifth of each class asks for the rest of it, as in the study, in the layout of each archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from photographs import photograph

from bobrt.data import Split, formats
from bobrt.data.formats import by_class
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def images(counts: list[int]) -> Split:
    """Return so many images of each class, backwards and the classes mixed."""
    named = [(f"c{target}/{row:02}", target) for target, count in enumerate(counts) for row in range(count)]
    named = named[::-2] + named[-2::-2]
    pixels = [np.full((1, 1, 3), int(name[-2:]), np.uint8) for name, _ in named]
    return Split([name for name, _ in named], pixels, np.array([target for _, target in named]))


def test_the_first_fifth_by_name_asks_for_the_rest_of_its_class() -> None:
    """Ten images give two queries and eight that are right, seven give one and six."""
    found = by_class.asked(images([10, 7]))
    assert found.queries.ids == ["c0/00", "c0/01", "c1/00"]
    rest = [f"c0/{row:02}" for row in range(2, 10)] + [f"c1/{row:02}" for row in range(1, 7)]
    assert found.database.ids == rest
    assert found.queries.targets.tolist() == [0, 0, 1]
    assert found.database.targets.tolist() == [0] * 8 + [1] * 6
    assert [image[0, 0, 0] for image in found.queries.images] == [0, 1, 0]
    (setting,) = found.settings.values()
    assert [one.positives.tolist() for one in setting] == [[*range(8)], [*range(8)], [*range(8, 14)]]
    assert all(len(one.junk) == 0 for one in setting)


def test_a_limit_takes_the_first_of_each_class() -> None:
    """Five of each: one asks for four. A class of fewer asks nothing, and stays to be mistaken."""
    found = by_class.asked(images([12, 4]), limit=5)
    assert found.queries.ids == ["c0/00"]
    assert found.database.ids == [f"c0/{row:02}" for row in range(1, 5)] + [
        f"c1/{row:02}" for row in range(4)
    ]


@pytest.mark.parametrize("count", [5, 15, 35, 45, 60])
def test_a_fifth_is_the_studys(count: int) -> None:
    """Its code takes the whole part of 0.2 times the count."""
    assert len(by_class.asked(images([count])).queries.ids) == int((count * 0.2) // 1)


def test_classes_of_four_are_too_small() -> None:
    with pytest.raises(UsageError, match="none of the classes has the 5 images"):
        by_class.asked(images([4, 4]))


LAYOUTS = {
    "inat2021-retrieval": (
        "val/{}/{:08}-5aa1.jpg",
        ["00000_Animalia_Annelida", "00001_Animalia_Arthropoda"],
        5,
    ),
    "instre": ("INSTRE-S1/{}/{:03}.jpg", ["01a_canada_book", "01b_china_book"], 50),
    "objectnet-retrieval": ("images/{}/{:08}.png", ["air_freshener", "alarm_clock"], 50),
}
"""For each format an image's path, two of the published classes, and how many images of one take part."""


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A format and its miniature: a class of more images than take part, and one of ten."""
    path, (large, small), limit = LAYOUTS[request.param]
    for name, count in {large: limit + 3, small: 10}.items():
        for row in range(count):
            photograph(tmp_path / path.format(name, row), shade=count)
            if request.param == "instre":
                (tmp_path / path.format(name, row)).with_suffix(".txt").write_text("1 2 3 4\n")
    photograph(tmp_path / "other" / large / "1.jpg")
    return request.param, tmp_path


def test_a_layout_is_read_by_its_class_folders(layout: tuple[str, Path]) -> None:
    """Only images of the named part of an archive, a fifth of each class as queries."""
    name, root = layout
    path, (large, small), limit = LAYOUTS[name]
    found = formats.read(name, root)
    of_small = min(10, limit)
    assert found.queries.ids == [path.format(large, row) for row in range(limit // 5)] + [
        path.format(small, row) for row in range(of_small // 5)
    ]
    assert found.database.ids == [path.format(large, row) for row in range(limit // 5, limit)] + [
        path.format(small, row) for row in range(of_small // 5, of_small)
    ]
    sizes = [len(one.positives) for one in found.settings["all"]]
    assert sizes == [limit - limit // 5] * (limit // 5) + [of_small - of_small // 5] * (of_small // 5)
    # ObjectNet's images have a red frame two pixels wide, which is not shown to any engine.
    assert found.queries.images[0].shape == ((2, 4, 3) if name == "objectnet-retrieval" else (6, 8, 3))
    assert found.database.images[0].shape == found.queries.images[0].shape


def test_a_class_without_images_is_named(layout: tuple[str, Path]) -> None:
    name, root = layout
    empty = (root / LAYOUTS[name][0].format("zebra", 0)).parent
    empty.mkdir()
    (empty / "note.txt").touch()
    with pytest.raises(UsageError, match="zebra has no images"):
        formats.read(name, root)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_folder_of_something_else_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{LAYOUTS[name][0].partition('/')[0]} has no folders of images"):
        formats.read(name, tmp_path)
