"""Tasks answered in pixels fit the protocol: several outputs an image, boxes, masks, maps of several scales.

No card of the catalogue is of these kinds yet. What is proven here is that a head on a pyramid goes through
the exporter, a runtime and the kept passes as any other, and that `Task` can score it in the images' pixels.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import interpolate

from bench.passes import Passes
from bobrt import data
from bobrt.catalogue import TASKS, backbone
from bobrt.data import Split, packed
from bobrt.data.images import Files
from bobrt.data.resize import geometry, resize, resize_masks
from bobrt.errors import UsageError
from bobrt.spec import FileCard, Kind, Precision, Protocol, Transform
from bobrt.tasks import Score, base
from engines import export
from engines.ort_cpu import OrtCpuRunner
from engines.torch_eager import Served
from train import model
from train.seeding import seed_everything

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bobrt.spec import TaskCard

SIDE = 64
TRANSFORM = Transform(size=SIDE, crop_pct=0.875, interpolation="bilinear")
CLASSES, BOXES = 3, 5
"""What a dense head tells apart, and how many boxes it answers to every image."""


class Head(nn.Module):
    """Masks from three scales, and the boxes of the cells with the highest scores."""

    outputs = ("masks", "boxes", "scores")

    def __init__(self, widths: Sequence[int], levels: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = levels
        self.laterals = nn.ModuleList(nn.Conv2d(width, 8, 1) for width in widths)
        self.classes = nn.Conv2d(8, CLASSES, 1)
        self.sides = nn.Conv2d(8, 4, 1)

    def forward(self, _features: torch.Tensor, levels: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        finest = levels[0].shape[-2:]
        found = [lateral(level) for lateral, level in zip(self.laterals, levels, strict=True)]
        x = sum(interpolate(one, size=finest, mode="bilinear") for one in found)
        logits = self.classes(x)
        masks = interpolate(logits, size=(SIDE, SIDE), mode="bilinear").softmax(1)
        scores, cells = logits.amax(1).flatten(1).topk(BOXES)
        sides = self.sides(x).flatten(2).sigmoid() * SIDE
        boxes = sides.gather(2, cells[:, None].expand(-1, 4, -1)).transpose(1, 2)
        return masks, boxes, scores


class Segmentation:
    """Mean intersection over union of the classes, in the engine's pixels."""

    def __init__(self, card: TaskCard, transform: Transform) -> None:
        self.card, self._transform = card, transform

    def decode(self, outputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.int64]:
        return outputs["masks"].argmax(axis=1)

    def score(self, answers: Sequence[Any], split: Split) -> Score:
        wanted = resize_masks(split.targets[: len(answers)], self._transform)
        found = np.asarray(answers)
        both = [
            ((found == c) & (wanted == c)).sum() / ((found == c) | (wanted == c)).sum()
            for c in range(CLASSES)
        ]
        return Score(float(np.mean(both)), len(answers), (0.0, 1.0))

    def agreement(
        self, got: Mapping[str, NDArray[np.float32]], want: Mapping[str, NDArray[np.float32]]
    ) -> float:
        return float((self.decode(got) == self.decode(want)).mean())


class Detection:
    """The share of boxes that the best answered one overlaps by half, in pixels of each image."""

    def __init__(self, card: TaskCard, transform: Transform) -> None:
        self.card, self._transform = card, transform

    def decode(self, outputs: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        return list(np.concatenate([outputs["boxes"], outputs["scores"][..., None]], axis=2))

    def score(self, answers: Sequence[Any], split: Split) -> Score:
        found = 0
        for answer, boxes, shape in zip(answers, split.targets, split.shapes(), strict=False):
            corners = geometry(*shape, self._transform).to_image(answer[:, :4].reshape(-1, 2, 2))
            found += sum(max(overlap(box[:4], one.ravel()) for one in corners) >= 0.5 for box in boxes)
        return Score(found / sum(len(boxes) for boxes in split.targets), len(answers), (0.0, 1.0))

    def agreement(
        self, got: Mapping[str, NDArray[np.float32]], want: Mapping[str, NDArray[np.float32]]
    ) -> float:
        return float(
            np.mean(
                [np.allclose(a, b, atol=1e-2) for a, b in zip(*map(self.decode, (got, want)), strict=True)]
            )
        )


def overlap(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return the intersection over union of two boxes."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    inside = float(np.prod(np.maximum(high - low, 0)))
    return inside / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inside)


def dense(name: str) -> model.Model:
    """Return a backbone with a dense head on three of its levels."""
    seed_everything(0)
    net = model.build(backbone(name), classes=0, size=SIDE)
    trunk = net.backbone
    with torch.no_grad():
        maps = trunk.forward_intermediates(torch.zeros(1, 3, SIDE, SIDE), intermediates_only=True)
    levels = tuple(range(len(maps)))[-3:]
    net.head = Head([maps[level].shape[1] for level in levels], levels)
    return net.eval()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Files of two shapes, one on its side by its EXIF, with a bright square whose place is the target."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    paths, masks = [], []
    for number, (height, width) in enumerate([(80, 120), (100, 70)] * 4):
        mask = np.zeros((height, width), np.uint8)
        top, left = rng.integers(20, 40, 2)
        mask[top : top + 30, left : left + 30] = 1 + number % 2
        pixels = rng.integers(0, 60, (height, width, 3), np.uint8) + 90 * mask[..., None]
        paths.append(folder / f"{number}.png")
        stored, exif = Image.fromarray(pixels), Image.Exif()
        if number == 2:
            stored = stored.transpose(Image.Transpose.ROTATE_90)
            exif[0x0112] = 6  # turned back by whoever shows it
        stored.save(paths[-1], exif=exif)
        masks.append(mask)
    return Split([path.name for path in paths], Files(paths), data.each(masks))


@pytest.fixture(scope="module", params=["test_resnet", "test_vit_patch8", "test_convnext2"])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[model.Model, Path]:
    """A dense network, and the ONNX file that `export` makes of it."""
    net = dense(request.param)
    card = FileCard(
        bobrt="0",
        backbone=backbone(request.param),
        weights="random",
        task="",
        protocol=Protocol.FINETUNE,
        seed=0,
        labels=[],
        transform=TRANSFORM,
    )
    path = tmp_path_factory.mktemp("dense") / "model.onnx"
    export.export(net, card, path)
    return net, path


CARD = msgspec.structs.replace(TASKS.get("digits"), kind=Kind.CLASSIFICATION)
TASK: list[type[base.Task]] = [Segmentation, Detection]


def test_a_head_on_several_scales_is_exported_and_proven(
    engine: tuple[model.Model, Path], photographs: Split
) -> None:
    """Four outputs of different rank, each like PyTorch's; the trunk is walked through once for all."""
    net, path = engine
    images = resize(photographs.images, TRANSFORM)
    assert set(export.prove(net, path, images)) == {"features", "masks", "boxes", "scores"}
    with OrtCpuRunner(path, 1) as runner:
        shapes = {name: value.shape for name, value in runner.infer({"images": images}).items()}
    assert shapes["masks"] == (8, CLASSES, SIDE, SIDE)
    assert (shapes["boxes"], shapes["scores"]) == ((8, BOXES, 4), (8, BOXES))


def test_the_pooled_feature_is_the_one_without_the_head(
    engine: tuple[model.Model, Path], photographs: Split
) -> None:
    """Asking for maps besides changes nothing that is shared: retrieval and outliers still work on it."""
    net, _ = engine
    images = torch.from_numpy(resize(photographs.images, TRANSFORM))
    with torch.inference_mode():
        with_head = net(images)[0]
        plain = model.Model(net.backbone, None, (0.0,) * 3, (1.0,) * 3)
        plain.mean, plain.std = net.mean, net.std
        torch.testing.assert_close(plain(images)[0], with_head)


@pytest.mark.parametrize("kind", TASK)
def test_a_task_scores_what_an_engine_answers_in_pixels(
    engine: tuple[model.Model, Path], photographs: Split, tmp_path: Path, kind: type[base.Task]
) -> None:
    """From files through the kept passes: the engine's score is that of PyTorch, asked once."""
    net, path = engine
    task = kind(CARD, TRANSFORM)  # type: ignore[call-arg]
    with torch.inference_mode():
        outputs = net(torch.from_numpy(resize(photographs.images, TRANSFORM)))
    want = {name: out.numpy() for name, out in zip(net.outputs, outputs, strict=True)}
    with OrtCpuRunner(path, 1) as runner:
        passes = Passes(runner, TRANSFORM, {"file": "dense"}, 1, tmp_path, batch=3)
        first = passes.over(photographs, "photographs")
        kept = passes.over(photographs, "photographs")
    assert kept.images_per_s is None
    boxes = targets(photographs)
    split = photographs if kind is Segmentation else photographs._replace(targets=boxes)
    scores = [task.score(task.decode(found), split).value for found in (want, first.outputs, kept.outputs)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    assert scores[1] == scores[2]
    assert task.agreement(first.outputs, want) > 0.99


def targets(split: Split) -> NDArray[Any]:
    """Return the box around each mask, as a detection data set lists it."""
    boxes = []
    for mask in split.targets:
        rows, columns = np.nonzero(mask)
        sides = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        boxes.append(np.array([[*sides, mask.max()]], np.float32))
    return data.each(boxes)


def test_the_right_answers_score_one(photographs: Split) -> None:
    """Answers made of the targets, in the engine's pixels, are all right; shifted ones are not."""
    masks = np.eye(CLASSES, dtype=np.float32)[resize_masks(photographs.targets, TRANSFORM)].transpose(
        0, 3, 1, 2
    )
    segmentation, detection = Segmentation(CARD, TRANSFORM), Detection(CARD, TRANSFORM)
    assert segmentation.score(segmentation.decode({"masks": masks}), photographs).value == 1.0
    shifted = np.roll(masks, 12, axis=3)
    assert segmentation.score(segmentation.decode({"masks": shifted}), photographs).value < 0.7

    split = photographs._replace(targets=targets(photographs))
    inputs = [
        geometry(*shape, TRANSFORM).to_input(boxes[:, :4].reshape(-1, 2, 2)).reshape(-1, 4)
        for shape, boxes in zip(split.shapes(), split.targets, strict=True)
    ]
    boxes = np.stack(inputs).astype(np.float32)
    scores = np.ones((8, 1), np.float32)
    assert detection.score(detection.decode({"boxes": boxes, "scores": scores}), split).value == 1.0
    assert detection.score(detection.decode({"boxes": boxes + 25, "scores": scores}), split).value == 0.0


def test_a_dense_engine_goes_to_sixteen_bits(engine: tuple[model.Model, Path], photographs: Split) -> None:
    """The PyTorch runner casts the maps of every scale, not only the last."""
    net, _ = engine
    half = Served(copy.deepcopy(net), Precision.BF16)
    images = torch.from_numpy(resize(photographs.images, TRANSFORM))
    with torch.inference_mode():
        got, want = half(images), net(images)
    assert all(torch.isfinite(one).all() for one in got)
    assert 0 < float((got[1] - want[1]).abs().mean()) < 0.05


def test_targets_of_one_shape_stay_one_array_for_each_image() -> None:
    """numpy would make one block of them, and a row of that is no target."""
    found = data.each([np.zeros((4, 4), np.uint8)] * 3)
    assert (found.shape, found.dtype) == ((3,), object)
    split = Split(["a", "b", "c"], [np.zeros((4, 4, 3), np.uint8)] * 3, found)
    assert split.some([2, 0]).targets.shape == split.head(2).targets.shape == (2,)


def test_masks_are_part_of_what_a_card_pins(photographs: Split) -> None:
    """One other pixel is another data set."""
    before = data.digest_of({"test": photographs})
    masks = [mask.copy() for mask in photographs.targets]
    masks[3][0, 0] ^= 1
    assert data.digest_of({"test": photographs._replace(targets=data.each(masks))}) != before
    assert data.digest_of({"test": photographs}) == before


def test_masks_are_not_packed(photographs: Split) -> None:
    """A bundle would need a place for them; said before anything is written."""
    with pytest.raises(UsageError, match="boxes and masks cannot be packed"):
        packed.pack(photographs)
