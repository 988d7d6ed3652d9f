"""The tables name real models and real data, and every name leads to one of them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from bench import plan
from bobrt import catalogue, data
from bobrt.catalogue import ALIASES, BACKBONES, TASKS, backbone
from bobrt.data.formats import FORMATS
from bobrt.errors import MachineError, UsageError
from bobrt.spec import Kind

ENTRIES = BACKBONES.all()


@pytest.fixture(scope="module")
def timm() -> Any:
    """Import timm, which takes seconds."""
    return pytest.importorskip("timm")


def test_every_entry_is_a_model_of_timm_with_what_timm_says_of_it(timm: Any) -> None:
    """Published weights are named by timm's exact id; licence and input are those timm gives."""
    published = set(timm.list_pretrained())
    for entry in ENTRIES.values():
        if entry.weights:
            continue
        assert timm.is_model(entry.timm), entry.timm
        if entry.pretraining is None:
            assert entry.licence is None
            continue
        assert entry.timm in published
        config = timm.get_pretrained_cfg(entry.timm)
        assert entry.licence == config.license, entry.name
        assert entry.input is not None, entry.name
        assert entry.input.size == config.input_size[-1] == config.input_size[-2], entry.name
        assert (entry.input.crop_pct, entry.input.interpolation) == (config.crop_pct, config.interpolation)
        assert config.crop_mode == "center" or "the centre is cut" in entry.note, entry.name
        assert entry.input.mean == pytest.approx(config.mean, abs=1e-6), entry.name
        assert entry.input.std == pytest.approx(config.std, abs=1e-6), entry.name


STUDY = [
    "resnet50.a1_in1k",
    "resnet50.tv_in1k",
    "resnet101.a1h_in1k",
    "resnet101.tv_in1k",
    "resnet50.dino",
    "resnet50.vicreg",
    "resnet50_clip.openai",
    "resnet101_clip.openai",
    "resnet50x4_clip.openai",
    "resnet50x16_clip.openai",
    "resnet50x64_clip.openai",
    "resnet50.moco_v3",
    "resnet50.sscd_imagenet_mixup",
    "resnet50.sscd_disc_mixup",
    "convnext_tiny.fb_in1k",
    "convnext_small.fb_in1k",
    "convnext_small.fb_in22k_ft_in1k",
    "convnext_base.fb_in1k",
    "convnext_base.fb_in22k",
    "convnext_base.fb_in22k_ft_in1k",
    "convnext_xlarge.fb_in22k_ft_in1k",
    "convnext_xlarge.vicregl_in22k",
    "vit_small_patch16_224.augreg_in21k_ft_in1k",
    "vit_small_patch16_224.augreg_in1k",
    "deit_small_patch16_224.fb_in1k",
    "vit_base_patch16_224.augreg_in21k_ft_in1k",
    "vit_base_patch16_224.augreg_in1k",
    "deit_base_patch16_384.fb_in1k",
    "vit_large_patch16_224.augreg_in21k_ft_in1k",
    "vit_small_patch16_224.dino",
    "vit_base_patch16_224.dino",
    "vit_small_patch16_224.moco_v3",
    "vit_base_patch16_224.moco_v3",
    "vit_base_patch16_224.mae",
    "vit_large_patch16_224.mae",
    "vit_huge_patch14_224.mae",
    "vit_base_patch16_clip_224.laion2b",
    "vit_large_patch14_clip_224.laion2b",
    "swinv2_tiny_window8_256.ms_in1k",
    "swinv2_base_window8_256.ms_in1k",
    "swinv2_base_window12to16_192to256.ms_in22k_ft_in1k",
    "swinv2_base_window12to24_192to384.ms_in22k_ft_in1k",
    "swinv2_large_window12to16_192to256.ms_in22k_ft_in1k",
    "swinv2_large_window12to24_192to384.ms_in22k_ft_in1k",
    "swinv2_tiny_window16_256.midas",
    "swinv2_base_window12to24_192to384.midas",
    "stable_diffusion_v1_1",
    "stable_diffusion_v1_4",
    "samvit_base_patch16.sa1b",
    "efficientnet_b0.ra_in1k",
    "regnetx_004.pycls_in1k",
    "regnetx_004_tv.tv2_in1k",
    "mobilenetv3_large_100.ra_in1k",
    "resnet18.tv_in1k",
]


def test_every_backbone_of_the_study_is_in_the_catalogue() -> None:
    """Its sixty, checkpoint by checkpoint (the random ones are `--weights random`)."""
    assert [name for name in STUDY if name not in ENTRIES] == []


def test_the_catalogue_has_todays_candidates_and_a_small_tail() -> None:
    """Each word below is some entry's; ten and more are under ten million parameters."""
    wanted = (
        "dinov2 dinov3 convnext_tiny.dinov3 siglip eva02 vit_pe_core convnextv2 efficientnetv2 mobilenetv4"
    )
    wanted += " regnet fastvit tiny_vit repvit hiera maxvit"
    assert [word for word in wanted.split() if not any(word in name for name in ENTRIES)] == []
    small = [e for e in ENTRIES.values() if 1 < (e.params_m or 0) < 10]
    assert len(small) >= 20
    assert len({e.timm.partition(".")[0] for e in ENTRIES.values()}) >= 100


def test_a_published_entry_says_method_data_size_and_licence() -> None:
    """What nobody states is null and not guessed: the size of a few data sets alone."""
    for entry in ENTRIES.values():
        if entry.pretraining is not None:
            assert entry.data, entry.name
            assert entry.licence, entry.name
            assert entry.input, entry.name
        assert entry.data_m is None or 0 < entry.data_m <= 10_000, entry.name
    unknown = {entry.name for entry in ENTRIES.values() if entry.pretraining and entry.data_m is None}
    assert len(unknown) < 10


@pytest.mark.parametrize("part", range(4))
def test_entries_have_the_parameters_they_say(timm: Any, part: int) -> None:
    """Counted without the classifier, on no memory at all, to within two per cent or the last digit."""
    import torch  # noqa: PLC0415 - seconds to import

    entries = [e for e in ENTRIES.values() if e.weights is None and e.params_m and e.params_m > 1]
    for entry in entries[part::4]:
        with torch.device("meta"):
            model = timm.create_model(entry.timm, pretrained=False, num_classes=0, **entry.args)
        counted = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        assert entry.params_m == pytest.approx(counted, rel=0.02, abs=0.051), entry.name


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
    pretrainings = {"clip", "dino", "dinov2", "dinov3", "siglip"}
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
    assert far.value.hint.startswith("pip install 'bobrt[train]' (did you mean xcit_tiny_12_p16_224.fb_in1k")
    with pytest.raises(MachineError) as nowhere:
        backbone("wobble_9000")
    assert nowhere.value.hint == "pip install 'bobrt[train]'"


def test_task_cards_are_whole() -> None:
    """A card names where its data comes from and how it is read and fetched; what is here is pinned."""
    for name, card in TASKS.all().items():
        assert name == card.name
        assert card.licence, name
        assert card.source, name
        assert not card.of or TASKS.get(card.of).kind is Kind.CLASSIFICATION, name
        for digest in card.checksums.values():
            assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", digest), name
        if card.data not in {"", data.DIGITS}:
            assert card.data in FORMATS, name
            assert card.fetch, name
            assert card.data_sha256 is None, name  # nobody has read a real copy yet
        if card.kind is Kind.CLASSIFICATION:
            assert card.random_score == pytest.approx(1 / (card.classes or len(card.labels)), abs=1e-4), name
    pinned = TASKS.get("digits")
    assert re.fullmatch(r"[0-9a-f]{64}", pinned.data_sha256 or "")
    assert pinned.calibration_images <= pinned.splits["train"]


def test_an_unknown_task_is_answered_with_the_nearest() -> None:
    """Did you mean."""
    with pytest.raises(UsageError, match="unknown task 'digit'") as caught:
        TASKS.get("digit")
    assert caught.value.hint == "did you mean digits or digits-8-9 or digits-0-7? (bobrt list tasks)"
