"""End-to-end fine-tuning: one plain loop, timm's factories for everything that has one.

The last epoch is kept, not the best: nothing is chosen by looking. A resume file after
each epoch lets a training that was cut off go on to the same bits.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from typing import TYPE_CHECKING

import torch
from PIL import Image
from timm.data import create_transform
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch.nn.functional import cross_entropy

from bobrt import data
from bobrt.data.resize import resize
from bobrt.errors import BobrtError, UsageError
from bobrt.tasks import task_of
from train.seeding import seed_everything

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor

    from bobrt.artifacts import Job
    from bobrt.spec import Recipe, TaskCard, Transform
    from train.model import Model

RESUME = "resume.pt"


def run(  # noqa: PLR0913, PLR0917 - what a training is made of
    net: Model, card: TaskCard, transform: Transform, recipe: Recipe, seed: int, job: Job
) -> dict[str, float | int]:
    """Fine-tune `net` in place.

    Args:
        net: The model, initialised.
        card: The task; its `train` split is learned, its `validation` split only watched.
        transform: Preprocessing of the engine that will be measured.
        recipe: Hyper-parameters.
        seed: Seeds every epoch.
        job: Where to keep the resume file, and whom to tell.

    Returns:
        The last loss and the validation metric.

    Raises:
        UsageError: timm has no such optimizer, schedule or augmentation, or the batch is too large.
        BobrtError: The loss is no longer a number.

    """
    train = data.load(card, "train")
    steps = len(train.ids) // recipe.batch
    if not steps:
        raise UsageError(
            f"the recipe's batch {recipe.batch} is more than the {len(train.ids)} training images",
            "lower batch in the plan's [finetune]",
        )
    try:
        optimizer = create_optimizer_v2(
            net,
            opt=recipe.optimizer,
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            layer_decay=recipe.layer_decay,
        )
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched=recipe.schedule,
            num_epochs=recipe.epochs,
            warmup_epochs=recipe.warmup_epochs,
            min_lr=recipe.min_lr,
            step_on_epochs=False,
            updates_per_epoch=steps,
        )
        augment = _augmentation(transform, recipe)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"timm refuses the recipe: {error}", "see the plan's [finetune]") from error
    first, loss = _resume(job.folder / RESUME, net, optimizer)
    for epoch in range(first, recipe.epochs):
        seed_everything(seed, epoch + 1)
        net.train()
        for step, (images, targets) in enumerate(_batches(train, augment, recipe.batch)):
            scheduler.step_update(epoch * steps + step)
            _, logits = net(images)
            batch_loss = cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            batch_loss.backward()
            optimizer.step()
        loss = batch_loss.item()
        if not math.isfinite(loss):
            raise BobrtError(
                f"training diverged: loss {loss} in epoch {epoch + 1}", "lower lr in the plan's recipe"
            )
        _keep(job.folder / RESUME, net, optimizer, epoch + 1, loss)
        job.report("training", f"epoch {epoch + 1}/{recipe.epochs} loss {loss:.3f}")
    score = validate(net, card, transform)
    return {"loss": loss, "validation": score, "epochs": recipe.epochs, "resumed_at": first}


def validate(net: Model, card: TaskCard, transform: Transform) -> float:
    """Return the task's metric of `net` over the validation split, as a fraction."""
    net.eval()
    task = task_of(card)
    content = data.load(card, "validation")
    images = torch.from_numpy(resize(content.images, transform))
    with torch.inference_mode():
        logits = torch.cat([net(batch)[1] for batch in images.split(64)])
    return task.score(task.decode({"logits": logits.numpy()}), content).value


def _augmentation(transform: Transform, recipe: Recipe) -> Callable[[Image.Image], Tensor]:
    """Return timm's training transform at the engine's size, without the normalisation."""
    augment: Callable[[Image.Image], Tensor] = create_transform(
        input_size=transform.size,
        is_training=True,
        scale=recipe.crop_scale,
        ratio=recipe.crop_ratio,
        hflip=recipe.hflip,
        color_jitter=0.0,
        auto_augment=recipe.auto_augment,
        interpolation=transform.interpolation,
        normalize=False,
    )
    return augment


def _batches(
    train: data.Split, augment: Callable[[Image.Image], Tensor], batch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of shuffled, augmented batches; the last short one is dropped."""
    pictures = [Image.fromarray(image) for image in train.images]
    targets = torch.from_numpy(train.targets)
    order = torch.randperm(len(pictures))
    for rows in order.split(batch):
        if len(rows) == batch:
            images = torch.stack([augment(pictures[row]) for row in rows.tolist()])
            yield images.permute(0, 2, 3, 1), targets[rows]


def _keep(path: Path, net: Model, optimizer: torch.optim.Optimizer, epoch: int, loss: float) -> None:
    partial = path.with_suffix(".tmp")
    # Through memory: to a full disk torch's own writer answers with a riddle, Python's says so.
    content = io.BytesIO()
    state = {"epoch": epoch, "loss": loss, "net": net.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, content)
    # Sealed: torch reads a file with a flipped bit without a word.
    partial.write_bytes(hashlib.sha256(content.getbuffer()).digest() + content.getbuffer())
    os.replace(partial, path)  # noqa: PTH105 - one call, atomic by POSIX


def _resume(path: Path, net: Model, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """Return the epoch to start at and the last loss, having loaded what an interrupted training left."""
    if not path.is_file():
        return 0, math.nan
    kept = path.read_bytes()
    seal, content = kept[: hashlib.sha256().digest_size], kept[hashlib.sha256().digest_size :]
    if hashlib.sha256(content).digest() != seal:
        path.unlink()
        return 0, math.nan  # damaged: from the first epoch, rather than from something unknown
    state = torch.load(io.BytesIO(content), weights_only=True)
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epoch"]), float(state["loss"])
