"""The fewest blocks of a network kept out of a low precision, so that a drop in the metric holds.

A block is a part of the network with a number of its own: `backbone.blocks.3`,
`backbone.stages.2.blocks.5`. Which of them hurt is measured, each alone; how many must be put
back is searched by halving, over the order of the harm they do.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

from bobrt.errors import BobrtError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import onnx

    Convert = Callable[[Sequence[str]], Path]

ARITHMETIC = {"Conv", "Gemm", "MatMul"}
_BLOCK = re.compile(r"[^/]*?\.\d+(?:(?:\.[A-Za-z_]\w*)?\.\d+)?(?=[./]|$)")


class Hybrid(NamedTuple):
    """The file that keeps the goal, and what it cost."""

    file: Path
    kept: list[str]
    """Blocks left out of the low precision, the most harmful first."""
    drop: float
    """How much the metric lost, in the goal's unit."""


def blocks(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Return the nodes with multiply-adds by the block each is part of, in the graph's order."""
    found: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.op_type in ARITHMETIC:
            found.setdefault(block_of(node.name), []).append(node.name)
    return found


def block_of(node: str) -> str:
    """Return the block of a node that is named by its module: `backbone.blocks.3.mlp.fc1/MatMul_9`."""
    found = _BLOCK.match(node)
    return found[0] if found else node.partition("/")[0]


def search(
    parts: Mapping[str, Sequence[str]],
    convert: Convert,
    harm: Callable[[Path], float],
    drop: Callable[[Path], float],
    goal: float,
) -> Hybrid:
    """Return the file with the fewest blocks kept out whose drop is at most `goal`.

    Args:
        parts: Node names by block.
        convert: Writes the file with these nodes kept out, and returns its path.
        harm: How far a file's answers are from fp32: its blocks are put in order by it, each alone converted.
        drop: How much of the metric a file loses on validation.
        goal: The largest drop allowed, in its unit.

    Raises:
        BobrtError: With every block kept out the drop is above the goal all the same: what is left of the
            conversion, 16 bits say, costs that.

    """

    def without(names: Iterable[str]) -> Path:
        return convert([node for name in names for node in parts[name]])

    file = without([])
    lost = drop(file)
    if lost <= goal:
        return Hybrid(file, [], lost)
    harms = {name: harm(without(other for other in parts if other != name)) for name in parts}
    order = sorted(parts, key=lambda name: harms[name], reverse=True)
    low, high = 1, len(order)
    while low < high:
        middle = (low + high) // 2
        if drop(without(order[:middle])) <= goal:
            high = middle
        else:
            low = middle + 1
    file = without(order[:low])
    if (lost := drop(file)) > goal:  # every smaller number was seen to hold before it was taken
        raise BobrtError(
            f"precision-not-realised: with all {low} blocks kept out the file still loses {lost:.2f} points, "
            f"more than the {goal:g} allowed: what is beside the blocks costs that",
            f"allow it: --max-drop {math.ceil(10 * lost) / 10:g}",
        )
    return Hybrid(file, order[:low], lost)
