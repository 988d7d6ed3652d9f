"""How a data set of the hub lies on disk, and what an address of it may say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from tables import CLASSES, PICTURE, picture, rows

from bobrt.data import folder, hub_address, hub_layout
from bobrt.data.hub_address import Address
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def laid(tmp_path: Path, content: dict[str, list[Any]], **features: Any) -> hub_layout.Laid:
    """Lay out a table of this process."""
    kinds = {"image": datasets.Image(decode=False), "label": ClassLabel(names=list(CLASSES)), **features}
    table = Dataset.from_dict(content, features=Features({name: kinds[name] for name in content}))
    found = hub_layout.columns(table.features, Address("org/name"))
    return hub_layout.lay_out(
        {"train": table}, found, Address("org/name"), tmp_path / "out", [tmp_path / "own"]
    )


NAMES = {
    "../../up": "%2E.%2F..%2Fup",
    "..": "%2E.",
    ".hidden": "%2Ehidden",
    "": "%",
    "%": "%25",
    "a/b": "a%2Fb",
    "nul\0": "nul%00",
    "Ant": "Ant",
    "ant": "%61%6Et",
    "aNt": "%61Nt",
    "__MACOSX": "%5F_MACOSX",
    "caf\u00e9": "%63af\u00e9",
    "cafe\u0301": "cafe\u0301",
    "tench, Tinca tinca": "tench, Tinca tinca",
}


def test_a_class_is_a_folder_whatever_it_is_called(tmp_path: Path) -> None:
    """No name leads out, is hidden, or falls together with another; unquoted it is the class again."""
    names = list(NAMES)
    content = rows(len(names))
    content["label"] = list(range(len(names)))

    done = laid(tmp_path, content, label=ClassLabel(names=names))

    assert done.splits == {"train": len(names)}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name for path in (tmp_path / "out/train").iterdir()} == set(
        hub_layout.folder_names(names).values()
    )
    assert len(folder.tree.read(tmp_path / "out").splits["train"]) == len(names)


def test_names_are_quoted_no_more_than_needed() -> None:
    assert hub_layout.folder_names(NAMES) == NAMES
    long = hub_layout.folder_names(["x" * 300, "x" * 301, "\u732b" * 90])
    assert len(set(long.values())) == 3
    assert all(len(name.encode()) < 255 for name in long.values())


def test_a_class_may_be_text_or_a_number(tmp_path: Path) -> None:
    content = rows(6)
    content["label"] = ["oak", "elm"] * 3
    laid(tmp_path, content, label=Value("string"))
    assert {path.name for path in (tmp_path / "out/train").iterdir()} == {"oak", "elm"}


@pytest.mark.parametrize(
    ("column", "feature", "values", "message"),
    [
        (
            "caption",
            Value("string"),
            [f"photo {n}" for n in range(8)],
            "has 8 values in 8 rows: no classes",
        ),
        (
            "labels",
            [ClassLabel(names=list(CLASSES))],
            [[0, 1]] * 8,
            "no column of labels with one class for each",
        ),
        (
            "objects",
            {"bbox": [[Value("float32")]]},
            [{"bbox": [[1.0]]}] * 8,
            "no column of labels with one class",
        ),
        (
            "label",
            Value("int64"),
            [-1] * 8,
            "has no labels to use: left out of train, without a label: 8 of 8",
        ),
        ("label", ClassLabel(names=["a"]), [-1] * 8, "has no labels to use"),
    ],
    ids=["captions", "several", "boxes", "secret numbers", "secret classes"],
)
def test_what_is_no_class_is_refused(
    tmp_path: Path, column: str, feature: Any, values: list[Any], message: str
) -> None:
    content = {"image": rows(8)["image"], column: values}
    with pytest.raises(UsageError, match=message):
        laid(tmp_path, content, **{column: feature})
    assert not (tmp_path / "out").exists()


def test_columns_are_chosen_by_name() -> None:
    """What was chosen must be there and be of the kind; what was not must be the only one."""
    features = Features(
        {"left": PICTURE, "right": PICTURE, "label": ClassLabel(names=["a"]), "id": Value("int64")}
    )
    address = Address("org/name", image="left")
    assert hub_layout.columns(features, address) == ("left", "label")
    assert hub_layout.columns(features, address._replace(label="id")).label == "id"
    for wrong, message in [
        (Address("org/name"), "2 columns that may be the image: left, right"),
        (address._replace(image="lef"), "unknown column 'lef'"),
        (address._replace(image="id"), "column id of org/name holds int64, no image"),
        (address._replace(label="right"), "column right of org/name holds Image, no label"),
    ]:
        with pytest.raises(UsageError) as caught:
            hub_layout.columns(features, wrong)
        assert message in caught.value.message
        assert caught.value.hint
    with pytest.raises(UsageError, match=r"has no column of images: it has text \(string\)"):
        hub_layout.columns(Features({"text": Value("string")}), Address("org/name"))


def test_a_row_cannot_name_a_file_of_this_machine(tmp_path: Path) -> None:
    """Whose bytes are not in the table they are in the data set's own files, or nowhere."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.png").write_bytes(picture(1))
    (tmp_path / "mine.png").write_bytes(picture(2))
    content = rows(4)
    content["image"][0] = {"bytes": None, "path": str(tmp_path / "own" / "a.png")}
    assert laid(tmp_path, content).splits == {"train": 4}
    assert (tmp_path / "out/train/cat/0000000.png").read_bytes() == picture(1)
    content["image"][2] = {"bytes": None, "path": str(tmp_path / "own" / ".." / "mine.png")}
    with pytest.raises(
        UsageError, match=r"row 2 of train in org/name names the file .*mine\.png, which is not"
    ):
        laid(tmp_path, content)


def test_splits_go_by_their_names(tmp_path: Path) -> None:
    """What the hub calls them; others are left out by name, and an only one is all there is."""
    table = Dataset.from_dict(
        rows(4), features=Features({"image": datasets.Image(decode=False), "label": Value("int8")})
    )
    found = hub_layout.Columns("image", "label")
    splits = {"train": table, "val": table, "unsupervised": table, "test": table.select([])}
    done = hub_layout.lay_out(splits, found, Address("o/n"), tmp_path / "all", [])
    assert done.splits == {"train": 4, "validation": 4}
    assert done.notes == [
        "left out, a split without rows: test",
        "left out, neither train, validation nor test: the split unsupervised, 4 rows",
    ]
    only = hub_layout.lay_out({"full": table}, found, Address("o/n"), tmp_path / "one", [])
    assert only == ({"train": 4}, ["the only split, full, is taken for train"])


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("org/name", Address("org/name")),
        ("org/name@v1.0", Address("org/name", "v1.0")),
        ("org/name@refs/convert/parquet", Address("org/name", "refs/convert/parquet")),
        ("org/name@refs%2Fpr%2F1?label=fine", Address("org/name", "refs/pr/1", label="fine")),
        ("org/n.a_m-e?config=a%20b&image=left", Address("org/n.a_m-e", config="a b", image="left")),
    ],
)
def test_an_address_is_the_hub_s_own(text: str, want: Address) -> None:
    assert hub_address.parse(f"hf://datasets/{text}") == want
    assert hub_address.parse(str(want)) == want


@pytest.mark.parametrize(
    "text",
    [
        "hf://org/model",
        *(f"hf://datasets/{rest}" for rest in ("name", "../..", "a/..", "a/b/c", "a/b@", "a--b/c")),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="names no data set of the hub") as caught:
        hub_address.parse(text)
    assert "hf://datasets/ORG/NAME" in caught.value.hint
    with pytest.raises(UsageError, match="unknown choice 'split'"):
        hub_address.parse("hf://datasets/a/b?split=x")
    with pytest.raises(UsageError, match="chooses no label"):
        hub_address.parse("hf://datasets/a/b?label=")
