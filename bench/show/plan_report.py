"""What a run would do with each cell, and why: `--dry-run`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from bobrt import console

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.decide import Decision
    from bobrt.spec import Json


def show(decisions: Sequence[Decision], missing: Mapping[str, str], as_json: bool) -> None:
    """Print what would become of each cell; and what is missing, with the line that brings it.

    Args:
        decisions: One of each cell.
        missing: The line that brings a thing, by the thing.
        as_json: Print one document in place of a table.

    """
    if as_json:
        console.document({"plan": [_entry(decision) for decision in decisions], "missing": dict(missing)})
        return
    rows = [
        [
            str(d.question.cell),
            d.action,
            ", ".join(target.stage for target in d.make),
            "; ".join(dict.fromkeys(why for why in (d.reason, d.again) if why)),
        ]
        for d in decisions
    ]
    console.table(console.Table(["cell", "action", "makes", "why"], rows, spare=(2,)))
    for what, line in missing.items():
        console.data(f"missing: {what}\n    {line}")
    counts = Counter(d.action for d in decisions)
    console.data(" · ".join(f"{count} {action}" for action, count in counts.items()))


def _entry(decision: Decision) -> dict[str, Json]:
    cell = decision.question.cell
    return {
        "cell": {**msgspec.to_builtins(cell), "key": cell.key},
        "action": decision.action,
        "reason": decision.reason,
        "hint": decision.hint,
        "again": decision.again,
        "make": [target.stage for target in decision.make],
    }
