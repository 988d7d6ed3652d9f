"""The answer of `pick` as a sentence for people and as a document for programs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from bench import store
from bench.pick import LIMITS, difference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.pick import Miss, Picked
    from bobrt.result import Result
    from bobrt.spec import Json

MB = 1e6


def lines(picked: Picked, results: Path, cache: Path) -> list[str]:
    """Return the answer: the winner, the next, what the bounds cost, and where the evidence is.

    Args:
        picked: The answer.
        results: The folder of the records.
        cache: The folder of the files.

    """
    if picked.winner is None:
        return _nearest(picked)
    winner = picked.winner
    found = [f"Ship {_name(winner)}: {_figures(winner)}."]
    if picked.runner_up is not None:
        found.append(f"Next is {_name(picked.runner_up)}: {_beside(picked.runner_up, winner)}.")
    else:
        found.append("No other engine keeps these bounds.")
    if picked.unbounded is not None:
        found.append(
            f"Without bounds it would be {_name(picked.unbounded)}: {_beside(picked.unbounded, winner)}."
        )
    sentence = " ".join(found)
    told = [sentence, f"Of {_counted(picked)}, {picked.feasible} within the bounds."]
    told += [f"The row carries: {', '.join(winner.caveats)}."] if winner.caveats else []
    record = store.path_of(results, winner.system.id, winner.cell, winner.limit)
    told += [f"evidence: {_shown(record)}"]
    return [*told, f"file: {_file(winner, cache)}"]


def as_dict(picked: Picked, bounds: Mapping[str, float], results: Path, cache: Path) -> dict[str, Json]:
    """Return the answer for programs: what is not known is null."""
    winner = picked.winner
    return {
        "bounds": dict(bounds),
        "verified": picked.verified,
        "left_out": picked.left_out,
        "feasible": picked.feasible,
        "winner": _row(winner, results, cache),
        "runner_up": _row(picked.runner_up, results, cache, winner),
        "unbounded": _row(picked.unbounded, results, cache, winner),
        "nearest": _row(picked.nearest.result, results, cache) if picked.nearest else None,
        "misses": [_miss(miss) for miss in picked.nearest.misses] if picked.nearest else [],
    }


def relax(picked: Picked) -> str:
    """Return the flags that would let the nearest miss pass; empty if something was not measured."""
    if picked.nearest is None or any(miss.value is None for miss in picked.nearest.misses):
        return ""
    return " ".join(f"--{miss.flag} {_typed(miss.flag, miss.value or 0.0)}" for miss in picked.nearest.misses)


def _nearest(picked: Picked) -> list[str]:
    if picked.nearest is None:
        return []
    row, missed = picked.nearest
    said = " and ".join(_missed(miss) for miss in missed)
    return [f"None of {_counted(picked)} keeps every bound; the nearest is {_name(row)}: {said}."]


def _missed(miss: Miss) -> str:
    what = LIMITS[miss.flag].what
    if miss.value is None:
        return f"its {what} was not measured"
    bound = _said(miss.flag, miss.bound)
    return f"its {what} is {_said(miss.flag, miss.value)}, {100 * miss.beyond:.3g} % beyond {bound}"


def _counted(picked: Picked) -> str:
    more = f" ({picked.left_out} more are not: bobrt report says why)" if picked.left_out else ""
    return f"{picked.verified} verified engines{more}"


def _name(result: Result) -> str:
    cell = result.cell
    seed = f" seed {cell.seed}" if cell.seed else ""
    how = "" if cell.protocol == "finetune" else f" by {cell.protocol}"
    batch = "" if cell.batch == "dynamic" else f" batch {cell.batch}"
    return f"{cell.backbone} {cell.precision} on {cell.runtime}{batch}{how}{seed}"


def _figures(result: Result) -> str:
    accuracy, latency = result.accuracy, result.one_image
    told = []
    if accuracy:
        low, high = accuracy.ci95
        told.append(f"{100 * accuracy.value:.1f} % ({100 * low:.1f} to {100 * high:.1f}) {accuracy.metric}")
    if latency:
        told.append(f"p50 {latency.p50_ms:.3g} ms")
        told += [f"p99 {latency.p99_ms:.3g} ms"] if latency.p99_ms is not None else []
    if result.artifact:
        told.append(f"{result.artifact.bytes / MB:.3g} MB")
    return ", ".join(told)


def _beside(result: Result, other: Result) -> str:
    """Say how a row differs from another, and whether that is more than noise."""
    found = difference(result, other)
    if found is None:
        return "not to be compared"
    points, ratio = 100 * found.accuracy, found.slower
    accurate = f"{abs(points):.1f} points {'more' if points > 0 else 'less'} accurate"
    accurate = (
        "as accurate" if f"{abs(points):.1f}" == "0.0" else f"{accurate} ({_noise(found.accuracy_told)})"
    )
    speed = f"{ratio:.3g} times as slow" if ratio >= 1 else f"{1 / ratio:.3g} times as fast"
    return f"{accurate} and {speed} ({_noise(found.slower_told)})"


def _shown(path: Path) -> str:
    """Return a path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _noise(told: bool | None) -> str:
    if told is None:
        return "no error bar to tell by"
    return "more than noise" if told else "within noise"


def _file(result: Result, cache: Path) -> str:
    if result.artifact is None:
        return ""
    path = cache / result.artifact.path
    where = _shown(path) if path.is_file() else f"{result.artifact.path}, not in this machine's cache"
    return f"{where}, sha256 {result.artifact.sha256}"


def _said(flag: str, value: float) -> str:
    if flag in {"max-p50", "max-p99"}:
        return f"{value:.3g} ms"
    if flag == "min-accuracy":
        return f"{100 * value:.1f} %"
    return f"{value / MB:.3g} MB" if flag in {"max-bytes", "max-memory"} else f"{value:.3g}"


def _typed(flag: str, value: float) -> str:
    """Return a bound that the value just keeps, as it is typed: three digits, rounded to its side."""
    if flag in {"max-bytes", "max-memory"}:
        return f"{value:.0f}"
    place = 10.0 ** (math.floor(math.log10(value)) - 2)
    rounded = math.ceil(value / place) if LIMITS[flag].most else math.floor(value / place)
    return f"{rounded * place:.12g}" + ("ms" if flag in {"max-p50", "max-p99"} else "")


def _miss(miss: Miss) -> dict[str, Json]:
    return {"flag": miss.flag, "bound": miss.bound, "value": miss.value}


def _row(
    result: Result | None, results: Path, cache: Path, other: Result | None = None
) -> dict[str, Json] | None:
    if result is None:
        return None
    latency, found = result.one_image, difference(result, other) if other else None
    path = cache / result.artifact.path if result.artifact else None
    return {
        "cell": {name: getattr(result.cell, name) for name in result.cell.__struct_fields__},
        "accuracy": result.accuracy,
        "latency": latency,
        "figures": {limit.what: limit.of(result) for limit in LIMITS.values()},
        "caveats": result.caveats,
        "record": str(store.path_of(results, result.system.id, result.cell, result.limit)),
        "file": str(path) if path and path.is_file() else None,
        "sha256": result.artifact.sha256 if result.artifact else None,
        "beside_winner": found._asdict() if found else None,
    }
