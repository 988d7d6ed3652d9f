"""Which engine to ship: the best verified one within bounds, the next, and whether that is more than noise.

The best is the fastest of those whose accuracy is not told apart from the highest, as in the ranking; rows of
all protocols compete, since all are scored on the same test images.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from bench.fronts import COSTS
from bench.verdict import rows, why_unranked
from bobrt.errors import NothingMatchedError, UsageError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bobrt.result import Accuracy, Result


class Limit(NamedTuple):
    """Something that can be bounded."""

    what: str
    of: Callable[[Result], float | None]
    """The value in a record, or None where the record has none."""
    most: bool
    """Whether the bound is the most that is allowed, or the least."""


def _accuracy(result: Result) -> float | None:
    return result.accuracy.value if result.accuracy else None


def _peak(result: Result) -> float | None:
    return result.memory.peak_bytes if result.memory else None


LIMITS = {
    "max-p50": Limit("p50", COSTS["p50_ms"].of, most=True),
    "max-p99": Limit("p99", COSTS["p99_ms"].of, most=True),
    "min-accuracy": Limit("accuracy", _accuracy, most=False),
    "min-images-per-s": Limit("images/s", COSTS["images_per_s"].of, most=False),
    "max-bytes": Limit("size", COSTS["bytes"].of, most=True),
    "max-memory": Limit("peak memory", _peak, most=True),
}
"""By the flag that bounds it; milliseconds, fractions, images per second and bytes."""


class Miss(NamedTuple):
    """A bound that a row does not keep."""

    flag: str
    bound: float
    value: float | None
    """What the row has instead; None where it was not measured."""
    beyond: float
    """By how much of the bound; infinity where it was not measured."""


class Difference(NamedTuple):
    """How one row differs from another."""

    accuracy: float
    """Its accuracy less the other's, a fraction; more is better, whatever the metric's direction."""
    accuracy_told: bool
    """The 95 % interval of that does not hold 0."""
    slower: float
    """Its median latency over the other's."""
    slower_told: bool | None
    """The error bars of the two medians do not overlap; None where one has no bar."""


class Nearest(NamedTuple):
    """The row that comes nearest to bounds that none keeps."""

    result: Result
    misses: list[Miss]


class Picked(NamedTuple):
    """The answer."""

    verified: int
    """Rows that were asked for and may be ranked."""
    left_out: int
    """Rows that were asked for and may not."""
    feasible: int
    winner: Result | None
    runner_up: Result | None
    unbounded: Result | None
    """Who would have won without the bounds, if somebody else."""
    nearest: Nearest | None
    """Where no row keeps every bound."""


def pick(results: Sequence[Result], wanted: Mapping[str, str], bounds: Mapping[str, float]) -> Picked:
    """Return the engine to ship.

    Args:
        results: Records of one folder or several.
        wanted: Words of the cell that rows must have, and `system`: `{"task": "digits"}`.
        bounds: By keys of `LIMITS`.

    Raises:
        UsageError: Rows of several tasks or machines are left, and none was named; or a word is unknown.
        NothingMatchedError: No verified row is left.

    """
    asked = _asked(results, wanted)
    verified = [result for result in asked if not why_unranked(result)]
    if not verified:
        states = sorted({why_unranked(result) for result in asked})
        raise NothingMatchedError(
            f"none of {len(asked)} rows is verified: {'; '.join(states)}", "bobrt report"
        )
    feasible = [result for result in verified if not misses(result, bounds)]
    best = rows(verified)[0].result
    if not feasible:
        nearest = min(verified, key=lambda result: _distance(misses(result, bounds)))
        found = Nearest(nearest, misses(nearest, bounds))
        return Picked(len(verified), len(asked) - len(verified), 0, None, None, None, found)
    winner = rows(feasible)[0].result
    others = [result for result in feasible if result is not winner]
    return Picked(
        verified=len(verified),
        left_out=len(asked) - len(verified),
        feasible=len(feasible),
        winner=winner,
        runner_up=rows(others)[0].result if others else None,
        unbounded=best if best is not winner else None,
        nearest=None,
    )


def misses(result: Result, bounds: Mapping[str, float]) -> list[Miss]:
    """Return the bounds a row does not keep; what was not measured keeps none."""
    found = []
    for flag, bound in bounds.items():
        limit = LIMITS[flag]
        value = limit.of(result)
        sign = 1 if _most(limit, result) else -1
        if value is None:
            found.append(Miss(flag, bound, None, math.inf))
        elif sign * (value - bound) > 0:
            found.append(Miss(flag, bound, value, abs(value - bound) / bound if bound else math.inf))
    return found


def difference(one: Result, other: Result) -> Difference | None:
    """Return how `one` differs from `other`; None where either was not measured.

    The interval of the difference is Newcombe's (1998, method 10): from the two rows' own intervals, as if
    each had been asked other images. Both were asked the same, so it is on the careful side.
    """
    latency, beside = one.one_image, other.one_image
    if one.accuracy is None or other.accuracy is None or latency is None or beside is None:
        return None
    gap, low, high = _gap(one.accuracy, other.accuracy)
    a, b = latency.spread_ms or latency.ci95_ms, beside.spread_ms or beside.ci95_ms
    apart = (a[0] > b[1] or b[0] > a[1]) if a and b else None
    return Difference(gap, low > 0 or high < 0, latency.p50_ms / beside.p50_ms, apart)


def _gap(one: Accuracy, other: Accuracy) -> tuple[float, float, float]:
    """Return the difference of two proportions and its interval, more being better."""
    gap = one.value - other.value
    down = math.hypot(one.value - one.ci95[0], other.ci95[1] - other.value)
    up = math.hypot(one.ci95[1] - one.value, other.value - other.ci95[0])
    low, high = gap - down, gap + up
    return (gap, low, high) if one.higher_is_better else (-gap, -high, -low)


def _most(limit: Limit, result: Result) -> bool:
    """Tell whether a bound is a most: of an error rate, the least accuracy is the most of it."""
    if limit is LIMITS["min-accuracy"] and result.accuracy and not result.accuracy.higher_is_better:
        return True
    return limit.most


def _distance(missed: list[Miss]) -> tuple[int, float]:
    return len(missed), max((miss.beyond for miss in missed), default=0.0)


def _asked(results: Sequence[Result], wanted: Mapping[str, str]) -> list[Result]:
    """Return the rows that have the words that are wanted, of one task on one machine."""
    left = list(results)
    for key, value in wanted.items():
        words = sorted({_word(result, key) for result in left})
        if value not in words:
            raise _absent(key, value, words)
        left = [result for result in left if _word(result, key) == value]
    for key in ("system", "task"):
        words = sorted({_word(result, key) for result in left if result.accuracy})
        if key not in wanted and len(words) > 1:
            raise UsageError(
                f"the results are of {len(words)} {key}s, and one is picked for: {', '.join(words)}",
                f"bobrt pick --{key} {words[0]}",
            )
    return left


def _absent(key: str, value: str, words: list[str]) -> NothingMatchedError:
    told = unknown(key, value, words)
    return NothingMatchedError(f"no result is of {key} {value}", told.hint)


def _word(result: Result, key: str) -> str:
    return result.system.id if key == "system" else str(getattr(result.cell, key))
