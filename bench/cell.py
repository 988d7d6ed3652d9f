"""One cell in its own process: parity, accuracy, latency and throughput of one and the same file."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from bench import measure, reference, rounds, store
from bench.watch import CpuWatch, PeakMemory
from bobrt import data
from bobrt.catalogue import TASKS
from bobrt.data.resize import resize
from bobrt.errors import BobrtError
from bobrt.paths import sha256_of
from bobrt.result import Accuracy, CellRecord, Parity, Result
from bobrt.spec import State
from bobrt.speed import Memory
from bobrt.system import this_system
from bobrt.tasks import task_of
from engines import parity
from engines.runner import IMAGES, answers, require_images
from engines.runtimes import RUNTIMES, open_runner, versions

if TYPE_CHECKING:
    from collections.abc import Callable

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
    with PeakMemory() as memory, open_runner(runtime, Path(order.file), order.threads) as runner:
        require_images(runner.inputs(), order.file)
        agreement = _parity(runner, task, order, report) if task and order.reference else None
        if agreement is None:
            caveats.add("no-reference")
        accuracy = _accuracy(runner, task, order, report) if task else None
        with CpuWatch() as watch:
            timed = _speed(runner, order, report)
    _require_same(order.file, artifact.sha256)
    machine = reference.median_ms(order.threads)
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
    )
    return rounds.add(Path(order.record), result, {}, timed, [machine])


def _once_more(order: CellOrder, report: Callable[[str, str], None]) -> Result:
    """Time a cell that has a record once more, and add the round to it."""
    clock, record = time.monotonic(), Path(order.record)
    before = store.read(record)
    _require_same(order.file, order.artifact.sha256)
    runtime = RUNTIMES.get(order.cell.runtime)
    with open_runner(runtime, Path(order.file), order.threads) as runner, CpuWatch() as watch:
        timed = _speed(runner, order, report)
    _require_same(order.file, order.artifact.sha256)
    machine = [*(before.drift.repeats_ms if before.drift else []), reference.median_ms(order.threads)]
    result = msgspec.structs.replace(
        before,
        caveats=sorted({*before.caveats} | watch.caveats()),
        seconds=round(before.seconds + time.monotonic() - clock, 3),
    )
    return rounds.add(record, result, store.read_samples(record, before), timed, machine)


def record_of(cell: Cell) -> CellRecord:
    """Return a cell as it stands in a record, with its key."""
    return CellRecord(**msgspec.structs.asdict(cell), key=cell.key)


def _parity(runner: Runner, task: Task, order: CellOrder, report: Callable[[str, str], None]) -> Parity:
    """Compare the file's answers with fp32 PyTorch on the validation split."""
    report("parity", "")
    want = _reference(order, "validation")
    split = data.load(task.card, "validation")
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
    split = data.load(task.card, "test").head(order.limit)
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


def _speed(runner: Runner, order: CellOrder, report: Callable[[str, str], None]) -> dict[str, Timed]:
    """Time the file: one image after another, then one batch after another."""
    timing = order.timing
    window = measure.Window(
        timing.warmup_s,
        timing.min_s,
        timing.min_n,
        float("inf") if timing.max_s is None else timing.max_s,
        float("inf") if timing.width is None else timing.width,
    )
    fixed = runner.inputs()[IMAGES].shape[0]
    images = _pool(order)

    def loop(batch: int) -> Timed:
        feeds = [
            {IMAGES: np.take(images, range(i, i + batch), axis=0, mode="wrap")} for i in range(len(images))
        ]
        return measure.closed_loop(runner.infer, feeds, window)

    report("timing", f"batch {fixed or 1}")
    alone = loop(fixed or 1)
    _require_finite(runner, images, fixed or 1)
    timed = {f"latency-{fixed or 1}": alone}
    if fixed:
        return timed | {f"throughput-{fixed}": alone}
    for batch in timing.throughput_batches:
        report("timing", f"batch {batch}, {np.median(alone.times_ns) / 1e6:.3g} ms alone")
        timed[f"throughput-{batch}"] = loop(batch)
    return timed


def _require_finite(runner: Runner, images: NDArray[np.uint8], batch: int) -> None:
    """Raise if an answer to a timed image is no number: nobody ships the speed of a broken engine."""
    outputs = answers(runner, images, batch)
    if broken := [name for name, value in outputs.items() if not np.isfinite(value).all()]:
        raise BobrtError(
            f"the engine answers NaN or infinity in {', '.join(broken)} while it is timed",
            "choose another precision",
        )


def _pool(order: CellOrder) -> NDArray[np.uint8]:
    card = TASKS.get(order.card.task or "digits")
    return resize(data.load(card, "test").head(POOL).images, order.card.transform)


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
