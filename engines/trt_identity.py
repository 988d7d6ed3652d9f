"""What an engine was built from and for, kept in its manifest and compared where it is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from bobrt.artifacts import MANIFEST, Manifest
from bobrt.errors import BobrtError
from bobrt.spec import EngineSpec, Frozen, Json, Precision
from bobrt.strict import parse_json, read_text
from bobrt.system import this_system
from engines.runtimes import compute_capability

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from engines.cuda import Gpu


class Place(Frozen, frozen=True, kw_only=True):
    """The library and the GPU an engine belongs to; null for a GPU that was not there when it was built."""

    library: str
    """`"tensorrt 11.4.0.106"`."""
    compute_capability: str | None
    gpu: str | None = None
    driver: str | None = None
    cuda: str | None = None
    """The CUDA version that the driver speaks."""


class Identity(Frozen, frozen=True, kw_only=True):
    """All that decides what a builder makes: another of any of these is another engine."""

    onnx_sha256: str
    place: Place
    profiles: tuple[tuple[int, int, int], ...]
    """Smallest, best and largest batch of each optimization profile."""
    options: dict[str, Json]
    """What the builder was told."""


def of(trt: ModuleType, spec: EngineSpec, onnx_sha256: str) -> Identity:
    """Return the identity of the engine that `trt` builds here for `spec`.

    Raises:
        MachineError: It is for the GPU at hand, and there is none.

    """
    named = Place(library=_library(trt), compute_capability=spec.compute_capability)
    return Identity(
        onnx_sha256=onnx_sha256,
        place=here(trt) if spec.compute_capability == "current" else named,
        profiles=profiles(spec),
        options={
            "level": spec.level,
            "tf32": spec.precision is Precision.TF32,
            "strongly_typed": True,
            "user_allocation": spec.runtime == "tensorrt-rtx",
        },
    )


def profiles(spec: EngineSpec) -> tuple[tuple[int, int, int], ...]:
    """Return smallest, best and largest batch of each optimization profile; a fixed batch is all three."""
    return spec.profiles if spec.batch == "dynamic" else ((spec.batch, spec.batch, spec.batch),)


def here(trt: ModuleType) -> Place:
    """Return this machine's library and GPU."""
    gpu, system = _gpu(), this_system()
    return Place(
        library=_library(trt),
        compute_capability=gpu.compute_capability if gpu else _capability(),
        gpu=gpu.name if gpu else system.gpu,
        driver=system.driver,
        cuda=gpu.cuda if gpu else None,
    )


def _gpu() -> Gpu | None:
    """Return the GPU as CUDA tells it, or None where there is no pycuda: building does not need it."""
    try:
        from engines.cuda import gpu_here  # noqa: PLC0415 - it may be absent
    except ImportError:
        return None
    return gpu_here()


def _capability() -> str | None:
    told = compute_capability()
    return f"{told[0]}.{told[1]}" if told else None


def manifest_of(path: Path) -> Manifest | None:
    """Return the manifest beside an engine, or None for one that came without."""
    manifest = path.with_name(MANIFEST)
    if not manifest.is_file():
        return None
    return parse_json(read_text(manifest, "manifest"), Manifest, f"manifest {manifest}")


def require_here(trt: ModuleType, path: Path, manifest: Manifest) -> None:
    """Raise if an engine was built for another library or GPU: it would not load, or load and be wrong.

    Raises:
        BobrtError: Says what it was built for, what is here, and what to do.

    """
    if "identity" not in manifest.detail:
        return
    built, now = msgspec.convert(manifest.detail["identity"], type=Identity).place, here(trt)
    for what in Place.__struct_fields__:
        then, today = getattr(built, what), getattr(now, what)
        if then is not None and then != today:
            raise BobrtError(
                f"{path} was built for {what.replace('_', ' ')} {then}, and here is {today}",
                "build it here: run bobrt build or bobrt bench again, or name its ONNX file",
            )


def _library(trt: ModuleType) -> str:
    return f"{trt.__name__} {trt.__version__}"
