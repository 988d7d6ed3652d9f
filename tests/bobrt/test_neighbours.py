"""Neighbours: beside scikit-learn's, and the same however the bank is cut."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from bobrt import data
from bobrt.errors import BobrtError
from bobrt.spec import Protocol
from bobrt.tasks import cards, neighbours, scores
from bobrt.tasks.neighbours import KS, TEMPERATURES, Nearest, knn, nearest, unit, vote

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bobrt.data import Split


def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the pixels of the bundled digits as features."""
    found = load_digits()
    return found.data.astype(np.float32), found.target.astype(np.int64)


def signs(n: int, seed: int = 0) -> NDArray[np.float32]:
    """Return rows of 16 signs: of length 4, so that similarities are exact, and many are equal."""
    return np.random.default_rng(seed).choice(np.float32([-1, 1]), size=(n, 16))


def sorted_whole(queries: NDArray, bank: NDArray, k: int) -> tuple[NDArray, NDArray]:
    """Return what a stable sort of all similarities says."""
    similarity = (queries @ bank.T) / 16
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarity, order, axis=1), order


@pytest.mark.parametrize(("bank", "queries"), [(7, 3), (64, 1), (1000, 1000)])
def test_any_block_gives_what_one_block_gives(
    bank: int, queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bank of 700 in 100 blocks; of many equally near ones it is the first rows, whatever the block."""
    want = sorted_whole(signs(40, 1), signs(700), 20)
    monkeypatch.setattr(neighbours, "BANK", bank)
    monkeypatch.setattr(neighbours, "QUERIES", queries)
    got = nearest(signs(40, 1), signs(700), 20)
    np.testing.assert_array_equal(got.similarity, want[0])
    np.testing.assert_array_equal(got.rows, want[1])


def test_the_answers_of_a_bank_larger_than_a_block_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The digits in blocks of 100 rows: predictions, k and every candidate."""
    features, targets = digits()
    bank, labels = features[:1000], targets[:1000]
    asked = (bank, labels, features[1000:1300], targets[1000:1300], features[1300:])
    whole = knn(*asked)
    monkeypatch.setattr(neighbours, "BANK", 100)
    monkeypatch.setattr(neighbours, "QUERIES", 37)
    parts = knn(*asked)
    np.testing.assert_array_equal(parts.predictions, whole.predictions)
    assert parts[1:] == whole[1:]


def test_a_memory_mapped_bank_is_read_block_by_block(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a slice larger than a block: a bank that fits on a disk only is no matter."""
    path = tmp_path_factory.mktemp("bank") / "bank.npy"
    np.save(path, signs(700))
    monkeypatch.setattr(neighbours, "BANK", 100)
    lengths = []

    def watched(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        lengths.append(len(rows))
        return unit(rows)

    monkeypatch.setattr(neighbours, "unit", watched)
    got = nearest(signs(40, 1), np.load(path, mmap_mode="r"), 5)
    assert max(lengths) == 100
    np.testing.assert_array_equal(got.rows, sorted_whole(signs(40, 1), signs(700), 5)[1])


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("temperature", [0.02, 0.07])
def test_votes_are_those_of_scikit_learn(k: int, temperature: float) -> None:
    """Its neighbours over normalised features, weighted by exp(similarity / temperature)."""
    features, targets = digits()
    bank, labels, asked = features[:1000], targets[:1000], features[1000:]

    def weights(distance: NDArray) -> NDArray:
        return np.exp((1 - distance**2 / 2) / temperature)

    theirs = KNeighborsClassifier(k, weights=weights, algorithm="brute").fit(unit(bank), labels)
    found = nearest(asked, bank, 20)
    ours = vote(found, labels, [1, 5, 20], temperature)[k]
    np.testing.assert_array_equal(ours, theirs.predict(unit(asked)))


def test_one_near_neighbour_outvotes_two_far_ones_at_a_low_temperature() -> None:
    """exp(0.9 / T) against 2 exp(0.8 / T): even at T = 0.1 / log 2 = 0.144."""
    found = Nearest(np.float32([[0.9, 0.8, 0.8]]), np.array([[0, 1, 2]]))
    labels = np.array([4, 7, 7])
    assert vote(found, labels, [1, 3], 0.14) == {1: [4], 3: [4]}
    assert vote(found, labels, [1, 3], 0.15) == {1: [4], 3: [7]}


def test_what_is_best_on_validation_is_asked_of_the_test_images() -> None:
    """Every candidate's validation accuracy is there; among equals the first, the usual one."""
    features, targets = digits()
    found = knn(features[:1000], targets[:1000], features[1000:1300], targets[1000:1300], features[1300:])
    assert [(one.k, one.temperature) for one in found.candidates] == [
        (k, t) for t in TEMPERATURES for k in KS
    ]
    best = max(one.accuracy for one in found.candidates)
    first = next(one for one in found.candidates if one.accuracy == best)
    assert (found.k, found.temperature) == (first.k, first.temperature)
    assert (found.predictions == targets[1300:]).mean() > 0.95
    rows = nearest(features[1300:], features[:1000], found.k)
    np.testing.assert_array_equal(
        found.predictions, vote(rows, targets[:1000], [found.k], found.temperature)[found.k]
    )


def test_validation_decides() -> None:
    """Where the nearest is mislabelled and the next are right, k 1 is not chosen; and the other way round."""
    angles = np.array([0.0, 0.1, 0.12, 0.14, 0.16, 3.0, 3.1, 3.12, 3.14, 3.16])
    bank = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    labels = np.array([1, 0, 0, 0, 0, 0, 1, 1, 1, 1])
    asked = bank[[0, 5]]
    assert knn(bank, labels, asked, np.array([0, 1]), asked).k > 1
    assert knn(bank, labels, asked, np.array([1, 0]), asked).k == 1


def test_the_order_of_the_bank_and_of_classes_changes_nothing() -> None:
    """Without equally near ones."""
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(900, 12)).astype(np.float32), rng.integers(0, 6, 900)
    features[:, :6] += 2 * np.eye(6, dtype=np.float32)[targets]
    want = knn(features[:500], targets[:500], features[500:700], targets[500:700], features[700:])
    rows, renamed = rng.permutation(500), rng.permutation(6)
    got = knn(
        features[:500][rows], renamed[targets[:500][rows]], features[500:700], renamed[targets[500:700]],
        features[700:],
    )  # fmt: skip
    np.testing.assert_array_equal(got.predictions, renamed[want.predictions])
    assert got[1:] == want[1:]


def test_a_small_bank_is_asked_for_as_many_as_it_has() -> None:
    """Ten images: k 20 and 50 are not among the candidates."""
    features, targets = digits()
    found = knn(features[:10], targets[:10], features[10:60], targets[10:60], features[60:100])
    assert {one.k for one in found.candidates} == {1, 5, 10}


def test_features_of_zeros_are_near_to_nothing() -> None:
    """A dead backbone answers something, and no NaN."""
    features = np.vstack([np.zeros((1, 16), np.float32), signs(5)])
    assert nearest(features[:1], features, 6).similarity.tolist() == [[0.0] * 6]
    assert nearest(features[:1], features, 6).rows.tolist() == [[0, 1, 2, 3, 4, 5]]


def test_similarities_of_both_signs_are_in_order() -> None:
    """From the same to the opposite direction."""
    angles = np.linspace(0, math.pi, 9)
    bank = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = nearest(np.float32([[3, 0]]), bank[::-1], 9)
    np.testing.assert_allclose(found.similarity[0], np.cos(angles), atol=1e-6)
    assert found.rows.tolist() == [[8, 7, 6, 5, 4, 3, 2, 1, 0]]


@pytest.mark.parametrize("where", ["queries", "bank"])
def test_a_feature_that_is_no_number_is_an_error(where: str) -> None:
    """It would be nearest to everything."""
    rows = {"queries": signs(5), "bank": signs(7)}
    rows[where][2, 3] = math.nan
    with pytest.raises(BobrtError, match="the features of 1 of"):
        nearest(rows["queries"], rows["bank"], 3)


def test_an_empty_bank_is_an_error() -> None:
    """Nothing is near."""
    with pytest.raises(BobrtError, match="no training features"):
        knn(signs(0), np.zeros(0, np.int64), signs(3), np.zeros(3, np.int64), signs(3))


def test_a_large_bank_is_thinned_out_evenly_where_it_is_asked_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which is while a precision is set; the targets are those of the images that are left."""
    monkeypatch.setattr(scores, "BANK", 100)
    asked: dict[str, list[str]] = {}

    def ask(name: str, split: Split) -> dict[str, NDArray[np.float32]]:
        asked[name] = split.ids
        return {"features": np.array([image.reshape(-1) for image in split.images], np.float32)}

    card = cards.named("digits")
    assert card.transform
    value = scores.on_validation(card, Protocol.KNN, card.transform, ask)
    whole = data.load(card, "train").ids
    assert (len(asked["train"]), asked["train"][0], asked["train"][-1]) == (100, whole[0], whole[-1])
    assert asked["validation"] == data.load(card, "validation").ids
    assert value > 0.6
