"""From a task's name to its card, and what its data says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from bobrt import data
from bobrt.data import places
from bobrt.errors import AbsentDataError, UsageError
from bobrt.spec import Kind
from bobrt.tasks import cards

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("BOBRT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BOBRT_DATA", raising=False)


def test_ten_shots_are_ten_of_each_class_and_part_of_twenty() -> None:
    """Validation and test stay whole; the images are the same every time."""
    ten, twenty = (cards.resolved(f"digits@{count}shot") for count in (10, 20))
    assert ten.splits == {"train": 100, "validation": 269, "test": 450}
    few, more, whole = (data.load(card, "train") for card in (ten, twenty, cards.named("digits")))
    assert np.bincount(few.targets).tolist() == [10] * 10
    assert set(few.ids) < set(more.ids) < set(whole.ids)
    assert data.load(ten, "test").ids == data.load(cards.named("digits"), "test").ids


def test_one_per_cent_has_every_class() -> None:
    train = data.load(cards.resolved("digits@1pct"), "train")
    assert len(train.ids) == 10
    assert sorted(train.targets.tolist()) == list(range(10))


def test_a_resolved_card_is_what_its_data_is() -> None:
    """It can be resolved again, loaded from, and tells another data set by its digest."""
    card = cards.resolved("digits-0-7")
    assert card.labels == list("01234567")
    assert card.splits["test"] == 362
    assert data.resolve(card) == card
    assert set(data.load(card, "test").targets.tolist()) == set(range(8))
    outside = data.load(cards.resolved("digits-8-9"), "test")
    assert len(outside.ids) == 450 - 362
    assert not {*outside.ids} & {*data.load(card, "test").ids}
    assert card.data_sha256 != cards.resolved("digits").data_sha256


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("digit", "unknown task 'digit'", "did you mean digits"),
        ("digits@", "no variant of digits", "digits@10shot keeps ten"),
        ("digits@0shot", "no variant of digits", "digits@10shot keeps ten"),
        ("digits@0pct", "no variant of digits", "digits@10shot keeps ten"),
        ("digits@ten", "no variant of digits", "digits@10shot keeps ten"),
        ("cub200@10shot", "no variant of cub200, a retrieval task", ""),
    ],
)
def test_what_is_no_task_is_told(name: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        cards.named(name)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_more_shots_than_images_name_the_class() -> None:
    with pytest.raises(UsageError) as caught:
        cards.resolved("digits@300shot")
    assert "300 images of each class are asked for, and class '0' has " in caught.value.message


def test_absent_data_says_how_to_bring_it(tmp_path: Path) -> None:
    """Never named, and named and gone since."""
    with pytest.raises(AbsentDataError, match="cub200 is not here: nobody has said where it is"):
        cards.resolved("cub200")
    (tmp_path / "gone").mkdir()
    places.remember("cub200", tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(AbsentDataError) as caught:
        cards.resolved("cub200")
    assert f"{tmp_path / 'gone'} is gone" in caught.value.message
    assert "--task cub200 --data" in caught.value.hint


def test_a_folder_that_was_named_is_a_task(tmp_path: Path) -> None:
    """Its labels, sizes and chance come from the folder; another image makes it another task."""
    rng = np.random.default_rng(0)
    for label in ("cat", "dog", "emu"):
        for number in range(10):
            path = tmp_path / "my-pets" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    places.remember("my-pets", tmp_path / "my-pets")
    card = cards.resolved("my-pets")
    assert card.kind is Kind.CLASSIFICATION
    assert card.labels == ["cat", "dog", "emu"]
    assert sum(card.splits.values()) == 30
    assert card.random_score == pytest.approx(1 / 3)
    assert data.load(card, "train").images[0].shape == (8, 8, 3)
    with pytest.raises(UsageError, match="has no split query: it has train, validation, test"):
        data.load(card, "query")


def test_places_are_kept_moved_and_read_where_bobrt_data_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two", "root/three"):
        (tmp_path / name).mkdir(parents=True)
    places.remember("a b", tmp_path / "one")
    places.remember('quo"ted', tmp_path / "one")
    places.remember("a b", tmp_path / "two")
    assert places.names() == ["a b", 'quo"ted']
    assert places.place_of("a b") == tmp_path / "two"
    assert places.place_of("three") is None
    monkeypatch.setenv("BOBRT_DATA", str(tmp_path / "root"))
    assert places.place_of("three") == tmp_path / "root" / "three"


@pytest.mark.parametrize("content", ["a =", "a = 1", "\xff"])
def test_a_damaged_file_of_places_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config" / "bobrt" / places.FILE
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UsageError, match=r"places\.toml is damaged") as caught:
        places.place_of("a")
    assert f"rm {path}" in caught.value.hint
