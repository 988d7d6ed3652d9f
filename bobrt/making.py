"""One file by one verb: made unless it is there, told of, and printed where it is.

Imported by the verbs that make something alone: what it is about takes its time to import.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench import files
from bobrt import config, console
from bobrt.artifacts import version
from bobrt.catalogue import backbone as backbone_named
from bobrt.data import bundle as bundles
from bobrt.errors import UsageError
from bobrt.paths import write_atomic
from bobrt.spec import FileCard
from bobrt.tasks import cards, scores
from engines import stages
from train.hub import require_pretrained

if TYPE_CHECKING:
    from bench.plan import Plan, Question
    from bobrt.artifacts import Artifact


def make(  # noqa: PLR0913, PLR0917 - what was typed
    name: str, plan: Plan, question: Question, verb: str, output: Path | None, as_json: bool
) -> None:
    """Make a verb's file, unless it is there, and print where it is.

    Args:
        name: The backbone, as it was typed.
        plan: Whose recipe, search, limits and drop goal hold.
        question: Its cell.
        verb: `train`, `export` or `build`.
        output: Where a copy goes, too.
        as_json: Print the manifest as a document in place of the path.

    Raises:
        BobrtError: It cannot be made.

    """
    made = _file(name, plan, question, verb)
    path = made.path
    if output is not None:
        write_atomic(output, made.path.read_bytes())
        path = output
    if as_json:
        manifest = msgspec.to_builtins(made.manifest)
        console.document({"artifact": {"path": str(path), **manifest}})
    else:
        console.data(str(path))


def bundle(name: str, plan: Plan, question: Question, output: Path | None, as_json: bool) -> None:
    """Make a bundle of a cell's fp32 file, and print where it is.

    Args:
        name: The backbone, as it was typed.
        plan: Whose recipe, search and limits hold.
        question: Its cell.
        output: The folder; None: named after backbone and task.
        as_json: Print what the bundle says of itself as a document in place of the path.

    Raises:
        UsageError: The cell's protocol needs more than the model's answer to an image.
        BobrtError: It cannot be made.

    """
    cell = question.cell
    if not scores.by_logits(cards.named(cell.task), cell.protocol):
        raise UsageError(
            f"a bundle carries what answers alone: {cell.task} by {cell.protocol} needs other images as well",
            f"bobrt export {name} --task {cell.task} --protocol {cell.protocol}",
        )
    folder = output or Path(f"{cell.backbone.replace('/', '-')}-{cell.task}-bundle")
    bundles.require_room(folder)  # before anything is trained for it
    model = _file(name, plan, question, "export")
    reference = _file(name, plan, question, "reference")
    made = bundles.write(folder, cards.resolved(cell.task), model, reference)
    told = made.reference
    console.note(f"reference: {100 * told.value:.1f} % {told.metric} of {told.n} images, in fp32 PyTorch")
    if as_json:
        console.document({"bundle": {"path": str(folder), **msgspec.to_builtins(made)}})
    else:
        console.data(str(folder))


def _file(name: str, plan: Plan, question: Question, verb: str) -> Artifact:
    """Return a verb's file, or the reference's answers, made unless it is there; say what it is."""
    cell, shop = question.cell, stages.workshop(config.load().cache.path)
    checkpoint = stages.checkpoint_target(
        cell, plan.recipe(cell.protocol, cell.backbone), question.weights_path, plan.search
    )
    if verb == "train":
        target = checkpoint
    elif verb == "export":
        target = stages.onnx_target(cell, checkpoint)
    elif verb == "reference":
        target = stages.reference_target(checkpoint)
    else:
        target = stages.artifact_target(cell, checkpoint, plan.max_drop)
        stages.require_calibration(cell)
    if cell.weights == "pretrained" and shop.find(checkpoint) is None and version("timm"):
        require_pretrained(name, backbone_named(cell.backbone), verb, shop.cache)
    with console.Progress() as progress:
        made = files.make(shop, target, plan.limits, progress)
    begun = shop.find(checkpoint) if target != checkpoint else None
    left_out = stages.left_out_of(begun.manifest.detail) if begun else ""
    for line in [*stages.summary(made), *([left_out] if left_out else [])]:
        console.note(line)
    if verb == "build":
        card = msgspec.convert(made.manifest.detail.get("card"), type=FileCard | None)
        stages.require_share(stages.share_of(made, cell.precision), cell.precision, card.kept if card else [])
    return made
