"""What was typed becomes the plan's keys and cells, or one line that says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bobrt.errors import UsageError
from bobrt.flags import SAID_BY_A_FILE, changes_of, file_questions, question
from bobrt.spec import Precision, Protocol


@pytest.mark.parametrize(
    ("typed", "changes"),
    [
        ({"precisions": ["fp16,int8", "fp32"]}, {"precisions": ("fp16", "int8", "fp32")}),
        ({"precisions": [" fp16 , int8,"]}, {"precisions": ("fp16", "int8")}),
        ({"batches": ["dynamic,1", "8"]}, {"batches": ("dynamic", 1, 8)}),
        ({"seeds": ["0,1,2"]}, {"seeds": (0, 1, 2)}),
        ({"runtimes": ["ort-cpu,ort-trt", "ort-cpu"]}, {"runtimes": ("ort-cpu", "ort-trt")}),
        ({"tasks": None, "runtimes": []}, {}),
    ],
)
def test_values_are_split_at_commas_and_typed(
    typed: dict[str, list[str] | None], changes: dict[str, Any]
) -> None:
    """One flag with commas, the flag again and again, or not at all."""
    assert changes_of(typed) == changes


FLAGS = ["--protocol", "--precision", "--weights", "--batch", "--seed"]


@pytest.mark.parametrize(("key", "flag"), list(zip(SAID_BY_A_FILE, FLAGS, strict=True)))
def test_what_a_model_file_says_itself_cannot_be_typed(key: str, flag: str) -> None:
    """The flag is named before the file is even opened: its precision is in it, whatever was typed."""
    with pytest.raises(UsageError) as caught:
        file_questions([Path("model.onnx")], {key: ("x",)})
    assert caught.value.message == f"{flag} is said by a model file itself"
    assert caught.value.hint == "bobrt bench model.onnx"


@pytest.mark.parametrize(("key", "flag"), list(zip(SAID_BY_A_FILE, FLAGS, strict=True)))
def test_a_flag_with_nothing_in_it_is_named_as_it_was_typed(key: str, flag: str) -> None:
    """A comma alone asks for nothing."""
    with pytest.raises(UsageError, match=f"^{flag} is empty$"):
        changes_of({key: [" , "]})


def test_a_verb_without_a_task_is_about_the_published_backbone(capsys: pytest.CaptureFixture[str]) -> None:
    """The alias is resolved and said; with a task the backbone is fine-tuned on it."""
    cell = question("convnext", "", None, "ort-cpu", "fp32", "8", "random", 0).cell
    assert (cell.backbone, cell.protocol, cell.batch) == ("convnext_tiny.fb_in1k", Protocol.PUBLISHED, 8)
    notes = capsys.readouterr().err.splitlines()
    assert notes[0] == "convnext is convnext_tiny.fb_in1k"
    assert notes[1].startswith("no --task: the backbone as it is published")
    tuned = question("test_resnet", "digits", None, "ort-cpu", "int8", "dynamic", "random", 3).cell
    assert (tuned.protocol, tuned.precision, tuned.seed) == (Protocol.FINETUNE, Precision.INT8, 3)
    assert not capsys.readouterr().err


def test_local_weights_are_named_by_their_content(tmp_path: Path) -> None:
    """The cell holds the sha256 of the file, so that another file of the same name is another question."""
    path = tmp_path / "mine.pt"
    cells = []
    for content in (b"one", b"two", b"one"):
        path.write_bytes(content)
        asked = question("test_resnet", "digits", None, "ort-cpu", "fp32", "dynamic", str(path), 0)
        assert asked.weights_path == path
        cells.append(asked.cell)
    assert cells[0] == cells[2]
    assert cells[0].weights.startswith("file:")
    assert cells[0].key != cells[1].key
