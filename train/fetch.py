"""Published files: from the hub through huggingface's own cache, or from a publisher's address into ours.

Everything that can go wrong on the way ends in one line. A download that was cut off goes on where it
stopped, and a file gets its name only when it is whole. What a download told - the hub's commit, the digest -
is returned with the path, for the checkpoint to record.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from bobrt import __version__, reach
from bobrt.errors import BobrtError, MachineError, UsageError, one_line
from bobrt.paths import CANNOT_WRITE, lock, sha256_of
from bobrt.spec import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from http.client import HTTPResponse
    from types import TracebackType
    from typing import Self

    from bobrt.spec import WeightsFile

    Report = Callable[[str, str], None]

ANSWER_S = 6.0
"""How long a server may take to say whether it has a file."""
PATIENCE_S = 10.0
"""How long a server may be silent in the middle of a file."""
CHUNK = 1 << 20
FOLDER = "weights"
"""Of our cache: where files from publishers' addresses are kept."""
TIMM_FILES = ("model.safetensors", "pytorch_model.bin")
"""What timm asks a repository of the hub for, in this order."""
WITHOUT = "use --weights random, or --weights PATH for a file you have"


class Fetched(NamedTuple):
    """A published file on this disk, and what is known of it."""

    path: Path
    revision: str | None
    """The hub's commit; None for an address that has none."""
    sha256: str
    bytes: int


def fetch(
    name: str, weights: WeightsFile, folder: Path, report: Report, beside: Sequence[str] = ()
) -> Fetched:
    """Return a backbone's published file, downloaded unless it is here.

    Args:
        name: The backbone, for the message.
        weights: Where the file is.
        folder: Our cache of publishers' files; the hub's files go to huggingface's.
        report: Called with a phase and how far the download is.
        beside: More files of the same commit of the hub's repository.

    Raises:
        UsageError: There is no such file, access is refused, or it is not the one the entry names.
        MachineError: The server cannot be reached, stops answering, or sends a part only.

    """
    if weights.repo and weights.file:
        path = _from_hub(name, weights.repo, weights.file, weights.revision, report)
        revision = commit_of(path)
        for file in beside:
            _from_hub(name, weights.repo, file, revision, report)
    elif weights.url:
        path, revision = _from_address(name, weights.url, folder, report), None
    else:
        raise UsageError(f"the entry of {name} says neither url nor repo and file")
    report("checking", path.name)
    fetched = described(path, revision)
    if weights.sha256 and fetched.sha256 != weights.sha256:
        for copy in {path.resolve(), path}:  # huggingface's cache has links
            copy.unlink(missing_ok=True)
        raise UsageError(
            f"the file of {name} has sha256 {fetched.sha256[:12]}..., not {weights.sha256[:12]}...",
            "the publisher replaced it, or it was damaged on the way: run it again",
        )
    return fetched


def described(path: Path, revision: str | None) -> Fetched:
    """Return a file with its digest and size."""
    return Fetched(path, revision, sha256_of(path), path.stat().st_size)


def place_of(url: str, folder: Path) -> Path:
    """Return where the file of an address is, or will be."""
    return folder / digest(url) / PurePosixPath(urlsplit(url).path).name


def commit_of(path: Path) -> str | None:
    """Return the commit in the path of a file in huggingface's cache."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else None


def in_hub_cache(repo: str, files: Sequence[str], revision: str | None = None) -> Path | None:
    """Return the first of a repository's files that is in huggingface's cache."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - only for published weights

    for file in files:
        if isinstance(found := try_to_load_from_cache(repo, file, revision=revision), str):
            return Path(found)
    return None


def require_served(name: str, url: str, hint: str, whose: str = "the hub") -> None:
    """Return if an address answers, within seconds: what comes after it may retry for minutes.

    Args:
        name: The backbone, for the message.
        url: The address that is asked.
        hint: What to do without it.
        whose: Who serves the address.

    Raises:
        MachineError: There is no answer, or `HF_HUB_OFFLINE` forbids to ask.
        UsageError: The answer is that there is no such file, or none for this user.

    """
    from huggingface_hub import constants, get_token  # noqa: PLC0415 - only for published weights

    if constants.HF_HUB_OFFLINE:
        raise MachineError(f"the weights of {name} are not cached and HF_HUB_OFFLINE is set", hint)
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - an entry's address
    if url.startswith(f"{constants.ENDPOINT}/") and (token := get_token()):
        # Not to where the hub sends us on: its storage is another's.
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    error = reach.ask(request, ANSWER_S)()
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        raise _refusal(name, url, error.code, hint, whose)
    if error:
        reason = one_line(error)
        raise MachineError(f"{whose} cannot be reached for the weights of {name} ({url}: {reason})", hint)


def _refusal(name: str, url: str, status: int, hint: str, whose: str) -> BobrtError:
    if status in reach.DENIED | reach.GONE:
        if status in reach.DENIED:
            hint = f"accept the licence on its page and set HF_TOKEN, or {hint}"
        return UsageError(f"{whose} has no weights for {name}: {url} answered {status}", hint)
    return MachineError(f"{whose} cannot serve {name}: {url} answered {status}", hint)


def _from_hub(name: str, repo: str, file: str, revision: str | None, report: Report) -> Path:
    from huggingface_hub import hf_hub_download, hf_hub_url  # noqa: PLC0415 - only for published weights
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # noqa: PLC0415

    if cached := in_hub_cache(repo, [file], revision):
        return cached
    url = hf_hub_url(repo, file, revision=revision)
    require_served(name, url, WITHOUT)
    try:
        return Path(hf_hub_download(repo, file, revision=revision, tqdm_class=_meter(report)))
    except (OSError, ValueError, HTTPError) as error:
        if getattr(error, "errno", None) in CANNOT_WRITE:
            raise
        cause = error if isinstance(error, HfHubHTTPError) else error.__cause__ or error
        if isinstance(cause, HfHubHTTPError):
            raise _refusal(name, url, cause.response.status_code, WITHOUT, "the hub") from error
        raise MachineError(
            f"the weights of {name} cannot be fetched ({url}: {one_line(cause)})", WITHOUT
        ) from error


def _from_address(name: str, url: str, folder: Path, report: Report) -> Path:
    if urlsplit(url).scheme not in {"http", "https"}:
        raise UsageError(f"the address of {name} is not one of the web: {url}")
    path = place_of(url, folder)
    with lock(str(path), lambda: report("waiting", "another bobrt fetches the same file")):
        if not path.is_file():
            require_served(name, url, WITHOUT, urlsplit(url).netloc)
            path.parent.mkdir(parents=True, exist_ok=True)
            _download(name, url, path, report)
    return path


def _download(name: str, url: str, path: Path, report: Report) -> None:
    """Write what `url` answers to `path`, going on with what an earlier try left of the same file."""
    partial, tag = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.etag")
    try:
        with _opened(name, url, partial, tag) as answer:
            begun = partial.stat().st_size if answer.status == HTTPStatus.PARTIAL_CONTENT else 0
            length = answer.headers.get("Content-Length")
            size = begun + int(length) if length else None
            if etag := answer.headers.get("ETag"):
                tag.write_text(etag)
            with partial.open("ab" if begun else "wb") as file:
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
                    report("fetching", _progress(file.tell(), size))
    except (OSError, HTTPException, ValueError) as error:
        if getattr(error, "errno", None) in CANNOT_WRITE:
            raise
        raise MachineError(
            f"the weights of {name} cannot be fetched ({url}: {one_line(error)})", WITHOUT
        ) from error
    if size is not None and (got := partial.stat().st_size) != size:
        raise MachineError(
            f"the weights of {name} broke off after {_progress(got, size)} ({url})",
            "run it again: it goes on where it stopped" if etag else "run it again",
        )
    os.replace(partial, path)  # noqa: PTH105 - one call, atomic by POSIX
    tag.unlink(missing_ok=True)


def _opened(name: str, url: str, partial: Path, tag: Path) -> HTTPResponse:
    """Return the answer of an address: the rest of the file if a part of this very file is here, else all."""
    headers = {"User-Agent": f"bobrt/{__version__}"}
    if partial.is_file() and tag.is_file() and (begun := partial.stat().st_size):
        headers |= {"Range": f"bytes={begun}-", "If-Range": tag.read_text()}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - an entry's address
    try:
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=PATIENCE_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not partial.is_file():
            raise _refusal(name, url, error.code, WITHOUT, urlsplit(url).netloc) from error
        partial.unlink()  # it was whole already, or longer than the file
        return _opened(name, url, partial, tag)
    return answer


def _progress(got: int, size: int | None) -> str:
    whole = f" of {size / 1e6:.1f}" if size else ""
    return f"{got / 1e6:.1f}{whole} MB"


def _meter(report: Report) -> type:
    """Return what huggingface_hub takes for a progress bar: it tells `report`."""

    class Meter:
        def __init__(self, *_: object, total: int | None = None, initial: int = 0, **__: object) -> None:
            self.n, self.total = initial, total

        def update(self, count: float = 1) -> None:
            self.n += int(count)
            report("fetching", _progress(self.n, self.total))

        def set_postfix_str(self, *_: object, **__: object) -> None:
            pass

        def refresh(self) -> None:
            pass

        def close(self) -> None:
            pass

        def __enter__(self) -> Self:
            return self

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> None:
            self.close()

    return Meter
