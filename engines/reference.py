"""The stage `reference`: what the checkpoint answers in fp32 PyTorch, kept to compare engines with."""

from __future__ import annotations

import numpy as np

from bobrt import data
from bobrt.artifacts import Job, Produced
from bobrt.catalogue import TASKS
from bobrt.data.resize import resize
from bobrt.errors import BobrtError
from bobrt.system import cores
from bobrt.tasks import task_of
from engines.runner import answers
from engines.torch_eager import TorchRunner
from train import model

BATCH = 64
SPLITS = ("validation", "test")


def make(job: Job) -> Produced:
    """Write `reference.npz`: the outputs on validation and test as `<split>.<output> float32 [n, k]`."""
    if job.source is None:
        raise BobrtError("a reference is made from a checkpoint, and none was given")
    file = job.folder / "reference.npz"
    card = model.read_checkpoint(job.source.path)[0]
    if card is None or not card.task:
        raise BobrtError(f"checkpoint {job.source.path} answers no task")
    task = task_of(TASKS.get(card.task))
    kept: dict[str, np.ndarray] = {}
    scores: dict[str, float] = {}
    with TorchRunner(job.source.path, cores()) as runner:
        for name in SPLITS:
            job.report("reference", name)
            split = data.load(task.card, name)
            outputs = answers(runner, resize(split.images, card.transform), BATCH)
            kept |= {f"{name}.{output}": value for output, value in outputs.items()}
            scores[name] = task.score(task.decode(outputs), split).value
    np.savez(file, **kept)  # type: ignore[arg-type]
    return Produced(file.name, {"metric": task.card.metric, **scores})
