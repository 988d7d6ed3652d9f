"""What is done is not redone, what is not is named with its reason, and only that is done again."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from support import TINY

from bench import plan as plans
from bobrt.spec import seal_of
from engines.stages import artifact_target, checkpoint_target

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import Workspace

    Records = Callable[[Workspace], dict[str, Path]]
    Damage = Callable[[Workspace, dict[str, Path]], Path | None]

ORT = {"ort-cpu fp32", "ort-cpu int8"}
RTX = {"tensorrt-rtx fp32", "tensorrt-rtx fp16", "tensorrt-rtx int8"}
LACKING = {"ort-cpu fp16"}
"""What needs no file: the runtime has no such precision."""
ALL = {"torch fp32"} | ORT | RTX | LACKING


def decisions(space: Workspace, plan: Path = TINY, **env: str) -> dict[str, dict[str, Any]]:
    """Return what a dry run says of each cell."""
    run = space.bobrt if env else space.here  # what an environment installs is found when a process starts
    ran = run("bench", "--plan", plan, "--dry-run", "--json", env=env)
    assert ran.code == 0, ran.err
    entries = json.loads(ran.out)["plan"]
    return {f"{entry['cell']['runtime']} {entry['cell']['precision']}": entry for entry in entries}


def edit(path: Path, *, sealed: bool = False, **changes: Any) -> Path:
    """Change keys of a record or a manifest, under its old seal or a new one; a dict changes keys inside."""
    record = json.loads(path.read_text())
    for key, value in changes.items():
        record[key] = record[key] | value if isinstance(value, dict) else value
    if sealed:
        record["seal"] = seal_of(json.dumps(record))
    path.write_text(json.dumps(record))
    return path


def resealed(name: str, **changes: Any) -> Damage:
    """Return what writes a record as another time or machine would have."""

    def apply(_: Workspace, records: dict[str, Path]) -> None:
        edit(records[name], sealed=True, **changes)

    return apply


def made(space: Workspace, stage: str, content: bytes | None = None) -> Path:
    """Return the file a stage made: the one manifest's, or the one that holds `content`."""
    files = [
        next(p for p in folder.iterdir() if p.suffix in {".onnx", ".bin", ".safetensors", ".npz"})
        for folder in (space.cache / stage).iterdir()
    ]
    (file,) = [file for file in files if content is None or file.read_bytes() == content]
    return file


def flip(path: Path) -> Path:
    """Change one byte in the middle of a file, its size kept."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def cut(path: Path) -> Path:
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def gone(path: Path) -> Path:
    """Delete a file."""
    path.unlink()
    return path


def test_after_a_whole_run_everything_is_done(workspace: Workspace) -> None:
    """Nothing is to be run and nothing to be made, the engines that cannot run here included."""
    found = decisions(workspace)
    assert set(found) == ALL
    assert {entry["action"] for entry in found.values()} == {"done"}
    assert not [entry for entry in found.values() if entry["make"]]
    assert {name for name, entry in found.items() if entry["reason"]} == LACKING


RECORDS: dict[str, tuple[Damage, set[str], str]] = {
    "edited": (
        lambda _, records: edit(records["ort-cpu fp32"], accuracy={"value": 1.0}),
        {"ort-cpu fp32"},
        "was edited",
    ),
    "truncated": (lambda _, records: cut(records["ort-cpu int8"]), {"ort-cpu int8"}, "is damaged"),
    "of a newer schema": (
        lambda _, records: edit(records["torch fp32"], sealed=True, schema=2),
        {"torch fp32"},
        "has schema 2; this bobrt reads 1",
    ),
    "deleted": (
        lambda _, records: (gone(records["ort-cpu int8"]), None)[1],
        {"ort-cpu int8"},
        "no result yet",
    ),
    "of another runtime version": (
        resealed("ort-cpu fp32", system={"tools": {"onnxruntime": "1.0"}}),
        {"ort-cpu fp32"},
        "onnxruntime was 1.0 and is ",
    ),
    "of another bobrt": (
        resealed("torch fp32", system={"bobrt": "0.0.1"}),
        {"torch fp32"},
        "bobrt was 0.0.1 and is ",
    ),
    "of other threads": (
        resealed("ort-cpu int8", system={"threads": 99}),
        {"ort-cpu int8"},
        "other windows or threads",
    ),
    "of another file": (
        resealed("ort-cpu int8", artifact={"sha256": "0" * 64}),
        {"ort-cpu int8"},
        "its int8-onnxruntime is another file now",
    ),
    "of a failure": (
        resealed("ort-cpu fp32", state="failed", reason="it crashed"),
        {"ort-cpu fp32"},
        "failed before: it crashed",
    ),
    "of a file without its reference": (
        resealed("ort-cpu fp32", accuracy={"reference": None, "drop": None}),
        {"ort-cpu fp32"},
        "without its reference",
    ),
    "of another inability": (
        resealed("tensorrt-rtx fp16", reason="no rtx wheel"),
        {"tensorrt-rtx fp16"},
        "unsupported before: no rtx wheel",
    ),
    "of a precision that was there": (
        resealed("ort-cpu fp16", state="complete", reason=""),
        {"ort-cpu fp16"},
        "ort-cpu has no fp16",
    ),
}


@pytest.mark.parametrize("kind", list(RECORDS))
def test_a_record_that_is_not_todays_is_named(workspace: Workspace, records: Records, kind: str) -> None:
    """A dry run says which cell is not done and why, with the file where one is damaged; the rest is done."""
    damage, affected, words = RECORDS[kind]
    path = damage(workspace, records(workspace))
    found = decisions(workspace)
    assert {name for name, entry in found.items() if entry["action"] != "done"} == affected
    for name in affected:
        entry = found[name]
        assert words in (entry["again"] or entry["reason"])
        assert path is None or str(path) in entry["reason"]
        assert entry["make"] == []


FILES: dict[str, tuple[Callable[[Workspace], Path], set[str], list[str], str]] = {
    "checkpoint cut": (
        lambda space: cut(made(space, "checkpoint")),
        ALL - LACKING,
        ["checkpoint"],
        "was cut or edited",
    ),
    "onnx edited": (lambda space: flip(made(space, "onnx")), ORT | RTX, ["onnx"], "was edited: sha256"),
    "fp16 deleted": (
        lambda space: gone(made(space, "fp16")),
        {"tensorrt-rtx fp16"},
        ["fp16"],
        "is missing",
    ),
    "int8 edited": (
        lambda space: flip(made(space, "int8-onnxruntime")),
        {"ort-cpu int8"},
        ["int8-onnxruntime"],
        "was edited: sha256",
    ),
    "manifest edited": (
        lambda space: edit(made(space, "int8-tensorrt").with_name("manifest.json"), seconds=0.001),
        {"tensorrt-rtx int8"},
        ["int8-tensorrt", "engine-tensorrt-rtx"],
        "was edited: it is not what its seal was put on",
    ),
    "manifest cut": (
        lambda space: cut(made(space, "int8-onnxruntime").with_name("manifest.json")),
        {"ort-cpu int8"},
        ["int8-onnxruntime"],
        "is damaged",
    ),
}


@pytest.mark.parametrize("kind", list(FILES))
def test_a_file_that_is_not_what_its_manifest_says_is_made_again(workspace: Workspace, kind: str) -> None:
    """It is named, it is to be made again, and only for the cells that come from it."""
    damage, affected, makes, words = FILES[kind]
    path = damage(workspace)
    found = decisions(workspace)
    assert {name for name, entry in found.items() if entry["make"]} == affected
    for name in affected:
        assert found[name]["make"][: len(makes)] == makes
        assert words in found[name]["again"]
        assert str(path) in found[name]["again"]


def test_answers_to_compare_with_are_made_again_only_for_who_needs_them(
    workspace: Workspace, records: Records
) -> None:
    """A damaged reference is nothing to a cell that is done; one that is to be measured has it made."""
    flip(made(workspace, "reference"))
    assert {entry["action"] for entry in decisions(workspace).values()} == {"done"}
    gone(records(workspace)["ort-cpu fp32"])
    found = decisions(workspace)
    assert {name: entry["make"] for name, entry in found.items() if entry["make"]} == {
        "ort-cpu fp32": ["reference"]
    }


def test_other_windows_are_other_measurements(workspace: Workspace, plan: Callable[..., Path]) -> None:
    """Everything that was timed is timed again, nothing is made, and what cannot run here stays done."""
    path = plan(timing={"warmup_s": 0.1, "min_s": 0.2, "min_n": 20, "throughput_batches": [8]})
    found = decisions(workspace, path)
    assert {name for name, entry in found.items() if entry["action"] == "run"} == {"torch fp32"} | ORT
    assert {found[name]["reason"] for name in ALL - LACKING} == {"", "timed for other windows or threads"}
    assert {found[name]["action"] for name in RTX | LACKING} == {"done"}
    assert not [entry for entry in found.values() if entry["make"]]


def test_another_recipe_is_another_checkpoint(workspace: Workspace, plan: Callable[..., Path]) -> None:
    """With another learning rate everything is to be made and run."""
    found = decisions(workspace, plan(finetune={"epochs": 1, "lr": 1e-3, "batch": 32}))
    assert {name for name, entry in found.items() if not entry["make"]} == LACKING
    assert all(entry["make"][0] == "checkpoint" for name, entry in found.items() if name not in LACKING)
    assert {found[name]["reason"] for name in ALL - RTX - LACKING} == {"no checkpoint yet"}


def test_another_drop_is_another_int8_file(workspace: Workspace) -> None:
    """`--max-drop` replaces the plan's and is an option of what makes int8; nothing else depends on it."""
    asked = ("bench", "--plan", TINY, "--dry-run", "--json", "--max-drop")
    plan = {drop: json.loads(workspace.here(*asked, drop).out)["plan"] for drop in ("100", "2.5")}
    assert {entry["action"] for entry in plan["100"]} == {"done"}
    changed = {f"{e['cell']['runtime']} int8": e["make"] for e in plan["2.5"] if e["action"] != "done"}
    assert changed == {
        "ort-cpu int8": ["int8-onnxruntime"],
        "tensorrt-rtx int8": ["int8-tensorrt", "engine-tensorrt-rtx"],
    }
    assert len([entry for entry in plan["2.5"] if entry["action"] == "done"]) == len(ALL) - 2


@pytest.mark.parametrize(
    ("runtime", "precision", "told"),
    [
        ("ort-cpu", "int8", [2.5]),
        ("tensorrt-rtx", "int8", [2.5]),
        ("tensorrt-rtx", "fp8", [2.5]),
        ("tensorrt-rtx", "fp16", []),
        ("ort-cpu", "fp32", []),
    ],
)
def test_a_drop_reaches_the_stage_that_holds_it(runtime: str, precision: str, told: list[float]) -> None:
    """What eight bits may lose is an option of the stage that sets them, and of no other."""
    chosen = plans.load(str(TINY), {"runtimes": (runtime,), "precisions": (precision,)}, max_drop=2.5)
    cell = plans.questions(chosen)[-1].cell
    target = artifact_target(cell, checkpoint_target(cell, chosen.finetune, None), chosen.max_drop)
    assert [step.options["max_drop"] for step in target.chain() if "max_drop" in step.options] == told


def test_limits_of_a_plan_change_no_question(workspace: Workspace, plan: Callable[..., Path]) -> None:
    """How long a cell may take is not part of what was measured."""
    found = decisions(workspace, plan(limits={"cell_s": 5, "make_s": 50, "memory_gb": 64}))
    assert {entry["action"] for entry in found.values()} == {"done"}


def test_a_limited_run_is_another_question(workspace: Workspace) -> None:
    """`--limit` finds nothing done, and takes nobody's place."""
    ran = workspace.here("bench", "--plan", TINY, "--runtime", "ort-cpu", "--limit", "10", "--dry-run")
    assert ran.code == 0
    assert ran.out.splitlines()[-1] == "3 run · 1 unsupported"


@pytest.mark.parametrize(
    ("stage", "damage"),
    [("int8-onnxruntime", flip), ("int8-onnxruntime", cut)],
    ids=["edited", "cut"],
)
def test_a_damaged_file_is_made_again_and_its_cell_answered_for_what_is_there(
    workspace: Workspace, records: Records, stage: str, damage: Callable[[Path], Path]
) -> None:
    """The run replaces the file, measures it if it is another one, and leaves every other cell alone."""
    path = damage(made(workspace, stage))
    before = {name: path.read_bytes() for name, path in records(workspace).items()}
    ran = workspace.here("bench", "--plan", TINY)
    assert ran.code == 0, ran.err
    after = {name: path.read_bytes() for name, path in records(workspace).items()}
    assert {name for name in ALL if before[name] != after[name]} <= {"ort-cpu int8"}
    assert ran.err.count("already done") >= len(ALL) - 1
    assert ran.err.startswith(f"to do again: {stage} {path} was ")
    record = json.loads(after["ort-cpu int8"])
    manifest = json.loads(made(workspace, stage).with_name("manifest.json").read_text())
    assert record["artifact"]["sha256"] == manifest["sha256"]
    assert {entry["action"] for entry in decisions(workspace).values()} == {"done"}


def test_damaged_records_are_answered_again_and_no_others(workspace: Workspace, records: Records) -> None:
    """Three records are damaged in three ways: three cells are answered anew, four say they are done."""
    found = records(workspace)
    before = {name: path.read_bytes() for name, path in found.items()}
    edit(found["ort-cpu fp32"], accuracy={"value": 1.0})
    cut(found["ort-cpu int8"])
    edit(found["tensorrt-rtx fp16"], sealed=True, schema=2)
    damaged = {
        "ort-cpu fp32": "was edited",
        "ort-cpu int8": "is damaged",
        "tensorrt-rtx fp16": "has schema 2",
    }
    ran = workspace.here("bench", "--plan", TINY)
    assert ran.code == 0, ran.err
    done = [line for line in ran.err.splitlines() if line.startswith("[")]
    again = [line for line in done if "already done" not in line]
    assert sorted(" ".join(line.split()[3:5]).rstrip(":") for line in again) == sorted(damaged)
    assert ran.err.count("already done") == 4
    for name, words in damaged.items():
        assert f"to do again: result {found[name]} {words}" in ran.err
    after = {name: path.read_bytes() for name, path in records(workspace).items()}
    assert {name for name in ALL if before[name] != after[name]} == set(damaged)
    for name in damaged:
        was, now = json.loads(before[name]), json.loads(after[name])
        assert now["accuracy"] == was["accuracy"]
        assert now["artifact"] == was["artifact"]
    assert {entry["action"] for entry in decisions(workspace).values()} == {"done"}


def test_a_report_names_damaged_files_and_uses_the_rest(workspace: Workspace, records: Records) -> None:
    """Two bad records cost two rows and a warning each; the ranking of the others stands."""
    found = records(workspace)
    edit(found["ort-cpu fp32"], accuracy={"value": 1.0})
    cut(found["tensorrt-rtx int8"])
    ran = workspace.here("report", "--json")
    assert ran.code == 0
    shown = {f"{r['cell']['runtime']} {r['cell']['precision']}" for r in json.loads(ran.out)["results"]}
    assert shown == ALL - {"ort-cpu fp32", "tensorrt-rtx int8"}
    warnings = [line for line in ran.err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2
    assert any(f"{found['ort-cpu fp32']} was edited" in line for line in warnings)
    assert any(f"{found['tensorrt-rtx int8']} is damaged" in line for line in warnings)


def test_a_run_names_damaged_records_of_other_plans_too(workspace: Workspace, records: Records) -> None:
    """What is not asked for is not measured again; it is named and left out of the report."""
    path = cut(records(workspace)["ort-cpu int8"])
    ran = workspace.here("bench", "--plan", TINY, "--runtime", "ort-cpu", "--precision", "fp32")
    assert ran.code == 0
    assert f"warning: result {path} is damaged" in ran.err
    assert "| int8 |" not in (workspace.results / "report.md").read_text().partition("## Not ranked")[0]


def test_a_tool_of_a_third_partys_runtime_decides_too(
    workspace: Workspace, plan: Callable[..., Path], plugin: dict[str, str], tmp_path: Path
) -> None:
    """A runtime from a plugin is measured once, and again when its own distribution has another version."""
    path = plan(runtimes=["mylab/sound"], precisions=["fp32"], reference=False)
    ran = workspace.bobrt("bench", "--plan", path, env=plugin)
    assert ran.code == 0, ran.err
    assert decisions(workspace, path, **plugin)["mylab/sound fp32"]["action"] == "done"
    newer = tmp_path / "newer"
    shutil.copytree(plugin["PYTHONPATH"], newer)
    metadata = newer / "mylab-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 1.0", "Version: 2.0"))
    entry = decisions(workspace, path, PYTHONPATH=str(newer))["mylab/sound fp32"]
    assert (entry["action"], entry["reason"]) == ("run", "mylab was 1.0 and is 2.0")
