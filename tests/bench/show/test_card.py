"""A model card the hub's own library reads back: accuracy and latency of the exact file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml
from huggingface_hub import ModelCard

from bench.show import card_report, report
from bobrt.errors import MachineError, NothingMatchedError
from bobrt.spec import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from support import Ran, Workspace

    from bobrt.result import Result

    Make = Callable[..., Result]


def metadata(text: str) -> dict[str, Any]:
    """Return the YAML between the lines of dashes."""
    _, head, _ = text.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(head)
    return found


def test_the_hub_s_own_library_reads_every_number(make_result: Make) -> None:
    """An entry for a file: the metric, n, the two latencies and images/s, each with the file's sha256."""
    result = make_result("resnet50.a1_in1k", 0.9, 2.0, cell={"weights": "pretrained"})
    result = msgspec.structs.replace(result, latency=[msgspec.structs.replace(result.latency[0], p99_ms=3.0)])
    card = ModelCard(report.as_card([result]))
    told = {found.metric_name: found for found in card.data.eval_results}
    assert told["top1"].metric_type == "accuracy"
    assert told["top1"].metric_value == 0.9
    assert told["median latency of one image, ms"].metric_value == 2.0
    assert told["p99 latency of one image, ms"].metric_value == 3.0
    assert told["images/s of the best batch"].metric_value == 4000.0
    assert {found.metric_args["sha256"] for found in told.values()} == {"0" * 64}
    assert {(found.dataset_name, found.dataset_split) for found in told.values()} == {("digits", "test")}
    assert card.data.model_name == "resnet50.a1_in1k, finetune, fp32, ort-cpu"


def test_the_card_says_what_it_began_from(make_result: Make) -> None:
    """The base model and its licence are those of the published weights; random ones have neither."""
    tuned = metadata(report.as_card([make_result("resnet50.a1_in1k", cell={"weights": "pretrained"})]))
    assert (tuned["base_model"], tuned["license"]) == (["timm/resnet50.a1_in1k"], "apache-2.0")
    assert (tuned["library_name"], tuned["pipeline_tag"]) == ("onnx", "image-classification")
    random = metadata(report.as_card([make_result("resnet50.a1_in1k")]))
    assert not {"base_model", "license"} & random.keys()


def test_what_was_not_measured_is_left_out(make_result: Make) -> None:
    """No p99, no line for it; a row that is not ranked has no entry."""
    failed = make_result("b", state=State.FAILED, reason="no")
    found = metadata(report.as_card([make_result("a"), failed]))["model-index"]
    assert [entry["name"] for entry in found] == ["a, finetune, fp32, ort-cpu"]
    names = [metric["name"] for metric in found[0]["results"][0]["metrics"]]
    assert names == ["top1", "median latency of one image, ms", "images/s of the best batch"]


def test_names_cannot_leave_their_place(make_result: Make) -> None:
    """A name with YAML in it, and the line that ends it, stays a name."""
    odd = make_result('x: [1]\n---\n"q', 0.5)
    assert metadata(report.as_card([odd]))["model-index"][0]["name"].startswith('x: [1] --- "q, ')


def test_a_card_of_nothing_is_refused(make_result: Make) -> None:
    with pytest.raises(NothingMatchedError, match="no row is verified"):
        report.as_card([make_result("b", state=State.FAILED, reason="no")])


def test_without_the_hub_s_library_the_line_that_installs_it_is_given(
    make_result: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card_report, "version", lambda _: None)
    with pytest.raises(MachineError, match="needs huggingface_hub") as caught:
        report.as_card([make_result("a")])
    assert caught.value.hint == "pip install 'bobrt[hub]'"


def test_the_verb_prints_one(tiny_run: tuple[Workspace, Ran]) -> None:
    """Its metadata come first, then the report as Markdown."""
    ran = tiny_run[0].here("report", "--format", "card")
    assert ran.code == 0, ran.err
    assert len(metadata(ran.out)["model-index"]) == 3
    assert "\n# bobrt report\n" in ran.out
