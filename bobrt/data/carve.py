"""Parts of a training split: a validation split carved out of it, or a few images of each class.

Every image draws one number, and a part is made of those of each class with the lowest. So a smaller
part lies within a larger one of the same seed. The numbers are the raw ones of a bit generator, which
numpy promises not to change: which images are taken is part of a task, and must not depend on a version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bobrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

SEED = 0


def carve(targets: NDArray[np.int64], size: float, seed: int = SEED) -> tuple[Rows, Rows]:
    """Return the rows that stay and those that are carved out, disjoint and in order.

    Each class gives its share, to the nearest image, and keeps one image at least. Targets of several
    labels are drawn from without regard to the labels.

    Args:
        targets: `[n]` classes, or `[n, labels]` of 0 and 1.
        size: How many images (`int`), or which fraction of them (`float`, between 0 and 1).
        seed: Of the draw.

    Raises:
        UsageError: Nothing would be carved out, or nothing of a class would stay.

    """
    classes = _classes(targets)
    sizes = np.bincount(classes)
    count = size if isinstance(size, int) else round(size * len(targets))
    room = len(targets) - np.count_nonzero(sizes)
    if not 0 < count <= room:
        raise UsageError(
            f"{count} images cannot be carved out of {len(targets)}: 1 to {room} can, one of a class stays",
            "add images, or bring a validation split of your own",
        )
    out = _ranks(classes, seed) < _quotas(sizes, count)[classes]
    return np.flatnonzero(~out), np.flatnonzero(out)


def shots(targets: NDArray[np.int64], count: int, seed: int = SEED, classes: Sequence[str] = ()) -> Rows:
    """Return the rows of `count` images of each class, in order; those of fewer shots are among them.

    Args:
        targets: `[n]` classes.
        count: Images of each class.
        seed: Of the draw.
        classes: Their names, for the message.

    Raises:
        UsageError: A class has fewer images, or an image may have several labels.

    """
    if targets.ndim != 1:
        raise UsageError(
            f"{count} images of each class are asked for, and here an image may have several labels",
            "take a share of all instead: @1pct",
        )
    if count < 1:
        raise UsageError(f"{count} images of each class are none", "ask for one at least: @1shot")
    sizes = np.bincount(targets, minlength=len(classes))
    present = sizes if classes else sizes[sizes > 0]
    few = [label for label, size in enumerate(sizes) if size < count and (classes or size)]
    if few:
        name = f"{classes[few[0]]!r}" if classes else few[0]
        others = f", and {len(few) - 1} more classes have too few" if len(few) > 1 else ""
        raise UsageError(
            f"{count} images of each class are asked for, and class {name} has {sizes[few[0]]}{others}",
            f"ask for fewer: @{present.min()}shot" if present.min() else "add images of it",
        )
    return np.flatnonzero(_ranks(targets, seed) < count)


def fraction(targets: NDArray[np.int64], share: float, seed: int = SEED) -> Rows:
    """Return the rows of a share of the images, in order; those of a smaller share are among them.

    Args:
        targets: `[n]` classes, each of which gives its share and one image at least; or `[n, labels]`.
        share: Above 0, up to 1.
        seed: Of the draw.

    Raises:
        UsageError: It is no such share.

    """
    if not 0 < share <= 1:
        raise UsageError(f"a share of {share:g} of the images is asked for", "name one above 0, up to 1")
    classes = _classes(targets)
    quotas = np.maximum(1, np.rint(share * np.bincount(classes)))
    return np.flatnonzero(_ranks(classes, seed) < quotas[classes])


def _classes(targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what is drawn from evenly: classes, or one for all where an image may have several labels."""
    return targets if targets.ndim == 1 else np.zeros(len(targets), np.int64)


def _ranks(classes: NDArray[np.int64], seed: int) -> Rows:
    """Return each row's place within its class, `0` for the first that is drawn."""
    drawn = np.lexsort((np.random.PCG64(seed).random_raw(len(classes)), classes))
    first = np.searchsorted(classes[drawn], classes[drawn])
    ranks = np.empty(len(classes), np.int64)
    ranks[drawn] = np.arange(len(classes)) - first
    return ranks


def _quotas(sizes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return how many images each class gives, `count` in all: largest remainders, and one image stays."""
    exact = sizes * (count / sizes.sum())
    most = np.maximum(sizes - 1, 0)
    quotas: NDArray[np.int64] = np.minimum(exact.astype(np.int64), most)
    for _ in range(count - int(quotas.sum())):
        quotas[np.where(quotas < most, exact - quotas, -np.inf).argmax()] += 1
    return quotas
