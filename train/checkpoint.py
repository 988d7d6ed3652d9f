"""The stage `checkpoint`: a backbone with the weights and the adaptation that were asked for.

`finetune` trains it on a task; `published` takes it as it is. `probe` and `knn` will stand
beside them in `_PROTOCOLS`: the model, the data and the saving are the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import torch

from bobrt.artifacts import Job, Produced
from bobrt.errors import UsageError
from bobrt.spec import Protocol, Transform
from train import fetch, finetune, layouts, model
from train.options import CheckpointOptions
from train.seeding import seed_everything

if TYPE_CHECKING:
    from collections.abc import Callable

    from bobrt.spec import Backbone, Json, WeightsFile

    Adapt = Callable[[model.Model, CheckpointOptions, Transform, Job], dict[str, float | int]]


def make(job: Job) -> Produced:
    """Write `checkpoint.safetensors` into the job's folder."""
    options = msgspec.convert(job.options, type=CheckpointOptions)
    job.report("loading", options.backbone.name)
    seed_everything(options.seed)
    transform = model.transform_of(options.backbone, options.task)
    net, backbone, published = _initial(options, transform, job)
    detail = _PROTOCOLS[options.protocol](net, options, transform, job)
    card = model.card_of(backbone, options.weights, options.protocol, options.seed, transform, options.task)
    model.save(net, card, job.folder / "checkpoint.safetensors")
    (job.folder / finetune.RESUME).unlink(missing_ok=True)
    described = {"card": msgspec.to_builtins(card), "threads": torch.get_num_threads(), **published}
    return Produced("checkpoint.safetensors", {**described, **detail})


def _initial(
    options: CheckpointOptions, transform: Transform, job: Job
) -> tuple[model.Model, Backbone, dict[str, Json]]:
    """Return the model to start from, its entry with what a download told, and that for the manifest."""
    net = model.build(
        options.backbone,
        classes=len(options.task.labels) if options.task else 0,
        size=transform.size,
        pretrained=options.weights == "pretrained",
        own_head=options.protocol is Protocol.PUBLISHED,
    )
    if options.weights_path:
        model.load_local(net, options.backbone, Path(options.weights_path))
    if options.weights != "pretrained":
        return net, options.backbone, {}
    if options.backbone.weights is None:
        return net, options.backbone, {"weights": _timm_file(net)}
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


def _timm_file(net: model.Model) -> dict[str, Json]:
    """Return which file of the hub timm has just loaded; null for what its cache does not tell."""
    config = net.backbone.pretrained_cfg
    repo = config.get("hf_hub_id")
    files = [*filter(None, [config.get("hf_hub_filename")]), *fetch.TIMM_FILES]
    path = fetch.in_hub_cache(repo, files) if repo else None
    if path is None:
        return {"repo": repo, **dict.fromkeys(("file", "revision", "sha256", "bytes"))}
    file = fetch.described(path, fetch.commit_of(path))
    return {
        "repo": repo,
        "file": path.name,
        "revision": file.revision,
        "sha256": file.sha256,
        "bytes": file.bytes,
    }


def _finetune(
    net: model.Model, options: CheckpointOptions, transform: Transform, job: Job
) -> dict[str, float | int]:
    if options.task is None or options.recipe is None:
        raise UsageError(
            "fine-tuning needs a task and a recipe", "name one with --task; see bobrt list tasks"
        )
    return finetune.run(net, options.task, transform, options.recipe, options.seed, job)


def _published(
    net: model.Model, _options: CheckpointOptions, _transform: Transform, _job: Job
) -> dict[str, float | int]:
    return {"params": sum(p.numel() for p in net.backbone.parameters())}


_PROTOCOLS: dict[Protocol, Adapt] = {
    Protocol.FINETUNE: _finetune,
    Protocol.PUBLISHED: _published,
}
