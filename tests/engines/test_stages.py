"""Which stages lie on the way from a backbone to a cell's file."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from bench import plan as plans
from bobrt.artifacts import version
from bobrt.errors import BobrtError, UnsupportedError, UsageError
from bobrt.spec import Cell, Precision, Protocol, Recipe
from bobrt.system import this_system
from engines import runtimes, stages
from engines.runtimes import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from bobrt.artifacts import Artifact

RECIPE = Recipe(epochs=1, lr=1e-3, batch=32)


def cell(runtime: str = "ort-cpu", precision: str = "fp32", **changes: Any) -> Cell:
    plain = Cell(
        backbone="test_resnet",
        weights="random",
        task="digits",
        protocol=Protocol.FINETUNE,
        runtime=runtime,
        precision=Precision(precision),
        batch="dynamic",
        seed=0,
    )
    return msgspec.structs.replace(plain, **changes)


def target(asked: Cell) -> stages.Target:
    return stages.artifact_target(asked, stages.checkpoint_target(asked, RECIPE, None), 1.0)


WAYS = {
    ("torch", "fp32"): "checkpoint",
    ("torch", "tf32"): "checkpoint",
    ("torch", "fp16"): "checkpoint",
    ("torch", "bf16"): "checkpoint",
    ("torch-compile", "fp32"): "checkpoint",
    ("torch-compile", "tf32"): "checkpoint",
    ("torch-compile", "fp16"): "checkpoint",
    ("torch-compile", "bf16"): "checkpoint",
    ("ort-cpu", "fp32"): "checkpoint onnx",
    ("ort-cpu", "int8"): "checkpoint onnx int8-onnxruntime",
    ("ort-cuda", "fp32"): "checkpoint onnx",
    ("ort-cuda", "tf32"): "checkpoint onnx",
    ("ort-cuda", "fp16"): "checkpoint onnx fp16",
    ("ort-cuda", "bf16"): "checkpoint onnx bf16-onnxruntime",
    ("ort-trt", "fp32"): "checkpoint onnx",
    ("ort-trt", "tf32"): "checkpoint onnx",
    ("ort-trt", "fp16"): "checkpoint onnx fp16",
    ("ort-trt", "bf16"): "checkpoint onnx bf16-tensorrt",
    ("ort-trt", "int8"): "checkpoint onnx int8-tensorrt",
    ("ort-trt", "fp8"): "checkpoint onnx fp8",
    ("tensorrt", "fp32"): "checkpoint onnx engine-tensorrt",
    ("tensorrt", "tf32"): "checkpoint onnx engine-tensorrt",
    ("tensorrt", "fp16"): "checkpoint onnx fp16 engine-tensorrt",
    ("tensorrt", "bf16"): "checkpoint onnx bf16-tensorrt engine-tensorrt",
    ("tensorrt", "int8"): "checkpoint onnx int8-tensorrt engine-tensorrt",
    ("tensorrt", "fp8"): "checkpoint onnx fp8 engine-tensorrt",
    ("tensorrt-rtx", "fp32"): "checkpoint onnx engine-tensorrt-rtx",
    ("tensorrt-rtx", "tf32"): "checkpoint onnx engine-tensorrt-rtx",
    ("tensorrt-rtx", "fp16"): "checkpoint onnx fp16 engine-tensorrt-rtx",
    ("tensorrt-rtx", "bf16"): "checkpoint onnx bf16-tensorrt engine-tensorrt-rtx",
    ("tensorrt-rtx", "int8"): "checkpoint onnx int8-tensorrt engine-tensorrt-rtx",
    ("tensorrt-rtx", "fp8"): "checkpoint onnx fp8 engine-tensorrt-rtx",
}


@pytest.mark.parametrize("runtime", RUNTIMES.names())
@pytest.mark.parametrize("precision", [str(precision) for precision in Precision])
def test_every_runtime_has_its_way_to_every_precision_or_says_it_has_none(
    runtime: str, precision: str
) -> None:
    """The chain of stages is as drawn above; what is not drawn is unsupported, with what there is instead."""
    asked = cell(runtime, precision)
    if way := WAYS.get((runtime, precision)):
        assert [step.stage for step in target(asked).chain()] == way.split()
        return

    with pytest.raises(UnsupportedError) as caught:
        target(asked)

    have = ", ".join(p for r, p in WAYS if r == runtime)
    listed, _, why = caught.value.message.partition(": it takes ")[2].partition("; ")
    assert sorted(listed.split(", ")) == sorted(have.split(", "))
    assert why == RUNTIMES.get(runtime).others != ""
    assert caught.value.message.startswith(f"{runtime} has no {precision}: ")
    assert caught.value.hint == "bobrt list runtimes"


def test_a_precision_that_the_device_lacks_is_not_made_by_a_verb_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`bobrt build --precision fp8` on Ampere: said before anything is trained for it."""
    monkeypatch.setattr(runtimes, "compute_capability", lambda: (8, 6))
    with pytest.raises(UnsupportedError, match=r"^fp8 needs a GPU of compute capability 8\.9, and this one"):
        target(cell("tensorrt-rtx", "fp8"))


def test_a_runtime_of_another_package_that_opens_engines_is_told_what_it_may_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No entry point adds a stage that would build one."""
    entry = msgspec.structs.replace(RUNTIMES.get("tensorrt"), name="mylab/engine")
    monkeypatch.setattr(stages.RUNTIMES, "get", lambda _: entry)
    with pytest.raises(UnsupportedError, match="mylab/engine opens an engine, and nothing here builds one"):
        target(cell("mylab/engine"))


def test_a_file_is_not_called_by_a_precision_that_is_less_than_half_of_it() -> None:
    """What was kept out of it is counted; a graph without a product has no share."""
    stages.require_share(None, Precision.INT8, [])
    stages.require_share(0.5, Precision.INT8, ["blocks.0"])
    with pytest.raises(BobrtError, match=r"49 % of its multiply-adds at int8; 2 blocks were kept") as caught:
        stages.require_share(0.49, Precision.INT8, ["blocks.0", "blocks.1"])
    assert caught.value.hint.startswith("raise --max-drop")
    with pytest.raises(BobrtError, match=r"28 % of its multiply-adds at fp8$") as caught:
        stages.require_share(0.28, Precision.FP8, [])
    assert "max-drop" not in caught.value.hint


def test_tf32_is_the_fp32_file_with_other_math_allowed() -> None:
    """Two engines, one ONNX file."""
    fp32, tf32 = target(cell("tensorrt-rtx", "fp32")), target(cell("tensorrt-rtx", "tf32"))

    assert fp32 != tf32
    assert fp32.source == tf32.source


def test_what_is_asked_for_reaches_the_stage_it_is_about() -> None:
    """Seed, weights and recipe go to the checkpoint, the batch to the ONNX file and the engine."""
    plain, fixed = target(cell("tensorrt-rtx")), target(cell("tensorrt-rtx", batch=4))

    assert plain.chain()[0] == fixed.chain()[0]
    assert [step.options.get("batch") for step in fixed.chain()[1:]] == [4, 4]
    assert target(cell(seed=1)).chain()[0].options["seed"] == 1
    assert target(cell()).chain()[0].options["recipe"]["epochs"] == 1
    published = cell(task="", protocol=Protocol.PUBLISHED)
    assert target(published).chain()[0].options["recipe"] is None


def test_the_drop_that_is_allowed_reaches_the_eight_bit_stages_alone() -> None:
    """Another goal is another int8 file, and the same fp16 file."""

    def of(precision: str, goal: float) -> stages.Target:
        asked = cell("tensorrt", precision)
        return stages.artifact_target(asked, stages.checkpoint_target(asked, RECIPE, None), goal)

    for precision in ("int8", "fp8"):
        assert [step.options.get("max_drop") for step in of(precision, 0.5).chain()] == [
            None,
            None,
            0.5,
            None,
        ]
        assert of(precision, 0.5) != of(precision, 1.0)
    assert of("fp16", 0.5) == of("fp16", 1.0)


def test_with_no_gpu_an_engine_is_for_a_named_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target is compute capability 8.6, and no machine is named: the engine is everyone's."""
    monkeypatch.setattr(stages, "no_gpu", lambda: "no NVIDIA driver on this machine")

    options = target(cell("tensorrt-rtx")).options

    assert (options["compute_capability"], options["device"]) == ("8.6", "")


def test_with_a_gpu_an_engine_is_for_it_and_for_no_other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine built in place is known by the machine it was built on."""
    monkeypatch.setattr(stages, "no_gpu", lambda: "")

    options = target(cell("tensorrt")).options

    assert (options["compute_capability"], options["device"]) == ("current", this_system().id)


def test_with_a_hidden_gpu_an_engine_is_for_a_named_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could say for which, nor run it here."""
    monkeypatch.setattr(runtimes, "no_driver", lambda: "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")

    options = target(cell("tensorrt-rtx")).options

    assert (options["compute_capability"], options["device"]) == ("8.6", "")


@pytest.mark.parametrize("name", plans.bundled())
@pytest.mark.parametrize("runtime", sorted(stages.PROFILES))
def test_the_profiles_take_every_batch_of_every_plan(name: str, runtime: str) -> None:
    """Without a gap from 1 on; what the plan `gpu` asks for is what TensorRT's engines are tuned for."""
    lows, tuned, highs = zip(*stages.PROFILES[runtime], strict=True)
    assert lows == (1, *(high + 1 for high in highs[:-1]))
    batches = plans.load(name).timing.throughput_batches
    assert max(batches) <= highs[-1]
    if (name, runtime) == ("gpu", "tensorrt"):
        assert tuned == batches


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_low_precision_needs_a_task(precision: str) -> None:
    """A backbone as published has no images to set it on; the hint names a task."""
    published = cell("tensorrt", precision, task="", protocol=Protocol.PUBLISHED)

    with pytest.raises(UsageError, match=f"{precision} is set on a task's training images") as caught:
        stages.require_calibration(published)

    assert caught.value.hint == (
        f"bobrt build test_resnet --weights random --task digits --precision {precision} --runtime tensorrt"
    )
    stages.require_calibration(cell("tensorrt", precision))


@pytest.mark.parametrize(
    ("runtime", "precision"),
    [("ort-cpu", "fp32"), ("tensorrt", "tf32"), ("tensorrt", "bf16"), ("torch", "fp16")],
)
def test_what_is_set_on_no_images_needs_no_task(runtime: str, precision: str) -> None:
    """bf16 reaches as far as fp32, and PyTorch casts a checkpoint when it is opened."""
    stages.require_calibration(cell(runtime, precision, task="", protocol=Protocol.PUBLISHED))


@pytest.mark.parametrize("name", stages.STAGES)
def test_every_stage_can_be_called_and_names_its_tools(name: str) -> None:
    """Its function is there to import, its tools are distributions, its extra is one that pip knows."""
    stage = stages.STAGES[name]
    module, _, function = stage.produce.partition(":")

    assert callable(getattr(importlib.import_module(module), function))
    assert [tool for tool in stage.tools if version(tool) is None and tool != "tensorrt"] == []


def test_the_two_quantizers_never_share_a_process() -> None:
    """ModelOpt replaces parts of ONNX Runtime's quantizer as soon as it is imported."""
    workers = {name: stage.worker for name, stage in stages.STAGES.items()}

    assert workers["int8-onnxruntime"] not in {workers["fp16"], workers["int8-tensorrt"]}


def test_every_engine_a_runtime_opens_has_a_stage() -> None:
    """A runtime that opens engines is one of those engines are built for."""
    engines = {f"engine-{name}" for name, runtime in RUNTIMES.all().items() if runtime.artifact == "engine"}

    assert engines <= stages.STAGES.keys()


def test_a_file_is_found_on_disk_by_what_was_asked(tiny_run: Any) -> None:
    """The tiny run's files answer to the targets of its cells, and to no others."""
    shop = stages.workshop(tiny_run[0].cache)
    recipe = Recipe(epochs=2, lr=3e-3, batch=32)

    def find(asked: Cell) -> Artifact | None:
        return shop.find(stages.artifact_target(asked, stages.checkpoint_target(asked, recipe, None), 100.0))

    assert find(cell("ort-cpu", "int8")) is not None
    assert find(cell("ort-cpu", "int8", batch=4)) is None
    assert find(cell("ort-cpu", "int8", seed=1)) is None


def test_a_summary_says_what_a_person_wants_to_know(made: Callable[..., Artifact]) -> None:
    """Size and sha256 of every file; validation, parity and shares of those that have them."""
    trained, exported = stages.summary(made("checkpoint")), stages.summary(made("onnx"))
    low = stages.summary(made("int8-onnxruntime"))

    assert trained[0].startswith("checkpoint: 1.51 MB, sha256 " + made("checkpoint").sha256[:12])
    assert trained[1].startswith("validation: ")
    assert "max |diff|" in exported[1]
    assert exported[2] == "multiply-adds: 100 % fp32"
    assert low[1] == "multiply-adds: 100 % int8"


def test_a_file_is_asked_for_without_a_heavy_library() -> None:
    """Who looks for a file, or for a runtime, loads neither torch nor any other that makes or runs one."""
    code = (
        "import sys; from pathlib import Path; from bobrt.artifacts import Target;"
        "from engines import stages; from engines.runtimes import RUNTIMES; RUNTIMES.all();"
        "print(stages.workshop(Path('nowhere')).find(Target(stage='checkpoint')));"
        "print({'torch', 'timm', 'onnx', 'onnxruntime', 'modelopt', 'tensorrt_rtx'} & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "None\nset()\n"
