"""Fine-tuning: what it learns from, and that every word of the recipe reaches it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import torch

from bobrt import data
from bobrt.artifacts import Job
from bobrt.catalogue import TASKS, backbone
from bobrt.data.resize import resize
from bobrt.errors import MachineError, UsageError
from bobrt.spec import Kind, Recipe, TaskCard, Transform
from bobrt.tasks import cards
from train import augment, finetune, model
from train.place import Place, here
from train.recipes import RECIPES
from train.seeding import seed_everything

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from bobrt.artifacts import Artifact, Target, Workshop
    from bobrt.data import Split


FEW = cards.resolved("digits@10shot")
"""A hundred training images: three steps an epoch."""
PLACE = Place(torch.device("cpu"), bf16=False, workers=0)


def train(
    net: model.Model, folder: Path, card: TaskCard = FEW, place: Place = PLACE, **recipe: Any
) -> dict[str, Any]:
    """Fine-tune a model in this process for an epoch; return what is told of it."""
    how = Recipe(**{"epochs": 1, "lr": 3e-3, "batch": 32, **recipe})
    job = Job({}, None, folder, lambda *_: None)
    size = Transform(size=32, interpolation="bilinear")
    return finetune.run(net, card, size, how, 0, job, place)


def test_the_manifest_records_the_loss_and_the_validation_metric(trained: Artifact) -> None:
    """The validation metric is what the saved file scores when asked again by hand."""
    detail = trained.manifest.detail
    split = data.load(TASKS.get("digits"), "validation")
    net, card = model.load(trained.path)
    with torch.inference_mode():
        logits = net(torch.from_numpy(resize(split.images, card.transform)))[1]
    right = int((logits.numpy().argmax(axis=1) == split.targets).sum())

    assert detail["validation"] == pytest.approx(right / 269)
    assert detail["validation"] > 0.3  # a tenth is guessing
    assert 0 < detail["loss"] < math.log(10)
    assert (detail["epochs"], detail["resumed_at"]) == (1, 0)


def test_training_never_asks_for_the_test_split(
    shop: Workshop, wanted: Callable[..., Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It learns from `train`, and looks at `validation` once, when it is done."""
    asked, real = [], data.load

    def load(card: Any, name: str) -> data.Split:
        asked.append(name)
        return real(card, name)

    def report(_phase: str, detail: str) -> None:
        if detail.startswith("epoch"):
            asked.append("epoch")

    monkeypatch.setattr(data, "load", load)
    shop.make(wanted(task=FEW), report)

    assert asked == ["train", "epoch", "validation"]


def test_layer_decay_holds_the_early_layers_still(
    shop: Workshop, wanted: Callable[..., Target], trained: Artifact, net: model.Model
) -> None:
    """At a tenth a layer the stem stays where it started, while the head moves as ever."""
    held = model.load(shop.make(wanted(recipe={"layer_decay": 0.1})).path)[0]
    free = model.load(trained.path)[0]

    def moved(name: str, after: model.Model) -> float:
        return float((after.state_dict()[name] - net.state_dict()[name]).norm())

    assert moved("backbone.conv1.0.weight", held) < 0.01 * moved("backbone.conv1.0.weight", free)
    assert moved("head.weight", held) > 0.5 * moved("head.weight", free)


@pytest.mark.parametrize(
    "recipe",
    [
        {"auto_augment": "rand-m5-n1"},
        {"color_jitter": 0.4},
        {"cutmix": 1.0},
        {"drop_path": 0.3},
        {"head_init": "xavier-normal"},
        {"interpolation": "bicubic"},
        {"label_smoothing": 0.1},
        {"micro_batch": 8},  # its batch norms see eight images
        {"mixup": 0.8},
        {"optimizer": "sgd"},
        {"random_erasing": 1.0},
        {"warmup_epochs": 1, "warmup_lr": 1e-4},
    ],
    ids=lambda recipe: next(iter(recipe)),
)
def test_every_word_of_the_recipe_reaches_the_training(
    shop: Workshop, wanted: Callable[..., Target], recipe: dict[str, Any]
) -> None:
    """Each trains to a finite loss and another checkpoint."""
    plain, made = shop.make(wanted(task=FEW)), shop.make(wanted(task=FEW, recipe=recipe))

    assert np.isfinite(made.manifest.detail["loss"])
    assert made.sha256 != plain.sha256


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"optimizer": "adamm"}, "timm refuses the recipe: .*adamm"),
        ({"schedule": "sometimes"}, "timm refuses the recipe: .*sometimes"),
        ({"auto_augment": "all-of-it"}, "timm refuses the recipe: .*all"),
        ({"batch": 2000}, "batch 2000 is more than the 1078 training images"),
        ({"mixup": 0.8, "batch": 33}, "pair images, and 33 is odd"),
        ({"cutmix": 1.0, "mixup_batch": 7}, "pair images, and 7 is odd"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_recipe_that_cannot_be_trained_is_a_usage_error(
    shop: Workshop, wanted: Callable[..., Target], recipe: dict[str, Any], message: str
) -> None:
    """The word that timm does not know, or the batch that no epoch fills, is named before any training."""
    with pytest.raises(UsageError, match=message) as caught:
        shop.make(wanted(recipe=recipe))

    assert "[finetune]" in caught.value.hint
    assert finetune.RESUME not in [file.name for file in shop.cache.rglob("*")]


def transformer() -> model.Model:
    """A network without batch norm or dropout."""
    seed_everything(0)
    return model.build(backbone("test_vit_patch8"), classes=10, size=32)


def gradients(images: Tensor, targets: Tensor, how: Recipe, kind: Kind) -> tuple[float, list[Tensor]]:
    """Return loss and gradients of one batch."""
    net = transformer()
    mixing = augment.Mixing(how, kind, 10, net.mean, net.std)
    seed_everything(0)
    mixed = mixing(images, targets)
    loss = finetune._backward(net, *mixed, finetune._criterion(kind, how, mixing), how, PLACE)
    return float(loss), [parameter.grad for parameter in net.parameters()]


@pytest.mark.parametrize("words", [{}, {"mixup": 0.8, "cutmix": 1.0}], ids=["hard", "mixed"])
@pytest.mark.parametrize("kind", [Kind.CLASSIFICATION, Kind.MULTILABEL])
def test_gradients_of_a_batch_in_parts_are_those_of_the_batch(kind: Kind, words: dict[str, float]) -> None:
    """Thirty-two images five at a time, the last two: mixed as a whole, each part counted by its images."""
    images = torch.randint(0, 256, (32, 3, 32, 32), dtype=torch.uint8)
    targets = torch.randint(0, 10, (32,))
    if kind is Kind.MULTILABEL:
        targets = torch.randint(0, 2, (32, 10))

    def at_once(n: int | None) -> tuple[float, list[Tensor]]:
        how = Recipe(epochs=1, lr=1.0, batch=32, micro_batch=n, label_smoothing=0.1, **words)
        return gradients(images, targets, how, kind)

    (whole_loss, whole), (parts_loss, parts) = at_once(None), at_once(5)

    assert parts_loss == pytest.approx(whole_loss, rel=1e-5)
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_frozen_means_frozen_batch_norms_too(net: model.Model, tmp_path: Path) -> None:
    """While the head learns nothing else moves, not the statistics either; unfrozen they all would."""
    before = {name: value.clone() for name, value in net.state_dict().items()}
    finetune.freeze(net.backbone)

    train(net, tmp_path)

    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"head.weight", "head.bias"}
    net.train()
    assert net.head.training
    assert not any(module.training for module in net.backbone.modules())
    free = model.build(backbone("test_resnet"), classes=10, size=32)
    free.load_state_dict(before)
    free.backbone.requires_grad_(requires_grad=False)  # what a probe forgets that only asks for no gradient
    (tmp_path / finetune.RESUME).unlink()
    train(free, tmp_path)
    drifted = {name for name, value in free.state_dict().items() if not torch.equal(value, before[name])}
    assert "backbone.bn1.running_mean" in drifted


def test_the_head_begins_as_the_recipe_says(net: model.Model, tmp_path: Path) -> None:
    """Xavier-normal: a deviation of sqrt(2 / (in + out)) and no bias."""
    still = {"lr": 1e-12, "min_lr": 0.0, "weight_decay": 0.0}

    train(net, tmp_path, head_init="xavier-normal", **still)

    head = net.head.state_dict()
    assert float(head["weight"].std()) == pytest.approx(math.sqrt(2 / (96 + 10)), rel=0.1)
    assert float(head["bias"].abs().max()) < 1e-9


def test_the_warm_up_starts_where_the_recipe_says(net: model.Model) -> None:
    """From `warmup_lr` to `lr` over the warm-up's steps, then down."""
    how = Recipe(epochs=10, lr=1e-3, batch=32, warmup_epochs=5, warmup_lr=1e-4, min_lr=1e-6)
    means = finetune._means(net, Transform(size=32, interpolation="bilinear"), how, steps=4)

    def rate(step: int) -> float:
        means.scheduler.step_update(step)
        return float(means.optimizer.param_groups[0]["lr"])

    assert rate(0) == pytest.approx(1e-4)
    assert rate(10) == pytest.approx((1e-4 + 1e-3) / 2)
    assert rate(20) == pytest.approx(1e-3 * (1 + math.cos(math.pi / 2)) / 2, rel=0.01)
    assert rate(39) < 1e-5


def test_drop_path_is_in_the_network_only_while_it_is_trained() -> None:
    """timm's rate grows to the last block; without it there is none."""

    def rates(net: model.Model) -> list[float]:
        return [m.drop_prob for m in net.modules() if type(m).__name__ == "DropPath"]

    entry = backbone("test_vit_patch8")
    assert max(rates(model.build(entry, classes=10, size=32, drop_path=0.2))) == pytest.approx(0.2)
    assert rates(model.build(entry, classes=10, size=32)) == []


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_in_bfloat16_with_a_process_that_decodes_it_is_the_same_training(tmp_path: Path) -> None:
    """As on a GPU: parameters stay in float32, only roundings differ; the process changes no bit."""
    told, nets = [], []
    for number, place in enumerate(
        [PLACE, PLACE._replace(workers=1), Place(PLACE.device, bf16=True, workers=1)]
    ):
        nets.append(transformer())
        (tmp_path / str(number)).mkdir()
        chance = {"mixup": 0.8, "random_erasing": 0.5}
        told.append(train(nets[-1], tmp_path / str(number), place=place, epochs=4, lr=1e-3, **chance))
    alone, helped, half = [net.state_dict() for net in nets]

    assert all(torch.equal(value, helped[name]) for name, value in alone.items())
    assert {value.dtype for value in half.values()} == {torch.float32}
    assert [row["arithmetic"] for row in told] == ["fp32", "fp32", "bf16"]
    assert told[2]["loss"] != told[0]["loss"]
    assert told[2]["loss"] == pytest.approx(told[0]["loss"], rel=0.05)


def test_the_study_s_recipe_trains_on_fewer_images_than_its_batch(tmp_path: Path) -> None:
    """All of `bob2023` at once, on a hundred images: one step of 1,024, eight times 128."""
    how = msgspec.structs.replace(RECIPES.get("bob2023"), epochs=1)
    seed_everything(0)
    net = model.build(backbone("test_resnet"), classes=10, size=32, drop_path=how.drop_path)
    before = net.head.weight.detach().clone()

    told = train(net, tmp_path, **msgspec.structs.asdict(how))

    assert 0 < told["loss"] < 2 * math.log(10)
    assert not torch.equal(net.head.weight, before)


def several(name: str, real: Callable[..., Split]) -> Split:
    """The digits with three labels each: odd, above four, with a closed loop."""
    found = real(TASKS.get("digits"), name)
    digit = found.targets
    labels = np.stack([digit % 2, digit > 4, np.isin(digit, [0, 6, 8, 9])], axis=1)
    return found._replace(targets=labels.astype(np.int64))


def test_several_labels_are_learned_each_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets `[n, labels]`: binary cross entropy falls below chance's ln 2, and the mean AUROC rises."""
    real = data.load
    monkeypatch.setattr(data, "load", lambda _card, name: several(name, real))
    card = TaskCard(
        name="loops",
        kind=Kind.MULTILABEL,
        data="digits",
        labels=["odd", "large", "loop"],
        metric="auroc",
        random_score=0.5,
        licence="",
        source="",
    )
    seed_everything(0)
    net = model.build(backbone("test_resnet"), classes=3, size=32)

    told = train(net, tmp_path, card)

    assert told["loss"] < math.log(2) - 0.05
    assert told["validation"] > 0.7


def test_started_several_times_over_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes would train the same thing twice; alone under torchrun it is as ever."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UsageError, match="WORLD_SIZE is 2") as caught:
        here()
    assert "--nproc-per-node 1" in caught.value.hint

    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(UsageError, match="outside its world: RANK=1, WORLD_SIZE=1"):
        here()
    monkeypatch.setenv("RANK", "zero")
    with pytest.raises(UsageError, match="no number: RANK=zero"):
        here()
    monkeypatch.setenv("RANK", "0")
    assert here().workers == (torch.cuda.is_available() and here().workers)


class Crowded(torch.nn.Module):  # type: ignore[misc]  # torch is too heavy to check ours against
    """Stands for a network on a GPU that holds eight images."""

    def __init__(self, net: model.Model) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if len(images) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        answers: tuple[Tensor, ...] = self.net(images)
        return answers


def test_a_batch_that_does_not_fit_says_what_to_lower(net: model.Model) -> None:
    """The hint is right: with `micro_batch = 8` it fits."""
    images, labels = torch.zeros(32, 32, 32, 3, dtype=torch.uint8), torch.zeros(32, dtype=torch.int64)
    whole = Recipe(epochs=1, lr=1.0, batch=32)

    def step(how: Recipe) -> Tensor:
        return finetune._backward(Crowded(net), images, labels, torch.nn.functional.cross_entropy, how, PLACE)

    with pytest.raises(MachineError, match="32 images at a time") as caught:
        step(whole)

    assert "micro_batch" in caught.value.hint
    assert step(Recipe(epochs=1, lr=1.0, batch=32, micro_batch=8)).isfinite()
