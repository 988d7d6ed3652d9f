"""End-to-end fine-tuning: one plain loop, timm's factories for everything that has one.

The last epoch is kept, not the best: nothing is chosen by looking. A resume file after
each epoch lets a training that was cut off go on, on a CPU to the same bits.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from contextlib import closing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import torch
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from bobrt import data
from bobrt.errors import BobrtError, MachineError, UsageError
from bobrt.spec import Kind
from bobrt.tasks import task_of
from train import augment, features
from train.place import here
from train.seeding import seed_everything

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from PIL import Image
    from timm.scheduler.scheduler import Scheduler
    from torch import Tensor

    from bobrt.artifacts import Job
    from bobrt.spec import Json, Recipe, TaskCard, Transform
    from train.model import Model
    from train.place import Place

    Loss = Callable[[Tensor, Tensor], Tensor]

RESUME = "resume.pt"


class DivergedError(BobrtError):
    """A training whose loss is no longer a number."""


def run(  # noqa: PLR0913, PLR0917 - what a training is made of
    net: Model,
    card: TaskCard,
    transform: Transform,
    recipe: Recipe,
    seed: int,
    job: Job,
    place: Place | None = None,
) -> dict[str, Json]:
    """Fine-tune `net` in place; parameters that ask for no gradient stay as they are.

    Args:
        net: The model, initialised.
        card: The task; its `train` split is learned, its `validation` split only watched.
        transform: Preprocessing of the engine that will be measured.
        recipe: Hyper-parameters.
        seed: Seeds every epoch, step and image.
        job: Where to keep the resume file, and whom to tell.
        place: Where to compute, or None for this machine's best.

    Returns:
        The last loss, the validation metric, and where it was trained.

    Raises:
        UsageError: timm has no such optimizer, schedule or augmentation, the batch is too large or cannot be
            mixed, or several processes were started.
        MachineError: The device's memory, or that of a decoding process, is too small.
        DivergedError: The loss is no longer a number.

    """
    place = place or here()
    train = data.load(card, "train")
    steps = _steps(len(train.ids), recipe)
    net.to(place.device)
    classes = _begin_head(net, recipe)
    means = _means(net, transform, recipe, steps)
    mixing = augment.Mixing(recipe, card.kind, classes, net.mean, net.std)
    criterion = _criterion(card.kind, recipe, mixing)
    first, loss = _resume(job.folder / RESUME, net, means.optimizer)
    ready = augment.batches(train, means.augment, recipe, seed, first, place)
    with augment.told_if_killed(), closing(ready) as batches:
        for epoch in range(first, recipe.epochs):
            net.train()
            for step, batch in enumerate(islice(batches, steps)):
                seed_everything(seed, epoch + 1, step + 1)
                means.scheduler.step_update(epoch * steps + step)
                means.optimizer.zero_grad()
                batch_loss = _backward(net, *mixing(*batch), criterion, recipe, place)
                means.optimizer.step()
            loss = batch_loss.item()
            if not math.isfinite(loss):
                raise DivergedError(
                    f"training diverged: loss {loss} in epoch {epoch + 1}", "lower lr in the plan's recipe"
                )
            _keep(job.folder / RESUME, net, means.optimizer, epoch + 1, loss)
            job.report("training", f"epoch {epoch + 1}/{recipe.epochs} loss {loss:.3f}")
    score = validate(net, card, transform)
    net.to("cpu")
    told = {"loss": loss, "validation": score, "epochs": recipe.epochs, "resumed_at": first}
    return {**told, "device": place.device.type, "arithmetic": "bf16" if place.bf16 else "fp32"}


def validate(net: Model, card: TaskCard, transform: Transform) -> float:
    """Return the task's metric of `net` over the validation split, as a fraction; in float32."""
    task = task_of(card, transform)
    content = data.load(card, "validation")
    logits = features.of(net, content, transform, "logits")
    return task.score(task.decode({"logits": logits}), content).value


def freeze(net: nn.Module) -> None:
    """Freeze a network for good: parameters, the statistics of batch norms, dropout.

    A `train()` of a model it is part of leaves it in evaluation mode. Without that, a batch norm would
    learn the mean of whatever the head is trained on, and the features would no longer be those of the
    weights that were published.
    """
    net.requires_grad_(requires_grad=False)
    net.eval()
    net.train = lambda mode=True: net  # noqa: ARG005 - torch's own signature


class _Means(NamedTuple):
    """What timm makes of a recipe."""

    optimizer: torch.optim.Optimizer
    scheduler: Scheduler
    augment: Callable[[Image.Image], Tensor]


def _steps(images: int, recipe: Recipe) -> int:
    """Return how many batches an epoch has."""
    share = recipe.mixup_batch or recipe.batch
    if (recipe.mixup or recipe.cutmix) and (recipe.batch % 2 or share % 2):
        raise UsageError(
            f"mixup and cutmix pair images, and {recipe.batch if recipe.batch % 2 else share} is odd",
            "make batch and mixup_batch even in the plan's [finetune]",
        )
    if images < recipe.batch and not recipe.fill:
        raise UsageError(
            f"the recipe's batch {recipe.batch} is more than the {images} training images",
            "lower batch in the plan's [finetune], or take them again: fill = true",
        )
    return max(1, images // recipe.batch)


def _begin_head(net: Model, recipe: Recipe) -> int:
    """Initialise the head as the recipe says, and return its width."""
    if net.head is None:
        raise BobrtError("a network without a head has nothing to learn a task with")
    if recipe.head_init == "xavier-normal":
        nn.init.xavier_normal_(net.head.weight)
        nn.init.zeros_(net.head.bias)
    return int(net.head.out_features)


def _means(net: Model, transform: Transform, recipe: Recipe, steps: int) -> _Means:
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
            warmup_lr=recipe.warmup_lr,
            min_lr=recipe.min_lr,
            step_on_epochs=False,
            updates_per_epoch=steps,
        )
        return _Means(optimizer, scheduler, augment.transform_of(transform, recipe))
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"timm refuses the recipe: {error}", "see the plan's [finetune]") from error


def _criterion(kind: Kind, recipe: Recipe, mixing: augment.Mixing) -> Loss:
    """Return the mean loss of `float32 [n, classes]` logits and the targets that `mixing` makes."""
    smoothing = 0.0 if mixing.softens else recipe.label_smoothing
    if kind is Kind.MULTILABEL:

        def each_label(logits: Tensor, targets: Tensor) -> Tensor:
            return binary_cross_entropy_with_logits(logits, targets * (1 - smoothing) + smoothing / 2)

        return each_label
    loss: Loss = (
        SoftTargetCrossEntropy() if mixing.softens else partial(cross_entropy, label_smoothing=smoothing)
    )
    return loss


def _backward(  # noqa: PLR0913, PLR0917 - what a step is made of
    net: Model, images: Tensor, targets: Tensor, criterion: Loss, recipe: Recipe, place: Place
) -> Tensor:
    """Add up the gradients of a batch, `micro_batch` images at a time, and return its loss.

    Each part counts by its number of images: together they are the gradients of the whole, but for what a
    batch norm or dropout makes of a smaller batch.
    """
    step = recipe.micro_batch or recipe.batch
    total = torch.zeros((), device=place.device)
    try:
        for part, wanted in zip(images.split(step), targets.split(step), strict=True):
            with torch.autocast(place.device.type, torch.bfloat16, enabled=place.bf16):
                logits = net(part)[1]
            loss = criterion(logits.float(), wanted) * (len(part) / len(images))
            loss.backward()
            total += loss.detach()
    except torch.OutOfMemoryError as error:
        raise MachineError(
            f"{min(step, len(images))} images at a time are more than the GPU's memory holds",
            "lower micro_batch in the plan's [finetune]: the effective batch stays as it is",
        ) from error
    return total


def _keep(path: Path, net: Model, optimizer: torch.optim.Optimizer, epoch: int, loss: float) -> None:
    partial_file = path.with_suffix(".tmp")
    # Through memory: to a full disk torch's own writer answers with a riddle, Python's says so.
    content = io.BytesIO()
    state = {"epoch": epoch, "loss": loss, "net": net.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, content)
    # Sealed: torch reads a file with a flipped bit without a word.
    partial_file.write_bytes(hashlib.sha256(content.getbuffer()).digest() + content.getbuffer())
    os.replace(partial_file, path)  # noqa: PTH105 - one call, atomic by POSIX


def _resume(path: Path, net: Model, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """Return the epoch to start at and the last loss, having loaded what an interrupted training left."""
    if not path.is_file():
        return 0, math.nan
    kept = path.read_bytes()
    seal, content = kept[: hashlib.sha256().digest_size], kept[hashlib.sha256().digest_size :]
    if hashlib.sha256(content).digest() != seal:
        path.unlink()
        return 0, math.nan  # damaged: from the first epoch, rather than from something unknown
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["epoch"]), float(state["loss"])
