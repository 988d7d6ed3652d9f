"""What the engine of a cell, and fp32 PyTorch beside it, answer to the splits of the cell's task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bobrt import data
from bobrt.errors import BobrtError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from bench.orders import CellOrder
    from bench.passes import Passes
    from bobrt.data import Split
    from bobrt.spec import TaskCard

    Outputs = Mapping[str, NDArray[np.float32]]


class Engine:
    """Asks the engine each split once.

    Args:
        passes: Of the open engine.
        card: The task, resolved.
        order: The cell; `limit` cuts the test images.

    """

    def __init__(self, passes: Passes, card: TaskCard, order: CellOrder) -> None:
        self.passes = passes
        self.card = card
        self._order = order
        self._kept: dict[str, Outputs] = {}
        self.images_per_s: float | None = None
        """Of the pass that is scored: it is made anew, never read from disk."""

    def split(self, name: str, card: TaskCard | None = None) -> Split:
        """Return a split of the cell's task, or of another's."""
        whole = data.load(card or self.card, name, None if card else self._order.bundle)
        return whole.head(self._order.limit) if name in {"test", "query"} else whole

    def __call__(self, name: str) -> Outputs:
        """Return the outputs for a split of the cell's own task."""
        if name not in self._kept:
            self._kept[name] = self.of(self.card, name, fresh=name in {"test", "query"})
        return self._kept[name]

    def of(self, card: TaskCard, name: str, *, fresh: bool = False) -> Outputs:
        """Return the outputs for a split of any task."""
        split = self.split(name, None if card is self.card else card)
        what = f"{card.data_sha256}:{card.options}:{name}:{len(split.ids)}"
        done = self.passes.over(split, what, fresh=fresh)
        if fresh:
            self.images_per_s = done.images_per_s
        return done.outputs


class Reference:
    """What the checkpoint answers in fp32 PyTorch, as the stage `reference` kept it.

    Args:
        order: The cell; it names the file.

    """

    def __init__(self, order: CellOrder) -> None:
        self._file = str(order.reference)
        self._limit = order.limit

    def __call__(self, name: str) -> Outputs:
        """Return the outputs for a split; only those images that are asked."""
        rows = slice(self._limit) if name in {"test", "query"} else slice(None)
        with np.load(self._file) as kept:
            names = [key for key in kept.files if key.startswith(f"{name}.")]
            if not names:
                raise BobrtError(f"the reference {self._file} does not answer the split {name}")
            return {key.partition(".")[2]: kept[key][rows] for key in names}
