"""Bad input and bad luck: one clear line, a hint, the right exit code, nothing lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import quantize_dynamic
from support import BOBRT, TINY, Ran, Workspace, environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Records = Callable[[Workspace], dict[str, Path]]
    Plan = Callable[..., Path]
    TinyRun = tuple[Workspace, Ran]


def one_line(ran: Ran) -> str:
    """Return the error of a run that said nothing but one line and perhaps a hint."""
    assert ran.out == ""
    lines = ran.err.rstrip("\n").split("\n")
    assert lines[0].startswith("error: ")
    assert lines[1:] == [] or (len(lines) == 3 and lines[1] == "" and lines[2].startswith("hint: ")), lines
    return ran.err


# -- words of the command line and of plans -------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words", "hint"),
    [
        (["test_resnt"], "unknown backbone 'test_resnt'", "did you mean test_resnet"),
        (["--task", "digit"], "unknown task 'digit'", "did you mean digits"),
        (["--runtime", "ort-cup"], "unknown runtime 'ort-cup'", "did you mean ort-cpu"),
        (["--precision", "fp61"], "unknown precision 'fp61'", "did you mean fp16"),
        (["--protocol", "finetun"], "unknown protocol 'finetun'", "did you mean finetune"),
        (["--weights", "randm"], "weights 'randm' are no file", "did you mean random"),
        (["--precision", ","], "--precision is empty", "bobrt bench --help"),
        (["--batch", "0"], "--batch 0", "a number from 1, or dynamic"),
        (["--batch", "two"], "--batch 'two'", "a number from 1, or dynamic"),
        (["--batch", "1.5"], "--batch '1.5'", "a number from 1, or dynamic"),
        (["--seed", "-1"], "--seed -1", "a whole number from 0"),
        (["--seed", "one"], "--seed 'one'", "a whole number"),
        (["--scenario", "servr"], "unknown scenario 'servr'", "did you mean server"),
        (["--scenario", " "], "--scenario is empty", "bobrt bench --help"),
        (["--limit", "0"], "'--limit'", "bobrt bench --help"),
        (["--limit", "many"], "'--limit'", "bobrt bench --help"),
        (["--format", "jsn"], "'jsn'", "did you mean json"),
    ],
)
def test_a_wrong_word_is_named_with_its_neighbours(
    here: Callable[..., Ran], tmp_path: Path, flags: list[str], words: str, hint: str
) -> None:
    """Exit code 2, the word as it was written, what was probably meant; nothing is written."""
    ran = here("bench", "--plan", TINY, *flags)
    assert ran.code == 2
    text = one_line(ran)
    assert words in text.partition("hint: ")[0]
    assert hint in text.partition("hint: ")[2]
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_plan_ends_the_command_with_its_place(here: Callable[..., Ran], tmp_path: Path) -> None:
    """Exit code 2 and file, line and key; as JSON too where JSON was asked for."""
    path = tmp_path / "mine.toml"
    path.write_text(TINY.read_text().replace("precisions =", "precision ="))
    ran = here("bench", "--plan", path)
    assert ran.code == 2
    assert one_line(ran) == (
        f"error: plan {path}, line 7: unknown key 'precision'\n\nhint: did you mean precisions or recipe?\n"
    )
    ran = here("bench", "--plan", path, "--json")
    assert ran.code == 2
    error = json.loads(ran.out)["error"]
    assert error["kind"] == "usage"
    assert error["message"] == f"plan {path}, line 7: unknown key 'precision'"


@pytest.mark.parametrize(
    ("name", "words"),
    [("none.toml", "does not exist"), ("", "cannot be read"), ("cut.toml", "is not TOML")],
    ids=["missing", "a folder", "cut off"],
)
def test_a_plan_that_cannot_be_read_ends_the_command(
    here: Callable[..., Ran], tmp_path: Path, name: str, words: str
) -> None:
    """Exit code 2 and the path of what was given as a plan."""
    (tmp_path / "cut.toml").write_text(TINY.read_text().partition("]")[0])
    ran = here("bench", "--plan", tmp_path / name)
    assert ran.code == 2
    assert f"plan {tmp_path / name} {words}" in one_line(ran)


def test_an_empty_folder_has_nothing_to_report(here: Callable[..., Ran], tmp_path: Path) -> None:
    """Exit code 4, the folder, and the command that would fill it."""
    ran = here("report")
    assert ran.code == 4
    assert one_line(ran) == f"error: no results in {tmp_path / 'results'}\n\nhint: bobrt bench\n"


# -- folders that cannot be written ---------------------------------------------------------


@pytest.mark.parametrize("variable", ["BOBRT_RESULTS", "BOBRT_CACHE"])
def test_a_folder_below_a_file_cannot_be_written(space: Workspace, tmp_path: Path, variable: str) -> None:
    """No privilege makes a folder inside a regular file: exit code 3, the path, what to do, no traceback."""
    (tmp_path / "file").write_text("mine")
    ran = space.here("bench", "--plan", TINY, env={variable: str(tmp_path / "file" / "below")})
    assert ran.code == 3
    text = one_line(ran)
    assert str(tmp_path / "file" / "below") in text
    assert "BOBRT_CACHE" in text
    assert (tmp_path / "file").read_text() == "mine"


def on_a_full_disk(space: Workspace, *args: str | Path, blocks: int, **env: str) -> Ran:
    """Run where no file may grow beyond so many half kilobytes: it holds for root, as a full disk does."""
    command = ["sh", "-c", f'ulimit -f {blocks}; exec "$@"', "sh", str(BOBRT), *map(str, args)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(space.env(**env)), timeout=300, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def contents(folder: Path) -> dict[Path, bytes]:
    """Return every file of a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("blocks", "missing", "words"),
    [
        (0, "ort-cpu fp32", "cannot write {results}/.bobrt-"),
        (2, "torch fp32", ".json: File too large"),
        (2, None, "cannot write {results}/report.md: File too large"),
    ],
    ids=["nothing fits", "no record fits", "no report fits"],
)
def test_a_full_disk_loses_nothing(
    workspace: Workspace, records: Records, blocks: int, missing: str | None, words: str
) -> None:
    """Exit code 3 and the file that did not fit; every record that was there is there, byte for byte."""
    if missing:
        records(workspace)[missing].unlink()
    before = contents(workspace.results)
    ran = on_a_full_disk(workspace, "bench", "--plan", TINY, blocks=blocks)
    assert ran.code == 3
    (error,) = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert words.format(results=workspace.results) in error
    assert "hint: free some space" in ran.err
    assert "Traceback" not in ran.err
    after = contents(workspace.results)
    assert before.items() <= after.items()
    assert {path.suffix for path in after.keys() - before.keys()} <= {".log"}
    assert workspace.here("bench", "--plan", TINY).code == 0


@pytest.mark.parametrize("measured", [True, False], ids=["measured before", "never measured"])
def test_a_full_cache_stops_the_cells_that_need_it(
    workspace: Workspace, records: Records, measured: bool
) -> None:
    """A file that cannot be made for want of space is said so in one line; what was measured stands."""
    shutil.rmtree(workspace.cache / "int8-onnxruntime")
    record = records(workspace)["ort-cpu int8"]
    if not measured:
        record.unlink()
    before = contents(workspace.results)
    ran = on_a_full_disk(workspace, "bench", "--plan", TINY, blocks=64)
    assert ran.code == 1
    why = "making its int8-onnxruntime: cannot write the int8-onnxruntime into "
    (line,) = [
        line for line in ran.err.splitlines() if "test_resnet digits ort-cpu int8: " in line and why in line
    ]
    assert "File too large" in line
    assert ran.err.count("already done") == 6
    after = contents(workspace.results)
    assert {p for p, content in after.items() if before.get(p) != content} == {
        record,
        record.with_suffix(".log"),
        workspace.results / "report.md",
    }
    result = json.loads(record.read_text())
    if measured:
        was = json.loads(before[record])
        assert result["state"] == "complete"
        assert why in result["notes"][-1]
        assert result["caveats"] == sorted([*was["caveats"], "not-renewed"])
        assert result | {key: was[key] for key in ("caveats", "notes", "log", "seal")} == was
    else:
        assert (result["state"], result["reason"].startswith(why)) == ("failed", True)


@pytest.mark.parametrize(
    ("runtime", "words"),
    [
        ("ort-cpu", "ONNX Runtime's profile of a run was cut short in {tmp}"),
        ("mylab/fills", "cannot write {tmp}: File too large"),
    ],
)
def test_a_full_temporary_folder_ends_the_run_and_takes_no_record_away(
    workspace: Workspace, plan: Plan, plugin: dict[str, str], runtime: str, words: str
) -> None:
    """A library that finds no room says it in its own words, or cuts its file without any."""
    before = contents(workspace.results)
    path = plan(runtimes=[runtime], precisions=["fp32"], reference=False)
    ran = on_a_full_disk(workspace, "bench", "--plan", path, "--rerun", blocks=2, **plugin)
    assert ran.code == 3
    assert "error: " + words.format(tmp=tempfile.gettempdir()) in ran.err
    assert "set TMPDIR to a folder of another disk" in ran.err
    after = contents(workspace.results)
    assert {path.suffix for path in after if after[path] != before.get(path)} <= {".log"}


# -- cells that end badly -------------------------------------------------------------------

BAD = {
    "aborts": "its process crashed (SIGABRT), while opening",
    "hangs": "gave up after its time limit of 6 s, while opening",
    "grows": "out of memory (limit 2 GB)",
    "raises": "ValueError: the kernel says no, in two lines",
    "nans": "the engine answers NaN or infinity in features, logits (choose another precision)",
    "leaves": "its process ended with exit code 0, while opening",
}


@pytest.fixture(scope="module")
def bad_run(
    tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory, plugin: dict[str, str]
) -> tuple[Workspace, Ran]:
    """One run in which six cells end badly, one backbone cannot be made, and the last cell is sound."""
    folder = tmp_path_factory.mktemp("bad")
    space = Workspace(folder / "cache", folder / "results")
    shutil.copytree(tiny_run[0].cache, space.cache)
    text = TINY.read_text().replace('["test_resnet"]', '["mylab/refused", "test_resnet"]')
    runtimes = json.dumps([*(f"mylab/{name}" for name in BAD), "ort-cpu"])
    text = text.replace('["ort-cpu", "tensorrt-rtx"]', runtimes).replace(
        '["fp32", "fp16", "int8"]', '["fp32"]'
    )
    path = folder / "plan.toml"
    path.write_text(f"reference = false\n{text}[limits]\ncell_s = 6\nmemory_gb = 2.0\n")
    return space, space.bobrt("bench", "--plan", path, env=plugin)


def by_runtime(space: Workspace, backbone: str) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Return each record of a backbone, by its runtime."""
    found = {}
    for path in space.results.rglob("*.json"):
        if not path.name.endswith(".samples.json"):
            record = json.loads(path.read_text())
            if record["cell"]["backbone"] == backbone:
                found[record["cell"]["runtime"]] = (path, record)
    return found


@pytest.mark.parametrize("name", list(BAD))
def test_a_cell_that_ends_badly_is_recorded_with_its_log(bad_run: TinyRun, name: str) -> None:
    """However it ended: `failed`, the reason in one line, the file it was, the log beside the record."""
    space, ran = bad_run
    path, record = by_runtime(space, "test_resnet")[f"mylab/{name}"]
    assert (record["state"], record["reason"]) == ("failed", BAD[name])
    assert record["log"] == path.with_suffix(".log").name
    assert path.with_suffix(".log").is_file()
    assert record["accuracy"] is None
    assert record["latency"] == []
    assert record["artifact"]["kind"] == "onnx"
    assert f"digits mylab/{name} fp32: failed: {BAD[name]}\n" in ran.err


def test_logs_hold_what_the_process_printed(bad_run: TinyRun) -> None:
    """A traceback, a library's last words: in the log, and not on the terminal."""
    space, ran = bad_run
    found = by_runtime(space, "test_resnet")
    assert "about to abort" in found["mylab/aborts"][0].with_suffix(".log").read_text()
    assert (
        "ValueError: the kernel says no,\nin two lines"
        in found["mylab/raises"][0].with_suffix(".log").read_text()
    )
    assert "about to abort" not in ran.out + ran.err
    assert "Traceback" not in ran.out + ran.err


def test_other_cells_go_on_and_the_run_ends_with_one(bad_run: TinyRun) -> None:
    """After six failures the last cell is measured and ranked; the exit code says that some failed."""
    space, ran = bad_run
    assert ran.code == 1
    assert by_runtime(space, "test_resnet")["ort-cpu"][1]["state"] == "complete"
    assert re.search(r"^ *1 +\* +test_resnet +ort-cpu +fp32", ran.out, re.MULTILINE)
    assert "Of 1 verified engines" in ran.out
    assert (space.results / "report.md").is_file()


def test_a_stage_that_fails_fails_its_own_backbone_alone(bad_run: TinyRun) -> None:
    """timm refuses one backbone's arguments: all its cells carry that reason, the other backbone's none."""
    space, ran = bad_run
    refused = by_runtime(space, "mylab/refused")
    assert len(refused) == len(BAD) + 1
    for path, record in refused.values():
        assert record["state"] == "failed"
        assert record["reason"].startswith(
            "making its checkpoint: timm cannot build mylab/refused at 32 px: "
        )
        assert "'wobble'" in record["reason"]
        assert record["artifact"] is None
        assert path.with_suffix(".log").is_file()
    assert ran.err.count("making mylab/refused: checkpoint failed: timm cannot build") == 1
    assert not any(
        "making its" in record["reason"] for _, record in by_runtime(space, "test_resnet").values()
    )


def test_a_real_cell_without_memory_fails_alone(workspace: Workspace, records: Records, plan: Plan) -> None:
    """Under a limit in which the library cannot even start, the cell is `failed`; what is done stays done."""
    found = records(workspace)
    found["torch fp32"].unlink()
    ran = workspace.here("bench", "--plan", plan(limits={"memory_gb": 0.2, "cell_s": 8}))
    assert ran.code == 1
    assert ran.err.count("already done") == 6
    record = json.loads(found["torch fp32"].read_text())
    assert record["state"] == "failed"
    assert record["reason"]
    assert "\n" not in record["reason"]
    assert found["torch fp32"].with_suffix(".log").is_file()
    ran = workspace.here("bench", "--plan", TINY, "--dry-run", "--json")
    again = [entry["again"] for entry in json.loads(ran.out)["plan"] if entry["action"] == "run"]
    assert again == [f"failed before: {record['reason']}"]


# -- ONNX files from elsewhere --------------------------------------------------------------


def exported(run: TinyRun) -> Path:
    """Return the fp32 file that the tiny run exported."""
    (file,) = (run[0].cache / "onnx").glob("*/model.onnx")
    return file


def test_our_own_file_is_benched_where_nothing_else_is_known(
    tiny_run: TinyRun, records: Records, space: Workspace, tmp_path: Path
) -> None:
    """The file says what it is: it has its accuracy, and a caveat for the reference that is not there."""
    shutil.copyfile(exported(tiny_run), tmp_path / "mine.onnx")
    ran = space.here("bench", "--plan", TINY, tmp_path / "mine.onnx")
    assert ran.code == 0, ran.err
    record = json.loads(records(space)["ort-cpu fp32"].read_text())
    known = json.loads(records(tiny_run[0])["ort-cpu fp32"].read_text())
    assert record["cell"] == known["cell"]
    assert record["artifact"]["sha256"] == known["artifact"]["sha256"]
    assert record["accuracy"]["value"] == known["accuracy"]["value"]
    assert record["accuracy"]["reference"] is None
    assert record["parity"] is None
    assert "no-reference" in record["caveats"]
    assert "Of 1 verified engines for digits, test_resnet fp32" in ran.out
    assert (
        "[1/1] test_resnet digits ort-cpu fp32: already done"
        in space.here("bench", "--plan", TINY, tmp_path / "mine.onnx").err
    )


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("cut", "is damaged or truncated"),
        ("garbage", "is damaged or truncated"),
        ("empty", "is damaged or truncated: it holds no graph"),
        ("a folder", "is damaged or truncated"),
        ("missing", "does not exist"),
    ],
)
def test_a_file_that_is_not_whole_is_named(
    tiny_run: TinyRun, here: Callable[..., Ran], tmp_path: Path, kind: str, words: str
) -> None:
    """Exit code 2 and the path, before anything is measured."""
    path = tmp_path / "odd.onnx"
    whole = exported(tiny_run).read_bytes()
    if kind == "a folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes({"cut": whole[: len(whole) // 2], "garbage": b"\x08" * 999, "empty": b""}[kind])
    ran = here("bench", path)
    assert ran.code == 2
    assert f"error: ONNX file {path} {words}" in one_line(ran)
    assert not (tmp_path / "results").exists()


def test_a_file_with_an_unknown_node_is_recorded_as_failed(
    tiny_run: TinyRun, here: Callable[..., Ran], tmp_path: Path
) -> None:
    """Exit code 1, and one line with the file and the node type that ONNX Runtime does not have."""
    model = onnx.load(exported(tiny_run))
    model.graph.node.append(helper.make_node("Wobble", ["logits"], ["wobbled"], domain="my.lab"))
    model.graph.output.append(helper.make_tensor_value_info("wobbled", TensorProto.FLOAT, None))
    model.opset_import.append(helper.make_opsetid("my.lab", 1))
    onnx.save(model, tmp_path / "odd.onnx")
    ran = here("bench", "--plan", TINY, tmp_path / "odd.onnx", env={"BOBRT_NO_PROGRESS": "1"})
    assert ran.code == 1
    assert ran.err.startswith(
        f"[1/1] test_resnet digits ort-cpu fp32: failed: ONNX Runtime cannot take {tmp_path}/odd.onnx: "
    )
    assert "my.lab:Wobble" in ran.err
    assert len(ran.err.splitlines()) == 1
    assert "Traceback" not in ran.err


def test_a_file_with_another_input_is_recorded_as_failed(
    here: Callable[..., Ran], tmp_path: Path, foreign: Callable[..., Path]
) -> None:
    """Exit code 1, and one line with the input the file has and the one it should have."""
    path = foreign(tmp_path / "nchw.onnx", name="x", kind=TensorProto.FLOAT, shape=("batch", 3, 32, 32))
    ran = here("bench", "--plan", TINY, path, env={"BOBRT_NO_PROGRESS": "1"})
    assert ran.code == 1
    assert ran.err == (
        f"[1/1] nchw ort-cpu fp32: failed: {path} takes x float32 [?, 3, 32, 32]; "
        "a bobrt engine takes images uint8 [batch, side, side, 3] "
        "(export it with: bobrt export NAME --weights PATH)\n"
    )


def test_a_foreign_file_is_ranked_only_once_its_accuracy_is_known(
    here: Callable[..., Ran], tmp_path: Path, foreign: Callable[..., Path]
) -> None:
    """Without a task it has a speed and is unverified; with `--task digits` it is scored and ranked."""
    path = foreign(tmp_path / "theirs.onnx")
    ran = here("bench", "--plan", TINY, path)
    assert ran.code == 0
    assert "unverified: its accuracy was not measured" in ran.out
    assert "rank " not in ran.out
    ran = here("bench", "--plan", TINY, path, "--task", "digits")
    assert ran.code == 0
    assert "unverified" not in ran.out
    assert "Of 1 verified engines for digits by published, theirs fp32 on ort-cpu" in ran.out
    shown = json.loads(here("report", "--json").out)["results"]
    assert {record["cell"]["task"]: record["accuracy"] is None for record in shown} == {
        "": True,
        "digits": False,
    }


def test_a_file_that_was_quantised_elsewhere_is_what_it_computes_in(
    here: Callable[..., Ran], tmp_path: Path, foreign: Callable[..., Path]
) -> None:
    """Dynamically, as ONNX Runtime's own tool does first: its products are of bytes, without Q/DQ."""
    quantize_dynamic(foreign(tmp_path / "floats.onnx"), tmp_path / "theirs.ONNX")

    ran = here("bench", "--plan", TINY, tmp_path / "theirs.ONNX", "--task", "digits")

    assert ran.code == 0, ran.err
    assert "Of 1 verified engines for digits by published, theirs int8 on ort-cpu" in ran.out
    (record,) = json.loads(here("report", "--json").out)["results"]
    assert record["artifact"]["precision_share"] == record["artifact"]["realised_share"] == 1.0


@pytest.mark.parametrize("classes", [7, 1000])
def test_a_file_for_other_classes_is_not_scored(
    here: Callable[..., Ran], tmp_path: Path, foreign: Callable[..., Path], classes: int
) -> None:
    """Its largest logit would name a class of another task, and be right now and then."""
    path = foreign(tmp_path / "theirs.onnx", classes=classes)
    ran = here("bench", "--plan", TINY, path, "--task", "digits", env={"BOBRT_NO_PROGRESS": "1"})
    assert ran.code == 1
    assert ran.err == (
        f"[1/1] theirs digits ort-cpu fp32: failed: {path} answers logits float32 [n, {classes}]; "
        "task digits has 10 classes (name the task it was trained for: bobrt list tasks)\n"
    )


@pytest.mark.parametrize(
    ("stage", "runtime", "words"),
    [
        (
            "fp16",
            "ort-cpu",
            "ort-cpu has no fp16: it takes fp32, int8; its CPU kernels compute 16-bit floats in",
        ),
        (
            "int8-tensorrt",
            "ort-cuda",
            "ort-cuda has no int8: it takes fp32, tf32, fp16, bf16; its CUDA kernels",
        ),
        ("int8-onnxruntime", "tensorrt-rtx", "the file's Q/DQ are placed for ONNX Runtime's CPU kernels"),
        ("int8-onnxruntime", "ort-trt", "and ort-trt takes TensorRT's placement"),
    ],
)
def test_a_file_at_a_precision_the_runtime_has_not(
    workspace: Workspace, stage: str, runtime: str, words: str
) -> None:
    """Not measured as what it is not: `unsupported`, with the reason, and nothing is built of it."""
    (file,) = workspace.cache.glob(f"{stage}/*/model.onnx")
    shutil.rmtree(workspace.results)
    ran = workspace.here("bench", "--plan", TINY, file, "--runtime", runtime, "--json")
    assert ran.code == 0, ran.err
    (record,) = json.loads(ran.out)["results"]
    assert record["state"] == "unsupported"
    assert words in record["reason"]
    assert not (workspace.cache / "file").exists()


def test_two_files_of_one_cell_are_not_benched_together(
    tiny_run: TinyRun, here: Callable[..., Ran], tmp_path: Path
) -> None:
    """One record would be written over the other."""
    paths = [tmp_path / "one.onnx", tmp_path / "two.onnx"]
    for path in paths:
        shutil.copyfile(exported(tiny_run), path)
    ran = here("bench", "--plan", TINY, *paths)
    assert ran.code == 2
    assert one_line(ran).startswith(
        f"error: {paths[0]} and {paths[1]} answer one cell: test_resnet digits ort-cpu fp32\n"
    )
    assert "--results FOLDER" in ran.err


@pytest.mark.parametrize("words", [["bench", "{}.onnx"], ["report", "--results", "{}"], ["list", "{}"]])
def test_a_name_that_is_not_utf_8_is_shown_as_its_bytes(here: Callable[..., Ran], words: list[str]) -> None:
    """No record could hold it; the line says which word it is."""
    name = os.fsdecode(b"caf\xe9")
    ran = here(*[word.format(name) for word in words])
    assert ran.code == 2
    assert one_line(ran).startswith("error: caf\\xe9")
    assert " is not UTF-8\n" in ran.err


def test_a_runtime_that_opens_no_onnx_file_says_so(tmp_path: Path, workspace: Workspace) -> None:
    """An ONNX file with a runtime for checkpoints is a usage error that names what it opens."""
    model = tmp_path / "model.onnx"
    shutil.copyfile(next(workspace.cache.glob("onnx/*/model.onnx")), model)

    ran = workspace.here("bench", model, "--runtime", "torch")

    assert ran.code == 2
    assert "error: runtime torch opens no ONNX file but checkpoints of its own" in ran.err
    assert f"hint: bobrt bench {model}" in ran.err
