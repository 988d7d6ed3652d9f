"""Adversarial images: within the ball, in uint8, and worse for the network the further they may go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bobrt import data
from bobrt.artifacts import Job, Stage, Target, Workshop
from bobrt.catalogue import TASKS
from bobrt.data.resize import resize
from bobrt.errors import BobrtError, UsageError
from bobrt.spec import Protocol
from train import attack, model
from train.heads import Classifier
from train.options import AttackOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bobrt.artifacts import Artifact, Produced

EPSILONS = (2, 8, 16)
TASK = TASKS.get("digits")


class Pixels(nn.Module):  # type: ignore[misc]  # torch is too heavy to check ours against
    """A backbone whose features are the normalised pixels."""

    num_classes = 0

    def forward_features(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def forward_head(self, maps: Tensor, *, pre_logits: bool) -> Tensor:
        assert pre_logits
        return maps


def linear(classes: int = 2) -> model.Model:
    """A linear classifier of 4 x 4 pixels; every channel has a mean and a deviation of its own."""
    torch.manual_seed(0)
    return model.Model(Pixels(), Classifier(48, classes), (0.1, 0.2, 0.3), (0.5, 0.25, 0.125)).eval()


def grey(n: int = 8) -> Tensor:
    """Images that are far from black and white: no step is cut off."""
    return torch.from_numpy(np.random.default_rng(1).integers(60, 190, (n, 4, 4, 3), np.uint8))


def slope(net: model.Model, labels: Tensor) -> Tensor:
    """The closed form for two classes: the difference of their weights, on the scale of the pixels."""
    weights = net.head.weight.detach()
    away = weights[1 - labels] - weights[labels]
    return (away.view(-1, 3, 4, 4) / net.std).permute(0, 2, 3, 1)


def crafted(net: model.Model, images: Tensor, targets: Tensor, name: str, eps: int) -> Tensor:
    if name == "fgsm":
        return attack.fgsm(net, images, targets, eps)
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(images.shape, generator=generator) * 2 - 1
    return attack.pgd(net, images, targets, eps, 20, start)


def test_of_a_linear_network_fgsm_is_its_closed_form() -> None:
    """One step of epsilon along the sign of the difference of the two classes' weights."""
    net, images, labels = linear(), grey(), torch.arange(8) % 2

    changed = attack.fgsm(net, images, labels, 3)

    assert changed.dtype == torch.uint8
    assert torch.equal(changed.int(), images.int() + 3 * slope(net, labels).sign().int())


def test_the_gradient_goes_through_the_normalisation() -> None:
    """Per unit of a pixel as the engine takes it: the softmax's derivative, the weights, one over std."""
    net, images, labels = linear(), grey(), torch.arange(8) % 2
    wrong = net(images)[1].softmax(1)[torch.arange(8), 1 - labels].detach()

    found = attack.gradient(net, images.float(), labels)

    torch.testing.assert_close(found, wrong.view(-1, 1, 1, 1) * slope(net, labels))


def test_of_a_linear_network_pgd_ends_in_the_corner_that_fgsm_goes_to() -> None:
    """The gradient's sign never changes there: wherever it starts, 2.5 epsilons of way reach the corner."""
    net, images, labels = linear(), grey(), torch.arange(8) % 2

    assert torch.equal(crafted(net, images, labels, "pgd", 3), attack.fgsm(net, images, labels, 3))


def test_of_several_labels_each_is_attacked_for_itself() -> None:
    """With 0 and 1 for each of three labels, the step is uphill for the sum of their losses."""
    net, images = linear(3), grey()
    targets = torch.from_numpy(np.random.default_rng(2).integers(0, 2, (8, 3)))
    off = (net(images)[1].sigmoid() - targets).detach()
    uphill = ((off @ net.head.weight.detach()).view(-1, 3, 4, 4) / net.std).permute(0, 2, 3, 1)

    changed = attack.fgsm(net, images, targets, 2)

    assert torch.equal(changed.int(), images.int() + 2 * uphill.sign().int())


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_no_value_leaves_the_ball_or_the_range_of_a_byte(name: str, net: model.Model) -> None:
    """Black, white and all between: at most epsilon away, and where nothing cuts it off exactly epsilon."""
    images = torch.from_numpy(np.random.default_rng(3).choice([0, 1, 128, 254, 255], (16, 32, 32, 3)))
    images = images.to(torch.uint8)
    for eps in (1, 5, 64):
        changed = crafted(net, images, torch.arange(16) % 10, name, eps)
        moved = (changed.int() - images.int()).abs()

        assert changed.dtype == torch.uint8
        assert int(moved.max()) == eps
        if name == "fgsm":
            assert set(moved[images == 128].tolist()) <= {0, min(eps, 127)}


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_an_epsilon_of_nothing_changes_nothing(name: str, net: model.Model, photos: Tensor) -> None:
    assert torch.equal(crafted(net, photos, torch.tensor([1, 2, 3]), name, 0), photos)


def test_a_gradient_that_is_no_number_is_an_error(photos: Tensor, net: model.Model) -> None:
    """A network that answers NaN is not attacked with the sign of NaN."""
    with torch.no_grad():
        net.head.weight[0, 0] = torch.nan

    for name in ("fgsm", "pgd"):
        with pytest.raises(BobrtError, match="NaN or infinite"):
            crafted(net, photos, torch.tensor([1, 2, 3]), name, 4)


def attacked(source: Artifact, folder: Path, **options: Any) -> tuple[Produced, dict[str, np.ndarray]]:
    """Run the stage on a checkpoint; return what it told and the arrays it wrote."""
    folder.mkdir()
    asked = AttackOptions(**{"epsilons": EPSILONS, "limit": 100, **options})
    made = attack.make(Job(msgspec.to_builtins(asked), source, folder, lambda *_: None))
    with np.load(folder / made.file) as kept:
        return made, dict(kept)


@pytest.fixture(scope="module")
def stage(
    trained: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Produced, dict[str, np.ndarray]]:
    """What the stage tells and writes of the trained checkpoint."""
    return attacked(trained, tmp_path_factory.mktemp("attack") / "stage")


Made = tuple["Produced", dict[str, np.ndarray]]


def test_the_file_holds_the_images_of_every_attack_at_every_epsilon(stage: Made, trained: Artifact) -> None:
    """A hundred of the test images, evenly spread, each within its epsilon."""
    _, arrays = stage
    test = data.load(TASK, "test")
    transform = model.load(trained.path)[1].transform

    rows, *names = arrays

    assert (rows, names) == ("rows", [f"{name}-{eps}" for name in ("fgsm", "pgd20") for eps in EPSILONS])
    rows = arrays["rows"]
    assert (rows[0], rows[-1], len(set(rows.tolist()))) == (0, 449, 100)
    assert set(np.diff(rows)) <= {4, 5}
    clean = resize([test.images[row] for row in rows], transform).astype(int)
    for name in names:
        changed = arrays[name]
        assert (changed.dtype, changed.shape) == (np.uint8, (100, 32, 32, 3))
        assert np.abs(changed - clean).max() == int(name.rpartition("-")[2])


def test_the_manifest_tells_what_the_attack_costs_the_checkpoint_itself(
    stage: Made, trained: Artifact
) -> None:
    """Each number is what the saved checkpoint scores when it is shown those images again."""
    made, arrays = stage
    net, card = model.load(trained.path)
    test = data.load(TASK, "test")
    clean = resize([test.images[row] for row in arrays["rows"]], card.transform)

    def right(images: np.ndarray) -> float:
        with torch.inference_mode():
            answers = net(torch.from_numpy(images))[1].argmax(1).numpy()
        return float((answers == test.targets[arrays["rows"]]).mean())

    assert (made.detail["metric"], made.detail["n"]) == ("top1", 100)
    assert made.detail["clean"] == pytest.approx(right(clean))
    assert made.detail["under"] == {
        name: pytest.approx(right(images)) for name, images in arrays.items() if name != "rows"
    }
    assert made.detail["seconds"].keys() == made.detail["under"].keys()
    assert min(made.detail["seconds"].values()) > 0
    assert made.detail["transform"] == msgspec.to_builtins(card.transform)


def test_accuracy_falls_with_epsilon_and_many_steps_mislead_more_than_one(stage: Made) -> None:
    """Each further epsilon costs accuracy, and PGD leaves no more right than FGSM does."""
    detail = stage[0].detail
    under = detail["under"]
    for name in ("fgsm", "pgd20"):
        falling = [detail["clean"], *(under[f"{name}-{eps}"] for eps in EPSILONS)]
        assert falling == sorted(falling, reverse=True)
        assert falling[-1] < detail["clean"] - 0.1
    for eps in EPSILONS:
        assert under[f"pgd20-{eps}"] <= under[f"fgsm-{eps}"]


def test_the_same_options_make_the_same_file_and_another_seed_another_start(
    trained: Artifact, tmp_path: Path
) -> None:
    """Bit for bit; FGSM draws nothing, PGD starts elsewhere."""
    small: dict[str, Any] = {"limit": 20, "epsilons": (8,), "steps": 5}
    made, first = attacked(trained, tmp_path / "first", **small)
    attacked(trained, tmp_path / "again", **small)
    _, other = attacked(trained, tmp_path / "other", **small, seed=1)

    assert (tmp_path / "first" / made.file).read_bytes() == (tmp_path / "again" / made.file).read_bytes()
    assert np.array_equal(other["fgsm-8"], first["fgsm-8"])
    assert not np.array_equal(other["pgd5-8"], first["pgd5-8"])


def test_one_image_is_attacked_as_it_would_be_among_others(trained: Artifact) -> None:
    """What a batch is made of decides nothing: PGD's start is drawn image after image."""
    net, card = model.load(trained.path)
    test = data.load(TASK, "test").head(70)
    pixels = torch.from_numpy(resize(test.images, card.transform))
    options = AttackOptions(attacks=("pgd",), epsilons=(8,), steps=3)

    whole = attack._craft(net, attack._Images(pixels, test, np.arange(70)), "pgd", 8, options)
    few = attack._craft(net, attack._Images(pixels[:5], test.head(5), np.arange(5)), "pgd", 8, options)

    moved = (whole[:5].int() - few.int()).abs()
    assert (moved > 0).float().mean() < 0.01  # a sum in another order turns a sign here and there


def test_a_checkpoint_without_a_classifier_cannot_be_misled(
    shop_in: Callable[[Path], Workshop], wanted: Callable[..., Target], tmp_path: Path
) -> None:
    """The features of `knn` have no loss; the hint names the protocols that have."""
    shop = shop_in(tmp_path)
    stages = {**shop.stages, "attack": Stage("train.attack:make", ("torch", "timm"), "train")}
    bare = wanted(protocol=Protocol.KNN, recipe=None)

    with pytest.raises(UsageError, match="no classifier") as caught:
        Workshop(tmp_path, stages).make(Target(stage="attack", source=bare))

    assert "finetune" in caught.value.hint


def test_names_and_numbers_of_the_options_are_checked() -> None:
    """Epsilons are whole and within a byte, attacks are known, and names tell the number of steps."""
    assert list(AttackOptions(steps=5, epsilons=(2, 4)).asked()) == ["fgsm-2", "fgsm-4", "pgd5-2", "pgd5-4"]
    for wrong in ({"epsilons": [0.5]}, {"epsilons": [256]}, {"epsilons": []}, {"attacks": ["cw"]}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(wrong, type=AttackOptions)
