"""How long 100,000 records take to be read, checked and listed: `make bench-report`.

The records are those of the committed default plan under other names and seeds, each with its seal. What is
timed is `bobrt report` as a user calls it, its output thrown away, and the reading alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from support import BOBRT, environment

from bench import store
from bobrt.result import CellRecord, Result, to_json
from bobrt.spec import Cell, State

COUNT = 100_000
SEEDS = 500
PUBLISHED = Path(__file__).resolve().parents[2] / "bench" / "published" / "quick"


def main() -> None:
    """Print the seconds."""
    base = [one for one in store.read_all(PUBLISHED).results if one.state is State.COMPLETE]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(COUNT):
            _write(Path(folder), base[number % len(base)], number)
        began = time.perf_counter()
        count = len(store.read_all(Path(folder)).results)
        told = f"{count:,} records: read and checked in {time.perf_counter() - began:.2f} s"
        began = time.perf_counter()
        subprocess.run(
            [BOBRT, "report", "--results", folder], stdout=subprocess.DEVNULL, env=environment(), check=True
        )
        sys.stdout.write(f"{told}; bobrt report lists them in {time.perf_counter() - began:.2f} s\n")


def _write(root: Path, result: Result, number: int) -> None:
    """Write a record under another name, without raw times."""
    asked = {name: getattr(result.cell, name) for name in Cell.__struct_fields__}
    asked |= {"backbone": f"{result.cell.backbone}_{number // SEEDS}", "seed": number % SEEDS}
    cell = Cell(**asked)
    record = CellRecord(**asked, key=cell.key)
    path = store.path_of(root, result.system.id, cell, None)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_json(msgspec.structs.replace(result, cell=record, samples=None).sealed()))


if __name__ == "__main__":
    main()
