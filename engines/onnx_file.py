"""What bobrt writes into an ONNX file and reads back: one key, `bobrt`, in `metadata_props`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import onnx
from google.protobuf.message import DecodeError

from bobrt.artifacts import Artifact, Manifest
from bobrt.errors import UsageError
from bobrt.paths import sha256_of
from bobrt.spec import Backbone, FileCard, Precision, Protocol, Transform
from engines import macs

if TYPE_CHECKING:
    from pathlib import Path


def load(path: Path) -> onnx.ModelProto:
    """Return the model; raise `UsageError` naming the file if it is not a whole one."""
    try:
        model = onnx.load(path)
    except FileNotFoundError as error:
        raise UsageError(f"ONNX file {error.filename or path} does not exist") from None
    except (DecodeError, OSError, onnx.checker.ValidationError, ValueError) as error:
        raise UsageError(
            f"ONNX file {path} is damaged or truncated: {' '.join(str(error).split())}"
        ) from None
    if not model.graph.node or not model.graph.output:
        raise UsageError(f"ONNX file {path} is damaged or truncated: it holds no graph")
    return model


def card_of(model: onnx.ModelProto, path: Path) -> FileCard | None:
    """Return what the file says of itself, or None if bobrt did not write it."""
    text = {prop.key: prop.value for prop in model.metadata_props}.get("bobrt")
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=FileCard)
    except msgspec.DecodeError as error:
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
    model = load(path)
    shares = macs.shares(model)
    card = card_of(model, path) or _foreign_card(model, path, shares)
    manifest = Manifest(
        stage="onnx",
        options={},
        source_sha256=card.checkpoint_sha256,
        tools={},
        file=path.name,
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        seconds=0.0,
        detail={"card": msgspec.to_builtins(card), "shares": dict(shares)},
    )
    return Artifact(path.absolute(), manifest)


def _foreign_card(model: onnx.ModelProto, path: Path, shares: dict[str, float]) -> FileCard:
    sides = (
        [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
        if model.graph.input
        else []
    )
    main = max(shares, key=lambda name: shares[name], default="fp32")
    return FileCard(
        bobrt="",
        backbone=Backbone(name=path.stem, timm="", family="onnx"),
        weights=f"file:{sha256_of(path)}",
        task="",
        protocol=Protocol.PUBLISHED,
        seed=0,
        labels=[],
        transform=Transform(size=sides[1] if len(sides) == 4 and sides[1] else 224),  # noqa: PLR2004 - NHWC
        precision=Precision(main),
    )
