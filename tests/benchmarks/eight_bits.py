"""What int8 and fp8 files for TensorRT lose on the test split: `make bench-eight-bits`.

No engine runs without a GPU. The files it is built from do, in ONNX Runtime on a CPU, mostly in floats
between Q and DQ: the rounding of weights and activations is theirs, the sums are not the engine's. The
checkpoints are those of the default plan, each file made as `bobrt bench` makes it, with its goal for the
drop on validation. Writes `docs/eight-bits.json` and prints its rows.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench import plan as plans
from bobrt import config, data
from bobrt.data.resize import resize
from bobrt.paths import write_atomic
from bobrt.result import System
from bobrt.spec import FileCard, Frozen, Precision
from bobrt.system import this_system
from bobrt.tasks import cards, task_of
from engines.ort_cpu import OrtCpuRunner
from engines.runner import answers
from engines.stages import artifact_target, checkpoint_target, workshop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bobrt.artifacts import Artifact

RESULT = Path(__file__).resolve().parents[2] / "docs" / "eight-bits.json"
BATCH = 32


class Row(Frozen, frozen=True, kw_only=True):
    """One file. Shares are fractions of the multiply-adds, accuracies fractions, drops points."""

    backbone: str
    precision: Precision
    sha256: str
    share: float
    """At the precision itself."""
    kept: tuple[str, ...]
    """Blocks that stayed out of it."""
    validation_drop: float
    fp32_accuracy: float
    """On the test split, as is `accuracy`."""
    accuracy: float

    @property
    def drop(self) -> float:
        """Points that are lost on the test split."""
        return 100 * (self.fp32_accuracy - self.accuracy)


class Run(Frozen, frozen=True, kw_only=True):
    """All of one run, and where it was."""

    system: System
    rows: tuple[Row, ...]


def main() -> None:
    """Write the result, and print its rows once ModelOpt has said all it says on the way."""
    run = Run(system=this_system(), rows=tuple(_rows()))
    write_atomic(RESULT, msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n")
    table = [
        ["backbone", "precision", "share", "blocks kept out", "validation drop", "fp32 test", "test drop"],
        ["---", "---", "---:", "---:", "---:", "---:", "---:"],
        *map(_cells, run.rows),
    ]
    sys.stdout.write("".join(f"| {' | '.join(row)} |\n" for row in table))


def _cells(row: Row) -> list[str]:
    said = [row.backbone, str(row.precision), f"{100 * row.share:.0f} %", str(len(row.kept))]
    return [*said, f"{row.validation_drop:+.2f}", f"{100 * row.fp32_accuracy:.2f} %", f"{row.drop:+.2f}"]


def _rows() -> Iterator[Row]:
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
        accuracy = _accuracy(file, card)
        if cell.precision is Precision.FP32:
            base = accuracy
            continue
        yield Row(
            backbone=cell.backbone,
            precision=cell.precision,
            sha256=file.manifest.sha256,
            share=msgspec.convert(file.manifest.detail["shares"], dict[str, float])[str(cell.precision)],
            kept=tuple(card.kept),
            validation_drop=msgspec.convert(file.manifest.detail["validation_drop"], float),
            fp32_accuracy=base,
            accuracy=accuracy,
        )


def _accuracy(file: Artifact, card: FileCard) -> float:
    task = task_of(cards.resolved(card.task), card.transform)
    split = data.load(task.card, "test")
    with OrtCpuRunner(file.path, 2, plain=card.precision is Precision.FP8) as runner:
        outputs = answers(runner, resize(split.images, card.transform), BATCH)
    return task.score(task.decode(outputs), split).value


if __name__ == "__main__":
    main()
