"""One more round into a record: the numbers are made anew from the raw times of every round."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bench import measure, reference, store
from bobrt.spec import Scenario

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bench.measure import Timed
    from bench.reference import Level
    from bobrt.result import Result
    from bobrt.speed import Latency

    Rounds = Mapping[str, Sequence[NDArray[np.int64]]]

CAVEATS = {"few-samples", "few-rounds", "unstable", "slows-down", "not-renewed"}
"""What the raw times of all rounds say against a row: told anew with each round, other caveats stay."""


def add(path: Path, result: Result, earlier: Rounds, timed: Mapping[str, Timed], machine: Level) -> Result:
    """Write the record at `path`, and its raw times before it, with one more round.

    Args:
        path: Where the record is written.
        result: The record but for its times.
        earlier: Nanoseconds of each call of the rounds before, by loop: `latency-1`, `throughput-32`,
            by the clock of a device `latency-1@gpu`. A loop this round has not timed stays as it is.
        timed: The loops of this round, by the same names.
        machine: The reference network beside this round; the record holds those of the rounds before.

    """
    before = result.drift.repeats_ms if result.drift else []
    drift = reference.drift_of(machine.what, [*before, machine.ms])
    rounds = {name: list(times) for name, times in earlier.items()}
    for name, loop in timed.items():
        rounds.setdefault(name, []).append(loop.times_ns)
    latencies, throughputs = [], []
    for name, times in rounds.items():
        scenario, batch, clock = _parts(name)
        if scenario is Scenario.LATENCY:
            latencies.append(measure.latency(times, batch, clock, timed[name], drift.relative or 0.0))
        elif clock != "gpu":  # what is shipped per second includes the way there and back
            throughputs.append(measure.throughput(times, batch))
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


def _parts(name: str) -> tuple[Scenario, int, str]:
    """Return a loop's scenario, batch and clock."""
    what, _, clock = name.partition("@")
    scenario, _, batch = what.partition("-")
    return Scenario(scenario), int(batch), clock or "wall"


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
