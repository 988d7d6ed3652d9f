"""An open engine with what it is asked on: how it is opened, fed and timed, whatever the scenario."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench import measure
from bench.measure import HOST, Clock
from bobrt.errors import BobrtError
from engines.runner import IMAGES, DeviceClock, answers, require_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from bench.measure import Timed
    from bobrt.speed import Timing
    from engines.runner import Runner

    Feeds = Sequence[dict[str, NDArray[np.uint8]]]


class Stage(NamedTuple):
    """An open engine with what it is asked on."""

    runner: Runner
    images: NDArray[np.uint8]
    """`uint8 [n, side, side, 3]`: real images that take turns."""
    timing: Timing
    threads: int
    report: Callable[[str], None]
    clock: Clock = HOST

    @property
    def fixed(self) -> int | None:
        """The engine's own batch, if it has one."""
        return self.runner.inputs()[IMAGES].shape[0]

    def feeds(self, batch: int) -> Feeds:
        """Return batches that differ: together every image, in two batches at least."""
        count = max(2, len(self.images) // batch)
        starts = range(0, len(self.images), max(1, len(self.images) // count))
        return [{IMAGES: np.take(self.images, range(i, i + batch), axis=0, mode="wrap")} for i in starts]

    @property
    def window(self) -> measure.Window:
        """The plan's window."""
        return measure.Window(
            self.timing.warmup_s,
            self.timing.min_s,
            self.timing.min_n,
            float("inf") if self.timing.max_s is None else self.timing.max_s,
            float("inf") if self.timing.width is None else self.timing.width,
        )

    def loop(self, scenario: str, batch: int, window: measure.Window) -> dict[str, Timed]:
        """Time batches one after another: by the host's clock, and by the device's where it has one."""
        self.report(f"batch {batch}")
        device = self.runner.device_ns if isinstance(self.runner, DeviceClock) else None
        timed = measure.closed_loop(self.runner.infer, self.feeds(batch), window, self.clock.now, device)
        _require_finite(self.runner, self.images, batch)
        name = f"{scenario}-{batch}"
        if timed.device_ns is None:
            return {name: timed}
        own = timed._replace(times_ns=timed.device_ns, device_ns=None)
        return {f"{name}@e2e": timed, f"{name}@gpu": own}


class Opened(NamedTuple):
    """An entered runner, and how long it took to its first answer."""

    runner: Runner
    open_ms: float
    first_ms: float


@contextmanager
def opened(runner: Runner, images: NDArray[np.uint8], path: object) -> Iterator[Opened]:
    """Open an engine and ask it once: the cold start.

    Args:
        runner: Not yet entered; the runtime's library is loaded.
        images: At least one, `uint8 [n, side, side, 3]`.
        path: The file, for an error's text.

    Raises:
        BobrtError: The file does not take images alone.

    """
    began = time.perf_counter_ns()
    with runner:
        ready = time.perf_counter_ns()
        batch = require_images(runner.inputs(), path).shape[0] or 1
        first = {IMAGES: np.take(images, range(batch), axis=0, mode="wrap")}
        asked = time.perf_counter_ns()
        runner.infer(first)
        answered = time.perf_counter_ns()
        yield Opened(runner, (ready - began) / measure.NS_PER_MS, (answered - asked) / measure.NS_PER_MS)


def _require_finite(runner: Runner, images: NDArray[np.uint8], batch: int) -> None:
    """Raise if an answer to a timed image is no number: nobody ships the speed of a broken engine."""
    outputs = answers(runner, images, batch)
    if broken := [name for name, value in outputs.items() if not np.isfinite(value).all()]:
        raise BobrtError(
            f"the engine answers NaN or infinity in {', '.join(broken)} while it is timed",
            "choose another precision",
        )
