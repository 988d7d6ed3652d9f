"""How steady this machine is, with one thread, with all, and with all of them spinning between calls.

    make bench-steadiness

Eight processes of each, in a shuffled order, time the reference network for a second. Printed: how far
the medians of the eight lie apart, and their fast deciles, which are the machine's level.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import numpy as np

from bench import measure, reference
from bobrt import console
from bobrt.paths import CPU, lock
from bobrt.system import cores
from engines.ort_cpu import open_session

PROCESSES = 8
WINDOW = measure.Window(warmup_s=0.5, min_s=1.0, min_n=100, max_s=1.0)


def main() -> None:
    """Print one line for each way to use the cores; with arguments, be one of the processes."""
    if len(sys.argv) > 1:
        _one(int(sys.argv[1]), spin=sys.argv[2] == "spin")
        return
    ways = [(1, "sleep"), (cores(), "sleep"), (cores(), "spin")]
    found: dict[tuple[int, str], list[list[float]]] = {way: [] for way in ways}
    with lock(CPU, lambda: console.note("waiting: another bobrt uses this machine")):
        for turn in range(PROCESSES):
            for way in random.Random(turn).sample(ways, len(ways)):  # noqa: S311 - an order, not a secret
                found[way].append(_timed(*way))
    for (threads, idle), times in found.items():
        medians, levels = np.array(times).T
        console.data(
            f"threads {threads}, idle ones {idle}: median {np.median(medians):.3f} ms; "
            f"{PROCESSES} processes lie {100 * _apart(medians):.0f} % apart, "
            f"their fast deciles {100 * _apart(levels):.0f} %"
        )


def _apart(values: np.ndarray) -> float:
    return float(values.max() / values.min() - 1)


def _timed(threads: int, idle: str) -> list[float]:
    command = [sys.executable, "-P", __file__, str(threads), idle]
    env = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    answer = subprocess.run(command, capture_output=True, text=True, env=env, check=True).stdout
    times: list[float] = json.loads(answer)
    return times


def _one(threads: int, *, spin: bool) -> None:
    session = open_session(reference.network(), threads, spin=spin)
    image = {"x0": np.zeros((1, reference.CHANNELS, reference.SIDE, reference.SIDE), np.float32)}
    image["x0"] += np.random.default_rng(0).normal(size=image["x0"].shape).astype(np.float32)
    times = measure.closed_loop(lambda feed: session.run(None, feed), [image], WINDOW).times_ns / 1e6
    console.data(json.dumps([float(np.median(times)), float(np.percentile(times, reference.LEVEL))]))


if __name__ == "__main__":
    main()
