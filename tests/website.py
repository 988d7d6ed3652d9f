"""A web server on loopback: the hub's addresses or a publisher's, and what can go wrong with them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Asked(NamedTuple):
    """One request."""

    method: str
    path: str
    range: str | None


class Site:
    """What a server serves, how it behaves, and what it was asked.

    Args:
        files: Content by path.

    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.heard: list[Asked] = []
        self.address = ""
        self.status: int | None = None
        """Answer everything with this."""
        self.code: str | None = None
        """What the hub calls the reason of such an answer."""
        self.only = ""
        """What goes wrong goes wrong where this is in the path."""
        self.cut: int | None = None
        """Send so many bytes of a body and hang up."""
        self.ranges = True
        """Answer a request for a part with the part."""
        self.tags = True
        """Send an `ETag`."""
        self.slow_s = 0.0
        """Wait before the answer."""
        self.silent_s = 0.0
        """Wait before the body."""

    def goes_wrong(self, path: str) -> bool:
        return self.only in path

    def pause(self, path: str, seconds: float) -> None:
        time.sleep(seconds if self.goes_wrong(path) else 0)

    def content(self, path: str) -> bytes | int:
        """Return what is at a path, or the status that says why not."""
        if self.status and self.goes_wrong(path):
            return self.status
        place, _, query = path.partition("?")
        return self.files.get(f"{place}?recursive" if "recursive=true" in query else place, 404)

    def reason(self, path: str) -> str:
        """Return what the hub calls the reason: it alone tells a missing file from a missing repository."""
        if self.code and self.goes_wrong(path):
            return self.code
        return "EntryNotFound" if "/resolve/" in path or "/tree/" in path else ""


def hub_files(repo: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return files under the addresses the hub gives them, by branch and by commit."""
    return {
        f"/{repo}/resolve/{revision}/{name}": content
        for revision in ("main", COMMIT)
        for name, content in files.items()
    }


def hub_data_set(repo: str, files: Mapping[str, bytes], **said: Any) -> dict[str, bytes]:
    """Return what the hub answers about a data set and its files, at its branch and at its commit.

    Args:
        repo: Its name.
        files: Content by name.
        said: What it says of it besides, as `cardData`.

    """
    siblings = [{"rfilename": name} for name in files]
    info = {"id": repo, "sha": COMMIT, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0, **said}
    found = {f"/api/datasets/{repo}": info}
    entries = [
        {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}  # noqa: S324 - as git does
        for name, content in files.items()
    ]
    folders = sorted(
        {"/".join(name.split("/")[:depth]) for name in files for depth in range(name.count("/") + 1)}
    )
    entries += [{"type": "directory", "path": name, "oid": "0" * 40} for name in folders if name]
    for revision in ("main", COMMIT):
        api = f"/api/datasets/{repo}"
        found[f"{api}/revision/{revision}"] = info
        for folder in folders:
            below = [entry for entry in entries if entry["path"].startswith(folder and f"{folder}/")]
            at = f"{api}/tree/{revision}/{folder}".rstrip("/")
            found[at] = [entry for entry in below if "/" not in entry["path"][len(folder) + bool(folder) :]]
            found[f"{at}?recursive"] = below
    answers = {path: json.dumps(content).encode() for path, content in found.items()}
    return answers | hub_files(f"datasets/{repo}", files)


@contextmanager
def serve(files: Mapping[str, bytes]) -> Iterator[Site]:
    """Serve files on a free port of loopback while the context lasts."""
    site = Site(files)
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(site)) as server:
        server.daemon_threads = True
        site.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            content = self._answer()
            site.pause(self.path, site.silent_s)
            with contextlib.suppress(OSError):  # who asked may have left
                self.wfile.write(content[: site.cut] if site.goes_wrong(self.path) else content)

        def _answer(self) -> bytes:
            """Send the headers; return the body they announce."""
            site.pause(self.path, site.slow_s)
            wanted = self.headers.get("Range")
            site.heard.append(Asked(self.command, self.path, wanted))
            content = site.content(self.path)
            if isinstance(content, int):
                return self._nothing(content)
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            begin = _begin(wanted, site.ranges and self.headers.get("If-Range", etag) == etag)
            if begin and begin >= len(content):
                return self._nothing(416)
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            if site.tags:
                self.send_header("ETag", etag)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            return content[begin:]

        def _nothing(self, status: int) -> bytes:
            self.send_response(status)
            self.send_header("X-Error-Code", site.reason(self.path))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return b""

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _begin(wanted: str | None, parts: bool) -> int:
    """Return the first byte that is sent."""
    return int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted and parts else 0
