"""Is an address there, and what does its answer mean? One request, and one deadline for all of it."""

from __future__ import annotations

import threading
import time
import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

DENIED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
"""Answers that another user may not get."""
GONE = {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}
"""Answers that no user gets anything else than."""


def ask(request: urllib.request.Request, patience_s: float) -> Callable[[], Exception | None]:
    """Send a request in the background; return what waits for its end, `patience_s` from now at most.

    A timeout of urllib's is for each address and each read, and none for the resolver: only a
    thread of its own gives the whole request one.

    Args:
        request: What is asked, at an address of the caller's own choosing.
        patience_s: How long all of it may take.

    Returns:
        A function that returns what went wrong, an `HTTPError` among others, or None.

    """
    answer: list[Exception | None] = []
    deadline = time.monotonic() + patience_s

    def send() -> None:
        try:
            with urllib.request.urlopen(request, timeout=patience_s):  # noqa: S310 - see `request`
                answer.append(None)
        except (OSError, ValueError, HTTPException) as error:
            answer.append(error)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()

    def wait() -> Exception | None:
        thread.join(max(0.0, deadline - time.monotonic()))
        return answer[0] if answer else TimeoutError(f"no answer within {patience_s:g} s")

    return wait
