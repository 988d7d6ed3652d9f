"""One cell in its own process: parity, accuracy, latency and throughput of one and the same file."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from bench import reference, rounds, scenarios, store
from bench.scenarios import Opened, Stage
from bench.watch import CpuWatch, PeakMemory
from bobrt import data
from bobrt.catalogue import TASKS
from bobrt.data.resize import resize
from bobrt.errors import BobrtError
from bobrt.paths import sha256_of
from bobrt.result import Accuracy, CellRecord, Parity, Result
from bobrt.spec import Scenario, State
from bobrt.speed import ColdStart, Curve, Memory, Server
from bobrt.system import this_system
from bobrt.tasks import task_of
from engines import parity
from engines.runner import answers
from engines.runtimes import RUNTIMES, open_runner, versions

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from bench.measure import Timed
    from bench.orders import CellOrder
    from bobrt.spec import Cell
    from bobrt.tasks import Task
    from engines.runner import Runner

ACCURACY_BATCH = 32
MEMORY_IS = "peak resident memory of the process above its level before the runtime's library was loaded"
POOL = 32
"""Different real images that take turns under the stopwatch."""


def run(order: CellOrder, report: Callable[[str, str], None]) -> Result:
    """Answer one cell and write its record, last.

    Args:
        order: The cell, its file and where to write.
        report: Called with a phase and a figure.

    Raises:
        BobrtError: The file was edited, cannot be opened, or its answers are not numbers.

    """
    if order.round > 1:
        return _once_more(order, report)
    started, clock = datetime.now(UTC), time.monotonic()
    artifact = order.artifact
    _require_same(order.file, artifact.sha256)
    runtime = RUNTIMES.get(order.cell.runtime)
    task = task_of(TASKS.get(order.card.task)) if order.card.task else None
    caveats: set[str] = {"limited"} if order.limit else set()
    images = _pool(order)
    with PeakMemory() as memory, _opened(order, images) as first:
        runner = first.runner
        agreement = _parity(runner, task, order, report) if task and order.reference else None
        if agreement is None:
            caveats.add("no-reference")
        accuracy = _accuracy(runner, task, order, report) if task else None
        with CpuWatch() as watch:
            speed = _speed(_stage(runner, images, order, report))
    _require_same(order.file, artifact.sha256)
    machine = reference.level_ms(order.threads)
    if artifact.precision_share is not None and artifact.precision_share < 0.5:  # noqa: PLR2004
        caveats.add("below-half-precision-share")
    result = Result(
        state=State.COMPLETE,
        reason="",
        cell=record_of(order.cell),
        artifact=artifact,
        accuracy=accuracy,
        parity=agreement,
        latency=[],
        throughput=[],
        memory=Memory(
            engine_bytes=artifact.bytes,
            peak_bytes=memory.bytes,
            what=MEMORY_IS,
        ),
        system=msgspec.structs.replace(this_system(), threads=order.threads, tools=versions(runtime)),
        caveats=sorted(caveats | watch.caveats()),
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - clock, 3),
        timing=order.timing,
        limit=order.limit,
        curve=speed.curve,
        server=speed.server,
        cold_start=ColdStart(open_ms=[first.open_ms], first_ms=[first.first_ms]),
    )
    return rounds.add(Path(order.record), result, {}, speed.loops, [machine])


def _once_more(order: CellOrder, report: Callable[[str, str], None]) -> Result:
    """Time a cell that has a record once more, and add the round to it."""
    clock, record = time.monotonic(), Path(order.record)
    before = store.read(record)
    _require_same(order.file, order.artifact.sha256)
    images = _pool(order)
    with _opened(order, images) as first, CpuWatch() as watch:
        best = max(before.throughput, key=lambda row: row.images_per_s, default=None)
        timed = scenarios.again(_stage(first.runner, images, order, report), best.batch if best else None)
    _require_same(order.file, order.artifact.sha256)
    machine = [*(before.drift.repeats_ms if before.drift else []), reference.level_ms(order.threads)]
    cold = before.cold_start or ColdStart(open_ms=[], first_ms=[])
    result = msgspec.structs.replace(
        before,
        caveats=sorted({*before.caveats} | watch.caveats()),
        seconds=round(before.seconds + time.monotonic() - clock, 3),
        cold_start=ColdStart(
            open_ms=[*cold.open_ms, first.open_ms], first_ms=[*cold.first_ms, first.first_ms]
        ),
    )
    return rounds.add(record, result, store.read_samples(record, before), timed, machine)


def record_of(cell: Cell) -> CellRecord:
    """Return a cell as it stands in a record, with its key."""
    return CellRecord(**msgspec.structs.asdict(cell), key=cell.key)


def _parity(runner: Runner, task: Task, order: CellOrder, report: Callable[[str, str], None]) -> Parity:
    """Compare the file's answers with fp32 PyTorch on the validation split."""
    report("parity", "")
    want = _reference(order, "validation")
    split = data.load(task.card, "validation", order.bundle)
    got = answers(runner, resize(split.images, order.card.transform), ACCURACY_BATCH)
    gaps = [parity.difference(got[name], want[name]) for name in want]
    if not all(np.isfinite(gap.max_abs) for gap in gaps):
        raise BobrtError(
            "the engine answers NaN or infinity on validation images", "choose another precision"
        )
    return Parity(
        max_abs=max(gap.max_abs for gap in gaps),
        mean_abs=max(gap.mean_abs for gap in gaps),
        agreement=task.agreement(got, want),
        n=len(split.ids),
        reference_runtime="torch",
    )


def _accuracy(runner: Runner, task: Task, order: CellOrder, report: Callable[[str, str], None]) -> Accuracy:
    """Ask the file the whole test split, or its first `limit` images."""
    report("accuracy", "")
    split = data.load(task.card, "test", order.bundle).head(order.limit)
    outputs = answers(runner, resize(split.images, order.card.transform), ACCURACY_BATCH)
    if not all(np.isfinite(output).all() for output in outputs.values()):
        raise BobrtError("the engine answers NaN or infinity on test images", "choose another precision")
    try:
        score = task.score(task.decode(outputs), split)
    except KeyError as error:
        raise BobrtError(
            f"{order.file} answers {', '.join(outputs)}; task {task.card.name} is read from {error}"
        ) from None
    reference = None
    if order.reference:
        reference = task.score(task.decode(_reference(order, "test")), split).value
    return Accuracy(
        metric=task.card.metric,
        value=score.value,
        higher_is_better=task.card.higher_is_better,
        n=score.n,
        ci95=score.ci95,
        reference=reference,
        drop=None if reference is None else reference - score.value,
        extra={} if order.validation is None else {"validation": order.validation},
    )


class _Speed(NamedTuple):
    """What the scenarios of the first round gave."""

    loops: dict[str, Timed]
    curve: Curve | None
    server: Server | None


def _speed(stage: Stage) -> _Speed:
    """Ask an engine in every way the plan names."""
    asked = stage.timing.scenarios
    loops = alone = scenarios.latency(stage)
    curve = None
    if Scenario.THROUGHPUT in asked:
        many, curve = scenarios.climb(stage, alone)
        loops = alone | many
    return _Speed(loops, curve, scenarios.serve(stage, alone) if Scenario.SERVER in asked else None)


def _opened(order: CellOrder, images: NDArray[np.uint8]) -> AbstractContextManager[Opened]:
    runner = open_runner(RUNTIMES.get(order.cell.runtime), Path(order.file), order.threads)
    return scenarios.opened(runner, images, order.file)


def _stage(
    runner: Runner, images: NDArray[np.uint8], order: CellOrder, report: Callable[[str, str], None]
) -> Stage:
    return Stage(runner, images, order.timing, order.threads, partial(report, "timing"))


def _pool(order: CellOrder) -> NDArray[np.uint8]:
    card = order.task or TASKS.get(order.card.task or "digits")
    return resize(data.load(card, "test", order.bundle).head(POOL).images, order.card.transform)


def _reference(order: CellOrder, split: str) -> dict[str, NDArray[np.float32]]:
    """Return the checkpoint's own answers; only those images that are asked."""
    with np.load(str(order.reference)) as kept:
        names = [name for name in kept.files if name.startswith(f"{split}.")]
        rows = slice(None) if split == "validation" else slice(order.limit)
        return {name.partition(".")[2]: kept[name][rows] for name in names}


def _require_same(file: str, sha256: str) -> None:
    if (actual := sha256_of(Path(file))) != sha256:
        raise BobrtError(
            f"{file} was edited while it was benched: sha256 {actual[:12]}..., not {sha256[:12]}..."
        )
