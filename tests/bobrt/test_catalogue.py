"""The tables name real models and real data, and every name leads to one of them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from bench import plan
from bobrt import catalogue, data
from bobrt.catalogue import ALIASES, BACKBONES, TASKS, backbone
from bobrt.errors import MachineError, UsageError

ENTRIES = BACKBONES.all()


@pytest.fixture(scope="module")
def timm() -> Any:
    """Import timm, which takes seconds."""
    return pytest.importorskip("timm")


def test_every_entry_is_a_model_of_timm_with_its_own_licence(timm: Any) -> None:
    """Published weights are named by timm's exact id; licence and id are those timm gives."""
    published = set(timm.list_pretrained())
    for entry in ENTRIES.values():
        assert timm.is_model(entry.timm), entry.timm
        if entry.pretraining is None:
            assert entry.licence is None
            continue
        assert entry.timm in published
        assert entry.licence == timm.get_pretrained_cfg(entry.timm).license, entry.name


@pytest.mark.parametrize("name", [name for name in ENTRIES if name.startswith("test_")])
def test_small_entries_have_the_parameters_they_say(timm: Any, name: str) -> None:
    """Counted without the classifier, to within two per cent."""
    entry = ENTRIES[name]
    model = timm.create_model(entry.timm, num_classes=0, **entry.args)
    counted = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert entry.params_m == pytest.approx(counted, rel=0.02)


def test_every_entry_is_complete() -> None:
    """Name, family and size are there for all; the name is a word that can be typed and filed."""
    for name, entry in ENTRIES.items():
        assert name == entry.name
        assert re.fullmatch(r"[a-z0-9_.]+", name)
        assert entry.family
        assert entry.params_m
        assert entry.params_m > 0


def test_aliases_point_at_entries_of_their_family() -> None:
    """An alias is a family's word, or that of a pretraining, for a documented entry; it shadows none."""
    pretrainings = {"clip", "dino", "dinov2"}
    for alias, name in ALIASES.items():
        assert alias not in ENTRIES
        assert backbone(alias) == ENTRIES[name]
        assert ENTRIES[name].family == ("vit" if alias in pretrainings else alias)
    assert backbone("convnext").name == "convnext_tiny.fb_in1k"


def test_the_default_plan_spans_the_families() -> None:
    """At least five backbones from at least four families, all small enough for two cores."""
    chosen = [backbone(name) for name in plan.load("quick").backbones]
    assert len(chosen) >= 5
    assert len({entry.family for entry in chosen}) >= 4
    assert all(entry.params_m is not None and entry.params_m < 1 for entry in chosen)


def test_any_timm_id_is_a_backbone(timm: Any) -> None:
    """A name that is not in the table becomes timm's exact id, tag included: one id, one checkpoint."""
    found = backbone("resnet34")
    assert found.name == found.timm == "resnet34.a1_in1k"
    assert timm.get_pretrained_cfg("resnet34").tag == "a1_in1k"
    assert backbone("resnet34.tv_in1k").timm == "resnet34.tv_in1k"
    assert backbone(found.name) == found


def test_an_unknown_backbone_is_answered_with_the_nearest(timm: Any) -> None:
    """Each name once, ours and timm's together."""
    del timm
    with pytest.raises(UsageError) as caught:
        backbone("test_resne", "plan p.toml, line 1")
    assert caught.value.message == "plan p.toml, line 1: unknown backbone 'test_resne'"
    near = caught.value.hint.removeprefix("did you mean ").partition("?")[0].split(" or ")
    assert near[0] == "test_resnet"
    assert len(set(near)) == len(near) == 3


def test_without_timm_the_table_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries and near misses need no timm; for any other name the line that installs it is given."""
    monkeypatch.setattr(catalogue, "version", lambda _: None)
    assert backbone("test_resnet") == ENTRIES["test_resnet"]
    with pytest.raises(UsageError) as near:
        backbone("convnxt")
    assert near.value.hint.startswith("did you mean convnext")
    with pytest.raises(MachineError) as far:
        backbone("xcit_nano_12_p8_224")
    assert far.value.message == "unknown backbone 'xcit_nano_12_p8_224', and timm is not here to ask"
    assert far.value.hint == "pip install 'bobrt[train]'"


def test_task_cards_are_whole() -> None:
    """A card pins its data, sums up its splits and names where the data comes from."""
    for name, card in TASKS.all().items():
        assert name == card.name
        assert re.fullmatch(r"[0-9a-f]{64}", card.data_sha256)
        assert set(card.splits) == {"train", "validation", "test"}
        assert card.calibration_images <= card.splits["train"]
        assert card.random_score == pytest.approx(1 / len(card.labels))
        assert card.licence
        assert card.source
        assert card.data in data._sources()


def test_an_unknown_task_is_answered_with_the_nearest() -> None:
    """Did you mean."""
    with pytest.raises(UsageError, match="unknown task 'digit'") as caught:
        TASKS.get("digit")
    assert caught.value.hint == "did you mean digits? (one of: digits)"
