"""Weights files: read without running anything in them, and taken over only if every key fits."""

from __future__ import annotations

import re
import zipfile
from argparse import Namespace
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bobrt.errors import UsageError, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import nn

State = dict[str, Tensor]
"""A state dict: parameters and buffers by name."""
_ALONE = "save the names and tensors alone: torch.save(net.state_dict(), PATH)"


def contents(path: Path) -> tuple[Any, str | None]:
    """Return what a weights file holds, and the header that bobrt wrote into it, if it did.

    Reads safetensors, and PyTorch files with `weights_only`: tensors and plain containers, never code.
    TorchScript archives are refused for the same reason.

    Raises:
        UsageError: There is no such file, or it is damaged, truncated or no weights file.

    """
    if _is_torchscript(path):
        raise UsageError(f"checkpoint {path} is TorchScript, which is code", "pass a file of weights")
    try:
        if _is_safetensors(path):
            with safe_open(path, "pt") as file:
                header = (file.metadata() or {}).get("bobrt")
                return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - not a dict
        # timm's training keeps its options so, beside the weights.
        with torch.serialization.safe_globals([Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True), None
    except FileNotFoundError:
        raise UsageError(f"checkpoint {path} does not exist") from None
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError) as error:
        if "TorchScript" in str(error):
            raise UsageError(
                f"checkpoint {path} is TorchScript, which is code", "pass a file of weights"
            ) from error
        raise UsageError(f"checkpoint {path} is damaged or truncated: {_first_line(error)}") from error
    except Exception as error:
        # torch.load raises UnpicklingError, KeyError and others on files that are not checkpoints.
        if code := re.search(r"Unsupported (?:global|class)\W+(?:GLOBAL )?([\w.]+)", str(error)):
            raise UsageError(
                f"checkpoint {path} holds more than names and tensors, {code[1]}, which is code", _ALONE
            ) from error
        told = f"{type(error).__name__}: {_first_line(error)}"
        raise UsageError(f"checkpoint {path} is no file of weights ({told})") from error


def state_in(content: object, path: Path, inside: str = "") -> State:
    """Return the state dict in what a file holds, or under the key `inside` of it.

    Raises:
        UsageError: What is there is not names and tensors.

    """
    found = content.get(inside) if inside and isinstance(content, dict) else content
    if isinstance(found, dict) and found and all(map(_is_named_tensor, found.items())):
        return found
    held = (
        f": it holds {', '.join(map(repr, [*content][:5]))}" if content and isinstance(content, dict) else ""
    )
    raise UsageError(
        f"checkpoint {path} is not a state dict{f' under {inside!r}' if inside else held}",
        _ALONE,
    )


def _is_named_tensor(pair: tuple[object, object]) -> bool:
    """Tell whether a name and what it names are a parameter as any network has them."""
    name, value = pair
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout is torch.strided


def load_strictly(module: nn.Module, state: State, path: Path, classifier: tuple[str, ...] = ()) -> None:
    """Load a state dict with no key missing, extra, of another shape, or of numbers that are no floats.

    Args:
        module: What it is for.
        state: The state dict.
        path: Where it is from, for the message.
        classifier: How the names of the module's own classifier begin: one that does not fit has a way out.

    Raises:
        UsageError: Names the first keys that do not fit.

    """
    wanted = module.state_dict()
    shapes = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & state.keys())
        if state[name].shape != wanted[name].shape
    ]
    types = [
        f"{name} is {state[name].dtype}, not {value.dtype}"
        for name, value in sorted(wanted.items())
        if name in state and value.is_floating_point() and not state[name].is_floating_point()
    ]
    types += [n for n in sorted(wanted) if n in state and state[n].is_meta and not wanted[n].is_meta]
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    hint = ""
    if all(name.startswith(classifier) for name in [*missing, *extra, *shapes, *types]):
        hint = "--task NAME brings a classifier of its own"
        hint += ", and leaves the file's out" if extra or shapes or types else ""
    elif wrap := _wrapping(missing, extra):
        hint = f"save the network inside: torch.save(net.{wrap}.state_dict(), PATH)"
    require_fit(
        path, {"missing": missing, "extra": extra, "of another shape": shapes, "of another type": types}, hint
    )
    module.load_state_dict(state)


def _wrapping(missing: Sequence[str], extra: Sequence[str]) -> str:
    """Return what a file's names all have in front of the wanted ones: `module` of a DataParallel, say."""
    first = {name.partition(".")[0] for name in extra}
    inside = {name.partition(".")[2] for name in extra}
    return first.pop() if len(first) == 1 and missing and inside >= set(missing) else ""


def require_fit(path: Path | str, odd: Mapping[str, Sequence[str]], hint: str = "") -> None:
    """Raise `UsageError` with the first of the keys that are odd, by what is odd about them, if any are."""
    parts = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"  # noqa: PLR2004
        for what, names in odd.items()
        if names
    ]
    if parts:
        raise UsageError(f"checkpoint {path} does not fit: keys {'; '.join(parts)}", hint)


def _is_safetensors(path: Path) -> bool:
    """Tell by its name, or by the length of its header and the brace that begins it: a cache has no names."""
    with path.open("rb") as file:
        start = file.read(9)
    begins = start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size
    return begins or path.suffix == ".safetensors"


def _is_torchscript(path: Path) -> bool:
    """Tell a TorchScript archive as torch does: by its constants."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _first_line(error: Exception) -> str:
    return one_line((str(error).splitlines() or [type(error).__name__])[0])
