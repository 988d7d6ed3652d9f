"""The runtime `torch`: the reference, which every other must answer like."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import timm
import torch

from bobrt import data
from bobrt.catalogue import TASKS, backbone
from bobrt.data.resize import resize
from bobrt.errors import BobrtError, UsageError
from bobrt.spec import Precision
from bobrt.system import cores
from engines import export, torch_eager
from engines.ort_cpu import OrtCpuRunner
from engines.runner import DeviceClock, TensorMeta, answers
from engines.torch_eager import UNTRIED, Served, TorchRunner, arithmetic
from train import model
from train.seeding import seed_everything

if TYPE_CHECKING:
    from collections.abc import Callable

    from bobrt.artifacts import Artifact
    from bobrt.spec import FileCard


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """The validation split at its engine's size."""
    card = TASKS.get("digits")
    assert card.transform is not None
    return resize(data.load(card, "validation").images, card.transform)


def test_it_answers_what_the_file_answers_in_onnx_runtime(
    made: Callable[..., Artifact], images: np.ndarray
) -> None:
    """On 269 real images both outputs of the two runtimes are the same to a ten-thousandth."""
    with TorchRunner(made("checkpoint").path, cores()) as runner:
        want = answers(runner, images, 64)
    with OrtCpuRunner(made("onnx").path, cores()) as runner:
        got = answers(runner, images, 50)

    assert want.keys() == got.keys() == {"features", "logits"}
    for name, value in want.items():
        assert value.dtype == np.float32
        assert value.std(axis=0).max() > 0.1
        np.testing.assert_allclose(got[name], value, atol=1e-4 * np.abs(value).max())


def test_the_checkpoint_is_loaded_on_entering_and_freed_on_leaving(made: Callable[..., Artifact]) -> None:
    """Inside, the stated threads and no gradients, whoever asks; outside, neither is left."""
    threads = torch.get_num_threads()
    runner = TorchRunner(made("checkpoint").path, 1)
    assert not hasattr(runner, "_net")
    modes: list[bool] = []

    with runner:
        assert runner.inputs() == {"images": TensorMeta("uint8", (None, 32, 32, 3))}
        assert torch.get_num_threads() == 1
        runner._net.register_forward_hook(lambda *_: modes.append(torch.is_inference_mode_enabled()))
        images = np.zeros((1, 32, 32, 3), np.uint8)
        runner.infer({"images": images})
        asked = threading.Thread(target=lambda: runner.infer({"images": images}))
        asked.start()
        asked.join()

    torch.set_num_threads(threads)
    assert modes == [True, True]
    assert not torch.is_inference_mode_enabled()
    assert not hasattr(runner, "_net")


def test_a_damaged_checkpoint_is_named_and_leaves_no_mode_behind(tmp_path: Path) -> None:
    """What cannot be entered changes nothing."""
    (tmp_path / "it.safetensors").write_bytes(b"half")

    with pytest.raises(UsageError, match=r"it\.safetensors is damaged"):
        TorchRunner(tmp_path / "it.safetensors", cores()).__enter__()

    assert not torch.is_inference_mode_enabled()


@pytest.fixture(scope="module")
def checkpoint(
    card: Callable[..., FileCard], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Write a network whose every parameter moves its answers, trained or not."""

    def write(name: str) -> Path:
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            seed_everything(0)
            net = model.build(backbone(name), classes=10, size=32).eval()
            model.save(export.moved_twin(net, export.proof_images(card(name))) or net, card(name), path)
        return path

    folder = tmp_path_factory.mktemp("checkpoints")
    return write


@pytest.mark.parametrize("name", ["test_resnet", "test_vit_patch8", "test_convnext2"])
@pytest.mark.parametrize(("precision", "near"), [(Precision.FP16, 1e-2), (Precision.BF16, 4e-2)])
def test_a_lower_precision_is_computed_in_and_answered_in_fp32(
    checkpoint: Callable[..., Path], images: np.ndarray, name: str, precision: Precision, near: float
) -> None:
    """Near fp32, and not the same: the arithmetic is the precision's, on real images normalised in fp32."""
    path = checkpoint(name)
    with TorchRunner(path, 1) as runner:
        want = answers(runner, images[:32], 16)
    with TorchRunner(path, 1, precision) as runner:
        got = answers(runner, images[:32], 16)
        kinds = {p.dtype for p in runner._net.parameters()}
        assert kinds == {torch_eager.DTYPES[precision]}
        assert runner._net.net.mean.dtype == torch.float32

    for output, value in want.items():
        assert got[output].dtype == np.float32
        gap = np.abs(got[output] - value).max() / np.abs(value).max()
        assert 1e-5 < gap < near, (output, gap)


def test_tf32_is_allowed_for_tf32_and_forbidden_for_fp32() -> None:
    """Both switches, matrix products and convolutions, and back to what they were."""
    backends = torch.backends

    def state() -> tuple[bool, bool, bool]:
        return backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark

    before = state()
    with arithmetic(Precision.FP32):
        assert state() == (False, False, True)
    with arithmetic(Precision.TF32):
        assert state() == (True, True, True)
    with arithmetic(Precision.FP16):
        assert state() == (False, False, True)

    assert state() == before


def test_it_is_no_straw_man() -> None:
    """Convolutions are channels-last, and attention is fused, which a network built for export has not."""
    seed_everything(0)
    conv, vit = (
        model.build(backbone(name), classes=10, size=32).eval() for name in ("test_resnet", "test_vit_patch8")
    )
    assert not any(module.fused_attn for module in vit.modules() if hasattr(module, "fused_attn"))

    weights = [p for p in Served(conv, Precision.FP32).parameters() if p.ndim == 4 and p.shape[2] > 1]
    fused = [m.fused_attn for m in Served(vit, Precision.FP32).modules() if hasattr(m, "fused_attn")]

    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert weights
    assert fused == [True] * len(vit.backbone.blocks)


def test_what_timm_calls_experimental_stays_off() -> None:
    """The list is timm's own, read from its source."""
    root = Path(timm.__file__).parent
    found = [
        ".".join(("timm", *path.relative_to(root).with_suffix("").parts))
        for path in sorted(root.rglob("*.py"))
        if re.search(r"use_fused_attn\(experimental=True\)", path.read_text(encoding="utf-8"))
    ]

    assert sorted(UNTRIED) == found


def test_a_cell_s_own_batch_is_the_runner_s(checkpoint: Callable[..., Path]) -> None:
    """A checkpoint takes any batch; a cell of eight is asked for eight. On a CPU there is no second clock."""
    with TorchRunner(checkpoint("test_resnet"), 1, Precision.FP32, 8) as runner:
        assert runner.inputs() == {"images": TensorMeta("uint8", (8, 32, 32, 3))}
        assert isinstance(runner, DeviceClock) == torch.cuda.is_available()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here, and PyTorch sees it")
def test_a_gpu_that_pytorch_does_not_see_is_no_cpu_row(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Callable[..., Path]
) -> None:
    """The driver is too old, say: the line is PyTorch's, the hint says how to have the CPU."""
    monkeypatch.setattr(torch_eager, "no_gpu_for_torch", lambda: "")

    with pytest.raises(BobrtError, match=r"^PyTorch \S+ cannot use the GPU of this machine: ") as caught:
        TorchRunner(checkpoint("test_resnet"), 1).__enter__()

    assert "\n" not in caught.value.message
    assert "CUDA_VISIBLE_DEVICES=-1" in caught.value.hint
    assert not torch.is_inference_mode_enabled()
