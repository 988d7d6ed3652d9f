"""What makes an engine another engine, where it is kept, and how its rebuild is explained."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from fake_gpu import FakeGpu, installed

from bobrt.artifacts import Job, Produced, Stage, Target, Workshop
from bobrt.spec import Cell, EngineSpec, Precision, Protocol
from engines import stages, trt_identity

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SPEC = EngineSpec(
    runtime="tensorrt", precision=Precision.FP16, batch="dynamic", compute_capability="current", device="here"
)
CELL = Cell(
    backbone="test_resnet",
    weights="random",
    task="digits",
    protocol=Protocol.FINETUNE,
    runtime="tensorrt",
    precision=Precision.FP16,
    batch="dynamic",
    seed=0,
)


def library(version: str = "11.4.0.106") -> ModuleType:
    module = ModuleType("tensorrt")
    module.__version__ = version  # type: ignore[attr-defined]
    return module


def spec_of(cell: Cell) -> EngineSpec:
    """What the builder is asked for in a cell."""
    target = stages.artifact_target(cell, Target(stage="checkpoint"), 1.0)
    return msgspec.convert(target.options, EngineSpec)


def test_an_engine_for_the_gpu_at_hand_names_all_of_it() -> None:
    """Library, GPU, compute capability and the driver's CUDA, as CUDA itself tells them."""
    with installed(FakeGpu()):
        identity = trt_identity.of(library(), SPEC, "ab" * 32)

    place = identity.place
    assert (place.library, place.compute_capability) == ("tensorrt 11.4.0.106", "9.0")
    assert (place.gpu, place.cuda) == ("NVIDIA Pretend 9000", "13.2")
    assert identity.onnx_sha256 == "ab" * 32
    assert identity.profiles == ((1, 8, 256),)
    assert identity.options == {
        "level": 3,
        "tf32": False,
        "strongly_typed": True,
        "user_allocation": SPEC.runtime == "tensorrt-rtx",
    }


def test_without_pycuda_the_driver_s_own_tool_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine can be built where it cannot be run."""
    monkeypatch.setitem(sys.modules, "engines.cuda", None)
    monkeypatch.setattr(trt_identity, "compute_capability", lambda: (8, 9))

    place = trt_identity.of(library(), SPEC, "").place

    assert (place.compute_capability, place.cuda) == ("8.9", None)


def test_an_engine_for_a_gpu_elsewhere_names_what_is_known_of_it() -> None:
    """No driver is asked: there may be none."""
    elsewhere = msgspec.structs.replace(SPEC, compute_capability="8.9", batch=4, precision=Precision.TF32)

    identity = trt_identity.of(library(), elsewhere, "")

    assert identity.place == trt_identity.Place(library="tensorrt 11.4.0.106", compute_capability="8.9")
    assert identity.profiles == ((4, 4, 4),)
    assert identity.options["tf32"] is True
    assert "engines.cuda" not in sys.modules


@pytest.mark.parametrize(
    ("runtime", "profiles"),
    [("tensorrt", ((1, 1, 1), (2, 8, 16), (17, 64, 256))), ("tensorrt-rtx", ((1, 8, 256),))],
)
def test_a_free_batch_axis_is_tuned_for_one_a_few_and_many(
    runtime: str, profiles: tuple[tuple[int, int, int], ...]
) -> None:
    """Without a gap between them; TensorRT for RTX makes its kernels for what is asked, and needs one."""
    spec = spec_of(msgspec.structs.replace(CELL, runtime=runtime))

    assert spec.profiles == profiles
    assert [low for low, _, _ in profiles[1:]] == [high + 1 for _, _, high in profiles[:-1]]
    assert spec_of(msgspec.structs.replace(CELL, runtime=runtime, batch=4)).profiles == ()


def test_fp8_is_for_the_first_gpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no GPU; where there is one, for that."""
    fp8 = msgspec.structs.replace(CELL, runtime="tensorrt-rtx", precision=Precision.FP8)
    monkeypatch.setattr(stages, "no_gpu", lambda: "no NVIDIA driver")

    assert spec_of(fp8).compute_capability == "8.9"
    assert spec_of(msgspec.structs.replace(fp8, precision=Precision.BF16)).compute_capability == "8.6"

    monkeypatch.setattr(stages, "no_gpu", lambda: "")
    assert spec_of(fp8).compute_capability == "current"


def test_every_option_of_a_builder_is_in_the_engine_s_name(tmp_path: Path) -> None:
    """Another machine, CUDA, profile, level, precision or batch is another folder."""
    shop = stages.workshop(tmp_path)
    changes: list[dict[str, Any]] = [
        {},
        {"device": "there"},
        {"cuda": "13.2"},
        {"profiles": ((1, 1, 1),)},
        {"level": 5},
        {"precision": Precision.INT8},
        {"batch": 4},
        {"compute_capability": "9.0"},
    ]
    specs = [msgspec.structs.replace(SPEC, **change) for change in changes]
    targets = [Target(stage="engine-tensorrt", options=msgspec.to_builtins(spec)) for spec in specs]

    assert len({shop.folder(target, None) for target in targets}) == len(changes)


def produce(job: Job) -> Produced:
    """Make a file for a test."""
    (job.folder / "engine.bin").write_bytes(b"engine")
    return Produced("engine.bin", {})


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Workshop]:
    """A workshop whose builder has a version."""
    module = ModuleType("test_builder")
    module.produce = produce  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "test_builder", module)

    def at(version: str) -> Workshop:
        monkeypatch.setattr("bobrt.artifacts.version", lambda _: version)
        return Workshop(
            tmp_path, {"engine": Stage("test_builder:produce", ("tensorrt",), "", where=("device",))}
        )

    return at


def engine(**options: Any) -> Target:
    return Target(stage="engine", options={"precision": "fp16", "device": "here", **options})


def test_a_rebuild_is_explained(shop: Callable[[str], Workshop]) -> None:
    """Another library and another machine are named, with both sides; what was never there is not."""
    before = shop("10.16.1")
    assert before.look(engine()) == (None, "no engine yet")
    before.make(engine())
    assert before.look(engine())[1] == ""

    assert shop("11.4.0").look(engine()) == (None, "its engine was made for tensorrt 10.16.1, not 11.4.0")
    assert shop("10.16.1").look(engine(device="there")) == (
        None,
        "its engine was made for device here, not there",
    )
    assert shop("10.16.1").look(engine(precision="int8")) == (None, "no engine yet")


def test_both_are_kept(shop: Callable[[str], Workshop]) -> None:
    """Going back finds the old one; neither is ever loaded for the other."""
    old = shop("10.16.1").make(engine())
    new = shop("11.4.0").make(engine())

    assert old.path != new.path
    assert shop("10.16.1").look(engine())[0] == old
    assert shop("11.4.0").look(engine())[0] == new


def test_a_damaged_manifest_explains_nothing(shop: Callable[[str], Workshop], tmp_path: Path) -> None:
    """Nor does it stand in the way."""
    shop("10.16.1").make(engine())
    (manifest,) = tmp_path.glob("engine/*/manifest.json")
    manifest.write_text("{")

    assert shop("11.4.0").look(engine()) == (None, "no engine yet")
