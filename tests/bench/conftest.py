"""What the tests of a run share: its records by cell, plans, a plugin that misbehaves, runs to interrupt."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from onnx import TensorProto, helper
from support import BOBRT, BUNDLE, environment, install_package, write_plan

from bobrt.result import Accuracy, Artifact, CellRecord, Result
from bobrt.spec import Cell, Precision, Protocol, State
from bobrt.speed import Latency, Throughput
from bobrt.system import this_system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support import Ran, Workspace

PATIENCE_S = 240


@pytest.fixture(scope="session")
def records() -> Callable[[Workspace], dict[str, Path]]:
    """Find the record of every cell of a workspace, by its runtime and precision."""

    def find(space: Workspace) -> dict[str, Path]:
        found = {}
        for path in space.results.rglob("*.json"):
            if not path.name.endswith(".samples.json") and ".loadgen" not in str(path):
                cell = json.loads(path.read_text())["cell"]
                found[f"{cell['runtime']} {cell['precision']}"] = path
        return found

    return find


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Path]:
    """Write the tiny plan with some of its keys changed; None takes a key away."""
    return partial(write_plan, tmp_path / "plan.toml")


@pytest.fixture(scope="session")
def exported(
    tiny_run: tuple[Workspace, Ran], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The bundle of the tiny run's backbone, and what the command said of it; nobody may write into it."""
    folder = tmp_path_factory.mktemp("bundle") / "made" / "here"
    ran = tiny_run[0].here(*BUNDLE, "--output", folder, "--json")
    assert ran.code == 0, ran.err
    return folder, json.loads(ran.out)


@pytest.fixture
def bundle(exported: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy of the bundle that a test may damage."""
    return shutil.copytree(exported[0], tmp_path / "bundle")


_PLUGIN = """
import os
from bobrt.spec import Backbone, Placement, Precision
from engines.runtimes import Runtime

def runtime(name):
    return Runtime(
        name=f"mylab/{name}", artifact="onnx", module="onnxruntime", extra="", precisions=(Precision.FP32,),
        placement=Placement.ORT, runner=f"mylab_runners:{name.title()}", tools=("mylab",),
    )

aborts, hangs, grows, raises, nans, leaves, fills, sound = map(
    runtime, ["aborts", "hangs", "grows", "raises", "nans", "leaves", "fills", "sound"]
)
refused = Backbone(name="mylab/refused", timm="test_resnet", family="resnet", args={"wobble": 1})
"""

_RUNNERS = """
import os
import tempfile
import time
import numpy as np
from engines.ort_cpu import OrtCpuRunner as Sound

class Aborts(Sound):
    def infer(self, feeds):
        print("about to abort", flush=True)
        os.abort()

class Hangs(Sound):
    def infer(self, feeds):
        while "MYLAB_WELL" not in os.environ:
            time.sleep(0.05)
        return super().infer(feeds)

class Grows(Sound):
    def infer(self, feeds):
        self.kept = [np.empty(2**27) for _ in range(64)]

class Raises(Sound):
    def infer(self, feeds):
        raise ValueError("the kernel says no,\\nin two lines")

class Nans(Sound):
    def infer(self, feeds):
        return {name: value * np.nan for name, value in super().infer(feeds).items()}

class Leaves(Sound):
    def infer(self, feeds):
        os._exit(0)

class Fills(Sound):
    def infer(self, feeds):
        try:
            with tempfile.TemporaryFile() as file:
                file.write(bytes(2**20))
        except OSError as error:
            raise RuntimeError("compilation failed") from error
"""


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which a third party's package of odd runtimes and backbones is installed."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "mylab_runners.py").write_text(_RUNNERS)
    names = ["aborts", "hangs", "grows", "raises", "nans", "leaves", "fills", "sound"]
    points = ["[bobrt.runtimes]", *(f"mylab/{name} = mylab:{name}" for name in names)]
    points += ["[bobrt.backbones]", "mylab/refused = mylab:refused"]
    return {"PYTHONPATH": str(install_package(folder, "mylab", "\n".join(points) + "\n", _PLUGIN))}


class Running:
    """A run that is under way, and its talk line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []

    def until(self, words: str) -> None:
        """Read on until a line has these words."""
        while words not in (self.said or [""])[-1]:
            line = self.process.stderr.readline() if self.process.stderr else ""
            assert line, f"ended before {words!r}: {self.said}"
            self.said.append(line)

    def workers(self) -> list[int]:
        """Return the processes it has started and that live."""
        return [pid for pid, parent, state in _processes() if parent == self.process.pid and state != "Z"]

    def ended(self) -> int:
        """Read to the end and return the exit code."""
        rest = self.process.communicate()[1]
        self.said += rest.splitlines(keepends=True)
        return self.process.returncode


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Start a run and come back at once; whatever is left of it is killed at the end."""
    started: list[tuple[subprocess.Popen[str], threading.Timer]] = []

    def begin(space: Workspace, *args: str | Path, env: dict[str, str] | None = None) -> Running:
        process = subprocess.Popen(
            [str(BOBRT), *map(str, args)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(space.env(**(env or {}))),
        )
        watchdog = threading.Timer(PATIENCE_S, process.kill)
        watchdog.start()
        started.append((process, watchdog))
        return Running(process)

    yield begin
    for process, watchdog in started:
        watchdog.cancel()
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


@pytest.fixture(scope="session")
def gone() -> Callable[[list[int]], bool]:
    """Wait for processes to end; False if one still lives after a while."""

    def wait(pids: list[int]) -> bool:
        deadline = time.monotonic() + 30
        while alive := [pid for pid, _, state in _processes() if pid in pids and state != "Z"]:
            if time.monotonic() > deadline:
                return not alive
            time.sleep(0.05)
        return True

    return wait


def _processes() -> list[tuple[int, int, str]]:
    """Return process id, parent and state of everything that runs."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            found.append((int(entry.name), int(stat[1]), stat[0]))
    return found


@pytest.fixture(scope="session")
def foreign() -> Callable[..., Path]:
    """Write an ONNX classifier that bobrt did not make: brightness in, a score for each class out."""

    def write(  # noqa: PLR0913 - one argument per thing that may be odd about a file
        path: Path,
        *,
        name: str = "images",
        kind: int = TensorProto.UINT8,
        shape: tuple[str | int, ...] = ("batch", 32, 32, 3),
        output: str = "logits",
        factor: float = 1.0,
        classes: int = 10,
    ) -> Path:
        pixels = 32 * 32 * 3
        weights = [factor * ((i * 7919) % 101 - 50) for i in range(pixels * classes)]
        graph = helper.make_graph(
            [
                helper.make_node("Cast", [name], ["pixels"], to=TensorProto.FLOAT),
                helper.make_node("Flatten", ["pixels"], ["flat"], axis=1),
                helper.make_node("MatMul", ["flat", "weights"], [output]),
            ],
            "foreign",
            [helper.make_tensor_value_info(name, kind, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [shape[0], classes])],
            [helper.make_tensor("weights", TensorProto.FLOAT, (pixels, classes), weights)],
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
        return path

    return write


@pytest.fixture(scope="session")
def make_result() -> Callable[..., Result]:
    """Make a record of a cell that never ran."""

    def make(  # noqa: PLR0913 - one argument per column of the ranking
        backbone: str = "a",
        value: float = 0.9,
        p50: float = 1.0,
        *,
        half: float = 0.05,
        batch: int = 1,
        higher_is_better: bool = True,
        cell: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Result:
        asked = Cell(
            **{
                "backbone": backbone,
                "weights": "random",
                "task": "digits",
                "protocol": Protocol.FINETUNE,
                "runtime": "ort-cpu",
                "precision": Precision.FP32,
                "batch": "dynamic",
                "seed": 0,
                **(cell or {}),
            }
        )
        given = {
            "state": State.COMPLETE,
            "reason": "",
            "cell": CellRecord(
                **{name: getattr(asked, name) for name in asked.__struct_fields__}, key=asked.key
            ),
            "artifact": Artifact(kind="onnx", path="m.onnx", sha256="0" * 64, bytes=1_500_000, build_s=1.0),
            "accuracy": Accuracy(
                metric="top1",
                value=value,
                higher_is_better=higher_is_better,
                n=450,
                ci95=(value - half, value + half),
                reference=value,
                drop=0.0,
            ),
            "parity": None,
            "latency": [
                Latency(
                    scenario="latency",
                    batch=batch,
                    clock="wall",
                    p50_ms=p50,
                    p90_ms=None,
                    p99_ms=None,
                    n=100,
                    ci95_ms=(0.9 * p50, 1.1 * p50),
                    warmup_s=0.1,
                )
            ],
            "throughput": [Throughput(batch=8, images_per_s=8000 / p50, n=100, ci95=None)],
            "memory": None,
            "system": this_system(),
            "caveats": [],
            "started": "2020-01-01T00:00:00+00:00",
            "seconds": 1.0,
        }
        return Result(**{**given, **changes})

    return make


@pytest.fixture
def user_folder(tmp_path: Path) -> Path:
    """A folder with a user's own modules of our names, each of which raises when imported."""
    folder = tmp_path / "mine"
    for name in ("train.py", "engines.py", "bobrt.py", "bench/__init__.py", "tests/__init__.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"raise RuntimeError('the user has a {name}')\n")
    return folder
