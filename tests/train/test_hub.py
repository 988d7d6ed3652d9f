"""timm's published weights: asked for in time, fetched from the hub, and from its cache without asking."""

from __future__ import annotations

import hashlib
import importlib
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
from bobrt.errors import UsageError
from bobrt.flags import question
from bobrt.result import Published
from bobrt.spec import Backbone
from engines.ort_cpu import OrtCpuRunner
from train import hub, model, published
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


def export(space: Workspace, site: Site, *flags: str, name: str = "test_resnet", **more: str) -> Ran:
    """Export a backbone with the loopback for a hub, and caches of huggingface's and torch's own."""
    home = str(space.cache.parent / "home")
    env = {"HF_ENDPOINT": site.address, "HF_HOME": home, "TORCH_HOME": home, **more}
    return space.bobrt("export", name, *flags, env=env)


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
        "url": None,
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


@pytest.mark.parametrize("flags", [(), ("--task", "digits", "--protocol", "knn")])
def test_published_weights_that_do_not_fit_are_named(
    space: Workspace, weights: bytes, flags: tuple[str, ...]
) -> None:
    """One line with the first keys of each kind, as of a local file; the hint is what fetches them anew.

    With a classifier of another kind, or none, timm itself would take what is there.
    """
    state = load(weights)
    del state["conv1.0.weight"]
    state |= {"mask": torch.zeros(1), "fc.bias": torch.zeros(3)}
    with serve(hub_files(REPO, {"config.json": b"{}", "model.safetensors": save(state)})) as site:
        done = export(space, site, *flags)
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


ADDRESS = """
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet

NINE = {{"block": BasicBlock, "layers": (1, 1, 1, 1), "channels": (16, 16, 32, 32), "num_classes": 9}}
KNOWN = {{"url": "{}/net.pth", "num_classes": 9, "input_size": (3, 32, 32), "classifier": "fc"}}
default_cfgs = generate_default_cfgs({{"mylab_net.one": KNOWN}})

@register_model
def mylab_net(pretrained=False, **options):
    return build_model_with_cfg(ResNet, "mylab_net", pretrained, **{{**NINE, **options}})
"""
ELSEWHERE = Backbone(name="mylab/own", timm="mylab_net.one", family="mylab")


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server of one file of weights, whose address another package's architecture has from timm."""
    with serve({}) as site:
        (tmp_path / "mylab_at_an_address.py").write_text(ADDRESS.format(site.address))
        monkeypatch.syspath_prepend(tmp_path)
        net = importlib.import_module("mylab_at_an_address").mylab_net()
        torch.save(net.state_dict(), tmp_path / "net.pth")
        site.files = {"/net.pth": (tmp_path / "net.pth").read_bytes()}
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
        yield site


def test_weights_at_an_address_are_asked_for_and_loaded_from_there(address: Site, tmp_path: Path) -> None:
    """And from torch's cache the next time, unasked; what is damaged there is named."""
    content = address.files["/net.pth"]
    kept = tmp_path / "home" / "hub" / "checkpoints" / "net.pth"

    hub.require_pretrained(ELSEWHERE.name, ELSEWHERE, "export")
    net = model.build(ELSEWHERE, classes=3, size=32, pretrained=True)

    want = torch.load(tmp_path / "net.pth", weights_only=True)
    assert torch.equal(net.backbone.conv1.weight, want["conv1.weight"])
    assert published.described(net.backbone) == {
        "repo": None,
        "url": f"{address.address}/net.pth",
        "file": "net.pth",
        "revision": None,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "keys": {"expected": len(want) - 2, "in_file": len(want)},
    }

    address.files = {}
    hub.require_pretrained(ELSEWHERE.name, ELSEWHERE, "export")
    kept.write_bytes(content[:-1000])
    with pytest.raises(UsageError, match=r"net.pth is damaged or truncated") as caught:
        model.build(ELSEWHERE, classes=3, size=32, pretrained=True)
    assert caught.value.hint == f"fetch it anew: rm -r {kept}"
    kept.unlink()
    with pytest.raises(UsageError, match="has no weights for mylab/own"):
        hub.require_pretrained(ELSEWHERE.name, ELSEWHERE, "export")


ASKED = """
import sys
from bobrt.catalogue import backbone
from bobrt.errors import BobrtError
from train import hub
for name in sys.argv[1:]:
    try:
        hub.require_pretrained(name, backbone(name), "export")
    except BobrtError as error:
        print(error.message)
"""


def test_what_is_not_in_our_table_is_asked_for_where_timm_says_it_is(site: Site, tmp_path: Path) -> None:
    """In another's repository, at an address of its own, or nowhere; never where its name would have it."""
    env = environment({"HF_ENDPOINT": site.address, "HF_HOME": str(tmp_path)})

    def told_of(*names: str, **more: str) -> list[str]:
        asked = [sys.executable, "-c", ASKED, *names]
        done = subprocess.run(asked, capture_output=True, text=True, env=env | more, check=True)
        return done.stdout.splitlines()

    said = told_of("rdnet_tiny", "resnet18d", "eca_vovnet39b")
    assert [asked.path for asked in site.heard] == [
        f"/{repo}/resolve/main/{file}"
        for repo in ("naver-ai/rdnet_tiny.nv_in1k", "timm/resnet18d.ra2_in1k")
        for file in TIMM_FILES
    ]
    assert said[-1] == "timm has no published weights for eca_vovnet39b"
    (line,) = told_of("gcvit_tiny", HF_HUB_OFFLINE="1")
    assert "gcvit_tiny" in line
    assert "HF_HUB_OFFLINE" in line


def test_the_hub_is_asked_for_the_repository_that_timm_loads_from() -> None:
    """Before timm is imported the address is guessed from its id: for every entry it is the right one."""
    timm = pytest.importorskip("timm")
    for entry in BACKBONES.all().values():
        if entry.pretraining and entry.weights is None:
            config = timm.get_pretrained_cfg(entry.timm)
            assert config.hf_hub_id == f"timm/{entry.timm}"
            assert config.hf_hub_filename in {None, *TIMM_FILES}
