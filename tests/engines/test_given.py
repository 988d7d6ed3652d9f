"""A model file made elsewhere, copied to where engines of it are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from bobrt.artifacts import Job, Target
from bobrt.errors import BobrtError
from engines import given, onnx_file
from engines.stages import workshop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bobrt.artifacts import Produced
    from bobrt.spec import Json

    Graph = Callable[..., onnx.ModelProto]

WEIGHT = numpy_helper.from_array(np.arange(21, dtype=np.float32).reshape(3, 7), "w")


@pytest.fixture
def model(graph: Graph) -> onnx.ModelProto:
    """A small graph with one product."""
    return graph([helper.make_node("MatMul", ["x", "w"], ["y"])], [WEIGHT])


def taken(path: Path, folder: Path, sha256: str | None = None) -> Produced:
    folder.mkdir()
    options = {"path": str(path), "sha256": sha256 or onnx_file.identity(path)}
    return given.make(Job(options, None, folder, lambda *_: None))


def test_the_copy_is_the_file(model: onnx.ModelProto, tmp_path: Path) -> None:
    """Byte for byte, so that its engine is that of the file; it is called as the file was."""
    path = tmp_path / "theirs.onnx"
    onnx.save(model, path)
    made = taken(path, tmp_path / "copy")
    assert (tmp_path / "copy" / made.file).read_bytes() == path.read_bytes()
    assert made.detail == onnx_file.as_artifact(path).manifest.detail
    assert made.detail["card"]["backbone"]["name"] == "theirs"  # type: ignore[call-overload,index]


def test_weights_that_lay_beside_it_are_in_the_copy(model: onnx.ModelProto, tmp_path: Path) -> None:
    """One file, whole without its neighbours."""
    path = tmp_path / "theirs.onnx"
    onnx.save(model, path, save_as_external_data=True, location="theirs.bin", size_threshold=0)
    made = taken(path, tmp_path / "copy")
    (tmp_path / "theirs.bin").unlink()
    (weight,) = onnx_file.load(tmp_path / "copy" / made.file).graph.initializer
    assert (numpy_helper.to_array(weight) == numpy_helper.to_array(WEIGHT)).all()
    assert onnx_file.beside(onnx_file.graph_of(tmp_path / "copy" / made.file), tmp_path / "copy") == []


def test_a_file_edited_since_it_was_named_is_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    """Nobody measures an engine of another model than the one that was asked for."""
    path = tmp_path / "theirs.onnx"
    onnx.save(model, path)
    with pytest.raises(BobrtError, match=r"theirs.onnx was edited meanwhile$"):
        taken(path, tmp_path / "copy", "0" * 64)


def test_an_answer_that_numpy_has_not_is_refused(graph: Graph, tmp_path: Path) -> None:
    """Before an engine is built whose answers nobody could read."""
    path = tmp_path / "theirs.onnx"
    cast = helper.make_node("Cast", ["x"], ["y"], to=onnx.TensorProto.BFLOAT16)
    model = graph([cast], [])
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.BFLOAT16
    onnx.save(model, path)
    with pytest.raises(BobrtError, match=r"theirs.onnx answers y bfloat16 \["):
        taken(path, tmp_path / "copy")


def test_a_file_too_large_for_one_is_refused(
    model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights beside a file may be of any size; what an engine is built from may not."""
    path = tmp_path / "theirs.onnx"
    onnx.save(model, path)
    monkeypatch.setattr(onnx_file, "LIMIT", 100)
    with pytest.raises(BobrtError, match=r"theirs.onnx is 0.0 GB, and an engine is built from at most 2$"):
        taken(path, tmp_path / "copy")


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([("images", ["n", "h", "w", 3])], "takes images uint8 [?, ?, ?, 3]"),
        ([("images", ["n", 3, 4, 4])], "takes images uint8 [?, 3, 4, 4]"),
        ([("images", [4, 4, 3])], "takes images uint8 [4, 4, 3]"),
        ([("images", ["n", 4, 4, 3]), ("mask", ["n"])], "takes images uint8 [?, 4, 4, 3], mask uint8 [?]"),
    ],
    ids=["free sides", "channels first", "no batch", "two inputs"],
)
def test_a_file_that_takes_no_images_is_refused_before_anything_is_built(
    graph: Graph, tmp_path: Path, inputs: list[tuple[str, list[int | str]]], words: str
) -> None:
    """In the words of every other runtime, and not a builder's."""
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, sides) for name, sides in inputs]
    path = tmp_path / "theirs.onnx"
    onnx.save(graph([helper.make_node("MatMul", ["x", "w"], ["y"])], [WEIGHT], values), path)
    with pytest.raises(BobrtError) as caught:
        taken(path, tmp_path / "copy")
    assert f"{path} {words}; a bobrt engine takes images uint8 [batch, side, side, 3]" in caught.value.message


def test_the_same_model_in_another_folder_is_not_copied_again(model: onnx.ModelProto, tmp_path: Path) -> None:
    """The copy is named by what is in the file."""
    shop = workshop(tmp_path / "cache")
    found = set()
    for name in ("one", "two"):
        path = tmp_path / name / "theirs.onnx"
        path.parent.mkdir()
        onnx.save(model, path)
        options: dict[str, Json] = {"path": str(path), "sha256": onnx_file.identity(path)}
        found.add(shop.make(Target(stage="file", options=options)).path)
    assert len(found) == 1
