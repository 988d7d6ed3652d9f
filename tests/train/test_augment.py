"""Training images changed by chance: a chance that no number of workers, pieces or cores decides."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import get_worker_info

from bobrt import data
from bobrt.catalogue import TASKS
from bobrt.errors import BobrtError, UsageError
from bobrt.spec import Kind, Recipe, Transform
from train import augment
from train.place import Place
from train.seeding import seed_everything

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from bobrt.data import Split
    from train.model import Model

SIZE = Transform(size=32, interpolation="bilinear")
# One worker is as many as one core: torch warns of more than there are.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def recipe(**changes: Any) -> Recipe:
    """Everything that is drawn per image, drawn."""
    drawn = {
        "crop_scale": (0.08, 1.0),
        "interpolation": "random",
        "hflip": 0.5,
        "color_jitter": 0.4,
        "auto_augment": "rand-m9-mstd0.5-inc1",
    }
    return Recipe(**{"epochs": 2, "lr": 1.0, "batch": 32, **drawn, **changes})


PLAIN: dict[str, Any] = {
    "crop_scale": (1.0, 1.0),
    "crop_ratio": (1.0, 1.0),
    "interpolation": None,
    "hflip": 0.0,
    "color_jitter": 0.0,
    "auto_augment": None,
}


def place(workers: int = 0) -> Place:
    return Place(torch.device("cpu"), bf16=False, workers=workers)


@pytest.fixture(scope="module")
def digits() -> Split:
    """A hundred training images: three batches of 32, and four left over."""
    return data.load(TASKS.get("digits"), "train").head(100)


def drawn(
    split: Split, how: Recipe | None = None, *, seed: int = 0, first: int = 0, workers: int = 0
) -> list[tuple[Tensor, Tensor]]:
    """Return every batch; the consumer draws numbers of its own meanwhile."""
    how = how or recipe()
    found = []
    transform = augment.transform_of(SIZE, how)
    for batch in augment.batches(split, transform, how, seed, first, place(workers)):
        found.append(batch)
        torch.rand(7)
    return found


def same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(torch.equal(a, b) for left, right in pairs for a, b in zip(left, right, strict=True))


def test_no_bit_depends_on_who_decodes(digits: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training itself, one process, two, and pieces of another size: the same batches."""
    here = drawn(digits)

    assert [tuple(images.shape) for images, _ in here] == [(32, 3, 32, 32)] * 6
    assert same(drawn(digits, workers=1), here)
    monkeypatch.setattr(augment, "PIECE", 5)
    assert same(drawn(digits, workers=2), here)


def test_an_epoch_begun_later_is_the_epoch_it_would_have_been(digits: Split) -> None:
    """What a resumed training is shown is what it would have been shown."""
    assert same(drawn(digits, first=1), drawn(digits)[3:])


def test_images_that_do_not_fill_a_batch_are_taken_again(digits: Split) -> None:
    """Of twelve a batch of thirty-two: each twice or three times, never the same crop."""
    # Of eight by eight pixels two crops may well be the same.
    watched = Watched(list(np.random.default_rng(0).integers(0, 256, (12, 40, 40, 3), np.uint8)))
    (images, _), *more = drawn(digits.head(12)._replace(images=watched), recipe(epochs=1))
    times = [watched.decoded.count(row) for row in range(12)]

    assert more == []
    assert (len(images), set(times), sum(times)) == (32, {2, 3}, 32)
    assert len({image.numpy().tobytes() for image in images}) == 32


def test_every_epoch_and_seed_draws_anew(digits: Split) -> None:
    """Another crop in another epoch or under another seed, the same one in another order."""
    transform = augment.transform_of(SIZE, recipe())
    ours = augment._Augmented(digits, transform, seed=0)
    theirs = augment._Augmented(digits, transform, seed=1)
    images, targets = ours[0, [3, 5]]

    assert torch.equal(ours[0, [5, 3]][0], images.flip(0))
    assert targets.tolist() == digits.targets[[3, 5]].tolist()
    assert not torch.equal(ours[1, [3, 5]][0], images)
    assert not torch.equal(theirs[0, [3, 5]][0], images)


class Watched(Sequence["NDArray[np.uint8]"]):
    """Images that note when they are decoded."""

    def __init__(self, images: Sequence[NDArray[np.uint8]]) -> None:
        self.images = images
        self.decoded: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: Any) -> Any:
        self.decoded.append(row)
        return self.images[row]


def test_an_image_is_decoded_when_its_batch_is_asked_for(digits: Split) -> None:
    """Nothing is read before, nothing twice in an epoch, and the last short batch not at all."""
    watched = Watched(digits.images)
    how = recipe()
    found = augment.batches(
        digits._replace(images=watched), augment.transform_of(SIZE, how), how, 0, 0, place()
    )

    assert watched.decoded == []
    next(found)
    assert len(watched.decoded) == 32
    list(islice(found, 2))
    assert len(set(watched.decoded)) == len(watched.decoded) == 96


class Broken(Watched):
    """Of which one cannot be read."""

    def __getitem__(self, row: Any) -> Any:
        if row == 17:
            raise UsageError("image a/17.png is cut off", "replace it")
        return self.images[row]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named_in_one_line(digits: Split, workers: int) -> None:
    """The error is the reader's own, whichever process read."""
    with pytest.raises(BobrtError) as caught:
        drawn(digits._replace(images=Broken(digits.images)), workers=workers)

    assert type(caught.value) is UsageError
    assert (caught.value.message, caught.value.hint) == ("image a/17.png is cut off", "replace it")


class Deadly(Watched):
    """Of which one kills the process that reads it, as the kernel does when memory runs out."""

    def __getitem__(self, row: Any) -> Any:
        if row == 17 and get_worker_info():
            os.kill(os.getpid(), signal.SIGKILL)
        return self.images[row]


_KILLED = """
import warnings
import test_augment as here
from bobrt import data
from bobrt.errors import MachineError
warnings.simplefilter("ignore")
digits = data.load(here.TASKS.get("digits"), "train").head(100)
try:
    with here.augment.told_if_killed():
        here.drawn(digits._replace(images=here.Deadly(digits.images)), workers=1)
except MachineError as error:
    print(error.message, error.hint, sep="|")
"""


def test_a_process_that_is_killed_ends_the_training_in_one_line() -> None:
    """In a process of its own: torch's signal may arrive wherever Python is, in the test runner too."""
    path = os.pathsep.join(str(folder) for folder in (Path(__file__).parent, Path(__file__).parents[2]))
    done = subprocess.run(
        [sys.executable, "-c", _KILLED],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=120,
        check=True,
    )
    message, _, hint = done.stdout.strip().partition("|")
    assert "was killed" in message
    assert "\n" not in message
    assert "--ipc=host" in hint


def test_a_plain_recipe_shows_the_picture_itself(digits: Split) -> None:
    """No crop, no flip, no jitter: the resized image; hflip 1 turns each over, jitter changes its colours."""
    small = Transform(size=digits.images[0].shape[0], interpolation="bilinear")

    def shown(**changes: Any) -> Tensor:
        how = recipe(**{**PLAIN, **changes})
        return augment._Augmented(digits, augment.transform_of(small, how), 0)[0, [0]][0][0]

    itself = torch.from_numpy(digits.images[0]).permute(2, 0, 1)
    assert torch.equal(shown(), itself)
    assert torch.equal(shown(hflip=1.0), itself.flip(2))
    assert not torch.equal(shown(color_jitter=0.4), itself)


@pytest.mark.parametrize("policy", ["rand-m10-n9-inc1", "rand-m0-n9", "original", "v0"])
def test_policies_go_to_their_greatest_magnitude(digits: Split, policy: str) -> None:
    """No bit left of a channel is black, as Pillow had it before it refused."""
    how = recipe(auto_augment=policy)
    assert len(augment._Augmented(digits, augment.transform_of(SIZE, how), 0)[0, list(range(100))][0]) == 100
    picture = Image.fromarray(digits.images[0])

    assert not np.asarray(augment._posterize(picture, 0)).any()
    assert np.array_equal(augment._posterize(picture, 3), digits.images[0] & 0b11100000)


def mixing(net: Model, kind: Kind = Kind.CLASSIFICATION, **changes: Any) -> augment.Mixing:
    return augment.Mixing(recipe(batch=8, **changes), kind, 10, net.mean, net.std)


def flat(n: int = 8) -> Tensor:
    """Images of one grey each: 10, 20, 30 ..."""
    return torch.arange(10, 10 * n + 1, 10, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 3, 32, 32).clone()


def test_with_nothing_to_mix_the_bytes_stay_as_they_are(net: Model) -> None:
    images, labels = flat(), torch.arange(8)

    out, targets = mixing(net)(images, labels)

    assert out.dtype == torch.uint8
    assert torch.equal(out, images.permute(0, 2, 3, 1))
    assert targets is labels


def test_mixup_adds_images_and_labels_with_one_weight(net: Model) -> None:
    """Pixel and target of image i are the same mixture of i and of its partner, smoothed like a label."""
    seed_everything(0)
    out, targets = mixing(net, mixup=0.8, label_smoothing=0.1)(flat(), torch.arange(8))
    hard = torch.nn.functional.one_hot(torch.arange(8), 10)
    grey = out[:, 0, 0, 0]
    weight = (grey[0] - 80) / (10 - 80)

    assert 0 < weight < 1
    torch.testing.assert_close(grey, weight * flat()[:, 0, 0, 0] + (1 - weight) * flat().flip(0)[:, 0, 0, 0])
    mixed = weight * hard + (1 - weight) * hard.flip(0)
    torch.testing.assert_close(targets, 0.9 * mixed + 0.1 / 10)


def test_cutmix_weighs_labels_by_the_area_that_is_left(net: Model) -> None:
    seed_everything(1)
    out, targets = mixing(net, cutmix=1.0)(flat(), torch.arange(8))
    left = (out[0, :, :, 0] == 10).float().mean()

    assert set(out[0].unique().tolist()) == {10.0, 80.0}
    torch.testing.assert_close(targets[0, 0], left)
    torch.testing.assert_close(targets[0, 7], 1 - left)


def test_images_are_mixed_within_their_share_of_the_batch(net: Model) -> None:
    """With shares of four, each has a weight of its own and nothing from the other."""
    seed_everything(0)
    out, _ = mixing(net, mixup=0.8, mixup_batch=4)(flat(), torch.arange(8))
    grey = out[:, 0, 0, 0]

    assert float(grey[:4].max()) <= 40
    assert float(grey[4:].min()) >= 50
    assert (grey[0] - 40) / (10 - 40) != pytest.approx(float((grey[4] - 80) / (50 - 80)))


def test_several_labels_of_an_image_are_mixed_each(net: Model) -> None:
    """Shares of 0 and 1, smoothed towards a half."""
    labels = torch.zeros(8, 10, dtype=torch.int64)
    labels[:4, :3] = 1
    seed_everything(0)
    out, targets = mixing(net, Kind.MULTILABEL, mixup=0.8, label_smoothing=0.1)(flat(), labels)
    weight = (out[0, 0, 0, 0] - 80) / (10 - 80)

    torch.testing.assert_close(targets[0, 0], 0.9 * weight + 0.05)
    torch.testing.assert_close(targets[0, 9], torch.tensor(0.05))


def test_an_erased_rectangle_is_noise_of_the_checkpoint_s_own_mean_and_deviation(net: Model) -> None:
    """On the scale of bytes, channel by channel; what is not erased stays as it was."""
    n = 400
    images = torch.full((n, 3, 32, 32), 77, dtype=torch.uint8)
    seed_everything(0)
    out, _ = mixing(net, random_erasing=1.0)(images, torch.zeros(n, dtype=torch.int64))
    noise = (out - 77).abs() > 1e-3  # hardly any of it is that close to 77 by chance

    for image in noise.any(dim=3):
        rows, columns = image.any(dim=1).sum(), image.any(dim=0).sum()
        assert 0 < image.sum() == rows * columns < 0.4 * 32 * 32
    for channel in range(3):
        values = out[..., channel][noise[..., channel]]
        assert float(values.mean()) == pytest.approx(float(net.mean.flatten()[channel]), rel=0.02)
        assert float(values.std()) == pytest.approx(float(net.std.flatten()[channel]), rel=0.02)


def test_a_step_mixes_and_erases_what_it_would_have(net: Model) -> None:
    """Seeded alike it draws alike; another step draws otherwise."""
    mix: Callable[..., Any] = mixing(net, mixup=0.8, cutmix=1.0, random_erasing=0.5)

    def at(step: int) -> Tensor:
        seed_everything(0, 1, step)
        return mix(flat(), torch.arange(8))[0]

    assert torch.equal(at(1), at(1))
    assert not torch.equal(at(1), at(2))
