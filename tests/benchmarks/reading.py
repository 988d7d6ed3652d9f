"""How long 100,000 records take to be read, checked and listed: `make bench-report`.

The records are those of the committed default plan under other names and seeds, each with its seal. What is
timed, once the records are on the disk, is `bobrt report` as a user calls it, its output thrown away, and
the reading alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import msgspec
from support import BOBRT, environment

from bench import store
from bobrt.result import CellRecord, Result, to_json
from bobrt.spec import Cell, State

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT = 100_000
SEEDS = 500
TIMES = 3
PUBLISHED = Path(__file__).resolve().parents[2] / "bench" / "published" / "quick"


def main() -> None:
    """Print the seconds."""
    base = [one for one in store.read_all(PUBLISHED).results if one.state is State.COMPLETE]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(COUNT):
            _write(Path(folder), base[number % len(base)], number)
        os.sync()
        reading, listing = _seconds(lambda: _read(Path(folder))), _seconds(lambda: _list(folder))
    sys.stdout.write(
        f"{COUNT:,} records, median of {TIMES}: read and checked in {reading:.2f} s; bobrt report lists them "
        f"in {listing:.2f} s\n"
    )


def _seconds(action: Callable[[], None]) -> float:
    """Return how long something takes, the median of several times."""
    found = []
    for _ in range(TIMES):
        began = time.perf_counter()
        action()
        found.append(time.perf_counter() - began)
    return median(found)


def _read(folder: Path) -> None:
    if len(store.read_all(folder).results) != COUNT:
        raise SystemExit("not every record was read")


def _list(folder: str) -> None:
    command = [BOBRT, "report", "--results", folder]
    subprocess.run(command, stdout=subprocess.DEVNULL, env=environment(), check=True)


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
