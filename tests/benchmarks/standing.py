"""How long a standing takes, and which way with missing cells bends an order least.

    make bench-standing

First a made-up board of 1,000 backbones and 100 settings in ten groups, with 1,000 resamples, on one core;
once whole with one seed, once with three seeds and a tenth of the cells missing. Goal: under 10 s.

Then the published scores of the study (33 backbones x 8 settings, complete): a third of the backbones lose
a quarter of their cells, and each way of dealing with that is asked for the overall z of those backbones.
Printed: how far they land from where the complete table puts them, in ranks of 33, on average and in which
direction (below 0: too good a rank). Cells are lost by chance, or each backbone loses those it is worst in.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.boards.board import Board, Setting, mean
from bench.boards.score_files import from_scores
from bench.boards.standing import standing, z_scores
from bobrt import console

PUBLISHED = Path(__file__).resolve().parents[2] / "bench" / "published" / "bob-retrieval" / "scores.toml"
TRIALS = 200


def main() -> None:
    """Print one line per board, then one per way of dealing with what is missing."""
    for seeds, missing in ((1, 0.0), (3, 0.1)):
        board = made_up(1000, 100, seeds, missing)
        begin = time.process_time()
        found = standing(board)
        console.data(
            f"1,000 backbones x 100 settings x {seeds} seeds, {missing:.0%} missing, 1,000 resamples: "
            f"{time.process_time() - begin:.2f} s of processor time, {len(found.places)} ranked"
        )
    whole = from_scores(PUBLISHED)
    for how in ("by chance", "the worst"):
        for name, (error, bias) in errors(whole, worst=how == "the worst").items():
            console.data(f"cells lost: {how}; {name}: {error:.2f} ranks off, {bias:+.2f} on average")


def made_up(backbones: int, settings: int, seeds: int, missing: float) -> Board:
    """Return a board of ten groups: a backbone's own level, noise of each cell, and less of each seed."""
    rng = np.random.default_rng(0)
    scores = 0.6 + 0.05 * rng.standard_normal((backbones, 1, 1))
    scores = scores + 0.05 * rng.standard_normal((backbones, settings, 1))
    scores = scores + 0.01 * rng.standard_normal((backbones, settings, seeds))
    scores[rng.random((backbones, settings)) < missing] = np.nan
    columns = [Setting(f"s{i:03}", f"g{i % 10}", "top1", True, 0.1, 1.0) for i in range(settings)]
    names = [f"b{i:04}" for i in range(backbones)]
    return Board("made up", names, columns, scores, np.ones(backbones, dtype=bool))


def errors(whole: Board, *, worst: bool) -> dict[str, tuple[float, float]]:
    """Return for each way the mean absolute and the mean error in ranks of backbones that lost cells."""
    true = z_scores(whole)[0]
    found: dict[str, list[np.ndarray]] = {}
    for trial in range(TRIALS):
        board, hit = _with_holes(whole, true, np.random.default_rng(trial), worst=worst)
        z = z_scores(board)[0]
        common = ~np.isnan(z).any(axis=0)
        ways = {
            "the mean of what is there": mean(z, axis=1),
            "the pool's mean for what is not": np.nan_to_num(z).mean(axis=1),
            "the mean of raw scores": mean(board.values, axis=1),
        }
        if common.any():
            ways["only settings all have"] = z[:, common].mean(axis=1)
        for name, overall in ways.items():
            found.setdefault(name, []).append((_rank(overall) - _rank(true.mean(axis=1)))[hit])
    return {
        f"{name} ({len(off)} of {TRIALS} trials)": (float(np.abs(off).mean()), float(np.mean(off)))
        for name, off in found.items()
    }


def _with_holes(
    whole: Board, true: np.ndarray, rng: np.random.Generator, *, worst: bool
) -> tuple[Board, np.ndarray]:
    """Return the board less a quarter of the cells of a third of its backbones, and who those are."""
    count, settings = true.shape
    hit = rng.choice(count, count // 3, replace=False)
    scores = whole.scores.copy()
    for row in hit:
        order = np.argsort(true[row]) if worst else rng.permutation(settings)
        scores[row, order[: settings // 4]] = np.nan
    return replace(whole, scores=scores), hit


def _rank(overall: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(-overall))


if __name__ == "__main__":
    main()
