"""Who is ahead over everything: against the study's numbers, against scipy, and by what must always hold."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from boards import drawn, made, published
from scipy import stats

from bench.boards.board import Board, Setting
from bench.boards.resample import expanded, weighed
from bench.boards.standing import Standing, standing, z_scores

NAN = float("nan")
# The order that the facts of the study's notebook give, z to two decimals.
FACTS = """
timm-swinv2_base_window12to24_192to384_22kft1k +1.03
timm-convnext_xlarge_in22ft1k +0.99
timm-convnext_base_in22ft1k +0.98
timm-swinv2_base_window12to16_192to256_22kft1k +0.96
timm-swinv2_large_window12to24_192to384_22kft1k +0.94
timm-swinv2_large_window12to16_192to256_22kft1k +0.87
clip-resnet50_64 +0.81
clip-vit_large_patch14_224 +0.80
timm-convnext_small_in22ft1k +0.76
clip-vit_base_patch16_224 +0.75
timm-vit_large_patch16_224_augreg_in21k_ft_in1k +0.70
timm-vit_base_patch16_224_dino +0.31
timm-vit_small_patch16_224_dino +0.31
timm-vit_base_patch16_224_augreg_in21k_ft_in1k +0.22
timm-vit_small_patch16_224_augreg_in21k_ft_in1k +0.15
timm-swinv2_tiny_window8_256 -0.02
sscd-resnet50_disc -0.10
clip-resnet101 -0.11
timm-resnet101 -0.14
timm-convnext_small -0.15
timm-convnext_base -0.19
moco-vit_base_patch16_224 -0.26
vicreg-resnet50 -0.27
clip-resnet50 -0.32
timm-resnet50 -0.33
moco-vit_small_patch16_224 -0.38
sscd-resnet50_im -0.40
timm-vit_small_patch16_224_augreg_in1k -0.52
midas-swin2_base_384 -0.57
timm-vit_base_patch16_224_augreg_in1k -0.66
midas-swin2_tiny_256 -1.08
mae-vit_large_patch16_224 -1.79
mae-vit_base_patch16_224 -3.28
"""


def z_of(board: Board) -> dict[str, float]:
    """Return the overall z by name."""
    return dict(zip(board.backbones, standing(board, 50).overall.tolist(), strict=True))


def order_of(found: Standing) -> list[str]:
    """Return the ranked backbones."""
    return [place.backbone for place in found.places]


def test_the_published_ranking_is_the_one_its_facts_give() -> None:
    """Order and z of all 33, to 0.005; nobody is left out and every setting speaks."""
    facts = [(line.split()[0], float(line.split()[1])) for line in FACTS.strip().splitlines()]
    found = standing(published())

    assert order_of(found) == [name for name, _ in facts]
    assert [p.z for p in found.places] == pytest.approx([z for _, z in facts], abs=0.005)
    assert [place.rank for place in found.places] == list(range(1, 34))
    assert (found.left_out, found.silent, len(found.settings)) == ([], {}, 8)
    first = found.places[0]
    assert first.normalised == pytest.approx(0.761, abs=0.0005)
    assert first.ranks_without == (1, 1)
    assert first.ranks95 is not None
    assert first.ranks95[0] == 1 < first.ranks95[1]


def test_scores_are_scipys_to_1e_9() -> None:
    """z is `zscore`, mean rank is `rankdata`, Borda is the share of the other 32 that are beaten."""
    board = published()
    found = standing(board, 50)
    values = board.values
    ranks = stats.rankdata(-values, axis=0).mean(axis=1)
    by_name = {place.backbone: place for place in found.places}
    places = [by_name[name] for name in board.backbones]

    np.testing.assert_allclose(found.z, stats.zscore(values, axis=0), atol=1e-9, rtol=0)
    np.testing.assert_allclose([p.z for p in places], stats.zscore(values, axis=0).mean(axis=1), atol=1e-9)
    np.testing.assert_allclose([p.mean_rank for p in places], ranks, atol=1e-9)
    np.testing.assert_allclose([p.borda for p in places], (33 - ranks) / 32, atol=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_a_backbone_outside_the_pool_moves_no_score(seed: int) -> None:
    """z, normalised score, mean rank and Borda share of those who were there stay."""
    board = drawn(seed, 8, 6, missing=0.1)
    wild = np.random.default_rng(seed).normal(0, 10, (1, 6, 1))
    more = replace(
        board,
        backbones=[*board.backbones, "new"],
        scores=np.concatenate([board.scores, wild]),
        pool=np.append(board.pool, False),
    )
    before, after = ({p.backbone: p for p in standing(b, 20).places} for b in (board, more))
    for name, place in before.items():
        assert after[name].z == pytest.approx(place.z, abs=1e-12)
        assert after[name].mean_rank == pytest.approx(place.mean_rank, abs=1e-12)
        assert after[name].borda == pytest.approx(place.borda, abs=1e-12)
        assert after[name].normalised == (place.normalised and pytest.approx(place.normalised))


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_rows_and_columns_changes_nothing(seed: int) -> None:
    """Neither does what a backbone is called: same places, ties and intervals under the new names."""
    board = drawn(seed, 7, 5, seeds=2, missing=0.1)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(7), rng.permutation(5)
    names = {name: f"x{i}" for i, name in enumerate(rng.permutation(board.backbones))}
    other = replace(
        board,
        backbones=[names[board.backbones[i]] for i in rows],
        settings=[board.settings[i] for i in columns],
        scores=board.scores[np.ix_(rows, columns)],
    )
    before, after = standing(board, 100), standing(other, 100)

    assert [names[name] for name in order_of(before)] == order_of(after)
    for one, two in zip(before.places, after.places, strict=True):
        assert (one.rank, one.tied, one.ranks95, one.ranks_without, one.moved_by) == (
            (two.rank, two.tied, two.ranks95, two.ranks_without, two.moved_by)
        )
        assert one.z95 == pytest.approx(two.z95, abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_a_better_score_never_lowers_its_own_z(seed: int) -> None:
    """Whether or not it is in the pool, which its score moves too; in either direction of the metric."""
    board = drawn(seed, 6, 4)
    rng = np.random.default_rng(seed)
    b, s = int(rng.integers(6)), int(rng.integers(4))
    pool = np.ones(6, dtype=bool)
    pool[b] = bool(seed % 2)
    last = -np.inf
    for step in (0.0, 0.01, 0.1, 1.0, 10.0):
        scores = board.scores.copy()
        scores[b, s] += step * board.signs[s]
        now = z_of(replace(board, scores=scores, pool=pool))[f"b{b}"]
        assert now >= last - 1e-12
        last = now


def test_direction_turns_the_sign() -> None:
    """The same numbers as an error rank the other way round, with the opposite z."""
    up = made([[0.9, 0.8], [0.5, 0.6], [0.1, 0.3]])
    down = replace(up, settings=[s._replace(higher_is_better=False) for s in up.settings])

    assert order_of(standing(down)) == order_of(standing(up))[::-1]
    np.testing.assert_allclose(standing(down).z, -standing(up).z, atol=1e-12)


def test_groups_weigh_as_asked_whatever_they_hold() -> None:
    """Three settings of one group count as much as the only one of another; weights change that."""
    columns = [Setting(f"s{i}", "many" if i < 3 else "one", "m", True, None, None) for i in range(4)]
    board = made([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]], settings=columns)

    assert z_of(board) == pytest.approx({"b0": 0.0, "b1": 0.0}, abs=1e-12)
    assert z_of(replace(board, weights={"one": 3.0})) == pytest.approx({"b0": -0.5, "b1": 0.5})
    assert standing(board).groups == ["many", "one"]
    np.testing.assert_allclose(standing(board).by_group, [[1, -1], [-1, 1]])


def test_equal_backbones_share_a_rank_and_the_tie_is_shown() -> None:
    """Ordered by name, so that a report is the same every time."""
    board = made([[0.5, 0.6, 0.1], [0.9, 0.8, 0.7], [0.9, 0.8, 0.7], [0.1, 0.2, 0.0]], backbones=[*"dcba"])
    found = standing(board)

    assert [(p.backbone, p.rank, p.tied) for p in found.places] == [
        ("b", 1, False),
        ("c", 1, True),
        ("d", 3, False),
        ("a", 4, False),
    ]


def test_who_wins_everywhere_is_told_apart_and_who_wins_here_and_there_is_not() -> None:
    """A constant lead over eight settings is no tie; a lead that changes sides is one."""
    lead = np.linspace(0.4, 0.6, 8)
    sides = lead + 0.05 * np.array([1, -1, 1, -1, 1, -1, 1, -1.1])
    found = standing(made([lead + 0.2, lead, sides, lead - 0.2]))

    assert order_of(found) == ["b0", "b1", "b2", "b3"]
    assert [place.tied for place in found.places] == [False, False, True, False]


def test_seeds_that_scatter_make_ties() -> None:
    """A lead that every setting shows is noise all the same if the seeds scatter far more."""
    rng = np.random.default_rng(0)
    steady = np.stack([np.full((6, 3), 0.52), np.full((6, 3), 0.50), np.full((6, 3), 0.3)])
    wild = steady + np.array([0.2, 0.2, 0.0])[:, None, None] * rng.standard_normal((3, 6, 3))
    wild[:2] += 0.51 - wild[:2].mean(axis=2, keepdims=True)
    wild[0] += 0.01
    wild[1] -= 0.01

    assert [place.tied for place in standing(made(steady)).places] == [False, False, False]
    assert [place.tied for place in standing(made(wild)).places] == [False, True, False]


def test_one_setting_left_out_at_a_time() -> None:
    """The range of ranks, and the setting that moves a backbone most, are those found by hand."""
    board = drawn(3, 6, 5)
    found = standing(board)
    for place in found.places:
        ranks = {}
        for s, setting in enumerate(board.settings):
            rest = [i for i in range(5) if i != s]
            less = replace(board, settings=[board.settings[i] for i in rest], scores=board.scores[:, rest])
            ranks[setting.name] = {p.backbone: p.rank for p in standing(less, 5).places}[place.backbone]
        assert place.ranks_without == (min(ranks.values()), max(ranks.values()))
        shifts = {name: abs(rank - place.rank) for name, rank in ranks.items()}
        assert shifts.get(place.moved_by, 0) == max(shifts.values())
        assert bool(place.moved_by) == (max(shifts.values()) > 0)


def test_what_is_missing_is_not_made_up() -> None:
    """A backbone's z is the mean of what it was asked; below half of the weight it has no rank."""
    board = made(
        [[0.9, 0.9, 0.9, 0.9], [0.5, 0.5, 0.5, 0.5], [0.9, NAN, NAN, 0.9], [0.9, NAN, NAN, NAN], [NAN] * 4],
        pool=np.array([True, True, False, False, False]),
    )
    found = standing(board)

    assert {p.backbone: (round(p.z, 9), p.settings) for p in found.places} == {
        "b0": (1.0, 4),
        "b2": (1.0, 2),
        "b1": (-1.0, 4),
    }
    assert [tuple(entry) for entry in found.left_out] == [
        ("b3", "1 of 4 settings, 25 % of the weight; 50 % are needed"),
        ("b4", "no score in any setting that tells backbones apart"),
    ]
    assert {p.backbone: p.normalised for p in found.places}["b2"] is None
    assert np.isnan(found.overall[3:]).all()


def test_a_constant_setting_says_nothing_and_is_named() -> None:
    """Nor does one that fewer than two of the pool were asked; neither moves a score."""
    board = made([[0.9, 0.1, 0.5, 0.3], [0.4, 0.1, NAN, 0.2], [0.2, 0.1, NAN, 0.4]])
    found = standing(board)

    assert found.silent == {"s1": "all of the pool score the same", "s2": "1 of the pool were asked"}
    assert found.settings == ["s0", "s3"]
    kept = replace(board, settings=[board.settings[i] for i in (0, 3)], scores=board.scores[:, [0, 3]])
    assert z_of(board) == pytest.approx(z_of(kept))


def test_a_mean_that_rounds_is_constant_all_the_same() -> None:
    """Three times 0.1 has a mean that is not 0.1; that is no difference between backbones."""
    assert standing(made([[0.1, 0.3], [0.1, 0.2], [0.1, 0.4]])).settings == ["s1"]


@pytest.mark.parametrize(
    "scores",
    [
        [[0.9, 0.8]],
        [[NAN, NAN], [NAN, NAN]],
        np.zeros((0, 2, 1)),
        np.zeros((2, 0, 1)),
        [[0.5, 0.5], [0.5, 0.5]],
    ],
    ids=["one backbone", "all missing", "no backbone", "no setting", "all the same"],
)
def test_where_nothing_is_told_apart_nobody_is_ranked(scores: object) -> None:
    """And everybody is named with the reason."""
    board = made(scores)
    found = standing(board)
    assert found.places == []
    assert [entry.backbone for entry in found.left_out] == board.backbones
    assert len(found.silent) == len(board.settings)


def test_two_settings_are_enough_and_one_has_no_interval() -> None:
    """With one, nothing is known of others: no interval, no range, no tie but of equals."""
    two, one = standing(made([[0.9, 0.8], [0.5, 0.6]])), standing(made([[0.9], [0.5]]))

    assert [place.ranks95 for place in two.places] == [(1, 1), (2, 2)]
    assert [(p.z95, p.ranks95, p.ranks_without, p.tied) for p in one.places] == [
        (None, None, None, False)
    ] * 2


def test_pool_members_need_not_be_complete() -> None:
    """Mean and deviation of a setting are those of the pool's backbones that were asked."""
    board = made([[1.0, 0.2], [3.0, NAN], [NAN, 0.4], [9.0, 0.9]], pool=np.array([True, True, True, False]))
    z, _, silent = z_scores(board)
    np.testing.assert_allclose(z, [[-1, -1], [1, NAN], [NAN, 1], [7, 6]], atol=1e-9)
    assert silent == {}


def test_intervals_hold_the_score_and_grow_with_the_scatter_of_settings() -> None:
    """z lies in its interval, the rank in its own."""
    found = standing(drawn(1, 12, 9))
    for place in found.places:
        assert place.z95 is not None
        assert place.ranks95 is not None
        assert place.z95[0] <= place.z <= place.z95[1]
        assert place.ranks95[0] <= place.rank <= place.ranks95[1]


def test_the_bootstraps_spread_is_that_of_a_mean_over_settings() -> None:
    """For one group without holes the resamples scatter by sd / sqrt(settings), to a few per cent."""
    board = drawn(5, 10, 16)
    board = replace(board, settings=[s._replace(group="g") for s in board.settings])
    found = standing(board, 4000)
    widths = {p.backbone: p.z95[1] - p.z95[0] for p in found.places if p.z95}
    # An expanded interval is Student's: t sd / sqrt(n), with the deviation over n - 1.
    t = float(stats.t.ppf(0.975, 15))
    wanted = 2 * t * found.z.std(axis=1, ddof=1) / 4
    ratio = np.array([widths[name] for name in board.backbones]) / wanted
    assert abs(ratio.mean() - 1) < 0.05


def test_expanded_tails_are_wider_than_those_of_many() -> None:
    """2.5 % at each end for many settings, less for few."""
    tails = [expanded(n) for n in (2, 3, 5, 10, 100, 10_000)]
    assert all(few < many for few, many in pairwise(tails))
    assert tails[-1] == pytest.approx(0.025, abs=1e-4)


def test_weighed_is_the_mean_of_means() -> None:
    """By hand: counts, holes and weights."""
    values = np.array([[1.0, 3.0, 8.0], [NAN, 2.0, NAN]])
    groups = [(np.array([0, 1]), 1.0), (np.array([2]), 3.0)]
    counts = np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(
        weighed(counts, values, groups), [[(2 + 24) / 4, 2.0], [5 / 3, 2.0], [1.0, NAN]], atol=1e-12
    )


def test_the_same_board_gives_the_same_standing() -> None:
    """Seeded: a report can be made again."""
    assert standing(drawn(2, 9, 6, seeds=3)).places == standing(drawn(2, 9, 6, seeds=3)).places
