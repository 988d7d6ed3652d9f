"""Training: the same bits from the same command, whatever comes between."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from support import BOBRT, TINY, Workspace, environment

from bobrt.artifacts import Job
from bobrt.catalogue import TASKS
from bobrt.spec import Recipe, Transform
from bobrt.tasks import cards
from train import finetune, model
from train.place import Place

if TYPE_CHECKING:
    from collections.abc import Callable

    from bobrt.artifacts import Artifact, Target, Workshop

TWO = {"epochs": 2}


def tiny(folder: Path, **recipe: object) -> Path:
    """Write the tiny plan with another recipe."""
    text = TINY.read_text(encoding="utf-8")
    for key, value in recipe.items():
        text = re.sub(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
    path = folder / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


FEW = cards.resolved("digits@10shot")
"""A hundred training images: three steps an epoch."""
SHORT = {"recipe": {**TWO, "mixup": 0.8, "drop_path": 0.2}, "task": FEW}


def trained_by_command(space: Workspace, plan: Path) -> dict[str, Any]:
    """Train through the command line; return the manifest."""
    done = space.bobrt(*command(plan), timeout=600)
    assert done.code == 0, done.err
    manifest: dict[str, Any] = json.loads(done.out)["artifact"]
    return manifest


def command(plan: Path) -> list[str | Path]:
    return ["train", "test_resnet", "--weights", "random", "--plan", plan, "--json"]


def space(folder: Path) -> Workspace:
    return Workspace(folder / "cache", folder / "results")


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny plan with two epochs."""
    return tiny(tmp_path_factory.mktemp("plan"), **TWO)


@pytest.fixture(scope="module")
def first_run(two_epochs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The manifest of a training by command that nothing came between."""
    return trained_by_command(space(tmp_path_factory.mktemp("first")), two_epochs)


def test_the_same_command_twice_gives_the_same_checkpoint(
    tmp_path: Path, two_epochs: Path, first_run: dict[str, Any]
) -> None:
    """Two runs with nothing in common but the command end with one sha256."""
    second_run = trained_by_command(space(tmp_path), two_epochs)

    assert second_run["path"] != first_run["path"]
    assert second_run["sha256"] == first_run["sha256"]


def test_a_training_killed_with_9_goes_on_to_the_same_checkpoint(
    tmp_path: Path, two_epochs: Path, first_run: dict[str, Any]
) -> None:
    """Killed after an epoch and asked for again, it starts behind that epoch and ends with the same bits."""
    broken = space(tmp_path)
    run = subprocess.Popen(
        [str(BOBRT), *map(str, command(two_epochs))],
        env=environment(broken.env()),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not list(broken.cache.glob("checkpoint/*.partial/resume.pt")):
        assert run.poll() is None, "it ended before its first epoch was kept"
        time.sleep(0.01)
    run.kill()
    assert run.wait() == -signal.SIGKILL
    assert not list(broken.cache.glob("checkpoint/*/manifest.json"))

    again = trained_by_command(broken, two_epochs)

    assert first_run["detail"]["resumed_at"] == 0
    assert again["detail"]["resumed_at"] > 0
    assert again["sha256"] == first_run["sha256"]
    left = sorted(file.name for file in broken.cache.glob("checkpoint/*/*"))
    assert left == ["checkpoint.safetensors", "manifest.json"]


class Cut(Exception):  # noqa: N818 - not an error of the product
    """Ends a training from outside."""


def interrupt(shop: Workshop, target: Target, epoch: int) -> Path:
    """Train until an epoch is kept, and no further; return the cache."""

    def report(_phase: str, detail: str) -> None:
        if detail.startswith(f"epoch {epoch}/"):
            raise Cut

    with pytest.raises(Cut):
        shop.make(target, report)
    return shop.cache


@pytest.fixture(scope="module")
def whole(
    shop_in: Callable[[Path], Workshop],
    wanted: Callable[..., Target],
    tmp_path_factory: pytest.TempPathFactory,
) -> Artifact:
    """Two epochs, never interrupted."""
    return shop_in(tmp_path_factory.mktemp("whole")).make(wanted(**SHORT))


@pytest.fixture(scope="module")
def interrupted(
    shop_in: Callable[[Path], Workshop],
    wanted: Callable[..., Target],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A cache in which a training of two epochs was cut off after the first; nobody may write into it."""
    return interrupt(shop_in(tmp_path_factory.mktemp("interrupted")), wanted(**SHORT), epoch=1)


def test_a_training_cut_off_goes_on_where_it_was(
    shop: Workshop, wanted: Callable[..., Target], whole: Artifact, interrupted: Path
) -> None:
    """After the first of two epochs only the second is trained: same file, same loss, same validation."""
    shutil.copytree(interrupted, shop.cache)

    again = shop.make(wanted(**SHORT)).manifest

    assert again.detail == {**whole.manifest.detail, "resumed_at": 1}
    assert again.sha256 == whole.sha256


def test_a_training_cut_off_after_its_last_epoch_only_saves(
    shop: Workshop, wanted: Callable[..., Target], trained: Artifact
) -> None:
    """Nothing is trained again, and the loss of the last epoch is still known."""
    interrupt(shop, wanted(), epoch=1)

    again = shop.make(wanted()).manifest

    assert again.detail == {**trained.manifest.detail, "resumed_at": 1}
    assert again.sha256 == trained.sha256


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def set_a_trap(path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (path.with_name("sprung"),)

    path.write_bytes(pickle.dumps(Trap()))


@pytest.mark.parametrize("damage", [cut, flip_a_bit, set_a_trap])
def test_a_damaged_resume_file_starts_the_training_anew(
    shop: Workshop,
    wanted: Callable[..., Target],
    whole: Artifact,
    interrupted: Path,
    damage: Callable[[Path], None],
) -> None:
    """Not a bit of a damaged file is used, nor run: from the first epoch to the same checkpoint."""
    shutil.copytree(interrupted, shop.cache)
    (kept,) = shop.cache.glob("checkpoint/*.partial/resume.pt")
    damage(kept)

    again = shop.make(wanted(**SHORT))

    assert again.manifest.detail["resumed_at"] == 0
    assert again.sha256 == whole.sha256
    assert not (again.path.parent / "sprung").exists()


def test_another_seed_gives_another_checkpoint(
    shop: Workshop, wanted: Callable[..., Target], trained: Artifact
) -> None:
    """The seed is in the weights and in every epoch."""
    assert shop.make(wanted(seed=1)).sha256 != trained.sha256


def test_a_training_that_diverges_says_so_in_one_line(tmp_path: Path) -> None:
    """The loss and the epoch are named, the hint says what to lower, and no checkpoint is left."""
    room = space(tmp_path)

    done = room.bobrt(*command(tiny(tmp_path, lr=1e6)))

    assert done.code == 1
    assert json.loads(done.out) == {
        "schema": 1,
        "error": {
            "kind": "failed",
            "message": "training diverged: loss nan in epoch 1",
            "hint": "lower lr in the plan's recipe",
        },
    }
    assert [line for line in done.err.splitlines() if line.startswith(("error:", "Traceback"))] == [
        "error: training diverged: loss nan in epoch 1"
    ]
    assert not list(room.cache.glob("checkpoint/*/manifest.json"))


def test_a_training_cut_off_leaves_no_process_behind(net: model.Model, tmp_path: Path) -> None:
    """The one that decodes ends with it."""

    def cut_off(*_: str) -> None:
        assert multiprocessing.active_children()
        raise Cut

    how, size = Recipe(epochs=2, lr=1e-3, batch=32), Transform(size=32, interpolation="bilinear")
    with pytest.raises(Cut):
        finetune.run(
            net,
            TASKS.get("digits"),
            size,
            how,
            0,
            Job({}, None, tmp_path, cut_off),
            Place(torch.device("cpu"), bf16=False, workers=1),
        )

    assert not multiprocessing.active_children()
