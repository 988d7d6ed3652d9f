"""An ONNX file built into an engine by the real TensorRT for RTX, which needs no GPU to build."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest
import tensorrt_rtx as trt
from onnx import TensorProto, helper

from bobrt.artifacts import Artifact, Job
from bobrt.errors import BobrtError, UsageError
from bobrt.spec import Batch, EngineSpec, Precision
from engines import trt_build

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Find = Callable[..., Artifact]
    Graph = Callable[..., onnx.ModelProto]


FLOAT, HALF, BF16, FP8 = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
    TensorProto.FLOAT8E4M3FN,
)
SIDES = (32, 32, 3)


def spec(
    precision: Precision = Precision.FP32, batch: Batch = "dynamic", target: str = "8.6", **changes: Any
) -> EngineSpec:
    return EngineSpec(
        runtime="tensorrt-rtx", precision=precision, batch=batch, compute_capability=target, **changes
    )


class Watched:
    """The real library, remembering what its builder was told."""

    def __init__(self) -> None:
        self.flags: list[int] = []
        self.tf32: list[bool] = []
        self.ours_to_allocate: list[bool] = []
        self.profiles: list[Any] = []
        self.verbosity: list[Any] = []
        self.target: list[Any] = []
        told = self

        class Builder(trt.Builder):
            def __del__(self) -> None:
                """Not the library's own, which warns whoever has it called."""

            def create_network(self, flags: int) -> Any:
                told.flags.append(flags)
                return super().create_network(flags)

            def create_optimization_profile(self) -> Any:
                told.profiles.append(super().create_optimization_profile())
                return told.profiles[-1]

            def build_serialized_network(self, network: Any, config: Any) -> Any:
                told.tf32.append(config.get_flag(trt.BuilderFlag.TF32))
                told.ours_to_allocate.append(config.get_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION))
                told.profiles = [[tuple(s) for s in each.get_shape("images")] for each in told.profiles]
                told.verbosity.append(config.profiling_verbosity)
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
    """Strongly typed, for SM 8.6, and with TF32 math for `tf32` alone: the library's default is on.

    No memory is taken while it runs: such work could be no CUDA graph.
    """
    watched = Watched()

    engine = trt_build.build(watched, made(stage).path.read_bytes(), spec(precision), log := [])

    assert len(engine) > 10_000
    assert watched.tf32 == [tf32]
    assert watched.ours_to_allocate == [True]
    assert watched.target == [trt.ComputeCapability.SM86]
    assert watched.flags == [1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)]
    assert not [line for line in log if line.startswith(("ERROR", "INTERNAL_ERROR"))]


def test_left_alone_the_library_would_allow_tf32() -> None:
    """The reason to set it: a builder nobody told anything has it on."""
    config = trt.Builder(trt.Logger(trt.Logger.ERROR)).create_builder_config()

    assert config.get_flag(trt.BuilderFlag.TF32)


def test_the_engine_can_be_asked_what_it_came_to(made: Find) -> None:
    """Details of its layers are kept in it."""
    watched = Watched()

    trt_build.build(watched, made("onnx").path.read_bytes(), spec(), [])

    assert watched.verbosity == [trt.ProfilingVerbosity.DETAILED]


def test_a_free_batch_axis_gets_every_profile_that_was_asked_for(made: Find) -> None:
    """One image alone, a few, many: each tuned for its own."""
    watched, asked = Watched(), ((1, 1, 1), (2, 8, 16), (17, 64, 256))

    trt_build.build(watched, made("onnx").path.read_bytes(), spec(profiles=asked), [])

    assert watched.profiles == [[(batch, *SIDES) for batch in profile] for profile in asked]


def test_a_fixed_batch_is_the_whole_profile(made: Find) -> None:
    """Smallest, best and largest are the file's own."""
    model = onnx.load(made("onnx").path)
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 5
    watched = Watched()

    trt_build.build(watched, model.SerializeToString(), spec(batch=5), [])

    assert watched.profiles == [[(5, *SIDES)] * 3]


def dense(graph: Graph, kind: int) -> onnx.ModelProto:
    """A layer whose product is in a type: by casts, or between a quantizer and its inverse for fp8."""
    weight = helper.make_tensor("w", FLOAT, [48, 32], np.random.default_rng(0).normal(size=1536))
    shape = helper.make_tensor("s", TensorProto.INT64, [2], [0, 48])
    one = helper.make_tensor("one", FLOAT, [], [0.5])
    zero = helper.make_tensor("zero", FP8, [], [0.0])
    node = helper.make_node
    if kind == FP8:
        through = [
            node(op, [name, "one", "zero"], [out])
            for name, out in (("f", "a"), ("w", "b"))
            for op, name, out in (("QuantizeLinear", name, f"{out}q"), ("DequantizeLinear", f"{out}q", out))
        ]
    else:
        through = [node("Cast", [name], [out], to=kind) for name, out in (("f", "a"), ("w", "b"))]
    nodes = [node("Reshape", ["x", "s"], ["f"]), *through, node("MatMul", ["a", "b"], ["c"])]
    nodes.append(node("Cast", ["c"], ["y"], to=FLOAT))
    model = graph(nodes, [weight, shape, one, zero])
    del model.graph.output[0].type.tensor_type.shape.dim[2:]
    return model


@pytest.mark.parametrize(
    ("precision", "kind", "target"),
    [(Precision.BF16, BF16, "8.6"), (Precision.FP16, HALF, "8.6"), (Precision.FP8, FP8, "8.9")],
)
def test_a_file_in_a_narrow_float_builds_for_a_gpu_that_has_it(
    graph: Graph, precision: Precision, kind: int, target: str
) -> None:
    """Strongly typed: the file alone says it, and no flag could."""
    log: list[str] = []

    assert trt_build.build(trt, dense(graph, kind).SerializeToString(), spec(precision, target=target), log)
    assert not [line for line in log if line.startswith(("ERROR", "INTERNAL_ERROR"))]


def test_fp8_does_not_build_for_a_gpu_without_it(graph: Graph) -> None:
    """The line says why; the compute capability to ask for is `stages.FP8_CAPABILITY`."""
    with pytest.raises(BobrtError, match=r"^tensorrt-rtx cannot build the file: ") as caught:
        trt_build.build(trt, dense(graph, FP8).SerializeToString(), spec(Precision.FP8, target="8.6"), [])

    assert "\n" not in caught.value.message


def attention(graph: Graph, kind: int) -> onnx.ModelProto:
    """Attention of opset 23, as torch's exporter writes it."""
    draw, node, numpy = np.random.default_rng(0), helper.make_node, onnx.numpy_helper.from_array
    initializers = [
        numpy(np.array(values, np.int64), name)
        for name, values in {"tokens": [0, 16, 3], "heads": [0, 16, 2, 32], "out": [0, 16, 64]}.items()
    ]
    nodes = [node("Reshape", ["x", "tokens"], ["t0"]), node("Cast", ["t0"], ["t"], to=kind)]
    for name in "qkv":
        weight = draw.normal(size=(3, 64)).astype(np.float32 if kind == FLOAT else np.float16)
        initializers.append(numpy(weight, f"w{name}"))
        nodes += [
            node("MatMul", ["t", f"w{name}"], [f"{name}0"]),
            node("Reshape", [f"{name}0", "heads"], [f"{name}1"]),
            node("Transpose", [f"{name}1"], [name], perm=[0, 2, 1, 3]),
        ]
    nodes += [
        node("Attention", ["q", "k", "v"], ["a"]),
        node("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3]),
        node("Reshape", ["b", "out"], ["c"]),
        node("Cast", ["c"], ["y"], to=FLOAT),
    ]
    model = graph(nodes, initializers, opset=23)
    del model.graph.output[0].type.tensor_type.shape.dim[3:]
    return model


@pytest.mark.parametrize("kind", [FLOAT, HALF], ids=["fp32", "fp16"])
def test_attention_builds_where_no_kernel_does_it_at_once(graph: Graph, kind: int) -> None:
    """It may be taken apart; nobody has to decompose it in the file."""
    assert trt_build.build(trt, attention(graph, kind).SerializeToString(), spec(), [])


def test_left_alone_attention_does_not_build(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason for it: there are fused kernels for narrow types alone, and the builder asks first."""
    monkeypatch.setattr(trt_build, "_let_attention_be_taken_apart", lambda *_: None)

    with pytest.raises(BobrtError, match="Attention operation was not supported by a dedicated kernel"):
        trt_build.build(trt, attention(graph, FLOAT).SerializeToString(), spec(), [])


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


OLD_BUILDER = """
import gc
import tensorrt_rtx as trt
from bobrt.errors import BobrtError
from bobrt.spec import EngineSpec
from engines import trt_build
from engines.trt_log import Log

class Collecting(list):
    def append(self, line):
        if gc.isenabled():
            gc.collect()  # as Python may at any moment
        super().append(line)

asked = EngineSpec(runtime="tensorrt-rtx", precision="fp32", batch=1, compute_capability="8.6")
gc.set_threshold(0)
old = [trt.Builder(Log([]).logger(trt))]
old.append(old)
del old
try:
    trt_build.build(trt, b"no model", asked, Collecting())
except BobrtError as error:
    print(error.message)
"""


def test_an_old_builder_is_no_deadlock() -> None:
    """Collected while the library logs with its lock held, it would wait for that lock for ever."""
    done = subprocess.run(
        [sys.executable, "-c", OLD_BUILDER], capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout.startswith("tensorrt-rtx cannot parse the file: ")


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
    """The manifest names all that it was built from and for; the log is the builder's own words."""
    engine = made("engine-tensorrt-rtx", precision)
    detail = engine.manifest.detail
    log = (engine.path.parent / "build.log").read_text(encoding="utf-8").splitlines()

    assert engine.path.name == "engine.bin"
    assert engine.manifest.options["compute_capability"] == "8.6"
    assert detail["identity"] == {
        "onnx_sha256": engine.manifest.source_sha256,
        "place": {
            "library": f"tensorrt_rtx {trt.__version__}",
            "compute_capability": "8.6",
            "gpu": None,
            "driver": None,
            "cuda": None,
        },
        "profiles": [[1, 8, 256]],
        "options": {"level": 3, "tf32": False, "strongly_typed": True, "user_allocation": True},
    }
    assert detail["macs"]
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
