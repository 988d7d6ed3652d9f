"""The scenarios by the command line: on real files, in real processes, into real records."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import Workspace

    Records = Callable[[Workspace], dict[str, Path]]
    Plan = Callable[..., Path]

ONE = {"runtimes": ["ort-cpu"], "precisions": ["fp32"], "reference": False}
SHORT = {"warmup_s": 0.05, "min_s": 0.05, "min_n": 20, "max_s": 0.5, "width": 1.0, "scenario_s": 0.2}


def test_a_bound_no_engine_keeps_ends_with_the_nearest(
    workspace: Workspace, records: Records, plan: Plan
) -> None:
    """Exit code 4 and a sentence; the row is measured, recorded and ranked all the same."""
    path = plan(**ONE, timing=SHORT | {"scenarios": ["server"], "p99_ms": 1e-6, "threads": 1})
    ran = workspace.here("bench", "--plan", path)
    assert ran.code == 4, ran.err
    assert "No engine keeps its p99 within 1e-06 ms; the nearest is test_resnet fp32 on ort-cpu" in ran.out
    record = json.loads(records(workspace)["ort-cpu fp32"].read_text())
    assert record["state"] == "complete"
    assert record["server"]["rate"] is None
    assert record["throughput"] == []
    assert record["timing"]["scenarios"] == ["latency", "server"]
    assert record["system"]["threads"] == record["timing"]["threads"] == 1


def test_a_batch_beyond_memory_ends_the_curve_with_its_reason(
    workspace: Workspace, records: Records, plan: Plan
) -> None:
    """A batch of a million does not fit into half a gigabyte: the curve says so, the cell is complete."""
    timing = SHORT | {"throughput_batches": [1, 2, 1_000_000], "threads": 1}
    path = plan(**ONE, timing=timing, limits={"memory_gb": 0.6, "cell_s": 120.0})
    ran = workspace.here("bench", "--plan", path)
    assert ran.code == 0, ran.err
    record = json.loads(records(workspace)["ort-cpu fp32"].read_text())
    assert [row["batch"] for row in record["throughput"]] == [1, 2]
    assert record["curve"]["ended"] == "memory"
    assert record["curve"]["detail"] == "a batch of 1000000 does not fit in memory"


def test_every_scenario_is_asked_of_the_same_file(workspace: Workspace, records: Records, plan: Plan) -> None:
    """LoadGen brings throughput and server along; its accuracy is ours, its logs lie beside the record."""
    timing = SHORT | {"throughput_batches": [1, 4], "threads": 1}
    ran = workspace.here("bench", "--plan", plan(**ONE, timing=timing), "--scenario", "loadgen,pipeline")
    assert ran.code == 0, ran.err
    path = records(workspace)["ort-cpu fp32"]
    record = json.loads(path.read_text())
    asked = ["latency", "throughput", "server", "loadgen", "pipeline"]
    assert record["timing"]["scenarios"] == asked
    assert record["curve"]["ended"] == "limit"
    assert [row["batch"] for row in record["throughput"]] == [1, 4]
    assert 0 < record["server"]["rate"] <= record["server"]["capacity"]
    runs = record["loadgen"]
    assert [(run["scenario"], run["mode"]) for run in runs] == [
        (scenario, mode)
        for scenario in ("SingleStream", "Offline", "Server")
        for mode in ("performance", "accuracy")
    ]
    right = record["accuracy"]["value"]
    assert {run["accuracy"] for run in runs if run["mode"] == "accuracy"} == {right}
    assert all(run["valid"] in {True, False} for run in runs if run["mode"] == "performance")
    assert all((path.parent / run["logs"] / "mlperf_log_summary.txt").is_file() for run in runs)
    pipeline = record["pipeline"]
    assert pipeline["bound"] in {"decode", "resize", "engine", "answer"}
    assert {*pipeline["stage_ms"]} == {"decode", "resize", "engine", "answer"}
    assert pipeline["files"] == "PNG, 8 x 8 px"
    assert record["cold_start"]["open_ms"][0] > 0
    assert record["evaluation"]["images_per_s"] > 0
    page = (workspace.results / "report.md").read_text()
    for title in ("## Throughput by batch", "## Server", "## MLPerf LoadGen", "## Pipeline"):
        assert title in page
    assert "damaged" not in workspace.here("report").err


def test_a_scenario_is_measured_anew_and_its_old_logs_go(
    workspace: Workspace, records: Records, plan: Plan
) -> None:
    """Other scenarios are other windows: the record is made anew, and nothing of the old one stays."""
    path = plan(**ONE, timing=SHORT | {"throughput_batches": [1], "threads": 1})
    assert workspace.here("bench", "--plan", path, "--scenario", "loadgen").code == 0
    logs = records(workspace)["ort-cpu fp32"].with_suffix(".loadgen")
    assert logs.is_dir()
    ran = workspace.here("bench", "--plan", path, "--scenario", "latency")
    assert ran.code == 0
    assert "timed for other windows or threads" in ran.err
    record = json.loads(records(workspace)["ort-cpu fp32"].read_text())
    assert (record["loadgen"], record["server"], record["throughput"]) == ([], None, [])
    assert not logs.exists()
