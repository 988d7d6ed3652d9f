"""Do two engines say the same? Compared on real images, and never vacuously.

A freshly initialised network may answer zero, or the same, whatever it is shown; any two
such files agree. So agreement counts only where the reference answers move with the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bobrt.errors import BobrtError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

FP32_TOLERANCE = 1e-4
"""Largest difference allowed between fp32 files, as a fraction of the largest answer."""

ROUNDINGS = 2.0
"""How much further from fp64 a file may be than its reference in fp32."""

ROUNDING_TOLERANCE = 1e-3
"""Largest difference that rounding may explain: a network that loses more digits proves little."""

TINY = 1e-30

MOVES = 1e-3
"""Smallest spread between images, as a fraction of the largest answer, that counts as an answer."""


class Difference(NamedTuple):
    """How far one output is from its reference."""

    max_abs: float
    mean_abs: float
    largest: float
    """Largest absolute value of the reference."""
    spread: float
    """Largest standard deviation of a reference value between images."""


def difference(got: NDArray[np.float32], want: NDArray[np.float32]) -> Difference:
    """Return how far `got [n, k]` is from `want [n, k]`; not finite counts as infinitely far."""
    gap = np.abs(got.astype(np.float64) - want.astype(np.float64))
    gap[~np.isfinite(gap)] = np.inf
    return Difference(
        max_abs=float(gap.max()),
        mean_abs=float(gap.mean()),
        largest=float(np.abs(want).max()),
        spread=float(want.std(axis=0).max()),
    )


def require_fp32(
    got: Mapping[str, NDArray[np.float32]],
    want: Mapping[str, NDArray[np.float32]],
    what: str,
    *,
    moving: bool = True,
    exact: Callable[[], Mapping[str, NDArray[np.float64]]] | None = None,
) -> dict[str, float]:
    """Pass if every output agrees to fp32 accuracy; return the relative difference of each.

    Args:
        got: Outputs of the file under test, `[n, k]` each, for at least two different images.
        want: Outputs of the reference, same names and shapes.
        what: The file, for the message.
        moving: The reference must move with the image; False only where another file proves that.
        exact: Returns the reference's outputs in fp64. Where they are asked for because the answers
            differ by more than the tolerance, the file passes if it is not further from them than
            `ROUNDINGS` times what the reference itself is: then both only round.

    Raises:
        BobrtError: They differ, or the reference does not move with the image, so that
            nothing was proven.

    """
    relative = {}
    for name, reference in want.items():
        gap = difference(got[name], reference)
        if moving and gap.spread <= MOVES * max(gap.largest, TINY):
            raise BobrtError(
                f"parity of {what} proves nothing: output {name} is the same for every image "
                f"(spread {gap.spread:.1e} at max |y| {gap.largest:.1e})",
                "use trained weights: --weights pretrained or --weights PATH",
            )
        allowed, explained = FP32_TOLERANCE * gap.largest, ROUNDING_TOLERANCE * gap.largest
        if not gap.max_abs <= allowed and not (
            exact and gap.max_abs <= explained and _rounds(got[name], reference, exact()[name])
        ):
            raise BobrtError(
                f"{what} differs from PyTorch in {name}: max |diff| {gap.max_abs:.2e} at max |y| "
                f"{gap.largest:.2e}, allowed {FP32_TOLERANCE:.0e} of it",
            )
        relative[name] = gap.max_abs / max(gap.largest, TINY)
    return relative


def _rounds(got: NDArray[np.float32], want: NDArray[np.float32], exact: NDArray[np.float64]) -> bool:
    """Tell whether `got` is as near to exact arithmetic as `want` is, give or take."""
    return bool(np.abs(got - exact).max() <= ROUNDINGS * np.abs(want - exact).max())
