"""Parts of a training split: disjoint, in proportion, nested, and the same on every machine."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from bobrt.data.carve import carve, fraction, shots
from bobrt.errors import UsageError

TARGETS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], [100, 50, 20, 30]))
SEVERAL = np.stack([TARGETS % 2, TARGETS // 2], axis=1)


def lists(seed: int) -> np.ndarray:
    """Return targets of between one and forty classes, some with one image, some with hundreds."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, rng.choice([2, 10, 300]), rng.integers(1, 40))
    return rng.permutation(np.repeat(np.arange(len(sizes)), sizes))


@pytest.mark.parametrize(("size", "count"), [(0.1, 20), (40, 40)])
def test_a_part_is_carved_class_by_class(size: float, count: int) -> None:
    """Of each class its share, everything exactly once, in order, and another seed is another part."""
    stays, out = carve(TARGETS, size)
    assert len(out) == count
    assert np.array_equal(np.sort(np.concatenate([stays, out])), np.arange(200))
    assert (np.diff(stays) > 0).all()
    assert (np.diff(out) > 0).all()
    assert np.array_equal(np.bincount(TARGETS[out]), np.bincount(TARGETS) * count // 200)
    assert np.array_equal(carve(TARGETS, size)[1], out)
    assert not np.array_equal(carve(TARGETS, size, seed=1)[1], out)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_the_classes_are_a_part_is_in_proportion_and_leaves_one_of_each(seed: int) -> None:
    """As many as were asked for; each class within one image of its share, or down to its last one."""
    targets = lists(seed)
    sizes = np.bincount(targets)
    room = len(targets) - len(sizes)
    for count in {1, room // 3, room // 2, room} - {0} if room else set():
        stays, out = carve(targets, count, seed)
        assert len(out) == count
        assert np.array_equal(np.sort(np.concatenate([stays, out])), np.arange(len(targets)))
        given = np.bincount(targets[out], minlength=len(sizes))
        assert (given < sizes).all()
        if (sizes * count / len(targets) <= sizes - 1).all():
            assert np.abs(given - sizes * count / len(targets)).max() < 1 + 1e-9
    with pytest.raises(UsageError, match=f"{room + 1} images cannot be carved out of {len(targets)}"):
        carve(targets, room + 1)


def test_a_class_of_one_stays() -> None:
    """A class of one image cannot be validated on and learned."""
    stays, out = carve(np.array([0] * 10 + [1]), 0.3)
    assert (len(stays), len(out)) == (8, 3)
    assert 10 in stays


@pytest.mark.parametrize("size", [0, -3, 200, 197, 0.0001, 1.0, 2.0])
def test_nothing_and_everything_are_no_part(size: float) -> None:
    with pytest.raises(UsageError, match="cannot be carved out of 200: 1 to 196 can"):
        carve(TARGETS, size)


def test_fewer_shots_are_a_part_of_more() -> None:
    """For every seed, and so many of each class."""
    for seed in range(5):
        parts = [shots(TARGETS, count, seed) for count in (1, 5, 10, 20)]
        assert all(np.bincount(TARGETS[part]).tolist() == [len(part) // 4] * 4 for part in parts)
        assert all(set(part) < set(more) for part, more in pairwise(parts))
        assert all((np.diff(part) > 0).all() for part in parts)
    assert not np.array_equal(shots(TARGETS, 10, seed=1), shots(TARGETS, 10))


def test_more_shots_than_images_name_the_class_and_how_many_it_has() -> None:
    """By its name where there are names, and a count that would do."""
    with pytest.raises(
        UsageError, match="25 images of each class are asked for, and class 2 has 20"
    ) as caught:
        shots(TARGETS, 25)
    assert caught.value.hint == "ask for fewer: @20shot"
    with pytest.raises(UsageError, match=r"40 images .* class 'cow' has 20, and 1 more classes have too few"):
        shots(TARGETS, 40, classes=["ant", "bee", "cow", "dog"])
    with pytest.raises(UsageError, match="class 'eel' has 0") as caught:
        shots(TARGETS, 1, classes=["ant", "bee", "cow", "dog", "eel"])
    assert caught.value.hint == "add images of it"
    with pytest.raises(UsageError, match="0 images of each class are none"):
        shots(TARGETS, 0)


def test_a_class_number_without_images_asks_for_nothing() -> None:
    """Where nobody says which classes there are, those that occur are meant."""
    assert np.bincount(np.array([0, 0, 5, 5])[shots(np.array([0, 0, 5, 5]), 1)]).tolist() == [
        1,
        0,
        0,
        0,
        0,
        1,
    ]


def test_a_share_has_every_class_and_lies_within_a_larger_one() -> None:
    assert np.bincount(TARGETS[fraction(TARGETS, 0.1)]).tolist() == [10, 5, 2, 3]
    assert np.bincount(TARGETS[fraction(TARGETS, 0.001)]).tolist() == [1] * 4
    assert np.array_equal(fraction(TARGETS, 1.0), np.arange(200))
    parts = [set(fraction(TARGETS, share)) for share in (0.01, 0.1, 0.5, 1.0)]
    assert all(part < more for part, more in pairwise(parts))
    assert set(shots(TARGETS, 2)) <= parts[1]
    for share in (0, -0.1, 1.1):
        with pytest.raises(UsageError, match=r"a share of .* is asked for"):
            fraction(TARGETS, share)


def test_several_labels_are_drawn_without_regard_to_them() -> None:
    """A share and a validation split, but not so many of each class: an image is of several."""
    assert len(fraction(SEVERAL, 0.1)) == 20
    assert set(fraction(SEVERAL, 0.1)) < set(fraction(SEVERAL, 0.3))
    stays, out = carve(SEVERAL, 0.1)
    assert (len(stays), len(out)) == (180, 20)
    assert not set(stays) & set(out)
    with pytest.raises(UsageError, match="may have several labels") as caught:
        shots(SEVERAL, 5)
    assert caught.value.hint.endswith("@1pct")


def test_which_images_are_drawn_is_pinned() -> None:
    """They are part of a task: another version that draws others would make every result another one's."""
    assert fraction(np.zeros(1000, np.int64), 0.01).tolist() == [
        11,
        196,
        269,
        403,
        600,
        608,
        657,
        850,
        855,
        921,
    ]
    assert carve(np.arange(60) % 3, 6)[1].tolist() == [3, 11, 13, 20, 48, 55]


def test_a_million_images_of_ten_thousand_classes_are_no_work() -> None:
    """An iNaturalist, in a process that loads no scikit-learn: it would take a second by itself."""
    code = (
        "import sys, numpy as np; from bobrt.data import carve\n"
        "targets = np.random.default_rng(0).integers(0, 10_000, 1_000_000)\n"
        "print(len(carve.carve(targets, 0.1)[1]), len(carve.shots(targets, 10)), 'sklearn' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["100000", "100000", "False"]
