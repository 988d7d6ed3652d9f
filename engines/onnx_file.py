"""What bobrt writes into an ONNX file and reads back: one key, `bobrt`, in `metadata_props`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import onnx
from google.protobuf.message import DecodeError

from bobrt.artifacts import Artifact, Manifest
from bobrt.errors import BobrtError, UsageError, one_line
from bobrt.paths import sha256_of
from bobrt.spec import Backbone, FileCard, Precision, Protocol, Transform
from engines import macs
from engines.runner import TensorMeta

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


LIMIT = 2**31 - 2**20
"""Bytes of weights in one ONNX file: protobuf's 2 GB, with room for the graph."""


def load(path: Path) -> onnx.ModelProto:
    """Return the model; raise `UsageError` naming the file if it is not a whole one."""
    return _read(path, weights=True)


def _read(path: Path, *, weights: bool) -> onnx.ModelProto:
    try:
        model = onnx.load(path, load_external_data=weights)
    except FileNotFoundError as error:
        raise UsageError(f"ONNX file {error.filename or path} does not exist") from None
    except (DecodeError, OSError, onnx.checker.ValidationError, ValueError) as error:
        raise UsageError(
            f"ONNX file {path} is damaged or truncated: {' '.join(str(error).split())}"
        ) from None
    if not model.graph.node or not model.graph.output:
        raise UsageError(f"ONNX file {path} is damaged or truncated: it holds no graph")
    return model


def graph_of(path: Path) -> onnx.ModelProto:
    """Return the model without what lies in files beside it: shapes and types, for a file of any size."""
    return _read(path, weights=False)


def beside(model: onnx.ModelProto, path: Path) -> list[Path]:
    """Return the files that hold some of a model's tensors, each once, in order of their names.

    Raises:
        UsageError: One lies outside the model's own folder, or is not there.

    """
    names = {
        entry.value
        for tensor in _tensors(model)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    folder, found = path.absolute().parent, []
    for name in sorted(names):
        file = folder / name
        try:
            inside, there = file.resolve().is_relative_to(folder.resolve()), file.is_file()
        except (OSError, ValueError) as error:  # too long for a name, or none
            raise UsageError(f"ONNX file {path} has its weights in no file: {one_line(error)}") from None
        if not inside:
            raise UsageError(
                f"ONNX file {path} has its weights in {name}, outside its own folder",
                "save it with its weights beside it: onnx.save(model, path, save_as_external_data=True)",
            )
        if not there:
            raise UsageError(f"ONNX file {path} has its weights in {name}, which is not beside it")
        found.append(file)
    return found


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor a model holds: weights, constants, and those of branches, loops and functions."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            nodes += graph.node
        for attribute in [attribute for node in nodes for attribute in node.attribute]:
            yield from [*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors]
            graphs += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
        nodes = []


def inputs_of(model: onnx.ModelProto) -> dict[str, TensorMeta]:
    """Return what a model takes, by name; weights that are listed among its inputs are no inputs."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return {name: meta for name, meta in _metas(model.graph.input).items() if name not in weights}


def outputs_of(model: onnx.ModelProto) -> dict[str, TensorMeta]:
    """Return what a model answers, by name."""
    return _metas(model.graph.output)


def _metas(values: Iterable[onnx.ValueInfoProto]) -> dict[str, TensorMeta]:
    found = {}
    for value in values:
        kind = value.type.tensor_type
        sides = tuple(side.dim_value if side.dim_value > 0 else None for side in kind.shape.dim)
        found[value.name] = TensorMeta(_type_of(value.type), sides)
    return found


def _type_of(told: onnx.TypeProto) -> str:
    """Return numpy's word for a tensor's type, or ONNX's for what is no tensor, or of no known type."""
    what = told.WhichOneof("value")
    if what != "tensor_type":
        return what.removesuffix("_type") if what else "untyped"
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(told.tensor_type.elem_type).name)
    except KeyError:
        return f"type {told.tensor_type.elem_type}"


def identity(path: Path) -> str:
    """Return the sha256 of a model file, with that of the files its tensors are in, if there are any.

    Any other file is one file, and so is an ONNX file that is no longer whole.
    """
    if path.suffix.lower() != ".onnx":
        return sha256_of(path)
    try:
        model = graph_of(path)
    except UsageError:
        return sha256_of(path)
    return sha256_of(path, *beside(model, path))


def card_of(model: onnx.ModelProto, path: Path) -> FileCard | None:
    """Return what the file says of itself, or None if bobrt did not write it."""
    text = {prop.key: prop.value for prop in model.metadata_props}.get("bobrt")
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=FileCard)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError(f"ONNX file {path} has damaged bobrt metadata: {error}") from None


def require_card(model: onnx.ModelProto, path: Path) -> FileCard:
    """Return what the file says of itself; raise `UsageError` if bobrt did not write it."""
    card = card_of(model, path)
    if card is None:
        raise UsageError(f"ONNX file {path} carries no bobrt metadata", "export it with: bobrt export NAME")
    return card


def save(model: onnx.ModelProto, card: FileCard, path: Path) -> None:
    """Check and write the model with its card, stripped of whatever differs between two exports.

    Tools leave stack traces, paths and stale shapes behind: the first two make the file's
    hash unstable, the last makes ONNX Runtime re-use buffers of the wrong size.
    """
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if size > LIMIT:
        raise BobrtError(
            f"{card.backbone.name} is {size / 2**30:.1f} GB, and one ONNX file holds at most 2",
            "choose a smaller backbone: bobrt list backbones",
        )
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for tensor in [*model.graph.initializer, *model.graph.input, *model.graph.output]:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    model.graph.doc_string = ""
    model.doc_string = ""
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {"bobrt": msgspec.json.encode(card).decode()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def as_artifact(path: Path) -> Artifact:
    """Return an ONNX file made elsewhere as an artifact, verified as far as a file alone can be.

    A file bobrt did not write is called by its name, and its precision is the one most of
    its multiply-adds are at.
    """
    model = graph_of(path)
    files = [path, *beside(model, path)]
    sha256 = sha256_of(*files)
    shares = macs.shares(model)
    card = card_of(model, path) or _foreign_card(model, path, sha256, shares)
    manifest = Manifest(
        stage="onnx",
        options={},
        source_sha256=card.checkpoint_sha256,
        tools={},
        file=path.name,
        sha256=sha256,
        bytes=sum(file.stat().st_size for file in files),
        seconds=0.0,
        detail={"card": msgspec.to_builtins(card), "shares": dict(shares)},
    )
    return Artifact(path.absolute(), manifest)


def _foreign_card(model: onnx.ModelProto, path: Path, sha256: str, shares: dict[str, float]) -> FileCard:
    sides = next((meta.shape for meta in inputs_of(model).values()), ())
    main = max(shares, key=lambda name: shares[name], default="fp32")
    return FileCard(
        bobrt="",
        backbone=Backbone(name=path.stem, timm="", family="onnx"),
        weights=f"file:{sha256}",
        task="",
        protocol=Protocol.PUBLISHED,
        seed=0,
        labels=[],
        transform=Transform(size=(sides[1] if len(sides) == 4 else None) or 224),  # noqa: PLR2004 - NHWC
        precision=Precision(main),
        batch=(sides[0] if len(sides) == 4 else None) or "dynamic",  # noqa: PLR2004 - NHWC
    )
