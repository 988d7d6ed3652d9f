"""One cell, measured in the test's own process on real files."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support import TINY

from bench import cell, decide, store
from bench import plan as plans
from bench.plan import Question
from bobrt.errors import BobrtError
from bobrt.result import Searched
from bobrt.spec import Cell, Precision, Protocol, State
from engines import onnx_file
from engines.ort_cpu import OrtCpuRunner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import Ran, Workspace

    from bench.orders import CellOrder

    Order = Callable[[str, str], CellOrder]


def quiet(phase: str, detail: str) -> None:
    """Listen to nothing."""


@pytest.fixture
def order(tiny_run: tuple[Workspace, Ran], tmp_path: Path) -> Order:
    """What a worker is told for a cell of the tiny plan, with a file and a record of the test's own."""

    def ask(runtime: str, precision: str) -> CellOrder:
        desk = decide.Desk(plans.load(str(TINY)), tiny_run[0].cache, tmp_path / "results")
        words = f"test_resnet digits {runtime} {precision}"
        question = next(q for q in plans.questions(desk.plan) if str(q.cell) == words)
        told = desk.order(question)
        file = tmp_path / f"copy{told.file[told.file.rindex('.') :]}"
        shutil.copyfile(told.file, file)
        return msgspec.structs.replace(told, file=str(file))

    return ask


@pytest.fixture
def file_order(tmp_path: Path) -> Callable[..., CellOrder]:
    """What a worker is told for an ONNX file from elsewhere, on a task or on none."""

    def ask(path: Path, task: str = "digits") -> CellOrder:
        artifact = onnx_file.as_artifact(path)
        card = {**artifact.manifest.detail["card"], "task": task}
        artifact.manifest.detail["card"] = card
        question = Question(
            Cell(
                backbone=path.stem,
                weights="file:x",
                task=task,
                protocol=Protocol.PUBLISHED,
                runtime="ort-cpu",
                precision=Precision.FP32,
                batch="dynamic",
                seed=0,
            ),
            file=artifact,
        )
        return decide.Desk(plans.load(str(TINY)), tmp_path / "cache", tmp_path / "results").order(question)

    return ask


def test_the_record_says_how_images_were_prepared(order: Order) -> None:
    """The size and crop of the file, the mean and deviation of its checkpoint."""
    told = order("ort-cpu", "fp32")
    result = cell.run(told, quiet)
    assert result.input is not None
    assert told.card.backbone.input is not None
    assert (result.input.size, result.input.interpolation) == (32, told.card.transform.interpolation)
    assert result.input.mean == told.card.backbone.input.mean
    assert result.search is None


def test_a_search_that_ended_at_its_edge_is_a_caveat(order: Order) -> None:
    """What was tried goes into the record; that a better value may lie beyond is said beside the row."""
    found = Searched(trials=3, chosen={"lr": 1e-3}, at_edge=["lr"])
    result = cell.run(msgspec.structs.replace(order("ort-cpu", "fp32"), search=found), quiet)
    assert result.search == found
    assert "search-edge" in result.caveats


def test_one_file_is_asked_for_parity_accuracy_and_speed(order: Order) -> None:
    """The record holds all of it for the very file, and says so with its hash."""
    told = order("ort-cpu", "fp32")
    phases: list[str] = []
    result = cell.run(told, lambda phase, _: phases.append(phase))
    assert list(dict.fromkeys(phases)) == ["opening", "parity", "accuracy", "timing"]
    assert result.state is State.COMPLETE
    assert result.artifact is not None
    with open(told.file, "rb") as file:  # noqa: PTH123
        assert result.artifact.sha256 == hashlib.file_digest(file, "sha256").hexdigest()
    assert result.accuracy is not None
    assert result.accuracy.n == 450
    assert result.accuracy.reference == pytest.approx(result.accuracy.value + (result.accuracy.drop or 0.0))
    assert result.parity is not None
    assert result.parity.n == 269
    assert result.parity.agreement == 1.0
    assert 0.0 < result.parity.mean_abs < result.parity.max_abs < 1e-3
    assert [(row.scenario, row.batch) for row in result.latency] == [("latency", 1)]
    assert [row.batch for row in result.throughput] == [8]
    assert result.memory is not None
    assert result.memory.engine_bytes == result.artifact.bytes
    assert result.system.threads == told.threads
    assert result.system.tools == {"onnxruntime": result.system.onnxruntime}
    assert "no-reference" not in result.caveats
    assert "limited" not in result.caveats


def test_record_is_written_last_and_raw_times_give_its_numbers(order: Order, tmp_path: Path) -> None:
    """What is on disk is what was returned, and the samples beside it reproduce every figure exactly."""
    told = order("ort-cpu", "fp32")
    result = cell.run(told, quiet)
    (path,) = [p for p in (tmp_path / "results").rglob("*.json") if not p.name.endswith(".samples.json")]
    assert store.read(path) == result.sealed()
    assert result.samples is not None
    beside = path.with_name(result.samples.file)
    assert hashlib.sha256(beside.read_bytes()).hexdigest() == result.samples.sha256
    times = json.loads(beside.read_text())["times"]
    alone, many = np.sort(times["latency-1"]), np.array(times["throughput-8"])
    row, rate = result.latency[0], result.throughput[0]
    assert row.p50_ms == alone[len(alone) - 1 - len(alone) // 2] / 1e6
    assert (row.n, rate.n) == (len(alone), len(many))
    assert rate.images_per_s == pytest.approx(8e9 / many.mean(), rel=1e-12)
    assert path.stat().st_mtime_ns >= beside.stat().st_mtime_ns


def test_a_limit_asks_the_first_images_and_says_so(order: Order) -> None:
    """Accuracy and reference are over the same few images, and the row carries the caveat."""
    result = cell.run(msgspec.structs.replace(order("ort-cpu", "fp32"), limit=40), quiet)
    assert result.limit == 40
    assert result.accuracy is not None
    assert result.accuracy.n == 40
    assert result.accuracy.value == result.accuracy.reference
    assert "limited" in result.caveats
    assert result.parity is not None
    assert result.parity.n == 269


@pytest.mark.parametrize("phase", ["parity", "accuracy", "timing"])
def test_a_file_that_is_edited_meanwhile_is_found_out(order: Order, tmp_path: Path, phase: str) -> None:
    """The hash is taken before and after: no record, an error with the file and both hashes."""
    told = order("ort-cpu", "fp32")

    def edit(now: str, detail: str) -> None:
        if now == phase and not detail.startswith("batch 8"):
            with open(told.file, "r+b") as file:  # noqa: PTH123
                file.seek(-1, 2)
                last = file.read(1)
                file.seek(-1, 2)
                file.write(bytes([last[0] ^ 1]))

    with pytest.raises(BobrtError, match="was edited while it was benched") as caught:
        cell.run(told, edit)
    assert told.file in caught.value.message
    assert told.artifact.sha256[:12] in caught.value.message
    assert not [p for p in (tmp_path / "results").rglob("*.json") if not p.name.endswith(".samples.json")]


def test_another_file_than_was_ordered_is_not_measured(order: Order, tmp_path: Path) -> None:
    """A file that was edited before its turn is refused before it is opened."""
    told = order("ort-cpu", "fp32")
    with open(told.file, "ab") as file:  # noqa: PTH123
        file.write(b"x")
    with pytest.raises(BobrtError, match="was edited"):
        cell.run(told, quiet)
    assert not (tmp_path / "results").exists()


def test_a_file_that_is_mostly_another_precision_is_refused(order: Order) -> None:
    """Under half of its multiply-adds at the precision: the row would claim what it is not."""
    told = order("ort-cpu", "fp32")
    rare = msgspec.structs.replace(told.artifact, precision_share=0.49)
    with pytest.raises(BobrtError, match="not-realised: the file has 49 % of its multiply-adds at fp32"):
        cell.run(msgspec.structs.replace(told, artifact=rare), quiet)
    half = msgspec.structs.replace(told.artifact, precision_share=0.5)
    assert cell.run(msgspec.structs.replace(told, artifact=half), quiet).state is State.COMPLETE


def test_what_the_runtime_computes_is_read_back(
    order: Order, file_order: Callable[..., CellOrder], tiny_run: tuple[Workspace, Ran]
) -> None:
    """ONNX Runtime's CPU kernels run int8 as int8, and fp16 as fp32: the second is no fp16 row."""
    record = cell.run(order("ort-cpu", "int8"), quiet)
    assert record.artifact is not None
    assert (record.artifact.realised_share or 0.0) > 0.9

    (path,) = tiny_run[0].cache.glob("fp16/*/model.onnx")
    told = file_order(path)  # as fp32, or it would not get this far
    assert told.artifact.precision_share == 0.0
    told = msgspec.structs.replace(
        told,
        cell=msgspec.structs.replace(told.cell, precision=Precision.FP16),
        artifact=msgspec.structs.replace(told.artifact, precision_share=1.0),
    )
    with pytest.raises(BobrtError, match="not-realised: asked for fp16, ort-cpu computes 100 % at fp32"):
        cell.run(told, quiet)


def test_a_runtime_that_does_not_tell_its_precision_says_so(
    order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row goes by its file, with a caveat; a checkpoint is computed in what it was cast to."""

    class Mute(OrtCpuRunner):
        realised = None  # type: ignore[assignment]

    assert "precision-unread" not in cell.run(order("torch", "fp32"), quiet).caveats
    monkeypatch.setattr(cell, "open_runner", lambda _, path, threads, *__: Mute(path, threads))
    result = cell.run(order("ort-cpu", "fp32"), quiet)
    assert "precision-unread" in result.caveats
    assert result.artifact is not None
    assert result.artifact.realised_share is None


def test_a_graph_without_a_product_has_no_precision_to_read(
    file_order: Callable[..., CellOrder], tmp_path: Path
) -> None:
    """There is nothing of it that a caveat would warn of."""
    cast = helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT)
    mean = helper.make_node("ReduceMean", ["floats", "axes"], ["features"], keepdims=0)
    graph = helper.make_graph(
        [cast, mean],
        "mean",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 32, 32, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])],
    )
    path = tmp_path / "mean.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    result = cell.run(file_order(path, ""), quiet)
    assert result.artifact is not None
    assert (result.artifact.precision_share, result.artifact.realised_share) == (None, None)
    assert "precision-unread" not in result.caveats


def test_too_few_samples_for_an_interval_are_said(order: Order) -> None:
    """A window that ends after a call or two has a median and no interval, and the row says why."""
    told = order("ort-cpu", "fp32")
    short = msgspec.structs.replace(told.timing, warmup_s=0.0, min_s=1e-6, max_s=1e-6, throughput_batches=())
    result = cell.run(msgspec.structs.replace(told, timing=short), quiet)
    assert 1 <= result.latency[0].n < 60
    assert result.latency[0].stopped == "time"
    assert result.latency[0].ci95_ms is None
    assert result.throughput == []
    assert "few-samples" in result.caveats


def test_int8_is_measured_as_what_it_is(order: Order) -> None:
    """A quantised file differs from its reference by more than an fp32 one, and names its placement."""
    result = cell.run(order("ort-cpu", "int8"), quiet)
    assert result.artifact is not None
    assert result.artifact.placement == "onnxruntime"
    assert (result.artifact.precision_share or 0.0) > 0.9
    assert result.parity is not None
    assert result.parity.max_abs > 1e-3


def test_a_fixed_batch_is_timed_as_it_is(
    file_order: Callable[..., CellOrder], foreign: Callable[..., Path], tmp_path: Path
) -> None:
    """An engine that takes four images answers every image once, and has a latency of four."""
    four = foreign(tmp_path / "four.onnx", shape=(4, 32, 32, 3))
    free = foreign(tmp_path / "free.onnx")
    result, same = (cell.run(file_order(path), quiet) for path in (four, free))
    assert [row.batch for row in result.latency] == [4]
    assert [row.batch for row in result.throughput] == [4]
    assert result.accuracy is not None
    assert same.accuracy is not None
    assert result.accuracy.n == 450
    assert result.accuracy.value == same.accuracy.value
    assert result.caveats.count("no-reference") == 1


def test_a_file_on_no_task_has_a_speed_and_no_accuracy(
    file_order: Callable[..., CellOrder], foreign: Callable[..., Path], tmp_path: Path
) -> None:
    """Nothing is claimed of what was not asked."""
    result = cell.run(file_order(foreign(tmp_path / "f.onnx"), task=""), quiet)
    assert result.accuracy is None
    assert result.parity is None
    assert result.latency[0].n >= 20


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"factor": float("nan")}, "NaN or infinity in logits"),
        ({"factor": 1e36}, "NaN or infinity in logits"),
        ({"output": "scores"}, "answers scores; task digits is read from 'logits'"),
        ({"name": "x"}, r"takes x uint8 \[\?, 32, 32, 3\]; a bobrt engine takes images"),
        ({"shape": ("batch", "h", "w", 3)}, r"takes images uint8 \[\?, \?, \?, 3\]"),
        ({"shape": ("batch", 16, 64, 3)}, r"takes images uint8 \[\?, 16, 64, 3\]"),
    ],
    ids=["nan", "overflow", "other output", "other input", "free sides", "not square"],
)
def test_a_file_that_cannot_be_scored_says_why(
    file_order: Callable[..., CellOrder],
    foreign: Callable[..., Path],
    tmp_path: Path,
    odd: dict[str, object],
    words: str,
) -> None:
    """No accuracy is made of answers that are no numbers, or that are not there; no record is written."""
    with pytest.raises(BobrtError, match=words):
        cell.run(file_order(foreign(tmp_path / "odd.onnx", **odd)), quiet)
    assert not (tmp_path / "results").exists()
