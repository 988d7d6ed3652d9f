"""Batches made ready ahead of whoever consumes them, so that an engine need not wait for its images.

Threads do it: Pillow lets go of Python's lock while it decodes and resizes. For images of a few
pixels the calls around that cost more than the work, and more than one thread gains nothing.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import numpy as np

from bobrt.system import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from numpy.typing import NDArray

Item = TypeVar("Item")


USUAL_SIDE = 224
"""Pixels of the side that batches are meant for."""


def at_a_time(most: int, side: int) -> int:
    """Return how many images go through a network at once: of large ones fewer.

    Memory goes with the pixels, and attention's with their square: SAM's at 1024 pixels holds 12 heads of
    4,096 x 4,096 floats for each image, 0.8 GB a layer.

    Args:
        most: How many where they are of 224 pixels or fewer.
        side: Pixels.

    """
    return max(1, min(most, most * USUAL_SIDE**2 // side**2))


def spare(busy: int) -> int:
    """Return how many threads to prepare with beside `busy` ones of the engine: one at least."""
    return max(1, cores() - busy)


def ahead(batch: int, workers: int) -> int:
    """Return how many batches at most are ready or under way while one is consumed.

    Enough for every thread to have two pieces of work, and no more: each is memory.
    """
    return 1 + 2 * -(-workers // min(workers + 1, batch))


def batches(
    items: Iterable[Item],
    prepare: Callable[[Sequence[Item]], NDArray[np.uint8]],
    side: int,
    batch: int,
    workers: int,
) -> Generator[NDArray[np.uint8], None, None]:
    """Yield the items in order as `uint8 [batch, side, side, 3]`, the last one maybe shorter.

    Every batch is memory of its own, which the consumer may keep. A consumer that asks for a batch
    nobody has got to yet lends a hand. Nothing starts before the first batch is asked for; when
    the iterator is closed or let go, its threads have ended.

    Args:
        items: What is to be prepared; may be endless. Read in the consumer's thread.
        prepare: Makes a piece of a batch, `uint8 [k, side, side, 3]` of k items; called by several
            threads at once, the consumer's among them.
        side: Pixels.
        batch: Images at a time.
        workers: Threads.

    Raises:
        Exception: What `prepare` raised, when the batch of those items is asked for; a note on it
            says which they were.

    """
    source = iter(items)
    number = 0
    waiting: deque[_Batch[Item]] = deque()
    pool = ThreadPoolExecutor(workers, "bobrt-feed")
    try:
        while True:
            while len(waiting) <= ahead(batch, workers) and (part := list(islice(source, batch))):
                work = _Work(part, number, prepare, np.empty((len(part), side, side, 3), np.uint8))
                waiting.append(_Batch(pool, work, step=-(-len(part) // (workers + 1))))
                number += len(part)
            if not waiting:
                return
            yield waiting.popleft().wait()
    finally:
        pool.shutdown(cancel_futures=True)


class _Work(NamedTuple, Generic[Item]):
    items: Sequence[Item]
    number: int
    """Of the first item, counted from the first batch on."""
    prepare: Callable[[Sequence[Item]], NDArray[np.uint8]]
    images: NDArray[np.uint8]

    def piece(self, rows: slice) -> None:
        items = self.items[rows]
        try:
            self.images[rows] = self.prepare(items)
        except Exception as error:
            first = self.number + rows.start
            error.add_note(f"while preparing images {first} to {first + len(items) - 1}")
            raise


class _Batch(Generic[Item]):
    """One batch, shared among the threads so that the first is there as soon as can be."""

    def __init__(self, pool: ThreadPoolExecutor, work: _Work[Item], step: int) -> None:
        self._work = work
        pieces = [slice(first, first + step) for first in range(0, len(work.items), step)]
        self._pieces = [(rows, pool.submit(work.piece, rows)) for rows in pieces]

    def wait(self) -> NDArray[np.uint8]:
        # The threads take pieces from the front. One that none has begun can be cancelled, and is ours.
        for rows, future in reversed(self._pieces):
            if future.cancel():
                self._work.piece(rows)
        for _, future in self._pieces:
            if not future.cancelled():
                future.result()
        return self._work.images
