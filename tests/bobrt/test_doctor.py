"""`bobrt doctor`: what this machine can do, what it cannot, and what to do about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from loopback import answering

from bobrt import artifacts, config, doctor, hardware, loading
from bobrt.doctor import Check
from bobrt.errors import ExitCode, UsageError
from bobrt.hardware import Card, Memory
from bobrt.loading import Loaded
from bobrt.system import System, this_system
from engines.runtimes import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support import Ran

OFFLINE = {"HF_HUB_OFFLINE": "1"}
"""No test asks the real hub."""


@pytest.fixture(autouse=True)
def hinted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test here has the doctor find, what is not well comes with a hint."""

    def made(**fields: Any) -> Check:
        check = Check(**fields)
        assert check.status == "ok" or check.hint, check
        return check

    monkeypatch.setattr(doctor, "Check", made)


def checks(out: str) -> dict[str, dict[str, Any]]:
    """Return the checks by name."""
    return {check["name"]: check for check in json.loads(out)["checks"]}


def test_this_machine_is_well(bobrt: Callable[..., Ran], tmp_path: Path) -> None:
    """Here every test runs, so nothing is in the way: exit code 0; the folders are named, not made."""
    ran = bobrt("doctor", "--json", env=OFFLINE)
    assert ran.code == ExitCode.OK
    assert not ran.err
    said = json.loads(ran.out)
    assert set(said) == {"schema", "ok", "checks"}
    assert (said["schema"], said["ok"]) == (1, True)
    for check in said["checks"]:
        assert set(check) == {"name", "status", "detail", "hint"}
        assert check["status"] in {"ok", "bang"}
        assert check["detail"]
        assert check["status"] == "ok" or check["hint"], check
    found = checks(ran.out)
    machine = {
        "python",
        "processor",
        "memory",
        "clocks cpu",
        "precisions cpu",
        "driver",
        "gpu",
        "cuda libraries",
    }
    assert machine | {"torch", "timm", "cache", "results", "hub"} <= set(found)
    assert {f"runtime {name}" for name in RUNTIMES.names()} <= set(found)
    for name, library in {"ort-cpu": "onnxruntime", "torch": "torch"}.items():
        assert found[f"runtime {name}"]["status"] == "ok"
        assert found[f"runtime {name}"]["detail"].startswith(artifacts.version(library))
        assert " loads and runs here" in found[f"runtime {name}"]["detail"]
    assert found["hub"]["detail"] == "not asked: HF_HUB_OFFLINE is set"
    assert found["results"]["detail"].startswith(f"{tmp_path / 'results'} (from BOBRT_RESULTS), ")
    assert list(tmp_path.iterdir()) == []


def test_people_get_a_line_and_a_hint_for_each_check(bobrt: Callable[..., Ran]) -> None:
    """A mark, the name and the detail; below all that is not well what to do, for a hidden GPU its own."""
    asked = ("ort-cpu", "ort-cuda", "ort-trt", "tensorrt-rtx")
    ran = bobrt("doctor", *asked, env={"CUDA_VISIBLE_DEVICES": "", **OFFLINE})
    assert ran.code == ExitCode.MACHINE
    lines = ran.out.splitlines()
    assert f"✓ runtime ort-cpu: {artifacts.version('onnxruntime')} loads and runs here" in lines
    assert all(line.startswith(("✓ ", "! ", "✗ ", "    hint: ")) for line in lines)
    below = dict(zip(lines, [*lines[1:], ""], strict=True))
    ill = [line for line in lines if line.startswith(("! ", "✗ "))]
    assert [line for line in ill if not below[line].startswith("    hint: ")] == []
    hidden = [line for line in ill if "CUDA_VISIBLE_DEVICES= hides every GPU" in line]
    gpu_runtimes = [f"✗ runtime {name}" for name in asked[1:]]
    assert [line.split(":")[0] for line in hidden] == ["! driver", *gpu_runtimes]
    assert {below[line] for line in hidden} == {"    hint: unset CUDA_VISIBLE_DEVICES"}


@pytest.mark.parametrize("name", ["cache", "results"])
@pytest.mark.parametrize("below", ["", "/deep/er"], ids=["a-file", "below-a-file"])
def test_a_folder_that_cannot_be_made_is_a_cross(
    bobrt: Callable[..., Ran], tmp_path: Path, name: str, below: str
) -> None:
    """Nothing can be kept below a regular file, by root neither: exit code 3, the path, and what to set."""
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    variable = f"BOBRT_{name.upper()}"
    env = {variable: str(tmp_path / "file") + below, **OFFLINE}
    ran = bobrt("doctor", "ort-cpu", "--json", env=env)
    assert ran.code == ExitCode.MACHINE
    assert json.loads(ran.out)["ok"] is False
    cross = checks(ran.out)[name]
    assert cross["status"] == "cross"
    assert str(tmp_path / "file") in cross["detail"]
    assert cross["hint"] == f"set {variable} to a folder you can write"
    assert [check["name"] for check in checks(ran.out).values() if check["status"] == "cross"] == [name]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_file_system_that_takes_no_folder_is_a_cross() -> None:
    """The kernel's, into which nobody writes, though it says that root may."""
    check = doctor._folder("cache", config.Setting(Path("/proc/bobrt/cache"), "BOBRT_CACHE"))
    assert check.status == "cross"
    assert "cannot be made in /proc: " in check.detail


def test_a_cross_is_seen_by_people_too(bobrt: Callable[..., Ran], tmp_path: Path) -> None:
    """The mark, the line and the hint."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    ran = bobrt("doctor", "ort-cpu", env={"BOBRT_RESULTS": str(tmp_path / "file" / "r"), **OFFLINE})
    assert ran.code == ExitCode.MACHINE
    assert "✗ results: " in ran.out
    assert "hint: set BOBRT_RESULTS" in ran.out


def test_a_folder_that_is_there_is_proven_and_left_clean(bobrt: Callable[..., Ran], tmp_path: Path) -> None:
    """A file is written into it and taken away again."""
    (tmp_path / "results").mkdir()
    ran = bobrt("doctor", "ort-cpu", "--json", env=OFFLINE)
    assert checks(ran.out)["results"]["status"] == "ok"
    assert list((tmp_path / "results").iterdir()) == []


def test_a_disk_that_is_nearly_full_is_worth_knowing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not in the way yet."""
    monkeypatch.setattr(doctor, "LOW_DISK_GB", 1e9)
    check = doctor._folder("cache", config.Setting(tmp_path / "cache", "default"))
    assert check.status == "bang"
    assert "(from default), only " in check.detail
    assert check.hint == "set BOBRT_CACHE to a folder you can write"


def test_what_is_not_installed_comes_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A light install can bench files made elsewhere: worth knowing, not in the way."""
    monkeypatch.setattr(doctor, "version", lambda name: None if name == "timm" else artifacts.version(name))
    timm = next(check for check in doctor._tools() if check.name == "timm")
    assert timm.status == "bang"
    assert timm.hint == "pip install 'bobrt[train]'"


# -- runtimes --------------------------------------------------------------------------------------

CARD = Card(
    name="NVIDIA H100",
    driver="580.159.04",
    cuda="13.0",
    memory_gb=79.6,
    capability=(9, 0),
    cards=1,
    sm_mhz=345,
    top_mhz=1980,
    set_mhz=None,
    default_mhz=None,
    persistent=True,
)


def runtimes(*answers: Loaded, card: Card | None = None, asked: bool = False) -> dict[str, Check]:
    """Return what the doctor makes of some answers, by name."""
    told = {answer.runtime: answer for answer in answers}
    return {check.name: check for check in doctor._runtimes(told, card, asked=asked)}


def cannot(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    """Pretend that no runtime runs here."""
    monkeypatch.setattr(doctor, "cannot_run", lambda _: reason)


def test_a_runtime_asked_for_by_name_has_to_run(bobrt: Callable[..., Ran]) -> None:
    """Of those named each is a line, and one that does not run is in the way: exit code 3."""
    ran = bobrt("doctor", "ort-cpu", "tensorrt", "--json", env={"CUDA_VISIBLE_DEVICES": "", **OFFLINE})
    assert ran.code == ExitCode.MACHINE
    found = checks(ran.out)
    assert {name for name in found if name.startswith("runtime ")} == {"runtime ort-cpu", "runtime tensorrt"}
    assert [name for name, check in found.items() if check["status"] == "cross"] == ["runtime tensorrt"]


def test_a_name_that_is_no_runtimes_is_a_slip(tmp_path: Path) -> None:
    """What was meant, before anything is loaded."""
    settings = config.load(tmp_path / "cache", tmp_path / "results")
    with pytest.raises(UsageError, match="unknown runtime 'ort-cuad'") as slip:
        doctor.examine(settings, ["ort-cuad"])
    assert slip.value.hint.startswith("did you mean ort-cuda")


@pytest.mark.parametrize(("asked", "status"), [(False, "bang"), (True, "cross")])
def test_a_library_that_is_broken_is_said_with_its_own_words(*, asked: bool, status: str) -> None:
    """It is installed, and why it does not load; in the way only of who asked for it."""
    error = "ImportError: libcudart.so.13: cannot open shared object file"
    answers = (Loaded(runtime="torch", error=error), Loaded(runtime="ort-cpu", version="1.31.1"))
    check = runtimes(*answers, asked=asked)["runtime torch"]
    assert check.status == status
    assert check.detail == f"is installed and does not load: {error}"
    assert check.hint.endswith(" -c 'import torch' says more")


def test_a_provider_that_does_not_open_is_no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package loads and says its version; what lies behind it does not."""
    cannot(monkeypatch, "")
    check = runtimes(Loaded(runtime="ort-cuda", version="1.31.1", error="OSError: libcudnn.so.9"))[
        "runtime ort-cuda"
    ]
    assert check.detail == "1.31.1 loads, and its runner does not open: OSError: libcudnn.so.9"


@pytest.mark.parametrize(
    ("reason", "detail", "hint"),
    [
        ("not for this GPU", "not for this GPU", "bobrt list runtimes shows the others"),
        ("it needs a compiler (apt install g++)", "it needs a compiler", "apt install g++"),
        (
            "its provider wants TensorRT 10 (libnvinfer.so.10), 11.4 is here (pip install 'tensorrt==10.*')",
            "its provider wants TensorRT 10 (libnvinfer.so.10), 11.4 is here",
            "pip install 'tensorrt==10.*'",
        ),
    ],
)
def test_the_command_of_a_reason_becomes_the_hint(
    monkeypatch: pytest.MonkeyPatch, reason: str, detail: str, hint: str
) -> None:
    """The reason is the table's own; other brackets stay in it."""
    cannot(monkeypatch, reason)
    check = runtimes(Loaded(runtime="ort-trt", version="1.31.1"))["runtime ort-trt"]
    assert (check.detail, check.hint) == (f"1.31.1 cannot run here: {detail}", hint)


def test_what_is_absent_is_told_in_the_words_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as the ModuleNotFoundError it was."""
    cannot(monkeypatch, "tensorrt is not installed (pip install 'bobrt[tensorrt]')")
    absent = Loaded(
        runtime="tensorrt", error="ModuleNotFoundError: No module named 'tensorrt'", missing="tensorrt"
    )
    check = runtimes(absent)["runtime tensorrt"]
    assert (check.detail, check.hint) == ("tensorrt is not installed", "pip install 'bobrt[tensorrt]'")


def test_a_builder_without_a_gpu_is_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines can be made for another machine."""
    cannot(monkeypatch, "no NVIDIA driver")
    monkeypatch.setattr(doctor, "no_gpu", lambda: "no NVIDIA driver")
    check = runtimes(Loaded(runtime="tensorrt-rtx", version="1.7.1"))["runtime tensorrt-rtx"]
    assert check.detail == "1.7.1 loads and builds engines, cannot run here: no NVIDIA driver"
    assert check.hint == doctor._driver(None).hint
    assert "--gpus all" in check.hint


@pytest.mark.parametrize(("detail", "status"), [("sees no GPU", "bang"), (loading.SEES_A_GPU, "ok")])
def test_pytorch_beside_a_gpu_it_does_not_see_is_worth_knowing(detail: str, status: str) -> None:
    """It runs, and on the CPU."""
    answer = Loaded(runtime="torch", version="2.14.1", detail=f"built for CUDA 13.0, {detail}")
    check = runtimes(answer, card=CARD)["runtime torch"]
    assert (check.status, bool(check.hint)) == (status, status == "bang")
    assert runtimes(answer)["runtime torch"].status == "ok"


def test_a_machine_on_which_nothing_runs_is_a_cross(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no runtime there is nothing to bench."""
    cannot(monkeypatch, "it is not here")
    crosses = [c for c in runtimes(Loaded(runtime="ort-cpu", version="1")).values() if c.status == "cross"]
    assert [(check.name, check.detail) for check in crosses] == [("runtimes", "no runtime runs here")]


# -- the machine -----------------------------------------------------------------------------------


def test_a_gpu_is_described() -> None:
    """Name, memory, compute capability, driver and what it computes in."""
    gpu = doctor._gpu(CARD)
    assert (gpu.status, gpu.detail) == ("ok", "NVIDIA H100, 80 GB, compute capability 9.0")
    assert "the first of 4 " in doctor._gpu(CARD._replace(cards=4)).detail
    precisions = doctor._gpu_precisions(CARD).detail
    assert precisions == "fp32, int8, fp16, tf32, bf16, fp8 natively"
    older = doctor._gpu_precisions(CARD._replace(capability=(7, 5))).detail
    assert older == "fp32, int8, fp16 natively; tf32, bf16, fp8 through conversion, if at all"
    assert doctor._gpu_precisions(CARD._replace(capability=None)).status == "bang"


@pytest.mark.parametrize(
    ("container", "hint"),
    [(True, "start the container with docker run --gpus all"), (False, "with an NVIDIA GPU: install its")],
)
def test_a_machine_without_a_gpu_is_none_the_worse(
    monkeypatch: pytest.MonkeyPatch, *, container: bool, hint: str
) -> None:
    """Two bangs; in a container the flag that may have been forgotten."""
    monkeypatch.setattr(doctor, "no_gpu", lambda: "no NVIDIA driver")
    monkeypatch.setattr(hardware, "in_container", lambda: container)
    for check in (doctor._driver(None), doctor._gpu(None)):
        assert check.status == "bang"
        assert check.hint.startswith(hint)
    assert "CPU runtimes work" in doctor._gpu(None).detail


@pytest.mark.parametrize("visible", ["", "-1", "7"])
def test_a_gpu_that_is_hidden_is_not_missing(monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    """All are hidden, or this machine has none of that number: a driver would not help."""
    monkeypatch.setattr("engines.runtimes.no_driver", str)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert doctor._driver(None).hint == doctor._gpu(None).hint == "unset CUDA_VISIBLE_DEVICES"


def test_a_card_is_looked_at_closely(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its clocks and its precisions are two checks more, which a machine without one has not."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(loading, "load", lambda _: {})
    settings = config.load(tmp_path / "cache", tmp_path / "results")
    found = []
    for card in (CARD, None):
        monkeypatch.setattr(hardware, "card", lambda card=card: card)
        found.append({check.name: check for check in doctor.examine(settings, ["ort-cpu"]).checks})
    assert found[0].keys() - found[1].keys() == {"clocks gpu", "precisions gpu"}
    assert found[0]["clocks gpu"].detail.startswith("SM 345 of 1980 MHz now")
    assert found[0]["precisions gpu"].detail == "fp32, int8, fp16, tf32, bf16, fp8 natively"
    assert found[0]["gpu"].detail.startswith("NVIDIA H100")


@pytest.mark.parametrize(
    ("libraries", "status"),
    [({"CUDA runtime": "13.0.96"}, "ok"), ({"CUDA runtime": "14.1.2"}, "bang"), ({}, "ok")],
)
def test_a_driver_older_than_the_libraries_is_worth_knowing(
    monkeypatch: pytest.MonkeyPatch, libraries: dict[str, str], status: str
) -> None:
    """Within a major version they go together."""
    monkeypatch.setattr(hardware, "cuda_libraries", lambda: libraries)
    check = doctor._driver(CARD)
    assert check.status == status
    assert check.detail.startswith("580.159.04, runs CUDA up to 13.0")
    assert ("CUDA 14" in check.hint) is (status == "bang")


def test_cuda_libraries_that_lack_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command only where a GPU would use them; elsewhere that nothing else does."""
    monkeypatch.setattr(hardware, "cuda_libraries", lambda: {"cuBLAS": "13.1"})
    check = doctor._libraries(CARD)
    assert (check.status, check.detail) == ("bang", "cuBLAS 13.1; no CUDA runtime, no cuDNN")
    assert check.hint.startswith("pip install ")
    assert doctor._libraries(None).hint == "only GPU runtimes need them"
    monkeypatch.setattr(hardware, "cuda_libraries", dict)
    assert doctor._libraries(None).detail == "none"


def test_clocks_of_a_gpu_say_what_can_be_known() -> None:
    """A chosen application clock is fine; without one the command that locks, for the host."""
    free = doctor._gpu_clocks(CARD)
    assert free.status == "bang"
    assert free.detail == "SM 345 of 1980 MHz now, persistence on, a lock cannot be read"
    assert "nvidia-smi -lgc" in free.hint
    assert doctor._gpu_clocks(CARD._replace(set_mhz=1980, default_mhz=1980)).status == "bang"
    chosen = doctor._gpu_clocks(CARD._replace(set_mhz=1500, default_mhz=1980))
    assert chosen.status == "ok"
    assert "application clock 1500 MHz," in chosen.detail


@pytest.mark.parametrize(
    ("governors", "boost", "status", "detail"),
    [
        (["performance"], False, "ok", "governor performance, boost off"),
        (["ondemand", "performance"], True, "bang", "governor ondemand, performance, boost on"),
        ([], None, "bang", "no governor can be read, as in most virtual machines"),
    ],
)
def test_clocks_of_a_cpu(
    monkeypatch: pytest.MonkeyPatch, governors: list[str], boost: bool | None, status: str, detail: str
) -> None:
    """Only a governor that never saves is steady."""
    monkeypatch.setattr(hardware, "governors", lambda: governors)
    monkeypatch.setattr(hardware, "boost", lambda: boost)
    check = doctor._cpu_clocks()
    assert (check.status, check.detail) == (status, detail)
    assert bool(check.hint) is (status == "bang")


def test_precisions_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has instructions for, by name; tf32 is no CPU's."""
    system: System = this_system()
    changed = system.__class__(
        **{f: getattr(system, f) for f in system.__struct_fields__} | {"simd": ["avx_vnni"]}
    )
    monkeypatch.setattr(doctor, "this_system", lambda: changed)
    assert doctor._cpu_precisions().detail == (
        "fp32, int8 (avx_vnni) natively; fp16, bf16, fp8 through conversion, if at all"
    )


@pytest.mark.parametrize(
    ("memory", "status", "detail"),
    [
        (Memory(16.0, 9.0), "ok", "16.0 GB, 9.0 GB free"),
        (Memory(16.0, 1.0), "bang", "16.0 GB, 1.0 GB free"),
        (None, "bang", "the kernel does not say"),
    ],
)
def test_memory(monkeypatch: pytest.MonkeyPatch, memory: Memory | None, status: str, detail: str) -> None:
    """Little of it is worth knowing before a run."""
    monkeypatch.setattr(hardware, "memory", lambda: memory)
    check = doctor._memory()
    assert (check.status, check.detail) == (status, detail)


# -- the hub ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """A server on loopback."""
    with answering() as address:
        yield address


@pytest.fixture
def hub_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Check]:
    """Ask a hub at an address, with this environment and no other."""

    def ask(**env: str) -> Check:
        for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"no_proxy": "*", **env}.items():
            monkeypatch.setenv(name, value)
        return doctor._ask_hub()()

    return ask


@pytest.mark.parametrize("code", [200, 401, 404])
def test_a_hub_that_answers_is_there(hub: str, hub_of: Callable[..., Check], code: int) -> None:
    """Whatever it answers; a token is told of and never shown."""
    address = f"{hub}/{code}"
    check = hub_of(HF_ENDPOINT=address)
    assert (check.status, check.detail) == (
        "ok",
        f"{address} answers; HF_TOKEN is not set: no gated weights",
    )
    check = hub_of(HF_ENDPOINT=address, HF_TOKEN="hf_secret")  # noqa: S106 - made up
    assert check.detail == f"{address} answers; HF_TOKEN is set"


def test_a_hub_that_is_ill_or_not_there_is_a_bang(hub: str, hub_of: Callable[..., Check]) -> None:
    """Never a cross: what is cached, random or local needs none."""
    for endpoint in (f"{hub}/503", "http://127.0.0.1:1", "no address", "ftp://127.0.0.1:1"):
        check = hub_of(HF_ENDPOINT=endpoint)
        assert check.status == "bang"
        assert check.detail.startswith(f"{endpoint} cannot be reached: ")
        assert "--weights random" in check.hint


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_a_hub_that_is_switched_off_is_not_asked(hub_of: Callable[..., Check], variable: str) -> None:
    """As huggingface_hub reads it: other words are no yes."""
    for yes in ("1", "true", "on", "YES"):
        check = hub_of(HF_ENDPOINT="http://127.0.0.1:1", **{variable: yes})
        assert (check.status, check.detail) == ("bang", "not asked: HF_HUB_OFFLINE is set")
    assert "cannot be reached" in hub_of(HF_ENDPOINT="http://127.0.0.1:1", **{variable: "0"}).detail
