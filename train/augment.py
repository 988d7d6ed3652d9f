"""Training images, changed by chance: timm's own transforms, with a chance that can be repeated.

What becomes of an image depends on the seed, the epoch and the image alone, what is mixed and erased on
the seed, the epoch and the step: neither on how many processes decode, nor on how many images the device
takes at once.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

import torch
from PIL import Image
from timm.data import create_transform
from timm.data.auto_augment import NAME_TO_OP, posterize
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from torch.utils.data import DataLoader, Dataset

from bobrt.errors import BobrtError, MachineError
from bobrt.spec import Kind
from train.seeding import seed_host, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from torch import Tensor

    from bobrt.data import Split
    from bobrt.spec import Recipe, Transform
    from train.place import Place

    Piece = tuple[int, list[int]]

PIECE = 64
"""Images at most that a process decodes before it hands them over; no bit depends on it."""


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """Return an image with so many bits a channel; with none of them it is black."""
    return posterize(image, bits) if bits else Image.new(image.mode, image.size)


# timm's policies ask for no bits at their greatest magnitude: once black to Pillow, since 13 an error.
NAME_TO_OP.update({name: _posterize for name, op in NAME_TO_OP.items() if op is posterize})


def transform_of(transform: Transform, recipe: Recipe) -> Callable[[Image.Image], Tensor]:
    """Return timm's training transform at the engine's size, without the normalisation.

    It makes `uint8 [3, size, size]` of a picture.
    """
    augment: Callable[[Image.Image], Tensor] = create_transform(
        input_size=transform.size,
        is_training=True,
        scale=recipe.crop_scale,
        ratio=recipe.crop_ratio,
        hflip=recipe.hflip,
        color_jitter=recipe.color_jitter,
        auto_augment=recipe.auto_augment,
        interpolation=recipe.interpolation or transform.interpolation,
        normalize=False,
    )
    return augment


def batches(  # noqa: PLR0913, PLR0917 - what an epoch is made of
    train: Split,
    augment: Callable[[Image.Image], Tensor],
    recipe: Recipe,
    seed: int,
    first: int,
    place: Place,
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Yield the effective batches of every epoch from `first` on, on the device.

    Each is `uint8 [batch, 3, size, size]` and its targets; an epoch's last short one is dropped.

    Args:
        train: Indexing it decodes; it is never gone through as a whole.
        augment: From a picture to `uint8 [3, size, size]`.
        recipe: Epochs and effective batch.
        seed: Of the run.
        first: Epoch, counted from 0.
        place: Device and decoding processes.

    Raises:
        BobrtError: What reading an image raised.
        MachineError: A decoding process was killed.

    """
    loader = DataLoader(
        _Augmented(train, augment, seed),
        batch_size=None,  # a piece is one item
        sampler=_pieces(len(train.ids), recipe, seed, first),
        num_workers=place.workers,
        pin_memory=place.device.type == "cuda",
    )
    pieces = _read(loader)
    while taken := list(islice(pieces, -(-recipe.batch // PIECE))):
        there = [[part.to(place.device, non_blocking=True) for part in piece] for piece in taken]
        images, targets = map(torch.cat, zip(*there, strict=True))
        yield images, targets


def _pieces(images: int, recipe: Recipe, seed: int, first: int) -> Iterator[Piece]:
    """Yield epoch and draws of each piece; the last short batch of an epoch is dropped.

    A draw is a row, or where the images are taken again a row and as often their number.
    """
    turns = -(-recipe.batch // images)
    for epoch in range(first, recipe.epochs):
        generator = torch.Generator().manual_seed(state_of(seed, epoch + 1))
        order = [turn * images + torch.randperm(images, generator=generator) for turn in range(turns)]
        draws = torch.cat(order).tolist()
        for start in range(0, len(draws) - recipe.batch + 1, recipe.batch):
            batch = draws[start : start + recipe.batch]
            yield from ((epoch, batch[at : at + PIECE]) for at in range(0, recipe.batch, PIECE))


def _read(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    with told_if_killed():
        for piece in loader:
            if isinstance(piece, BobrtError):
                raise piece
            yield piece


@contextmanager
def told_if_killed() -> Iterator[None]:
    """Say in one line that a decoding process was killed.

    torch hears of it by a signal and raises wherever the program is just then: whoever consumes the batches
    stands in this block too.

    Raises:
        MachineError: A decoding process was killed.

    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise  # not of the process, but in it
        raise MachineError(
            "a process that decodes training images was killed: memory or shared memory ran out",
            "in a container: docker run --ipc=host",
        ) from error


class _Augmented(Dataset):  # type: ignore[misc]  # torch is too heavy to check ours against
    """Pieces of a training split, by epoch and draws.

    Processes rather than threads: timm draws from global generators, of which a process has its own.
    """

    def __init__(self, split: Split, augment: Callable[[Image.Image], Tensor], seed: int) -> None:
        self._split = split
        self._augment = augment
        self._seed = seed

    def __getitem__(self, piece: Piece) -> tuple[Tensor, Tensor] | BobrtError:
        epoch, draws = piece
        rows = [draw % len(self._split.ids) for draw in draws]
        try:
            images = torch.stack([self._one(epoch, *pair) for pair in zip(draws, rows, strict=True)])
        except BobrtError as error:
            return error  # raised in another process it would come with that one's traceback as its text
        return images, torch.from_numpy(self._split.targets[rows])

    def _one(self, epoch: int, draw: int, row: int) -> Tensor:
        picture = Image.fromarray(self._split.images[row])
        seed_host(self._seed, epoch + 1, 0, draw + 1)
        return self._augment(picture)


class Mixing:
    """What is done to a batch as a whole: mixup or cutmix, then random erasing, all timm's.

    Args:
        recipe: How much of each.
        kind: Of the task; the labels of several per image are mixed as they are.
        classes: How many labels there are.
        mean: Of the checkpoint's images, `[1, 3, 1, 1]` on the scale of bytes and on the batches' device.
        std: Their deviation, likewise: noise looks like an image by both.

    """

    def __init__(self, recipe: Recipe, kind: Kind, classes: int, mean: Tensor, std: Tensor) -> None:
        self.softens = recipe.mixup > 0 or recipe.cutmix > 0
        """Whether targets come out as shares of each class, smoothed already."""
        self._share = recipe.mixup_batch or recipe.batch
        self._mean, self._std = mean, std
        self._mix = self._erase = None
        if self.softens:
            several = {"multi_label": True} if kind is Kind.MULTILABEL else {}
            self._mix = Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                switch_prob=recipe.mixup_switch_prob,
                label_smoothing=recipe.label_smoothing,
                num_classes=classes,
                **several,
            )
        if recipe.random_erasing:
            self._erase = RandomErasing(recipe.random_erasing, mode="pixel", device=mean.device)

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return a batch as the network takes it.

        Args:
            images: `uint8 [n, 3, height, width]`.
            targets: `int64 [n]`, or `[n, labels]` of 0 and 1.

        Returns:
            `[n, height, width, 3]`, uint8 if nothing was done to it, else float32 on the same scale; and the
            targets, `float32 [n, classes]` if they were mixed.

        """
        if self._mix or self._erase:
            images = images.float()
        if self._mix:
            parts = zip(images.split(self._share), targets.split(self._share), strict=True)
            targets = torch.cat([self._mix(*part)[1] for part in parts])  # images are mixed in place
        if self._erase:
            # Its noise is normal, and meant for normalised images.
            images = self._erase((images - self._mean) / self._std) * self._std + self._mean
        return images.permute(0, 2, 3, 1), targets
