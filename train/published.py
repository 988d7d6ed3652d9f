"""timm's own weights: which file of the hub they are, and one line where it is damaged or does not fit.

timm fetches and loads them itself, strictly. What a publisher of its own serves is read by `train.layouts`.
"""

from __future__ import annotations

import re
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING

import timm
from safetensors import safe_open

from bobrt.errors import UsageError
from train import fetch, weights

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
        path = _file(backbone)
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
    """Return which file of the hub a model was just loaded from; null for what its cache does not tell.

    `keys` are those the model expects, every one of which was loaded, and those the file has: what it has
    more timm left out, a classifier say.
    """
    config = trunk.pretrained_cfg
    repo, _, revision = (config.get("hf_hub_id") or "").partition("@")
    names = [*filter(None, [config.get("hf_hub_filename")]), *fetch.TIMM_FILES]
    path = fetch.in_hub_cache(repo, names, revision or None) if repo else None
    if path is None:
        return {"repo": repo or None, **dict.fromkeys(("file", "revision", "sha256", "bytes", "keys"))}
    file = fetch.described(path, fetch.commit_of(path))
    return {
        "repo": repo,
        "file": path.name,
        "revision": file.revision,
        "sha256": file.sha256,
        "bytes": file.bytes,
        "keys": {"expected": len(trunk.state_dict()), "in_file": _count(path)},
    }


def _count(path: Path) -> int:
    if path.suffix != ".safetensors":
        return len(weights.contents(path)[0])
    with safe_open(path, "pt") as file:
        return len(file.keys())


def _file(backbone: Backbone) -> Path | None:
    config = timm.get_pretrained_cfg(backbone.timm)
    if config is None or not config.hf_hub_id:
        return None
    return fetch.in_hub_cache(config.hf_hub_id, fetch.TIMM_FILES, backbone.revision)


def _anew(path: Path | None) -> str:
    """Return the hint: a file of the hub's cache is a link, and goes with its repository's folder."""
    return f"fetch it anew: rm -r {shlex.quote(str(path.parents[2]))}" if path else fetch.WITHOUT
