"""The vocabulary is frozen: results of different days are joined on it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from bobrt.spec import Cell, Placement, Precision, Protocol, State, digest, seal_of, sealed

CELL = Cell(
    backbone="test_resnet",
    weights="random",
    task="digits",
    protocol=Protocol.FINETUNE,
    runtime="ort-cpu",
    precision=Precision.INT8,
    batch="dynamic",
    seed=0,
)


def test_the_words_are_frozen() -> None:
    """Words may be added to the vocabulary, never renamed."""
    assert {"fp32", "tf32", "fp16", "bf16", "int8", "fp8"} <= {str(word) for word in Precision}
    assert {"complete", "failed", "skipped", "unsupported"} == {str(word) for word in State}
    assert {"finetune", "published"} <= {str(word) for word in Protocol}
    assert {"none", "onnxruntime", "tensorrt"} <= {str(word) for word in Placement}


def test_a_cells_key_is_the_same_on_every_machine_and_day() -> None:
    """The key of a cell is a constant: records that exist are found by it."""
    assert CELL.key == "26b138bb08665d32"


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "test_vit"},
        {"weights": "pretrained"},
        {"task": ""},
        {"protocol": Protocol.PUBLISHED},
        {"runtime": "tensorrt"},
        {"precision": Precision.FP32},
        {"batch": 1},
        {"seed": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_question_has_another_key(change: dict[str, Any]) -> None:
    """Every part of the question is in the key."""
    assert msgspec.structs.replace(CELL, **change).key != CELL.key


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, "test_resnet digits ort-cpu int8"),
        ({"task": ""}, "test_resnet ort-cpu int8"),
        ({"batch": 8, "seed": 3}, "test_resnet digits ort-cpu int8 batch 8 seed 3"),
    ],
)
def test_a_cell_is_shown_by_what_tells_it_from_its_neighbours(change: dict[str, Any], text: str) -> None:
    """A cell's line leaves out what is as usual."""
    assert str(msgspec.structs.replace(CELL, **change)) == text


def test_records_refuse_keys_they_do_not_have() -> None:
    """What bobrt reads to act on is strict: a key it does not know is an error, not a silence."""
    with pytest.raises(msgspec.ValidationError, match="unknown field `colour`"):
        msgspec.convert({**msgspec.to_builtins(CELL), "colour": "red"}, type=Cell)


def test_records_are_immutable() -> None:
    """A question cannot be changed once it is asked."""
    with pytest.raises(AttributeError):
        CELL.seed = 1  # type: ignore[misc]


def test_digest_does_not_depend_on_the_order_of_keys() -> None:
    """Two writings of the same question have one name."""
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1, "b": [1, 2]}) != digest({"a": 1, "b": [2, 1]})


def test_digest_refuses_what_json_cannot_hold() -> None:
    """NaN has no place in a name."""
    with pytest.raises(ValueError, match="JSON"):
        digest({"lr": float("nan")})


def test_a_seal_is_on_every_key_and_not_on_the_spaces() -> None:
    """Formatting does not break a seal; any value, known or not, does."""
    seal = seal_of(b'{"schema":1,"later":{"key":1.0},"seal":""}')
    assert seal == seal_of(b'{\n  "schema": 1, "later": {"key": 1.0}, "seal": "abc"\n}')
    assert seal != seal_of(b'{"schema":1,"later":{"key":1.5},"seal":""}')
    assert seal != seal_of(b'{"schema":1,"seal":""}')


@pytest.mark.parametrize(
    "written",
    ['{"schema":1,"x":0.5,"seal":"SEAL"}', '{\n  "schema": 1,\n  "x": 0.5,\n  "seal": "SEAL"\n}\n'],
)
def test_what_bobrt_wrote_is_told_by_its_bytes(written: str) -> None:
    """It comes back without its spaces; what was changed does not."""
    record = written.replace("SEAL", seal_of('{"schema":1,"x":0.5,"seal":""}'))
    compact = sealed(record.encode())
    assert compact is not None
    assert json.loads(compact) == json.loads(record)
    assert b" " not in compact
    for old, new in (("schema", "shema"), ("0.5", "0.6")):
        assert sealed(record.replace(old, new).encode()) is None
    assert sealed(written.replace("SEAL", "0" * 64).encode()) is None


@pytest.mark.parametrize(
    "written",
    [
        '{"schema":1,"x":1e-05,"seal":"SEAL"}',  # the same number, as another tool writes it
        '{"schema":1,"seal":"SEAL","x":1e-05}',  # the same keys, in another order
        '{"schema":1}',
        "[]",
    ],
)
def test_what_another_tool_wrote_is_not_told_by_its_bytes(written: str) -> None:
    """Only decoding says whether its seal holds."""
    seal = seal_of('{"schema":1,"x":1e-05,"seal":""}')
    assert sealed(written.replace("SEAL", seal).encode()) is None
