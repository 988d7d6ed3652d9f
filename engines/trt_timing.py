"""What TensorRT measured of its kernels while it built, kept for the next build on the same GPU.

It makes builds faster and two builds of one file more alike. Nothing depends on it: whatever
goes wrong with it is a line in the build's log.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import msgspec

from bobrt.paths import lock, write_atomic
from bobrt.spec import digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engines.trt_identity import Place


class TimingCache:
    """One file of measurements, shared by every build of a library on a GPU.

    Args:
        path: The file; made if it is not there.
        log: Receives what went wrong.

    """

    def __init__(self, path: Path, log: list[str]) -> None:
        self._path = path
        self._log = log

    @classmethod
    def of(cls, cache: Path, place: Place, log: list[str]) -> Self:
        """Return the one of a library, a GPU, its driver and CUDA, in a cache folder."""
        return cls(cache / "timing" / f"{digest(msgspec.to_builtins(place))}.bin", log)

    def give(self, config: Any) -> None:  # noqa: ANN401 - the library is untyped
        """Let a build know what was measured before."""
        with self._harmless("read"):
            cache = config.create_timing_cache(self._content())
            if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
                self._log.append(f"WARNING: the timing cache {self._path} is refused; begun anew")
                config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)

    def keep(self, config: Any) -> None:  # noqa: ANN401 - the library is untyped
        """Add what a build measured; builds that end meanwhile wait for each other.

        A file that the library refuses - another GPU's, or damaged - is replaced: kept, it would cost
        every later build its measurements.
        """
        with self._harmless("written"), lock(str(self._path)):
            cache, own = config.create_timing_cache(self._content()), config.get_timing_cache()
            if cache is None or not cache.combine(own, ignore_mismatch=False):
                self._log.append(f"WARNING: the timing cache {self._path} is replaced by this build's own")
                cache = own
            write_atomic(self._path, bytes(cache.serialize()))

    def _content(self) -> bytes:
        return self._path.read_bytes() if self._path.is_file() else b""

    @contextmanager
    def _harmless(self, done: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a build must not fail for its shortcut
            text = " ".join(str(error).split())
            self._log.append(f"WARNING: the timing cache {self._path} could not be {done}: {text}")
