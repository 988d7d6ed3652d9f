"""timm's own weights: which file they are, and one line where it is damaged or does not fit.

timm fetches and loads them itself, strictly but for a few models that say so (none of the catalogue's).
What a publisher of its own serves is read by `train.layouts`.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import timm
import torch
from safetensors import safe_open
from timm.models import PretrainedCfg

from bobrt.errors import UsageError
from train import fetch, weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from bobrt.spec import Backbone, Json

_ODD = {
    "missing": r"Missing key\(s\) in state_dict: (.+?)\.\s*(?:\n|$)",
    "extra": r"Unexpected key\(s\) in state_dict: (.+?)\.\s*(?:\n|$)",
}
_SHAPE = r"size mismatch for (\S+): .*? torch\.Size\(\[(.*?)\]\) .*? torch\.Size\(\[(.*?)\]\)"


@contextmanager
def loading(backbone: Backbone) -> Iterator[None]:
    """Turn what timm and torch say of a published file into one line that names it.

    Raises:
        UsageError: The file is damaged, or its keys are not the model's: the first of them are named.

    """
    try:
        yield
    except Exception as error:
        config = timm.get_pretrained_cfg(backbone.timm)
        path = cached(pinned(config, backbone.revision)) if config else None
        try:
            if path:
                weights.contents(path)  # the libraries have a dozen errors for a file that is cut
            weights.require_fit(path or backbone.timm, odd_keys(str(error)))
        except UsageError as told:
            raise UsageError(told.message, _anew(path)) from error
        raise


def odd_keys(text: str) -> dict[str, list[str]]:
    """Return the keys that do not fit, by what is odd about them, from what `load_state_dict` says."""
    odd = {what: re.findall(r'"([^"]+)"', " ".join(re.findall(words, text))) for what, words in _ODD.items()}
    odd["of another shape"] = [
        f"{name} is ({was}), not ({want})" for name, was, want in re.findall(_SHAPE, text)
    ]
    return odd


def described(trunk: nn.Module) -> dict[str, Json]:
    """Return which published file a model was just loaded from; null for what its cache does not tell.

    `keys` are those the model expects, every one of which was loaded, and those the file has: what it has
    more is the classifier's.
    """
    config = PretrainedCfg(**trunk.pretrained_cfg)
    found: dict[str, Json] = {"repo": repository(config)[0], "url": None if config.hf_hub_id else config.url}
    path = cached(config)
    if path is None:
        return found | dict.fromkeys(("file", "revision", "sha256", "bytes", "keys"))
    file = fetch.described(path, fetch.commit_of(path))
    return found | {
        "file": path.name,
        "revision": file.revision,
        "sha256": file.sha256,
        "bytes": file.bytes,
        "keys": {"expected": len(trunk.state_dict()), "in_file": _count(path)},
    }


def pinned(config: PretrainedCfg, revision: str | None) -> PretrainedCfg:
    """Return timm's own words for its weights, at a commit of the hub where an entry names one."""
    if revision is None or not config.hf_hub_id:
        return config
    return dataclasses.replace(config, hf_hub_id=f"{config.hf_hub_id}@{revision}")


def names_of(config: PretrainedCfg) -> list[str]:
    """Return the files that timm looks for in a repository of the hub, the first that is there being it."""
    return [config.hf_hub_filename] if config.hf_hub_filename else [*fetch.TIMM_FILES]


def repository(config: PretrainedCfg) -> tuple[str | None, str | None]:
    """Return the repository of the hub that timm loads from, and its commit if one is pinned."""
    repo, _, revision = (config.hf_hub_id or "").partition("@")
    return repo or None, revision or None


def cached(config: PretrainedCfg) -> Path | None:
    """Return the file that timm loads from, if it is on this disk: in huggingface's cache, or torch's."""
    repo, revision = repository(config)
    if repo:
        return fetch.in_hub_cache(repo, names_of(config), revision)
    path = Path(torch.hub.get_dir(), "checkpoints", PurePosixPath(urlsplit(config.url or "").path).name)
    return path if config.url and path.is_file() else None


def _count(path: Path) -> int:
    if path.suffix != ".safetensors":
        return len(weights.contents(path)[0])
    with safe_open(path, "pt") as file:
        return len(file.keys())


def _anew(path: Path | None) -> str:
    """Return the hint: a file of the hub's cache is a link, and goes with its repository's folder."""
    if path is None:
        return fetch.WITHOUT
    gone = path.parents[2] if fetch.commit_of(path) else path
    return f"fetch it anew: rm -r {shlex.quote(str(gone))}"
