"""One cell in its own process: parity, accuracy, latency and throughput of one and the same file."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench import accuracy, gauntlet, reference, rounds, scenarios, store
from bench.asked import Engine
from bench.energy import counter
from bench.nvml import open_gpu
from bench.passes import Passes
from bench.scenarios import Road
from bench.stage import Opened, Stage, opened
from bench.watch import GpuMemory, MachineWatch, PeakMemory, merge
from bobrt import data
from bobrt.data import feed
from bobrt.data.resize import resize
from bobrt.errors import BobrtError
from bobrt.result import CellRecord, Result
from bobrt.spec import Kind, Precision, State
from bobrt.speed import ColdStart, Memory
from bobrt.system import this_system
from bobrt.tasks import cards, scores, task_of
from engines import onnx_file
from engines.runner import Noted, ReadBack
from engines.runtimes import RUNTIMES, on_gpu, open_runner, versions
from engines.stages import HALF, require_share

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from bench.nvml import Gpu
    from bench.orders import CellOrder
    from bobrt.data import Split
    from bobrt.result import Artifact
    from bobrt.spec import FileCard, Input, TaskCard
    from bobrt.tasks import Task
    from engines.runner import Runner

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
    card, eight_bits = order.task, order.cell.precision in {Precision.INT8, Precision.FP8}
    answers = card is not None and scores.by_logits(card, order.cell.protocol)
    task = task_of(card, order.card.transform) if card and answers else None
    caveats: set[str] = {"limited"} if order.limit else set()
    caveats |= {"search-edge"} if order.search and order.search.at_edge else set()
    caveats |= {"drop-unjudged"} if card and card.kind is Kind.RETRIEVAL and eight_bits else set()
    shutil.rmtree(Path(order.record).with_suffix(store.LOADGEN), ignore_errors=True)  # an earlier record's
    images = _pool(order)
    report("opening", "")
    gpu = device(order)
    with GpuMemory(gpu) if gpu else PeakMemory() as memory, _opened(order, images) as first:
        agreement = right = evaluation = None
        engine = _engine(first.runner, card, order) if card else None
        if engine and order.reference:
            report("parity", "")
            agreement = accuracy.parity(engine, order)
        else:
            caveats.add("no-reference")
        if engine:
            report("accuracy", "")
            right, evaluation = accuracy.accuracy(engine, order)
        stage = _stage(first.runner, images, order, report)
        with MachineWatch(gpu) as watch:
            speed = scenarios.timed(stage)
        memory.end()  # what comes now takes memory that the engine does not
        artifact = _require_realised(order, first.runner)
        if artifact.precision_share is not None and artifact.realised_share is None:
            caveats.add("precision-unread")
        notes = first.runner.notes() if isinstance(first.runner, Noted) else []
        energy = scenarios.energy_of(stage, speed, counter(gpu))
        more = scenarios.more(stage, speed, _road(task, order))
        asked = gauntlet.ask(engine, order, report) if engine else []
    _require_same(order.file, artifact.sha256)
    machine = reference.level(order.threads, gpu=gpu is not None)
    result = Result(
        state=State.COMPLETE,
        reason="",
        cell=CellRecord.of(order.cell),
        artifact=artifact,
        accuracy=right,
        parity=agreement,
        latency=[],
        throughput=[],
        memory=Memory(
            engine_bytes=artifact.bytes,
            peak_bytes=memory.bytes,
            what=memory.what,
        ),
        system=msgspec.structs.replace(this_system(), threads=order.threads, tools=versions(runtime)),
        caveats=sorted(caveats | watch.caveats()),
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - clock, 3),
        timing=order.timing,
        limit=order.limit,
        curve=speed.curve,
        server=more.server,
        pipeline=more.pipeline,
        loadgen=more.loadgen,
        evaluation=evaluation,
        energy=energy,
        watch=watch.record(),
        cold_start=ColdStart(open_ms=[first.open_ms], first_ms=[first.first_ms]),
        input=_input(order.card),
        published=order.published,
        search=order.search,
        gauntlet=asked,
        notes=[*order.notes, *notes, *(_told(engine, order) if engine else [])],
    )
    return rounds.add(Path(order.record), result, {}, speed.loops, machine)


def _once_more(order: CellOrder, report: Callable[[str, str], None]) -> Result:
    """Time a cell that has a record once more, and add the round to it."""
    clock, record = time.monotonic(), Path(order.record)
    before = store.read(record)
    _require_same(order.file, order.artifact.sha256)
    images = _pool(order)
    gpu = device(order)
    with _opened(order, images) as first, MachineWatch(gpu) as watch:
        best = max(before.throughput, key=lambda row: row.images_per_s, default=None)
        timed = scenarios.again(_stage(first.runner, images, order, report), best.batch if best else None)
    _require_same(order.file, order.artifact.sha256)
    machine = reference.level(order.threads, gpu=gpu is not None)
    cold = before.cold_start or ColdStart(open_ms=[], first_ms=[])
    result = msgspec.structs.replace(
        before,
        caveats=sorted({*before.caveats} | watch.caveats()),
        watch=merge(before.watch, watch.record()),
        seconds=round(before.seconds + time.monotonic() - clock, 3),
        cold_start=ColdStart(
            open_ms=[*cold.open_ms, first.open_ms], first_ms=[*cold.first_ms, first.first_ms]
        ),
        log=None,  # of a round that failed before this one
    )
    return rounds.add(record, result, store.read_samples(record, before), timed, machine)


def device(order: CellOrder) -> Gpu | None:
    """Return the GPU a cell runs on, or None for the CPU."""
    return open_gpu() if on_gpu(RUNTIMES.get(order.cell.runtime)) else None


def _opened(order: CellOrder, images: NDArray[np.uint8]) -> AbstractContextManager[Opened]:
    cell = order.cell
    runner = open_runner(
        RUNTIMES.get(cell.runtime), Path(order.file), order.threads, cell.precision, cell.batch
    )
    return opened(runner, images, order.file)


def _stage(
    runner: Runner, images: NDArray[np.uint8], order: CellOrder, report: Callable[[str, str], None]
) -> Stage:
    return Stage(runner, images, order.timing, order.threads, partial(report, "timing"))


def _engine(runner: Runner, card: TaskCard, order: CellOrder) -> Engine:
    """Return the open engine as one that is asked whole splits."""
    cell = order.cell
    tools = versions(RUNTIMES.get(cell.runtime))
    identity = {"file": order.artifact.sha256, "runtime": cell.runtime, "precision": cell.precision}
    workers, folder = feed.spare(order.threads), Path(order.features)
    return Engine(
        Passes(runner, order.card.transform, {**identity, "tools": tools}, workers, folder), card, order
    )


def _told(engine: Engine, order: CellOrder) -> list[str]:
    """Return what is to be said of a cell's images, and of what could not be kept."""
    return [*([] if order.bundle else data.notes(engine.card)), *dict.fromkeys(engine.passes.notes)]


def _input(card: FileCard) -> Input | None:
    """Return how images are prepared for a file: its own size and crop, its checkpoint's normalisation."""
    if card.backbone.input is None:
        return None
    return msgspec.structs.replace(card.backbone.input, **msgspec.structs.asdict(card.transform))


def _images(order: CellOrder) -> Split:
    """Return the images a cell is timed on: the task's, or the bundled digits."""
    card = order.task or cards.named(data.DIGITS)
    return data.load(card, "query" if card.kind is Kind.RETRIEVAL else "test", order.bundle)


def _pool(order: CellOrder) -> NDArray[np.uint8]:
    return resize(_images(order).head(POOL).images, order.card.transform)


def _road(task: Task | None, order: CellOrder) -> Road:
    """Return what the scenarios that go from images to answers need; read only if one is asked."""

    def split() -> Split:
        return _images(order).head(order.limit)

    return Road(split, order.card.transform, task, Path(order.record).with_suffix(store.LOADGEN))


def _require_realised(order: CellOrder, runner: Runner) -> Artifact:
    """Return the artifact's record with the share of its arithmetic that runs at the precision asked for.

    Raises:
        BobrtError: It is less than half: in the file, or in what the runtime made of it.

    """
    asked, shares = str(order.cell.precision), runner.realised() if isinstance(runner, ReadBack) else None
    asked = "fp32" if asked == "tf32" else asked  # the same numbers, multiplied otherwise
    require_share(order.artifact.precision_share, Precision(asked), order.card.kept)
    if shares is None:
        return order.artifact
    if (found := shares.get(asked, 0.0)) < HALF:
        told = ", ".join(f"{100 * share:.0f} % at {name}" for name, share in shares.items())
        raise BobrtError(
            f"precision-not-realised: asked for {asked}, {order.cell.runtime} computes {told}",
            "choose another runtime or precision: bobrt list runtimes",
        )
    return msgspec.structs.replace(order.artifact, realised_share=round(found, 4))


def _require_same(file: str, sha256: str) -> None:
    if (actual := onnx_file.identity(Path(file))) != sha256:
        raise BobrtError(
            f"{file} was edited while it was benched: sha256 {actual[:12]}..., not {sha256[:12]}..."
        )
