"""The 1,797 handwritten digits of `digits.npz`: real images that come with the package, no download.

Source: Optical Recognition of Handwritten Digits (Alpaydin & Kaynak, 1998), UCI Machine Learning
Repository, https://doi.org/10.24432/C50P49, CC BY 4.0: its test set, in scikit-learn's order.
The file holds `images` uint8 [1797, 8, 8] of 0 to 16, `targets` uint8 [1797] and `split` uint8 [1797].
Why a file, where scikit-learn has them: docs/decisions/0015-digits.md.
"""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from bobrt.data import ANEW, Listing, Split
from bobrt.errors import MachineError, one_line

FILE = Path(__file__).with_name("digits.npz")
SPLITS = ("train", "validation", "test")
"""In the order of their numbers in the file."""


def read() -> Listing:
    """Return `train`, `validation` and `test`: fixed, stratified by class and disjoint.

    Raises:
        MachineError: The file is gone or damaged; what is whole and other data, the task's card tells.

    """
    try:
        with FILE.open("rb") as whole, np.load(whole) as file:
            stored, targets, split = file["images"], file["targets"].astype(np.int64), file["split"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise MachineError(
            f"the digits of this install cannot be read: {FILE}: {one_line(error)}", ANEW
        ) from error
    # Stored as 0..16; a camera gives 0..255 in three channels.
    grey = np.rint(stored * (255 / 16)).astype(np.uint8)
    images = np.repeat(grey[..., None], 3, axis=-1)
    splits = {}
    for number, name in enumerate(SPLITS):
        rows = np.flatnonzero(split == number)
        splits[name] = Split([f"digits/{row:04d}" for row in rows], list(images[rows]), targets[rows])
    return Listing([str(digit) for digit in range(10)], splits)
