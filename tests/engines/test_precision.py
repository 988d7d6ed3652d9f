"""The fp32 file at another precision: what is in the file, and what it was set on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from support import TINY

from bobrt import data
from bobrt.artifacts import Artifact, Job, Produced, read_artifact
from bobrt.catalogue import TASKS
from bobrt.data.resize import resize
from bobrt.errors import BobrtError, UsageError
from bobrt.spec import FileCard, Placement, Precision, Protocol, TaskCard
from engines import hybrid, onnx_file, precision
from engines.judge import Judge
from engines.ort_cpu import OrtCpuRunner
from engines.runner import answers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from support import Ran, Workspace

    Find = Callable[..., Artifact]

STAGES = ["fp16", "int8-onnxruntime", "int8-tensorrt"]


def values(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the type of every input and output."""
    return {value.name: value.type.tensor_type.elem_type for value in [*graph.input, *graph.output]}


@pytest.mark.parametrize("stage", STAGES)
def test_most_of_the_arithmetic_is_at_the_precision_asked_for(made: Find, stage: str) -> None:
    """Read back from the file: nine tenths of the multiply-adds, and the manifest says how much."""
    asked = stage.partition("-")[0]
    shares = made(stage).manifest.detail["shares"]

    assert shares[asked] >= 0.9
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("stage", STAGES)
def test_the_file_is_asked_as_the_fp32_file_is(made: Find, stage: str) -> None:
    """Bytes in, floats out, the same names and shapes: a precision changes nothing outside."""
    fp32, low = onnx.load(made("onnx").path).graph, onnx.load(made(stage).path).graph

    assert values(low) == {
        "images": TensorProto.UINT8,
        "features": TensorProto.FLOAT,
        "logits": TensorProto.FLOAT,
    }
    assert low.input[0].type == fp32.input[0].type
    assert [value.name for value in low.output] == [value.name for value in fp32.output]


@pytest.mark.parametrize(
    ("stage", "asked", "placement"),
    [
        ("fp16", Precision.FP16, Placement.NONE),
        ("int8-onnxruntime", Precision.INT8, Placement.ORT),
        ("int8-tensorrt", Precision.INT8, Placement.TENSORRT),
    ],
)
def test_the_file_says_its_precision_and_whose_rules_placed_it(
    made: Find, stage: str, asked: Precision, placement: Placement
) -> None:
    """The card is the fp32 file's with those two words changed, in the file and in the manifest."""
    artifact = made(stage)
    fp32 = onnx_file.require_card(onnx.load(made("onnx").path), made("onnx").path)
    card = onnx_file.require_card(onnx.load(artifact.path), artifact.path)

    assert card == msgspec.structs.replace(fp32, precision=asked, placement=placement)
    assert msgspec.convert(artifact.manifest.detail["card"], type=FileCard) == card


def test_a_record_names_the_placement(tiny_run: tuple[Workspace, Ran]) -> None:
    """Each int8 row says whose placement was measured, and no other row claims one."""
    records = [
        json.loads(path.read_text())
        for path in tiny_run[0].results.rglob("*.json")
        if not path.name.endswith(".samples.json")
    ]
    placed = {
        (r["cell"]["runtime"], r["cell"]["precision"]): r["artifact"]["placement"]
        for r in records
        if r["artifact"]
    }

    assert placed.pop(("ort-cpu", "int8")) == "onnxruntime"
    assert placed.pop(("tensorrt-rtx", "int8")) == "tensorrt"
    assert set(placed.values()) == {"none"}


def test_the_two_placements_differ(made: Find) -> None:
    """ONNX Runtime's leaves no fp16 for its CPU kernels to convert; ModelOpt's has the rest in fp16."""
    types = {
        stage: {tensor.data_type for tensor in onnx.load(made(stage).path).graph.initializer}
        for stage in ("int8-onnxruntime", "int8-tensorrt")
    }

    assert TensorProto.FLOAT16 not in types["int8-onnxruntime"]
    assert TensorProto.FLOAT16 in types["int8-tensorrt"]


def test_no_conversion_touches_the_file_it_starts_from(made: Find) -> None:
    """After all of them the fp32 file is still the one its manifest and its descendants name."""
    source = read_artifact(made("onnx").path.parent)

    for stage in STAGES:
        assert made(stage).manifest.source_sha256 == source.sha256
        assert sorted(file.name for file in made(stage).path.parent.iterdir()) == [
            "manifest.json",
            "model.onnx",
        ]


@pytest.mark.parametrize("asked", ["fp16", "int8"])
@pytest.mark.parametrize(
    ("factors", "islands"),
    [((1e6, 1e-6), ["down", "up"]), ((1e-5, 1e5), ["down"])],
    ids=["value", "constant"],
)
def test_what_fp16_cannot_hold_stays_in_fp32(
    made: Find, tmp_path: Path, asked: str, factors: tuple[float, float], islands: list[str]
) -> None:
    """A million times an activation, or a constant: what meets it is listed in the card; answers are right.

    Beside eight bits, where ModelOpt has no islands, nothing is in fp16 then.
    """
    model = onnx.load(made("onnx").path)
    conv = next(n for n in model.graph.node if n.op_type == "Conv" and "layer3" in n.name)
    place, made_here = list(model.graph.node).index(conv) + 1, conv.output[0]
    conv.output[0] = "small"
    muls = ("up", "small", "large"), ("down", "large", made_here)
    for (name, read, wrote), factor in zip(muls, factors, strict=True):
        model.graph.initializer.append(onnx.helper.make_tensor(f"{name}.by", TensorProto.FLOAT, [], [factor]))
        model.graph.node.insert(place, onnx.helper.make_node("Mul", [read, f"{name}.by"], [wrote], name))
        place += 1
    source = Artifact(tmp_path / "model.onnx", made("onnx").manifest)
    onnx.save(model, source.path)
    (tmp_path / asked).mkdir()
    make = {"fp16": precision.make_fp16, "int8": precision.make_int8_for_tensorrt}[asked]
    low = make(Job({"images": 32}, source, tmp_path / asked, lambda *_: None))

    path = tmp_path / asked / low.file
    graph = onnx_file.load(path)
    card = onnx_file.require_card(graph, path)
    assert sorted(card.islands) == islands
    assert low.detail["shares"][asked] == pytest.approx(1.0, abs=1e-3)
    halves = {tensor.name for tensor in graph.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    assert bool(halves) == (asked == "fp16")
    images = precision.calibration_images(card, 32)
    with OrtCpuRunner(path, 1) as half, OrtCpuRunner(source.path, 1) as whole:
        got, want = answers(half, images, 16), answers(whole, images, 16)
    loose = {"fp16": 0.02, "int8": 0.2}[asked]
    np.testing.assert_allclose(got["logits"], want["logits"], atol=loose * np.abs(want["logits"]).max())


@pytest.mark.parametrize("stage", STAGES)
def test_a_low_precision_still_answers_the_task(made: Find, stage: str) -> None:
    """On validation nine of ten images keep their answer, though one epoch leaves many of them undecided."""
    card = TASKS.get("digits")
    assert card.transform is not None
    images = resize(data.load(card, "validation").images, card.transform)
    with np.load(made("reference").path) as kept:
        want = kept["validation.logits"].argmax(axis=1)

    with OrtCpuRunner(made(stage).path, 1) as runner:
        got = answers(runner, images, 32)["logits"].argmax(axis=1)

    assert len(np.unique(want)) > 5
    assert (got == want).mean() >= 0.85


def test_int8_sums_cannot_overflow_on_a_cpu_without_vnni(made: Find) -> None:
    """Weights keep to seven bits, so that two products of them with a byte fit into sixteen."""
    model = onnx.load(made("int8-onnxruntime").path)
    weights = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.INT8 and tensor.name.endswith("_quantized")
    ]

    assert len(weights) > 5
    assert max(int(np.abs(weight.astype(int)).max()) for weight in weights) <= 64


@pytest.fixture
def tuned_card(made: Find) -> FileCard:
    """The card of the tiny run's fp32 file."""
    return msgspec.convert(made("onnx").manifest.detail["card"], type=FileCard)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the splits that are loaded from now on."""
    names, real = [], data.load

    def load(card: TaskCard, name: str) -> data.Split:
        names.append(name)
        return real(card, name)

    monkeypatch.setattr(data, "load", load)
    return names


def test_calibration_sees_training_images_alone(tuned_card: FileCard, asked: list[str]) -> None:
    """It asks for `train` and nothing else, and what it gets back are 256 different images of it."""
    images = precision.calibration_images(tuned_card)
    assert asked == ["train"]
    train = data.load(TASKS.get("digits"), "train")
    known = {image.tobytes() for image in resize(train.images, tuned_card.transform)}

    assert images.shape == (256, 32, 32, 3)
    assert {image.tobytes() for image in images} <= known
    assert len({image.tobytes() for image in images}) == 256
    others = [data.load(TASKS.get("digits"), name) for name in ("validation", "test")]
    assert not set(train.ids) & {one for split in others for one in split.ids}


class Seen(Exception):  # noqa: N818 - it ends a conversion whose images have been seen
    """The images a quantizer was given."""


def see_batches(_source: str, _file: str, reader: Any, **_: Any) -> None:
    raise Seen(np.concatenate([batch["images"] for batch in iter(reader.get_next, None)]))


def see_all(_source: str, *, calibration_data: dict[str, NDArray[np.uint8]], **_: Any) -> None:
    raise Seen(calibration_data["images"])


@pytest.mark.parametrize(
    "make", [precision.make_int8_for_onnxruntime, precision.make_int8_for_tensorrt, precision.make_fp8]
)
def test_a_quantizer_is_given_those_images(
    made: Find,
    tuned_card: FileCard,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Job], Produced],
) -> None:
    """All of them, in order, and nothing else: a range set on noise is wrong by a third for a ViT."""
    monkeypatch.setattr("onnxruntime.quantization.quantize_static", see_batches)
    monkeypatch.setattr("modelopt.onnx.quantization.quantize", see_all)

    with pytest.raises(Seen) as seen:
        make(Job({"images": 40}, made("onnx"), tmp_path, lambda *_: None))

    np.testing.assert_array_equal(seen.value.args[0], precision.calibration_images(tuned_card, 40))


@pytest.mark.parametrize(("batch", "count"), [("dynamic", 256), (3, 258), (256, 256), (300, 300)])
def test_a_file_with_a_batch_of_its_own_is_calibrated_on_whole_batches(
    tuned_card: FileCard, batch: int | str, count: int
) -> None:
    """The last batch is filled up from the first images, so that no image is left out."""
    plain = precision.calibration_images(tuned_card)

    images = precision.calibration_images(msgspec.structs.replace(tuned_card, batch=batch))

    assert len(images) == count
    np.testing.assert_array_equal(images[:256], plain)
    np.testing.assert_array_equal(images[256:], plain[: count - 256])


def test_a_fixed_batch_goes_all_the_way_at_every_precision(workspace: Workspace) -> None:
    """`bobrt bench --batch 3`: two precisions on the CPU and three engines, parity and accuracy as ever."""
    done = workspace.bobrt("bench", "--plan", TINY, "--batch", "3", "--json", timeout=600)

    assert done.code == 0, done.err
    rows = {
        (row["cell"]["runtime"], row["cell"]["precision"]): row
        for row in json.loads(done.out)["results"]
        if row["cell"]["batch"] == 3
    }
    assert len(rows) == 6
    assert rows["ort-cpu", "fp16"]["reason"].endswith(
        "its CPU kernels compute 16-bit floats in fp32, and have no fp8"
    )
    for asked in ("fp32", "fp16", "int8"):
        assert rows["tensorrt-rtx", asked]["artifact"]["bytes"] > 0
    for asked in ("fp32", "int8"):
        row = rows["ort-cpu", asked]
        assert row["state"] == "complete", row["reason"]
        assert [latency["batch"] for latency in row["latency"]] == [3]
        assert (row["accuracy"]["n"], row["parity"]["n"]) == (450, 269)
        assert row["parity"]["agreement"] >= 0.85  # one epoch leaves many images undecided
        assert row["artifact"]["precision_share"] >= 0.9
        assert row["artifact"]["realised_share"] >= 0.9


def test_blocks_that_cost_too_much_stay_out_of_int8(workspace: Workspace, made: Find) -> None:
    """`--max-drop 0`: the file loses nothing on validation, and what it keeps out is in its card."""
    asked = ("build", "test_resnet", "--plan", TINY, "--task", "digits", "--weights", "random")
    done = workspace.bobrt(*asked, "--precision", "int8", "--max-drop", "0", "--json")

    assert done.code == 0, done.err
    detail = json.loads(done.out)["artifact"]["detail"]
    kept = detail["card"]["kept"]
    assert detail["validation_drop"] <= 0
    assert (detail["shares"].get("int8", 0.0) < 1.0) == bool(kept)
    blocks = hybrid.blocks(onnx.load(made("onnx").path))
    assert set(kept) < set(blocks)
    assert f"drop on validation: {detail['validation_drop']:+.1f} points" in done.err


@pytest.mark.parametrize("protocol", [Protocol.FINETUNE, Protocol.KNN])
def test_a_file_is_judged_by_what_its_protocol_makes_of_it(
    made: Find, tuned_card: FileCard, tmp_path: Path, asked: list[str], protocol: Protocol
) -> None:
    """Neighbours of its features where nothing was trained on them; never on test images."""
    card, path = msgspec.structs.replace(tuned_card, protocol=protocol), made("onnx").path
    judge = Judge(path, card, precision.calibration_images(card, 8), Precision.INT8)
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 4:
            blind = np.zeros(tuple(tensor.dims), np.float32)
            tensor.CopyFrom(numpy_helper.from_array(blind, tensor.name))
    onnx.save(model, tmp_path / "broken.onnx")

    assert (judge.drop(path), judge.harm(path)) == (0, 0)
    assert judge.drop(tmp_path / "broken.onnx") > 10
    assert "test" not in asked


@pytest.mark.parametrize("asked", ["int8", "fp16"])
def test_a_backbone_as_published_has_no_images_to_calibrate_on(bobrt: Callable[..., Ran], asked: str) -> None:
    """Refused before anything is made: exit code 2, and the command that has a task."""
    asked_for = ("--weights", "random", "--runtime", "tensorrt-rtx", "--precision", asked)
    done = bobrt("build", "convnext", *asked_for)

    assert done.code == 2
    assert f"error: {asked} is set on a task's training images" in done.err
    typed = f"--weights random --task digits --precision {asked} --runtime tensorrt-rtx"
    assert f"hint: bobrt build convnext_tiny.fb_in1k {typed}\n" in done.err
    assert done.out == ""


def test_a_file_that_answers_no_task_is_not_calibrated(tuned_card: FileCard) -> None:
    """Nor is it when it comes by another way than the command line."""
    card = msgspec.structs.replace(tuned_card, task="", protocol=Protocol.PUBLISHED)

    with pytest.raises(BobrtError, match="calibrated on a task's training images") as caught:
        precision.calibration_images(card)

    assert "--task" in caught.value.hint


def test_a_file_of_someone_else_is_not_quantized(
    graph: Callable[..., onnx.ModelProto], made: Find, tmp_path: Path
) -> None:
    """Without a card nobody knows its task; the file is named, not the copy that would be worked on."""
    path = tmp_path / "theirs.onnx"
    onnx.save(graph([onnx.helper.make_node("Relu", ["x"], ["y"])]), path)
    source = Artifact(path, made("onnx").manifest)

    with pytest.raises(UsageError, match=r"theirs\.onnx carries no bobrt metadata"):
        precision.make_int8_for_onnxruntime(Job({}, source, tmp_path, lambda *_: None))
