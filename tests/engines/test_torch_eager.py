"""The runtime `torch`: the reference, which every other must answer like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from bobrt import data
from bobrt.catalogue import TASKS
from bobrt.data.resize import resize
from bobrt.errors import UsageError
from bobrt.system import cores
from engines.ort_cpu import OrtCpuRunner
from engines.runner import TensorMeta, answers
from engines.torch_eager import TorchRunner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bobrt.artifacts import Artifact


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
    """Inside, the stated threads and no gradients; outside, neither network nor mode is left."""
    threads = torch.get_num_threads()
    runner = TorchRunner(made("checkpoint").path, 1)
    assert not hasattr(runner, "_net")

    with runner:
        assert runner.inputs() == {"images": TensorMeta("uint8", (None, 32, 32, 3))}
        assert torch.get_num_threads() == 1
        assert torch.is_inference_mode_enabled()

    torch.set_num_threads(threads)
    assert not torch.is_inference_mode_enabled()
    assert not hasattr(runner, "_net")


def test_a_damaged_checkpoint_is_named_and_leaves_no_mode_behind(tmp_path: Path) -> None:
    """What cannot be entered changes nothing."""
    (tmp_path / "it.safetensors").write_bytes(b"half")

    with pytest.raises(UsageError, match=r"it\.safetensors is damaged"):
        TorchRunner(tmp_path / "it.safetensors", cores()).__enter__()

    assert not torch.is_inference_mode_enabled()
