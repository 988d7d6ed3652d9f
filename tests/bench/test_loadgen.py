"""MLPerf's LoadGen, the real one, on ONNX Runtime and on engines that misbehave."""

from __future__ import annotations

import sys
import threading
import time
from operator import methodcaller
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import pytest

from bench import loadgen
from bobrt.errors import BobrtError, MachineError
from engines.ort_cpu import OrtCpuRunner
from engines.runner import IMAGES, TensorMeta, answers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from bobrt.speed import LoadGen
    from engines.runner import Runner

    Outputs = dict[str, NDArray[np.float32]]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="LoadGen has wheels for Linux alone")

COLON = methodcaller("rpartition", ":")
N = 20
ASKED = loadgen.Asked(min_s=0.3, batch=8, server_qps=1000.0, server_bound_ms=50.0)
PHOTOS = np.random.default_rng(0).integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)


class Counter:
    """An engine that answers the number of each image, in two outputs; fails after some calls if armed."""

    def __init__(self, fixed: int | None = None) -> None:
        self.fixed = fixed
        self.asked: list[list[int]] = []
        self.left: int | None = None
        self.error: BaseException = RuntimeError("the device fell off")
        self.value = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def inputs(self) -> Mapping[str, TensorMeta]:
        return {IMAGES: TensorMeta("uint8", (self.fixed, 1, 1, 3))}

    def infer(self, feeds: Mapping[str, NDArray[np.uint8]]) -> Mapping[str, NDArray[np.float32]]:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise self.error
        numbers = feeds[IMAGES][:, 0, 0, 0].astype(np.float32)
        self.asked.append(numbers.astype(int).tolist())
        grid = numbers[:, None, None] * np.arange(6, dtype=np.float32).reshape(2, 3)
        return {"number": numbers + self.value, "grid": grid}


NUMBERED = np.repeat(np.arange(N, dtype=np.uint8), 3).reshape(N, 1, 1, 3)


class Ran(NamedTuple):
    """What a run of everything gave, and what it was given to score."""

    records: list[LoadGen]
    scored: list[Outputs]
    direct: Outputs
    folder: Path


def in_order(outputs: Outputs) -> float:
    """Score that any exchange of two answers changes."""
    return float(np.arange(1, N + 1) @ outputs["logits"][:, 0].astype(np.float64))


def patiently(call: Callable[[], object]) -> None:
    """Call on a thread that may hang, without hanging; raise what it raises."""
    ended: list[BaseException | None] = []

    def body() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            ended.append(error)
        else:
            ended.append(None)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(60)
    assert ended, "LoadGen hangs"
    if ended[0] is not None:
        raise ended[0]


@pytest.fixture(scope="module")
def ran(foreign: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Everything LoadGen can be asked, on one open ONNX Runtime session, twice over."""
    space = tmp_path_factory.mktemp("loadgen")
    scored: list[Outputs] = []

    def score(outputs: Outputs) -> float:
        scored.append(outputs)
        return in_order(outputs)

    with OrtCpuRunner(foreign(space / "model.onnx"), threads=1) as runner:
        loadgen.run(runner, PHOTOS, in_order, space / "logs", ASKED)
        records = loadgen.run(runner, PHOTOS, score, space / "logs", ASKED)
        return Ran(records, scored, answers(runner, PHOTOS, 8), space / "logs")


def test_every_scenario_is_asked_for_speed_and_then_for_every_answer(ran: Ran) -> None:
    """Each performance run has a verdict and the number its scenario is about, with its reason."""
    assert [(run.scenario, run.mode) for run in ran.records] == [
        (scenario, mode)
        for scenario in ("SingleStream", "Offline", "Server")
        for mode in ("performance", "accuracy")
    ]
    for run, headline in zip(
        ran.records[::2],
        ("90.0th percentile latency (ns)", "Samples per second", "Completed samples per second"),
        strict=True,
    ):
        assert run.valid is not None
        assert (run.reason == "") == run.valid
        assert run.metrics[headline] > 0
        assert 0 < run.metrics["Mean latency (ns)"] < 60e9
        assert run.accuracy is None
    for run in ran.records[1::2]:
        assert (run.valid, run.metrics, run.reason) == (None, {}, "")


def test_the_accuracy_is_that_of_the_engine_itself(ran: Ran) -> None:
    """What is scored is every answer once, bit for bit, in the order of the images."""
    assert in_order({"logits": ran.direct["logits"][::-1]}) != in_order(ran.direct)
    assert [run.accuracy for run in ran.records[1::2]] == [in_order(ran.direct)] * 3
    for outputs in ran.scored:
        np.testing.assert_array_equal(outputs["logits"], ran.direct["logits"], strict=True)


def test_the_record_says_what_was_set_and_where_the_logs_are(ran: Ran) -> None:
    """LoadGen's own summary, in the folder the record names, repeats the verdict and the settings."""
    for run in ran.records[::2]:
        summary = (ran.folder.parent / run.logs / "mlperf_log_summary.txt").read_text()
        assert f"Scenario : {run.scenario}" in summary
        assert f"Result is : {'VALID' if run.valid else 'INVALID'}" in summary
        said = {key.strip(): value.strip() for key, _, value in map(COLON, summary.splitlines())}
        assert said["min_duration (ms)"] == str(run.settings["min_duration_ms"]) == "300"
        for name in ("qsl_rng_seed", "sample_index_rng_seed", "schedule_rng_seed", "min_query_count"):
            assert said[name] == str(run.settings[name])
        assert said["performance_sample_count"] == str(run.settings["performance_sample_count"]) == str(N)
    single, offline, server = ran.records[::2]
    assert (single.settings["batch"], offline.settings["batch"], server.settings["batch"]) == (1, 8, 1)
    assert server.settings["server_target_latency_ns"] == 50_000_000
    assert server.settings["server_target_qps"] == 1000
    assert single.logs == "logs/SingleStream-performance"
    assert {run.version for run in ran.records} == {single.version}


def test_an_easy_run_is_valid_and_an_impossible_rate_is_not(
    tmp_path: Path, foreign: Callable[..., Path]
) -> None:
    """Server's reason is kept, and its queue is not answered to the end: that would take a minute."""
    impossible = ASKED._replace(
        server_qps=1e6, server_bound_ms=0.01, scenarios=(loadgen.SINGLE_STREAM, loadgen.SERVER)
    )
    began = time.monotonic()
    with OrtCpuRunner(foreign(tmp_path / "model.onnx"), threads=1) as runner:
        single, server = loadgen.run(runner, PHOTOS, None, tmp_path / "logs", impossible)
    assert (single.valid, single.reason) == (True, "")
    assert single.metrics["Early stopping 90.0th percentile estimate"] > 0
    assert server.valid is False
    assert "Performance constraints satisfied : NO" in server.reason
    assert "Reduce target QPS" in server.reason
    assert "Min duration satisfied : Yes" not in server.reason
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("fixed", [None, 8])
def test_several_outputs_and_a_batch_of_the_engines_own(tmp_path: Path, fixed: int | None) -> None:
    """Outputs of any shape come back as they were; a fixed batch is filled up, unscored."""
    engine = Counter(fixed)
    scored: list[Outputs] = []

    def score(outputs: Outputs) -> float:
        scored.append(outputs)
        return 1.0

    loadgen.run(engine, NUMBERED, score, tmp_path, ASKED._replace(min_s=0.05, batch=3))
    assert len(scored) == 3
    for outputs in scored:
        np.testing.assert_array_equal(outputs["number"], np.arange(N))
        np.testing.assert_array_equal(
            outputs["grid"], np.arange(N)[:, None, None] * np.arange(6).reshape(2, 3)
        )
    assert {len(batch) for batch in engine.asked} == ({8} if fixed else {1, 2, 3})


def test_the_thread_that_answers_warms_up_before_there_is_a_query() -> None:
    """What a library keeps for each thread is not made while LoadGen's clock runs."""
    did: list[tuple[str, str]] = []

    def note(what: str) -> None:
        did.append((what, threading.current_thread().name))

    with loadgen._fifo(lambda: note("warm"), lambda _: note("answer")) as issue:
        assert did == [("warm", "loadgen-server")]
        issue(["a query"])  # type: ignore[list-item]
    assert did[1:] == [("answer", "loadgen-server")]


def test_what_is_not_asked_is_not_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No rate, no Server; no metric, no accuracy. An earlier run's logs are gone, and nothing is printed."""
    old = tmp_path / "Offline-performance" / "mlperf_log_old.txt"
    old.parent.mkdir()
    old.write_text("of yesterday")
    said: list[str] = []
    records = loadgen.run(
        Counter(), NUMBERED, None, tmp_path, ASKED._replace(server_qps=None), report=said.append
    )
    assert said == ["SingleStream performance", "Offline performance"]
    assert [f"{run.scenario} {run.mode}" for run in records] == said
    assert not old.exists()
    assert capfd.readouterr() == ("", "")


def test_a_config_file_of_the_working_folder_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LoadGen by itself heeds an `audit.config` that happens to lie there."""
    (tmp_path / "audit.config").write_text("*.*.min_query_count = 7\n*.*.mode = 1\n")
    monkeypatch.chdir(tmp_path)
    asked = ASKED._replace(scenarios=(loadgen.SINGLE_STREAM,))
    (run,) = loadgen.run(Counter(), NUMBERED, None, tmp_path / "logs", asked)
    summary = (tmp_path / run.logs / "mlperf_log_summary.txt").read_text()
    assert "min_query_count : 64" in summary


@pytest.mark.parametrize("mode", ["performance", "accuracy"])
@pytest.mark.parametrize("scenario", ["SingleStream", "Offline", "Server"])
def test_an_engine_that_fails_is_an_error_and_no_hang(tmp_path: Path, scenario: str, mode: str) -> None:
    """It fails in the middle of LoadGen's run, which ends; and the next run in this process is good."""
    engine = Counter()

    def arm(what: str) -> None:
        if what == f"{scenario} {mode}":
            engine.left = 7

    def go(report: Callable[[str], None]) -> None:
        asked = ASKED._replace(batch=1, scenarios=(scenario,))
        loadgen.run(engine, NUMBERED, lambda _: 1.0, tmp_path, asked, report=report)

    with pytest.raises(BobrtError, match="failed while LoadGen asked it: the device fell off"):
        patiently(lambda: go(arm))
    engine.left = None
    patiently(lambda: go(lambda _: None))


def test_an_interrupt_is_an_interrupt_once_loadgen_has_ended(tmp_path: Path) -> None:
    """Ctrl-C lands in whatever Python runs, which may be LoadGen's callback."""
    engine = Counter()
    engine.left, engine.error = loadgen.PROBES + 3, KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        patiently(lambda: loadgen.run(engine, NUMBERED, None, tmp_path, ASKED))


def test_answers_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    """Nobody ships the accuracy of a broken engine."""
    engine = Counter()
    engine.value = float("nan")
    asked = ASKED._replace(scenarios=(loadgen.OFFLINE,))
    with pytest.raises(BobrtError, match="NaN or infinity in number when LoadGen asks"):
        patiently(lambda: loadgen.run(engine, NUMBERED, lambda _: 1.0, tmp_path, asked))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: [*lines[:1], *lines[2:]], "one whole answer for each of 20 images"),
        (lambda lines: [*lines[:2], *lines[1:]], "one whole answer for each of 20 images"),
        (lambda lines: [line.replace('"data" : "', '"data" : "00000000') for line in lines], "one whole"),
        (lambda lines: lines[:-2], "cannot be read"),
    ],
    ids=["missing", "twice", "too long", "cut off"],
)
def test_a_log_that_is_not_whole_is_not_scored(
    tmp_path: Path, change: Callable[[list[str]], list[str]], words: str
) -> None:
    """Every image has one answer in LoadGen's log, or there is no accuracy."""
    runner: Runner = Counter()
    loadgen.run(runner, NUMBERED, lambda _: 1.0, tmp_path, ASKED._replace(scenarios=(loadgen.SINGLE_STREAM,)))
    log = tmp_path / "SingleStream-accuracy" / "mlperf_log_accuracy.json"
    log.write_text("\n".join(change(log.read_text().splitlines())))
    engine = loadgen._Engine(runner, NUMBERED)
    engine.ask([0])
    with pytest.raises(BobrtError, match=words):
        loadgen._logged(log.parent, engine)


def test_without_a_verdict_there_is_no_record(tmp_path: Path) -> None:
    """A summary that a full disk cut off, or none at all, is an error that names it."""
    with pytest.raises(BobrtError, match="left no summary"):
        loadgen._summary(tmp_path)
    (tmp_path / "mlperf_log_summary.txt").write_text("SUT name : PySUT\nResult is : VAL")
    with pytest.raises(BobrtError, match="holds no verdict"):
        loadgen._summary(tmp_path)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with pytest.raises(MachineError, match="mlcommons-loadgen is not installed") as caught:
        loadgen.run(Counter(), NUMBERED, None, tmp_path, ASKED)
    assert caught.value.hint == "pip install 'bobrt[loadgen]'"
