"""The stage `file`: a model file made elsewhere, copied to where its engines may be kept.

The folder it came from may be read-only. The copy is named by what is in the file: the same model in
another folder is not copied, nor its engine built, again.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import onnx

from bobrt.artifacts import Produced
from bobrt.errors import BobrtError
from bobrt.spec import Frozen
from engines import onnx_file
from engines.runner import require_answers, require_images

if TYPE_CHECKING:
    from bobrt.artifacts import Job


class GivenFile(Frozen, frozen=True, kw_only=True):
    """Which file was given."""

    path: str
    sha256: str
    """`onnx_file.identity` of it when it was named."""


def make(job: Job) -> Produced:
    """Write `model.onnx`: the very file, or one with the weights in it that lay beside it.

    Raises:
        UsageError: The file is damaged.
        BobrtError: It was edited since it was named, is too large for one file, or is no engine for images.

    """
    given = msgspec.convert(job.options, type=GivenFile)
    path, copy = Path(given.path), job.folder / "model.onnx"
    file = onnx_file.as_artifact(path)
    if file.sha256 != given.sha256:
        raise BobrtError(f"{path} was edited meanwhile", "run the same command again")
    if file.manifest.bytes > onnx_file.LIMIT:
        raise BobrtError(
            f"{path} is {file.manifest.bytes / 2**30:.1f} GB, and an engine is built from at most 2",
            "choose a runtime that opens it where it lies: --runtime ort-cpu",
        )
    model = onnx_file.graph_of(path)
    # A builder would say so in its own words, or build it.
    images = require_images(onnx_file.inputs_of(model), path)
    require_answers(onnx_file.outputs_of(model), images.shape[0], path)
    if onnx_file.beside(model, path):
        onnx.save(onnx_file.load(path), copy)
    else:
        shutil.copyfile(path, copy)
    return Produced(copy.name, file.manifest.detail)
