"""ObjectNet's own mappings say which classes of ImageNet are right, and its red frame is cut off."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import miniatures
import numpy as np
import pytest
from PIL import Image

from bobrt.data import formats
from bobrt.data.formats.imagenet_shift import wnids
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_several_classes_may_be_right(tmp_path: Path) -> None:
    """A chair is a barber chair and a folding chair; what ImageNet has not is left out."""
    miniatures.objectnet(tmp_path)
    found = formats.read("objectnet", tmp_path)
    chairs = [wnids()[423], wnids()[559]]
    assert found.classes == sorted([*chairs, wnids()[954]])
    test = found.splits["test"]
    assert test.ids == ["images/banana/0.png", "images/chair/0.png", "images/chair/1.png"]
    right = [{found.classes[column] for column in np.flatnonzero(row)} for row in test.targets]
    assert right == [{wnids()[954]}, {*chairs}, {*chairs}]


def test_the_frame_is_cut_off(tmp_path: Path) -> None:
    """Two pixels of each side: a network could know the data set by its red."""
    miniatures.objectnet(tmp_path)
    framed = np.full((10, 12, 3), (255, 0, 0), dtype=np.uint8)
    framed[2:-2, 2:-2] = 7
    Image.fromarray(framed).save(tmp_path / "objectnet-1.0" / "images" / "banana" / "0.png")
    image = formats.read("objectnet", tmp_path).splits["test"].images[0]
    assert image.shape == (6, 8, 3)
    assert (image == 7).all()


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("folder_to_objectnet_label.json", None, "folder_to_objectnet_label.json does not exist"),
        ("folder_to_objectnet_label.json", {}, "'Chair' has no folder in folder_to_objectnet_label.json"),
        (
            "folder_to_objectnet_label.json",
            {"sofa": "Chair", "banana": "Banana"},
            "images/sofa has no images",
        ),
        (
            "objectnet_to_imagenet_1k.json",
            {"Chair": ["folding chair"]},
            "objectnet_to_imagenet_1k.json is damaged",
        ),
        (
            "objectnet_to_imagenet_1k.json",
            {"Chair": "stool"},
            "'stool' of 'Chair' is not in imagenet_to_label",
        ),
        ("objectnet_to_imagenet_1k.json", {"Chair": "crane"}, "'crane' of 'Chair' is more than once in"),
        ("objectnet_to_imagenet_1k.json", {}, "objectnet_to_imagenet_1k.json has no classes"),
        ("pytorch_to_imagenet_2012_id.json", {"1000": 0}, "'1000' is no class of ImageNet-1k"),
    ],
)
def test_a_wrong_mapping_is_named(tmp_path: Path, file: str, content: object, said: str) -> None:
    """Nothing is guessed."""
    miniatures.objectnet(tmp_path)
    path = tmp_path / "objectnet-1.0" / "mappings" / file
    path.unlink()
    if content is not None:
        path.write_text(json.dumps(content))
    with pytest.raises(UsageError) as caught:
        formats.read("objectnet", tmp_path)
    assert said in caught.value.message


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    """The size of each is read when they are listed, and no pixel."""
    miniatures.objectnet(tmp_path)
    (tmp_path / "objectnet-1.0" / "images" / "chair" / "1.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"cannot read the image .*chair/1.png"):
        formats.read("objectnet", tmp_path)
