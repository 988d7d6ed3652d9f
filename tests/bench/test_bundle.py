"""A bundle: made where torch is, carried as a folder, benched where torch is not."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from support import BOBRT, BUNDLE, TINY, Ran, Workspace, environment

from bench import plan as plans
from bench.decide import Desk
from bobrt import data
from bobrt.catalogue import TASKS
from bobrt.data import bundle as bundles
from bobrt.data.packed import pack, unpack
from bobrt.data.resize import resize
from bobrt.errors import UsageError
from bobrt.flags import bundle_questions, file_questions
from bobrt.spec import seal_of
from engines import onnx_file, precision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


WORDS = ("backbone", "task", "runtime", "precision")


def one_record(text: str) -> dict[str, Any]:
    (record,) = json.loads(text)["results"]
    return dict(record)


def reseal(folder: Path, **changes: Any) -> None:
    """Write a bundle's record anew, with the sums of the files that are there and some keys changed."""
    record = json.loads((folder / bundles.RECORD).read_text())
    for name in record["sha256"]:
        record["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    record |= changes
    record["seal"] = seal_of(json.dumps(record))
    (folder / bundles.RECORD).write_text(json.dumps(record))


# -- what is in it --------------------------------------------------------------------------


def test_a_bundle_holds_what_it_says(
    exported: tuple[Path, dict[str, Any]], tiny_run: tuple[Workspace, Ran]
) -> None:
    """Path and contents on stdout; every other file by its sha256; the score of fp32 PyTorch; the splits."""
    folder, said = exported
    record = json.loads((folder / "bundle.json").read_text())
    assert said == {"schema": 1, "bundle": {"path": str(folder), **record}}
    assert {path.name for path in folder.iterdir()} == {"bundle.json", *record["sha256"]}
    for name, sha256 in record["sha256"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
    assert record["task"] == msgspec.to_builtins(TASKS.get("digits"))
    assert record["card"]["labels"] == TASKS.get("digits").labels
    assert record["card"]["transform"]["size"] == 32
    assert record["images"] == {"calibration.npz": 256, "validation.npz": 269, "evaluation.npz": 450}
    made = json.loads(tiny_run[0].here("report", "--json").out)["results"]
    (eager,) = [r["accuracy"] for r in made if r["cell"]["runtime"] == "torch"]
    validation = eager["extra"]["validation"]
    assert record["reference"] == {
        "metric": "top1",
        "value": eager["value"],
        "n": 450,
        "validation": validation,
    }


def test_the_images_are_those_of_the_task(exported: tuple[Path, dict[str, Any]]) -> None:
    """Two splits whole, in order; the calibration slice is the one low precision is calibrated on."""
    task, folder = TASKS.get("digits"), exported[0]
    for name in ("validation", "test"):
        want, got = data.load(task, name), data.load(task, name, str(folder))
        assert (got.ids, got.targets.tolist()) == (want.ids, want.targets.tolist())
        assert (np.stack(got.images) == np.stack(want.images)).all()
    card = bundles.read(folder).card
    slice_ = bundles.load(folder, "calibration")
    assert set(slice_.ids) <= set(data.load(task, "train").ids)
    assert (resize(slice_.images, card.transform) == precision.calibration_images(card)).all()


def test_a_bundle_made_again_is_the_same_one(
    exported: tuple[Path, dict[str, Any]], tiny_run: tuple[Workspace, Ran], bundle: Path
) -> None:
    """Byte for byte; what else the user keeps there stays, and a damaged file is whole again."""
    (bundle / "notes.txt").write_text("mine")
    (bundle / "evaluation.npz").write_bytes(b"cut")
    ran = tiny_run[0].here(*BUNDLE, "-o", bundle)
    assert (ran.code, ran.out) == (0, f"{bundle}\n"), ran.err
    kept = {path.name: path.read_bytes() for path in bundle.iterdir()}
    assert kept.pop("notes.txt") == b"mine"
    assert kept == {path.name: path.read_bytes() for path in exported[0].iterdir()}


def test_without_a_name_the_folder_is_called_after_the_cell(
    tiny_run: tuple[Workspace, Ran], tmp_path: Path
) -> None:
    """In the working directory."""
    ran = tiny_run[0].here(*BUNDLE, cwd=tmp_path)
    assert (ran.code, ran.out) == (0, "test_resnet-digits-bundle\n"), ran.err
    assert bundles.read(tmp_path / "test_resnet-digits-bundle").card.backbone.name == "test_resnet"


# -- how it is benched ----------------------------------------------------------------------


def test_a_part_of_the_evaluation_slice_can_be_asked(space: Workspace, bundle: Path) -> None:
    """`--limit`: both scores are over those images; the row is not ranked."""
    ran = space.here("bench", "--plan", TINY, bundle, "--limit", "100", "--json")
    assert ran.code == 0, ran.err
    record = one_record(ran.out)
    assert (record["limit"], record["accuracy"]["n"]) == (100, 100)
    answers = np.load(bundle / "reference.npz")["test.logits"][:100].argmax(axis=1)
    right = (answers == unpack(bundle / "evaluation.npz").targets[:100]).mean()
    assert record["accuracy"]["reference"] == pytest.approx(right)
    assert "limited" in record["caveats"]


def test_images_of_their_own_sizes_and_a_task_nobody_knows(space: Workspace, bundle: Path) -> None:
    """A user's data: the record is over the bundle's images, of whatever size and origin."""
    for name, file in (("validation", "validation.npz"), ("test", "evaluation.npz")):
        split = bundles.load(bundle, name)
        images = [np.tile(image, (1 + i % 3, 2, 1)) for i, image in enumerate(split.images)]
        (bundle / file).write_bytes(pack(split._replace(images=images)))
        assert len({image.shape for image in unpack(bundle / file).images}) == 3
        reseal(bundle)
    model = onnx_file.load(bundle / "model.onnx")
    card = onnx_file.require_card(model, bundle / "model.onnx")
    card = msgspec.structs.replace(card, task="mylab/mine")
    onnx_file.save(model, card, bundle / "model.onnx")
    task = json.loads((bundle / "bundle.json").read_text())["task"]
    task |= {"name": "mylab/mine", "data": "my-camera", "data_sha256": "0" * 64}
    reseal(bundle, card=msgspec.to_builtins(card), task=task)
    ran = space.here("bench", "--plan", TINY, bundle, "--json")
    assert ran.code == 0, ran.err
    record = one_record(ran.out)
    assert (record["cell"]["task"], record["accuracy"]["n"]) == ("mylab/mine", 450)
    # The answers of PyTorch are those to the images as they were: that they differ shows which were asked.
    assert record["parity"]["agreement"] < 1.0


def test_a_row_without_a_reference_is_done_again_with_it(space: Workspace, bundle: Path) -> None:
    """A file benched alone, then its bundle: the same cell, now with drop and parity; then it is done."""
    ran = space.here("bench", "--plan", TINY, bundle / "model.onnx", "--json")
    assert ran.code == 0, ran.err
    assert one_record(ran.out)["parity"] is None
    ran = space.here("bench", "--plan", TINY, bundle, "--json")
    assert ran.code == 0, ran.err
    assert "to do again: measured as a file, without its reference" in ran.err
    assert one_record(ran.out)["parity"]["n"] == 269
    ran = space.here("bench", "--plan", TINY, bundle, "--dry-run", "--json")
    assert [row["action"] for row in json.loads(ran.out)["plan"]] == ["done"]


def test_an_engine_is_built_of_a_bundle(
    exported: tuple[Path, dict[str, Any]], tiny_run: tuple[Workspace, Ran], workspace: Workspace
) -> None:
    """The folder is left as it is; model and engine are in the cache, and the cell is the backbone's."""
    folder, engines = exported[0], sorted((workspace.cache / "engine-tensorrt-rtx").iterdir())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(workspace.results)
    asked = ("bench", "--plan", TINY, folder, "--runtime", "tensorrt-rtx,ort-trt", "--json")
    ran = workspace.here(*asked)
    assert ran.code == 0, ran.err
    found = {record["cell"]["runtime"]: record for record in json.loads(ran.out)["results"]}
    named = json.loads(tiny_run[0].here("report", "--json").out)["results"]
    words = "test_resnet digits tensorrt-rtx fp32"
    (same,) = [r for r in named if " ".join(r["cell"][key] for key in WORDS) == words]
    for key in ("cell", "state", "reason"):
        assert found["tensorrt-rtx"][key] == same[key]
    # Of the very model of the backbone by its name: the engine that was there is the one.
    assert found["tensorrt-rtx"]["artifact"]["sha256"] == same["artifact"]["sha256"]
    assert sorted((workspace.cache / "engine-tensorrt-rtx").iterdir()) == engines
    (copy,) = workspace.cache.glob("file/*/model.onnx")
    assert copy.read_bytes() == before["model.onnx"]
    assert found["ort-trt"]["artifact"]["path"] == str(copy.relative_to(workspace.cache))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    again = json.loads(workspace.here(*asked, "--dry-run").out)["plan"]
    assert [row["action"] for row in again] == ["done", "done"]


def test_what_is_typed_twice_is_benched_once(exported: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """By another way to the same place too."""
    folder, link = exported[0], tmp_path / "link"
    link.symlink_to(folder)
    assert [q.file.path for q in bundle_questions([link, folder, link], {}) if q.file] == [
        link / "model.onnx"
    ]
    file = folder / "model.onnx"
    assert [q.file.path for q in file_questions([file, link / file.name], {}) if q.file] == [file]


def test_what_a_worker_is_told_of_a_bundle_s_engine(
    exported: tuple[Path, dict[str, Any]], workspace: Workspace
) -> None:
    """The engine is measured; answers, images, labels and task are the bundle's."""
    folder = exported[0]
    assert workspace.here("bench", "--plan", TINY, folder, "--runtime", "tensorrt-rtx").code == 0
    (question,) = bundle_questions([folder], {"runtimes": ("tensorrt-rtx",)})
    order = Desk(plans.load(str(TINY)), workspace.cache, workspace.results).order(question)
    assert order.file.endswith("engine.bin")
    assert order.reference == str(folder / "reference.npz")
    assert order.bundle == str(folder)
    assert order.validation == exported[1]["bundle"]["reference"]["validation"]
    assert order.card == bundles.read(folder).card


def test_a_folder_called_like_a_backbone_is_not_taken_for_a_bundle(space: Workspace, tmp_path: Path) -> None:
    """The name keeps its meaning; spelled as a path, it is the folder."""
    (tmp_path / "test_resnet").mkdir()
    ran = space.here("bench", "--plan", TINY, "test_resnet", "--dry-run", "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert len(json.loads(ran.out)["plan"]) == 7
    ran = space.here("bench", "--plan", TINY, "./test_resnet", "--dry-run", cwd=tmp_path)
    assert ran.code == 2
    assert ran.err.startswith("error: test_resnet is no bundle: it holds no bundle.json\n")


@pytest.mark.parametrize("said", [("--task", "digits"), ("--precision", "int8"), ("--seed", "1")])
def test_what_a_bundle_says_itself_is_not_typed(
    space: Workspace, bundle: Path, said: tuple[str, str]
) -> None:
    """Exit code 2 and the flag."""
    ran = space.here("bench", bundle, *said)
    assert ran.code == 2
    assert ran.err == f"error: {said[0]} is said by a bundle itself\n\nhint: bobrt bench {bundle}\n"


# -- what is wrong with it ------------------------------------------------------------------


def cut(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])


def cut_and_resealed(folder: Path, name: str) -> None:
    cut(folder, name)
    reseal(folder)


def saved(folder: Path, name: str, **arrays: Any) -> None:
    np.savez(folder / name, **arrays)
    reseal(folder)


def edited(folder: Path) -> None:
    path = folder / "bundle.json"
    path.write_text(path.read_text().replace('"n": 450', '"n": 449'))


def lone(folder: Path) -> None:
    with (folder / "evaluation.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    reseal(folder)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no record": (lambda f: (f / "bundle.json").unlink(), "is no bundle: it holds no bundle.json"),
    "no folder": (shutil.rmtree, "is no bundle: it holds no bundle.json"),
    "no model": (lambda f: (f / "model.onnx").unlink(), "model.onnx of the bundle is missing"),
    "no images": (lambda f: (f / "validation.npz").unlink(), "validation.npz of the bundle is missing"),
    "cut record": (lambda f: cut(f, "bundle.json"), "bundle.json is damaged: "),
    "edited record": (edited, "bundle.json was edited: it is not what its seal was put on"),
    "newer schema": (lambda f: reseal(f, schema=2), "bundle.json has schema 2 of bobrt "),
    "another key": (lambda f: reseal(f, wobble=1), "bundle.json is damaged: unknown key 'wobble'"),
    "cut model": (lambda f: cut(f, "model.onnx"), "model.onnx was cut or edited: sha256 "),
    "cut images": (lambda f: cut(f, "evaluation.npz"), "evaluation.npz was cut or edited: sha256 "),
    "unnamed file": (lambda f: reseal(f, sha256={}), "model.onnx was cut or edited: sha256 "),
    "cut before": (lambda f: cut_and_resealed(f, "evaluation.npz"), "evaluation.npz is damaged: "),
    "cut answers": (lambda f: cut_and_resealed(f, "reference.npz"), "reference.npz is damaged: "),
    "no archive": (lone, "evaluation.npz is damaged: "),
    "pickle": (
        lambda f: saved(f, "calibration.npz", ids=np.array([{}]), targets=[0], shapes=[0], pixels=[0]),
        "calibration.npz is damaged: Object arrays cannot be loaded when allow_pickle=False",
    ),
    "other arrays": (
        lambda f: saved(f, "evaluation.npz", ids=["a"]),
        "evaluation.npz is damaged: it holds no",
    ),
    "too few": (
        lambda f: saved(
            f,
            "evaluation.npz",
            ids=np.array(["a"]),
            targets=np.zeros(1, np.int64),
            shapes=np.array([[8, 8, 3]]),
            pixels=np.zeros(99, np.uint8),
        ),
        "evaluation.npz is damaged: its ids, targets, shapes and pixels do not fit each other",
    ),
    "other counts": (lambda f: reseal(f, images={"evaluation.npz": 1}), "bundle.json counts {'eval"),
    "other answers": (
        lambda f: saved(f, "reference.npz", **{"test.logits": np.zeros((450, 10), np.float32)}),
        "reference.npz does not answer each validation image once",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_bundle_is_named_in_one_line(space: Workspace, bundle: Path, kind: str) -> None:
    """Exit code 2, the file, what to do; before anything is measured."""
    damage, says = DAMAGE[kind]
    damage(bundle)
    ran = space.here("bench", "--plan", TINY, f"{bundle}/")
    assert (ran.code, ran.out) == (2, "")
    error, blank, hint = ran.err.rstrip("\n").split("\n")
    assert error.startswith("error: ")
    assert str(bundle) in error
    assert says in error
    assert (blank, hint) == (
        "",
        "hint: install a newer bobrt" if kind == "newer schema" else f"hint: {bundles.AGAIN}",
    )
    assert not space.results.exists()


def test_a_file_changed_after_the_look_is_found_out(bundle: Path) -> None:
    """Whoever reads the images checks them again: a worker is another process, minutes later."""
    (bundle / "evaluation.npz").write_bytes((bundle / "validation.npz").read_bytes())
    with pytest.raises(UsageError, match=r"evaluation\.npz was cut or edited"):
        data.load(TASKS.get("digits"), "test", str(bundle))


# -- where it is written --------------------------------------------------------------------


def test_a_folder_of_other_things_is_left_alone(tiny_run: tuple[Workspace, Ran], tmp_path: Path) -> None:
    """Exit code 2 before anything is made: a user's model.onnx or bundle.json stays."""
    for name in ("model.onnx", "bundle.json"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text('{"name": "mine"}')
        ran = tiny_run[0].here(*BUNDLE, "-o", folder)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err == (
            f"error: {folder} holds files and is no bundle: nothing is written over them\n\n"
            "hint: name a new folder with --output FOLDER\n"
        )
        assert {path.name: path.read_text() for path in folder.iterdir()} == {name: '{"name": "mine"}'}


def test_a_file_is_no_folder(tiny_run: tuple[Workspace, Ran], tmp_path: Path) -> None:
    """Exit code 2, and the file is as it was."""
    (tmp_path / "mine").write_text("mine")
    ran = tiny_run[0].here(*BUNDLE, "-o", tmp_path / "mine")
    assert ran.code == 2
    assert ran.err.startswith(f"error: {tmp_path / 'mine'} is a file, and a bundle is a folder\n")
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_full_disk_leaves_no_half_bundle(tiny_run: tuple[Workspace, Ran], tmp_path: Path) -> None:
    """Exit code 3 and no bundle.json, so no bundle; the same command goes on."""
    folder = tmp_path / "bundle"
    command = ["sh", "-c", 'ulimit -f 100; exec "$@"', "sh", BOBRT, *BUNDLE, "-o", folder]
    done = subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        env=environment(tiny_run[0].env()),
        timeout=300,
        check=False,
    )
    assert done.returncode == 3
    assert f"error: cannot write {folder / 'model.onnx'}: File too large" in done.stderr
    with pytest.raises(UsageError, match=r"is no bundle: it holds no bundle\.json"):
        bundles.read(folder)
    ran = tiny_run[0].here(*BUNDLE, "-o", folder)
    assert ran.code == 0, ran.err
    assert bundles.read(folder).images["evaluation.npz"] == 450


@pytest.mark.parametrize("asked", [("digits", "knn"), ("cub200", "published")])
def test_what_is_answered_with_other_images_is_no_bundle(
    here: Callable[..., Ran], tmp_path: Path, asked: tuple[str, str]
) -> None:
    """Neighbours and retrieval need a bank beside the model; nothing is trained or written."""
    command = ("export", "test_resnet", "--weights", "random", "--bundle", "--task", asked[0])
    ran = here(*command, "--protocol", asked[1], "-o", tmp_path / "mine", "--json")
    assert ran.code == 2
    error = json.loads(ran.out)["error"]
    assert f"{asked[0]} by {asked[1]} needs other images as well" in error["message"]
    assert not (tmp_path / "mine").exists()


def test_a_bundle_needs_a_task(here: Callable[..., Ran]) -> None:
    """A backbone as published answers nothing that could be scored."""
    ran = here("export", "convnext", "--bundle")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "error: --bundle carries a task's images, and no --task was named\n\n"
        "hint: bobrt export convnext --task digits --bundle\n"
    )


# -- a split as a file ----------------------------------------------------------------------


@pytest.mark.parametrize("shapes", [[], [(8, 8, 3)], [(5, 7, 3), (1, 1, 3), (9, 4, 3)]])
def test_a_packed_split_is_the_same_unpacked(tmp_path: Path, shapes: list[tuple[int, int, int]]) -> None:
    """Images of any sizes, ids in any script, the same bytes every time."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, shape, np.uint8) for shape in shapes]
    ids = [f"bild/ä{i}" for i in range(len(shapes))]
    split = data.Split(ids, images, np.arange(len(shapes), dtype=np.int64))
    (tmp_path / "split.npz").write_bytes(pack(split))
    got = unpack(tmp_path / "split.npz")
    assert (got.ids, got.targets.tolist()) == (split.ids, split.targets.tolist())
    assert [image.tolist() for image in got.images] == [image.tolist() for image in images]
    assert all(image.dtype == np.uint8 for image in got.images)
    assert pack(got) == pack(split)
