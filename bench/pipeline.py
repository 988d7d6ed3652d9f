"""The road a user drives: image file -> decode -> resize -> engine -> decoded answer.

The next batches are made ready while the engine works. Every
file is opened and read anew each time, from the system's page cache once it has been read: a cold
disk is not in these numbers.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from itertools import cycle, islice
from statistics import median
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from bench import measure
from bobrt.data import feed
from bobrt.data.images import decode
from bobrt.data.resize import resize
from bobrt.speed import Pipeline
from engines.runner import IMAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bobrt.spec import Transform
    from engines.runner import Runner

    Outputs = Mapping[str, NDArray[np.float32]]

Feed = TypeVar("Feed")

SAMPLE = 32
"""Files whose size is looked up, and whose decoded images the resize is timed on."""
BATCHES = 4
"""Different batches the engine is timed on alone."""
WAITED = 0.05
"""An engine that waits for more than this share of the time is not the bound: it keeps less than 0.95."""
ALONE = 4
"""Each stage alone is timed for one in so many of the road's seconds."""


def run(  # noqa: PLR0913, PLR0917 - an engine, its files, and how to drive it
    runner: Runner,
    files: Sequence[Path],
    transform: Transform,
    decode_answer: Callable[[Outputs], object],
    batch: int,
    seconds: float,
    workers: int,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Pipeline:
    """Drive the whole road for a while, and time each of its stages alone.

    Takes a little more than twice `seconds`.

    Args:
        runner: An entered runner.
        files: At least one image each, of any format Pillow reads; they take turns without end.
        transform: How an image becomes the engine's input.
        decode_answer: The task's own, from the outputs of a batch to its answers.
        batch: Images at a time, where the engine leaves it open.
        seconds: The road lasts at least this long once it is in its stride.
        workers: Threads that decode and resize.
        clock: Nanoseconds.

    Raises:
        BobrtError: A file is no image, or is cut off; it is named.

    """
    step = _step(runner, batch)

    def prepare(files: Sequence[Path]) -> NDArray[np.uint8]:
        # One after another: a photo is many times what is left of it.
        return np.concatenate([resize([decode(file)], transform) for file in files])

    def batches() -> Generator[NDArray[np.uint8], None, None]:
        return feed.batches(cycle(files), prepare, transform.size, step, workers)

    def answer(rows: NDArray[np.uint8]) -> None:
        decode_answer(runner.infer({IMAGES: rows}))

    with closing(batches()) as ready:
        feeds = [{IMAGES: rows} for rows in islice(ready, BATCHES)]
    window = measure.Window(warmup_s=seconds / ALONE / 5, min_s=seconds / ALONE, min_n=1)
    pictures = [decode(file) for file in files[:SAMPLE]]
    outputs = [{name: value.copy() for name, value in runner.infer(one).items()} for one in feeds]
    stage_ms = {
        "decode": _alone_ms(decode, files, window, clock),
        "resize": _alone_ms(lambda picture: resize([picture], transform), pictures, window, clock),
        "engine": _alone_ms(runner.infer, feeds, window, clock) / step,
        "answer": _alone_ms(decode_answer, outputs, window, clock) / step,
    }
    with closing(batches()) as ready:
        road = _drive(ready, answer, feed.ahead(step, workers) + 1, seconds, clock)
    return Pipeline(
        files=_described(files[:SAMPLE]),
        batch=step,
        workers=workers,
        n=road.images,
        images_per_s=road.images / road.seconds,
        expected_images_per_s=1000 / _expected(stage_ms, workers),
        engine_images_per_s=1000 / stage_ms["engine"],
        stage_ms=stage_ms,
        waited=road.waited_s / road.seconds,
        bound=_bound(stage_ms, road.waited_s / road.seconds),
    )


def write_files(images: Sequence[NDArray[np.uint8]], folder: Path) -> list[Path]:
    """Write images, each `uint8 [height, width, 3]`, as PNG files into a folder that exists, in order."""
    files = [folder / f"{number:06}.png" for number in range(len(images))]
    for image, file in zip(images, files, strict=True):
        Image.fromarray(image).save(file)
    return files


class _Road(NamedTuple):
    images: int
    seconds: float
    waited_s: float


def _drive(
    ready: Iterator[NDArray[np.uint8]],
    answer: Callable[[NDArray[np.uint8]], None],
    stride: int,
    seconds: float,
    clock: Callable[[], int],
) -> _Road:
    """Answer batches; time is taken once `stride` of them have gone by, all that was made ready at first."""
    for rows in islice(ready, stride):
        answer(rows)
    images = waited = 0
    began = now = clock()
    while now < began + seconds * measure.NS or not images:
        rows = next(ready)
        waited += clock() - now
        answer(rows)
        images += len(rows)
        now = clock()
    return _Road(images, (now - began) / measure.NS, waited / measure.NS)


def _expected(stage_ms: Mapping[str, float], workers: int) -> float:
    """Return milliseconds per image: of what one thread does alone, or of all work shared by all threads."""
    return max(stage_ms["engine"] + stage_ms["answer"], sum(stage_ms.values()) / (workers + 1))


def _bound(stage_ms: Mapping[str, float], waited: float) -> str:
    """Name the longest stage of the side that the other waited for."""
    side = ("decode", "resize") if waited > WAITED else ("engine", "answer")
    return max(side, key=lambda stage: stage_ms[stage])


def _alone_ms(
    call: Callable[[Feed], object], feeds: Sequence[Feed], window: measure.Window, clock: Callable[[], int]
) -> float:
    return float(measure.closed_loop(call, feeds, window, clock).times_ns.mean()) / measure.NS_PER_MS


def _step(runner: Runner, batch: int) -> int:
    return runner.inputs()[IMAGES].shape[0] or batch


def _described(files: Sequence[Path]) -> str:
    """Return the formats and the median size of files that were decoded before."""
    formats: Counter[str] = Counter()
    sizes = []
    for file in files:
        with Image.open(file) as picture:
            formats[picture.format or "?"] += 1
            sizes.append(picture.size)
    width, height = (round(median(sides)) for sides in zip(*sizes, strict=True))
    return f"{' and '.join(sorted(formats))}, {width} x {height} px"
