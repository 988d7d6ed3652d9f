"""What int8 and fp8 files for TensorRT lose on the test split: `make bench-eight-bits`.

No engine runs without a GPU. The files it is built from do, in ONNX Runtime on a CPU, mostly in floats
between Q and DQ: the rounding of weights and activations is theirs, the sums are not the engine's. The
checkpoints are those of the default plan, each file made as `bobrt bench` makes it, with its goal for the
drop on validation.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

from bench import plan as plans
from bobrt import config, data
from bobrt.data.resize import resize
from bobrt.spec import FileCard, Precision
from bobrt.tasks import cards, task_of
from engines.ort_cpu import OrtCpuRunner
from engines.runner import answers
from engines.stages import artifact_target, checkpoint_target, workshop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bobrt.artifacts import Artifact

BATCH = 32


def main() -> None:
    """Print a table of all backbones and both precisions, once ModelOpt has said all it says on the way."""
    rows = [
        ["backbone", "precision", "share", "blocks kept out", "validation drop", "fp32 test", "test drop"],
        ["---", "---", "---:", "---:", "---:", "---:", "---:"],
        *_rows(),
    ]
    sys.stdout.write("".join(f"| {' | '.join(row)} |\n" for row in rows))


def _rows() -> Iterator[list[str]]:
    changes = {"runtimes": ("tensorrt-rtx",), "precisions": ("fp32", "int8", "fp8")}
    plan, shop = plans.load("quick", changes), workshop(config.load().cache.path)
    base = 0.0
    for question in plans.questions(plan):
        cell = question.cell
        if cell.runtime != "tensorrt-rtx":
            continue
        recipe = plan.recipe(cell.protocol, cell.backbone)
        engine = artifact_target(cell, checkpoint_target(cell, recipe, None, plan.search), plan.max_drop)
        if engine.source is None:
            raise SystemExit("an engine is built from a file")
        file = shop.make(engine.source)
        card = msgspec.convert(file.manifest.detail["card"], type=FileCard)
        score = _score(file, card)
        if cell.precision is Precision.FP32:
            base = score
            continue
        share = msgspec.convert(file.manifest.detail["shares"], type=dict[str, float])[str(cell.precision)]
        drop = msgspec.convert(file.manifest.detail["validation_drop"], type=float)
        row = [cell.backbone, str(cell.precision), f"{100 * share:.0f} %", str(len(card.kept))]
        yield [*row, f"{drop:+.2f}", f"{100 * base:.2f} %", f"{100 * (base - score):+.2f}"]


def _score(file: Artifact, card: FileCard) -> float:
    task = task_of(cards.resolved(card.task), card.transform)
    split = data.load(task.card, "test")
    with OrtCpuRunner(file.path, 2, plain=card.precision is Precision.FP8) as runner:
        outputs = answers(runner, resize(split.images, card.transform), BATCH)
    return task.score(task.decode(outputs), split).value


if __name__ == "__main__":
    main()
