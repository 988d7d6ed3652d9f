"""Data sets of the hub: fetched once through the `datasets` library, and a folder of images from then on.

A commit of a data set never changes, so it is laid out once and found again without a network. Everything
that can go wrong on the way ends in one line, and what was fetched before it is not fetched again: the files
of the hub stay in huggingface's own cache, the images that were written in a partial folder.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from bobrt.artifacts import version
from bobrt.data import hub_address, hub_layout
from bobrt.errors import AbsentDataError, BobrtError, MachineError, UsageError, one_line, unknown
from bobrt.paths import CANNOT_WRITE, lock, write_atomic
from bobrt.reach import DENIED, GONE
from bobrt.spec import Frozen
from bobrt.strict import parse_json, read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bobrt.data.hub_address import Address
    from bobrt.data.hub_layout import Columns

    Report = Callable[[str, str], None]

FOLDER = "hub"
"""Below the cache's folder of data: one folder for each commit, its record beside it."""
AGAIN = "run it again: it goes on where it stopped"
WITHOUT = "try again later, or name a folder of images: --data FOLDER"


class Origin(Frozen, frozen=True, kw_only=True):
    """Where a folder of images came from."""

    schema: int = 1
    address: str
    """With the commit: what was fetched, and fetches it again."""
    commit: str
    licence: str | None
    """As the data set's card states it; None if it states none."""
    config: str
    image: str
    label: str
    splits: dict[str, int]
    """Images of each split, those that may turn out to be broken too."""
    notes: list[str]
    """What of the data set is not used."""


class Fetched(NamedTuple):
    """A data set of the hub on this disk."""

    folder: Path
    address: Address
    """With the commit."""
    origin: Origin


def fetch(text: str, cache: Path, report: Report = lambda *_: None) -> Fetched:
    """Return a data set of the hub as a folder of images, fetched and laid out unless it is here.

    Args:
        text: Its address, as `hf://datasets/ORG/NAME@REVISION`.
        cache: Our cache's folder of data.
        report: Called with a phase and how far it is.

    Raises:
        UsageError: The hub has no such data set or none for this user, or it is not one of images with one
            class each.
        AbsentDataError: It is not here, and `HF_HUB_OFFLINE` forbids to ask for it.
        MachineError: `datasets` is not installed, the hub cannot be reached, stops answering or sends a part
            only, or the disk is full.

    """
    address = hub_address.parse(text)
    root = cache / FOLDER
    if address.pinned and (found := _found(root, address)):
        return found
    if absent := [name for name in ("datasets", "huggingface-hub") if version(name) is None]:
        raise MachineError(
            f"fetching {address} needs {' and '.join(absent)}, not installed here", "pip install 'bobrt[hub]'"
        )
    report("asking the hub", "")
    info = _asked(root, address)
    address = address._replace(revision=info.sha)
    with lock(
        str(root / address.folder), lambda: report("waiting", "another bobrt fetches the same data set")
    ):
        return _found(root, address) or _made(root, address, info, report)


def told(folder: Path) -> list[str]:
    """Return where a folder came from and what of it is not used, a line each; nothing if not from the hub.

    Raises:
        UsageError: Its record is damaged.

    """
    found = origin_of(folder)
    return [f"from {found.address}; licence: {found.licence or 'none stated'}", *found.notes] if found else []


def origin_of(folder: Path) -> Origin | None:
    """Return where a folder of images came from, or None if not from the hub.

    Raises:
        UsageError: Its record is damaged.

    """
    return _origin(folder) if folder.parent.name == FOLDER and "@" in folder.name else None


def _found(root: Path, address: Address) -> Fetched | None:
    folder = root / address.folder
    origin = _origin(folder) if folder.is_dir() else None
    return Fetched(folder, address, origin) if origin else None


def _origin(folder: Path) -> Origin | None:
    record = _record(folder)
    if not record.is_file():
        return None
    return parse_json(read_text(record, "record"), Origin, f"record {record}")


def _record(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _asked(root: Path, address: Address) -> Any:  # noqa: ANN401 - what the hub's library knows of a data set
    """Return what the hub says of a data set, its commit among it."""
    from huggingface_hub import HfApi, constants  # noqa: PLC0415 - only for data sets of the hub

    if constants.HF_HUB_OFFLINE:
        raise AbsentDataError(f"{address} is not here and HF_HUB_OFFLINE is set", _without(root, address))
    patience = constants.HF_HUB_DOWNLOAD_TIMEOUT
    try:
        info = HfApi().dataset_info(address.repo, revision=address.revision, timeout=patience)
    except Exception as error:  # an answer may be anything: a page that asks for a password
        hint = _without(root, address)
        odd = MachineError(f"what answered for {address} is no hub: {one_line(error)}", hint)
        raise _explained(address, error, "the hub cannot be reached for", hint) or odd from error
    if not hub_address.is_commit(info.sha):
        raise MachineError(f"the hub names no commit of {address} but {info.sha}", WITHOUT)
    # What the library would run, were it told to trust it.
    script = f"{address.repo.partition('/')[2]}.py"
    if any(file.rfilename == script for file in info.siblings or []):
        parquet = address._replace(revision="refs/convert/parquet")
        raise UsageError(
            f"{address} is a program, {script}, which is not run",
            f"the hub may have converted it: {parquet.option()}",
        )
    return info


def _without(root: Path, address: Address) -> str:
    """Return the hint for a hub that does not answer: what is here of the data set, if anything is."""
    here = address._replace(revision="*").folder
    records = sorted(root.glob(f"{here}.json"), key=lambda path: path.stat().st_mtime)
    commits = [path.stem.partition("@")[2].partition("--")[0] for path in records]
    if address.revision is None and commits:
        return f"what is here: {address._replace(revision=commits[-1]).option()}"
    return WITHOUT


def _made(root: Path, address: Address, info: Any, report: Report) -> Fetched:  # noqa: ANN401 - as above
    """Fetch a commit and lay it out: beside, and renamed when it is whole."""
    folder = root / address.folder
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        report("fetching", "")
        builder = _prepared(address, partial / "tables", report)
        splits = builder.as_dataset()
        found = hub_layout.columns(next(iter(splits.values())).features, address)
        laid = hub_layout.lay_out(
            _encoded(splits, found),
            found,
            address,
            partial / "images",
            _own_files(partial / "tables"),
            lambda done, rows: report("laying out", f"{done:,} of {rows:,} images"),
        )
        origin = Origin(
            address=str(address),
            commit=info.sha,
            licence=_licence(info),
            config=builder.config.name,
            image=found.image,
            label=found.label,
            splits=laid.splits,
            notes=[*_taken(builder, address), *laid.notes],
        )
        shutil.rmtree(folder, ignore_errors=True)  # one without its record
        os.sync()  # once for all images, before they count as whole
        write_atomic(_record(folder), msgspec.json.format(msgspec.json.encode(origin)))
        (partial / "images").rename(folder)
    except UsageError:
        shutil.rmtree(partial, ignore_errors=True)  # the same will be wrong with it the next time
        raise
    except BobrtError:
        raise
    except Exception as error:  # whatever a stranger's data makes of the library
        if known := _explained(address, error, "the hub broke off while sending", AGAIN):
            raise known from error
        shutil.rmtree(partial, ignore_errors=True)
        raise UsageError(
            f"{address} is no data set of images that can be read: {one_line(error)}",
            "look at it in the hub's own viewer, or choose another revision",
        ) from error
    shutil.rmtree(partial, ignore_errors=True)
    return Fetched(folder, address, origin)


def _prepared(address: Address, cache: Path, report: Report) -> Any:  # noqa: ANN401 - a builder of `datasets`
    """Return what reads the splits, having fetched them; what it makes of the hub's files goes to `cache`."""
    import datasets  # noqa: PLC0415 - takes seconds, and is an extra

    if Path(address.repo).exists():
        raise UsageError(
            f"there is a {address.repo} in this folder, which `datasets` takes for the data set",
            "run it in another folder",
        )
    _be_patient()
    _be_quiet()
    try:
        builder = datasets.load_dataset_builder(
            address.repo, address.config, revision=address.revision, cache_dir=str(cache)
        )
    except ValueError as error:
        # The library names them in its message only.
        names = datasets.get_dataset_config_names(address.repo, revision=address.revision)
        if address.config is not None and address.config not in names:
            raise unknown("configuration", address.config, names, str(address)) from error
        if address.config is None and len(names) > 1:
            raise UsageError(
                f"{address} has {len(names)} configurations: {', '.join(names)}",
                " or ".join(address.option(config=name) for name in names[:3]),
            ) from error
        raise
    if builder.info.features:
        hub_layout.columns(builder.info.features, address)  # before gigabytes are fetched
    if size := builder.info.download_size:
        report("fetching", f"{size / 1e6:,.1f} MB in all, as its card says")
    builder.download_and_prepare()
    return builder


def _taken(builder: Any, address: Address) -> list[str]:  # noqa: ANN401 - see `_prepared`
    """Return a note if the data set's own choice of a configuration was taken."""
    names = list(builder.builder_configs)
    if address.config is not None or len(names) < 2:  # noqa: PLR2004 - something to choose from
        return []
    return [f"of its configurations {', '.join(names)} its default is taken: {builder.config.name}"]


def _be_patient() -> None:
    """Give each request of the hub's library an end: it sends many without any."""
    from huggingface_hub import constants, get_session, set_client_factory  # noqa: PLC0415 - see `_asked`

    def bound(request: Any) -> None:  # noqa: ANN401 - of the HTTP library that the hub's is built on
        asked = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            step: asked.get(step) or constants.HF_HUB_DOWNLOAD_TIMEOUT
            for step in ("connect", "read", "write", "pool")
        }

    plain = get_session()
    hooks = plain.event_hooks["request"]
    if all(hook.__qualname__ != bound.__qualname__ for hook in hooks):
        kind, before = type(plain), list(hooks)
        set_client_factory(
            lambda: kind(event_hooks={"request": [*before, bound]}, follow_redirects=True, timeout=None)
        )


def _be_quiet() -> None:
    """Turn off the libraries' own bars and talk: what matters is told by us, in one live line."""
    import datasets  # noqa: PLC0415 - see `_prepared`
    import huggingface_hub  # noqa: PLC0415

    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    huggingface_hub.logging.set_verbosity(huggingface_hub.logging.CRITICAL)
    datasets.disable_progress_bars()
    huggingface_hub.utils.disable_progress_bars()


def _encoded(splits: Any, found: Columns) -> dict[str, Any]:  # noqa: ANN401 - see `_prepared`
    """Return the splits with images as the files they are."""
    import datasets  # noqa: PLC0415 - see `_prepared`

    return {
        name: table.cast_column(found.image, datasets.Image(decode=False)) for name, table in splits.items()
    }


def _own_files(tables: Path) -> list[Path]:
    """Return where the files of data sets are: downloaded, or unpacked from what was downloaded."""
    from huggingface_hub import constants  # noqa: PLC0415 - see `_asked`

    return [Path(constants.HF_HUB_CACHE), tables]


def _licence(info: Any) -> str | None:  # noqa: ANN401 - see `_asked`
    """Return the licence that a data set's card states."""
    stated = getattr(info.card_data, "license", None)
    return ", ".join(map(str, stated)) if isinstance(stated, list) else stated and str(stated)


def _explained(address: Address, error: BaseException, what: str, hint: str) -> BobrtError | None:
    """Return the error for a refusal, a network or a disk among the causes of what the libraries raised.

    Args:
        address: What was asked for.
        error: What was raised.
        what: What the network did, as the message begins.
        hint: What to do about that.

    """
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError  # noqa: PLC0415 - see `_asked`

    for cause in _causes(error):
        if isinstance(cause, HfHubHTTPError):
            if not isinstance(cause, EntryNotFoundError):
                return _refusal(address, cause)
        elif getattr(cause, "errno", None) in CANNOT_WRITE or "Not enough disk space" in str(cause):
            return MachineError(
                f"cannot write {address}: {getattr(cause, 'strerror', None) or one_line(cause)}",
                f"free some space, or set BOBRT_CACHE and HF_HOME to other folders; then {AGAIN}",
            )
        elif _broke_off(cause):
            return MachineError(f"{what} {address}: {one_line(cause)}", hint)
    return None


def _refusal(address: Address, error: Any) -> BobrtError:  # noqa: ANN401 - an error of the hub's library
    """Return the error for an answer of the hub that is no data set."""
    from huggingface_hub import constants  # noqa: PLC0415 - see `_asked`
    from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError  # noqa: PLC0415

    status = error.response.status_code
    page = f"{constants.ENDPOINT}/datasets/{address.repo}"
    if isinstance(error, GatedRepoError):
        return UsageError(
            f"{address} is gated: the hub answered {status}",
            f"accept its licence at {page}, then: hf auth login",
        )
    if isinstance(error, RevisionNotFoundError):
        return UsageError(
            f"{address.repo} has no revision {address.revision}: the hub answered {status}",
            f"what it has: {page}/commits/main",
        )
    if status in GONE:
        return UsageError(
            f"the hub has no data set {address.repo}: it answered {status}",
            f"look for it: {constants.ENDPOINT}/datasets",
        )
    if status in DENIED:
        return UsageError(
            f"the hub shows no data set {address.repo} to you: it answered {status}",
            f"see whether {page} is there; if it is private or asks for a licence: hf auth login",
        )
    return MachineError(f"the hub cannot serve {address}: it answered {status}", WITHOUT)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _broke_off(error: BaseException) -> bool:
    """Tell an error of the network or the system from one of the data, which may be an `OSError` as well."""
    from huggingface_hub.errors import HTTPError  # noqa: PLC0415 - see `_asked`

    if isinstance(error, (HTTPError, ConnectionError, TimeoutError)) or "Consistency check" in str(error):
        return True
    return isinstance(error, OSError) and error.errno is not None and not isinstance(error, FileNotFoundError)
