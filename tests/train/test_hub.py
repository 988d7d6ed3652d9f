"""timm's published weights: asked for in time, fetched from the hub, and from its cache without asking."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from support import Ran, Workspace, environment
from website import COMMIT, Site, hub_files, serve

from bench import plan as plans
from bench.decide import Desk
from bobrt.catalogue import BACKBONES, backbone
from bobrt.flags import question
from bobrt.result import Published
from engines.ort_cpu import OrtCpuRunner
from train import model
from train.fetch import TIMM_FILES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPO = "timm/test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def weights() -> bytes:
    """Random ones, as timm saves them."""
    net = model.build(backbone("test_resnet"), classes=0, size=160, own_head=True)
    content: bytes = save(net.backbone.state_dict(), metadata={"format": "pt"})
    return content


@pytest.fixture
def site(weights: bytes) -> Iterator[Site]:
    with serve(hub_files(REPO, {"config.json": b"{}", "model.safetensors": weights})) as site:
        yield site


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "cache", tmp_path / "results")


def export(space: Workspace, site: Site, **more: str) -> Ran:
    """Export `test_resnet` with the loopback for a hub and a cache of huggingface's own."""
    home = str(space.cache.parent / "home")
    return space.bobrt("export", "test_resnet", env={"HF_ENDPOINT": site.address, "HF_HOME": home, **more})


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [(404, 2, "the hub has no weights for test_resnet"), (503, 3, "the hub cannot serve test_resnet")],
)
def test_a_hub_that_has_no_weights_ends_in_one_line(
    site: Site, space: Workspace, status: int, code: int, message: str
) -> None:
    """What it answers is named, and the hint is the way without it; a missing model is the user's to fix."""
    site.status = status
    done = export(space, site)

    assert done.code == code
    assert site.heard[0].path.startswith(f"/{REPO}/")
    assert f"error: {message}: {site.address}{site.heard[0].path} answered {status}" in done.err
    assert "hint: bobrt export test_resnet --weights random" in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "not cached and HF_HUB_OFFLINE is set"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "the hub cannot be reached for the weights of test_resnet"),
    ],
)
def test_without_a_hub_the_way_out_is_named(
    site: Site, space: Workspace, env: dict[str, str], message: str
) -> None:
    """Switched off or out of reach: exit code 3, and the command that needs no hub."""
    done = export(space, site, **env)

    assert done.code == 3
    assert message in done.err
    assert "--weights random, or --weights PATH" in done.err


def test_weights_come_from_the_hub_and_the_next_time_from_its_cache(
    site: Site, space: Workspace, weights: bytes, photos: torch.Tensor
) -> None:
    """The file answers as those weights do, and the checkpoint says which file of which commit they were."""
    done = export(space, site)

    assert done.code == 0, done.err
    net = model.build(backbone("test_resnet"), classes=0, size=160, own_head=True).eval()
    net.backbone.load_state_dict(load(weights))
    images = photos.repeat(1, 5, 5, 1)
    with OrtCpuRunner(next(space.cache.glob("onnx/*/model.onnx")), 1) as runner, torch.inference_mode():
        got, want = runner.infer({"images": images.numpy()})["logits"], net(images)[1].numpy()
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())
    assert told(space) == {
        "repo": REPO,
        "file": "model.safetensors",
        "revision": COMMIT,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "bytes": len(weights),
        "keys": {"expected": len(load(weights)), "in_file": len(load(weights))},
    }

    asked = question("test_resnet", "", None, "ort-cpu", "fp32", "dynamic", "pretrained", 0)
    order = Desk(plans.load("quick"), space.cache, space.results).order(asked)
    assert order.published == Published(
        repo=REPO,
        file="model.safetensors",
        revision=COMMIT,
        sha256=hashlib.sha256(weights).hexdigest(),
        bytes=len(weights),
    )

    again = Workspace(space.cache.with_name("another"), space.results)
    assert export(again, site, HF_HUB_OFFLINE="1").code == 0
    assert told(again) == told(space)


PINNED = """
import json
import msgspec
from bobrt.catalogue import backbone
from train import hub, model, published
entry = msgspec.structs.replace(backbone("test_resnet"), revision="{}")
hub.require_pretrained("test_resnet", entry, "export")
net = model.build(entry, classes=0, size=160, pretrained=True)
print(json.dumps(published.described(net.backbone)))
"""


def test_the_commit_that_an_entry_names_is_the_one_that_is_fetched(
    site: Site, space: Workspace, weights: bytes
) -> None:
    """Whatever the branch has become since: it is not asked for."""
    site.files = {path: content for path, content in site.files.items() if "/main/" not in path}
    env = environment({"HF_ENDPOINT": site.address, "HF_HOME": str(space.cache.parent / "home")})
    code = [sys.executable, "-c", PINNED.format(COMMIT)]
    done = subprocess.run(code, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["repo"], found["revision"]) == (REPO, COMMIT)
    assert found["sha256"] == hashlib.sha256(weights).hexdigest()
    assert all("/main/" not in heard.path for heard in site.heard)


def test_published_weights_that_do_not_fit_are_named(space: Workspace, weights: bytes) -> None:
    """One line with the first keys of each kind, as of a local file; the hint is what fetches them anew."""
    state = load(weights)
    del state["conv1.0.weight"]
    state |= {"mask": torch.zeros(1), "fc.bias": torch.zeros(3)}
    with serve(hub_files(REPO, {"config.json": b"{}", "model.safetensors": save(state)})) as site:
        done = export(space, site)
    assert done.code == 2
    line, _, hint = done.err[done.err.index("error: ") :].rstrip("\n").split("\n")
    assert line.endswith(
        "model.safetensors does not fit: keys 1 missing (conv1.0.weight); 1 extra (mask); "
        "1 of another shape (fc.bias is (3), not (1000))"
    )
    assert hint.startswith(f"hint: fetch it anew: rm -r {space.cache.parent / 'home'}/")


def test_published_weights_that_are_damaged_are_named(space: Workspace, weights: bytes) -> None:
    """One line; the hint takes away the repository's whole folder: a file of the hub's cache is a link."""
    with serve(hub_files(REPO, {"config.json": b"{}", "model.safetensors": weights[:-1000]})) as site:
        done = export(space, site)
    assert done.code == 2
    line, _, hint = done.err[done.err.index("error: ") :].rstrip("\n").split("\n")
    assert "model.safetensors is damaged or truncated: " in line
    folder = space.cache.parent / "home" / "hub" / f"models--{REPO.replace('/', '--')}"
    assert hint == f"hint: fetch it anew: rm -r {folder}"
    assert (folder / "blobs").is_dir()


def told(space: Workspace) -> dict[str, Any]:
    """Return what the manifest of the one checkpoint says of its weights."""
    (manifest,) = space.cache.glob("checkpoint/*/manifest.json")
    found: dict[str, Any] = json.loads(manifest.read_text())["detail"]["weights"]
    return found


def test_the_hub_is_asked_for_the_repository_that_timm_loads_from() -> None:
    """Before timm is imported the address is guessed from its id: for every entry it is the right one."""
    timm = pytest.importorskip("timm")
    for entry in BACKBONES.all().values():
        if entry.pretraining and entry.weights is None:
            config = timm.get_pretrained_cfg(entry.timm)
            assert config.hf_hub_id == f"timm/{entry.timm}"
            assert config.hf_hub_filename in {None, *TIMM_FILES}
