"""The whole run on the real command line: what it leaves behind, what it says, and how it is resumed."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from support import BOBRT, TINY, Workspace, environment

from bobrt.paths import CPU, lock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import Ran

    Records = Callable[[Workspace], dict[str, Path]]
    Start = Callable[..., Any]
    Gone = Callable[[list[int]], bool]

MEASURED = {"torch fp32", "ort-cpu fp32", "ort-cpu int8"}
BUILT = {"tensorrt-rtx fp32", "tensorrt-rtx fp16", "tensorrt-rtx int8"}
LACKING = {"ort-cpu fp16"}
TinyRun = tuple[Workspace, "Ran"]


def snapshot(space: Workspace) -> dict[Path, tuple[int, bytes]]:
    """Return time and content of every file of a workspace but the report, which is made anew."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for folder in (space.cache, space.results)
        for path in folder.rglob("*")
        if path.is_file() and path.name != "report.md"
    }


# -- what a run leaves behind ---------------------------------------------------------------


def test_every_cell_has_a_record(tiny_run: TinyRun, records: Records) -> None:
    """The plan ends well: what can run here is complete, what cannot is unsupported, nothing is missing."""
    space, ran = tiny_run
    assert ran.code == 0, ran.err
    found = {name: json.loads(path.read_text()) for name, path in records(space).items()}
    assert {name for name, record in found.items() if record["state"] == "complete"} == MEASURED
    assert {name for name, record in found.items() if record["state"] == "unsupported"} == BUILT | LACKING
    assert len(found) == 7


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_a_complete_record_is_of_one_file(tiny_run: TinyRun, records: Records, name: str) -> None:
    """Its hash is that of the file in the cache; accuracy, parity, speed and raw times are all there."""
    space, _ = tiny_run
    path = records(space)[name]
    record = json.loads(path.read_text())
    file = space.cache / record["artifact"]["path"]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == record["artifact"]["sha256"]
    assert file.stat().st_size == record["artifact"]["bytes"] == record["memory"]["engine_bytes"]
    accuracy = record["accuracy"]
    assert accuracy["n"] == 450
    assert accuracy["ci95"][0] < accuracy["value"] < accuracy["ci95"][1]
    assert accuracy["drop"] == pytest.approx(accuracy["reference"] - accuracy["value"])
    assert abs(accuracy["drop"]) < 0.05
    assert 0.0 < accuracy["extra"]["validation"] <= 1.0
    assert record["parity"]["n"] == 269
    assert record["parity"]["agreement"] > 0.9
    assert record["parity"]["reference_runtime"] == "torch"
    samples = path.with_name(record["samples"]["file"])
    assert hashlib.sha256(samples.read_bytes()).hexdigest() == record["samples"]["sha256"]
    times = sorted(json.loads(samples.read_text())["times"]["latency-1"])
    assert record["latency"][0]["p50_ms"] == times[len(times) - 1 - len(times) // 2] / 1e6
    assert record["latency"][0]["n"] == len(times) >= 20
    assert record["latency"][0]["repeats_ms"] == [record["latency"][0]["p50_ms"]]
    assert record["latency"][0]["spread_ms"] is None
    assert "few-rounds" in record["caveats"]
    windows = {"warmup_s": 0.1, "min_s": 0.1, "min_n": 20, "max_s": 1.0, "width": 1.0}
    asked = {"scenarios": ["latency", "throughput"], "threads": None, "scenario_s": None, "p99_ms": None}
    assert record["timing"] == {**windows, **asked, "throughput_batches": [8]}
    assert record["reason"] == ""
    assert record["log"] is None


@pytest.mark.parametrize("name", sorted(BUILT))
def test_an_engine_that_cannot_run_here_is_built_and_says_why(
    tiny_run: TinyRun, records: Records, name: str
) -> None:
    """The record has the reason, and size and build time of a file that is really there; no numbers."""
    space, _ = tiny_run
    record = json.loads(records(space)[name].read_text())
    assert record["reason"].startswith("no NVIDIA driver on this machine")
    artifact = record["artifact"]
    file = space.cache / artifact["path"]
    assert (artifact["kind"], artifact["target"]) == ("engine", "8.6")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == artifact["sha256"]
    assert file.stat().st_size == artifact["bytes"] > 100_000
    assert artifact["build_s"] > 0.0
    assert record["accuracy"] is None
    assert record["latency"] == record["throughput"] == []


def test_a_precision_the_runtime_lacks_has_a_reason_and_no_file(tiny_run: TinyRun, records: Records) -> None:
    """The record says what the runtime takes; nothing was made for it, and nothing is measured."""
    (record,) = (json.loads(records(tiny_run[0])[name].read_text()) for name in LACKING)
    assert record["reason"].startswith("ort-cpu has no fp16: it takes fp32, int8; ")
    assert record["artifact"] is None
    assert record["accuracy"] is None
    assert record["latency"] == record["throughput"] == record["caveats"] == []


def test_precision_is_that_of_the_file(tiny_run: TinyRun, records: Records) -> None:
    """Each row's share of multiply-adds is read from its file, and from what the runtime made of it."""
    found = {name: json.loads(path.read_text()) for name, path in records(tiny_run[0]).items()}
    assert found["ort-cpu fp32"]["artifact"]["precision_share"] == 1.0
    assert found["tensorrt-rtx fp16"]["artifact"]["precision_share"] > 0.9
    assert found["ort-cpu int8"]["artifact"]["precision_share"] > 0.9
    assert found["ort-cpu fp32"]["artifact"]["realised_share"] == 1.0
    assert found["ort-cpu int8"]["artifact"]["realised_share"] > 0.9
    assert {found[name]["artifact"]["realised_share"] for name in BUILT} == {None}
    assert found["ort-cpu int8"]["artifact"]["placement"] == "onnxruntime"
    assert found["tensorrt-rtx int8"]["artifact"]["placement"] == "tensorrt"


def test_table_on_stdout_and_talk_on_stderr(tiny_run: TinyRun) -> None:
    """The ranking with its front marked is the data; everything said on the way is not in it."""
    _, ran = tiny_run
    lines = ran.out.splitlines()
    header = next(line for line in lines if line.startswith("rank"))
    at = header.index("front")
    rows = [line for line in lines if re.match(r" *\d+  ", line)]
    assert len(rows) == len(MEASURED)
    assert any(row[at] == "*" for row in rows)
    assert sum("unsupported" in line for line in lines) == len(BUILT | LACKING)
    assert lines[-1].startswith("Of 3 verified engines for digits, test_resnet ")
    assert "\x1b" not in ran.out + ran.err
    assert "making" not in ran.out


def test_piped_progress_is_one_line_for_each_phase(tiny_run: TinyRun) -> None:
    """Without a terminal each change of phase is a plain line, and each cell ends in one of its own."""
    talk = tiny_run[1].err.splitlines()
    for phase in ("training", "exporting", "proving", "converting", "calibrating", "building"):
        assert f"  making test_resnet · {phase}" in talk
    ends = [line for line in talk if line.startswith("[")]
    assert [line[:5] for line in ends] == [f"[{i}/7]" for i in range(1, 8)]
    (label,) = [line.partition(":")[0] for line in ends if " ort-cpu fp32: " in line]
    for phase in ("parity", "accuracy", "timing"):
        assert f"  {label} · {phase}" in talk


def test_report_is_written_beside_the_records(tiny_run: TinyRun) -> None:
    """It has the answer, both tables and the machine, and every number in it is a record's."""
    space, ran = tiny_run
    text = (space.results / "report.md").read_text()
    assert text.startswith("# bobrt report\n\nOf 3 verified engines for digits, ")
    assert ran.out.splitlines()[-1] in text
    ranked, _, rest = text.partition("## Fronts: ")
    costs, _, rest = rest.partition("## Throughput by batch")
    batches, _, unranked = rest.partition("## Not ranked")
    assert [part.count("| test_resnet |") for part in (ranked, batches, unranked)] == [3, 3, 4]
    assert "## Budgets: " in costs
    assert "## Precision ladders" in costs
    assert "## Machines" in text


def test_nothing_else_is_left(tiny_run: TinyRun) -> None:
    """No half-made folder, temporary file or log of a success."""
    space, _ = tiny_run
    left = [path for folder in space for path in folder.rglob("*")]
    assert not [p for p in left if p.suffix in {".tmp", ".partial", ".pt"} or p.name.startswith(".")]
    assert not [p for p in left if p.suffix == ".log" and p.name != "build.log"]


# -- again ----------------------------------------------------------------------------------


def test_again_nothing_is_redone(workspace: Workspace) -> None:
    """The same command answers from what is there: every cell is already done and no file changes."""
    before = snapshot(workspace)
    ran = workspace.here("bench", "--plan", TINY)
    assert ran.code == 0
    assert ran.err.count(": already done, ") == 7 == len(ran.err.splitlines())
    assert snapshot(workspace) == before


def test_again_as_json(workspace: Workspace) -> None:
    """`--format json` is one strict, versioned document with every record in it, and the same as `--json`."""
    ran = workspace.here("bench", "--plan", TINY, "--format", "json")

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    content = json.loads(ran.out, parse_constant=refuse)
    assert content["schema"] == 1
    assert len(content["results"]) == 7
    assert ran.out == workspace.here("bench", "--plan", TINY, "--json").out
    assert json.loads(workspace.here("report", "--json").out)["schema"] == 1


def test_one_precision_runs_beside_the_reference(workspace: Workspace, records: Records) -> None:
    """`--precision int8` asks the int8 cells and the reference, and measures what has no record."""
    found = records(workspace)
    found["ort-cpu int8"].unlink()
    kept = {name: path.read_bytes() for name, path in found.items() if name != "ort-cpu int8"}
    ran = workspace.here("bench", "--precision", "int8", "--plan", TINY)
    assert ran.code == 0
    ends = [line.split(":")[0] for line in ran.err.splitlines() if line.startswith("[")]
    assert [end[:5] for end in ends] == ["[1/3]", "[2/3]", "[3/3]"]
    assert {end[6:] for end in ends} == {
        "test_resnet digits torch fp32",
        "test_resnet digits ort-cpu int8",
        "test_resnet digits tensorrt-rtx int8",
    }
    assert ran.err.count("already done") == 2
    assert json.loads(found["ort-cpu int8"].read_text())["state"] == "complete"
    assert all(found[name].read_bytes() == content for name, content in kept.items())
    ranked, _, _ = (workspace.results / "report.md").read_text().partition("## Fronts: ")
    assert ranked.count("| test_resnet |") == 3


def test_rerun_measures_again_what_is_done(
    workspace: Workspace, records: Records, plan: Callable[..., Path]
) -> None:
    """`--rerun` replaces the records of what was asked, the accuracy unchanged, and nothing else."""
    found = records(workspace)
    before = {name: path.read_bytes() for name, path in found.items()}
    ran = workspace.here("bench", "--plan", plan(reference=False, precisions=["int8"]), "--rerun")
    assert ran.code == 0
    assert "already done" not in ran.err
    after = {name: path.read_bytes() for name, path in found.items()}
    assert {name for name in found if before[name] != after[name]} <= {"ort-cpu int8", "tensorrt-rtx int8"}
    was, now = json.loads(before["ort-cpu int8"]), json.loads(after["ort-cpu int8"])
    assert was["latency"] != now["latency"]
    assert was["accuracy"] == now["accuracy"]


def test_a_run_writes_nowhere_else(
    workspace: Workspace, records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Home and working folder stay as they were: no library leaves a cache or an identity there."""
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    records(workspace)["ort-cpu int8"].unlink()
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    home = {"HOME": str(tmp_path / "home")}
    ran = workspace.bobrt("bench", "--plan", TINY, cwd=tmp_path / "here", env=home)
    assert ran.code == 0, ran.err
    assert ran.err.count("already done") == 6
    assert list((tmp_path / "home").rglob("*")) == []
    assert list((tmp_path / "here").rglob("*")) == []


def test_a_limited_run_is_shown_and_not_ranked(
    workspace: Workspace, records: Records, plan: Callable[..., Path]
) -> None:
    """`--limit` measures a part: a record of its own beside the full one, a caveat, and no rank."""
    path = records(workspace)["ort-cpu fp32"]
    full = path.read_bytes()
    part = plan(runtimes=["ort-cpu"], precisions=["fp32"], reference=False)
    ran = workspace.here("bench", "--plan", part, "--limit", "20")
    assert ran.code == 0, ran.err
    assert "limited to 20 test images" in ran.out
    assert "Of " not in ran.out
    limited = json.loads(path.with_name(f"{path.stem}-limit20.json").read_text())
    assert (limited["limit"], limited["accuracy"]["n"], limited["caveats"].count("limited")) == (20, 20, 1)
    assert path.read_bytes() == full
    assert "- **limited**: " in (workspace.results / "report.md").read_text()


def test_weights_that_cannot_be_fetched_are_skipped_and_the_rest_goes_on(workspace: Workspace) -> None:
    """Beside cells that are done, those that need the hub are recorded as skipped, with the reason."""
    ran = workspace.bobrt(
        "bench", "--plan", TINY, "--weights", "random,pretrained", env={"HF_HUB_OFFLINE": "1"}
    )
    assert ran.code == 0, ran.err
    assert ran.err.count("already done") == 7
    assert (
        ran.err.count(": skipped: the weights of test_resnet are not cached and HF_HUB_OFFLINE is set") == 6
    )
    states = [record["state"] for record in json.loads(workspace.here("report", "--json").out)["results"]]
    assert sorted(states) == ["complete"] * 3 + ["skipped"] * 6 + ["unsupported"] * 5


def test_a_plan_of_weights_that_cannot_be_fetched_ends_in_one_line(workspace: Workspace) -> None:
    """Where nothing at all can be done: exit code 3, the reason and what to type instead, no records."""
    before = snapshot(workspace)
    ran = workspace.bobrt("bench", "--plan", TINY, "--weights", "pretrained", env={"HF_HUB_OFFLINE": "1"})
    assert ran.code == 3
    assert ran.out == ""
    assert ran.err == (
        "error: the weights of test_resnet are not cached and HF_HUB_OFFLINE is set\n\n"
        "hint: bobrt bench test_resnet --weights random, or --weights PATH for a local checkpoint\n"
    )
    assert snapshot(workspace) == before


def test_dry_run_says_what_would_be_done_and_touches_nothing(
    tmp_path: Path, here: Callable[..., Ran]
) -> None:
    """Each cell with its action, the files it needs and the reason; no folder is made."""
    ran = here("bench", "--plan", TINY, "--dry-run")
    assert ran.code == 0
    header, *rows, counts = ran.out.splitlines()
    assert header.split() == ["cell", "action", "makes", "why"]
    assert len(rows) == 7
    (lacking,) = [row for row in rows if "ort-cpu fp16" in row]
    assert "ort-cpu has no fp16" in lacking
    assert all("no checkpoint yet" in row or "no NVIDIA driver" in row for row in rows if row != lacking)
    assert "checkpoint, onnx, int8-onnxruntime, reference" in rows[3]
    assert counts == "3 run · 4 unsupported"
    assert list(tmp_path.iterdir()) == []


def test_no_progress_leaves_the_ends(workspace: Workspace, records: Records) -> None:
    """`BOBRT_NO_PROGRESS=1` silences the phases; what became of each cell is still said."""
    records(workspace)["ort-cpu fp32"].unlink()
    ran = workspace.here("bench", "--plan", TINY, env={"BOBRT_NO_PROGRESS": "1"})
    assert ran.code == 0
    assert [line[0] for line in ran.err.splitlines()] == ["["] * 7
    assert ran.err.count("already done") == 6


def test_a_terminal_gets_a_live_line_and_keeps_the_ends(workspace: Workspace, records: Records) -> None:
    """On a terminal the phase is one line that is redrawn; the end of each cell stays, and a drawn table."""
    records(workspace)["ort-cpu fp32"].unlink()
    env = environment(workspace.env(TERM="xterm", COLUMNS="200"))
    for name in ("NO_COLOR", "_TYPER_FORCE_DISABLE_TERMINAL"):
        env.pop(name)
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [str(BOBRT), "bench", "--plan", str(TINY)], stdout=child, stderr=child, stdin=child, env=env
    )
    os.close(child)
    watchdog = threading.Timer(240, process.kill)
    watchdog.start()
    seen = bytearray()
    try:
        while chunk := os.read(parent, 65536):
            seen += chunk
    except OSError:  # Linux says so when the other end is closed
        pass
    finally:
        os.close(parent)
    assert process.wait(60) == 0
    watchdog.cancel()
    text = seen.decode()
    assert "Traceback" not in text
    assert "\x1b[2K" in text
    (label,) = {found[0] for found in re.finditer(r"\[\d/7\] test_resnet digits ort-cpu fp32", text)}
    assert re.search(rf"{re.escape(label)} · (parity|accuracy|timing)", text)
    assert f"\n  {label}" not in text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    for index in range(1, 8):
        assert re.search(rf"^\r*\[{index}/7\] test_resnet [^·]*: .*\r$", plain, re.MULTILINE)
    assert "────" in plain


def test_the_users_own_modules_are_not_ours(
    workspace: Workspace, records: Records, user_folder: Path
) -> None:
    """In a folder with the user's own train.py, engines.py and bench/, files are made and cells run."""
    records(workspace)["ort-cpu fp32"].unlink()
    shutil.rmtree(workspace.cache / "engine-tensorrt-rtx")
    shutil.rmtree(workspace.cache / "int8-onnxruntime")
    ran = workspace.bobrt("bench", "--plan", TINY, cwd=user_folder)
    assert ran.code == 0, ran.err
    assert "the user has" not in ran.out + ran.err
    assert "calibrating" in ran.err
    assert "building" in ran.err
    assert "ort-cpu fp32 · timing" in ran.err


# -- at the same time -----------------------------------------------------------------------


def test_two_runs_at_once_do_the_work_once(tmp_path: Path, plan: Callable[..., Path], start: Start) -> None:
    """Two runs of a plan with one cache and one results folder: each file is made, each cell timed, once."""
    space = Workspace(tmp_path / "cache", tmp_path / "results")
    path = plan(runtimes=["ort-cpu"], precisions=["fp32", "int8"], reference=False)
    runs = [start(space, "bench", "--plan", path) for _ in range(2)]
    assert [run.ended() for run in runs] == [0, 0], [run.said for run in runs]
    talk = [line for run in runs for line in run.said]
    for phase in ("training", "exporting", "calibrating"):
        assert sum(f"· {phase}" in line for line in talk) == 1, phase
    cells = [line for line in talk if line.startswith("[")]
    assert len(cells) == 4
    for name in ("ort-cpu fp32", "ort-cpu int8"):
        assert sum(f"digits {name} · timing" in line for line in talk) == 1
        (told,) = [line for line in cells if f"digits {name}: already done, " in line]
        assert sum(told.partition("already done, ")[2] in line for line in cells) == 2
    manifests = [p.relative_to(space.cache).parts[0] for p in space.cache.rglob("manifest.json")]
    assert sorted(manifests) == ["checkpoint", "int8-onnxruntime", "onnx", "reference"]
    assert not list(space.cache.rglob("*.partial"))
    again = space.here("bench", "--plan", path)
    assert again.code == 0
    assert again.err.count("already done") == 2
    assert "warning" not in again.err


def test_waiting_for_the_machine_does_not_count(
    workspace: Workspace, records: Records, plan: Callable[..., Path], start: Start
) -> None:
    """While another holds the CPU for longer than the cell's limit, the cell waits, and then completes."""
    records(workspace)["ort-cpu fp32"].unlink()
    path = plan(limits={"cell_s": 4}, runtimes=["ort-cpu"], precisions=["fp32"])
    with lock(CPU):
        run = start(workspace, "bench", "--plan", path)
        run.until("ort-cpu fp32 · waiting")
        time.sleep(5)
        assert run.process.poll() is None
    assert run.ended() == 0, run.said
    assert json.loads(records(workspace)["ort-cpu fp32"].read_text())["state"] == "complete"


# -- interrupted ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_interrupted_while_a_file_is_made(
    workspace: Workspace, start: Start, gone: Gone, how: signal.Signals
) -> None:
    """No worker survives, nothing that was there is lost, and the same command makes the file."""
    shutil.rmtree(workspace.cache / "int8-onnxruntime")
    before = snapshot(workspace)
    run = start(workspace, "bench", "--plan", TINY)
    run.until("calibrating")
    workers = run.workers()
    assert workers
    run.process.send_signal(how)
    check_end(run, how)
    assert gone(workers)
    assert before.items() <= snapshot(workspace).items()
    assert not list((workspace.cache / "int8-onnxruntime").glob("*/manifest.json"))
    ran = workspace.here("bench", "--plan", TINY)
    assert ran.code == 0
    assert list((workspace.cache / "int8-onnxruntime").glob("*/manifest.json"))
    assert not list(workspace.cache.rglob("*.partial"))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_interrupted_while_a_cell_is_measured(  # noqa: PLR0913, PLR0917 - fixtures
    workspace: Workspace,
    start: Start,
    gone: Gone,
    plan: Callable[..., Path],
    plugin: dict[str, str],
    how: signal.Signals,
) -> None:
    """No worker survives, only the cell that ran has no record, and the same command goes on with it."""
    before = snapshot(workspace)
    path = plan(runtimes=["ort-cpu", "mylab/hangs"], precisions=["fp32"])
    run = start(workspace, "bench", "--plan", path, env=plugin)
    run.until("mylab/hangs fp32 · opening")
    workers = run.workers()
    assert workers
    run.process.send_signal(how)
    check_end(run, how)
    assert gone(workers)
    after = snapshot(workspace)
    assert before.items() <= after.items()
    assert {p.suffix for p in after.keys() - before.keys()} <= {".log"}
    ran = workspace.bobrt("bench", "--plan", path, env={**plugin, "MYLAB_WELL": "1"})
    assert ran.code == 0, ran.err
    assert ran.err.count("already done") == 2
    assert not list(workspace.results.rglob("*.log"))


def test_interrupted_while_it_waits_for_another(
    workspace: Workspace, records: Records, start: Start, gone: Gone
) -> None:
    """Ctrl-C does not have to wait for whoever holds the machine."""
    records(workspace)["ort-cpu fp32"].unlink()
    with lock(CPU):
        run = start(workspace, "bench", "--plan", TINY)
        run.until("ort-cpu fp32 · waiting")
        workers = run.workers()
        run.process.send_signal(signal.SIGINT)
        check_end(run, signal.SIGINT)
        assert gone(workers)


def check_end(run: Any, how: signal.Signals) -> None:
    """Assert the exit code and the words of a run that was interrupted."""
    code = run.ended()
    if how == signal.SIGKILL:
        assert code == -how
        return
    assert code == 130
    said = "".join(run.said)
    assert said.endswith("error: interrupted\n\nhint: the same command goes on\n")
    assert "Traceback" not in said
