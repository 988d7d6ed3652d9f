"""An ONNX file built into an engine by the real TensorRT for RTX, which needs no GPU to build."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import onnx
import pytest
import tensorrt_rtx as trt
from onnx import helper

from bobrt.artifacts import Artifact, Job
from bobrt.errors import BobrtError, UsageError
from bobrt.spec import Batch, EngineSpec, Precision
from engines import trt_build

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Find = Callable[..., Artifact]
    Graph = Callable[..., onnx.ModelProto]


def spec(precision: Precision = Precision.FP32, batch: Batch = "dynamic", target: str = "8.6") -> EngineSpec:
    return EngineSpec(
        runtime="tensorrt-rtx", precision=precision, batch=batch, compute_capability=target, device=""
    )


class Watched:
    """The real library, remembering what its builder was told."""

    def __init__(self) -> None:
        self.flags: list[int] = []
        self.tf32: list[bool] = []
        self.profile: list[Any] = []
        self.target: list[Any] = []
        told = self

        class Builder(trt.Builder):
            def create_network(self, flags: int) -> Any:
                told.flags.append(flags)
                return super().create_network(flags)

            def create_optimization_profile(self) -> Any:
                self.profile = super().create_optimization_profile()
                return self.profile

            def build_serialized_network(self, network: Any, config: Any) -> Any:
                told.tf32.append(config.get_flag(trt.BuilderFlag.TF32))
                told.profile += [tuple(shape) for shape in self.profile.get_shape("images")]
                told.target += [
                    config.get_compute_capability(i) for i in range(config.num_compute_capabilities)
                ]
                return super().build_serialized_network(network, config)

        self.Builder = Builder

    def __getattr__(self, name: str) -> Any:
        return getattr(trt, name)


@pytest.mark.parametrize(
    ("precision", "stage", "tf32"),
    [
        (Precision.FP32, "onnx", False),
        (Precision.TF32, "onnx", True),
        (Precision.FP16, "fp16", False),
        (Precision.INT8, "int8-tensorrt", False),
    ],
)
def test_every_precision_builds_with_tf32_set_explicitly(
    made: Find, precision: Precision, stage: str, tf32: bool
) -> None:
    """Strongly typed, for SM 8.6, and with TF32 math for `tf32` alone: the library's default is on."""
    watched = Watched()

    engine = trt_build.build(watched, made(stage).path.read_bytes(), spec(precision), log := [])

    assert len(engine) > 10_000
    assert watched.tf32 == [tf32]
    assert watched.target == [trt.ComputeCapability.SM86]
    assert watched.flags == [1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)]
    assert not [line for line in log if line.startswith(("ERROR", "INTERNAL_ERROR"))]


def test_left_alone_the_library_would_allow_tf32() -> None:
    """The reason to set it: a builder nobody told anything has it on."""
    config = trt.Builder(trt.Logger(trt.Logger.ERROR)).create_builder_config()

    assert config.get_flag(trt.BuilderFlag.TF32)


def test_a_free_batch_axis_gets_a_profile(made: Find) -> None:
    """One image to 64, tuned for 8."""
    watched = Watched()

    trt_build.build(watched, made("onnx").path.read_bytes(), spec(), [])

    assert watched.profile == [(1, 32, 32, 3), (8, 32, 32, 3), (64, 32, 32, 3)]


def test_a_fixed_batch_is_the_whole_profile(made: Find) -> None:
    """Smallest, best and largest are the file's own."""
    model = onnx.load(made("onnx").path)
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 5
    watched = Watched()

    trt_build.build(watched, model.SerializeToString(), spec(batch=5), [])

    assert watched.profile == [(5, 32, 32, 3)] * 3


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([helper.make_node("Frobnicate", ["x"], ["y"])], "cannot parse the file: node Frobnicate: "),
        ([helper.make_node("NonZero", ["x"], ["y"])], "cannot parse the file: node NonZero: "),
        (None, "cannot parse the file: "),
    ],
    ids=["unknown node type", "unsupported node type", "not ONNX"],
)
def test_a_file_it_cannot_parse_is_refused_in_one_line(
    graph: Graph, nodes: list[onnx.NodeProto] | None, message: str
) -> None:
    """The library and the node are named, the hint leads to another runtime, the log is kept."""
    content = b"not an ONNX file" if nodes is None else graph(nodes).SerializeToString()

    with pytest.raises(BobrtError) as caught:
        trt_build.build(trt, content, spec(), log := [])

    assert caught.value.message.startswith(f"tensorrt-rtx {message}")
    assert "\n" not in caught.value.message
    assert "bobrt list runtimes" in caught.value.hint
    assert [line for line in log if line.startswith("ERROR: ")]


def test_a_file_it_cannot_build_is_refused_in_one_line(graph: Graph) -> None:
    """What parses and does not build ends with the library's last error."""
    model = graph([helper.make_node("Relu", ["x"], ["z"])])
    del model.graph.output[:]

    with pytest.raises(BobrtError, match=r"^tensorrt-rtx cannot build the file: ERROR: .*output") as caught:
        trt_build.build(trt, model.SerializeToString(), spec(), [])

    assert "\n" not in caught.value.message


def test_a_second_input_is_refused(graph: Graph) -> None:
    """A bobrt engine takes `images` and nothing else; the other input is named."""
    floats = onnx.TensorProto.FLOAT
    inputs = [
        helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["batch", 4, 4, 3]),
        helper.make_tensor_value_info("offset", floats, ["batch", 4, 4, 3]),
    ]
    model = graph([helper.make_node("Add", ["x", "offset"], ["y"])], inputs=inputs)

    with pytest.raises(BobrtError, match="the file has an input offset; a bobrt engine takes only images"):
        trt_build.build(trt, model.SerializeToString(), spec(), [])


def test_a_gpu_the_library_cannot_build_for_is_named(made: Find) -> None:
    """TensorRT for RTX knows no Hopper: the compute capability and the version are in the line."""
    with pytest.raises(BobrtError) as caught:
        trt_build.build(trt, made("onnx").path.read_bytes(), spec(target="9.0"), [])

    assert caught.value.message == (f"tensorrt_rtx {trt.__version__} cannot build for compute capability 9.0")
    assert caught.value.hint == "build on the GPU itself"


@pytest.mark.parametrize(
    ("members", "flags"), [({"STRONGLY_TYPED": 1}, 2), ({"STRONGLY_TYPED": 0}, 1), ({}, 0)]
)
def test_a_library_without_the_flag_is_asked_for_none(members: dict[str, int], flags: int) -> None:
    """Where strong typing has a flag it is set; where it is the only way, nothing is."""
    library = SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace(**members))

    assert trt_build._network_flags(library) == flags


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_s_folder_has_the_engine_its_log_and_what_it_is(made: Find, precision: str) -> None:
    """The manifest names library, target and share; the log is the builder's own words."""
    engine = made("engine-tensorrt-rtx", precision)
    detail = engine.manifest.detail
    log = (engine.path.parent / "build.log").read_text(encoding="utf-8").splitlines()

    assert engine.path.name == "engine.bin"
    assert engine.manifest.options["compute_capability"] == "8.6"
    assert detail["library"] == trt.__version__
    assert detail["card"]["precision"] == precision
    assert detail["shares"][precision] >= 0.9
    assert [line for line in log if line.startswith("INFO: ")]
    assert not [line for line in log if line.startswith(("ERROR", "INTERNAL_ERROR"))]


def test_the_log_is_kept_when_the_build_fails(graph: Graph, made: Find, tmp_path: Path) -> None:
    """No engine, and the library's errors beside where it would have been."""
    model = graph([helper.make_node("NonZero", ["x"], ["y"])])
    helper.set_model_props(
        model, {"bobrt": msgspec.json.encode(made("onnx").manifest.detail["card"]).decode()}
    )
    onnx.save(model, tmp_path / "it.onnx")
    source = Artifact(tmp_path / "it.onnx", made("onnx").manifest)

    with pytest.raises(BobrtError, match="node NonZero"):
        trt_build.make(Job(msgspec.to_builtins(spec()), source, tmp_path, lambda *_: None))

    assert "ERROR: " in (tmp_path / "build.log").read_text(encoding="utf-8")
    assert not (tmp_path / "engine.bin").exists()


def test_an_engine_is_not_built_from_half_a_file(made: Find, tmp_path: Path) -> None:
    """A truncated source is named as such, before the library sees it."""
    (tmp_path / "half.onnx").write_bytes(made("onnx").path.read_bytes()[:-1000])
    source = Artifact(tmp_path / "half.onnx", made("onnx").manifest)

    with pytest.raises(UsageError, match=r"half\.onnx is damaged or truncated"):
        trt_build.make(Job(msgspec.to_builtins(spec()), source, tmp_path, lambda *_: None))
