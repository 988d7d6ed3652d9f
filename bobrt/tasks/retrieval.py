"""Retrieval: which images of a database show the same as a query, by the features alone.

Features are compared by their cosine, so their length does not count; of equally similar images the first
row of the database comes first. Neither the similarities nor the database are held at once: both go block
by block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bobrt.errors import BobrtError, unknown
from bobrt.tasks.base import Score
from bobrt.tasks.neighbours import keys
from bobrt.tasks.probabilities import require_finite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from bobrt.data import Relevant
    from bobrt.spec import Json

KS = (1, 5, 10)
SIMILARITIES = 1 << 25
"""How many are held at once: 128 MiB, whatever the size of the database."""
BLOCK = 8192
"""Rows of the database that are read at once."""
RESAMPLES = 1000

MEASURES = ("map", "mrr", *(f"{what}_at_{k}" for k in KS for what in ("hit", "recall", "precision")))
"""What is measured of each query, and averaged over queries.

- `map`: average precision (`average_precision`).
- `mrr`: 1 / rank of the first positive.
- `hit_at_k`: whether a positive is among the first k.
- `recall_at_k`: the share of the positives that are among the first k; where there are more than k, it cannot
  reach 1.
- `precision_at_k`: the share of the first k that are positive. (The evaluation of Revisited Oxford and Paris
  divides by the rank of the last positive where that is less than k.)
"""


def score(
    queries: NDArray[np.float32],
    database: NDArray[np.float32],
    settings: Mapping[str, Sequence[Relevant]],
    options: Mapping[str, Json],
) -> Score:
    """Return the mean average precision in one setting, with its interval, and the rest as `extra`.

    Junk is taken out of a ranking before anything is counted. A query without positives is left out of a
    setting and counted, as in the protocol of Revisited Oxford and Paris (Radenovic et al. 2018). The
    interval is a percentile bootstrap over queries, seeded.

    Args:
        queries: `[q, d]` features.
        database: `[n, d]` features; may be memory-mapped and larger than memory.
        settings: For each setting what each query is to find, `q` entries at least.
        options: `setting` is the one that the headline is of, else the first; `cutoff` is the rank up to
            which average precision counts, else all of the database.

    Returns:
        `value`, `n` and `ci95` are of the headline. `extra` has its other `MEASURES`, and those of every
        other setting with the setting's name behind, as `map_easy`, beside `n_easy`; `left_out` and
        `left_out_easy`, the queries without positives; and `zero_features`, the images whose features are all
        zero, which are equally similar to everything.

    Raises:
        BobrtError: A feature is NaN or infinity, there is no image, or no query has anything to find.
        UsageError: `setting` is none of the settings.

    """
    headline = str(options.get("setting") or next(iter(settings)))
    if headline not in settings:
        raise unknown("setting", headline, settings)
    cutoff = options.get("cutoff")
    asking, kept = _lengths(queries), _lengths(database)
    found: dict[str, list[list[float]]] = {name: [] for name in settings}
    for row, ranked in _rankings(queries, asking, database, kept):
        ordered = np.sort(ranked)
        for name, relevant in settings.items():
            if len(relevant[row].positives):
                found[name].append(_measured(_places(relevant[row], ranked, ordered), cutoff))
    if not found[headline]:
        raise BobrtError(f"none of {len(queries)} queries has anything to find in the setting {headline!r}")
    extra: dict[str, float] = {}
    for name, measured in found.items():
        behind = "" if name == headline else f"_{name}"
        extra |= {f"{what}{behind}": value for what, value in _means(measured, len(queries)).items()}
    extra["zero_features"] = float((asking == 0).sum() + (kept == 0).sum())
    value, n = extra.pop("map"), int(extra.pop("n"))
    return Score(value, n, _interval(np.array([aps for aps, *_ in found[headline]])), extra)


def average_precision(places: NDArray[np.int64], cutoff: int | None = None) -> float:
    """Return the average precision of one ranking.

    Without a cutoff it is the area under the precision-recall curve by trapezoids, as the protocol of Oxford
    and Paris has it (Philbin et al. 2007): for each positive the mean of the precisions just before it and
    at it, where that before the first image is 1. With one it is that of Google Landmarks v2 (Weyand et al.
    2020): the sum of the precisions at the positives among the first `cutoff`, over the number of positives
    or the cutoff, whichever is less.

    Args:
        places: `[m]` ranks of all positives from 0, ascending, one at least.
        cutoff: The rank up to which counts, or None for all.

    """
    before = np.arange(len(places))
    at = (before + 1) / (places + 1)
    if cutoff is not None:
        return float(at[places < cutoff].sum() / min(len(places), cutoff))
    just_before = np.where(places == 0, 1.0, before / np.maximum(places, 1))
    return float((just_before + at).sum() / (2 * len(places)))


def _measured(places: NDArray[np.int64], cutoff: int | None) -> list[float]:
    """Return the `MEASURES` of one query, from the ranks `[m]` of its positives, from 0 and ascending."""
    found = [average_precision(places, cutoff), 1 / (int(places[0]) + 1)]
    for k in KS:
        hits = int(np.searchsorted(places, k))
        found += [float(hits > 0), hits / len(places), hits / k]
    return found


def _places(relevant: Relevant, ranked: NDArray[np.int64], ordered: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the ranks of the positives, from 0 and ascending, in the ranking without junk.

    Args:
        relevant: Positives and junk.
        ranked: `[n]` keys of the database's rows, larger for what comes first, no two equal.
        ordered: The same, ascending.

    """
    # Sorting values is many times faster than sorting rows by them, and only a few ranks are asked for.
    positives = np.sort(ranked[relevant.positives])[::-1]
    junk = np.sort(ranked[relevant.junk])
    above = len(ordered) - np.searchsorted(ordered, positives, side="right")
    places: NDArray[np.int64] = above - (len(junk) - np.searchsorted(junk, positives, side="right"))
    return places


def _rankings(
    queries: NDArray[np.float32],
    asking: NDArray[np.float32],
    database: NDArray[np.float32],
    kept: NDArray[np.float32],
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each query's row with a key `[n]` for each row of the database, larger for what comes first.

    Args:
        queries: `[q, d]`.
        asking: `[q]` lengths of them.
        database: `[n, d]`.
        kept: `[n]` lengths of them.

    """
    rows = np.arange(len(database))
    step = max(1, SIMILARITIES // len(database))
    for first in range(0, len(queries), step):
        some = queries[first : first + step] / _divisors(asking[first : first + step])[:, None]
        # The database is divided by its lengths after, so that no block of it is copied.
        similarity = np.empty((len(some), len(database)), np.float32)
        for start in range(0, len(database), BLOCK):
            similarity[:, start : start + BLOCK] = some @ database[start : start + BLOCK].T
        similarity /= _divisors(kept)
        for row, of_query in enumerate(similarity, start=first):
            yield row, keys(of_query, rows)


def _lengths(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the length of each row, `[n]`.

    Raises:
        BobrtError: A feature is NaN or infinity, or there is none.

    """
    blocks = (features[start : start + BLOCK] for start in range(0, len(features), BLOCK))
    found = [np.linalg.norm(block, axis=1) for block in blocks]
    lengths: NDArray[np.float32] = np.concatenate(found or [np.zeros(0, np.float32)])
    require_finite(lengths, "features")
    return lengths


def _divisors(lengths: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what brings rows of these lengths to length 1; a row of zeros stays one."""
    return np.where(lengths > 0, lengths, np.float32(1))


def _means(measured: list[list[float]], queries: int) -> dict[str, float]:
    """Return the mean of each measure over those queries that have positives, and how many they are."""
    means = np.mean(measured, axis=0).tolist() if measured else []
    counts = {"n": float(len(measured)), "left_out": float(queries - len(measured))}
    return counts | dict(zip(MEASURES, means, strict=False))


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean; the same values give the same interval."""
    rng = np.random.default_rng(0)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
