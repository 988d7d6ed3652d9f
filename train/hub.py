"""Are the published weights there? Asked before torch is even imported.

The download itself comes later, timm's or `train.fetch`'s; this file only turns minutes of
retries into one line within seconds.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bobrt.catalogue import BACKBONES
from bobrt.errors import UsageError
from train import fetch

if TYPE_CHECKING:
    from pathlib import Path

    from bobrt.spec import Backbone

_WITHOUT = "bobrt {verb} {name} --weights random, or --weights PATH for a local checkpoint"


def require_pretrained(name: str, entry: Backbone, verb: str, cache: Path | None = None) -> None:
    """Return if a backbone's published weights are in a local cache or can be fetched.

    Args:
        name: The backbone, as the user called it.
        entry: What it stands for.
        verb: The verb the user typed, for the hint.
        cache: Root of our cache, where a file from a publisher's address may already be.

    Raises:
        MachineError: The server cannot be reached, or the hub is switched off by `HF_HUB_OFFLINE`.
        UsageError: The server answers that it has no such weights.

    """
    from huggingface_hub import hf_hub_url  # noqa: PLC0415 - only for pretrained

    hint, weights = _WITHOUT.format(verb=verb, name=name), entry.weights
    if weights is None and not BACKBONES.is_built_in(entry.name):
        _require_timm_s(name, entry, hint)
        return
    if weights and weights.url:
        if cache is None or not fetch.place_of(weights.url, cache / fetch.FOLDER).is_file():
            fetch.require_served(name, weights.url, hint, urlsplit(weights.url).netloc)
        return
    repository = weights.repo if weights and weights.repo else f"timm/{entry.timm}"
    files = [weights.file] if weights and weights.file else fetch.TIMM_FILES
    revision = weights.revision if weights else entry.revision
    if fetch.in_hub_cache(repository, files, revision) is None:
        # timm falls back from one file name to the other; either one being there is enough.
        asked = files[0] if weights else "config.json"
        fetch.require_served(name, hf_hub_url(repository, asked, revision=revision), hint)


def _require_timm_s(name: str, entry: Backbone, hint: str) -> None:
    """Ask where timm itself says that they are: its own repositories alone are called as its ids."""
    import timm  # noqa: PLC0415 - seconds; who named what is not in our table has imported it
    from huggingface_hub import hf_hub_url  # noqa: PLC0415

    from train import published  # noqa: PLC0415 - imports torch

    known = timm.get_pretrained_cfg(entry.timm)
    if known is None or not known.has_weights:
        raise UsageError(f"timm has no published weights for {name}", hint)
    config = published.pinned(known, entry.revision)
    if published.cached(config) is not None:
        return
    repository, revision = published.repository(config)
    if not repository:
        fetch.require_served(name, config.url, hint, urlsplit(config.url).netloc)
        return
    *first, last = [hf_hub_url(repository, file, revision=revision) for file in published.names_of(config)]
    for url in first:
        with suppress(UsageError):  # it may have the next one
            fetch.require_served(name, url, hint)
            return
    fetch.require_served(name, last, hint)
