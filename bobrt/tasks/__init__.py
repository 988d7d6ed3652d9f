"""What is asked, one file per kind: decode the outputs, score the answers, in numpy.

A box without torch can bench: nothing here needs more than numpy. `decode` and a runner's
`infer` are separate on purpose: N tasks + M runtimes, not N x M.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bobrt.errors import unknown
from bobrt.spec import Kind
from bobrt.tasks.base import Score, Task
from bobrt.tasks.classification import Classification
from bobrt.tasks.multilabel import Multilabel

if TYPE_CHECKING:
    from collections.abc import Callable

    from bobrt.spec import TaskCard, Transform

__all__ = ["Score", "Task", "task_of"]

_KINDS: dict[Kind, Callable[[TaskCard, Transform], Task]] = {
    Kind.CLASSIFICATION: Classification,
    Kind.MULTILABEL: Multilabel,
}


def task_of(card: TaskCard, transform: Transform) -> Task:
    """Return the task a card describes, asked of engines whose images were resized so."""
    if card.kind not in _KINDS:
        raise unknown("task kind", card.kind, _KINDS)
    return _KINDS[card.kind](card, transform)
