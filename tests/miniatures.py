"""A few images in the true on-disk layout of published data sets, as their archives leave it."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import numpy as np
from photographs import photograph
from scipy.io import savemat

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

WNIDS = ["n01440764", "n01443537", "n01484850"]
"""The first three classes of ImageNet-1k."""


def listed(path: Path, lines: Iterable[str]) -> None:
    """Write a list, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def cifar10(root: Path) -> None:
    """Six images of three classes in each batch, with keys as Python 2 wrote them."""
    base = root / "cifar-10-batches-py"
    names = ["airplane", "automobile", "bird"]
    for seed, batch in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]):
        _pickled(base / batch, _batch(seed, "labels"))
    _pickled(base / "batches.meta", {"label_names": names, "num_vis": 3072})


def cifar100(root: Path) -> None:
    """Six images of three fine classes in each file."""
    base = root / "cifar-100-python"
    for seed, batch in enumerate(["train", "test"]):
        _pickled(base / batch, {**_batch(seed, "fine_labels"), "coarse_labels": [0, 1] * 3})
    _pickled(base / "meta", {"fine_label_names": ["apple", "baby", "bear"], "coarse_label_names": ["a", "b"]})


def _batch(seed: int, key: str) -> dict[str, object]:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 3072), dtype=np.uint8)
    return {"data": pixels, key: [2, 0, 1, 1, 0, 2], "filenames": [f"{row}.png" for row in range(6)]}


def _pickled(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x80\x02" + _as_python_2(content) + b".")


def _as_python_2(value: object) -> bytes:
    """Return the opcodes by which Python 2 and its numpy pickled a value; a later Python writes others."""
    if value is None or value is False:
        return b"N" if value is None else b"\x89"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, str | bytes):
        raw = value if isinstance(value, bytes) else value.encode("latin-1")
        return b"T" + struct.pack("<i", len(raw)) + raw
    if isinstance(value, np.ndarray):
        return _array_as_python_2(value)
    if isinstance(value, dict):
        return b"}(" + b"".join(_as_python_2(one) for pair in value.items() for one in pair) + b"u"
    start, end = (b"](", b"e") if isinstance(value, list) else (b"(", b"t")
    return start + b"".join(_as_python_2(one) for one in value) + end


def _array_as_python_2(value: np.ndarray) -> bytes:
    kind = b"cnumpy\ndtype\n" + _as_python_2(("u1", 0, 1)) + b"R"
    kind += _as_python_2((3, "|", None, None, None, -1, -1, 0)) + b"b"
    empty = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _as_python_2((0,)) + _as_python_2("b")
    )
    filled = [
        _as_python_2(1),
        _as_python_2(value.shape),
        kind,
        _as_python_2(False),
        _as_python_2(value.tobytes()),
    ]
    return empty + b"tR(" + b"".join(filled) + b"tb"


def flowers102(root: Path) -> None:
    """Nine images; the splits list them out of order, as the real ones do."""
    base = root / "flowers-102"
    for number in range(1, 10):
        photograph(base / "jpg" / f"image_{number:05}.jpg", number)
    savemat(base / "imagelabels.mat", {"labels": np.array([[77, 1, 102, 77, 1, 102, 77, 1, 102]], np.uint8)})
    splits = {"trnid": [[6, 2, 4]], "valid": [[1, 3]], "tstid": [[9, 5, 8, 7]]}
    savemat(base / "setid.mat", {name: np.array(ids, np.uint16) for name, ids in splits.items()})


def aircraft(root: Path) -> None:
    """Two variants, one with a stroke and a blank in its name; pictures high enough for a banner."""
    base = root / "fgvc-aircraft-2013b" / "data"
    listed(base / "variants.txt", ["707-320", "F-16A/B", "F/A-18"])
    splits = {"train": ["0034309 F/A-18", "0034958 707-320"], "val": ["0037511 F-16A/B"]}
    for split, lines in {**splits, "test": ["0037512 707-320", "0038598 F/A-18"]}.items():
        listed(base / f"images_variant_{split}.txt", lines)
        for line in lines:
            photograph(base / "images" / f"{line.split()[0]}.jpg", size=(8, 26))


def eurosat(root: Path) -> None:
    """Ten images of each of two classes; 10 comes before 2 by name."""
    for name in ("River", "Forest"):
        for number in range(1, 11):
            photograph(root / "eurosat" / "2750" / name / f"{name}_{number}.jpg", 10 * number)


def pets(root: Path) -> None:
    """Three breeds whose numbers are not in the order of their lines."""
    base = root / "oxford-iiit-pet"
    breeds = {"yorkshire_terrier": 3, "Abyssinian": 1, "american_bulldog": 2}
    for split, numbers in {"trainval": range(1, 5), "test": range(5, 7)}.items():
        images = {f"{breed}_{number}": label for breed, label in breeds.items() for number in numbers}
        listed(
            base / "annotations" / f"{split}.txt", [f"{name} {label} 1 1" for name, label in images.items()]
        )
        for name in images:
            photograph(base / "images" / f"{name}.jpg")


def dtd(root: Path) -> None:
    """Two textures; the second way to split is another one."""
    base = root / "dtd"
    for number, (split, images) in enumerate({"train": [1, 2], "val": [3], "test": [4, 5]}.items()):
        names = [f"{name}/{name}_{image:04}.jpg" for image in images for name in ("zigzagged", "banded")]
        listed(base / "labels" / f"{split}1.txt", names)
        listed(base / "labels" / f"{split}2.txt", names[number:])
        for name in names:
            photograph(base / "images" / name)


def food101(root: Path) -> None:
    """Two dishes, six training and two test images each; the lists are there as text and as JSON."""
    base = root / "food-101"
    listed(base / "meta" / "classes.txt", ["apple_pie", "waffles"])
    for split, numbers in {"train": range(100, 106), "test": range(106, 108)}.items():
        names = {dish: [f"{dish}/{number}" for number in numbers] for dish in ("apple_pie", "waffles")}
        (base / "meta" / f"{split}.json").write_text(json.dumps(names))
        listed(base / "meta" / f"{split}.txt", [name for some in names.values() for name in some])
        for name in (name for some in names.values() for name in some):
            photograph(base / "images" / f"{name}.jpg")


def inat2019(root: Path) -> None:
    """Three species of two kinds, numbered across them."""
    species = {0: "Birds/0", 1: "Plants/1", 2: "Birds/2"}
    categories = [{"id": number, "name": f"species {number}"} for number in (2, 0, 1)]
    for split, numbers in {"train": range(5), "val": range(5, 7)}.items():
        images = {
            f"train_val2019/{folder}/{n}{key}.jpg": key for key, folder in species.items() for n in numbers
        }
        _annotations(root, root / f"{split}2019.json", images, categories)


def inat2021(root: Path) -> None:
    """Two species, in folders that spell out where they belong."""
    folders = [
        "00000_Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae_Lumbricus_terrestris",
        "00001_Plantae_Tracheophyta_Magnoliopsida_Asterales_Asteraceae_Bellis_perennis",
    ]
    categories = [{"id": 0, "name": "Lumbricus terrestris"}, {"id": 1, "name": "Bellis perennis"}]
    for split, numbers in {"train": range(4), "val": range(2)}.items():
        images = {f"{split}/{folder}/{n}.jpg": key for key, folder in enumerate(folders) for n in numbers}
        _annotations(root, root / f"{split}.json", images, categories)


def _annotations(root: Path, path: Path, images: dict[str, int], categories: list[dict[str, object]]) -> None:
    for name in images:
        photograph(root / name)
    content = {
        "info": {"year": 2021, "version": "x"},
        "images": [
            {"id": 100 + row, "file_name": name, "width": 8, "height": 6, "license": 0, "latitude": None}
            for row, name in enumerate(images)
        ],
        "categories": [{**category, "supercategory": "Kind"} for category in categories],
        "annotations": [
            {"id": row, "image_id": 100 + row, "category_id": key} for row, key in enumerate(images.values())
        ],
    }
    path.write_text(json.dumps(content))


def imagenet1k(root: Path) -> None:
    """Three classes, thirty-six training images, and validation images in folders."""
    for label, wnid in enumerate(WNIDS):
        for number in range(12):
            photograph(root / "train" / wnid / f"{wnid}_{number}.JPEG", 10 * number)
        for number in range(label, 9, 3):
            photograph(root / "val" / wnid / f"ILSVRC2012_val_{number + 1:08}.JPEG", number)


def devkit(root: Path) -> None:
    """Write the devkit for nine validation images: numbers in their own order, and one of no class."""
    base = root / "ILSVRC2012_devkit_t12" / "data"
    of = {1: WNIDS[2], 2: WNIDS[0], 3: WNIDS[1], 4: "n00001740"}
    kind = [(name, object) for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")]
    synsets = np.array([(n, wnid, f"word {n}, other", "", int(n == 4)) for n, wnid in of.items()], dtype=kind)
    base.mkdir(parents=True)
    savemat(base / "meta.mat", {"synsets": synsets.reshape(-1, 1)})
    listed(base / "ILSVRC2012_validation_ground_truth.txt", ["2", "3", "1"] * 3)


def chexpert(root: Path) -> None:
    """Twenty-one patients with a frontal view each, one of whom has a lateral one too."""
    base = root / "CheXpert-v1.0-small"
    head = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,"
    head += "Cardiomegaly,Edema,Consolidation,Atelectasis,Pleural Effusion"
    rows = {"train": [], "valid": []}
    for number in range(1, 22):
        split = "train" if number <= 20 else "valid"
        name = f"{split}/patient{number:05}/study1/view1_frontal.jpg"
        rows[split].append(f"CheXpert-v1.0-small/{name},Female,68,Frontal,AP,,1.0,-1.0,-1.0,,0.0")
        photograph(base / name)
    rows["train"].append(
        "CheXpert-v1.0-small/train/patient00001/study1/view2_lateral.jpg,Male,1,Lateral,,,,,,,"
    )
    for split, lines in rows.items():
        listed(base / f"{split}.csv", [head, *lines])


def visda(root: Path) -> None:
    """Two kinds of objects, ten rendered and two photographed each."""
    for split, count in {"train": 10, "validation": 2}.items():
        suffix = "png" if split == "train" else "jpg"
        names = {
            f"{kind}/{n}.{suffix}": label
            for label, kind in enumerate(("aeroplane", "bus"))
            for n in range(count)
        }
        listed(root / split / "image_list.txt", [f"{name} {label}" for name, label in names.items()])
        for name in names:
            photograph(root / split / name)


def objectnet(root: Path) -> None:
    """Three folders, of which one is of no class of ImageNet; a chair may be any of two of ImageNet's."""
    base = root / "objectnet-1.0"
    for folder, count in {"chair": 2, "banana": 1, "air_freshener": 1}.items():
        for number in range(count):
            photograph(base / "images" / folder / f"{number}.png", size=(12, 10))
    mappings = {
        "folder_to_objectnet_label.json": {
            "chair": "Chair",
            "banana": "Banana",
            "air_freshener": "Air freshener",
        },
        "objectnet_to_imagenet_1k.json": {"Chair": "barber chair; folding chair", "Banana": "banana"},
        # The numbers of ImageNet-1k's classes as PyTorch has them, to lines of the list below.
        "pytorch_to_imagenet_2012_id.json": {"559": 0, "423": 1, "954": 2, "134": 3, "517": 4},
    }
    for name, content in mappings.items():
        listed(base / "mappings" / name, [json.dumps(content)])
    listed(
        base / "mappings" / "imagenet_to_label_2012_v2",
        ["folding chair", "barber chair", "banana", "crane", "crane"],
    )
