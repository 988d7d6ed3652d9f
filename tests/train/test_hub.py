"""Published weights: asked for in time, and from the hub's own cache without asking."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import Workspace

from bobrt.catalogue import backbone
from engines.ort_cpu import OrtCpuRunner
from train import model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(status: int) -> Iterator[tuple[str, list[str]]]:
    """Serve a hub on the loopback that gives every request one answer; yield address and requests."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            heard.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", heard
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [(404, 2, "the hub has no weights for test_resnet"), (503, 3, "the hub cannot serve test_resnet")],
)
def test_a_hub_that_has_no_weights_ends_in_one_line(
    tmp_path: Path, status: int, code: int, message: str
) -> None:
    """What it answers is named, and the hint is the way without it; a missing model is the user's to fix."""
    space = Workspace(tmp_path / "cache", tmp_path / "results")
    with hub(status) as (address, heard):
        done = space.bobrt("export", "test_resnet", env={"HF_ENDPOINT": address, "HF_HOME": str(tmp_path)})

    assert done.code == code
    assert heard
    assert heard[0].startswith("/timm/test_resnet.r160_in1k/")
    assert f"error: {message}: {address}{heard[0]} answered {status}" in done.err
    assert "hint: bobrt export test_resnet --weights random" in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "not cached and HF_HUB_OFFLINE is set"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "the hub cannot be reached for the weights of test_resnet"),
    ],
)
def test_without_a_hub_the_way_out_is_named(tmp_path: Path, env: dict[str, str], message: str) -> None:
    """Switched off or out of reach: exit code 3, and the command that needs no hub."""
    space = Workspace(tmp_path / "cache", tmp_path / "results")

    done = space.bobrt("export", "test_resnet", env={**env, "HF_HOME": str(tmp_path)})

    assert done.code == 3
    assert message in done.err
    assert "--weights random, or --weights PATH" in done.err


def test_weights_in_the_hub_s_cache_are_used_with_no_hub(tmp_path: Path, photos: torch.Tensor) -> None:
    """What was fetched once is exported offline: the file answers as the cached weights do."""
    net = model.build(backbone("test_resnet"), classes=0, size=160, own_head=True).eval()
    repository = tmp_path / "hub" / "models--timm--test_resnet.r160_in1k"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    save_file(net.backbone.state_dict(), snapshot / "model.safetensors")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    space = Workspace(tmp_path / "cache", tmp_path / "results")

    done = space.bobrt("export", "test_resnet", env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)})

    assert done.code == 0, done.err
    images = photos.repeat(1, 5, 5, 1).numpy()
    with OrtCpuRunner(next(space.cache.glob("onnx/*/model.onnx")), 1) as runner, torch.inference_mode():
        got = runner.infer({"images": images})["logits"]
        want = net(torch.from_numpy(images))[1].numpy()
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())
