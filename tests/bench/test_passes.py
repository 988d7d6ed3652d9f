"""Passes over whole splits: what they answer, what is kept, and what happens when it cannot be."""

from __future__ import annotations

import resource
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bench import passes
from bench.passes import Passes
from bobrt.data import Split
from bobrt.data.resize import resize
from bobrt.errors import BobrtError, MachineError
from bobrt.spec import Transform
from engines.ort_cpu import OrtCpuRunner
from engines.runner import answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

TRANSFORM = Transform(size=16, crop_pct=0.875)


class Counting(OrtCpuRunner):
    """A real engine that counts how often it is asked."""

    asked = 0

    def infer(self, feeds: Mapping[str, NDArray[np.uint8]]) -> Mapping[str, NDArray[np.float32]]:
        self.asked += 1
        return super().infer(feeds)


def write_engine(path: Path, batch: int | str = "batch", divisor: float = 255.0) -> Path:
    """Write a graph whose features are the mean colour, and whose logits are twice that."""
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "divisor"], ["features"]),
        helper.make_node("Add", ["features", "features"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colour",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [batch, 16, 16, 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3])
            for name in ("features", "logits")
        ],
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
            helper.make_tensor("divisor", TensorProto.FLOAT, [], [divisor]),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def photos(count: int) -> Split:
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (20, 24, 3), dtype=np.uint8) for _ in range(count)]
    return Split([str(number) for number in range(count)], images, np.zeros(count, np.int64))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Counting]:
    with Counting(write_engine(tmp_path / "e.onnx"), 1) as runner:
        yield runner


@pytest.fixture
def of(engine: Counting, tmp_path: Path) -> Callable[..., Passes]:
    def make(transform: Transform = TRANSFORM, identity: str = "a", **more: Any) -> Passes:
        return Passes(engine, transform, {"file": identity}, 2, tmp_path / "features", 4, **more)

    return make


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("bobrt-feed")]


@pytest.mark.parametrize("batch", ["batch", 4], ids=["free batch", "batch of 4"])
@pytest.mark.parametrize("count", [10, 8, 1])
def test_a_pass_answers_what_the_engine_does(tmp_path: Path, batch: int | str, count: int) -> None:
    """Every output of every image to the bit, in order, asked or read again."""
    split = photos(count)
    with OrtCpuRunner(write_engine(tmp_path / "e.onnx", batch), 1) as runner:
        want = answers(runner, resize(split.images, TRANSFORM), 4)
        over = Passes(runner, TRANSFORM, {}, 2, tmp_path / "features", 4)
        got, again = over.over(split, "photos"), over.over(split, "photos")
    assert len(np.unique(want["features"], axis=0)) == count
    for found in (got, again):
        assert sorted(found.outputs) == ["features", "logits"]
        assert all(np.array_equal(found.outputs[name], want[name]) for name in want)
    assert not threads()


def test_an_image_is_asked_once(engine: Counting, of: Callable[..., Passes]) -> None:
    """A second pass over the same images by the same engine is read from disk, memory-mapped."""
    first = of().over(photos(10), "photos")
    asked = engine.asked
    again = of().over(photos(10), "photos")
    assert engine.asked == asked == 3
    assert first.images_per_s
    assert again.images_per_s is None
    assert all(isinstance(output, np.memmap) for output in again.outputs.values())


def test_a_rate_is_measured_anew(engine: Counting, of: Callable[..., Passes]) -> None:
    """Ten images between two looks at a clock that are two seconds apart: five a second."""
    of().over(photos(10), "photos")
    ticks = iter([1_000, 2_000_001_000])
    assert of(clock=lambda: next(ticks)).over(photos(10), "photos", fresh=True).images_per_s == 5.0
    assert engine.asked == 6


@pytest.mark.parametrize(
    "other",
    [
        {"identity": "b"},
        {"transform": Transform(size=16)},
        {"transform": Transform(size=16, crop_pct=0.875, interpolation="bilinear")},
    ],
    ids=["file", "crop", "filter"],
)
def test_another_engine_or_preprocessing_is_asked_itself(
    engine: Counting, of: Callable[..., Passes], other: dict[str, Any]
) -> None:
    of().over(photos(4), "photos")
    of(**other).over(photos(4), "photos")
    of(**other).over(photos(4), "other photos")
    assert engine.asked == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "pass.json").write_text("{"),
        lambda folder: (folder / "pass.json").unlink(),
        lambda folder: (folder / "features.npy").unlink(),
        lambda folder: (folder / "features.npy").write_bytes((folder / "features.npy").read_bytes()[:-4]),
        lambda folder: (folder / "pass.json").write_text('{"outputs": [], "n": 10}'),
    ],
    ids=["cut record", "no record", "no array", "cut array", "no outputs"],
)
def test_what_is_damaged_is_asked_again(
    engine: Counting, of: Callable[..., Passes], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    want = of().over(photos(10), "photos").outputs
    (folder,) = (tmp_path / "features").iterdir()
    damage(folder)
    got = of().over(photos(10), "photos").outputs
    assert engine.asked == 6
    assert all(np.array_equal(got[name], want[name]) for name in want)


def test_a_full_disk_loses_the_keeping_and_not_the_answers(of: Callable[..., Passes], tmp_path: Path) -> None:
    """A file may not grow beyond two kilobytes: the pass goes on, says so, and leaves no half."""
    split, over = photos(400), of()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
    try:
        got = over.over(split, "photos")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(got.outputs["features"]) == 400
    assert over.notes == ["what the engine answered is not kept: File too large"]
    assert list((tmp_path / "features").iterdir()) == []


def test_the_longest_unused_passes_go(of: Callable[..., Passes], tmp_path: Path) -> None:
    for name in ("first", "second", "third"):
        of().over(photos(4), name)
    of().over(photos(4), "first")  # used again
    kept = sum(file.stat().st_size for file in (tmp_path / "features").rglob("*") if file.is_file())
    assert passes.prune(tmp_path / "features", kept) == 0
    assert passes.prune(tmp_path / "features", kept - 1) == 1
    assert of().over(photos(4), "first").images_per_s is None
    assert of().over(photos(4), "second").images_per_s is not None


def test_an_answer_that_is_no_number_ends_the_pass(tmp_path: Path) -> None:
    with (
        OrtCpuRunner(write_engine(tmp_path / "e.onnx", divisor=0.0), 1) as runner,
        pytest.raises(BobrtError, match="NaN or infinity in features, logits"),
    ):
        Passes(runner, TRANSFORM, {}, 1, tmp_path / "features").over(photos(4), "photos")
    assert list((tmp_path / "features").iterdir()) == []
    assert not threads()


def test_changed_images_are_asked_by_their_rows(engine: Counting, of: Callable[..., Passes]) -> None:
    """The change sees resized images and which they are; nothing of it is kept."""
    split, seen = photos(10), []

    def darker(images: NDArray[np.uint8], rows: Any) -> NDArray[np.uint8]:
        seen.extend(rows)
        return images // 2

    got = of().asked(split.images, darker)
    want = answers(engine, resize(split.images, TRANSFORM) // 2, 4)
    assert np.array_equal(got["features"], want["features"])
    assert sorted(seen) == list(range(10))


def inverted(calls: list[int]) -> Callable[..., NDArray[np.uint8]]:
    """Return a change that notes how many images it was given."""

    def change(images: NDArray[np.uint8], rows: Any) -> NDArray[np.uint8]:
        calls.append(len(rows))
        return 255 - images

    return change


def test_changed_images_are_made_once_for_every_engine(of: Callable[..., Passes]) -> None:
    """Another file of the same size finds them; the answers are asked anew, and are the same as without."""
    split, calls = photos(10), []
    plain = of().asked(split.images, inverted([]))
    first = of().asked(split.images, inverted(calls), ["inverted", 1])
    assert sum(calls) == 10
    other = of(identity="b").asked(split.images, inverted(calls), ["inverted", 1])
    assert sum(calls) == 10
    for name in plain:
        np.testing.assert_array_equal(plain[name], first[name])
        np.testing.assert_array_equal(plain[name], other[name])


@pytest.mark.parametrize(
    ("kept", "transform"), [(["inverted", 2], TRANSFORM), (["inverted", 1], Transform(size=16, crop_pct=1.0))]
)
def test_other_changes_or_another_cut_are_other_images(
    of: Callable[..., Passes], kept: list[Any], transform: Transform
) -> None:
    split, calls = photos(6), []
    of().asked(split.images, inverted(calls), ["inverted", 1])
    of(transform).asked(split.images, inverted(calls), kept)
    assert sum(calls) == 12


def test_changed_images_that_cannot_be_kept_are_asked_all_the_same(
    of: Callable[..., Passes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk costs the keeping, and says so."""
    split, calls = photos(10), []
    want = of().asked(split.images, inverted([]))
    monkeypatch.setattr(passes, "write_atomic", full)
    asked = of()
    got = asked.asked(split.images, inverted(calls), ["inverted", 1])
    np.testing.assert_array_equal(want["logits"], got["logits"])
    assert asked.notes == ["what the engine answered is not kept: No space left on device"]
    of().asked(split.images, inverted(calls), ["inverted", 1])
    assert sum(calls) == 20


def full(*_: object) -> None:
    """Stand for a disk with no room for one more file."""
    cause = OSError(28, "No space left on device")
    raise MachineError("cannot write", "free some space") from cause
