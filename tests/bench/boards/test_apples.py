"""Like for like: what shares an architecture or a pretraining, and whether it differs by more than chance."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from boards import made, published
from scipy import stats

from bench.boards import apples
from bench.boards.apples import architecture, kin, wilcoxon
from bench.boards.board import Board, Origin
from bench.boards.standing import standing
from bench.welch import holm

VITS = ["vit_base_patch16_224", "vit_small_patch16_224"]


def of(origins: list[tuple[str, str]], scores: object) -> Board:
    """Return a board whose rows are these backbones with these weights."""
    return made(scores, origins=[Origin(*origin) for origin in origins])


@pytest.mark.parametrize("n", range(1, 13))
def test_wilcoxon_is_scipys_exact_test_to_1e_9(n: int) -> None:
    """Without ties, for every number of settings up to twelve."""
    for seed in range(10):
        differences = np.random.default_rng(seed).normal(0.3, 1, n)
        wanted = stats.wilcoxon(differences, method="exact").pvalue
        assert wilcoxon(differences) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("seed", range(15))
def test_with_ties_it_is_the_distribution_over_all_signs(seed: int) -> None:
    """Every one of 2^n sign patterns of the very ranks; zeros dropped."""
    differences = np.random.default_rng(seed).integers(-4, 5, 9).astype(np.float64)
    values = differences[differences != 0]
    weights = stats.rankdata(np.abs(values))
    sums = np.array([weights @ np.array(signs) for signs in product((0, 1), repeat=len(values))])
    reached = weights[values > 0].sum()
    wanted = min(1.0, 2 * min((sums <= reached).mean(), (sums >= reached).mean()))
    assert wilcoxon(differences) == pytest.approx(wanted, abs=1e-9)


def test_no_difference_is_no_evidence() -> None:
    """All zero: p is 1; eight of eight: the smallest p that eight settings can have."""
    assert wilcoxon(np.zeros(5)) == 1.0
    assert wilcoxon(np.arange(1.0, 9.0)) == 2 / 2**8
    assert wilcoxon(np.array([1.0])) == 1.0


def test_its_p_is_uniform_enough_under_chance() -> None:
    """At most 5 in 100 below 0.05 where there is no difference."""
    rng = np.random.default_rng(0)
    ps = np.array([wilcoxon(rng.standard_normal(12)) for _ in range(500)])
    assert (ps <= 0.05).mean() <= 0.065


def test_holm_by_hand() -> None:
    """Each p times the number not yet rejected, never falling, at most 1; in the order it was given."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("timm", "name"),
    [
        ("vit_base_patch16_224.dino", "vit_base_patch16_224"),
        ("vit_base_patch16_clip_224.laion2b", "vit_base_patch16_224"),
        ("deit_small_patch16_224.fb_in1k", "vit_small_patch16_224"),
        ("deit_base_patch16_384.fb_in1k", "vit_base_patch16_384"),
        ("vit_large_patch14_clip_224.laion2b", "vit_large_patch14_224"),
        ("resnet50_clip.openai", "resnet50_clip"),
        ("resnet50", "resnet50"),
        ("vit_base_patch16_siglip_224.v2_webli", "vit_base_patch16_siglip_224"),
        ("deit3_small_patch16_224.fb_in22k_ft_in1k", "deit3_small_patch16_224"),
    ],
)
def test_one_architecture_has_one_name(timm: str, name: str) -> None:
    """Weights do not matter, nor whose plain ViT it is; another stem does."""
    assert architecture(timm) == name


def test_pretrainings_are_compared_on_the_architectures_that_have_both() -> None:
    """DINO over AugReg on two ViTs, setting by setting; MAE shares only one of them."""
    rows = [(f"{VITS[0]}.dino", "pretrained"), (f"{VITS[0]}.augreg_in1k", "pretrained")]
    rows += [(f"{VITS[1]}.dino", "pretrained"), (f"{VITS[1]}.augreg_in1k", "pretrained")]
    rows += [(f"{VITS[0]}.mae", "pretrained")]
    base = np.array([0.5, 0.4, 0.6, 0.3, 0.7, 0.2])
    board = of(rows, [base + 0.1, base, base + 0.05, base - 0.01, base - 0.2])
    found = standing(board, 20)
    by = {(c.a, c.b): c for c in apples.pretrainings(board, found)}

    dino, augreg, mae = "DINO, IN-1k", "supervised (AugReg), IN-1k", "MAE, IN-1k"
    assert by.keys() == {(dino, augreg), (dino, mae), (augreg, mae)}
    first = by[dino, augreg]
    assert first.shared == tuple(VITS)
    assert (first.n, first.ahead) == (6, 6)
    assert first.p == pytest.approx(2 / 2**6)
    assert first.holm == pytest.approx(3 * 2 / 2**6)
    assert by[dino, mae].shared == (VITS[0],)
    wanted = ((found.z[0] - found.z[1]) + (found.z[2] - found.z[3])) / 2
    assert first.difference == pytest.approx(wanted.mean())


def test_architectures_are_compared_under_the_pretrainings_that_have_both() -> None:
    """The other way round; random weights are a pretraining of their own: none."""
    rows = [("resnet50.a1_in1k", "random"), ("convnext_tiny.fb_in1k", "random")]
    rows += [("convnext_tiny.fb_in1k", "pretrained")]
    board = of(rows, [[0.5, 0.6, 0.4], [0.6, 0.5, 0.5], [0.9, 0.9, 0.9]])
    board = replace(board, backbones=["r", "c random", "c"])
    (only,) = apples.architectures(board, standing(board, 20))

    assert (only.a, only.b, only.shared, only.n, only.ahead) == (
        ("convnext_tiny", "resnet50", ("none",), 3, 2)
    )
    (other,) = apples.pretrainings(board, standing(board, 20))
    assert (other.a, other.b) == ("supervised, IN-1k", "none")


def test_settings_that_one_of_them_lacks_are_not_counted() -> None:
    """Paired means both; with no setting in common there is no contrast."""
    rows = [(f"{VITS[0]}.dino", "pretrained"), (f"{VITS[0]}.mae", "pretrained"), ("test_resnet", "random")]
    nan = float("nan")
    board = of(rows, [[0.9, 0.8, nan], [nan, 0.4, 0.5], [0.1, 0.2, 0.3]])
    assert [c.n for c in apples.pretrainings(board, standing(board, 20))] == [1]
    board = of(rows, [[0.9, nan, nan], [nan, 0.4, 0.5], [0.1, 0.2, 0.3]])
    assert apples.pretrainings(board, standing(board, 20)) == []


def test_what_the_catalogue_does_not_have_is_in_no_contrast() -> None:
    """A file of one's own and a name nobody knows; a table without origins has none at all."""
    rows = [("mine", "pretrained"), ("test_resnet", "file:abc")]
    board = of(rows, [[0.5, 0.6], [0.4, 0.3]])
    unknown, file = kin(board)
    assert unknown is None
    assert file is not None
    assert (file.architecture, file.pretraining, file.data_m) == ("test_resnet", None, None)
    assert apples.pretrainings(board, standing(board, 20)) == []
    assert kin(made([[0.5]])) == [None]


def test_published_contrasts_say_what_the_facts_say() -> None:
    """IN-22k lifts ConvNeXt in all eight settings; CLIP's ViT-B is far ahead of MAE's."""
    board = published()
    by = {(c.a, c.b): c for c in apples.pretrainings(board, standing(board, 20))}

    lifted = by["supervised, IN-22k, then IN-1k", "supervised, IN-1k"]
    assert lifted.shared == ("convnext_base", "convnext_small")
    assert (lifted.ahead, lifted.n) == (8, 8)
    assert by["CLIP, LAION-2B", "MAE, IN-1k"].difference > 3
    assert all(c.difference >= 0 and c.p <= c.holm <= 1 for c in by.values())


def test_scale_is_spearman_over_all_and_by_family() -> None:
    """On the published numbers it is scipy's; a family of fewer than four has a reason instead."""
    board = published()
    found = standing(board, 20)
    scales = {(s.by, s.family): s for s in apples.scales(board, found)}
    known = kin(board)
    vits = [b for b, k in enumerate(known) if k and k.family == "vit"]

    size = [known[b].params_m for b in vits if known[b]]  # type: ignore[union-attr]
    wanted = stats.spearmanr(np.log(size), found.overall[vits]).statistic
    assert scales["parameters", "vit"].rho == pytest.approx(wanted, abs=1e-9)
    assert scales["parameters", "vit"].n == 13
    assert scales["parameters", "all"].n == 33
    assert scales["pretraining images", "all"].n == 31  # of MiDaS nobody says how many
    few = of([("test_resnet", "random")], [[0.5, 0.1]])
    few = replace(few, pool=np.array([True]))
    assert [s.reason for s in apples.scales(few, standing(few, 20))] == ["0 backbones; 4 are needed"] * 2


def test_a_family_of_one_size_has_no_scale() -> None:
    """Nothing can go with what does not differ."""
    names = [f"{VITS[0]}.{tag}" for tag in ("dino", "mae", "augreg_in1k", "moco_v3")]
    board = of([(name, "pretrained") for name in names], [[0.1, 0.2], [0.2, 0.4], [0.3, 0.1], [0.4, 0.5]])
    reasons = {(s.by, s.family): s.reason for s in apples.scales(board, standing(board, 20))}
    assert reasons["parameters", "vit"] == "all 4 are the same"
