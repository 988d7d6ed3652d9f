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
from train import finetune, model
from train.options import CheckpointOptions
from train.seeding import seed_everything

if TYPE_CHECKING:
    from collections.abc import Callable

    Adapt = Callable[[model.Model, CheckpointOptions, Transform, Job], dict[str, float | int]]


def make(job: Job) -> Produced:
    """Write `checkpoint.safetensors` into the job's folder."""
    options = msgspec.convert(job.options, type=CheckpointOptions)
    job.report("loading", options.backbone.name)
    seed_everything(options.seed)
    transform = model.transform_of(options.backbone, options.task)
    net = _initial(options, transform)
    detail = _PROTOCOLS[options.protocol](net, options, transform, job)
    card = model.card_of(
        options.backbone, options.weights, options.protocol, options.seed, transform, options.task
    )
    model.save(net, card, job.folder / "checkpoint.safetensors")
    (job.folder / finetune.RESUME).unlink(missing_ok=True)
    described = {"card": msgspec.to_builtins(card), "threads": torch.get_num_threads()}
    return Produced("checkpoint.safetensors", {**described, **detail})


def _initial(options: CheckpointOptions, transform: Transform) -> model.Model:
    net = model.build(
        options.backbone,
        classes=len(options.task.labels) if options.task else 0,
        size=transform.size,
        pretrained=options.weights == "pretrained",
        own_head=options.protocol is Protocol.PUBLISHED,
    )
    if options.weights_path:
        model.load_local(net, Path(options.weights_path))
    return net


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
