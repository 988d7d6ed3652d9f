"""CUB-200-2011 in the layout of its archive, and what is wrong with a list is named by file and line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from photographs import photograph

from bobrt.data import formats
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

BIRDS = {"001.Black_footed_Albatross": 6, "002.Laysan_Albatross": 11}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two species. The lists number the images backwards: order comes from the names alone."""
    root = tmp_path / "CUB_200_2011"
    names = [
        (f"{bird}/{bird[4:]}_{row:04}_{row}.jpg", label)
        for label, (bird, count) in enumerate(BIRDS.items(), start=1)
        for row in range(count)
    ]
    for name, label in names:
        photograph(root / "images" / name, shade=100 * label)
    numbered = list(enumerate(reversed(names), start=1))
    for file, lines in {
        "images.txt": [f"{number} {name}" for number, (name, _) in numbered],
        "image_class_labels.txt": [f"{number} {label}" for number, (_, label) in numbered],
        "classes.txt": [f"{label} {bird}" for label, bird in enumerate(BIRDS, start=1)],
    }.items():
        (root / file).write_text("\n".join(lines) + "\n")
    (tmp_path / "attributes.txt").write_text("1 has_bill_shape::curved\n")  # lies beside, in the archive
    return root


@pytest.mark.parametrize("above", [False, True])
def test_a_fifth_of_each_species_asks_for_the_rest(folder: Path, above: bool) -> None:
    """From the folder itself and from that which the archive was unpacked in."""
    found = formats.read("cub", folder.parent if above else folder)
    assert found.queries.ids == [
        "001.Black_footed_Albatross/Black_footed_Albatross_0000_0.jpg",
        "002.Laysan_Albatross/Laysan_Albatross_0000_0.jpg",
        "002.Laysan_Albatross/Laysan_Albatross_0001_1.jpg",
    ]
    assert found.queries.targets.tolist() == [0, 1, 1]
    assert found.database.targets.tolist() == [0] * 5 + [1] * 9
    assert [one.positives.tolist() for one in found.settings["all"]] == [[*range(5)], *[[*range(5, 14)]] * 2]
    assert [int(image[0, 0, 0]) for image in found.queries.images] == [100, 200, 200]


@pytest.mark.parametrize(
    ("file", "line", "text", "told"),
    [
        ("images.txt", 2, "two x/y.jpg", "images.txt, line 2: 'two x/y.jpg' is not '<image> <file>'"),
        ("images.txt", 3, "3", "images.txt, line 3: '3' is not '<image> <file>'"),
        ("images.txt", 4, "1 x/y.jpg", "images.txt, line 4: image 1 is there twice"),
        ("images.txt", 5, "99 x/y.jpg", "images.txt, line 5: image 99 is without a class"),
        ("images.txt", 17, "", "image_class_labels.txt: image 17 is not in images.txt"),
        ("image_class_labels.txt", 5, "5 bird", "labels.txt, line 5: '5 bird' is not '<image> <class>'"),
        ("image_class_labels.txt", 6, "5 1", "labels.txt, line 6: image 5 has a class already"),
        ("images.txt", 7, "7 001.Black_footed_Albatross/gone.jpg", "images.txt, line 7: the image "),
        ("images.txt", 8, "8 ../../secret.jpg", "line 8: the image ../../secret.jpg is outside of"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, file: str, line: int, text: str, told: str) -> None:
    lines = (folder / file).read_text().splitlines()
    lines[line - 1] = text
    (folder / file).write_text("\n".join(lines).rstrip() + "\n")
    with pytest.raises(UsageError) as caught:
        formats.read("cub", folder)
    assert told in caught.value.message
    assert caught.value.hint


def test_a_list_that_is_not_there_is_named(folder: Path) -> None:
    (folder / "image_class_labels.txt").unlink()
    with pytest.raises(UsageError, match=r"image_class_labels\.txt does not exist"):
        formats.read("cub", folder)
