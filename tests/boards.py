"""Boards for tests: made up from a table of numbers, drawn at random, or the published one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.boards.board import Board, Setting
from bench.boards.score_files import from_scores

PUBLISHED = Path(__file__).resolve().parent.parent / "bench" / "published" / "bob-retrieval"


def made(scores: Any, **changes: Any) -> Board:
    """Return a board of scores `[backbones, settings]` or `[backbones, settings, seeds]`; None is missing."""
    values = np.array(scores, dtype=np.float64)
    values = values[:, :, None] if values.ndim == 2 else values
    count, settings, _ = values.shape
    given = {
        "title": "made up",
        "backbones": [f"b{i}" for i in range(count)],
        "settings": [Setting(f"s{i}", "g", "top1", True, 0.0, 1.0) for i in range(settings)],
        "scores": values,
        "pool": np.ones(count, dtype=bool),
    }
    return Board(**{**given, **changes})


def drawn(seed: int, backbones: int, settings: int, seeds: int = 1, missing: float = 0.0) -> Board:
    """Return a random board in two groups, some settings lower-is-better, without two equal scores."""
    rng = np.random.default_rng(seed)
    scores = rng.random((backbones, settings, seeds))
    scores[rng.random((backbones, settings)) < missing] = np.nan
    columns = [Setting(f"s{i}", f"g{i % 2}", "m", bool(i % 3), 0.0, 1.0) for i in range(settings)]
    return made(scores, settings=columns)


def published() -> Board:
    """Return the study's retrieval scores."""
    return from_scores(PUBLISHED / "scores.toml")
