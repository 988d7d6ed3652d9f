"""Published files: fetched whole or not at all, gone on with, checked, and every failure in one line."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from support import environment
from website import COMMIT, Site, hub_files, serve

from bobrt.errors import BobrtError, MachineError, UsageError
from bobrt.spec import Backbone, WeightsFile
from train import fetch, hub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FILE = bytes(range(256)) * 12_000
"""Three times what is read at once."""
DIGEST = hashlib.sha256(FILE).hexdigest()
REPO = "someone/some-model"


@pytest.fixture
def site() -> Iterator[Site]:
    with serve({"/a/net.pth": FILE, **hub_files(REPO, {"net.bin": FILE, "more/vocab.json": b"{}"})}) as site:
        yield site


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "PATIENCE_S", 0.3)
    monkeypatch.setattr(fetch, "ANSWER_S", 0.5)


def get(site: Site, folder: Path, **more: Any) -> tuple[fetch.Fetched, list[tuple[str, str]]]:
    """Fetch the file of `net` from its publisher; return it and the reports."""
    told: list[tuple[str, str]] = []
    weights = WeightsFile(layout="any", url=f"{site.address}/a/net.pth", **more)
    return fetch.fetch("net", weights, folder, lambda *words: told.append(words)), told


def test_a_publisher_s_file_is_kept_and_described(site: Site, tmp_path: Path) -> None:
    """It is downloaded once, and found the next time with no server at all; how far it is, is told."""
    file, told = get(site, tmp_path)

    assert file == fetch.Fetched(file.path, None, DIGEST, len(FILE))
    assert file.path.read_bytes() == FILE
    assert file.path.name == "net.pth"
    assert [words for words in told if words[0] == "fetching"][-1] == ("fetching", "3.1 of 3.1 MB")
    assert [path.name for path in file.path.parent.iterdir()] == ["net.pth"]
    asked = len(site.heard)
    assert get(site, tmp_path)[0] == file
    assert len(site.heard) == asked


def test_what_broke_off_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    """Half a file is no file: the error says how far it came, and the next try asks for the rest alone."""
    site.cut = 1_000_000
    with pytest.raises(MachineError) as caught:
        get(site, tmp_path)
    assert (
        caught.value.message == f"the weights of net broke off after 1.0 of 3.1 MB ({site.address}/a/net.pth)"
    )
    assert caught.value.hint == "run it again: it goes on where it stopped"
    assert not fetch.place_of(f"{site.address}/a/net.pth", tmp_path).exists()

    site.cut = None
    file, _ = get(site, tmp_path)

    assert site.heard[-1].range == "bytes=1000000-"
    assert file.sha256 == DIGEST


@pytest.mark.parametrize("change", ["another file", "no parts", "no tag"])
def test_a_part_is_never_completed_with_another_file(site: Site, tmp_path: Path, change: str) -> None:
    """The file was replaced meanwhile, or the server gives no parts, or no version: all of it comes anew."""
    site.tags = change != "no tag"
    site.cut = 1_000_000
    with pytest.raises(MachineError):
        get(site, tmp_path)
    site.cut = None
    site.ranges = change != "no parts"
    want = FILE[::-1] if change == "another file" else FILE
    site.files["/a/net.pth"] = want

    assert get(site, tmp_path)[0].path.read_bytes() == want


def test_a_part_that_was_whole_already_is_fetched_anew(site: Site, tmp_path: Path) -> None:
    """Stopped between the last byte and the renaming: the server has nothing more to send."""
    place = fetch.place_of(f"{site.address}/a/net.pth", tmp_path)
    place.parent.mkdir()
    place.with_name("net.pth.part").write_bytes(FILE)
    place.with_name("net.pth.etag").write_text(f'"{DIGEST}"')

    assert get(site, tmp_path)[0].sha256 == DIGEST


def test_another_file_than_the_entry_s_is_refused_and_thrown_away(site: Site, tmp_path: Path) -> None:
    """The digest of an entry is checked; the wrong file is not found again."""
    assert get(site, tmp_path, sha256=DIGEST)[0].sha256 == DIGEST
    with pytest.raises(UsageError, match=rf"net has sha256 {DIGEST[:12]}\.\.\., not 000000000000") as caught:
        get(site, tmp_path, sha256="0" * 64)

    assert "run it again" in caught.value.hint
    assert not fetch.place_of(f"{site.address}/a/net.pth", tmp_path).exists()


def refuse(status: int) -> Callable[[Site], None]:
    return lambda site: setattr(site, "status", status)


def be_slow(site: Site) -> None:
    site.slow_s = 2.0


def be_silent(site: Site) -> None:
    site.silent_s = 2.0


def be_gone(site: Site) -> None:
    site.address = "http://127.0.0.1:9"


class Ends(NamedTuple):
    """How a download that cannot be done ends."""

    kind: type[BobrtError]
    message: str
    hint: str = "--weights PATH"


@pytest.mark.parametrize(
    ("trouble", "ends"),
    [
        (refuse(404), Ends(UsageError, "has no weights for net")),
        (refuse(403), Ends(UsageError, "answered 403", "set HF_TOKEN")),
        (refuse(401), Ends(UsageError, "answered 401", "set HF_TOKEN")),
        (refuse(503), Ends(MachineError, "cannot serve net")),
        (be_slow, Ends(MachineError, "cannot be reached")),
        (be_silent, Ends(MachineError, "cannot be fetched")),
        (be_gone, Ends(MachineError, "cannot be reached")),
    ],
    ids=["404", "403", "401", "503", "slow", "silent", "gone"],
)
def test_a_publisher_that_does_not_serve_ends_in_one_line_within_seconds(
    site: Site, tmp_path: Path, trouble: Callable[[Site], None], ends: Ends
) -> None:
    """The line names the backbone, the address and the answer; the hint is the way without it."""
    trouble(site)
    started = time.monotonic()
    with pytest.raises(ends.kind) as caught:
        get(site, tmp_path)

    assert time.monotonic() - started < 5
    assert ends.message in caught.value.message
    assert f"{site.address}/a/net.pth" in caught.value.message
    assert "\n" not in caught.value.message
    assert ends.hint in caught.value.hint


def test_an_address_that_is_not_one_of_the_web_is_refused(tmp_path: Path) -> None:
    """An entry cannot name a file of this machine as published."""
    weights = WeightsFile(layout="any", url=f"file://{tmp_path}/net.pth")
    with pytest.raises(UsageError, match="not one of the web"):
        fetch.fetch("net", weights, tmp_path, lambda *_: None)
    with pytest.raises(UsageError, match="neither url nor repo"):
        fetch.fetch("net", WeightsFile(layout="any"), tmp_path, lambda *_: None)


FROM_THE_HUB = """
import json, sys
from pathlib import Path
from bobrt.errors import BobrtError
from bobrt.spec import WeightsFile
from train import fetch
weights = WeightsFile(layout="any", **json.loads(sys.argv[1]))
told = []
try:
    file = fetch.fetch("net", weights, Path(), lambda *words: told.append(words), ["more/vocab.json"])
    print(json.dumps([str(file.path), file.revision, file.sha256, file.bytes, told]))
except BobrtError as error:
    print(json.dumps([error.exit_code, error.message, error.hint]))
"""


def from_the_hub(site: Site, home: Path, env: dict[str, str] | None = None, **more: str) -> list[Any]:
    """Fetch in a process that has the loopback for its hub."""
    weights = {"repo": REPO, "file": "net.bin", **more}
    done = subprocess.run(
        [sys.executable, "-c", FROM_THE_HUB, json.dumps(weights)],
        env=environment({"HF_ENDPOINT": site.address, "HF_HOME": str(home), **(env or {})}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found: list[Any] = json.loads(done.stdout)
    return found


def test_a_file_of_the_hub_comes_with_its_commit_and_what_lies_beside_it(site: Site, tmp_path: Path) -> None:
    """It lands in huggingface's cache, all files of one commit, and is found there when the hub is gone."""
    path, revision, digest, size, told = from_the_hub(site, tmp_path)

    assert (revision, digest, size) == (COMMIT, DIGEST, len(FILE))
    assert path.startswith(f"{tmp_path}/hub/models--someone--some-model/snapshots/{COMMIT}/")
    assert ["fetching", "3.1 of 3.1 MB"] in told
    assert {asked.path for asked in site.heard if "/resolve/" in asked.path} == {
        f"/{REPO}/resolve/main/net.bin",
        f"/{REPO}/resolve/{COMMIT}/more/vocab.json",
    }
    site.status = 503
    again = from_the_hub(site, tmp_path, {"HF_HUB_OFFLINE": "1"})
    assert again[:4] == [path, COMMIT, DIGEST, len(FILE)]


def send_half(site: Site) -> None:
    site.cut = 1_000_000


@pytest.mark.parametrize(
    ("trouble", "ends"),
    [
        (refuse(404), Ends(UsageError, "the hub has no weights for net")),
        (refuse(401), Ends(UsageError, "answered 401")),
        (send_half, Ends(MachineError, "cannot be fetched")),
        (be_gone, Ends(MachineError, "the hub cannot be reached")),
        (None, Ends(MachineError, "not cached and HF_HUB_OFFLINE is set")),
    ],
    ids=["404", "401", "half", "gone", "offline"],
)
def test_a_hub_that_does_not_serve_ends_in_one_line(
    site: Site, tmp_path: Path, trouble: Callable[[Site], None] | None, ends: Ends
) -> None:
    """As with a publisher, and within seconds."""
    if trouble:
        trouble(site)
    started = time.monotonic()
    code, line, hint = from_the_hub(site, tmp_path, {} if trouble else {"HF_HUB_OFFLINE": "1"})

    assert time.monotonic() - started < 15
    assert code == ends.kind.exit_code
    assert ends.message in line
    assert "\n" not in line
    assert ends.hint in hint


def test_whether_a_publisher_has_the_file_is_asked_before_anything_is_built(
    site: Site, tmp_path: Path
) -> None:
    """One request without a body; and none when the file is here, even with the network switched off."""
    weights = WeightsFile(layout="any", url=f"{site.address}/a/net.pth")
    entry = Backbone(name="net", timm="resnet50", family="resnet", weights=weights)
    hub.require_pretrained("net", entry, "export", tmp_path)
    assert [asked.method for asked in site.heard] == ["HEAD"]

    site.status = 404
    with pytest.raises(UsageError) as caught:
        hub.require_pretrained("net", entry, "export", tmp_path)
    assert caught.value.message.startswith(
        f"{site.address[7:]} has no weights for net: {site.address}/a/net.pth"
    )
    assert caught.value.hint.startswith("bobrt export net --weights random")

    site.status = None
    get(site, tmp_path / fetch.FOLDER)
    site.status = 503
    hub.require_pretrained("net", entry, "export", tmp_path)
