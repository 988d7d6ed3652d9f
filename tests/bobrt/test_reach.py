"""One request, one deadline."""

from __future__ import annotations

import socket
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from loopback import answering

from bobrt import reach

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """A server on loopback."""
    with answering() as address:
        yield address


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def head(address: str) -> urllib.request.Request:
    return urllib.request.Request(address, method="HEAD")  # noqa: S310 - on loopback


def test_who_answers_is_there(hub: str) -> None:
    """Nothing went wrong."""
    assert reach.ask(head(f"{hub}/200"), 5)() is None


def test_an_answer_can_be_an_error(hub: str) -> None:
    """Its code is the caller's to judge."""
    error = reach.ask(head(f"{hub}/503"), 5)()
    assert isinstance(error, urllib.error.HTTPError)
    assert error.code == 503
    error.close()


def test_who_is_silent_has_until_the_deadline() -> None:
    """The connection is accepted by the kernel, nobody ever answers; the time counts from the asking."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        started = time.monotonic()
        wait = reach.ask(head(f"http://127.0.0.1:{server.getsockname()[1]}/"), 0.5)
        assert isinstance(wait(), TimeoutError)
        assert time.monotonic() - started >= 0.5


def test_nobody_there_is_said_at_once() -> None:
    """A refused connection is no matter of time."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    error = reach.ask(head(f"http://127.0.0.1:{port}/"), 60)()
    assert isinstance(error, urllib.error.URLError)
