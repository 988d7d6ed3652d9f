"""What a file answers, beside what its checkpoint answers in fp32 PyTorch: parity and accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench import pipeline
from bobrt import data
from bobrt.data import feed
from bobrt.data.resize import resize
from bobrt.errors import BobrtError
from bobrt.result import Accuracy, Parity
from bobrt.speed import Evaluation
from engines import parity as gaps_of
from engines.runner import IMAGES, answers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.orders import CellOrder
    from bobrt.tasks import Task
    from engines.runner import Runner

BATCH = 32


def parity(runner: Runner, task: Task, order: CellOrder) -> Parity:
    """Compare the file's answers with fp32 PyTorch on the validation split.

    Raises:
        BobrtError: An answer is no number.

    """
    want = _reference(order, "validation")
    split = data.load(task.card, "validation", order.bundle)
    got = answers(runner, resize(split.images, order.card.transform), BATCH)
    gaps = [gaps_of.difference(got[name], want[name]) for name in want]
    if not all(np.isfinite(gap.max_abs) for gap in gaps):
        raise BobrtError(
            "the engine answers NaN or infinity on validation images", "choose another precision"
        )
    return Parity(
        max_abs=max(gap.max_abs for gap in gaps),
        mean_abs=max(gap.mean_abs for gap in gaps),
        agreement=task.agreement(got, want),
        n=len(split.ids),
        reference_runtime="torch",
    )


def accuracy(runner: Runner, task: Task, order: CellOrder) -> tuple[Accuracy, Evaluation]:
    """Ask the file the whole test split, or its first `limit` images, resized while it answers.

    Raises:
        BobrtError: An answer is no number, or the file has not the outputs the task is read from.

    """
    split = data.load(task.card, "test", order.bundle).head(order.limit)
    workers = feed.spare(order.threads)
    outputs, rate = pipeline.evaluate(runner, split.images, order.card.transform, BATCH, workers)
    if not all(np.isfinite(output).all() for output in outputs.values()):
        raise BobrtError("the engine answers NaN or infinity on test images", "choose another precision")
    try:
        score = task.score(task.decode(outputs), split)
    except KeyError as error:
        raise BobrtError(
            f"{order.file} answers {', '.join(outputs)}; task {task.card.name} is read from {error}"
        ) from None
    reference = None
    if order.reference:
        reference = task.score(task.decode(_reference(order, "test")), split).value
    found = Accuracy(
        metric=task.card.metric,
        value=score.value,
        higher_is_better=task.card.higher_is_better,
        n=score.n,
        ci95=score.ci95,
        reference=reference,
        drop=None if reference is None else reference - score.value,
        extra={} if order.validation is None else {"validation": order.validation},
    )
    return found, Evaluation(batch=runner.inputs()[IMAGES].shape[0] or BATCH, images_per_s=rate)


def _reference(order: CellOrder, split: str) -> dict[str, NDArray[np.float32]]:
    """Return the checkpoint's own answers; only those images that are asked."""
    with np.load(str(order.reference)) as kept:
        names = [name for name in kept.files if name.startswith(f"{split}.")]
        rows = slice(None) if split == "validation" else slice(order.limit)
        return {name.partition(".")[2]: kept[name][rows] for name in names}
