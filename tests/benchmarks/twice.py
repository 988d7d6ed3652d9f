"""Two runs of the default plan on this machine: how many cells does `bobrt compare` call different?

    make bench-twice

Nothing differs between the two runs but the time of day, so whatever is called faster or slower is a
false alarm: of the machine, or of the measuring. Printed: the comparison, and the share. Goal: 5 %.
Both results folders are kept where it says, and a second call goes on where the first was stopped.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench import compare, store
from bobrt import console

BOBRT = Path(sys.executable).with_name("bobrt")


def main() -> None:
    """Run the plan into two folders, `results/twice/1` and `2`, or below the folder that is named."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "results/twice")
    folders = [root / "1", root / "2"]
    for folder in folders:
        subprocess.run([BOBRT, "bench", "--results", folder], check=True)
    subprocess.run([BOBRT, "compare", *folders], check=True)
    before, after = (store.read_all(folder).results for folder in folders)
    rows = compare.compare(before, after).rows
    told = [row for row in rows if row.verdict in {"same", "faster", "slower"}]
    different = [row for row in told if row.verdict != "same"]
    unclear = sum(row.verdict == "unclear" for row in rows)
    console.data(
        f"{len(different)} of {len(told)} cells are called different "
        f"({100 * len(different) / max(1, len(told)):.0f} %); {unclear} are unclear"
    )


if __name__ == "__main__":
    main()
