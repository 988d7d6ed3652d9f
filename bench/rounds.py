"""One more round into a record: the numbers are made anew from the raw times of every round."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bench import measure, reference, store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bench.measure import Timed
    from bobrt.result import Result
    from bobrt.speed import Latency

    Rounds = Mapping[str, Sequence[NDArray[np.int64]]]

CAVEATS = {"few-samples", "few-rounds", "unstable", "slows-down"}
"""What the raw times of all rounds say against a row: told anew with each round, other caveats stay."""


def add(
    path: Path, result: Result, earlier: Rounds, timed: Mapping[str, Timed], machine_ms: list[float]
) -> Result:
    """Write the record at `path`, and its raw times before it, with one more round.

    Args:
        path: Where the record is written.
        result: The record but for its times.
        earlier: Nanoseconds of each call of the rounds before, by loop: `latency-1`, `throughput-32`.
        timed: The loops of this round, by the same names.
        machine_ms: Times of the reference network at every round, this one last.

    """
    drift = reference.drift_of(machine_ms)
    rounds = {name: [*earlier.get(name, []), loop.times_ns] for name, loop in timed.items()}
    latencies, throughputs = [], []
    for name, loop in timed.items():
        scenario, _, batch = name.partition("-")
        if scenario == "latency":
            latencies.append(measure.latency(rounds[name], int(batch), "wall", loop, drift.relative or 0.0))
        else:
            throughputs.append(measure.throughput(rounds[name], int(batch)))
    result = msgspec.structs.replace(
        result,
        latency=latencies,
        throughput=throughputs,
        drift=drift,
        caveats=sorted(set(result.caveats) - CAVEATS | _caveats(latencies, rounds) | _warm_up(timed)),
        samples=store.write_samples(path, rounds),
    )
    store.write(path, result)
    store.drop_old_samples(path, result)
    return result


def _warm_up(timed: Mapping[str, Timed]) -> set[str]:
    return set() if all(loop.steady for loop in timed.values()) else {"never-steady"}


def _caveats(latencies: list[Latency], rounds: Rounds) -> set[str]:
    found = {
        "few-samples": any(row.ci95_ms is None for row in latencies),
        "few-rounds": any(row.spread_ms is None for row in latencies),
        "unstable": any(
            row.spread_ms is not None and row.spread_ms[1] > measure.SLOWER * row.spread_ms[0]
            for row in latencies
        ),
        "slows-down": any(measure.slows_down(times) for loops in rounds.values() for times in loops),
    }
    return {name for name, so in found.items() if so}
