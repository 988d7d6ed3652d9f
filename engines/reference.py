"""The stage `reference`: what the checkpoint answers in fp32 PyTorch, kept to compare engines with."""

from __future__ import annotations

import numpy as np

from bobrt import data
from bobrt.artifacts import Job, Produced
from bobrt.data.feed import at_a_time
from bobrt.data.resize import resize
from bobrt.errors import BobrtError
from bobrt.system import cores
from bobrt.tasks import cards, scores
from engines.runner import answers
from engines.torch_eager import TorchRunner
from train import model

BATCH = 64


def make(job: Job) -> Produced:
    """Write `reference.npz`: the outputs on what the task asks, as `<split>.<output> float32 [n, k]`."""
    if job.source is None:
        raise BobrtError("a reference is made from a checkpoint, and none was given")
    file = job.folder / "reference.npz"
    card = model.read_checkpoint(job.source.path)[0]
    if card is None or not card.task:
        raise BobrtError(f"checkpoint {job.source.path} answers no task")
    task = cards.resolved(card.task)
    outputs: dict[str, dict[str, np.ndarray]] = {}
    with TorchRunner(job.source.path, cores()) as runner:
        for name in scores.splits_of(task, card.protocol):
            job.report("reference", name)
            images = resize(data.load(task, name).images, card.transform)
            outputs[name] = answers(runner, images, at_a_time(BATCH, card.transform.size))
    kept = {f"{name}.{key}": value for name, found in outputs.items() for key, value in found.items()}
    np.savez(file, **kept)  # type: ignore[arg-type]
    told = {"test": scores.score(task, card.protocol, card.transform, outputs.__getitem__).value}
    if scores.by_logits(task, card.protocol):
        told["validation"] = scores.on_validation(
            task, card.protocol, card.transform, lambda name, _: outputs[name]
        )
    return Produced(file.name, {"metric": task.metric, **told})
