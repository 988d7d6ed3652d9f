"""What a TensorRT library says, and the error that is made of it."""

from __future__ import annotations

import pytest
import tensorrt_rtx as trt
from onnx import TensorProto, helper

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
    ("quiet", "kept"), [(False, {"VERBOSE", "INFO", "ERROR"}), (True, {"ERROR"})], ids=["all", "quiet"]
)
def test_what_is_timed_hears_warnings_and_errors_alone(quiet: bool, kept: set[str]) -> None:
    """The log of a build has it all: the way to the engine too."""
    log = Log([])
    logger = log.logger(trt, quiet=quiet)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)

    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    parser.parse(model.SerializeToString())
    parser.parse(b"not an ONNX file")

    heard = {line.partition(": ")[0] for line in log.lines}
    # It warns of a logger that differs from that of an older builder, where one is still there.
    assert heard - {"WARNING"} == kept


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


def test_a_full_device_that_was_coped_with_is_over() -> None:
    """What is refused later has its own reason, and a climb over batches does not end for want of memory."""
    log = Log(["ERROR: Cuda Runtime (out of memory)"])
    assert out_of_memory(log.error("no execution context could be made"))

    log.lines.append("ERROR: setInputShape: Error Code 3")

    assert str(log.error("the engine takes no such images")).endswith("ERROR: setInputShape: Error Code 3")
    assert str(log.error("the engine could not be run")).endswith("no reason given")
