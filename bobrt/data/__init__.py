"""Where images come from, as numpy, with no torch.

A source is a function of a split's name that returns a `Split`. Its images have their own
sizes; `bobrt.data.resize` brings them to the engine's, the same code everywhere.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bobrt.errors import UsageError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from bobrt.spec import TaskCard


class Split(NamedTuple):
    """The images and targets of one split."""

    ids: list[str]
    images: list[NDArray[np.uint8]]
    """Each `[height, width, 3]`."""
    targets: NDArray[np.int64]
    """`[n]`."""

    def head(self, n: int | None) -> Split:
        """Return the first `n` samples, or all of them."""
        return Split(self.ids[:n], self.images[:n], self.targets[:n])


def load(card: TaskCard, name: str, bundle: str | None = None) -> Split:
    """Return one split of a task's data.

    Args:
        card: The task.
        name: The split.
        bundle: A folder that brings the images along; the card's own source is not asked then.

    Raises:
        UsageError: The source is unknown, or its data is not what the card or the bundle pins.

    """
    if bundle is not None:
        from bobrt.data import bundle as bundles  # noqa: PLC0415 - it reads and writes what is defined here

        return bundles.load(Path(bundle), name)
    sources = _sources()
    if card.data not in sources:
        raise unknown("data source", card.data, sources)
    splits = {split: sources[card.data](split) for split in card.splits}
    sizes = {split: len(content.ids) for split, content in splits.items()}
    if sizes != card.splits or digest_of(splits) != card.data_sha256:
        raise UsageError(
            f"the data of task {card.name} is not what its card pins: {sizes}, {digest_of(splits)[:12]}...",
            "install the pinned scikit-learn: pip install -c constraints.txt scikit-learn",
        )
    return splits[name]


def digest_of(splits: dict[str, Split]) -> str:
    """Return the sha256 over every split's name, ids, images and targets, in hex."""
    hasher = hashlib.sha256()
    for name, split in sorted(splits.items()):
        hasher.update(f"{name}:{','.join(split.ids)}".encode())
        for image in split.images:
            hasher.update(str(image.shape).encode() + np.ascontiguousarray(image).tobytes())
        hasher.update(np.ascontiguousarray(split.targets, dtype="<i8").tobytes())
    return hasher.hexdigest()


def _sources() -> dict[str, Callable[[str], Split]]:
    from bobrt.data import digits  # noqa: PLC0415 - scikit-learn is slow to import; only who reads data pays

    return {"digits": digits.load}
