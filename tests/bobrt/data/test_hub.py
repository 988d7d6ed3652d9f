"""Data sets of the hub, against a hub on loopback: laid out once as they came, every failure in one line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import datasets
import pytest
from datasets import ClassLabel, Features
from huggingface_hub import DatasetCardData
from support import environment
from tables import CLASSES, PICTURE, parquet, picture, rows
from website import COMMIT, Site, hub_data_set, serve

from bobrt.data import folder, hub
from bobrt.data.hub_address import Address
from bobrt.errors import MachineError, UsageError
from bobrt.tasks import cards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import Ran


def split(name: str) -> str:
    """Return the name of a split's file, as the hub's library writes it."""
    return f"data/{name}-00000-of-00001.parquet"


WORKER = """
import json, resource, sys, time
from pathlib import Path
from types import SimpleNamespace
import msgspec
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http
from bobrt.data import hub
from bobrt.errors import BobrtError

out, sys.stdout = sys.stdout, sys.stderr
# Everything is tried six times, with seconds of sleep between.
file_download.time = _http.time = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
usual, (soft, hard) = dict(vars(constants)), resource.getrlimit(resource.RLIMIT_FSIZE)
for line in sys.stdin:
    asked, told = json.loads(line), []
    vars(constants).update(asked["constants"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (asked["largest"] or soft, hard))

    def report(phase, detail):
        told.append([phase, detail])
        if phase == asked["until"]:
            raise KeyboardInterrupt

    try:
        found = hub.fetch(asked["address"], Path(asked["cache"]), report)
        answer = [0, str(found.folder), str(found.address), msgspec.to_builtins(found.origin), told]
    except BobrtError as error:
        answer = [error.exit_code, error.message, error.hint, type(error).__name__]
    except KeyboardInterrupt:
        answer = [130, "", "", ""]
    vars(constants).update({key: usual[key] for key in asked["constants"]})
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    print(json.dumps(answer), file=out, flush=True)
"""


class Got(NamedTuple):
    """A data set that was fetched."""

    folder: Path
    address: str
    origin: dict[str, Any]
    told: list[list[str]]


class Failed(NamedTuple):
    """How a fetch ended that could not be done."""

    code: int
    message: str
    hint: str
    kind: str


class Hub:
    """A hub, and a process that has it for its hub from the first import on."""

    def __init__(self, site: Site, home: Path, cache: Path, worker: subprocess.Popen[str]) -> None:
        self.site, self.home, self.cache, self._worker = site, home, cache, worker

    def ask(self, address: str, until: str = "", largest: int = 0, **constants: object) -> list[Any]:
        asked = {"address": address, "cache": str(self.cache), "until": until, "largest": largest}
        assert self._worker.stdin
        assert self._worker.stdout
        self._worker.stdin.write(json.dumps({**asked, "constants": constants}) + "\n")
        self._worker.stdin.flush()
        answer: list[Any] = json.loads(self._worker.stdout.readline())
        return answer

    def get(self, address: str, **more: Any) -> Got:
        code, place, *rest = self.ask(address, **more)
        assert code == 0, [place, *rest]
        return Got(self.cache.parent / place, *rest)

    def fail(self, address: str, **more: Any) -> Failed:
        failed = Failed(*self.ask(address, **more))
        assert failed.code
        assert "\n" not in failed.message
        return failed


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """One process for all: its libraries take seconds to import."""
    home = tmp_path_factory.mktemp("home")
    with serve({}) as site:
        env = {"HF_ENDPOINT": site.address, "HF_HOME": str(home), "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
        env |= {"HF_HUB_ETAG_TIMEOUT": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
        with subprocess.Popen(
            [sys.executable, "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=home,
            env=environment(env),
        ) as worker:
            yield Hub(site, home, home / "cache", worker)
            assert worker.stdin
            worker.stdin.close()


@pytest.fixture
def loopback(started: Hub, tmp_path: Path) -> Iterator[Hub]:
    """The hub with nothing on it that behaves, and a cache of this test's own."""
    site = started.site
    started.cache = tmp_path / "data"
    yield started
    fresh = Site({})
    fresh.address = site.address
    vars(site).clear()
    vars(site).update(vars(fresh))


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


def test_a_data_set_is_laid_out_as_it_came(loopback: Hub) -> None:
    """Every file byte for byte, in a folder of its class; the record says where it came from."""
    train, test = rows(40), rows(10, first=100)
    content = {split("train"): parquet(train), split("test"): parquet(test)}
    loopback.site.files |= hub_data_set("an-org/animals", content, cardData={"license": "cc-by-4.0"})

    got = loopback.get("hf://datasets/an-org/animals")

    assert got.folder == loopback.cache / "hub" / f"an-org--animals@{COMMIT}"
    want = {
        f"{name}/{CLASSES[row % 2]}/{row:07d}.{'jpg' if row % 2 else 'png'}": table["image"][row]["bytes"]
        for name, table in (("train", train), ("test", test))
        for row in range(len(table["label"]))
    }
    assert files(got.folder) == want
    assert got.address == f"hf://datasets/an-org/animals@{COMMIT}"
    assert got.origin == {
        "schema": 1,
        "address": got.address,
        "commit": COMMIT,
        "licence": "cc-by-4.0",
        "config": "default",
        "image": "image",
        "label": "label",
        "splits": {"train": 40, "test": 10},
        "notes": [],
    }
    assert [words[0] for words in got.told] == ["asking the hub", "fetching", "laying out"]
    assert sorted(path.name for path in got.folder.parent.iterdir()) == [
        got.folder.name,
        f"{got.folder.name}.json",
    ]
    scan = folder.read(got.folder)
    assert scan.listing.classes == list(CLASSES)
    assert {name: len(part.ids) for name, part in scan.listing.splits.items()} == {
        "train": 34,
        "validation": 6,
        "test": 10,
    }


def test_what_is_here_is_not_fetched_again(loopback: Hub) -> None:
    """A branch may have moved, so the hub is asked for its commit; a commit needs no hub at all."""
    loopback.site.files |= hub_data_set("org/twice", {split("train"): parquet(rows(8))})
    first = loopback.get("hf://datasets/org/twice@main")
    asked = len(loopback.site.heard)

    assert loopback.get("hf://datasets/org/twice@main")[:3] == first[:3]
    assert [heard.path for heard in loopback.site.heard[asked:]] == ["/api/datasets/org/twice/revision/main"]
    loopback.site.status = 503
    again = loopback.get(f"hf://datasets/org/twice@{COMMIT}", HF_HUB_OFFLINE=True)
    assert again[:3] == first[:3]
    assert again.told == []


def test_what_has_no_label_is_left_out_by_name(loopback: Hub) -> None:
    """The labels of a test that are kept secret are -1; some rows may have none."""
    train = rows(12)
    train["label"][3] = None
    secret = rows(6, first=50)
    secret["label"] = [-1] * 6
    content = {split("train"): parquet(train), split("test"): parquet(secret)}
    loopback.site.files |= hub_data_set("org/secret", content)

    got = loopback.get("hf://datasets/org/secret")

    assert got.origin["splits"] == {"train": 11}
    assert got.origin["notes"] == [
        "left out of train, without a label: 1 of 12 images",
        "left out of test, without a label: 6 of 6 images",
    ]
    assert not (got.folder / "test").exists()


def test_an_image_that_is_none_is_kept_for_the_reader_to_count(loopback: Hub) -> None:
    """Nothing is judged while it is laid out: what is broken or missing is counted where folders are."""
    train = rows(30)
    train["image"][4] = {"bytes": b"no image", "path": "four.png"}
    train["image"][5] = {"bytes": picture(5)[:60], "path": None}
    train["image"][6] = None
    loopback.site.files |= hub_data_set("org/broken", {split("train"): parquet(train)})

    got = loopback.get("hf://datasets/org/broken")

    assert (got.folder / "train/cat/0000004.png").read_bytes() == b"no image"
    assert got.origin["splits"] == {"train": 30}
    counts = {reason: left.n for reason, left in folder.read(got.folder).left_out.items()}
    assert counts == {"not an image": 1, "damaged": 1, "empty": 1}


def test_a_data_set_of_image_files_is_laid_out_too(loopback: Hub) -> None:
    """Folders of images, as the hub takes them: the library finds the classes, and each file is copied."""
    content = {
        f"{part}/{label}/{row}.png": picture(row + 100 * len(part) + 10 * len(label) * place)
        for part in ("train", "test")
        for place, label in enumerate(("red", "blue"))
        for row in range(3)
    }
    loopback.site.files |= hub_data_set("org/files", content)

    got = loopback.get("hf://datasets/org/files")

    assert got.origin["splits"] == {"train": 6, "test": 6}
    laid = files(got.folder)
    for label in ("red", "blue"):
        want = {data for name, data in content.items() if f"train/{label}/" in name}
        assert {data for name, data in laid.items() if f"train/{label}/" in name} == want


CARD = b"""---
configs:
- config_name: large
  data_files:
  - split: train
    path: large/train.parquet
- config_name: small
  data_files:
  - split: train
    path: small/train.parquet
---
"""


def test_of_several_configurations_one_is_chosen(loopback: Hub) -> None:
    """Which ones there are is said, with what to type; each has a folder of its own."""
    content = {"README.md": CARD}
    content |= {f"{name}/train.parquet": parquet(rows(n)) for name, n in (("large", 12), ("small", 8))}
    loopback.site.files |= hub_data_set("org/sizes", content)
    address = "hf://datasets/org/sizes"

    several = loopback.fail(address)
    assert several.code == 2
    assert "has 2 configurations: large, small" in several.message
    assert several.hint.startswith(f"--data '{address}@{COMMIT}?config=large' or ")
    wrong = loopback.fail(f"{address}?config=smal")
    assert wrong.message.endswith("unknown configuration 'smal'")
    assert wrong.hint.startswith("did you mean small?")
    small, large = (loopback.get(f"{address}?config={name}") for name in ("small", "large"))
    assert (small.origin["splits"], small.origin["config"]) == ({"train": 8}, "small")
    assert large.origin["splits"] == {"train": 12}
    assert small.folder != large.folder
    chosen = CARD.replace(b"config_name: small", b"config_name: small\n  default: true")
    loopback.site.files |= hub_data_set("org/usual", {**content, "README.md": chosen})
    usual = loopback.get("hf://datasets/org/usual")
    assert usual.origin["config"] == "small"
    assert usual.origin["notes"] == ["of its configurations large, small its default is taken: small"]


def described(images: int) -> bytes:
    """Return a card with the columns, as the hub's library writes it: without it only the files know."""
    kinds = {
        "image": PICTURE,
        "fine": ClassLabel(names=list(CLASSES)),
        "coarse": ClassLabel(names=["animal"]),
    }
    info = datasets.DatasetInfo(features=Features(kinds), download_size=9_000_000, dataset_size=9)
    info.splits = datasets.SplitDict({"train": datasets.SplitInfo("train", num_bytes=9, num_examples=images)})
    card = DatasetCardData()
    datasets.info.DatasetInfosDict({"default": info}).to_dataset_card_data(card)
    return f"---\n{card}\n---\n".encode()


@pytest.mark.parametrize("card", [True, False])
def test_of_several_labels_one_is_chosen(loopback: Hub, card: bool) -> None:
    """As CIFAR-100 has a fine and a coarse one; where a card says so, before anything is fetched."""
    coarse = ClassLabel(names=["animal"])
    table = {"image": rows(8)["image"], "fine": [n % 2 for n in range(8)], "coarse": [0] * 8}
    content = parquet(table, fine=ClassLabel(names=list(CLASSES)), coarse=coarse)
    repo = f"org/fine-{card}"
    files = {split("train"): content, **({"README.md": described(8)} if card else {})}
    loopback.site.files |= hub_data_set(repo, files)

    several = loopback.fail(f"hf://datasets/{repo}")
    assert several.message == f"{repo} has 2 columns that may be the label: fine, coarse"
    assert f"--data 'hf://datasets/{repo}@{COMMIT}?label=coarse'" in several.hint
    assert any(".parquet" in heard.path for heard in loopback.site.heard) != card
    assert not list(loopback.cache.glob("hub/*"))
    got = loopback.get(f"hf://datasets/{repo}?label=fine")
    assert got.origin["label"] == "fine"
    assert (["fetching", "9.0 MB in all, as its card says"] in got.told) == card
    assert {path.name for path in (got.folder / "train").iterdir()} == set(CLASSES)


def test_a_data_set_that_is_a_program_is_not_run(loopback: Hub) -> None:
    """It is not even fetched; the hub's own conversion of it is named."""
    loopback.site.files |= hub_data_set("org/script", {"script.py": b"raise SystemExit(9)"})

    failed = loopback.fail("hf://datasets/org/script")

    assert failed.code == 2
    assert "is a program, script.py, which is not run" in failed.message
    assert "--data 'hf://datasets/org/script@refs/convert/parquet'" in failed.hint
    assert not any("script.py" in heard.path for heard in loopback.site.heard)


class Ends(NamedTuple):
    """How a hub misbehaves, and how that ends."""

    trouble: dict[str, Any]
    code: int
    message: str
    hint: str
    constants: dict[str, object] = {}


IMPATIENT: dict[str, object] = {"HF_HUB_DOWNLOAD_TIMEOUT": 0.3}
"""Each of six tries waits so long."""
TROUBLES = {
    "private": Ends(
        {"status": 401}, 2, "the hub shows no data set REPO to you: it answered 401", "hf auth login"
    ),
    "none": Ends({"status": 404, "code": "RepoNotFound"}, 2, "the hub has no data set REPO", "look for it"),
    "no revision": Ends(
        {"status": 404, "code": "RevisionNotFound"},
        2,
        "REPO has no revision v9",
        "/datasets/REPO/commits/main",
    ),
    "gated": Ends(
        {"status": 403, "code": "GatedRepo", "only": ".parquet"},
        2,
        "is gated: the hub answered 403",
        "/datasets/REPO, then: hf auth login",
    ),
    "down": Ends({"status": 502}, 3, "the hub cannot serve", "try again later"),
    "slow": Ends({"slow_s": 2.0}, 3, "the hub cannot be reached for hf://datasets/REPO", "try again later"),
    "gone": Ends({}, 3, "the hub cannot be reached", "--data FOLDER", {"ENDPOINT": "http://127.0.0.1:9"}),
    "no hub": Ends({"only": "/api/", "cut": 9}, 3, "the hub cannot be reached", "try again later"),
    "half a file": Ends(
        {"only": ".parquet", "cut": 500}, 3, "the hub broke off while sending", "it goes on where it stopped"
    ),
    "silent": Ends(
        {"only": ".parquet", "silent_s": 1.0},
        3,
        "the hub broke off while sending",
        "it goes on where it stopped",
        IMPATIENT,
    ),
    # Such a request the library sends without any time-out.
    "silent list": Ends(
        {"only": "/tree/", "slow_s": 1.0},
        3,
        "the hub broke off while sending",
        "it goes on where it stopped",
        IMPATIENT,
    ),
    "offline": Ends(
        {}, 3, "is not here and HF_HUB_OFFLINE is set", "try again later", {"HF_HUB_OFFLINE": True}
    ),
}


@pytest.mark.parametrize("name", list(TROUBLES))
def test_a_hub_that_does_not_serve_ends_in_one_line(loopback: Hub, name: str) -> None:
    """The line names the data set and the answer; and once the hub serves, the same command does it."""
    repo, ends = f"org/{name.replace(' ', '-')}", TROUBLES[name]
    address = f"hf://datasets/{repo}" + ("@v9" if name == "no revision" else "")
    loopback.site.files |= hub_data_set(repo, {split("train"): parquet(rows(8))})
    vars(loopback.site).update(ends.trouble)
    started = time.monotonic()
    failed = loopback.fail(address, **ends.constants)

    assert time.monotonic() - started < 15
    assert failed.code == ends.code
    assert ends.message.replace("REPO", repo) in failed.message
    assert ends.hint.replace("REPO", repo) in failed.hint
    assert (failed.kind == "AbsentDataError") == (name == "offline")
    assert not list(loopback.cache.glob("hub/*@*[0-9a-f]"))
    vars(loopback.site).update(status=None, code=None, cut=None, slow_s=0.0, silent_s=0.0)
    assert loopback.get(f"hf://datasets/{repo}").origin["splits"] == {"train": 8}


def test_a_data_set_that_is_not_what_its_card_says_is_refused(loopback: Hub) -> None:
    """The card counts the images of each split; with some of them missing a score would be another one's."""
    table = {"image": rows(8)["image"], "fine": [n % 2 for n in range(8)], "coarse": [0] * 8}
    content = parquet(table, fine=ClassLabel(names=list(CLASSES)), coarse=ClassLabel(names=["animal"]))
    loopback.site.files |= hub_data_set("org/fewer", {split("train"): content, "README.md": described(9)})

    failed = loopback.fail("hf://datasets/org/fewer?label=fine")

    assert failed.code == 2
    assert "is no data set of images that can be read" in failed.message
    assert "num_examples=9" in failed.message
    assert not list(loopback.cache.glob("hub/*"))


def test_a_file_that_is_damaged_on_the_hub_is_no_matter_of_the_network(loopback: Hub) -> None:
    """Trying again would not help, and nothing is kept of it."""
    content = parquet(rows(8))
    damaged = content[:4] + bytes(200) + content[204:]  # its end, which is read first, is whole
    loopback.site.files |= hub_data_set("org/damaged", {split("train"): damaged})

    failed = loopback.fail("hf://datasets/org/damaged")

    assert failed.code == 2
    assert "is no data set of images that can be read" in failed.message
    assert not list(loopback.cache.glob("hub/*"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>your password, please</html>", "what answered for hf://datasets/org/page is no hub"),
        (
            b'{"id": "org/page", "sha": "../../away"}',
            "names no commit of hf://datasets/org/page but ../../away",
        ),
    ],
)
def test_what_is_no_hub_is_told_from_one(loopback: Hub, content: bytes, message: str) -> None:
    """A network may answer everything with a page of its own; and nothing it says becomes a path."""
    loopback.site.files["/api/datasets/org/page"] = content
    failed = loopback.fail("hf://datasets/org/page")
    assert failed.code == 3
    assert message in failed.message


def test_without_the_hub_what_is_here_is_named(loopback: Hub) -> None:
    """A branch cannot be asked for; the commit that was fetched needs no asking."""
    loopback.site.files |= hub_data_set("org/here", {split("train"): parquet(rows(8))})
    got = loopback.get("hf://datasets/org/here")

    failed = loopback.fail("hf://datasets/org/here", HF_HUB_OFFLINE=True)

    assert failed.hint == f"what is here: --data '{got.address}'"


@pytest.mark.parametrize("stage", ["fetching", "laying out"])
def test_a_disk_that_fills_is_told_and_nothing_half_remains(loopback: Hub, stage: str) -> None:
    """While the hub's file is fetched, or while an image is written: freed, the same command goes on."""
    train = rows(110)
    train["image"][105] = {"bytes": picture(0, side=100), "path": None}
    repo = f"org/full-{stage.partition(' ')[0]}"
    loopback.site.files |= hub_data_set(repo, {split("train"): parquet(train)})
    address = f"hf://datasets/{repo}"
    if stage == "laying out":
        assert loopback.ask(address, until=stage)[0] == 130

    failed = loopback.fail(address, largest=20_000)

    assert failed.code == 3
    assert failed.message.startswith(f"cannot write {address}@{COMMIT}: ")
    assert "free some space" in failed.hint
    assert not list(loopback.cache.glob("hub/*@*[0-9a-f]"))
    assert not list(loopback.cache.rglob("*0000105*"))
    got = loopback.get(address)
    assert got.origin["splits"] == {"train": 110}
    assert (got.folder / "train/dog/0000105.png").read_bytes() == train["image"][105]["bytes"]


def test_what_was_interrupted_goes_on(loopback: Hub) -> None:
    """What was fetched is not fetched again; the folder appears when it is whole."""
    loopback.site.files |= hub_data_set("org/stopped", {split("train"): parquet(rows(120))})
    assert loopback.ask("hf://datasets/org/stopped", until="laying out")[0] == 130
    place = loopback.cache / "hub" / f"org--stopped@{COMMIT}"
    assert not place.exists()
    written = {path.name: path.stat().st_ino for path in place.parent.rglob("*.png")}
    assert len(written) == 50
    asked = len(loopback.site.heard)

    got = loopback.get("hf://datasets/org/stopped")

    whole = {path.name: path.stat().st_ino for path in got.folder.rglob("*.png")}
    assert len(whole) == 60
    assert whole.items() >= written.items()
    assert not any(
        heard.method == "GET" and ".parquet" in heard.path for heard in loopback.site.heard[asked:]
    )
    assert len(list(place.parent.iterdir())) == 2


def test_without_the_library_the_line_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "version", lambda name: None if name == "datasets" else "1")
    with pytest.raises(MachineError, match="needs datasets, not installed here") as caught:
        hub.fetch("hf://datasets/a/b", tmp_path)
    assert caught.value.hint == "pip install 'bobrt[hub]'"


def test_a_folder_of_the_same_name_is_not_taken_for_the_hub_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library looks into the current folder first, without a word."""
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="which `datasets` takes for the data set"):
        hub._prepared(Address("org/name", COMMIT), tmp_path / "tables", lambda *_: None)


def test_a_data_set_of_the_hub_is_a_task_from_its_address_on(
    loopback: Hub, bobrt: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its address and then by its name, and what it came from is said, and on its card."""
    loopback.site.files |= hub_data_set("org/task", {split("train"): parquet(rows(40))})
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "HF_HOME": str(tmp_path / "home")}
    env |= {"HF_ENDPOINT": loopback.site.address, "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
    common = ("bench", "test_resnet", "--weights", "random", "--plan", "own", "--dry-run", "--json")

    ran = bobrt(*common, "--data", "hf://datasets/org/task", env=env)

    assert ran.code == 0, ran.err
    assert {cell["cell"]["task"] for cell in json.loads(ran.out)["plan"]} == {"org--task"}
    assert "hf://datasets/org/task is the task org--task from now on" in ran.err
    assert f"from hf://datasets/org/task@{COMMIT}; licence: none stated" in ran.err
    assert f"to have this very commit again: --data 'hf://datasets/org/task@{COMMIT}'" in ran.err
    again = bobrt(*common, "--task", "org--task", env={**env, "HF_HUB_OFFLINE": "1"})
    assert json.loads(again.out) == json.loads(ran.out)
    listed = json.loads(bobrt("list", "tasks", "--json", env=env).out)["tasks"]
    assert next(task["licence"] for task in listed if task["name"] == "org--task") == "none stated"
    monkeypatch.setenv("XDG_CONFIG_HOME", env["XDG_CONFIG_HOME"])
    card = cards.named("org--task")
    assert (card.hub, card.revision, card.source) == ("org/task", COMMIT, f"hf://datasets/org/task@{COMMIT}")
    taken = bobrt(*common, "--task", "cifar10", "--data", "hf://datasets/org/task", env=env)
    assert (taken.code, json.loads(taken.out)["error"]["kind"]) == (2, "usage")
