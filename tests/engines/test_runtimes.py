"""The runtimes that exist, why one may not run here, and one from someone else's package."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from support import TINY

from bobrt.spec import Placement, Precision
from engines import runtimes
from engines.ort_cpu import OrtCpuRunner
from engines.runtimes import RUNTIMES, Runtime, cannot_build, cannot_run, open_runner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import Ran, Workspace

    from bobrt.artifacts import Artifact

NO_GPU = "no NVIDIA driver on this machine"


def runtime(**changes: Any) -> Runtime:
    """Return a runtime whose library is there, with what is changed."""
    plain = Runtime(
        name="plain",
        artifact="engine",
        module="json",
        extra="",
        precisions=(Precision.FP32,),
        placement=Placement.NONE,
        runner="engines.ort_cpu:OrtCpuRunner",
        tools=(),
    )
    return msgspec.structs.replace(plain, **changes)


@pytest.fixture(params=[True, False], ids=["with a GPU", "without"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A machine with a GPU, and one without."""
    monkeypatch.setattr(runtimes, "no_driver", lambda: "" if request.param else NO_GPU)
    return bool(request.param)


def test_a_runtime_runs_where_its_library_its_gpu_and_its_runner_are(gpu: bool) -> None:
    """The first thing that is missing is the reason."""
    absent = runtime(module="no_such_library", extra="fast", needs_gpu=True, runner=None)

    assert cannot_run(runtime()) == ""
    assert cannot_run(absent) == "no_such_library is not installed (pip install 'bobrt[fast]')"
    assert cannot_run(runtime(module="no_such_library")) == "no_such_library is not installed"
    assert cannot_run(runtime(needs_gpu=True)) == ("" if gpu else NO_GPU)
    assert cannot_run(runtime(runner=None)) == "this version builds plain engines and does not yet run them"


def test_an_engine_is_built_where_its_library_is_and_tensorrt_s_on_its_gpu(gpu: bool) -> None:
    """TensorRT for RTX builds anywhere, TensorRT where it runs; other files need no building."""
    tensorrt = runtime(name="tensorrt", needs_gpu=True)

    assert cannot_build(runtime(name="tensorrt-rtx", needs_gpu=True)) == ""
    assert cannot_build(tensorrt) == ("" if gpu else NO_GPU)
    assert cannot_build(runtime(module="no_such_library")) == "no_such_library is not installed"
    assert cannot_build(runtime(module="no_such_library", artifact="onnx")) == ""


def test_the_embedded_runtimes_run_here() -> None:
    """PyTorch and ONNX Runtime need nothing but their libraries."""
    assert [cannot_run(RUNTIMES.get(name)) for name in ("torch", "ort-cpu")] == ["", ""]
    assert {"torch", "ort-cpu", "tensorrt", "tensorrt-rtx"} <= set(RUNTIMES.names())


def test_only_what_can_run_can_be_opened(made: Callable[..., Artifact]) -> None:
    """A runner comes not yet entered; a runtime without one has nothing to open."""
    runner = open_runner(RUNTIMES.get("ort-cpu"), made("onnx").path, 1)

    assert isinstance(runner, OrtCpuRunner)
    assert not hasattr(runner, "_session")
    with pytest.raises(NotImplementedError):
        open_runner(RUNTIMES.get("tensorrt-rtx"), made("onnx").path, 1)


PLUGIN = """
from bobrt.spec import Placement, Precision
from engines.ort_cpu import OrtCpuRunner
from engines.runtimes import Runtime

MINE = Runtime(
    name="mylab/fast", artifact="onnx", module="onnxruntime", extra="", precisions=(Precision.FP32,),
    placement=Placement.ORT, runner="mylab_fast:FastRunner", tools=("mylab-fast",), note="ours",
)

class FastRunner(OrtCpuRunner):
    pass
"""


@pytest.fixture
def plugin(tmp_path: Path) -> dict[str, str]:
    """Install a package with a runtime, as an installer would leave it; return the environment it is in."""
    info = tmp_path / "site" / "mylab_fast-2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab-fast\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[bobrt.runtimes]\nmylab/fast = mylab_fast:MINE\n")
    (info.parent / "mylab_fast.py").write_text(PLUGIN)
    return {"PYTHONPATH": str(info.parent)}


def test_a_runtime_of_someone_else_is_listed(bobrt: Callable[..., Ran], plugin: dict[str, str]) -> None:
    """One file and one registration in another package: `bobrt list runtimes` has it beside ours."""
    done = bobrt("list", "runtimes", "--json", env=plugin)

    assert done.code == 0
    listed = {entry["name"]: entry for entry in json.loads(done.out)["runtimes"]}
    assert listed.keys() == {*RUNTIMES.names(), "mylab/fast"}
    assert listed["mylab/fast"]["here"] == "runs"
    assert (listed["mylab/fast"]["note"], listed["mylab/fast"]["precisions"]) == ("ours", "fp32")


def test_a_runtime_of_someone_else_is_benched_on_our_file(
    workspace: Workspace, plugin: dict[str, str]
) -> None:
    """Its runner answers the ONNX file that is there; asked again, nothing is redone."""
    asked = ["bench", "--plan", TINY, "--runtime", "mylab/fast", "--precision", "fp32"]

    done = workspace.bobrt(*asked, "--json", env=plugin)
    again = workspace.bobrt(*asked, env=plugin)

    assert done.code == 0, done.err
    rows = {row["cell"]["runtime"]: row for row in json.loads(done.out)["results"]}
    assert rows["mylab/fast"]["state"] == "complete", rows["mylab/fast"]["reason"]
    assert rows["mylab/fast"]["accuracy"]["n"] == 450
    assert rows["mylab/fast"]["parity"]["agreement"] >= 0.99
    assert re.search(r"mylab/fast fp32: already done", again.err)
