"""Standings as tables: who is ahead over everything, which settings agree, what compares like for like."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import fronts, pareto
from bench.boards import alike, apples
from bench.boards.board import from_results
from bench.boards.standing import LEAST, RESAMPLES, standing
from bobrt.console import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bench.boards.alike import Alike
    from bench.boards.apples import Contrast
    from bench.boards.board import Board, Reference
    from bench.boards.standing import Place, Standing
    from bobrt.result import Result

BACKBONES, SETTINGS = 3, 2
"""What a standing of results needs: with fewer the rankings of their tasks say it all."""
MOST = 30
"""Rows of a table of pairs; the rest is counted, and in the JSON."""
WIDE = 12
"""Settings that stand side by side."""
PLACED = ["rank", "backbone", "z", "z 95 %", "ranks 95 %", "without one", "moved most by", "normalised %"]
PLACED += ["mean rank", "beats %", "settings"]
SPARE = ["mean rank", "moved most by", "beats %", "z 95 %", "normalised %", "settings"]
BUDGET = ["cost", "within", "best", "z", "z lost"]
LEGEND = (
    "z: score less the pool's mean, in the pool's population standard deviations, turned so that more "
    "is better; mean over the settings of a group, then over groups. `=`: not told apart from the row "
    f"above. z 95 % and ranks 95 %: bootstrap over settings and seeds, {RESAMPLES} resamples. Without "
    "one: best and worst rank with any one setting left out, and the setting that moves it most. "
    "Normalised: guessing is 0, perfection 100; only of who was asked everything. Mean rank and beats: "
    f"among the pool, equal ones half. A backbone is ranked that was asked at least {LEAST:.0%} of the "
    "weight; what it was not asked is not made up. Two things are compared setting by setting "
    "(Wilcoxon's signed-rank test, exact): with few settings p cannot be small."
)


def boards(results: Sequence[Result], against: Reference | None = None) -> list[Board]:
    """Return the boards of results that have enough backbones and settings for a standing."""
    return from_results(results, against, least=(BACKBONES, SETTINGS))


def tables(board: Board, results: Sequence[Result] = ()) -> list[tuple[str, Table]]:
    """Return titles and tables of everything a board says.

    Args:
        board: Scores.
        results: The records it was made of, for what its engines cost; none for a published table.

    """
    found, results = standing(board), fronts.own(board, results)
    parts = [(f"Standing: {board.title}", _placed(board, found, results))]
    if budgets := _budgets(board, found, results):
        parts.append(("The best under a budget", Table(BUDGET, budgets, (1, 3, 4))))
    if len(found.groups) > 1:
        parts.append(("z by group", _scores(board, found, found.groups, found.by_group)))
    if 1 < len(found.settings) <= WIDE:
        columns = [i for i, s in enumerate(board.settings) if s.name in found.settings]
        names = [board.settings[i].name for i in columns]
        parts.append(("z by setting", _scores(board, found, names, found.z[:, columns])))
    parts += [(title, _pairs(pairs)) for title, pairs in _agreement(board, found)]
    parts += [
        (title, _contrasts(contrasts, shared))
        for title, shared, contrasts in (
            ("The same architecture, pretrained differently", "on", apples.pretrainings(board, found)),
            ("The same pretraining, other architectures", "pretraining", apples.architectures(board, found)),
        )
        if contrasts
    ]
    if scales := [scale for scale in apples.scales(board, found) if scale.rho is not None]:
        rows = [[s.by, s.family, str(s.n), f"{s.rho:+.2f}", _range(s.rho95)] for s in scales]
        parts.append(
            (
                "Size: Spearman of z with it",
                Table(["size", "family", "n", "rho", "rho 95 %"], rows, (2, 3, 4)),
            )
        )
    if found.left_out:
        rows = [[entry.backbone, entry.reason] for entry in found.left_out]
        parts.append((f"Not in the standing: {board.title}", Table(["backbone", "reason"], rows)))
    return parts


def sentence(board: Board, found: Standing) -> str:
    """Say who is ahead, and how firmly; why nobody is if so."""
    if not found.places:
        return f"No backbone of {board.title} has a standing: none was asked enough that tells them apart."
    best = found.places[0]
    told = f"Over {len(found.settings)} settings {best.backbone} is first of {len(found.places)} backbones: "
    told += f"z {best.z:+.2f}"
    if best.ranks95 is None:
        return f"{told}; one setting says nothing of others."
    return f"{told}, rank {_span(best.ranks95)} with other settings like these."


def notes(board: Board) -> list[str]:
    """Return what a reader of the tables must know, a line each; who is ahead comes first."""
    found = standing(board)
    lines = [sentence(board, found)]
    lines += [f"Source: {board.source}."] if board.source else []
    lines += [f"{note.rstrip('.')}." for note in board.notes]
    lines.append(f"Pool: {int(board.pool.sum())} of {len(board.backbones)} backbones.")
    lines += [f"{name} says nothing: {why}." for name, why in found.silent.items()]
    if unknown := [n for n, k in zip(board.backbones, apples.kin(board), strict=True) if k is None]:
        lines.append(
            f"Not compared like for like, as the catalogue does not have them: {', '.join(unknown)}."
        )
    for title, pairs in _agreement(board, found):
        lines += _more(title, len(pairs))
    lines += _more("pretrainings", len(apples.pretrainings(board, found)))
    return [*lines, *_more("architectures", len(apples.architectures(board, found)))]


def as_dict(board: Board) -> dict[str, Any]:
    """Return all that a board says as plain values, for JSON; what is not known is None or NaN, both null."""
    found = standing(board)
    return {
        "title": board.title,
        "source": board.source,
        "notes": board.notes,
        "engines": board.engines._asdict() if board.engines else None,
        "settings": [setting._asdict() for setting in board.settings],
        "backbones": board.backbones,
        "pool": [name for name, of in zip(board.backbones, board.pool, strict=True) if of],
        "weights": {name: board.weights.get(name, 1.0) for name in board.groups},
        "places": [place._asdict() for place in found.places],
        "left_out": [entry._asdict() for entry in found.left_out],
        "silent": found.silent,
        "z": found.z.tolist(),
        "groups": found.groups,
        "z_by_group": found.by_group.tolist(),
        "alike": [pair._asdict() for _, pairs in _agreement(board, found) for pair in pairs],
        "pretrainings": [contrast._asdict() for contrast in apples.pretrainings(board, found)],
        "architectures": [contrast._asdict() for contrast in apples.architectures(board, found)],
        "scales": [scale._asdict() for scale in apples.scales(board, found)],
    }


def _placed(board: Board, found: Standing, results: Sequence[Result]) -> Table:
    header, rows = list(PLACED), [_place(place, len(found.settings)) for place in found.places]
    p50 = fronts.costs(board, results, "p50_ms")
    if not np.isnan(p50).all():
        on = pareto.front(found.overall, p50)
        header += ["p50 ms", "front"]
        for row, place in zip(rows, found.places, strict=True):
            b = board.backbones.index(place.backbone)
            row += ["" if np.isnan(p50[b]) else f"{p50[b]:.3g}", "*" if on[b] else ""]
    right = [i for i, name in enumerate(header) if name not in {"backbone", "moved most by", "front"}]
    return Table(header, rows, tuple(right), [header.index(name) for name in SPARE])


def _budgets(board: Board, found: Standing, results: Sequence[Result]) -> list[list[str]]:
    """Return for each cost that is known what keeping to it loses: a row for each backbone of the front."""
    rows = []
    for name, cost in fronts.COSTS.items():
        spent = fronts.costs(board, results, name)
        for loss in pareto.losses(found.overall, spent, lower_costs=cost.lower_is_better):
            z = found.overall[loss.best]
            rows.append(
                [name, f"{loss.budget:.4g}", board.backbones[loss.best], f"{z:+.2f}", f"{loss.lost:.2f}"]
            )
    return rows


def _place(place: Place, settings: int) -> list[str]:
    return [
        f"{'=' if place.tied else ''}{place.rank}",
        place.backbone,
        f"{place.z:+.2f}",
        _range(place.z95),
        _span(place.ranks95),
        _span(place.ranks_without),
        place.moved_by,
        "" if place.normalised is None else f"{100 * place.normalised:.1f}",
        f"{place.mean_rank:.1f}",
        f"{100 * place.borda:.0f}",
        f"{place.settings}/{settings}",
    ]


def _scores(board: Board, found: Standing, names: list[str], z: NDArray[np.float64]) -> Table:
    """Return z-scores side by side, in the order of the standing."""
    order = [board.backbones.index(place.backbone) for place in found.places]
    rows = [
        [board.backbones[b], *("" if np.isnan(value) else f"{value:+.2f}" for value in z[b])] for b in order
    ]
    return Table(["backbone", *names], rows, tuple(range(1, len(names) + 1)))


def _agreement(board: Board, found: Standing) -> list[tuple[str, list[Alike]]]:
    """Return how alike settings, and groups, rank backbones: the least alike first."""
    columns = [i for i, s in enumerate(board.settings) if s.name in found.settings]
    settings = alike.alike([board.settings[i].name for i in columns], found.z[:, columns])
    asked = [("settings", settings), ("groups", alike.alike(found.groups, found.by_group))]
    titled = []
    for what, pairs in asked:
        rhos = [pair.spearman for pair in pairs if pair.spearman is not None]
        if rhos:
            span = f"{min(rhos):.2f} to {max(rhos):.2f}, median {median(rhos):.2f}"
            title = f"How alike {what} rank: Spearman {span}"
            titled.append((title, sorted(pairs, key=lambda p: 2.0 if p.spearman is None else p.spearman)))
    return titled


def _pairs(pairs: list[Alike]) -> Table:
    header = ["one", "the other", "n", "Spearman", "rho 95 %", "Kendall", "tau 95 %", "reason"]
    rows = [
        [
            pair.a,
            pair.b,
            str(pair.n),
            "" if pair.spearman is None else f"{pair.spearman:.2f}",
            _range(pair.spearman95),
            "" if pair.kendall is None else f"{pair.kendall:.2f}",
            _range(pair.kendall95),
            pair.reason,
        ]
        for pair in pairs[:MOST]
    ]
    return Table(header, rows, tuple(range(2, 7)))


def _contrasts(contrasts: list[Contrast], shared: str) -> Table:
    header = ["better", "than", shared, "z", "ahead in", "p", "p of all (Holm)"]
    rows = [
        [
            contrast.a,
            contrast.b,
            "; ".join(contrast.shared),
            f"{contrast.difference:+.2f}",
            f"{contrast.ahead}/{contrast.n}",
            f"{contrast.p:.2g}",
            f"{contrast.holm:.2g}",
        ]
        for contrast in contrasts[:MOST]
    ]
    return Table(header, rows, (3, 4, 5, 6))


def _more(what: str, count: int) -> list[str]:
    """Say how many rows a table has no room for; nothing if it has."""
    left = count - MOST
    return [f"{what.partition(':')[0]}: {left} more pairs in `--format json`."] if left > 0 else []


def _range(bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:+.2f} to {bounds[1]:+.2f}"


def _span(bounds: tuple[int, int] | None) -> str:
    return "" if bounds is None else f"{bounds[0]}-{bounds[1]}"
