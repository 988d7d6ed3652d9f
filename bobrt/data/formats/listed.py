"""What readers of published tables share."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from bobrt.errors import UsageError
from bobrt.strict import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

AGAIN = "fetch it again, or name the folder it is in: bobrt bench --task NAME --data FOLDER"


def table(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield where it stands and the cells of each row of a CSV file, under its heading.

    Raises:
        UsageError: The file is missing, has another heading, or a row has more or fewer cells.

    """
    rows = csv.reader(read_text(path, "table").splitlines())
    if (heading := next(rows, [])) != list(columns):
        raise UsageError(f"{path}, line 1: the columns are {heading}, not {list(columns)}", AGAIN)
    for cells in rows:
        where = f"{path}, line {rows.line_num}"
        if len(cells) != len(columns):
            raise UsageError(f"{where}: {len(cells)} cells, not {len(columns)}", AGAIN)
        yield where, cells
