"""Google Landmarks v2 in the layout of its scripts, and what is wrong with a table named by file and line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from photographs import photograph

from bobrt.data import formats
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

INDEX = [f"{row:x}edcba987654321{row:x}" for row in range(5)]
TEST = [f"0{row}23456789abcdef" for row in range(1, 6)]
SOLUTION = f"""id,images,Usage
{TEST[0]},None,Ignored
{TEST[1]},{INDEX[3]} {INDEX[0]},Public
{TEST[2]},{INDEX[0]},Private
{TEST[3]},{INDEX[4]} {INDEX[1]} {INDEX[2]},Private
{TEST[4]},None,Ignored
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part, names in {"index": INDEX, "test": TEST}.items():
        for shade, name in enumerate(names):
            photograph(tmp_path / part / name[0] / name[1] / name[2] / f"{name}.jpg", shade=shade * 40)
        (tmp_path / part / f"{part}.csv").write_text("\n".join(["id", *names]) + "\n")
    (tmp_path / "test" / "retrieval_solution_v2.1.csv").write_text(SOLUTION)
    return tmp_path


def test_test_images_ask_the_index_and_ignored_ones_do_not(folder: Path) -> None:
    found = formats.read("gldv2", folder)
    assert found.database.ids[1] == f"index/1/e/d/{INDEX[1]}.jpg"
    assert found.queries.ids == [f"test/0/{row}/2/{TEST[row - 1]}.jpg" for row in (2, 3, 4)]
    rows = {
        setting: [one.positives.tolist() for one in relevant] for setting, relevant in found.settings.items()
    }
    assert rows == {
        "all": [[0, 3], [0], [1, 2, 4]],
        "public": [[0, 3], [], []],
        "private": [[], [0], [1, 2, 4]],
    }
    assert abs(int(found.database.images[2][0, 0, 0]) - 80) < 4


def test_tables_may_lie_beside_the_folders(folder: Path) -> None:
    """The publisher's instructions fetch images by folder and tables by hand."""
    inside = formats.read("gldv2", folder)
    for part, name in [("index", "index.csv"), ("test", "test.csv"), ("test", "retrieval_solution_v2.1.csv")]:
        (folder / part / name).rename(folder / name)
    beside = formats.read("gldv2", folder)
    assert (beside.queries.ids, beside.database.ids) == (inside.queries.ids, inside.database.ids)


@pytest.mark.parametrize(
    ("table", "line", "text", "told"),
    [
        ("test/retrieval_solution_v2.1.csv", 1, "id,images", "line 1: the columns are ['id', 'images'], not"),
        ("test/retrieval_solution_v2.1.csv", 3, f"{TEST[1]},{INDEX[0]}", "line 3: 2 cells, not 3"),
        (
            "test/retrieval_solution_v2.1.csv",
            4,
            f"{TEST[2]},{INDEX[0]},Both",
            "line 4: usage 'Both' is none of",
        ),
        (
            "test/retrieval_solution_v2.1.csv",
            4,
            f"{TEST[2]},None,Private",
            "line 4: image 'None' is not in index.csv",
        ),
        ("test/retrieval_solution_v2.1.csv", 5, f"{INDEX[1]},{INDEX[1]},Public", "is not in test.csv"),
        ("test/retrieval_solution_v2.1.csv", 5, f"{TEST[1]},{INDEX[1]},Public", "is there twice"),
        ("index/index.csv", 3, INDEX[0], f"index.csv, line 3: image '{INDEX[0]}' is there twice"),
        ("index/index.csv", 2, "../../../../etc", "index.csv, line 2: '../../../../etc' is no image"),
        ("index/index.csv", 6, "ffffffffffffffff", "index.csv, line 6: the image "),
    ],
)
def test_what_is_wrong_is_named(folder: Path, table: str, line: int, text: str, told: str) -> None:
    if (table, line) == ("index/index.csv", 6):  # a row that nothing is to find
        (folder / "test" / "retrieval_solution_v2.1.csv").write_text(SOLUTION.replace(f"{INDEX[4]} ", ""))
    lines = (folder / table).read_text().splitlines()
    lines[line - 1] = text
    (folder / table).write_text("\n".join(lines) + "\n")
    with pytest.raises(UsageError) as caught:
        formats.read("gldv2", folder)
    assert told in caught.value.message


def test_a_table_that_is_not_there_is_named(folder: Path) -> None:
    (folder / "test" / "retrieval_solution_v2.1.csv").unlink()
    with pytest.raises(UsageError, match=r"retrieval_solution_v2\.1\.csv does not exist"):
        formats.read("gldv2", folder)
