"""What bobrt writes into an ONNX file, and what it makes of files that others wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bobrt.errors import BobrtError, UsageError
from bobrt.paths import sha256_of
from bobrt.spec import FileCard, Precision, Protocol
from engines import onnx_file
from engines.runner import TensorMeta

if TYPE_CHECKING:
    from collections.abc import Callable

    from bobrt.artifacts import Artifact

    Graph = Callable[..., onnx.ModelProto]

WEIGHT = numpy_helper.from_array(np.ones((3, 7), np.float32), "w")
PRODUCT = [helper.make_node("MatMul", ["x", "w"], ["y"])]


@pytest.fixture
def model(graph: Graph) -> onnx.ModelProto:
    """A small graph with one product."""
    return graph(PRODUCT, [WEIGHT])


@pytest.mark.parametrize(
    ("keep", "reason"),
    [(lambda content: content[:-30], "is damaged or truncated: "), (lambda _: b"", "it holds no graph")],
    ids=["cut", "empty"],
)
def test_half_a_file_is_named(
    model: onnx.ModelProto, tmp_path: Path, keep: Callable[[bytes], bytes], reason: str
) -> None:
    """A file that is not whole is refused in one line with its path."""
    path = tmp_path / "half.onnx"
    path.write_bytes(keep(model.SerializeToString()))

    with pytest.raises(UsageError) as caught:
        onnx_file.load(path)

    assert caught.value.message.startswith(f"ONNX file {path} ")
    assert reason in caught.value.message
    assert "\n" not in caught.value.message


def test_a_file_whose_weights_lie_elsewhere_and_are_gone_is_named(
    model: onnx.ModelProto, tmp_path: Path
) -> None:
    """External data that was not carried along is said to be missing."""
    onnx.save(model, tmp_path / "it.onnx", save_as_external_data=True, location="it.bin", size_threshold=0)
    (tmp_path / "it.bin").unlink()

    with pytest.raises(UsageError, match=r"ONNX file .*it\.(onnx|bin)"):
        onnx_file.load(tmp_path / "it.onnx")


def external(model: onnx.ModelProto, path: Path, location: str) -> Path:
    """Save a model with its weight in a file of its own, and say where that is."""
    onnx.save(model, path, save_as_external_data=True, location="it.bin", size_threshold=0)
    saved = onnx.load(path, load_external_data=False)
    for entry in saved.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(saved.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["../it.bin", "/etc/passwd", "inner/../../it.bin"])
def test_weights_outside_the_files_own_folder_are_refused(
    model: onnx.ModelProto, tmp_path: Path, location: str
) -> None:
    """A model file cannot have other files read and hashed, or shipped without them."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = external(model, folder / "it.onnx", location)

    with pytest.raises(UsageError, match=f"has its weights in {location}, outside its own folder"):
        onnx_file.as_artifact(path)


def test_the_files_beside_a_model_are_part_of_what_it_is(model: onnx.ModelProto, tmp_path: Path) -> None:
    """Other weights under the same graph are another file: its hash and its size say so."""
    path = external(model, tmp_path / "it.onnx", "it.bin")
    before = onnx_file.as_artifact(path).manifest
    assert before.sha256 == onnx_file.identity(path) != sha256_of(path)
    assert before.bytes == path.stat().st_size + (tmp_path / "it.bin").stat().st_size

    (tmp_path / "it.bin").write_bytes(np.zeros((3, 7), np.float32).tobytes())

    assert onnx_file.identity(path) != before.sha256
    (tmp_path / "it.bin").unlink()
    with pytest.raises(UsageError, match=r"has its weights in it\.bin, which is not beside it"):
        onnx_file.identity(path)


def constant(values: bytes, location: str = "") -> onnx.NodeProto:
    """Return a node that gives ten floats, held in it or in a file."""
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[10], raw_data=values, name="held")
    if location:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    return helper.make_node("Constant", [], ["w"], value=tensor)


@pytest.mark.parametrize("place", ["graph", "branch", "function"])
def test_a_constant_may_lie_beside_a_model_too(graph: Graph, tmp_path: Path, place: str) -> None:
    """Wherever it is read from, it is part of what the file is, and must lie in its folder."""

    def saved(location: str) -> Path:
        held = constant(bytes(40), location)
        nodes = {
            "graph": [held, helper.make_node("Shape", ["w"], ["y"])],
            "branch": [
                helper.make_node("If", ["x"], ["y"], then_branch=branch(held), else_branch=branch(held))
            ],
            "function": [helper.make_node("Held", [], ["y"], domain="my.lab")],
        }
        model = graph(nodes[place])
        if place == "function":
            opset = helper.make_opsetid("", 20)
            model.functions.append(helper.make_function("my.lab", "Held", [], ["w"], [held], [opset]))
        path = tmp_path / "it.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    beside = tmp_path / "it.bin"
    beside.write_bytes(bytes(40))
    path = saved("it.bin")
    before = onnx_file.identity(path)
    assert onnx_file.beside(onnx_file.graph_of(path), path) == [beside]
    beside.write_bytes(bytes(39) + b"x")
    assert onnx_file.identity(path) != before
    with pytest.raises(UsageError, match="outside its own folder"):
        onnx_file.identity(saved("../it.bin"))


def branch(node: onnx.NodeProto) -> onnx.GraphProto:
    """Return a branch of an If that is one node."""
    return helper.make_graph(
        [node], "branch", [], [helper.make_tensor_value_info("w", TensorProto.FLOAT, [10])]
    )


@pytest.mark.parametrize(
    ("sides", "batch", "size"),
    [
        ([1, 64, 64, 3], 1, 64),
        (["n", "h", "w", 3], "dynamic", 224),
        ([-1, 64, 64, 3], "dynamic", 64),
        ([64, 64, 3], "dynamic", 224),
        ([], "dynamic", 224),
    ],
)
def test_what_a_strange_input_says_is_taken_for_images_of_some_size(
    graph: Graph, tmp_path: Path, sides: list[int | str], batch: int | str, size: int
) -> None:
    """An input of another rank has no batch, and one with a free or negative side leaves it open."""
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, sides)
    model = graph([helper.make_node("MatMul", ["x", "w"], ["y"])], [WEIGHT], [images])
    (tmp_path / "it.onnx").write_bytes(model.SerializeToString())
    card = onnx_file.as_artifact(tmp_path / "it.onnx").manifest.detail["card"]
    assert (card["batch"], card["transform"]["size"]) == (batch, size)  # type: ignore[index, call-overload]


@pytest.mark.parametrize(
    ("told", "word"),
    [
        (onnx.TypeProto(sequence_type=onnx.TypeProto.Sequence()), "sequence"),
        (onnx.TypeProto(), "untyped"),
        (onnx.TypeProto(tensor_type=onnx.TypeProto.Tensor(elem_type=99)), "type 99"),
    ],
)
def test_what_is_no_tensor_is_called_what_it_is(
    model: onnx.ModelProto, told: onnx.TypeProto, word: str
) -> None:
    """Whoever opens it refuses it then, and other files of the command go on."""
    model.graph.input[0].type.CopyFrom(told)

    (meta,) = onnx_file.inputs_of(model).values()

    assert meta.dtype == word


@pytest.mark.parametrize("location", ["x" * 300, "a\0b"], ids=["too long", "no name"])
def test_a_place_of_weights_that_is_no_file_is_refused(
    model: onnx.ModelProto, tmp_path: Path, location: str
) -> None:
    """Whatever the system says of it, in one line."""
    path = external(model, tmp_path / "it.onnx", location)

    with pytest.raises(UsageError, match="has its weights in no file: ") as caught:
        onnx_file.beside(onnx_file.graph_of(path), path)

    assert len(caught.value.message.splitlines()) == 1


def test_weights_that_are_listed_as_inputs_are_none(graph: Graph) -> None:
    """Files of the first years of ONNX list them."""
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", -1, 4, 3])
    listed = helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 7])
    model = graph([helper.make_node("MatMul", ["x", "w"], ["y"])], [WEIGHT], [images, listed])
    assert onnx_file.inputs_of(model) == {"images": TensorMeta("uint8", (None, None, 4, 3))}


def test_a_model_too_large_for_one_file_is_refused_before_it_is_written(
    model: onnx.ModelProto, card: Callable[..., FileCard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protobuf ends at two gigabytes, with an error that names nothing."""
    monkeypatch.setattr(onnx_file, "LIMIT", 80)

    with pytest.raises(BobrtError, match=r"test_resnet is 0\.0 GB, and one ONNX file holds"):
        onnx_file.save(model, card(), tmp_path / "it.onnx")

    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there_is_not_called_damaged(tmp_path: Path) -> None:
    """A missing file is called missing."""
    with pytest.raises(UsageError, match=r"gone\.onnx does not exist"):
        onnx_file.load(tmp_path / "gone.onnx")


def test_what_differs_between_two_exports_is_not_written(
    model: onnx.ModelProto, card: Callable[..., FileCard], tmp_path: Path
) -> None:
    """Stack traces, comments, foreign metadata and stale shapes are stripped; the card is the only key."""
    plain, littered = onnx.ModelProto(), onnx.ModelProto()
    plain.CopyFrom(model)
    littered.CopyFrom(model)
    for thing in (littered, littered.graph, *littered.graph.node, *littered.graph.initializer):
        thing.doc_string = 'File "/home/me/train.py", line 3'
    for thing in (littered.graph, *littered.graph.node, littered.graph.input[0]):
        thing.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/me/train.py")
    helper.set_model_props(littered, {"author": "me"})
    littered.graph.value_info.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 4, 3]))

    onnx_file.save(plain, card(), tmp_path / "plain.onnx")
    onnx_file.save(littered, card(), tmp_path / "littered.onnx")

    assert (tmp_path / "littered.onnx").read_bytes() == (tmp_path / "plain.onnx").read_bytes()
    written = onnx.load(tmp_path / "littered.onnx")
    assert [prop.key for prop in written.metadata_props] == ["bobrt"]
    assert onnx_file.require_card(written, tmp_path) == card()


def test_a_graph_that_onnx_refuses_is_not_written(
    graph: Graph, card: Callable[..., FileCard], tmp_path: Path
) -> None:
    """The checker runs before the file is there."""
    wrong = graph([helper.make_node("MatMul", ["x", "nowhere"], ["y"])])

    with pytest.raises(onnx.checker.ValidationError, match="nowhere"):
        onnx_file.save(wrong, card(), tmp_path / "it.onnx")

    assert not (tmp_path / "it.onnx").exists()


def test_a_file_without_our_metadata_says_how_to_get_one(model: onnx.ModelProto) -> None:
    """Where a card is needed and none is there, the hint is to export it."""
    assert onnx_file.card_of(model, Path("it.onnx")) is None
    with pytest.raises(UsageError, match=r"it\.onnx carries no bobrt metadata") as caught:
        onnx_file.require_card(model, Path("it.onnx"))

    assert "bobrt export" in caught.value.hint


DEEP = '{"backbone": {"args": {"a": ' + 3000 * "[" + 3000 * "]" + "}}}"


@pytest.mark.parametrize("text", ["{", "{}", '{"bobrt": 3}', '"a card"', DEEP])
def test_damaged_metadata_is_named(model: onnx.ModelProto, text: str) -> None:
    """A card that is no card is refused with the file's name, never taken for none."""
    helper.set_model_props(model, {"bobrt": text})

    with pytest.raises(UsageError, match=r"it\.onnx has damaged bobrt metadata: "):
        onnx_file.card_of(model, Path("it.onnx"))


def test_a_file_of_someone_else_is_known_by_its_name_and_its_bytes(graph: Graph, tmp_path: Path) -> None:
    """Without a card: named as the file is, published, no task, at the precision of most of its products."""
    path = tmp_path / "theirs.onnx"
    half = [
        helper.make_node("Cast", ["x"], ["a"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["w"], ["b"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["a", "b"], ["c"]),
        helper.make_node("Cast", ["c"], ["y"], to=TensorProto.FLOAT),
    ]
    onnx.save(graph(half, [WEIGHT]), path)

    artifact = onnx_file.as_artifact(path)
    card = artifact.manifest.detail["card"]

    assert artifact.sha256 == sha256_of(path)
    assert (card["backbone"]["name"], card["weights"]) == ("theirs", f"file:{sha256_of(path)}")
    assert (card["precision"], card["task"], card["protocol"]) == (Precision.FP16, "", Protocol.PUBLISHED)
    assert card["transform"]["size"] == 4


def test_our_own_file_is_known_by_its_card_wherever_it_lies(made: Callable[..., Artifact]) -> None:
    """A file that carries a card needs nothing else beside it."""
    ours = made("onnx")

    artifact = onnx_file.as_artifact(ours.path)

    cards = [msgspec.convert(one.manifest.detail["card"], type=FileCard) for one in (artifact, ours)]
    assert cards[0] == cards[1]
    assert artifact.sha256 == ours.sha256
