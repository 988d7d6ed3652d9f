"""Batches are made ready ahead, in order, within bounds, and nothing of it is left behind."""

from __future__ import annotations

import threading
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import pytest

from bobrt.data import feed
from bobrt.system import cores

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SOON = 30
"""Seconds after which something that should happen at once has not happened."""


def pixels(items: Sequence[int]) -> np.ndarray:
    """Return images that tell which is which."""
    return np.stack([np.full((2, 2, 3), item % 256, np.uint8) for item in items])


def threads() -> list[str]:
    """Return the feeder's threads that live."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("bobrt-feed")]


@pytest.mark.parametrize(
    ("most", "side", "want"),
    [(32, 32, 32), (32, 224, 32), (32, 256, 24), (32, 518, 5), (32, 1024, 1), (4, 384, 1), (1, 224, 1)],
)
def test_fewer_images_go_at_once_the_larger_they_are(most: int, side: int, want: int) -> None:
    """The pixels of so many at 224, and one at least."""
    assert feed.at_a_time(most, side) == want


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize(("items", "sizes"), [(10, [4, 4, 2]), (8, [4, 4]), (1, [1]), (0, [])])
def test_items_come_in_order_in_whole_batches(items: int, sizes: list[int], workers: int) -> None:
    """However many threads prepare them; only the last batch is short."""
    got = list(feed.batches(range(items), pixels, 2, 4, workers))
    assert [len(rows) for rows in got] == sizes
    assert [(rows.dtype, rows.shape[1:]) for rows in got] == [(np.uint8, (2, 2, 3))] * len(sizes)
    assert [int(image[1, 1, 2]) for rows in got for image in rows] == list(range(items))
    assert not threads()


def test_a_slow_item_does_not_let_a_later_one_past() -> None:
    """The first item ends last, and still comes first."""
    others = threading.Event()

    def prepare(items: Sequence[int]) -> np.ndarray:
        if 0 in items:
            assert others.wait(SOON)
        if 3 in items:
            others.set()
        return pixels(items)

    got = [int(rows[0, 0, 0, 0]) for rows in feed.batches(range(6), prepare, 2, 1, 2)]
    assert got == list(range(6))


def test_the_next_batch_is_prepared_while_one_is_consumed() -> None:
    """The consumer that holds the first batch sees work on the next go on without asking for it."""
    next_one = threading.Event()

    def prepare(items: Sequence[int]) -> np.ndarray:
        if 4 in items:
            next_one.set()
        return pixels(items)

    ready = feed.batches(range(8), prepare, 2, 4, 1)
    next(ready)
    assert next_one.wait(SOON)
    ready.close()


def test_the_first_batch_is_shared_among_all_and_the_consumer() -> None:
    """Three pieces of it are under way at once: two threads and who waits for them."""
    every_one = threading.Barrier(3)
    who: set[int] = set()

    def prepare(items: Sequence[int]) -> np.ndarray:
        who.add(threading.get_ident())
        every_one.wait(SOON)
        return pixels(items)

    ready = feed.batches(range(6), prepare, 2, 6, 2)
    assert len(next(ready)) == 6
    assert len(who) == 3
    assert threading.get_ident() in who


@pytest.mark.parametrize(("batch", "workers", "ahead"), [(4, 1, 3), (4, 2, 3), (1, 4, 9), (256, 16, 3)])
def test_no_more_is_read_than_the_bound(batch: int, workers: int, ahead: int) -> None:
    """Of an endless source, one batch is with the consumer and so many are ahead of it."""
    read: list[int] = []

    def source() -> Iterator[int]:
        for item in count():
            read.append(item)
            yield item

    ready = feed.batches(source(), pixels, 2, batch, workers)
    assert not read
    for taken in (1, 2, 3):
        next(ready)
        assert len(read) == (taken + ahead) * batch
    assert feed.ahead(batch, workers) == ahead
    ready.close()


def test_a_batch_is_the_consumers_to_keep() -> None:
    """What was given out does not change when the next batches are filled."""
    ready = feed.batches(range(40), pixels, 2, 4, 2)
    first = next(ready)
    kept = first.copy()
    rest = list(ready)
    assert np.array_equal(first, kept)
    assert not any(np.shares_memory(first, rows) for rows in rest)


@pytest.mark.parametrize(("workers", "which"), [(1, "8 to 9"), (3, "9 to 9")])
def test_an_error_comes_with_its_items_in_its_turn(workers: int, which: str) -> None:
    """What was sound before it is handed out first; the threads are gone when it is raised."""

    def prepare(items: Sequence[int]) -> np.ndarray:
        if 9 in items:
            raise ValueError(f"{items} is odd")
        return pixels(items)

    seen: list[int] = []
    with pytest.raises(ValueError, match="is odd") as caught:
        seen.extend(len(rows) for rows in feed.batches(range(20), prepare, 2, 4, workers))
    assert seen == [4, 4]
    assert caught.value.__notes__ == [f"while preparing images {which}"]
    assert not threads()


@pytest.mark.parametrize("how", ["closed", "let go", "thrown out of"])
def test_a_consumer_that_stops_early_leaves_no_thread(how: str) -> None:
    """Endless items, an early end, and nobody prepares any more."""
    ready = feed.batches(count(), pixels, 2, 4, 3)
    next(ready)
    assert threads()
    if how == "closed":
        ready.close()
    elif how == "thrown out of":
        with pytest.raises(KeyboardInterrupt):
            ready.throw(KeyboardInterrupt())
    else:
        del ready
    assert not threads()


def test_the_engine_keeps_its_cores() -> None:
    """What is left over prepares, and there is always one."""
    assert feed.spare(0) == cores()
    assert feed.spare(cores()) == feed.spare(cores() + 3) == 1
