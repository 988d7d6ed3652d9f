"""Is the hub there, and does it have these weights? Asked before torch is even imported.

The download itself is timm's and huggingface_hub's; this file only turns minutes of
retries into one line within seconds.
"""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from http.client import HTTPException

from bobrt.errors import MachineError, UsageError

PATIENCE_S = 3.0
"""How long an address of the hub may take to answer; all of them together have twice that."""

_WITHOUT = "bobrt {verb} {name} --weights random, or --weights PATH for a local checkpoint"


def require_pretrained(name: str, timm_id: str, verb: str) -> None:
    """Return if the published weights of `timm_id` are in the local hub cache or can be fetched.

    Args:
        name: The backbone, as the user called it.
        timm_id: timm's model id with its tag.
        verb: The verb the user typed, for the hint.

    Raises:
        MachineError: The hub cannot be reached, or is switched off by `HF_HUB_OFFLINE`.
        UsageError: The hub answers that it has no such weights.

    """
    from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache  # noqa: PLC0415 - only for pretrained

    repository = f"timm/{timm_id}"
    for file in ("model.safetensors", "pytorch_model.bin"):
        if isinstance(try_to_load_from_cache(repository, file), str):
            return
    hint = _WITHOUT.format(verb=verb, name=name)
    if constants.HF_HUB_OFFLINE:
        raise MachineError(f"the weights of {name} are not cached and HF_HUB_OFFLINE is set", hint)
    # timm falls back from one file name to the other; either one being there is enough.
    url = hf_hub_url(repository, "config.json")
    headers = {"Authorization": f"Bearer {token}"} if (token := os.environ.get("HF_TOKEN")) else {}
    request = urllib.request.Request(url, method="HEAD", headers=headers)  # noqa: S310 - the hub's own address
    error = _ask(request)
    if isinstance(error, urllib.error.HTTPError):
        if error.code in {401, 403, 404}:
            raise UsageError(f"the hub has no weights for {name}: {url} answered {error.code}", hint)
        raise MachineError(f"the hub cannot serve {name}: {url} answered {error.code}", hint)
    if error:
        reason = " ".join(str(getattr(error, "reason", error)).split())
        raise MachineError(f"the hub cannot be reached for the weights of {name} ({url}: {reason})", hint)


def _ask(request: urllib.request.Request) -> Exception | None:
    """Return what went wrong with a request, or None.

    A timeout of urllib's is for each address and each read, and none for the resolver: only
    a thread of its own gives the whole request one.
    """
    answer: list[Exception | None] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S):  # noqa: S310
                answer.append(None)
        except (OSError, ValueError, HTTPException) as error:
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(2 * PATIENCE_S)
    return answer[0] if answer else TimeoutError("timed out")
