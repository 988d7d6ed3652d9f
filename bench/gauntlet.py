"""What else an engine is asked, beside its task's test split: a question of each kind is one function.

Every question is asked of the very file whose speed the record holds, through the same runner.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from bench.asked import Reference
from bobrt import data
from bobrt.artifacts import read_artifact
from bobrt.errors import AbsentDataError, UsageError
from bobrt.result import Answer
from bobrt.spec import Kind, Protocol
from bobrt.tasks import cards
from bobrt.tasks.classification import wilson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from bench.asked import Engine, Outputs
    from bench.orders import CellOrder
    from bobrt.data import Split
    from bobrt.spec import Cell, TaskCard
    from bobrt.tasks.scores import Ask

QUERIES = 2000
"""Of a test split that is its own database, so many images at most are searched for."""


def can_answer(card: TaskCard, cell: Cell) -> bool:
    """Tell whether a cell's engine has what a question is asked of: logits over classes, or only features."""
    if cards.named(cell.task).kind is not Kind.CLASSIFICATION:
        return False
    return card.kind is Kind.RETRIEVAL or cell.protocol is not Protocol.KNN


def has_images(card: TaskCard) -> bool:
    """Tell whether the images of a question are on this machine; most are the task's own."""
    try:
        data.require_here(card)
    except AbsentDataError:
        return False
    return True


def ask(engine: Engine, order: CellOrder, report: Callable[[str, str], None]) -> list[Answer]:
    """Return the answer to each question of an order; one whose images are absent says so."""
    found = []
    for card in order.gauntlet:
        report("asking", card.name)
        try:
            found.append(_KINDS[card.kind](card, engine, order))
        except AbsentDataError as error:
            found.append(_answer(card, None, 0, reason=f"skipped: {error.message}"))
    return found


def _reliability(card: TaskCard, engine: Engine, order: CellOrder) -> Answer:
    """How far the probabilities can be believed."""
    from bobrt.tasks import reliability  # noqa: PLC0415 - needs scipy, which not every cell pays for

    choice, test = engine.split("validation"), engine.split("test")

    def measure(outputs: Ask) -> Any:  # noqa: ANN401
        return reliability.reliability(
            outputs("test")["logits"], test.targets, outputs("validation")["logits"], choice.targets
        )

    found = measure(engine)
    reference = measure(Reference(order)).metrics[card.metric] if order.reference else None
    value, n = found.metrics[card.metric], len(test.ids)
    return _answer(card, value, n, found.ece_ci95, reference=reference, extra=found.metrics)


def _corruption(card: TaskCard, engine: Engine, _order: CellOrder) -> Answer:
    """Top-1 accuracy over every corruption at every severity, each weighing the same."""
    from bobrt.data import corruptions  # noqa: PLC0415 - needs scipy

    split = _part(engine.split("test"), card.options.get("images"))
    right = {
        (name, severity): _spoilt(engine, split, name, severity)
        for name in corruptions.NAMES
        for severity in corruptions.SEVERITIES
    }
    extra = {
        name: float(np.mean([right[name, severity] for severity in corruptions.SEVERITIES]))
        for name in corruptions.NAMES
    }
    for severity in corruptions.SEVERITIES:
        extra[f"severity_{severity}"] = float(np.mean([right[name, severity] for name in corruptions.NAMES]))
    # An image that is hard is hard under many corruptions: the interval is over images, not over answers.
    each = np.mean([*right.values()], axis=0)
    value, n = float(each.mean()), len(each)
    half = 1.96 * float(each.std(ddof=1)) / n**0.5 if n > 1 else 1.0
    extra["answers"] = float(n * len(right))
    return _answer(card, value, n, (max(0.0, value - half), min(1.0, value + half)), extra=extra)


def _spoilt(engine: Engine, split: Split, name: str, severity: int) -> NDArray[np.bool_]:
    """Return which images are still recognised under one corruption."""
    from bobrt.data import corruptions  # noqa: PLC0415

    def change(images: NDArray[np.uint8], rows: Sequence[int]) -> NDArray[np.uint8]:
        return corruptions.corrupt_batch(images, rows, name, severity, seed=0)

    # Made once for every precision, runtime and backbone of one size: it takes longer than asking.
    kept = [engine.card.data_sha256, engine.card.options, split.ids, name, severity, corruptions.identity()]
    outputs = engine.passes.asked(split.images, change, kept)
    found: NDArray[np.bool_] = outputs["logits"].argmax(axis=1) == split.targets
    return found


def _retrieval(card: TaskCard, engine: Engine, order: CellOrder) -> Answer:
    """Find images that show the same by the features: of another data set, or of the task's test split."""
    from bobrt.tasks import retrieval  # noqa: PLC0415

    if card.data:
        whole = data.resolve(card)
        queries, database = (engine.of(whole, name)["features"] for name in ("query", "database"))
        found = retrieval.score(queries, database, data.relevant(whole), card.options)
        return _answer(card, found.value, found.n, found.ci95, extra=found.extra)
    test = engine.split("test")
    rows = np.unique(np.linspace(0, len(test.ids) - 1, min(QUERIES, len(test.ids))).astype(int))
    same = [np.flatnonzero(test.targets == test.targets[row]) for row in rows]
    # An image finds itself first; that is neither right nor wrong.
    relevant = [
        data.Relevant(found[found != row], np.array([row])) for row, found in zip(rows, same, strict=True)
    ]

    def measure(outputs: Ask) -> Any:  # noqa: ANN401
        features = outputs("test")["features"]
        return retrieval.score(features[rows], features, {"all": relevant}, card.options)

    found = measure(engine)
    reference = measure(Reference(order)).value if order.reference else None
    return _answer(card, found.value, found.n, found.ci95, reference=reference, extra=found.extra)


def _shift(card: TaskCard, engine: Engine, order: CellOrder) -> Answer:
    """Top-1 accuracy on images from elsewhere, among those of the engine's classes that they show."""
    whole = data.resolve(card)
    missing = [name for name in whole.labels if name not in order.card.labels]
    if missing:
        raise UsageError(f"{card.name} has classes the engine does not know: {', '.join(missing[:3])}")
    columns = [order.card.labels.index(name) for name in whole.labels]
    split, outputs = engine.split("test", whole), engine.of(whole, "test")
    right, n = _right({"logits": outputs["logits"][:, columns]}, split), len(split.ids)
    return _answer(card, right / n, n, wilson(right, n), extra={"classes": float(len(columns))})


def _outliers(card: TaskCard, engine: Engine, _order: CellOrder) -> Answer:
    """Tell images of none of the classes from the test split."""
    from bobrt.tasks import outliers  # noqa: PLC0415

    other = data.resolve(card)
    headline = card.metric.removeprefix("auroc_")
    found = outliers.outliers(engine("test"), engine.of(other, "test"), engine("train")["features"], headline)
    extra = {**found.metrics, "k": float(found.k)}
    return _answer(card, found.metrics[card.metric], sum(found.n), found.ci95, extra=extra)


def _attack(card: TaskCard, engine: Engine, order: CellOrder) -> Answer:
    """Top-1 accuracy on test images changed to mislead the checkpoint, or a surrogate of it."""
    if order.attack is None:
        return _answer(card, None, 0, reason="skipped: a file made elsewhere brings no checkpoint to attack")
    made = read_artifact(Path(order.attack).parent).manifest.detail
    if made["transform"] != msgspec.to_builtins(order.card.transform):
        return _answer(card, None, 0, reason="skipped: the surrogate takes images of another size or cut")
    whole, extra = engine.split("test"), {}
    with np.load(order.attack) as images:
        kept = [row for row in images["rows"].tolist() if row < len(whole.ids)]
        split, n = whole.some(kept), len(kept)
        for name in sorted({*images.files} - {"rows"}):
            outputs = engine.passes.asked(images[name][:n], lambda images, _: images)
            extra[name] = _right(outputs, split) / n
    extra["clean"] = float((engine("test")["logits"][kept].argmax(axis=1) == split.targets).mean())
    reference = made["under"][card.metric] if n == made["n"] else None
    value = extra[card.metric]
    return _answer(card, value, n, wilson(round(value * n), n), reference=reference, extra=extra)


_KINDS = {
    Kind.RELIABILITY: _reliability,
    Kind.CORRUPTION: _corruption,
    Kind.RETRIEVAL: _retrieval,
    Kind.SHIFT: _shift,
    Kind.OUTLIERS: _outliers,
    Kind.ATTACK: _attack,
}


def _answer(  # noqa: PLR0913 - the fields a question decides
    card: TaskCard,
    value: float | None,
    n: int,
    ci95: tuple[float, float] | None = None,
    *,
    reference: float | None = None,
    extra: dict[str, float] | None = None,
    reason: str = "",
) -> Answer:
    sign = 1 if card.higher_is_better else -1
    lost = None if reference is None or value is None else sign * (reference - value)
    return Answer(
        question=card.name,
        kind=str(card.kind),
        metric=card.metric,
        value=value,
        higher_is_better=card.higher_is_better,
        n=n,
        ci95=ci95,
        reference=reference,
        drop=lost,
        extra=extra or {},
        reason=reason,
    )


def _right(outputs: Outputs, split: Split) -> int:
    answers = outputs["logits"].argmax(axis=1)
    if split.targets.ndim > 1:  # several classes of the engine may be right for one image
        return int(split.targets[np.arange(len(answers)), answers].sum())
    return int((answers == split.targets).sum())


def _part(split: Split, count: int | None) -> Split:
    """Return so many images of a split, evenly spread, or all."""
    if count is None or count >= len(split.ids):
        return split
    return split.some(np.linspace(0, len(split.ids) - 1, count).astype(int).tolist())
