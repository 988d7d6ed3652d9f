"""MLPerf's LoadGen asks the open engine: it draws the queries, keeps the time and gives the verdict.

Performance and accuracy are asked of the same engine, and the accuracy is scored from what LoadGen
wrote down, not from what we believe we answered. The runs are far shorter than MLPerf's rules ask
for, so a `VALID` is LoadGen's word on what it was asked, and no submission.
"""

from __future__ import annotations

import math
import shutil
import time
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from importlib.metadata import version
from queue import SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from bench.server import LEAST
from bobrt.errors import BobrtError, MachineError
from bobrt.speed import LoadGen
from engines.runner import IMAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import ModuleType
    from typing import Protocol

    from numpy.typing import NDArray

    from engines.runner import Runner

    Outputs = dict[str, NDArray[np.float32]]
    Settings = dict[str, float | int | str]

    class Query(Protocol):
        """What LoadGen hands over: which answer it waits for, and the image it is about."""

        id: int
        index: int


SINGLE_STREAM, OFFLINE, SERVER = "SingleStream", "Offline", "Server"
MODES = {"performance": "PerformanceOnly", "accuracy": "AccuracyOnly"}
SUMMARY, ANSWERS = "mlperf_log_summary.txt", "mlperf_log_accuracy.json"
SEEDS: Settings = {"qsl_rng_seed": 1, "sample_index_rng_seed": 2, "schedule_rng_seed": 3}
"""Every run draws the same images in the same order, and Server the same arrivals."""
ALONE = 64
"""Queries of SingleStream at least: the floor of LoadGen's early stopping for its 90th percentile."""
PROBES = 5
"""Calls that warm the engine up before each scenario and tell LoadGen how many queries to draw."""
SPARE_ALONE, SPARE_OFFLINE = 4.0, 1.25
"""So many times the queries the probes let expect. Out of queries before the time is over, a run is INVALID;
too many cost SingleStream nothing, while Offline answers them all."""
NS = 1e9
NS_PER_MS = 1e6


class Asked(NamedTuple):
    """What LoadGen is asked for."""

    min_s: float
    """Seconds of a performance run, at least."""
    batch: int
    """Images at a time in Offline, where the engine leaves it open."""
    server_qps: float | None
    """Queries per second of Server; None leaves Server out."""
    server_bound_ms: float
    """Bound of Server's 99th percentile."""
    scenarios: tuple[str, ...] = (SINGLE_STREAM, OFFLINE, SERVER)


def run(  # noqa: PLR0913 - the engine, what it is asked on, and where to write
    runner: Runner,
    images: NDArray[np.uint8],
    score: Callable[[Outputs], float] | None,
    folder: Path,
    asked: Asked,
    *,
    report: Callable[[str], None] = lambda _: None,
) -> list[LoadGen]:
    """Let LoadGen ask an engine, scenario by scenario: first for speed, then for every answer.

    Args:
        runner: Entered; one image at a time in SingleStream and Server. An engine with a batch of
            its own is fed that, filled up with copies.
        images: The sample library, `uint8 [n, side, side, 3]`.
        score: The metric over all outputs, each `float32 [n, ...]` in the order of `images`. With
            None the accuracy runs are left out.
        folder: Gets `<scenario>-<mode>/mlperf_log_*`, in place of an earlier run's.
        asked: Scenarios and their bounds.
        report: Called with each run as it begins.

    Raises:
        MachineError: LoadGen is not installed.
        BobrtError: The engine failed, answered NaN or infinity, or LoadGen's logs are not whole.

    """
    library = _library()
    engine = _Engine(runner, images)
    modes = ["performance"] if score is None else [*MODES]
    records = []
    for scenario in asked.scenarios:
        if scenario == SERVER and asked.server_qps is None:
            continue
        settings = _settings(scenario, asked, engine)
        batch = (engine.fixed or asked.batch) if scenario == OFFLINE else 1
        for mode in modes:
            report(f"{scenario} {mode}")
            one = _Run(scenario, mode, settings, batch, folder / f"{scenario}-{mode}")
            _start(library, engine, one)
            accuracy = score(_logged(one.logs, engine)) if score and mode == "accuracy" else None
            records.append(_record(one, engine, accuracy))
    return records


class _Run(NamedTuple):
    """One run of LoadGen."""

    scenario: str
    mode: str
    settings: Settings
    batch: int
    logs: Path


class _Engine:
    """The runner as LoadGen needs it: images by their number in, the bytes of their answers out."""

    def __init__(self, runner: Runner, images: NDArray[np.uint8]) -> None:
        self._runner, self._images = runner, images
        self.fixed = runner.inputs()[IMAGES].shape[0]
        self.count = len(images)
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Of one image's outputs, once the engine has been asked."""

    def ask(self, indices: Sequence[int]) -> NDArray[np.float32]:
        """Return the outputs of some images side by side, `[len(indices), values]`, in memory of its own."""
        count, first = len(indices), indices[0]
        missing = (self.fixed or count) - count
        # One image is a view: a copy would be in the time of the smallest engines.
        rows = (
            self._images[first : first + 1]
            if count + missing == 1
            else self._images[[*indices, *[first] * missing]]
        )
        try:
            outputs = self._runner.infer({IMAGES: rows})
        except BobrtError:
            raise
        except Exception as error:
            raise BobrtError(f"the engine failed while LoadGen asked it: {error}") from error
        self.shapes = {name: value.shape[1:] for name, value in outputs.items()}
        parts = [value[:count].reshape(count, -1) for value in outputs.values()]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def pace_s(self, batch: int) -> float:
        """Return the seconds of the fastest of a few calls: the fewer, the more queries LoadGen draws."""
        indices = [i % self.count for i in range(batch)]
        times = []
        for _ in range(PROBES):
            began = time.perf_counter()
            self.ask(indices)
            times.append(time.perf_counter() - began)
        return min(times)


class _Sut:
    """The system under test. An error never leaves a callback: LoadGen's C++ would end the process."""

    def __init__(self, library: ModuleType, engine: _Engine, batch: int) -> None:
        self._library, self._engine, self._batch = library, engine, batch
        self.failure: BaseException | None = None

    def warm(self) -> None:
        """Ask a few times on the thread that will."""
        try:
            self._engine.pace_s(1)
        except BaseException as error:  # noqa: BLE001 - raised again once LoadGen has ended
            self.failure = error

    def answer(self, queries: Sequence[Query]) -> None:
        """Answer queries in their order, a batch at a time; emptily once one has failed."""
        for start in range(0, len(queries), self._batch):
            batch = queries[start : start + self._batch]
            outputs = np.empty((len(batch), 0), np.float32)
            try:
                if self.failure is None:
                    outputs = self._engine.ask([query.index for query in batch])
            except BaseException as error:  # noqa: BLE001 - raised again once LoadGen has ended
                self.failure = error
            # `outputs` lives until LoadGen has taken its bytes: it does so before the call returns.
            base, size = outputs.ctypes.data, outputs.strides[0] if outputs.size else 0
            respond = self._library.QuerySampleResponse
            self._library.QuerySamplesComplete(
                [respond(query.id, base + row * size, size) for row, query in enumerate(batch)]
            )


@contextmanager
def _fifo(
    warm: Callable[[], None], answer: Callable[[Sequence[Query]], None]
) -> Iterator[Callable[[Sequence[Query]], None]]:
    """Answer on a thread of its own, first come, first served: LoadGen issues in time, whatever waits.

    The thread warms up before there is a query: PyTorch keeps its CUDA graphs for each thread apart.
    """
    waiting: SimpleQueue[Sequence[Query]] = SimpleQueue()
    ready = Event()

    def drain() -> None:
        warm()
        ready.set()
        while queries := waiting.get():
            answer(queries)

    worker = Thread(target=drain, name="loadgen-server", daemon=True)
    worker.start()
    ready.wait()
    try:
        yield waiting.put
    finally:
        waiting.put([])
        worker.join()


def _settings(scenario: str, asked: Asked, engine: _Engine) -> Settings:
    """Return LoadGen's settings by their names there: what is recorded is what was set."""
    settings: Settings = {"min_duration_ms": math.ceil(asked.min_s * 1000), **SEEDS}
    if scenario == SINGLE_STREAM:
        return settings | {
            "min_query_count": ALONE,
            "single_stream_target_latency_percentile": 0.9,
            "single_stream_expected_latency_ns": engine.pace_s(1) * NS / SPARE_ALONE,
        }
    if scenario == OFFLINE:
        batch = engine.fixed or asked.batch
        return settings | {
            "min_query_count": 1,
            "offline_expected_qps": SPARE_OFFLINE * batch / engine.pace_s(batch),
        }
    # Where the rate is out of reach, no more may wait than is answered in the time of a run: LoadGen
    # would have the whole queue answered, which takes as many times longer as the rate is too high. In
    # accuracy mode it heeds no such bound: every image has its turn.
    patience_s = max(asked.min_s, 2 * asked.server_bound_ms / 1000)
    return settings | {
        "min_query_count": LEAST,
        "server_target_qps": asked.server_qps or 0.0,
        "server_target_latency_ns": round(asked.server_bound_ms * NS_PER_MS),
        "server_target_latency_percentile": 0.99,
        "server_max_async_queries": math.ceil(patience_s / engine.pace_s(1)),
    }


def _start(library: ModuleType, engine: _Engine, one: _Run) -> None:
    """Run LoadGen once; afterwards its logs are there."""
    asked = library.TestSettings()
    asked.scenario = getattr(library.TestScenario, one.scenario)
    asked.mode = getattr(library.TestMode, MODES[one.mode])
    for name, value in one.settings.items():
        setattr(asked, name, value)
    logs = _log_settings(library, one.logs)
    sut = _Sut(library, engine, one.batch)
    with _fifo(sut.warm, sut.answer) if one.scenario == SERVER else nullcontext(sut.answer) as issue:
        system = library.ConstructSUT(issue, lambda: None)
        # Every image is in memory all the time: there is nothing to load.
        samples = library.ConstructQSL(engine.count, engine.count, lambda _: None, lambda _: None)
        try:
            # No audit file: LoadGen would heed any `audit.config` of the working folder.
            library.StartTestWithLogSettings(system, samples, asked, logs, "")
        finally:
            library.DestroyQSL(samples)
            library.DestroySUT(system)
    if sut.failure is not None:
        raise sut.failure


def _record(one: _Run, engine: _Engine, accuracy: float | None) -> LoadGen:
    said = _summary(one.logs) if one.mode == "performance" else _Said(None, {}, "")
    return LoadGen(
        scenario=one.scenario,
        mode=one.mode,
        valid=said.valid,
        metrics=said.metrics,
        accuracy=accuracy,
        settings=one.settings | {"performance_sample_count": engine.count, "batch": one.batch},
        reason=said.reason,
        logs=f"{one.logs.parent.name}/{one.logs.name}",
        version=version("mlcommons-loadgen"),
    )


def _log_settings(library: ModuleType, logs: Path) -> object:
    """Return where LoadGen writes, an empty folder, and that it writes nowhere else."""
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    settings = library.LogSettings()
    settings.enable_trace = False
    output = library.LogOutputSettings()
    output.outdir = str(logs)
    output.copy_summary_to_stdout = False
    settings.log_output = output
    return settings


class _Answer(msgspec.Struct):
    """One line of LoadGen's accuracy log."""

    qsl_idx: int
    data: str
    """The bytes of the answer, in hex."""


def _logged(logs: Path, engine: _Engine) -> Outputs:
    """Return the outputs as LoadGen logged them, in the order of the images."""
    log = logs / ANSWERS
    try:
        answers = msgspec.json.decode(log.read_bytes(), type=list[_Answer])
        answers.sort(key=lambda answer: answer.qsl_idx)
        values = [np.frombuffer(bytes.fromhex(answer.data), np.float32) for answer in answers]
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise BobrtError(f"LoadGen's accuracy log {log} cannot be read: {error}") from error
    sizes = [math.prod(shape) for shape in engine.shapes.values()]
    whole = all(len(value) == sum(sizes) for value in values)
    if not whole or [answer.qsl_idx for answer in answers] != [*range(engine.count)]:
        raise BobrtError(f"{log} does not hold one whole answer for each of {engine.count} images")
    columns = np.split(np.stack(values), np.cumsum(sizes)[:-1], axis=1)
    outputs = {
        name: column.reshape(-1, *shape)
        for (name, shape), column in zip(engine.shapes.items(), columns, strict=True)
    }
    if broken := [name for name, value in outputs.items() if not np.isfinite(value).all()]:
        raise BobrtError(
            f"the engine answers NaN or infinity in {', '.join(broken)} when LoadGen asks",
            "choose another precision",
        )
    return outputs


class _Said(NamedTuple):
    """What a summary says."""

    valid: bool | None
    metrics: dict[str, float]
    reason: str


def _summary(logs: Path) -> _Said:
    """Read what LoadGen says of a performance run."""
    try:
        text = (logs / SUMMARY).read_text()
    except OSError as error:
        raise BobrtError(f"LoadGen left no summary in {logs}: {error.strerror}") from error
    head, _, tail = text.partition("Result is : ")
    verdict, _, rest = tail.partition("\n")
    if verdict not in {"VALID", "INVALID"}:
        raise BobrtError(f"{logs / SUMMARY} holds no verdict of LoadGen")
    metrics = {}
    for line in (head + rest).partition("Test Parameters Used")[0].splitlines():
        words, _, value = line.strip(" *").rpartition(":")
        with suppress(ValueError):
            metrics[words.strip()] = float(value)
    # Up to the empty line: what was satisfied and what was not, and what LoadGen advises.
    lines = (line.strip() for line in rest.partition("\n\n")[0].splitlines())
    reason = " ".join(line for line in lines if not line.endswith(": Yes"))
    return _Said(verdict == "VALID", metrics, "" if verdict == "VALID" else reason)


def _library() -> ModuleType:
    try:
        return import_module("mlperf_loadgen")
    except ImportError as error:
        raise MachineError("mlcommons-loadgen is not installed", "pip install 'bobrt[loadgen]'") from error
