"""Which backbone, over everything that was asked: z-scores against a pool, and how far their order holds.

The formula is the study's (Goldblum et al. 2023): in each setting z = (score - mean) / deviation, turned
so that more is better; a group's score is the mean over its settings, the overall one the weighted mean
over groups. What the study leaves open is decided in docs/decisions/0012-standing.md: mean and
population deviation are those of a fixed pool; what was not measured is not made up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.boards.board import mean
from bench.boards.resample import DIGITS, FEW, left_one_out, ranked_at, resampled, weighed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.boards.board import Board
    from bench.boards.resample import Groups

    Floats = NDArray[np.float64]

RESAMPLES = 1000
LEAST = 0.5
"""Share of the weight a backbone must have been asked to be ranked."""


class Place(NamedTuple):
    """One ranked backbone."""

    backbone: str
    rank: int
    """1 + the backbones with a better z; equal ones share it."""
    tied: bool
    """Not told apart from the one above: the interval of their difference holds 0."""
    z: float
    z95: tuple[float, float] | None
    ranks95: tuple[int, int] | None
    """Best and worst rank in 95 % of the resamples; None with fewer than two settings."""
    ranks_without: tuple[int, int] | None
    """Best and worst rank with any one setting left out."""
    moved_by: str
    """The setting that moves its rank most when left out; empty if none does."""
    normalised: float | None
    """Mean of the scores with guessing at 0 and perfection at 1; None if it lacks one of them."""
    mean_rank: float
    """In a setting: 1 + those of the pool that are better, equal ones half."""
    borda: float
    """Share of the pool's other backbones it beats, equal ones half."""
    settings: int
    """In how many of the standing's settings it was measured."""


class Unplaced(NamedTuple):
    """A backbone without a rank, and why."""

    backbone: str
    reason: str


class Standing(NamedTuple):
    """The order of a board's backbones."""

    places: list[Place]
    left_out: list[Unplaced]
    silent: dict[str, str]
    """Settings that tell nobody apart, and why."""
    settings: list[str]
    """Those that do."""
    z: Floats
    """`[backbones, settings]` of the board; NaN where not measured, and in silent settings."""
    groups: list[str]
    by_group: Floats
    """`[backbones, groups]`: mean z over a group's settings; NaN where none was measured."""
    overall: Floats
    """`[backbones]`: NaN for those that are left out."""


def standing(board: Board, resamples: int = RESAMPLES) -> Standing:
    """Return the standing of a board. Seeded: the same board gives the same standing.

    The intervals are those of other settings like these (bootstrap over settings) and of other seeds
    (normal, with each cell's standard error over its seeds), widened for few settings as a percentile
    interval must be (Hesterberg 2015, "expanded percentile").

    Args:
        board: Scores.
        resamples: Of the bootstrap.

    """
    z, error, silent = z_scores(board)
    # Sorted, so that neither the order of rows nor that of columns decides what is drawn for whom.
    kept = [
        s
        for s in sorted(range(len(board.settings)), key=lambda s: board.settings[s].name)
        if not np.isnan(z[:, s]).all()
    ]
    groups = _groups(board, kept)
    whole = np.ones((1, len(kept)))
    overall = weighed(whole, z[:, kept], groups)[0]
    asked = _share(z[:, kept], groups)
    ranked = [b for b in range(len(board.backbones)) if asked[b] >= LEAST and not np.isnan(overall[b])]
    ranked.sort(key=lambda b: (-round(float(overall[b]), DIGITS), board.backbones[b]))
    places = _places(board, ranked, kept, groups, (z, error), resamples)
    names = list(dict.fromkeys(board.settings[s].group for s in sorted(kept)))
    columns = [[s for s in kept if board.settings[s].group == name] for name in names]
    left_out = sorted(set(range(len(board.backbones))) - {*ranked}, key=lambda b: board.backbones[b])
    return Standing(
        places=places,
        left_out=[Unplaced(board.backbones[b], _why(z[b, kept], asked[b])) for b in left_out],
        silent=silent,
        settings=[board.settings[s].name for s in sorted(kept)],
        z=z,
        groups=names,
        by_group=np.stack([mean(z[:, c], axis=1) for c in columns], axis=1) if columns else z[:, :0],
        overall=np.where(np.isin(np.arange(len(overall)), ranked), overall, np.nan),
    )


def z_scores(board: Board) -> tuple[Floats, Floats, dict[str, str]]:
    """Return z-scores over the pool, their standard errors, and the settings that have none.

    Returns:
        z `[backbones, settings]`, more is better, NaN where there is none; its standard error over seeds
        likewise, 0 where every cell has one seed; and why the silent settings are.

    """
    values = board.signs * board.values
    reference = values[board.pool]
    count = (~np.isnan(reference)).sum(axis=0)
    centre = mean(reference, axis=0)
    deviation = np.sqrt(mean((reference - centre) ** 2, axis=0))
    size = np.max(np.abs(np.nan_to_num(reference)), axis=0, initial=0.0)
    silent = {}
    for s, setting in enumerate(board.settings):
        if count[s] < FEW:
            silent[setting.name] = f"{count[s]} of the pool were asked"
        elif deviation[s] <= 1e-12 * size[s]:
            silent[setting.name] = "all of the pool score the same"
    scale = np.array(
        [np.nan if s.name in silent else d for s, d in zip(board.settings, deviation, strict=True)]
    )
    return (values - centre) / scale, _errors(board.scores) / scale, silent


def _errors(scores: Floats) -> Floats:
    """Return the standard error of each mean over seeds, `[backbones, settings]`.

    A cell with one seed is taken to scatter as the setting's others do.
    """
    count = (~np.isnan(scores)).sum(axis=2)
    squares = mean((scores - mean(scores, axis=2)[:, :, None]) ** 2, axis=2)
    several = count >= FEW
    variance = np.where(several, squares * count / np.maximum(count - 1, 1), np.nan)
    usual = np.nan_to_num(mean(variance, axis=0))
    errors: Floats = np.sqrt(np.where(several, variance, usual) / np.maximum(count, 1))
    return errors


def _groups(board: Board, kept: list[int]) -> Groups:
    """Return the columns among `kept`, and the weight, of each group."""
    found: dict[str, list[int]] = {}
    for column, s in enumerate(kept):
        found.setdefault(board.settings[s].group, []).append(column)
    return [(np.array(columns), board.weights.get(name, 1.0)) for name, columns in sorted(found.items())]


def _share(z: Floats, groups: Groups) -> Floats:
    """Return the share of the weight that each backbone was asked: `[backbones]`."""
    whole = sum(heavy for _, heavy in groups)
    share = np.zeros(len(z))
    for columns, heavy in groups:
        share += heavy / (whole or 1.0) * (~np.isnan(z[:, columns])).mean(axis=1)
    return share.round(DIGITS)


def _why(z: Floats, share: float) -> str:
    if np.isnan(z).all():
        return "no score in any setting that tells backbones apart"
    count = int((~np.isnan(z)).sum())
    return f"{count} of {len(z)} settings, {100 * share:.0f} % of the weight; {100 * LEAST:.0f} % are needed"


def _places(  # noqa: PLR0913, PLR0917 - what `standing` has found so far
    board: Board,
    ranked: list[int],
    kept: list[int],
    groups: Groups,
    scores: tuple[Floats, Floats],
    resamples: int,
) -> list[Place]:
    """Return the places of the ranked backbones, which come in the order of their z."""
    if not ranked:
        return []
    z, error = (part[np.ix_(ranked, kept)] for part in scores)
    whole = np.ones((1, len(kept)))
    overall = weighed(whole, z, groups)[0]
    rank = ranked_at(overall[None])[0].astype(int)
    z95, ranks95, tied = resampled(z, error, groups, resamples)
    without, moved_by = left_one_out(z, groups, [board.settings[s].name for s in kept])
    mean_rank, borda = (
        weighed(whole, part[np.ix_(ranked, kept)], groups)[0] for part in _against_pool(board)
    )
    normalised = _normalised(board)[ranked]
    return [
        Place(
            backbone=board.backbones[b],
            rank=int(rank[i]),
            tied=bool(tied[i] or (i > 0 and rank[i] == rank[i - 1])),
            z=float(overall[i]),
            z95=z95[i] if z95 else None,
            ranks95=ranks95[i] if ranks95 else None,
            ranks_without=without[i] if without else None,
            moved_by=moved_by[i],
            normalised=None if np.isnan(normalised[i]) else float(normalised[i]),
            mean_rank=float(mean_rank[i]),
            borda=float(borda[i]),
            settings=int((~np.isnan(z[i])).sum()),
        )
        for i, b in enumerate(ranked)
    ]


def _against_pool(board: Board) -> tuple[Floats, Floats]:
    """Return rank and Borda share of each backbone among the pool, `[backbones, settings]` each."""
    values = board.signs * board.values
    rank, borda = np.full_like(values, np.nan), np.full_like(values, np.nan)
    for s in range(values.shape[1]):
        column = values[:, s]
        pool = np.sort(column[board.pool & ~np.isnan(column)])
        below = np.searchsorted(pool, column, side="left")
        above = len(pool) - np.searchsorted(pool, column, side="right")
        others = len(pool) - board.pool.astype(int)
        equal = others - below - above
        there = ~np.isnan(column) & (others > 0)
        rank[:, s] = np.where(there, 1 + above + equal / 2, np.nan)
        borda[:, s] = np.where(there, (below + equal / 2) / np.maximum(others, 1), np.nan)
    return rank, borda


def _normalised(board: Board) -> Floats:
    """Return the mean score of each backbone with guessing at 0 and perfection at 1, `[backbones]`.

    Settings are of unequal difficulty, which this score does not take out: a mean over easier ones is
    no mean, so a backbone that lacks one of the settings has none.
    """
    ends = [(setting.random, setting.perfect) for setting in board.settings]
    known = [
        s for s, (random, perfect) in enumerate(ends) if None not in {random, perfect} and random != perfect
    ]
    known = [s for s in known if not np.isnan(board.values[:, s]).all()]
    if not known:
        return np.full(len(board.backbones), np.nan)
    random, perfect = (np.array([ends[s][i] for s in known], dtype=np.float64) for i in (0, 1))
    scores = (board.values[:, known] - random) / (perfect - random)
    means = weighed(np.ones((1, len(known))), scores, _groups(board, known))[0]
    return np.where(np.isnan(scores).any(axis=1), np.nan, means)
