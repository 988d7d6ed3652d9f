"""From what an engine answered to whole splits to the task's metric, whatever the protocol.

The same code scores the engine and fp32 PyTorch: both are asked by a split's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bobrt import data
from bobrt.spec import Kind, Protocol
from bobrt.tasks import task_of
from bobrt.tasks.base import Score
from bobrt.tasks.classification import Classification

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from bobrt.data import Split
    from bobrt.spec import TaskCard, Transform
    from bobrt.tasks.neighbours import Knn

    Ask = Callable[[str], Mapping[str, NDArray[np.float32]]]
    """From the name of a split to the outputs for its images, in order."""

BANK = 5_000
"""Training images at most among which validation images look for neighbours, while a precision is set."""


def by_logits(card: TaskCard, protocol: Protocol) -> bool:
    """Tell whether an engine itself answers a task; else its features are compared with other images'."""
    return card.kind is not Kind.RETRIEVAL and protocol is not Protocol.KNN


def splits_of(card: TaskCard, protocol: Protocol) -> tuple[str, ...]:
    """Return the splits an engine is asked, the one that parity is proven on first."""
    if card.kind is Kind.RETRIEVAL:
        return "query", "database"
    return ("validation", "test", "train") if protocol is Protocol.KNN else ("validation", "test")


def score(
    card: TaskCard, protocol: Protocol, transform: Transform, ask: Ask, bundle: str | None = None
) -> Score:
    """Return a task's metric.

    Args:
        card: The task, resolved.
        protocol: How the engine was adapted.
        transform: How images became its input.
        ask: What the engine answers; of `test` maybe the first images alone.
        bundle: The folder that brings the images along, if one does.

    """
    if card.kind is Kind.RETRIEVAL:
        return _retrieved(card, ask)
    outputs = ask("test")
    n = len(next(iter(outputs.values())))
    test = data.load(card, "test", bundle).head(n)
    if by_logits(card, protocol):
        task = task_of(card, transform)
        return task.score(task.decode(outputs), test)
    found = _neighbours(card, ask, outputs["features"])
    told = Classification(card, transform).score(found.predictions, test)
    return told._replace(extra={"k": float(found.k), "temperature": found.temperature})


def on_validation(
    card: TaskCard,
    protocol: Protocol,
    transform: Transform,
    ask: Callable[[str, Split], Mapping[str, NDArray[np.float32]]],
) -> float:
    """Return a task's metric on its validation images; the test split is not looked at.

    Neighbours are looked for among `BANK` training images, evenly spread: it is asked many times.

    Args:
        card: The task, resolved; no retrieval, which has no such images.
        protocol: How the engine was adapted.
        transform: How images became its input.
        ask: What the engine answers to the images of a split, by its name.

    """
    choice = data.load(card, "validation")
    outputs = ask("validation", choice)
    if by_logits(card, protocol):
        task = task_of(card, transform)
        return task.score(task.decode(outputs), choice).value
    from bobrt.tasks import neighbours  # noqa: PLC0415

    bank = data.load(card, "train")
    if len(bank.ids) > BANK:
        bank = bank.some(np.linspace(0, len(bank.ids) - 1, BANK).round().astype(int).tolist())
    own, known = outputs["features"], ask("train", bank)["features"]
    found = neighbours.knn(known, bank.targets, own, choice.targets, own)
    return Classification(card, transform).score(found.predictions, choice).value


def _retrieved(card: TaskCard, ask: Ask) -> Score:
    from bobrt.tasks import retrieval  # noqa: PLC0415

    found = retrieval.score(
        ask("query")["features"], ask("database")["features"], data.relevant(card), card.options
    )
    return Score(found.value, found.n, found.ci95, found.extra)


def _neighbours(card: TaskCard, ask: Ask, features: NDArray[np.float32]) -> Knn:
    from bobrt.tasks import neighbours  # noqa: PLC0415

    bank, choice = data.load(card, "train"), data.load(card, "validation")
    return neighbours.knn(
        ask("train")["features"], bank.targets, ask("validation")["features"], choice.targets, features
    )
