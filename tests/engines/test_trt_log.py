"""What a TensorRT library says, and the error that is made of it."""

from __future__ import annotations

import pytest
import tensorrt_rtx as trt

from bobrt.errors import BobrtError
from engines.runner import out_of_memory
from engines.trt_log import Log


def test_the_library_writes_through_its_own_logger() -> None:
    """Each message with its severity, in order; the real library is heard."""
    log = Log([])

    builder = trt.Builder(log.logger(trt))
    network = builder.create_network(0)
    trt.OnnxParser(network, log.logger(trt)).parse(b"not an ONNX file")

    assert [line for line in log.lines if line.startswith("ERROR: ")]


@pytest.mark.parametrize(
    "said",
    [
        "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
        "IExecutionContext::IExecutionContext: Error Code 2: OutOfMemory (Requested size was 1073741 bytes.)",
        "Requested amount of GPU memory (1073741824 bytes) could not be allocated.",
    ],
)
def test_a_full_device_is_known_for_what_it_is(said: str) -> None:
    """However it is worded, and whatever is said after it."""
    error = Log([f"ERROR: {said}", "ERROR: it failed"]).error("no execution context could be made")

    assert out_of_memory(error)
    assert not isinstance(error, BobrtError)


def test_the_last_error_is_the_one_that_is_told() -> None:
    """In one line, with what was being done and what to do; warnings are none."""
    said = Log(["ERROR: first", "INTERNAL_ERROR: second\n  and more", "WARNING: third"])

    error = said.error("it cannot be built", "bobrt doctor")

    assert isinstance(error, BobrtError)
    assert (error.message, error.hint) == (
        "it cannot be built: INTERNAL_ERROR: second and more",
        "bobrt doctor",
    )


def test_a_library_that_says_nothing_is_not_put_words_in_its_mouth() -> None:
    """It refused, and that is all there is."""
    assert str(Log([]).error("it cannot be built")) == "it cannot be built: no reason given"
