"""The runtimes that exist, why one may not run here, and one from someone else's package."""

from __future__ import annotations

import json
import re
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from support import TINY, install_package

from bobrt.spec import Placement, Precision
from engines import libraries, runtimes
from engines.ort_cpu import OrtCpuRunner
from engines.runtimes import (
    RUNTIMES,
    Runtime,
    beyond,
    cannot_build,
    cannot_run,
    no_gpu_for_torch,
    on_gpu,
    open_runner,
    wants_gpu,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from support import Ran, Workspace

ROOT = Path(__file__).resolve().parents[2]
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
    assert cannot_run(runtime(lacks=lambda: "something else")) == "something else"
    assert (
        cannot_run(runtime(runs_with=("json", "no_such"))) == "no_such is not installed (pip install no_such)"
    )
    assert cannot_run(runtime(runs_with=("no_such", "not.this"))) == (
        "no_such and not-this are not installed (pip install no_such not-this)"
    )


def test_an_engine_is_built_where_its_library_is_and_tensorrt_s_on_its_gpu(gpu: bool) -> None:
    """TensorRT for RTX builds anywhere, TensorRT where it runs; other files need no building."""
    tensorrt = runtime(name="tensorrt", needs_gpu=True)

    assert cannot_build(runtime(name="tensorrt-rtx", needs_gpu=True)) == ""
    assert cannot_build(tensorrt) == ("" if gpu else NO_GPU)
    assert cannot_build(runtime(module="no_such_library")) == "no_such_library is not installed"
    assert cannot_build(runtime(module="no_such_library", artifact="onnx")) == ""


def test_tensorrt_for_rtx_has_no_use_for_a_server_s_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither builds for a Hopper nor runs there; a GPU that says nothing may be one of its own."""
    said = []
    for here in ((9, 0), (8, 9), None):
        monkeypatch.setattr(runtimes, "compute_capability", lambda here=here: here)
        said.append(cannot_build(RUNTIMES.get("tensorrt-rtx")))

    assert said == ["TensorRT for RTX does not run on a GPU of compute capability 9.0", "", ""]


def test_the_embedded_runtimes_run_here() -> None:
    """PyTorch and ONNX Runtime need nothing but their libraries, torch.compile a compiler too."""
    assert [cannot_run(RUNTIMES.get(name)) for name in ("torch", "torch-compile", "ort-cpu")] == [""] * 3


def test_every_runner_of_the_table_is_where_it_says() -> None:
    """A name that is mistyped would be found out only where the runtime runs."""
    for entry in RUNTIMES.all().values():
        assert entry.runner is not None
        module, _, name = entry.runner.partition(":")
        source = Path(*module.split(".")).with_suffix(".py")
        assert f"\nclass {name}" in (ROOT / source).read_text(encoding="utf-8")


def test_a_runner_is_given_what_the_cell_asks_for_and_is_not_yet_entered(tmp_path: Path) -> None:
    """Path, threads, precision and batch; a file that says the last two itself leaves them out."""
    path = tmp_path / "it.onnx"
    mine = runtime(runner=f"{__name__}:Told")

    assert open_runner(mine, path, 2, Precision.TF32, 8).told == (path, 2, Precision.TF32, 8)  # type: ignore[attr-defined]
    assert open_runner(mine, path, 2).told == (path, 2, Precision.FP32, "dynamic")  # type: ignore[attr-defined]
    assert isinstance(open_runner(RUNTIMES.get("ort-cpu"), path, 1), OrtCpuRunner)
    with pytest.raises(NotImplementedError):
        open_runner(runtime(runner=None), path, 1)


class Told:
    """A runner that remembers."""

    def __init__(self, *told: object) -> None:
        self.told = told


@pytest.mark.parametrize("name", ["torch", "torch-compile"])
def test_tf32_is_of_a_gpu_and_a_gpu_s_precisions_are_of_its_generation(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, name: str
) -> None:
    """fp8 on Ampere, bf16 on Turing, TF32 on a CPU: the reason names both sides."""
    entry = msgspec.structs.replace(
        RUNTIMES.get(name), lacks=None, precisions=tuple(Precision), placement=Placement.ORT
    )
    monkeypatch.setattr(runtimes, "compute_capability", lambda: (7, 5))

    assert beyond(entry, Precision.FP16) == wants_gpu(entry, Precision.BF16) == ""
    if not gpu:
        assert wants_gpu(entry, Precision.TF32) == f"tf32 is arithmetic of a GPU: {NO_GPU}"
        assert beyond(entry, Precision.TF32) == beyond(entry, Precision.BF16) == ""
        return
    assert wants_gpu(entry, Precision.TF32) == ""
    old = "needs a GPU of compute capability {}, and this one has {}"
    assert beyond(entry, Precision.TF32) == "tf32 " + old.format("8.0", "7.5")
    assert beyond(entry, Precision.BF16) == "bf16 " + old.format("8.0", "7.5")
    monkeypatch.setattr(runtimes, "compute_capability", lambda: (8, 6))
    assert beyond(entry, Precision.FP8) == "fp8 " + old.format("8.9", "8.6")
    assert beyond(entry, Precision.TF32) == ""


def test_what_computes_on_the_gpu_is_known_without_loading_anything(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, tmp_path: Path
) -> None:
    """PyTorch does where it is built for CUDA and a GPU is to be seen; ONNX Runtime's CPU provider never."""
    cpu_only = tmp_path / "version.py"
    cpu_only.write_text("cuda: Optional[str] = None\nhip: Optional[str] = None\n")

    assert [on_gpu(RUNTIMES.get(name)) for name in ("torch", "ort-cuda", "ort-cpu")] == [gpu, True, False]
    monkeypatch.setattr(libraries, "folders_of", lambda _: [tmp_path])
    assert not on_gpu(RUNTIMES.get("torch"))
    assert no_gpu_for_torch() == ("this PyTorch is built without CUDA (pip install torch)" if gpu else NO_GPU)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert no_gpu_for_torch() == "CUDA_VISIBLE_DEVICES=-1 hides every GPU"
    assert cannot_run(RUNTIMES.get("ort-cuda")) == "CUDA_VISIBLE_DEVICES=-1 hides every GPU"
    monkeypatch.setattr(runtimes, "_importable", lambda _: True)
    assert cannot_build(RUNTIMES.get("tensorrt")) == "CUDA_VISIBLE_DEVICES=-1 hides every GPU"


@pytest.mark.parametrize(("visible", "told"), [("0", (9, 0)), ("", None), ("-1", None)])
def test_a_hidden_gpu_is_not_built_for(
    monkeypatch: pytest.MonkeyPatch, visible: str, told: tuple[int, int] | None
) -> None:
    """TensorRT for RTX builds for another one then, whatever nvidia-smi names."""
    monkeypatch.setattr(runtimes, "no_driver", lambda: "")
    monkeypatch.setattr(runtimes, "ask_gpu", lambda _: "9.0")
    monkeypatch.setattr(runtimes, "compute_capability", runtimes.compute_capability.__wrapped__)
    monkeypatch.setattr(runtimes, "_importable", lambda _: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    assert runtimes.compute_capability() == told
    assert bool(cannot_build(RUNTIMES.get("tensorrt-rtx"))) == (told is not None)


def test_torch_compile_says_which_tool_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is compiled, with the line that brings it."""
    assert cannot_run(RUNTIMES.get("torch-compile")) == ""
    monkeypatch.setattr(sysconfig, "get_path", lambda _: "/nowhere")
    assert cannot_run(RUNTIMES.get("torch-compile")) == (
        "torch.compile needs Python's headers, and there is no /nowhere/Python.h (apt install python3-dev)"
    )
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert cannot_run(RUNTIMES.get("torch-compile")) == (
        "torch.compile needs a C++ compiler, and there is no no-such-compiler here (apt install g++)"
    )


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A machine with a GPU, which has such libraries and such a TensorRT."""

    def describe(there: Callable[[str], bool], tensorrt: str | None = None) -> None:
        monkeypatch.setattr(runtimes, "no_driver", lambda: "")
        monkeypatch.setattr(libraries, "find", lambda name: Path(name) if there(name) else None)
        monkeypatch.setattr(runtimes, "version", lambda _: tensorrt)

    return describe


def test_ort_cuda_says_which_libraries_it_lacks(
    monkeypatch: pytest.MonkeyPatch, with_gpu: Callable[..., None]
) -> None:
    """The wheel has the provider; CUDA and cuDNN come with others. Or it is a wheel without it."""
    entry = RUNTIMES.get("ort-cuda")

    with_gpu(lambda _: True)
    assert cannot_run(entry) == ""
    with_gpu(lambda name: "cudnn" not in name)
    assert cannot_run(entry) == (
        "ONNX Runtime's CUDA provider needs libcudnn.so.9, found nowhere "
        "(pip install 'onnxruntime-gpu[cuda,cudnn]')"
    )
    monkeypatch.setattr(runtimes, "provider", lambda _: None)
    assert cannot_run(entry) == (
        "this build of ONNX Runtime has no CUDA provider (pip install onnxruntime-gpu)"
    )


def test_ort_trt_wants_the_tensorrt_it_was_built_for(with_gpu: Callable[..., None]) -> None:
    """Beside TensorRT 11, or none, the reason says which it needs and what is there."""
    entry = RUNTIMES.get("ort-trt")
    needs = "ONNX Runtime's TensorRT provider is built for TensorRT 10 (libnvinfer.so.10)"

    with_gpu(lambda _: True)
    assert cannot_run(entry) == ""
    with_gpu(lambda name: "nv" not in name, tensorrt="11.4.0.106")
    assert cannot_run(entry) == (
        f"{needs}, and TensorRT 11.4.0.106 is installed (pip install 'tensorrt==10.*')"
    )
    with_gpu(lambda name: "nv" not in name)
    assert cannot_run(entry) == f"{needs}, and none is installed (pip install 'tensorrt==10.*')"


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
    points = "[bobrt.runtimes]\nmylab/fast = mylab_fast:MINE\n"
    return {"PYTHONPATH": str(install_package(tmp_path / "site", "mylab-fast", points, PLUGIN, "2.0"))}


def test_a_runtime_of_someone_else_is_listed(bobrt: Callable[..., Ran], plugin: dict[str, str]) -> None:
    """One file and one registration in another package: `bobrt list runtimes` has it beside ours."""
    done = bobrt("list", "runtimes", "--json", env=plugin)

    assert done.code == 0
    listed = {entry["name"]: entry for entry in json.loads(done.out)["runtimes"]}
    assert listed.keys() == {*RUNTIMES.names(), "mylab/fast"}
    assert listed["mylab/fast"]["here"] == "runs"
    assert (listed["mylab/fast"]["note"], listed["mylab/fast"]["precisions"]) == ("ours", "fp32")


def test_a_runtime_that_takes_int8_says_by_whose_rules(tmp_path: Path, bobrt: Callable[..., Ran]) -> None:
    """A plan would ask for its files, and nobody would know which."""
    code = PLUGIN.replace("(Precision.FP32,)", "(Precision.INT8,)").replace("Placement.ORT", "Placement.NONE")
    points = "[bobrt.runtimes]\nmylab/fast = mylab_fast:MINE\n"
    site = install_package(tmp_path / "site", "mylab-fast", points, code)

    done = bobrt("list", "runtimes", env={"PYTHONPATH": str(site)})

    assert (done.code, "mylab/fast" in done.out) == (0, False)
    assert "does not load: ValueError(\"takes int8, and placement says by nobody's rules" in done.err


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
