"""What a TensorRT library says while it works, and the error that is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bobrt.errors import BobrtError, one_line

if TYPE_CHECKING:
    from types import ModuleType

_MEMORY = ("out of memory", "OutOfMemory", "could not be allocated")
"""How TensorRT says that the device is full."""


class Log:
    """The messages of one engine, oldest first.

    Args:
        lines: Receives them, each as `SEVERITY: message`.

    """

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self._told = 0
        """How many of them an error has been made of: a full device that was coped with is over."""

    def logger(self, trt: ModuleType, *, quiet: bool = False) -> Any:  # noqa: ANN401 - the library is untyped
        """Return a logger of the library that writes here.

        Args:
            trt: The library.
            quiet: Keep warnings and errors alone, for what is timed. The library asks no logger of ours
                how much it wants, so each message still costs a call.

        """
        lines = self.lines
        least = trt.ILogger.WARNING if quiet else trt.ILogger.VERBOSE

        class Logger(trt.ILogger):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:  # noqa: ANN401
                if severity <= least:  # the worst is 0
                    lines.append(f"{str(severity).rpartition('.')[2]}: {message}")

        return Logger()

    def error(self, what: str, hint: str = "") -> BobrtError | MemoryError:
        """Return the error for something the library refused, with its own last word since the last one.

        A `MemoryError` where the device is full, so that a climb over batches ends there.
        """
        errors = [line for line in self.lines[self._told :] if line.startswith(("ERROR", "INTERNAL_ERROR"))]
        self._told = len(self.lines)
        if full := [line for line in errors if any(word in line for word in _MEMORY)]:
            return MemoryError(f"{what}: out of memory: {one_line(full[-1])}")
        return BobrtError(f"{what}: {one_line(errors[-1]) if errors else 'no reason given'}", hint)
