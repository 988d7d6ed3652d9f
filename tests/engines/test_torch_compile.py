"""The runtime `torch-compile`: what it answers is compiled, or an error."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor import freezing

from bobrt.catalogue import TASKS, backbone
from bobrt.errors import BobrtError
from bobrt.spec import Backbone, Precision, Protocol
from engines import export, torch_compile
from engines.torch_compile import TorchCompileRunner
from engines.torch_eager import Served, TorchRunner
from train import model
from train.seeding import seed_everything

if TYPE_CHECKING:
    from pathlib import Path

    from engines.torch_eager import Answers


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer of one block: a compiler takes its time."""
    known, task = backbone("test_vit_patch8"), TASKS.get("digits")
    entry = Backbone(name="one", timm=known.timm, family="vit", args={**known.args, "depth": 1})
    card = model.card_of(entry, "random", Protocol.FINETUNE, 0, model.transform_of(entry, task), task)
    seed_everything(0)
    net = model.build(entry, classes=10, size=32).eval()
    path = tmp_path_factory.mktemp("compile") / "it.safetensors"
    model.save(export.moved_twin(net, export.proof_images(card)) or net, card, path)
    return path


def test_it_answers_as_eager_does_and_never_uncompiled(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path
) -> None:
    """One graph for a batch, from whichever thread it is asked; a batch beyond the limit is an error.

    Its weights are constants of the graph.
    """
    frozen: list[object] = []
    plain = freezing.freeze
    monkeypatch.setattr(freezing, "freeze", lambda *args: [frozen.append(args), plain(*args)][1])
    monkeypatch.setattr(torch_compile, "SHAPES", 1)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    limit = torch._dynamo.config.recompile_limit
    with TorchRunner(checkpoint, 1) as runner:
        want = runner.infer({"images": images})

    counters.clear()
    there: list[Answers] = []
    with TorchCompileRunner(checkpoint, 1) as runner:
        got = runner.infer({"images": images})
        graphs = counters["stats"]["unique_graphs"]
        asked = threading.Thread(target=lambda: there.append(runner.infer({"images": images})))
        asked.start()
        asked.join()
        assert counters["stats"]["unique_graphs"] == graphs == len(frozen) == 1
        with pytest.raises(BobrtError, match="has compiled 1 sizes of batch") as caught:
            runner.infer({"images": images[:2]})

    assert "throughput_batches" in caught.value.hint
    for name, value in want.items():
        assert value.std(axis=0).max() > 1e-3
        np.testing.assert_allclose(got[name], value, atol=1e-4 * np.abs(value).max())
        np.testing.assert_array_equal(there[0][name], got[name])
    assert torch._dynamo.config.recompile_limit == limit
    assert not hasattr(runner, "_net")


def held() -> int:
    """Return the values in every tensor that lives, those in oneDNN's own format too."""
    gc.collect()
    return sum(one.numel() for one in gc.get_objects() if type(one) in {torch.Tensor, nn.Parameter})


def test_leaving_it_lets_go_of_every_weight(checkpoint: Path) -> None:
    """Those that were made constants of the code too: on a GPU they would stay there."""
    before = held()
    with TorchCompileRunner(checkpoint, 1) as runner:
        runner.infer({"images": np.zeros((2, 32, 32, 3), np.uint8)})
        assert held() > before
    assert held() == before


class Broken(nn.Module):
    """What no compiler takes as one graph."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        torch._dynamo.graph_break()
        return (images.float(),)


def test_what_is_not_one_graph_is_an_error(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    """A part of it in eager mode would be a row of another runtime; the line names the file."""
    monkeypatch.setattr(Served, "forward", Broken.forward)

    with TorchCompileRunner(checkpoint, 1, Precision.FP32) as runner:
        images = np.zeros((1, 32, 32, 3), np.uint8)
        with pytest.raises(BobrtError) as caught:
            runner.infer({"images": images})

    assert caught.value.message.startswith(f"torch.compile cannot take {checkpoint}: ")
    assert "\n" not in caught.value.message
    assert caught.value.hint == "use the runtime torch"
