"""Every name of TensorRT, pycuda and cuda-bindings that our source uses, proven to be in the real ones.

TensorRT's bindings of both generations are imported over libraries that define the symbols they need
and do nothing; pycuda, which needs the CUDA toolkit to be built, is read as source. Both come
from the package index once, into pytest's cache.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import shells
from library_uses import DUMP, PLAIN, Api, Entry, Reader, of_double

if TYPE_CHECKING:
    from collections.abc import Callable

    Fetch = Callable[..., Path]

ROOT = Path(__file__).parents[2]
ENGINES, DOUBLES = ROOT / "engines", ROOT / "tests"
BINDINGS = ("10.16.1.11", "11.4.0.106")
PYCUDA = "2026.1"
PYTHON = f"cp{sys.version_info.major}{sys.version_info.minor}"
RTX_ONLY = frozenset({"_aim", "_take_no_memory", "RtxRunner"})
"""What of ours is for TensorRT for RTX alone."""
PARAMETERS = {
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "builder": "Builder",
    "config": "IBuilderConfig",
    "engine": "ICudaEngine",
}
DOUBLE = {
    "EngineRuntime": "Runtime",
    "Engine": "ICudaEngine",
    "ExecutionContext": "IExecutionContext",
    "Inspector": "EngineInspector",
}
DOUBLE_RTX = {"RuntimeConfig": "IRuntimeConfig", "RuntimeCache": "IRuntimeCache"}
GIVES = {
    "Device.retain_primary_context": "Context",
    "mem_alloc": "DeviceAllocation",
    "pagelocked_empty": "",
}
"""Classes of what pycuda gives: its source does not say."""


@pytest.fixture(scope="module")
def fetch(request: pytest.FixtureRequest) -> Fetch:
    """Fetch a distribution's file once; where that cannot be, skip, or fail on a CI machine."""
    folder = request.config.cache.mkdir("distributions")

    def get(name: str, version: str, pattern: str, *options: str) -> Path:
        command = ["download", "--quiet", "--no-deps", *options, "--dest", str(folder), f"{name}=={version}"]
        if not (found := sorted(folder.glob(pattern))):
            done = subprocess.run(
                [sys.executable, "-m", "pip", *command], capture_output=True, text=True, check=False
            )
            found = sorted(folder.glob(pattern))
            if not found:
                reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                cannot(f"{name} {version} could not be fetched: {reason} (pip {' '.join(command)})")
        return found[0]

    return get


def cannot(reason: str) -> None:
    """Skip where the proof cannot be had, and never silently where it must be."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def described(module: str, **env: str) -> Api:
    """Ask a library what it has, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", DUMP, module],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=True,
    )
    told = json.loads(done.stdout)
    classes = {
        name: {member: Entry(*entry) for member, entry in members.items()}
        for name, members in told["classes"].items()
    }
    return Api({name: Entry(*entry) for name, entry in told["names"].items()}, classes, told["version"])


def over_stubs(wheel: Path, folder: Path) -> Api:
    """Import TensorRT's bindings over libraries that define what they need from TensorRT, and do nothing."""
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)  # noqa: S202 - of the very version that is pinned above
    # The C library's names carry a version or are Python's and the loader's; TensorRT's do not.
    loose = r"(?:create|get|init)\w+"
    shells.make(folder / "tensorrt_bindings" / "tensorrt.so", folder, r"libnv\w+\.so\.\d+", loose, {})
    return described("tensorrt_bindings", LD_LIBRARY_PATH=str(folder), PYTHONPATH=str(folder))


@pytest.fixture(scope="module", params=BINDINGS)
def tensorrt(request: pytest.FixtureRequest, fetch: Fetch, tmp_path_factory: pytest.TempPathFactory) -> Api:
    """What TensorRT 10 has, and what 11."""
    if missing := shells.absent_tools():
        cannot(f"{', '.join(missing)} not installed (apt install gcc binutils)")
    version = request.param
    wheel = fetch(
        "tensorrt-cu13-bindings",
        version,
        f"tensorrt_cu13_bindings-{version}-{PYTHON}-*.whl",
        "--only-binary=:all:",
    )
    api = over_stubs(wheel, tmp_path_factory.mktemp("bindings"))
    assert api.version == version
    return api


@pytest.fixture(scope="module")
def rtx() -> Api:
    """What the installed TensorRT for RTX has."""
    return described("tensorrt_rtx")


@pytest.fixture(scope="module")
def pycuda(fetch: Fetch, tmp_path_factory: pytest.TempPathFactory) -> Api:
    """What pycuda's source defines."""
    how = ("--no-binary=pycuda", "--no-build-isolation")  # only its name and version are asked of its setup
    sdist = fetch("pycuda", PYCUDA, f"pycuda-{PYCUDA}.tar.gz", *how)
    folder = tmp_path_factory.mktemp("pycuda")
    with tarfile.open(sdist) as packed:
        packed.extractall(folder, filter="data")
    return read_pycuda(folder / f"pycuda-{PYCUDA}")


def read_pycuda(folder: Path) -> Api:
    """Read the names that Boost.Python is told, and those of the module around it."""
    wrapper = (folder / "src" / "wrapper" / "wrap_cudadrv.cpp").read_text(encoding="utf-8")
    module = (folder / "pycuda" / "driver.py").read_text(encoding="utf-8")
    assert "from pycuda._driver import *" in module
    classes = {}
    for name, body in re.findall(r"py::class_<[^;]*?>\s*\w*\s*\(\s*\"(\w+)\"(.*?)\n  \}", wrapper, re.DOTALL):
        members = re.findall(
            r"(?:\.def|\.add_property|\.def_readonly)\(\s*\"(\w+)\"|DEF_SIMPLE_METHOD\((\w+)\)", body
        )
        properties = set(re.findall(r"\.add_property\(\s*\"(\w+)\"", body))
        classes[name] = {
            member: Entry("property" if member in properties else "method", GIVES.get(f"{name}.{member}", ""))
            for member in ("".join(pair) for pair in members)
        }
    functions = re.findall(
        r"py::def\(\s*\"(\w+)\"|DEF_SIMPLE_FUNCTION\((\w+)\)|^def (\w+)", wrapper + module, re.MULTILINE
    )
    names = ["".join(found) for found in functions] + re.findall(r"DECLARE_EXC\((\w+), (?!BASE)", wrapper)
    return Api({name: Entry("method", GIVES.get(name, "")) for name in (*names, *classes)}, classes, PYCUDA)


def findings(api: Api, skip: frozenset[str] = frozenset()) -> tuple[list[str], set[str]]:
    """Read every file about TensorRT; return what it lacks, and all that is used."""
    found, used = [], set()
    for path in sorted(ENGINES.glob("trt_*.py")):
        reader = Reader({"trt": api}, PARAMETERS, skip)
        found += [f"{path.name}:{finding}" for finding in reader.read(path.read_text(encoding="utf-8"))]
        used |= reader.uses
    return found, used


def test_tensorrt_10_and_11_have_every_name_we_use(tensorrt: Api) -> None:
    """Classes, functions, constants, methods, properties and keywords, in all files about TensorRT."""
    found, used = findings(tensorrt, RTX_ONLY)

    assert found == []
    assert used >= {
        "trt.Builder",
        "trt.BuilderFlag",
        "BuilderFlag.TF32",
        "Builder.build_serialized_network",
        "IBuilderConfig.set_timing_cache",
        "ITimingCache.combine",
        "INetworkDefinition.get_layer",
        "IAttention.decomposable",
        "ICudaEngine.get_tensor_profile_shape",
        "IExecutionContext.execute_async_v3",
        "EngineInspector.get_engine_information",
    }
    assert len(used) > 60


def test_tensorrt_for_rtx_has_every_name_we_use(rtx: Api) -> None:
    """Its own part too: kernels kept in a cache, and a GPU that is named."""
    found, used = findings(rtx)

    assert found == []
    assert used >= {"IRuntimeCache.deserialize", "IRuntimeConfig.create_runtime_cache", "ILayer.type"}
    assert "IBuilderConfig.set_compute_capability" in used


def test_pycuda_has_every_name_we_use(pycuda: Api) -> None:
    """And cuda-bindings, which is installed here."""
    bindings = {
        name: described(f"cuda.bindings.{module}")
        for name, module in (("runtime", "runtime"), ("cuda", "driver"))
    }
    reader = Reader({"driver": pycuda, **bindings}, {"context": "Context"})

    assert reader.read((ENGINES / "cuda.py").read_text(encoding="utf-8")) == []
    assert reader.uses >= {
        "driver.pagelocked_empty",
        "driver.memcpy_htod_async",
        "Device.retain_primary_context",
        "Context.detach",
        "Event.time_till",
        "Stream.handle",
        "DeviceAllocation.free",
        "runtime.cudaStreamBeginCapture",
        "cuda.cuCtxPopCurrent",
    }


def test_what_pycuda_does_not_say_is_in_its_source(pycuda: Api) -> None:
    """What a pinned array stands on can be freed, and memory of the device is an address."""
    assert "free" in pycuda.classes["PagelockedHostAllocation"]
    assert "__int__" in pycuda.classes["DeviceAllocation"]
    assert {"Error", "MemoryError", "LogicError"} <= pycuda.names.keys()
    assert {"Context", "Stream", "Event", "DeviceAllocation"} <= pycuda.classes.keys()


@pytest.mark.parametrize(
    ("source", "finding"),
    [
        ("def f(trt):\n    trt.Bilder(1)", "2: trt has no Bilder"),
        (
            "def f(trt):\n    config = trt.Builder(1).create_builder_config()\n    config.fp17 = 1",
            "has no fp17",
        ),
        ("def f(trt):\n    trt.BuilderFlag.TF33", "BuilderFlag has no TF33"),
        (
            "def f(engine):\n    engine.create_execution_context(1).execute_v9(0)",
            "IExecutionContext has no execute_v9",
        ),
        ("def f(config):\n    config.set_timing_cache(1, ignore=True)", "takes no ignore"),
        (
            "class A:\n def f(self):\n  self._b.x\n def g(self, trt):\n  self._b = trt.Builder(0)",
            "3: Builder has no x",
        ),
        (
            "def f(trt, network):\n    layer = network.get_layer(0)\n    layer.attention",
            "ILayer has no attention",
        ),
    ],
)
def test_a_name_that_is_not_there_is_found(rtx: Api, source: str, finding: str) -> None:
    """The negative control: through constructors, results, attributes of `self`, constants and keywords."""
    (found,) = Reader({"trt": rtx}, PARAMETERS).read(source)

    assert finding in found


def test_a_layer_of_a_known_kind_is_followed(rtx: Api) -> None:
    """Its class is changed by hand, as TensorRT's users do."""
    source = (
        "def f(trt, network):\n layer = network.get_layer(0)\n layer.__class__ = trt.IAttentionInputLayer\n"
    )
    source += " layer.attention.decomposable = layer.attention.wrong"

    assert Reader({"trt": rtx}, PARAMETERS).read(source) == ["4: IAttention has no wrong"]


def test_the_doubles_have_no_name_the_real_tensorrt_lacks(tensorrt: Api) -> None:
    """What runs on the fake GPU in our tests can run on the real one."""
    used = set(of_double(DOUBLES / "fake_trt.py", DOUBLE))

    assert [f"{kind}.{name}" for kind, name in sorted(used) if name not in tensorrt.classes[kind]] == []
    assert len(used) > 15


def test_the_doubles_have_no_name_the_real_rtx_lacks(rtx: Api) -> None:
    """Its runtime configuration and cache too."""
    used = set(of_double(DOUBLES / "fake_trt.py", {**DOUBLE, **DOUBLE_RTX}))

    assert [f"{kind}.{name}" for kind, name in sorted(used) if name not in rtx.classes[kind]] == []


def test_the_doubles_have_no_name_the_real_pycuda_lacks(pycuda: Api) -> None:
    """Nor has the fake driver one that is not in `pycuda.driver`."""
    names = ("Device", "Context", "Stream", "Event", "DeviceAllocation", "PagelockedHostAllocation")
    used = set(of_double(DOUBLES / "fake_gpu.py", {name: name for name in names}))
    driver = {name for _, name in of_double(DOUBLES / "fake_gpu.py", {"Driver": "driver"})}

    assert [f"{kind}.{name}" for kind, name in sorted(used) if name not in pycuda.classes[kind]] == []
    assert driver <= pycuda.names.keys()
    assert len(used) >= 12


def test_what_is_python_s_own_is_not_asked_further() -> None:
    """A number or a list of the library's has no class of its own."""
    assert {"int", "bool", "list", ""} <= PLAIN
