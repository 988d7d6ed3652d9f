"""What is wrong with a published set of labelled images is named by file and line, with a hint."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, NamedTuple

import miniatures
import numpy as np
import pytest
from scipy.io import savemat

from bobrt.data import formats
from bobrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Damage(NamedTuple):
    """What is done to one file of a miniature, and what is then said."""

    format: str
    file: str
    harm: Callable[[Path], object]
    said: str


def gone(path: Path) -> None:
    """Take a file away."""
    path.unlink()


def short(path: Path) -> None:
    """Cut a file off in its middle."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def line(number: int, text: str) -> Callable[[Path], None]:
    """Write another line in place of one."""

    def harm(path: Path) -> None:
        lines = path.read_text().splitlines()
        lines[number - 1] = text
        miniatures.listed(path, lines)

    return harm


def noise(path: Path) -> None:
    """Write a file of something else."""
    path.write_bytes(b"\x00\x01 not what it says \xff" * 9)


def holds(content: object) -> Callable[[Path], object]:
    """Pickle something else."""
    return lambda path: path.write_bytes(pickle.dumps(content, protocol=2))


def matrix(**variables: object) -> Callable[[Path], None]:
    """Write other MATLAB variables."""
    return lambda path: savemat(path, variables)


def changed(edit: Callable[[dict[str, list[dict[str, object]]]], object]) -> Callable[[Path], None]:
    """Change annotations."""

    def harm(path: Path) -> None:
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    return harm


BATCH = "cifar-10-batches-py/data_batch_2"
PIXELS = np.zeros((2, 3072), np.uint8)
AIRCRAFT = "fgvc-aircraft-2013b/data/"
TEST_OF_PETS = "oxford-iiit-pet/annotations/test.txt"
DEVKIT = "ILSVRC2012_devkit_t12/data/"

DAMAGES = [
    Damage("cifar10", BATCH, gone, "data_batch_2"),
    Damage("cifar10", BATCH, short, "data_batch_2"),
    Damage("cifar10", BATCH, noise, "data_batch_2"),
    Damage("cifar10", BATCH, holds([1, 2]), "data_batch_2 is no batch of CIFAR: it holds a list"),
    Damage("cifar10", BATCH, holds({"labels": [0]}), "data_batch_2 has no 'data' of uint8 [n, 3072]"),
    Damage(
        "cifar10", BATCH, holds({"data": PIXELS, "labels": [0]}), "data_batch_2 has no 'labels' for its 2"
    ),
    Damage(
        "cifar10", BATCH, holds({"data": PIXELS, "labels": [0, 3]}), "data_batch_2, image 1: class 3 is not"
    ),
    Damage("cifar10", "cifar-10-batches-py/batches.meta", holds({}), "batches.meta has no 'label_names'"),
    Damage("cifar100", "cifar-100-python/meta", holds({"label_names": ["a"]}), "has no 'fine_label_names'"),
    Damage("flowers102", "flowers-102/setid.mat", gone, "setid.mat does not exist"),
    Damage("flowers102", "flowers-102/setid.mat", noise, "setid.mat is no MATLAB file"),
    Damage("flowers102", "flowers-102/setid.mat", short, "setid.mat"),
    Damage("flowers102", "flowers-102/setid.mat", matrix(trnid=[1]), "setid.mat has no variable 'valid'"),
    Damage(
        "flowers102",
        "flowers-102/setid.mat",
        matrix(trnid=[10]),
        "setid.mat, trnid 1: image 10 is not one of",
    ),
    Damage("flowers102", "flowers-102/setid.mat", matrix(trnid=[1.5]), "'trnid' is float64, not whole"),
    Damage("flowers102", "flowers-102/imagelabels.mat", matrix(labels=[1, 103]), "image 2: class 103 is not"),
    Damage("flowers102", "flowers-102/jpg/image_00002.jpg", gone, "setid.mat, trnid 2: the image"),
    Damage("aircraft", AIRCRAFT + "variants.txt", gone, "variants.txt does not exist"),
    Damage("aircraft", AIRCRAFT + "images_variant_val.txt", gone, "images_variant_val.txt does not exist"),
    Damage(
        "aircraft", AIRCRAFT + "images_variant_train.txt", line(2, "0034958"), "train.txt, line 2: '0034958'"
    ),
    Damage(
        "aircraft",
        AIRCRAFT + "images_variant_train.txt",
        line(2, "1 MiG"),
        "train.txt, line 2: variant 'MiG'",
    ),
    Damage(
        "aircraft", AIRCRAFT + "images_variant_test.txt", line(1, "1 F/A-18"), "test.txt, line 1: the image"
    ),
    Damage("aircraft", AIRCRAFT + "images/0037511.jpg", noise, "0037511.jpg"),
    Damage("pets", TEST_OF_PETS, gone, "test.txt does not exist"),
    Damage("pets", TEST_OF_PETS, line(3, "Abyssinian_5 1"), "test.txt, line 3: 'Abyssinian_5 1' is not"),
    Damage("pets", TEST_OF_PETS, line(3, "Abyssinian_5 38 1 1"), "test.txt, line 3: class 38 is not"),
    Damage("pets", TEST_OF_PETS, line(3, "Sphynx_5 1 1 1"), "line 3: class 1 is Sphynx and Abyssinian"),
    Damage("pets", TEST_OF_PETS, line(3, "Sphynx_5 5 1 1"), "annotations: no image is of class 4"),
    Damage("pets", TEST_OF_PETS, line(3, "Abyssinian_9 1 1 1"), "test.txt, line 3: the image"),
    Damage("dtd", "dtd/labels/val1.txt", gone, "val1.txt does not exist"),
    Damage(
        "dtd", "dtd/labels/val1.txt", line(2, "banded_0003.jpg"), "val1.txt, line 2: 'banded_0003.jpg' is not"
    ),
    Damage(
        "dtd", "dtd/labels/val1.txt", line(2, "../labels/val1.txt"), "val1.txt, line 2: '../labels/val1.txt'"
    ),
    Damage(
        "dtd", "dtd/labels/val1.txt", line(2, "../val1.txt"), "val1.txt, line 2: the image images/../val1.txt"
    ),
    Damage("dtd", "dtd/images/banded/banded_0004.jpg", gone, "test1.txt, line 2: the image"),
    Damage("food101", "food-101/meta/classes.txt", gone, "classes.txt does not exist"),
    Damage(
        "food101", "food-101/meta/train.txt", line(1, "pho/1"), "train.txt, line 1: class 'pho' is not in"
    ),
    Damage("food101", "food-101/meta/test.txt", line(1, "waffles/106"), "test.txt, line 3: the image"),
    Damage("food101", "food-101/meta/test.txt", line(1, "waffles/x"), "test.txt, line 1: 'waffles/x' is not"),
    Damage("inat2019", "val2019.json", gone, "val2019.json does not exist"),
    Damage("inat2019", "val2019.json", short, "val2019.json is damaged"),
    Damage(
        "inat2019", "val2019.json", changed(lambda all_: all_.pop("categories")), "'categories' is missing"
    ),
    Damage(
        "inat2019", "val2019.json", changed(lambda all_: all_["categories"].pop(0)), "there is no category 2"
    ),
    Damage(
        "inat2019", "val2019.json", changed(lambda all_: all_["annotations"].pop()), "it has no annotation"
    ),
    Damage(
        "inat2019", "val2019.json", changed(lambda all_: all_["images"].pop()), "annotated and not listed"
    ),
    Damage(
        "inat2019",
        "val2019.json",
        changed(lambda all_: all_["annotations"].append(all_["annotations"][0])),
        "val2019.json, image 100: it is annotated twice",
    ),
    Damage(
        "inat2019",
        "val2019.json",
        changed(lambda all_: all_["categories"][0].update(name="other")),
        "val2019.json has other categories than",
    ),
    Damage(
        "inat2019", "val2019.json", changed(lambda all_: all_["categories"][0].update(id=9)), "not numbered"
    ),
    Damage("inat2019", "train_val2019/Plants/1/61.jpg", gone, "val2019.json, image 103: the image"),
    Damage("chexpert", "CheXpert-v1.0-small/valid.csv", gone, "valid.csv does not exist"),
    Damage(
        "chexpert", "CheXpert-v1.0-small/valid.csv", line(1, "Path,Edema"), "valid.csv, line 1: there is no"
    ),
    Damage(
        "chexpert", "CheXpert-v1.0-small/train.csv", line(3, "a/b/c/d,F"), "train.csv, line 3: 2 cells, not"
    ),
    Damage(
        "chexpert", "CheXpert-v1.0-small/train.csv", line(3, "b,F,1,Frontal,,,,,,,"), "line 3: 'b' is not"
    ),
    Damage(
        "chexpert",
        "CheXpert-v1.0-small/train.csv",
        line(3, "a/b/c/d,F,1,Top,,,,,,,"),
        "line 3: the view 'Top'",
    ),
    Damage(
        "chexpert",
        "CheXpert-v1.0-small/train.csv",
        line(3, "a/b/c/d,F,1,Frontal,,,,2.0,,,"),
        "train.csv, line 3: Edema is '2.0'",
    ),
    Damage(
        "chexpert",
        "CheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg",
        gone,
        "train.csv, line 3: the image",
    ),
    Damage("imagenet1k", DEVKIT + "meta.mat", noise, "meta.mat is no MATLAB file"),
    Damage(
        "imagenet1k", DEVKIT + "meta.mat", matrix(synsets=[1]), "the synsets have no ILSVRC2012_ID and WNID"
    ),
    Damage(
        "imagenet1k",
        DEVKIT + "ILSVRC2012_validation_ground_truth.txt",
        gone,
        "ground_truth.txt does not exist",
    ),
    Damage(
        "imagenet1k",
        DEVKIT + "ILSVRC2012_validation_ground_truth.txt",
        line(2, "4"),
        "line 2: class 4, n00001740",
    ),
    Damage(
        "imagenet1k", DEVKIT + "ILSVRC2012_validation_ground_truth.txt", line(2, "?"), "line 2: '?' is not"
    ),
    Damage("imagenet1k", "val/ILSVRC2012_val_00000004.JPEG", gone, "ground_truth.txt, line 4: the image"),
    Damage("visda", "train/image_list.txt", gone, "image_list.txt does not exist"),
    Damage(
        "visda",
        "train/image_list.txt",
        line(2, "aeroplane/1.png"),
        "image_list.txt, line 2: 'aeroplane/1.png'",
    ),
    Damage("visda", "train/image_list.txt", line(2, "aeroplane/1.png 1"), "class 1 is bus and aeroplane"),
    Damage("visda-real", "validation/image_list.txt", line(4, "bus/1.jpg 2"), "not one number from 0 on"),
    Damage("visda-real", "validation/bus/1.jpg", gone, "image_list.txt, line 4: the image"),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: f"{damage.format}: {damage.said}")
def test_damage_is_named(damage: Damage, tmp_path: Path) -> None:
    """The file, and the line where it has lines; never a traceback of what stumbled over it."""
    write(damage.format, tmp_path)
    damage.harm(tmp_path / damage.file)
    with pytest.raises(UsageError) as caught:
        formats.read(damage.format, tmp_path)
    assert damage.said in caught.value.message
    assert "\n" not in caught.value.message


def write(name: str, root: Path) -> None:
    """Write a miniature; ImageNet's with its validation images flat."""
    getattr(miniatures, name.removesuffix("-real"))(root)
    if name == "imagenet1k":
        miniatures.devkit(root)
        for path in list((root / "val").glob("*/*")):
            path.rename(root / "val" / path.name)
        for folder in list((root / "val").glob("n*")):
            folder.rmdir()
