"""Outliers: scores by their formulas, AUROC and FPR95 beside scikit-learn and torchmetrics."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.neighbors import NearestNeighbors
from torch import from_numpy
from torchmetrics.functional.classification import binary_auroc

from bobrt.errors import BobrtError, UsageError
from bobrt.tasks.outliers import fpr95, outliers, scores
from bobrt.tasks.roc import auroc_interval, mean_auroc

if TYPE_CHECKING:
    from numpy.typing import NDArray


def outputs(n: int, shift: float = 0.0, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Return features around a direction, and logits that are the surer the more they lie along the first."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 8)) + np.eye(2, 8).T @ [3 - shift, shift]
    return {
        "features": features.astype(np.float32),
        "logits": (features[:, :1] * [1, 0.2, 0]).astype(np.float32),
    }


BANK = outputs(400, seed=9)["features"]


def test_scores_are_their_formulas() -> None:
    """Higher is more of an outlier for each of the three."""
    features = np.float32([[2, 0], [0, 3], [-1, 0]])
    logits = np.float32([[math.log(3), 0], [0, 0], [-1, -1]])
    found = scores({"features": features, "logits": logits}, np.float32([[5, 0], [7, 0], [0, 1]]), k=2)
    np.testing.assert_allclose(found["msp"], [0.25, 0.5, 0.5], atol=1e-7)
    np.testing.assert_allclose(found["energy"], [-math.log(4), -math.log(2), 1 - math.log(2)], atol=1e-7)
    # The second nearest of [1, 0], [1, 0], [0, 1] on the circle: itself, a quarter turn, a quarter turn.
    np.testing.assert_allclose(found["knn"], [0, math.sqrt(2), 2], atol=1e-6)


def test_the_distance_is_that_to_the_kth_neighbour_on_the_sphere() -> None:
    """As scikit-learn's neighbours have it, over normalised features in float64."""

    def unit(rows: NDArray) -> NDArray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    asked = outputs(50)["features"].astype(np.float64)
    search = NearestNeighbors(n_neighbors=7).fit(unit(BANK.astype(np.float64)))
    distance, _ = search.kneighbors(unit(asked))
    np.testing.assert_allclose(scores(outputs(50), BANK, k=7)["knn"], distance[:, -1], atol=1e-6)


@pytest.mark.parametrize("decimals", [1, 8])
def test_auroc_and_fpr95_as_scikit_learn_and_torchmetrics_have_them(decimals: int) -> None:
    """With many equal scores and with none."""
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(size=700).round(decimals), rng.normal(1.5, 1, size=300).round(decimals)
    both, strange = np.concatenate([inside, outside]), np.repeat([0, 1], [700, 300])
    area = mean_auroc(both[:, None], strange[:, None]).value
    assert area == pytest.approx(roc_auc_score(strange, both), abs=1e-9)
    assert area == pytest.approx(
        float(binary_auroc(from_numpy(both).sigmoid(), from_numpy(strange))), abs=1e-6
    )
    # The task's own images are the positives, and a low score names them.
    false, true, _ = roc_curve(1 - strange, -both, drop_intermediate=False)
    assert fpr95(inside, outside) == pytest.approx(false[np.argmax(true >= 0.95)], abs=1e-12)


@pytest.mark.parametrize(
    ("outside", "auroc", "fpr"),
    [
        ([21.0, 30.0], 1.0, 0.0),
        ([0.0, 0.5], 0.0, 1.0),
        ([19.0, 19.5], 18.75 / 20, 0.5),
        ([10.0], 9.5 / 20, 1.0),
    ],
)
def test_by_hand(outside: list[float], auroc: float, fpr: float) -> None:
    """Own scores 1 to 20: 95 % of them are not above 19, and an equal one passes."""
    inside = np.arange(1.0, 21)
    both = np.concatenate([inside, outside])[:, None]
    strange = np.repeat([0, 1], [20, len(outside)])[:, None]
    assert mean_auroc(both, strange).value == pytest.approx(auroc)
    assert fpr95(inside, np.array(outside)) == fpr


def test_outliers_are_told_apart_by_each_score() -> None:
    """The further away the outliers, the better; the answer says what was asked."""
    near = outliers(outputs(300), outputs(200, shift=1, seed=1), BANK)
    far = outliers(outputs(300), outputs(200, shift=3, seed=1), BANK)
    assert (far.headline, far.k, far.n) == ("knn", 50, (300, 200))
    for name in ("msp", "energy", "knn"):
        assert 0.5 < near.metrics[f"auroc_{name}"] < far.metrics[f"auroc_{name}"]
        assert near.metrics[f"fpr95_{name}"] > far.metrics[f"fpr95_{name}"]
    assert far.ci95[0] < far.metrics["auroc_knn"] < far.ci95[1]


def test_the_interval_is_of_the_score_that_is_named_and_the_same_each_time() -> None:
    """Seeded."""
    inside, outside = outputs(300), outputs(200, shift=2, seed=1)
    found = outliers(inside, outside, BANK, headline="msp")
    assert found == outliers(inside, outside, BANK, headline="msp")
    assert found.ci95[0] < found.metrics["auroc_msp"] < found.ci95[1]
    assert found.ci95 != outliers(inside, outside, BANK, headline="knn").ci95


def test_the_interval_covers_the_truth() -> None:
    """In about 95 of 100: scores of two normals one apart have an area of 0.7602."""
    truth, rng = 0.7602499389065233, np.random.default_rng(0)
    held = 0
    for _ in range(60):
        both = np.concatenate([rng.normal(size=80), rng.normal(1, 1, size=60)])[:, None]
        low, high = auroc_interval(both, np.repeat([0, 1], [80, 60])[:, None])
        held += low <= truth <= high
    assert held >= 52  # fewer has a chance of 1 % at 95 %


def test_an_engine_without_logits_is_asked_by_its_features_alone() -> None:
    """As those of the protocol knn."""
    inside, outside = outputs(30), outputs(20, shift=3)
    del inside["logits"], outside["logits"]
    assert set(outliers(inside, outside, BANK).metrics) == {"auroc_knn", "fpr95_knn"}
    with pytest.raises(UsageError, match="unknown outlier score 'msp'"):
        outliers(inside, outside, BANK, headline="msp")


def test_a_small_bank_is_asked_for_its_last_neighbour() -> None:
    """And the answer says which that was."""
    assert outliers(outputs(30), outputs(20, shift=3), BANK[:12]).k == 12


def test_the_order_of_images_changes_no_figure() -> None:
    """Nor does that of the bank."""
    inside, outside = outputs(200), outputs(150, shift=2, seed=1)
    rng = np.random.default_rng(0)
    moved = [{name: rows[::-1] for name, rows in part.items()} for part in (inside, outside)]
    got = outliers(*moved, BANK[rng.permutation(len(BANK))])
    assert got.metrics == pytest.approx(outliers(inside, outside, BANK).metrics, abs=1e-6)


@pytest.mark.parametrize("name", ["features", "logits"])
def test_an_output_that_is_no_number_is_an_error(name: str) -> None:
    """It would be sorted somewhere."""
    broken = outputs(20, shift=3)
    broken[name][4, 1] = math.nan
    with pytest.raises(BobrtError, match=f"the {name} of 1 of 20 images"):
        outliers(outputs(20), broken, BANK)


def test_no_outliers_are_an_error() -> None:
    """There is nothing to tell apart."""
    nothing = {name: rows[:0] for name, rows in outputs(1).items()}
    with pytest.raises(BobrtError, match="there are no"):
        outliers(outputs(20), nothing, BANK)
