"""What a file answers, beside what its checkpoint answers in fp32 PyTorch: parity and accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bench.asked import Reference
from bobrt.errors import BobrtError
from bobrt.result import Accuracy, Parity
from bobrt.speed import Evaluation
from bobrt.tasks import scores, task_of
from engines import parity as gaps_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bench.asked import Engine
    from bench.orders import CellOrder
    from bobrt.spec import TaskCard


def parity(engine: Engine, order: CellOrder) -> Parity:
    """Compare the file's answers with fp32 PyTorch on the validation split, or on a retrieval's queries.

    Raises:
        BobrtError: An answer is no number.

    """
    name = scores.splits_of(engine.card, order.cell.protocol)[0]
    want, got = Reference(order)(name), engine(name)
    gaps = [gaps_of.difference(got[output], want[output]) for output in want]
    if not all(np.isfinite(gap.max_abs) for gap in gaps):
        raise BobrtError(f"the engine answers NaN or infinity on {name} images", "choose another precision")
    alike = None
    if scores.by_logits(engine.card, order.cell.protocol):
        alike = task_of(engine.card, order.card.transform).agreement(got, want)
    return Parity(
        max_abs=max(gap.max_abs for gap in gaps),
        mean_abs=max(gap.mean_abs for gap in gaps),
        agreement=alike,
        n=len(next(iter(want.values()))),
        reference_runtime="torch",
    )


def _require_classes(logits: NDArray[Any], card: TaskCard, file: str) -> None:
    """Raise unless logits are numbers for each class of the task: others would be scored all the same."""
    classes = len(card.labels)
    if logits.ndim != 2 or logits.dtype.kind in "iub" or (classes and logits.shape[1] != classes):  # noqa: PLR2004
        shape = ", ".join(["n", *map(str, logits.shape[1:])])
        raise BobrtError(
            f"{file} answers logits {logits.dtype} [{shape}]; task {card.name} has {classes} classes",
            "name the task it was trained for: bobrt list tasks",
        )


def accuracy(engine: Engine, order: CellOrder) -> tuple[Accuracy, Evaluation | None]:
    """Ask the file the whole test split, or its first `limit` images, resized while it answers.

    Raises:
        BobrtError: An answer is no number, or the file has not the outputs the task is read from, or for
            another number of classes.

    """
    card, protocol = engine.card, order.cell.protocol
    try:
        if scores.by_logits(card, protocol):
            _require_classes(engine("test")["logits"], card, order.file)
        score = scores.score(card, protocol, order.card.transform, engine, order.bundle)
    except KeyError as error:
        has = ", ".join(engine(scores.splits_of(card, protocol)[0]))
        raise BobrtError(f"{order.file} answers {has}; task {card.name} is read from {error}") from None
    reference = None
    if order.reference:
        reference = scores.score(card, protocol, order.card.transform, Reference(order), order.bundle).value
    told = {} if order.validation is None else {"validation": order.validation}
    found = Accuracy(
        metric=card.metric,
        value=score.value,
        higher_is_better=card.higher_is_better,
        n=score.n,
        ci95=score.ci95,
        reference=reference,
        drop=None if reference is None else reference - score.value,
        extra={**score.extra, **told},
    )
    rate = engine.images_per_s
    asked = None if rate is None else Evaluation(batch=engine.passes.batch, images_per_s=rate)
    return found, asked
