"""A model card for the hub, with accuracy and latency of the exact files in its `model-index`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import verdict
from bench.fronts import COSTS
from bobrt.artifacts import version
from bobrt.catalogue import BACKBONES, TASKS, backbone
from bobrt.errors import BobrtError, MachineError, NothingMatchedError
from bobrt.spec import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bobrt.result import Result
    from bobrt.spec import Backbone, Json

PIPELINES = {Kind.CLASSIFICATION: "image-classification", Kind.RETRIEVAL: "image-feature-extraction"}
"""The hub's words for what is asked; several labels are a classification too."""
METRICS = {"top1": "accuracy"}
"""The hub's words for metrics, where it has another."""


def front_matter(results: Sequence[Result]) -> str:
    """Return the card's metadata as YAML between two lines of dashes.

    An entry of `model-index` is one engine file: its metric over the test split, its latency and images/s,
    and in their arguments the file's sha256, the runtime and the machine.

    Args:
        results: Records; those that may not be ranked are left out.

    Raises:
        NothingMatchedError: None of them may be ranked.
        MachineError: huggingface_hub is not installed.

    """
    rows = [row.result for ranking in verdict.rank(list(results))[0] for row in ranking.rows]
    if not rows:
        raise NothingMatchedError("no row is verified, and a card tells of nothing else", "bobrt report")
    if version("huggingface-hub") is None:
        raise MachineError(
            "a model card needs huggingface_hub, not installed here", "pip install 'bobrt[hub]'"
        )
    from huggingface_hub.repocard_data import CardData  # noqa: PLC0415 - an extra

    about: dict[str, Json] = {"library_name": "onnx", "pipeline_tag": _pipeline(rows[0])}
    if licence := _licence(rows):
        about["license"] = licence
    if bases := sorted({base for base in map(_base, rows) if base}):
        about["base_model"] = bases
    about["tags"] = sorted({"bobrt", *(r.cell.runtime for r in rows), *(str(r.cell.precision) for r in rows)})
    about["model-index"] = [entry for result in rows for entry in _entry(result)]
    return f"---\n{CardData(**about).to_yaml()}\n---\n"


def _entry(result: Result) -> list[dict[str, Json]]:
    from huggingface_hub import EvalResult  # noqa: PLC0415 - an extra
    from huggingface_hub.repocard_data import eval_results_to_model_index  # noqa: PLC0415

    cell, accuracy, latency = result.cell, result.accuracy, result.one_image
    if accuracy is None or latency is None or result.artifact is None:  # a ranked row has them
        return []
    on: dict[str, Json] = {
        "runtime": cell.runtime,
        "machine": result.system.cpu,
        "threads": result.system.threads,
    }
    if result.system.gpu:
        on["machine"] = result.system.gpu
    told: list[tuple[str, float | None, str, dict[str, Json]]] = [
        (METRICS.get(accuracy.metric, accuracy.metric), accuracy.value, accuracy.metric, {"n": accuracy.n}),
        ("latency", latency.p50_ms, "median latency of one image, ms", on),
        ("latency", latency.p99_ms, "p99 latency of one image, ms", on),
        ("throughput", COSTS["images_per_s"].of(result), "images/s of the best batch", on),
    ]
    found = [
        EvalResult(
            task_type=_pipeline(result),
            dataset_type=cell.task,
            dataset_name=cell.task,
            dataset_split="test",
            metric_type=kind,
            metric_value=value,
            metric_name=name,
            metric_args={**args, "sha256": result.artifact.sha256},
        )
        for kind, value, name, args in told
        if value is not None
    ]
    # In one line: a line of dashes inside would end the metadata.
    name = " ".join(f"{cell.backbone}, {cell.protocol}, {cell.precision}, {cell.runtime}".split())
    entries: list[dict[str, Json]] = eval_results_to_model_index(name, found)
    return entries


def _pipeline(result: Result) -> str:
    card = TASKS.find(result.cell.task.partition("@")[0])
    return PIPELINES.get(card.kind if card else Kind.CLASSIFICATION, PIPELINES[Kind.CLASSIFICATION])


def _base(result: Result) -> str:
    """Return the hub's repository that a row began from: what its download told, else the catalogue's."""
    if result.published and result.published.repo:
        return result.published.repo
    entry = _published(result)
    return f"timm/{entry.timm}" if entry and BACKBONES.is_built_in(entry.name) and not entry.weights else ""


def _published(result: Result) -> Backbone | None:
    """Return the catalogue's entry of a row that began from published weights."""
    if result.cell.weights != "pretrained":
        return None
    try:
        return backbone(result.cell.backbone)
    except BobrtError:  # a third party's, not installed here
        return None


def _licence(rows: Sequence[Result]) -> str:
    """Return the licence of the published weights, if all rows have one and the same."""
    found = {b.licence for b in map(_published, rows) if b is not None}
    return next(iter(found)) or "" if len(found) == 1 else ""
