"""The record's keys are an interface: within schema 1 they may be added, never renamed or removed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from bench import store
from bobrt.errors import UsageError
from bobrt.result import (
    SCHEMA,
    Accuracy,
    Answer,
    Artifact,
    CellRecord,
    Parity,
    Published,
    Report,
    Result,
    Samples,
    Searched,
    System,
    to_json,
)
from bobrt.spec import Input, Placement, Precision, Protocol, State, seal_of
from bobrt.speed import (
    ColdStart,
    Curve,
    Drift,
    Energy,
    Evaluation,
    Latency,
    LoadGen,
    Memory,
    Pipeline,
    Server,
    Throughput,
    Timing,
    Trial,
    Watch,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Every key of schema 1. A line may be added here; none may ever be changed or taken away.
GOLDEN = """
schema state reason caveats started seconds limit log seal notes
cell.backbone cell.weights cell.task cell.protocol cell.runtime cell.precision cell.batch cell.seed cell.key
artifact.kind artifact.path artifact.sha256 artifact.bytes artifact.build_s artifact.precision_share
artifact.realised_share artifact.placement artifact.target
accuracy.metric accuracy.value accuracy.higher_is_better accuracy.n accuracy.ci95 accuracy.reference
accuracy.drop accuracy.extra
parity.max_abs parity.mean_abs parity.agreement parity.n parity.reference_runtime
latency[].scenario latency[].batch latency[].clock latency[].p50_ms latency[].p90_ms latency[].p99_ms
latency[].n latency[].ci95_ms latency[].warmup_s latency[].repeats_ms latency[].spread_ms latency[].stopped
throughput[].batch throughput[].images_per_s throughput[].n throughput[].ci95 throughput[].repeats
memory.engine_bytes memory.peak_bytes memory.what
timing.warmup_s timing.min_s timing.min_n timing.throughput_batches
timing.max_s timing.width timing.scenarios timing.threads timing.scenario_s timing.p99_ms
drift.what drift.repeats_ms drift.relative
curve.ended curve.batch curve.detail curve.streams curve.threads
server.bound_ms server.rate server.p99_ms server.capacity server.reason
server.trials[].rate server.trials[].n server.trials[].p50_ms server.trials[].p99_ms server.trials[].met
loadgen[].scenario loadgen[].mode loadgen[].valid loadgen[].metrics loadgen[].accuracy loadgen[].settings
loadgen[].reason loadgen[].logs loadgen[].version
pipeline.files pipeline.batch pipeline.workers pipeline.n pipeline.images_per_s
pipeline.expected_images_per_s pipeline.engine_images_per_s pipeline.stage_ms pipeline.waited pipeline.bound
cold_start.open_ms cold_start.first_ms
evaluation.batch evaluation.images_per_s
energy.joules_per_image energy.what energy.images energy.seconds
watch.cpu_mhz watch.load watch.others_cores watch.stolen_cores watch.held_back_s
watch.gpu_mhz watch.gpu_memory_mhz watch.gpu_watts watch.gpu_celsius watch.gpu_slowed_by watch.gpu_others
system.id system.cpu system.cores system.memory_gb system.gpu system.driver system.os system.python
system.cuda system.tensorrt system.tensorrt_rtx system.onnxruntime system.onnx system.torch system.timm
system.modelopt system.numpy system.bobrt system.git_commit system.git_dirty system.threads
system.simd
gauntlet[].question gauntlet[].kind gauntlet[].metric gauntlet[].value gauntlet[].higher_is_better
gauntlet[].n gauntlet[].ci95 gauntlet[].reference gauntlet[].drop gauntlet[].extra gauntlet[].reason
published.repo published.url published.file published.revision published.sha256 published.bytes
search.trials search.chosen search.at_edge
input.size input.crop_pct input.interpolation input.mean input.std
samples.file samples.sha256
"""

RESULT = Result(
    state=State.COMPLETE,
    reason="",
    cell=CellRecord(
        backbone="test_resnet",
        weights="random",
        task="digits",
        protocol=Protocol.FINETUNE,
        runtime="ort-cpu",
        precision=Precision.INT8,
        batch="dynamic",
        seed=0,
        key="0123456789abcdef",
    ),
    artifact=Artifact(
        kind="onnx",
        path="int8/x/model.onnx",
        sha256="0" * 64,
        bytes=1000,
        build_s=1.5,
        precision_share=0.99,
        placement=Placement.ORT,
        target=None,
    ),
    accuracy=Accuracy(
        metric="top1",
        value=0.98,
        higher_is_better=True,
        n=450,
        ci95=(0.962, 0.989),
        reference=0.9822222222222222,
        drop=0.0022222222222222,
        extra={"validation": 0.99},
    ),
    parity=Parity(max_abs=1e-2, mean_abs=1e-3, agreement=1.0, n=269, reference_runtime="torch"),
    latency=[
        Latency(
            scenario="single-stream",
            batch=1,
            clock="wall",
            p50_ms=1.25,
            p90_ms=1.5,
            p99_ms=None,
            n=100,
            ci95_ms=(1.2, 1.3),
            warmup_s=1.0,
        )
    ],
    throughput=[Throughput(batch=32, images_per_s=2000.0, n=50, ci95=(1900.0, 2100.0))],
    memory=Memory(engine_bytes=1000, peak_bytes=None, what="peak resident memory"),
    system=System(
        id="cpu-2c-01234567",
        cpu="a CPU",
        cores=2,
        memory_gb=8.0,
        gpu=None,
        driver=None,
        os="Linux 6",
        python="3.12.0",
        cuda=None,
        tensorrt=None,
        tensorrt_rtx="1.7",
        onnxruntime="1.31.1",
        onnx="1.23",
        torch="2.14",
        timm="1.0.31",
        modelopt="0.47",
        numpy="2.4",
        bobrt="0.1.0",
        git_commit=None,
        git_dirty=None,
        threads=2,
    ),
    caveats=["busy-machine"],
    started="2026-01-01T00:00:00+00:00",
    seconds=3.5,
    timing=Timing(warmup_s=1.0, min_s=3.0, min_n=100, throughput_batches=(32,)),
    drift=Drift(what="a network", repeats_ms=[1.0], relative=None),
    curve=Curve(ended="flat", batch=32, detail="two batches gained nothing"),
    server=Server(
        bound_ms=15.0,
        rate=None,
        p99_ms=None,
        capacity=100.0,
        reason="too slow",
        trials=[Trial(rate=50.0, n=662, p50_ms=10.0, p99_ms=20.0, met=False)],
    ),
    loadgen=[
        LoadGen(
            scenario="Offline",
            mode="performance",
            valid=True,
            metrics={"Samples per second": 100.0},
            accuracy=None,
            settings={"batch": 8},
            reason="",
            logs="k.loadgen/Offline-performance",
            version="6.0",
        )
    ],
    pipeline=Pipeline(
        files="PNG, 8 x 8 px",
        batch=8,
        workers=1,
        n=80,
        images_per_s=100.0,
        expected_images_per_s=110.0,
        engine_images_per_s=120.0,
        stage_ms={"decode": 1.0},
        waited=0.5,
        bound="decode",
    ),
    evaluation=Evaluation(batch=32, images_per_s=100.0),
    energy=Energy(joules_per_image=0.1, what="RAPL", images=100, seconds=1.0),
    watch=Watch(load=(0.1, 0.2)),
    cold_start=ColdStart(open_ms=[10.0], first_ms=[1.0]),
    gauntlet=[
        Answer(
            question="reliability",
            kind="reliability",
            metric="ece",
            value=0.02,
            higher_is_better=False,
            n=450,
            ci95=(0.01, 0.03),
            reference=0.01,
            drop=0.01,
            extra={"nll": 0.1},
        )
    ],
    published=Published(
        repo="timm/a", url=None, file="model.safetensors", revision="2" * 40, sha256="3" * 64, bytes=1000
    ),
    search=Searched(trials=4, chosen={"lr": 1e-3}, at_edge=["lr"]),
    input=Input(size=32, crop_pct=1.0, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    limit=None,
    samples=Samples(file="0123456789abcdef.samples.json", sha256="1" * 64),
    log=None,
)

EARLIEST = """{
  "schema": 1,
  "state": "unsupported",
  "reason": "no NVIDIA driver",
  "cell": {"backbone": "a", "weights": "random", "task": "digits", "protocol": "finetune",
           "runtime": "tensorrt-rtx", "precision": "fp16", "batch": 8, "seed": 1, "key": "k"},
  "artifact": {"kind": "engine", "path": "p", "sha256": "0", "bytes": 1, "build_s": 1},
  "accuracy": null, "parity": null, "latency": [], "throughput": [], "memory": null,
  "system": {"id": "i", "cpu": "c", "cores": 2, "memory_gb": 8, "gpu": null, "driver": null, "os": "o",
             "python": "3.11.7", "cuda": null, "tensorrt": null, "tensorrt_rtx": null, "onnxruntime": null,
             "onnx": null, "torch": null, "timm": null, "modelopt": null, "numpy": null, "bobrt": "0.1.0",
             "git_commit": null, "git_dirty": null},
  "caveats": [], "started": "2026-01-01T00:00:00+00:00", "seconds": 0,
  "seal": "9298b9bb6fe28550d63c611e31a93bc4e70a6fcfdfbb5eb12664dac364d58fda"
}
"""
"""A record with nothing but the keys the first version could not do without."""


FREE = {
    "accuracy.extra",
    "gauntlet[].extra",
    "search.chosen",
    "loadgen[].metrics",
    "loadgen[].settings",
    "pipeline.stage_ms",
}


def keys(value: Any, prefix: str = "") -> Iterator[str]:
    """Yield the path of every leaf; the keys of some are free."""
    if isinstance(value, dict) and prefix not in FREE:
        for key, inner in value.items():
            yield from keys(inner, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield from keys(value[0], f"{prefix}[]")
    else:
        yield prefix


def test_every_key_of_the_schema_is_still_there() -> None:
    """Readers of older records and programs of other people rely on each of them."""
    assert SCHEMA == 1
    assert set(GOLDEN.split()) - set(keys(json.loads(to_json(RESULT)))) == set()


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    """Written, sealed and read again, nothing is lost or rounded."""
    store.write(tmp_path / "a.json", RESULT)
    assert store.read(tmp_path / "a.json") == RESULT.sealed()


def test_the_first_records_can_still_be_read(tmp_path: Path) -> None:
    """Keys added since have a default, and do not break the seal of what was written without them."""
    (tmp_path / "old.json").write_text(EARLIEST, encoding="utf-8")
    read = store.read(tmp_path / "old.json")
    assert read.state is State.UNSUPPORTED
    assert read.cell.batch == 8
    assert read.artifact is not None
    assert read.artifact.placement is Placement.NONE


def later(**more: Any) -> dict[str, Any]:
    """Return the record as a later bobrt may write it, unsealed."""
    content: dict[str, Any] = json.loads(to_json(RESULT))
    return content | {"seal": ""} | more


def test_keys_a_later_version_added_are_let_pass(tmp_path: Path) -> None:
    """At any depth, and under a seal that covers them."""
    content = later(power={"watts": 12.5}, system={**later()["system"], "bios": "1.0"})
    path = tmp_path / "new.json"
    path.write_text(json.dumps(content | {"seal": seal_of(json.dumps(content))}), encoding="utf-8")
    assert store.read(path).cell == RESULT.cell
    path.write_text(path.read_text(encoding="utf-8").replace("12.5", "1.25"), encoding="utf-8")
    with pytest.raises(UsageError, match=r"new\.json was edited"):
        store.read(path)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"value": 0.98', '"value": 0.99', "was edited: it is not what its seal was put on"),
        ('"p50_ms": 1.25', '"p50_ms": 1.2', "was edited"),
        ('"reason": ""', '"reason": "x"', "was edited"),
        ('"log": null,\n', "", "was edited"),
        ('"value": 0.98', '"value": "0.98"', "is damaged: key 'accuracy.value': Expected `float`, got `str`"),
        ('"value": 0.98', '"value": NaN', "is damaged: "),
        ('"state": "complete"', '"state": "fine"', "is damaged: key 'state': Invalid enum value 'fine'"),
        ('  "cell"', '  "sell"', "is damaged: key 'cell' is missing"),
        ('"schema": 1', '"schema": 2', "has schema 2; this bobrt reads 1"),
        ("\n}\n", "", "is damaged: Input data was truncated"),
    ],
)
def test_a_record_that_was_edited_or_cut_is_named(tmp_path: Path, old: str, new: str, says: str) -> None:
    """One line with the file; the rest of the folder is still used."""
    path = tmp_path / "a.json"
    store.write(tmp_path / "b.json", RESULT)
    store.write(path, RESULT)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        store.read(path)
    assert caught.value.message.startswith(f"result {path} {says}")
    loaded = store.read_all(tmp_path)
    assert loaded.results == [RESULT.sealed()]
    assert loaded.problems == [caught.value.message]


def test_a_seal_does_not_mind_layout(tmp_path: Path) -> None:
    """A record that went through a formatter is the same record."""
    path = tmp_path / "a.json"
    store.write(path, RESULT)
    path.write_text(json.dumps(json.loads(path.read_bytes())), encoding="utf-8")
    assert store.read(path) == RESULT.sealed()


def test_there_is_no_nan_in_a_record() -> None:
    """What is not a number is null: the JSON is strict."""
    odd = msgspec.structs.replace(RESULT, seconds=float("nan"))
    text = to_json(Report(results=[odd.sealed()])).decode()
    said = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert said["schema"] == 1
    assert said["results"][0]["seconds"] is None
    assert "NaN" not in text
    assert text.endswith("}\n")


@pytest.mark.parametrize(
    "change", [{"seconds": float("inf")}, {"accuracy": None}, {"latency": []}, {"limit": 5}, {"seal": "x"}]
)
def test_a_seal_depends_on_everything_but_itself(change: dict[str, Any]) -> None:
    """Any other value is another seal; an old seal is not sealed in."""
    changed = msgspec.structs.replace(RESULT, **change).sealed()
    assert (changed.seal == RESULT.sealed().seal) == ("seal" in change)
