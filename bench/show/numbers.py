"""Numbers, and what else is too long, for people."""

from __future__ import annotations


def digits(value: float) -> str:
    """Return a number with three significant digits and no exponent."""
    if value == 0:
        return "0"
    if "e" not in (plain := f"{value:#.3g}"):
        return plain.rstrip(".")
    rounded = float(f"{value:.3g}")
    whole = len(str(int(abs(rounded)))) if abs(rounded) >= 1 else 0
    if whole == 0:
        return f"{rounded:.{2 - _exponent(rounded)}f}"
    return f"{rounded:.{max(0, 3 - whole)}f}"


def weights(text: str) -> str:
    """Return a cell's weights as a table shows them: of a file's digest the beginning."""
    return text[: len("file:") + 12]


def _exponent(value: float) -> int:
    return int(f"{value:e}".rpartition("e")[2])
