"""How alike settings rank: against scipy, with holes, and where there is nothing to say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from boards import published
from scipy import stats

from bench.boards.alike import alike, kendall, kendall_interval, ranks, spearman, spearman_interval

NAN = float("nan")


def with_ties(seed: int, n: int, columns: int) -> np.ndarray:
    """Return a random table `[n, columns]` in which many values are equal."""
    return np.random.default_rng(seed).integers(0, 6, (n, columns)).astype(np.float64)


@pytest.mark.parametrize("seed", range(20))
def test_coefficients_are_scipys_to_1e_9(seed: int) -> None:
    """Spearman's rho and Kendall's tau-b, ties and all."""
    values = with_ties(seed, 12, 4)
    for pair in alike([*"abcd"], values):
        x, y = (values[:, "abcd".index(name)] for name in (pair.a, pair.b))
        assert pair.spearman == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)
        assert pair.kendall == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-9)


def test_ranks_are_scipys() -> None:
    """Equal values share the mean of their ranks."""
    values = with_ties(0, 50, 1)[:, 0]
    np.testing.assert_array_equal(ranks(values), stats.rankdata(values))


def test_the_published_settings_agree_as_the_facts_say() -> None:
    """28 pairs, Spearman from 0.42 to 0.98, median 0.72."""
    board = published()
    found = alike([setting.name for setting in board.settings], board.values)
    rhos = [pair.spearman for pair in found if pair.spearman is not None]

    assert len(rhos) == 28
    assert [round(value, 2) for value in (min(rhos), max(rhos), float(np.median(rhos)))] == [0.42, 0.98, 0.72]
    assert {pair.n for pair in found} == {33}


@pytest.mark.parametrize("seed", range(10))
def test_a_pair_is_compared_on_those_that_have_both(seed: int) -> None:
    """A hole in a third column does not matter, and one of the pair's own takes the backbone out."""
    values = with_ties(seed, 14, 3)
    values[np.random.default_rng(seed).random(values.shape) < 0.2] = NAN
    for pair in alike([*"abc"], values):
        both = values[:, ["abc".index(pair.a), "abc".index(pair.b)]]
        both = both[~np.isnan(both).any(axis=1)]
        assert pair.n == len(both)
        assert pair.spearman == pytest.approx(stats.spearmanr(*both.T).statistic, abs=1e-9)
        assert pair.kendall == pytest.approx(stats.kendalltau(*both.T).statistic, abs=1e-9)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ([[1, 2, 3], [3, 1, 2]], "3 backbones have both; 4 are needed"),
        ([[1, 2, 3, NAN, 5], [3, 1, NAN, 2, 4]], "3 backbones have both; 4 are needed"),
        ([[NAN] * 5, [1, 2, 3, 4, 5]], "0 backbones have both; 4 are needed"),
        ([[1, 2, 3, 4], [7, 7, 7, 7]], "all 4 score the same in b"),
    ],
)
def test_where_there_is_no_coefficient_there_is_a_reason(columns: list[list[float]], reason: str) -> None:
    """Nothing is made of too few, or of a setting that says nothing."""
    (pair,) = alike(["a", "b"], np.array(columns, dtype=np.float64).T)
    assert pair[3:] == (None, None, None, None, reason)


def test_intervals_are_those_of_the_papers() -> None:
    """By their formulae: Bonett & Wright's standard error for rho, Fieller, Hartley & Pearson's for tau."""
    low, high = spearman_interval(0.5, 33) or (NAN, NAN)
    half = 1.959963984540054 * math.sqrt((1 + 0.125) / 30)
    assert (math.atanh(low), math.atanh(high)) == pytest.approx(
        (math.atanh(0.5) - half, math.atanh(0.5) + half)
    )
    low, high = kendall_interval(-0.3, 20) or (NAN, NAN)
    half = 1.959963984540054 * math.sqrt(0.437 / 16)
    assert (math.atanh(low), math.atanh(high)) == pytest.approx(
        (math.atanh(-0.3) - half, math.atanh(-0.3) + half)
    )


def test_an_interval_needs_room() -> None:
    """None for the same order, for a reversed one, and for four backbones' tau."""
    values = np.array([[1.0, 1, 4], [2, 2, 3], [3, 3, 2], [4, 4, 1]])
    same, reversed_, _ = alike([*"abc"], values)
    assert (same.spearman, same.kendall, same.spearman95, same.kendall95) == (1.0, 1.0, None, None)
    assert (reversed_.spearman, reversed_.kendall, reversed_.spearman95) == (-1.0, -1.0, None)
    assert spearman_interval(0.4, 4) is not None
    assert kendall_interval(0.4, 4) is None


def test_the_interval_of_rho_covers() -> None:
    """On 400 normal samples of 30 it holds the true rho about 95 times in 100."""
    rng, held = np.random.default_rng(0), 0
    true = 6 / math.pi * math.asin(0.6 / 2)
    for _ in range(400):
        x = rng.standard_normal(30)
        y = 0.6 * x + 0.8 * rng.standard_normal(30)
        low, high = spearman_interval(spearman(x, y), 30) or (NAN, NAN)
        held += low <= true <= high
    assert 0.92 <= held / 400 <= 0.98


def test_many_settings_at_once() -> None:
    """All 4,950 pairs of a hundred settings in one go: scipy's for one of them."""
    values = np.random.default_rng(0).random((300, 100))
    taus = kendall(values)
    assert taus.shape == (100, 100)
    assert taus[3, 97] == pytest.approx(stats.kendalltau(values[:, 3], values[:, 97]).statistic, abs=1e-9)
