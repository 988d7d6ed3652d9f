"""The stage `checkpoint`: a backbone with the weights and the adaptation that were asked for.

`finetune` and `lowshot` train all of it on a task, `probe` a classifier on its features; `published` and
`knn` take it as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import torch

from bobrt import data
from bobrt.artifacts import Job, Produced
from bobrt.errors import UsageError
from bobrt.spec import Protocol, Transform
from train import features, fetch, finetune, layouts, model, probe, published, search
from train.options import CheckpointOptions
from train.seeding import seed_everything

if TYPE_CHECKING:
    from collections.abc import Callable

    from bobrt.spec import Backbone, Json, WeightsFile

    Adapt = Callable[[model.Model, CheckpointOptions, Transform, Job], dict[str, Json]]


def make(job: Job) -> Produced:
    """Write `checkpoint.safetensors` into the job's folder."""
    options = msgspec.convert(job.options, type=CheckpointOptions)
    job.report("loading", options.backbone.name)
    seed_everything(options.seed)
    transform = model.transform_of(options.backbone, options.task)
    net, backbone, fetched = _initial(options, transform, job)
    detail = _PROTOCOLS[options.protocol](net, options, transform, job)
    backbone = model.described(backbone, net)
    card = model.card_of(backbone, options.weights, options.protocol, options.seed, transform, options.task)
    model.save(net, card, job.folder / "checkpoint.safetensors")
    (job.folder / finetune.RESUME).unlink(missing_ok=True)
    described = {"card": msgspec.to_builtins(card), "threads": torch.get_num_threads(), **fetched}
    return Produced("checkpoint.safetensors", {**described, **detail})


def _initial(
    options: CheckpointOptions, transform: Transform, job: Job
) -> tuple[model.Model, Backbone, dict[str, Json]]:
    """Return the model to start from, its entry with what a download told, and that for the manifest."""
    name, labels = (options.task.name, options.task.labels) if options.task else ("", [])
    net = model.build(
        options.backbone,
        size=transform.size,
        pretrained=options.weights == "pretrained",
        drop_path=options.recipe.drop_path if options.recipe else 0.0,
        **model.heads(options.protocol, name, labels),
    )
    if labels and not net.head and net.outputs[-1] == "logits" and net.backbone.num_classes != len(labels):
        raise UsageError(
            f"{options.backbone.name} as published tells {net.backbone.num_classes} classes apart, and task "
            f"{name} has {len(labels)}",
            "adapt it: --protocol finetune, probe or knn",
        )
    if options.weights_path:
        keys = model.load_local(net, options.backbone, Path(options.weights_path))
        return net, options.backbone, {"keys": keys}
    if options.weights != "pretrained":
        return net, options.backbone, {}
    if options.backbone.weights is None:
        return net, options.backbone, {"weights": published.described(net.backbone)}
    return net, *_from_elsewhere(net, options.backbone, options.backbone.weights, job)


def _from_elsewhere(
    net: model.Model, backbone: Backbone, weights: WeightsFile, job: Job
) -> tuple[Backbone, dict[str, Json]]:
    """Fetch and load what timm does not have."""
    layout = layouts.LAYOUTS.get(weights.layout, backbone.name)
    # Beside the folders of the stages: whoever makes this checkpoint anew finds the file.
    folder = job.folder.parents[1] / fetch.FOLDER
    file = fetch.fetch(backbone.name, weights, folder, job.report, layout.beside)
    keys = layouts.load(net.backbone, backbone, file.path)
    told = msgspec.structs.replace(weights, revision=file.revision, sha256=file.sha256)
    detail = {**msgspec.to_builtins(told), "bytes": file.bytes, "keys": keys}
    return msgspec.structs.replace(backbone, weights=told), {"weights": detail}


def _finetune(
    net: model.Model, options: CheckpointOptions, transform: Transform, job: Job
) -> dict[str, Json]:
    if options.task is None or options.recipe is None:
        raise UsageError(
            "fine-tuning needs a task and a recipe", "name one with --task; see bobrt list tasks"
        )
    asked = net, options.task, transform, options.recipe
    if options.search is not None:
        return search.run(*asked, options.search, options.seed, job)
    return finetune.run(*asked, options.seed, job)


def _probe(net: model.Model, options: CheckpointOptions, transform: Transform, job: Job) -> dict[str, Json]:
    """Put the classifier that fits the frozen features best in the model."""
    if options.task is None or net.head is None:
        raise UsageError("a probe needs a task", "name one with --task; see bobrt list tasks")
    finetune.freeze(net.backbone)
    seen = {}
    for name in ("train", "validation"):
        job.report("features", name)
        split = data.load(options.task, name)
        seen[name] = (features.of(net, split, transform), split.targets)
    job.report("probing", "")
    fitted = probe.fit(*seen["train"], *seen["validation"], len(options.task.labels))
    with torch.no_grad():
        net.head.weight.copy_(torch.from_numpy(fitted.weight))
        net.head.bias.copy_(torch.from_numpy(fitted.bias))
    tried = [candidate._asdict() for candidate in fitted.candidates]
    score = finetune.validate(net, options.task, transform)
    edge = ["c"] if fitted.c in {probe.CS[0], probe.CS[-1]} else []
    return {"validation": score, "search": tried, "chosen": {"c": fitted.c}, "at_edge": edge}


def _as_it_is(
    net: model.Model, _options: CheckpointOptions, _transform: Transform, _job: Job
) -> dict[str, Json]:
    return {"params": sum(p.numel() for p in net.backbone.parameters())}


_PROTOCOLS: dict[Protocol, Adapt] = {
    Protocol.FINETUNE: _finetune,
    Protocol.LOWSHOT: _finetune,
    Protocol.PROBE: _probe,
    Protocol.KNN: _as_it_is,
    Protocol.PUBLISHED: _as_it_is,
}
