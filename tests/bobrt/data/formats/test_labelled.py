"""What torchvision does not do: splits of ours, several labels, and the cards of the catalogue."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import miniatures
import numpy as np
import pytest
from photographs import photograph

from bobrt.catalogue import TASKS
from bobrt.data import digest_of, formats
from bobrt.data.formats import chexpert, imagenet, inaturalist, labelled, visda
from bobrt.spec import Kind

if TYPE_CHECKING:
    from pathlib import Path

    from bobrt.spec import TaskCard

CARDS = [
    card
    for card in TASKS.all().values()
    if card.data in formats.FORMATS and card.kind is not Kind.RETRIEVAL and not card.hub
]


def test_the_archives_folder_or_the_one_around_it(tmp_path: Path) -> None:
    """Both are the same data: the ids, and so the digest, do not depend on which the user names."""
    for name, folder in {"dtd": "dtd", "pets": "oxford-iiit-pet", "food101": "food-101"}.items():
        getattr(miniatures, name)(tmp_path)
        outer, inner = (formats.read(name, root) for root in (tmp_path, tmp_path / folder))
        assert digest_of(outer.splits) == digest_of(inner.splits)


def test_eurosat_is_split_three_to_one_to_one(tmp_path: Path) -> None:
    """Of each class as of all."""
    miniatures.eurosat(tmp_path)
    splits = formats.read("eurosat", tmp_path / "eurosat").splits
    counts = {name: np.bincount(split.targets).tolist() for name, split in splits.items()}
    assert counts == {"train": [6, 6], "validation": [2, 2], "test": [2, 2]}


def test_the_banner_of_aircraft_is_cut_off(tmp_path: Path) -> None:
    """Of 26 rows the lower 20 name the photographer."""
    miniatures.aircraft(tmp_path)
    assert formats.read("aircraft", tmp_path).splits["train"].images[0].shape == (6, 8, 3)


def test_visda_is_trained_on_renderings_and_asked_about_photographs(tmp_path: Path) -> None:
    """Under the same names; the renderings have a test of their own, to compare with."""
    miniatures.visda(tmp_path)
    rendered, real = formats.read("visda", tmp_path), formats.read("visda-real", tmp_path)
    assert rendered.classes == real.classes == ["aeroplane", "bus"]
    assert {name: len(split.ids) for name, split in rendered.splits.items()} == {
        "train": 16,
        "validation": 2,
        "test": 2,
    }
    every = [name for split in rendered.splits.values() for name in split.ids]
    assert len({*every}) == 20
    assert real.splits["test"].ids == ["aeroplane/0.jpg", "aeroplane/1.jpg", "bus/0.jpg", "bus/1.jpg"]


def test_chexpert_counts_doubt_as_the_study_does(tmp_path: Path) -> None:
    """As present for Atelectasis and Edema, as absent for the others; so is what is not mentioned."""
    miniatures.chexpert(tmp_path)
    found = formats.read("chexpert", tmp_path)
    assert found.classes == ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"]
    assert found.splits["test"].targets.tolist() == [[0, 1, 0, 1, 0]]
    assert found.splits["train"].targets.shape == (19, 5)


def test_chexpert_has_frontal_views_and_no_patient_on_two_sides(tmp_path: Path) -> None:
    """A patient's second image would be known from the first. The lateral view is left out."""
    miniatures.chexpert(tmp_path)
    base = tmp_path / "CheXpert-v1.0-small"
    lines = (base / "train.csv").read_text().splitlines()
    for number in range(1, 21):
        name = f"train/patient{number:05}/study2/view1_frontal.jpg"
        photograph(base / name)
        lines.append(f"CheXpert-v1.0-small/{name},Male,40,Frontal,PA,,,,,,")
    miniatures.listed(base / "train.csv", lines)
    splits = formats.read("chexpert", base).splits
    sides = {name: {one.split("/")[1] for one in splits[name].ids} for name in ("train", "validation")}
    assert {name: len(split.ids) for name, split in splits.items()} == {
        "train": 38,
        "validation": 2,
        "test": 1,
    }
    assert not sides["train"] & sides["validation"]
    assert not [one for split in splits.values() for one in split.ids if "lateral" in one]


def test_species_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    """Two kingdoms may use a name."""
    miniatures.inat2021(tmp_path)
    for name in ("train.json", "val.json"):
        path = tmp_path / name
        path.write_text(path.read_text().replace("Bellis perennis", "Lumbricus terrestris"))
    assert formats.read("inat2021", tmp_path).classes == ["0 Lumbricus terrestris", "1 Lumbricus terrestris"]


@pytest.mark.parametrize(
    ("name", "published", "fractions"),
    [
        ("imagenet1k", 1281167, [imagenet.HELD_OUT]),
        ("imagenet1k-1pct", 1281167 - 12811, [imagenet.HELD_OUT]),
        ("imagenet1k-10pct", 1281167 - 128116, [imagenet.HELD_OUT]),
        ("cifar10", 50000, [labelled.HELD_OUT]),
        ("cifar100", 50000, [labelled.HELD_OUT]),
        ("eurosat", 27000, [0.2, 0.25]),
        ("inat2019", 268243 - 3030, [inaturalist.HELD_OUT]),
        ("inat2021", 2686843, [inaturalist.HELD_OUT]),
        ("pets", 3680, [labelled.HELD_OUT]),
        ("food101", 75750, [labelled.HELD_OUT]),
        ("visda", 152397, [visda.TEST, visda.VALIDATION]),
    ],
)
def test_the_sizes_of_a_card_are_what_is_left_of_the_published(
    name: str, published: int, fractions: list[float]
) -> None:
    """Else the true data would be refused as not what the card says."""
    splits, left = TASKS.get(name).splits, published
    for part, fraction in zip(("test", "validation")[-len(fractions) :], fractions, strict=True):
        out = max(1, round(fraction * left))
        assert splits[part] == out
        left -= out
    if "pct" not in name:
        assert splits["train"] == left


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_card_says_what_a_user_needs(card: TaskCard) -> None:
    """A line that fetches it and names it, a source, a licence, digests of the right length."""
    place = str(card.options.get("place", card.name))
    assert re.search(rf"bobrt bench --task ({card.name}|{place}) --data \S+$", card.fetch)
    assert card.source
    assert card.licence
    assert card.metric == ("auroc" if card.kind is Kind.MULTILABEL else "top1")
    assert all(re.fullmatch(r"md5:[0-9a-f]{32}", told) for told in card.checksums.values())
    if card.classes and card.kind is not Kind.MULTILABEL:
        assert card.random_score == pytest.approx(1 / card.classes)
    if card.kind is Kind.SHIFT:
        assert TASKS.get(card.of).kind is Kind.CLASSIFICATION
        assert {*card.splits} <= {"test"}


def test_every_format_has_a_card() -> None:
    """A reader that no task uses is no use."""
    assert {*formats.FORMATS} <= {card.data for card in TASKS.all().values()}


def test_doubt_is_told_for_five_findings() -> None:
    """The competition's, in the order of the answers."""
    assert len(chexpert.UNCERTAIN) == TASKS.get("chexpert").classes == 5
