"""Every architecture of the catalogue: exported, proven, at every precision, built for TensorRT-RTX.

    make matrix

Writes one JSON file for each into `docs/support-matrix/`, and the table of them all into
`docs/support-matrix.md`. What has a record made by today's tools is not done again: stopped at any
time, it goes on. Named architectures alone, and of those the steps whose process died once more:
`python -P tests/benchmarks/matrix.py resnet50 convnext_tiny`. To do one anew, delete its record.
"""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bobrt import console
from bobrt.artifacts import version
from bobrt.catalogue import BACKBONES
from bobrt.paths import lock, write_atomic
from bobrt.spec import Precision
from bobrt.system import this_system

if TYPE_CHECKING:
    from bobrt.spec import Backbone

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

RECORDS = ROOT / "docs" / "support-matrix"
TABLE = ROOT / "docs" / "support-matrix.md"
TOOLS = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "nvidia-modelopt", "tensorrt-rtx")
LOW = [Precision.FP16, Precision.BF16, Precision.INT8, Precision.FP8]
PHASES = {
    "export": ["export"],
    "convert": [str(low) for low in LOW],
    "build": [f"{precision} build" for precision in [Precision.FP32, *LOW]],
}
"""What one process does: the libraries of one phase are seconds to import, and patch those of another."""
LIMIT_S = 1800
GOALS = {"fp32": 100, "fp16": 100, "bf16": 95, "int8": 95, "fp8": 95}
LARGE_M = 300
HALF = 0.5
FAR = 1.0
"""Gap of an fp16 file whose answers are as far from fp32's as those are from each other: noise."""
NOTHING = "there is no file to go on from"
ABOUT = """
Made by `make matrix`, on a machine without a GPU: each architecture of the catalogue at its own input size,
with a free batch axis, from random weights. **fp32** is the export, its parity with PyTorch, and the build
for TensorRT-RTX; the others are the conversion of that file (eight calibration images) and its build, for
compute capability 8.6, fp8 for 8.9. Numbers are parity in fp32 (largest difference over largest answer;
above 1e-4 where PyTorch's own rounding, told by fp64, is of that size: [method](method.md)) and the share
of multiply-adds at the precision; behind that of fp16, how far its answers are from fp32's (mean difference
over mean spread; above 1, or not a number, it does not hold). A build proves that TensorRT takes the graph;
it tells neither speed nor accuracy. With less than half at the precision it does not hold; ModelOpt leaves
convolutions of 16 channels and fewer out of fp8, where they would be no faster. No bf16 file is run here:
ONNX Runtime has no such kernels on a CPU; any other file that it cannot open is a hole. No block is kept
out of int8 or fp8, and nothing is judged: weights are random. A record is kept while the versions below are
installed; it names the commit of bobrt it was made at (older ones do not). Above 300 M parameters, what
does not fit here is listed and not counted.
"""


def main() -> None:
    """Do what is missing, one architecture after another, and write the table."""
    names = sys.argv[1:]
    if names[:1] == ["--child"]:
        _child(names[1], names[2], Path(names[3]))
        return
    entries = architectures()
    for name in names or entries:
        with lock(str(RECORDS / name)):
            _architecture(name, entries[name], again=bool(names))
    write_atomic(TABLE, table([_read(path) for path in sorted(RECORDS.glob("*.json"))]).encode())


def architectures() -> dict[str, Backbone]:
    """Return one entry of the catalogue for each architecture, the smallest first.

    Called by timm's name for it; one that has arguments of its own by its entry's.
    """
    found: dict[str, Backbone] = {}
    for entry in sorted(BACKBONES.all().values(), key=lambda b: b.params_m or 0.0):
        found.setdefault(entry.name if entry.args else entry.timm.partition(".")[0], entry)
    return found


def _architecture(name: str, entry: Backbone, *, again: bool) -> None:
    path = RECORDS / f"{name}.json"
    record = _read(path) if path.is_file() else {}
    if again and record:  # a process that died left no time
        record["steps"] = {s: found for s, found in record["steps"].items() if found["seconds"] is not None}
    tools = {tool: version(tool) for tool in TOOLS}
    if record.get("tools") == tools and all(step in record["steps"] for p in PHASES.values() for step in p):
        console.note(f"{name}: done")
        return
    if record.get("tools") != tools:
        record = {"architecture": name, "backbone": entry.name, "tools": tools, "steps": {}}
    record["commit"] = this_system().git_commit
    with tempfile.TemporaryDirectory(prefix="bobrt-matrix-") as folder:
        for phase, steps in PHASES.items():
            while missing := [step for step in steps if step not in record["steps"]]:
                ended, peak_gb = _run(name, phase, Path(folder), record)
                left = [step for step in missing if step not in record["steps"]]
                # The process died in it; where others came before, what they left in memory may be why.
                if left[:1] == missing[:1]:
                    died = {"ok": False, "why": ended, "seconds": None, "peak_gb": peak_gb}
                    record["steps"][left[0]] = died
                _write(path, record)
            console.note(f"{name}: {phase}: " + ", ".join(_short(record, step) for step in steps))


def _run(name: str, phase: str, folder: Path, record: dict[str, Any]) -> tuple[str, float]:
    """Run one phase in a process of its own, take over what it has done; return how it ended and its peak."""
    told = folder / "told.json"
    write_atomic(told, json.dumps(record).encode())
    command = [sys.executable, "-P", __file__, "--child", name, phase, str(folder)]
    env = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
    late = threading.Timer(LIMIT_S, process.kill)
    late.start()
    _, status, used = os.wait4(process.pid, 0)  # a process that was killed cannot tell what it took
    code = process.returncode = os.waitstatus_to_exitcode(status)
    ended = f"its process ended with exit code {code}"
    if not late.is_alive():
        ended = f"given up after {LIMIT_S} s"
    elif code == -signal.SIGKILL:  # as the kernel does to whoever takes the last of the memory
        ended = f"killed: {this_system().memory_gb:.1f} GB of memory were not enough"
    late.cancel()
    record.update(_read(told))
    return ended, _gb(used)


def _gb(used: resource.struct_rusage) -> float:
    return round(used.ru_maxrss / 2**20, 2)


def _child(name: str, phase: str, folder: Path) -> None:
    """Do the steps of one phase that have no record yet, telling of each as it ends."""
    told = folder / "told.json"
    record = _read(told)
    for step in PHASES[phase]:
        if step in record["steps"]:
            continue
        started = time.monotonic()
        try:
            found = {"ok": True, **_step(architectures()[name], step, folder, record)}
        except Exception as error:  # noqa: BLE001 - whatever a model or a library raises is this step's record
            found = {"ok": False, "why": _told(error, folder)[:300] or type(error).__name__}
        found["seconds"] = round(time.monotonic() - started, 1)
        found["peak_gb"] = _gb(resource.getrusage(resource.RUSAGE_SELF))
        record["steps"][step] = found
        write_atomic(told, json.dumps(record).encode())


def _step(entry: Backbone, step: str, folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    import architecture  # noqa: PLC0415 - torch and timm, in the child alone

    what, _, build = step.partition(" ")
    if what == "export":
        made = architecture.exported(entry, folder)
        record["params_m"] = round(made.params_m, 2)
        record["size"] = made.card.transform.size
        return {"parity": made.parity}
    precision = Precision(what)
    file = folder / "model.onnx" if precision is Precision.FP32 else folder / what / "model.onnx"
    if not file.is_file() and (build or not (folder / "model.onnx").is_file()):
        raise FileNotFoundError(NOTHING)
    if build:
        return {"bytes": architecture.built(file, precision)}
    shutil.rmtree(folder / what, ignore_errors=True)
    path, share = architecture.converted(folder / "model.onnx", precision, folder / what)
    found: dict[str, Any] = {"share": round(share, 4)}
    if share < HALF:
        found["why"] = architecture.elsewhere(path, precision)
    try:
        gap = architecture.gap(folder / "model.onnx", path, precision)
    except Exception as error:
        if precision is not Precision.BF16:  # what ONNX Runtime cannot open, nobody can judge or run in it
            raise
        return found | {"not_run": _told(error, folder)[:200]}
    if not math.isfinite(gap) or (precision is Precision.FP16 and gap > FAR):
        raise ValueError(f"its answers are {gap:.2g} times their spread from fp32's")
    return found | {"gap": gap}


def _told(error: Exception, folder: Path) -> str:
    """Return what an error says, in one line and without the folder it happened in."""
    return " ".join(str(error).split()).replace(f"{folder}/", "")


def table(records: list[dict[str, Any]]) -> str:
    """Return the page: the shares that hold, one line for each architecture, and the cause of every hole."""
    counted = [r for r in records if not _too_large(r)]
    versions = records[0]["tools"] if records else {}
    lines = [
        "# Support matrix",
        "",
        *textwrap.wrap(" ".join(ABOUT.split()), 100),
        "",
        ", ".join(f"{tool} {number}" for tool, number in versions.items()) + ".",
        "",
        f"So far {len(records)} of {len(architectures())} architectures have been through it.",
        "",
        "| precision | " + " | ".join(GOALS) + " |",
        "| --- |" + " ---: |" * len(GOALS),
        "| holds | "
        + " | ".join(f"{sum(_holds(r, p) for r in counted)} of {len(counted)}" for p in GOALS)
        + " |",
        "| goal | " + " | ".join(f"{goal} %" for goal in GOALS.values()) + " |",
        "",
        "| architecture | params M | px | " + " | ".join(GOALS) + " |",
        "| --- | ---: | ---: |" + " --- |" * len(GOALS),
    ]
    lines += [
        f"| {r['architecture']} | {_params_m(r) or ''} | {r.get('size', '')} | "
        + " | ".join(_cell(r, p) for p in GOALS)
        + " |"
        for r in records
    ]
    holes = [(r["architecture"], step, found) for r in records for step, found in _holes(r)]
    if holes:
        lines += [
            "",
            "## Holes",
            "",
            "| architecture | step | peak GB | cause |",
            "| --- | --- | ---: | --- |",
        ]
        lines += [
            f"| {name} | {step} | {found['peak_gb'] or ''} | {found['why'].replace('|', '/')} |"
            for name, step, found in holes
        ]
    return "\n".join(lines) + "\n"


def _too_large(record: dict[str, Any]) -> bool:
    """Tell whether an architecture above 300 M parameters did not fit: it is listed, and not counted."""
    large = _params_m(record) > LARGE_M
    return large and not all(_holds(record, precision) for precision in GOALS)


def _params_m(record: dict[str, Any]) -> float:
    """Return the parameters that were counted, or where nothing could be built those of the entry."""
    return record.get("params_m") or BACKBONES.get(record["backbone"]).params_m or 0.0


def _needed(precision: str) -> list[str]:
    return ["export" if precision == "fp32" else precision, f"{precision} build"]


def _holds(record: dict[str, Any], precision: str) -> bool:
    """Tell whether all went well, with half of the multiply-adds at the precision: less is not realised."""
    steps = [record["steps"].get(step, {}) for step in _needed(precision)]
    return all(step.get("ok") for step in steps) and steps[0].get("share", 1.0) >= HALF


def _cell(record: dict[str, Any], precision: str) -> str:
    made = record["steps"].get(_needed(precision)[0], {})
    if not _holds(record, precision):
        return f"**no** ({100 * made['share']:.0f} %)" if made.get("share", 1.0) < HALF else "**no**"
    if precision == "fp32":
        return f"{made['parity']:.0e}"
    return f"{100 * made['share']:.0f} %" + (f", {made['gap']:.0e}" if precision == "fp16" else "")


def _holes(record: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    steps = record["steps"].items()
    return [(step, found) for step, found in steps if found.get("why", NOTHING) != NOTHING]


def _short(record: dict[str, Any], step: str) -> str:
    found = record["steps"][step]
    return f"{step} {'ok' if found['ok'] else 'NO: ' + found['why'][:80]}"


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _write(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, msgspec.json.format(json.dumps(record).encode(), indent=1) + b"\n")


if __name__ == "__main__":
    main()
