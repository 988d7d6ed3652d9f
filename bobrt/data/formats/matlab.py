"""Tables that MATLAB wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.io import loadmat

from bobrt.data.formats.listed import AGAIN
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def row(path: Path, key: str) -> NDArray[Any]:
    """Return a variable of a `.mat` file as a row of its elements; a struct's are records.

    Raises:
        UsageError: The file is missing, no MATLAB file, or has no such variable.

    """
    try:
        with path.open("rb") as file:
            found = loadmat(file, squeeze_me=True).get(key)
    except FileNotFoundError:
        raise UsageError(f"list {path} does not exist", AGAIN) from None
    except Exception as error:  # scipy has many ways to stumble over bytes
        told = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{path} is no MATLAB file: {told}", AGAIN) from error
    if found is None:
        raise UsageError(f"{path} has no variable {key!r}", AGAIN)
    return np.atleast_1d(found).ravel()
