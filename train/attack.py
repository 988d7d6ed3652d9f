"""The stage `attack`: a checkpoint's test images, changed a little to mislead it.

FGSM (Goodfellow, Shlens, Szegedy 2015, arXiv 1412.6572) takes one step along the sign of the loss's
gradient, PGD (Madry et al. 2018, arXiv 1706.06083) many small ones from a random start, each brought back
to within epsilon in every value of every pixel. Untargeted, on the true labels, of every image: one that
was wrong before counts too. What comes out is uint8, as from a camera, so that any engine can be asked.
"""

from __future__ import annotations

import time
import zipfile
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from bobrt import data
from bobrt.artifacts import Job, Produced
from bobrt.data.feed import at_a_time
from bobrt.data.resize import resize
from bobrt.errors import BobrtError, UsageError
from bobrt.tasks import cards, task_of
from train import model
from train.options import AttackOptions
from train.place import exact, here

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from bobrt.spec import FileCard, TaskCard
    from bobrt.tasks import Task

BATCH = 64
STRIDE = 2.5
"""PGD's step times the number of steps, in epsilons: far enough to reach any corner and turn back."""


class _Images(NamedTuple):
    """The test images that are attacked, on the CPU."""

    pixels: Tensor
    """`uint8 [n, size, size, 3]`."""
    split: data.Split
    rows: NDArray[np.int64]
    """Which of the test split they are."""


def make(job: Job) -> Produced:
    """Write `adversarial.npz`.

    It holds `uint8 [n, size, size, 3]` for each attack and epsilon, called `fgsm-2` or `pgd20-8`, and
    `rows int64 [n]`: which images of the test split they were. They are at the checkpoint's own size.

    Raises:
        UsageError: The checkpoint has no classifier.
        BobrtError: A gradient is no number.

    """
    options = msgspec.convert(job.options, type=AttackOptions)
    if job.source is None:
        raise BobrtError("an attack is made on a checkpoint, and none was given")
    net, card = model.load(job.source.path)
    if not card.task or net.outputs[-1] != "logits":
        raise UsageError(
            f"checkpoint {job.source.path} has no classifier that could be misled",
            "attack one of the protocols finetune, probe or lowshot",
        )
    task = cards.resolved(card.task)
    kind = task_of(task, card.transform)
    net.to(here().device).requires_grad_(requires_grad=False)  # the images alone have one
    images = _test_images(task, card, options.limit)
    file = job.folder / "adversarial.npz"
    under, seconds = {}, {}
    # One attack after another: together they are many times the test images.
    with zipfile.ZipFile(file, "w") as archive, exact():
        _add(archive, "rows", images.rows)
        clean = _score(kind, net, images.pixels, images.split)
        for name, (attack, eps) in options.asked().items():
            job.report("attack", name)
            began = time.monotonic()
            changed = _craft(net, images, attack, eps, options)
            seconds[name] = round(time.monotonic() - began, 3)
            under[name] = _score(kind, net, changed, images.split)
            _add(archive, name, changed.numpy())
    told = {"metric": task.metric, "n": len(images.rows), "clean": clean, "under": under, "seconds": seconds}
    return Produced(file.name, {**told, "transform": msgspec.to_builtins(card.transform)})


def fgsm(net: nn.Module, images: Tensor, targets: Tensor, eps: int) -> Tensor:
    """Return `uint8 [n, height, width, 3]`: every value `eps` further along its gradient's sign.

    Args:
        net: In evaluation mode; takes images as 0..255, answers features and logits.
        images: `uint8 [n, height, width, 3]`.
        targets: `int64 [n]` classes, or `[n, labels]` of 0 and 1.
        eps: In 1/255.

    Raises:
        BobrtError: A gradient is no number.

    """
    clean = images.float()
    changed = clean + eps * gradient(net, clean, targets).sign()
    return changed.clamp(0, 255).to(torch.uint8)


def pgd(  # noqa: PLR0913, PLR0917 - what the attack is made of
    net: nn.Module, images: Tensor, targets: Tensor, eps: int, steps: int, start: Tensor
) -> Tensor:
    """Return `uint8 [n, height, width, 3]`, no value more than `eps` from what it was.

    Args:
        net: As for `fgsm`.
        images: As for `fgsm`.
        targets: As for `fgsm`.
        eps: In 1/255.
        steps: Each of `2.5 * eps / steps`.
        start: Where each value starts, in epsilons: -1 to 1.

    Raises:
        BobrtError: A gradient is no number.

    """
    clean = images.float()
    low, high = (clean - eps).clamp(min=0), (clean + eps).clamp(max=255)
    x = (clean + eps * start).clamp(low, high)
    for _ in range(steps):
        x = (x + STRIDE * eps / steps * gradient(net, x, targets).sign()).clamp(low, high)
    # The bounds are whole numbers: the nearest whole number is within them.
    return x.round().to(torch.uint8)


def gradient(net: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Return the gradient of each image's loss with respect to the image: `float32 [n, height, width, 3]`.

    Args:
        net: As for `fgsm`.
        images: `float32 [n, height, width, 3]`, 0..255.
        targets: As for `fgsm`.

    Raises:
        BobrtError: It is no number somewhere.

    """
    images = images.detach().requires_grad_()
    logits = net(images)[1]
    if targets.ndim == 1:
        loss = cross_entropy(logits, targets, reduction="sum")
    else:
        loss = binary_cross_entropy_with_logits(logits, targets.float(), reduction="sum")
    (found,) = torch.autograd.grad(loss, images)
    if not torch.isfinite(found).all():
        raise BobrtError(
            "the gradient of the loss with respect to an image is NaN or infinite",
            "look at the checkpoint's answers: train it anew with a lower lr",
        )
    return found


def _craft(net: nn.Module, images: _Images, attack: str, eps: int, options: AttackOptions) -> Tensor:
    device = next(net.parameters()).device
    # The same start for every epsilon, batch size and device: drawn here, an image after the other.
    random = torch.Generator().manual_seed(options.seed)
    targets = torch.from_numpy(images.split.targets)
    parts, step = [], at_a_time(BATCH, images.pixels.shape[1])
    for part, wanted in zip(images.pixels.split(step), targets.split(step), strict=True):
        there = part.to(device), wanted.to(device)
        if attack == "fgsm":
            changed = fgsm(net, *there, eps)
        else:
            start = torch.stack([torch.rand(image.shape, generator=random) for image in part]) * 2 - 1
            changed = pgd(net, *there, eps, options.steps, start.to(device))
        parts.append(changed.cpu())
    return torch.cat(parts)


def _test_images(task: TaskCard, card: FileCard, limit: int | None) -> _Images:
    test = data.load(task, "test")
    n = len(test.ids)
    # Evenly spread: a folder of classes lists one class after the other.
    rows = np.linspace(0, n - 1, min(limit or n, n)).round().astype(np.int64)
    split = test.some(rows.tolist())
    return _Images(torch.from_numpy(resize(split.images, card.transform)), split, rows)


def _score(kind: Task, net: nn.Module, pixels: Tensor, split: data.Split) -> float:
    device, step = next(net.parameters()).device, at_a_time(BATCH, pixels.shape[1])
    with torch.inference_mode():
        logits = torch.cat([net(part.to(device))[1].cpu() for part in pixels.split(step)])
    return kind.score(kind.decode({"logits": logits.numpy()}), split).value


def _add(archive: zipfile.ZipFile, name: str, array: NDArray[np.generic]) -> None:
    """Write an array as `numpy.savez` does."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)
