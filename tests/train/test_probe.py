"""The linear probe: scikit-learn's optimum, folded into one map, chosen on validation alone."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from bobrt.errors import BobrtError
from train import probe
from train.probe import CS, PATIENCE, Probe, fit

Part = tuple[NDArray[np.float32], NDArray[np.int64]]


def clusters(n: int, classes: int = 6, d: int = 40, noise: float = 1.5, seed: int = 0) -> Part:
    """Return correlated features of very different scales, as a rectified layer has them."""
    rng = np.random.default_rng(0)
    spectrum = np.arange(1, d + 1) ** -0.5
    means, mix = rng.normal(size=(classes, d)) * spectrum, rng.normal(size=(d, d)) / d**0.5
    scale, shift = np.exp(rng.normal(size=d)), rng.normal(size=d)
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, n)
    features = (means[targets] + noise * rng.normal(size=(n, d)) * spectrum) @ mix
    return (np.maximum(features, -0.5) * scale + shift).astype(np.float32), targets


def digits() -> tuple[Part, Part, Part]:
    """Return pixels of the bundled digits as features, 900 / 400 / 497 of them."""
    found = load_digits()
    features, targets = found.data.astype(np.float32), found.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(targets))
    parts = np.split(order, [900, 1300])
    return tuple((features[part], targets[part]) for part in parts)


def logits(fitted: Probe, features: NDArray[np.float32]) -> NDArray[np.float32]:
    return features @ fitted.weight.T + fitted.bias


def accuracy(fitted: Probe, part: Part) -> float:
    return float((logits(fitted, part[0]).argmax(axis=1) == part[1]).mean())


def objective(weight: NDArray, bias: NDArray, part: Part, c: float) -> float:
    """Return what is minimised, over standardised features, in float64."""
    features, targets = part[0].astype(np.float64), part[1]
    rows = (features - features.mean(axis=0)) / features.std(axis=0)
    scores = rows @ weight.T + bias
    scores -= scores.max(axis=1, keepdims=True)
    nll = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(rows)), targets]
    return float(nll.mean() + (weight**2).sum() / (2 * c * len(rows)))


def at(c: float, monkeypatch: pytest.MonkeyPatch, *splits: Part) -> Probe:
    """Return the probe at one strength."""
    monkeypatch.setattr(probe, "CS", (c,))
    return fit(*splits[0], *splits[1], int(splits[0][1].max()) + 1)


@pytest.mark.parametrize("c", [1e-3, 0.1, 3.0])
@pytest.mark.parametrize("data", ["clusters", "digits"])
def test_the_minimum_is_that_of_scikit_learn(c: float, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To 1e-6 in the loss, whichever is lower: the folded map, unfolded again, in float64."""
    if data == "clusters":
        part = clusters(800)
    else:
        features, targets = digits()[0]
        part = features[:, features.std(axis=0) > 0.3], targets
    fitted = at(c, monkeypatch, part, part)
    features = part[0].astype(np.float64)
    mean, std = features.mean(axis=0), features.std(axis=0)
    ours = objective(fitted.weight * std, fitted.bias + fitted.weight @ mean, part, c)
    theirs = LogisticRegression(C=c, tol=1e-8, max_iter=20_000).fit((features - mean) / std, part[1])
    assert ours - objective(theirs.coef_, theirs.intercept_, part, c) < 1e-6
    assert fitted.candidates[0].converged


def test_the_path_ends_where_each_strength_alone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting from a stronger one saves steps and changes nothing."""
    train, validation = clusters(500), clusters(300, seed=1)
    whole = fit(*train, *validation, 6)
    for tried in whole.candidates[::4]:
        alone = at(tried.c, monkeypatch, train, validation).candidates[0]
        assert tried.loss == pytest.approx(alone.loss, abs=1e-3)


def test_the_strength_is_the_one_with_the_best_validation_score() -> None:
    """Of equal scores the one of least loss; all go from strong to weak, and their figures are the map's."""
    train, validation = clusters(300), clusters(300, seed=1)
    fitted = fit(*train, *validation, 6)
    assert [tried.c for tried in fitted.candidates] == list(CS[: len(fitted.candidates)])
    best = max(fitted.candidates, key=lambda tried: (tried.score, -tried.loss))
    assert fitted.c == best.c
    assert best.score == accuracy(fitted, validation)
    assert best.score > max(fitted.candidates[0].score, fitted.candidates[-1].score)
    given = logits(fitted, validation[0]).astype(np.float64)
    probabilities = np.exp(given) / np.exp(given).sum(axis=1, keepdims=True)
    assert best.loss == pytest.approx(log_loss(validation[1], probabilities, labels=np.arange(6)), abs=1e-5)
    assert all(tried.converged for tried in fitted.candidates)


def test_weaker_ones_are_not_tried_once_two_in_a_row_better_nothing() -> None:
    """With labels of chance, the less is believed the better."""
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(200, 30)).astype(np.float32), rng.integers(0, 4, 200)
    other, others = rng.normal(size=(2000, 30)).astype(np.float32), rng.integers(0, 4, 2000)
    tried = fit(features, targets, other, others, 4).candidates
    assert len(tried) < len(CS)
    before, last = tried[:-PATIENCE], tried[-PATIENCE:]
    assert max(one.score for one in last) <= max(one.score for one in before)
    assert min(one.loss for one in last) >= min(one.loss for one in before)


def test_validation_images_are_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """At one strength, other validation images give the same map."""
    train = clusters(300)
    one, other = (at(0.1, monkeypatch, train, clusters(50, seed=seed)) for seed in (1, 2))
    np.testing.assert_array_equal(one.weight, other.weight)


def test_the_same_features_give_the_same_bits() -> None:
    """Nothing is drawn."""
    train, validation = clusters(300), clusters(100, seed=1)
    one, other = fit(*train, *validation, 6), fit(*train, *validation, 6)
    np.testing.assert_array_equal(one.weight, other.weight)
    assert one.candidates == other.candidates


@pytest.mark.parametrize("rows", [64, 1000])
def test_blocks_of_images_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """800 images in 13 blocks, the last a part of one."""
    train, validation = clusters(800), clusters(100, seed=1)
    whole = at(0.1, monkeypatch, train, validation)
    monkeypatch.setattr(probe, "ROWS", rows)
    parts = at(0.1, monkeypatch, train, validation)
    np.testing.assert_allclose(logits(parts, train[0]), logits(whole, train[0]), atol=0.02)
    assert parts.candidates[0].loss == pytest.approx(whole.candidates[0].loss, abs=1e-4)


def test_scale_and_shift_of_a_feature_do_not_matter() -> None:
    """Standardised and folded back: the map answers the same of features in other units."""
    (rows, targets), (watched, wanted) = clusters(400), clusters(200, seed=1)
    scale, shift = np.float32(2) ** (np.arange(40, dtype=np.float32) % 5 - 2), np.float32(3)
    plain = fit(rows, targets, watched, wanted, 6)
    other = fit(rows * scale + shift, targets, watched * scale + shift, wanted, 6)
    assert other.c == plain.c
    np.testing.assert_allclose(logits(other, watched * scale + shift), logits(plain, watched), atol=0.02)


def test_columns_that_do_not_move_weigh_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dead units, whatever they say; one that moved once in training does not decide when it moves again."""
    (rows, targets), validation = clusters(300), clusters(200, seed=1)
    dead = np.zeros((len(rows), 3), np.float32)
    dead[:, 1], dead[7, 2] = 1234.5, 1e-4
    more = np.hstack([validation[0], np.tile(np.float32([0, 1234.5, 1.0]), (200, 1))])
    fitted = at(0.1, monkeypatch, (np.hstack([rows, dead]), targets), (more, validation[1]))
    assert np.isfinite(fitted.weight).all()
    assert np.abs(fitted.weight[:, -3:-1]).max() < 1e-3
    plain = at(0.1, monkeypatch, (rows, targets), validation)
    np.testing.assert_allclose(logits(fitted, more), logits(plain, validation[0]), atol=0.5)


def test_features_that_are_all_alike_know_only_how_often_each_class_is() -> None:
    """A backbone that answers the same to every image: the bias is the classes' share."""
    targets = np.repeat([0, 1, 2], [60, 30, 10])
    fitted = fit(np.ones((100, 8), np.float32), targets, np.ones((10, 8), np.float32), targets[:10], 3)
    odds = np.exp(logits(fitted, np.ones((1, 8), np.float32)))[0]
    np.testing.assert_allclose(odds / odds.sum(), [0.6, 0.3, 0.1], atol=1e-3)


def test_fewer_images_than_features() -> None:
    """As of ten images a class: the rest of the space is left alone."""
    train, validation = clusters(60, d=300), clusters(300, d=300, seed=1)
    fitted = fit(*train, *validation, 6)
    assert accuracy(fitted, train) == 1
    assert accuracy(fitted, validation) > 1 / 3


def test_the_names_of_the_classes_do_not_matter() -> None:
    """Renamed, the same rows in another order; a class without training images has one too."""
    train, validation = clusters(300), clusters(200, seed=1)
    names = np.array([4, 0, 6, 1, 5, 3])
    plain = fit(*train, *validation, 6)
    named = fit(train[0], names[train[1]], validation[0], names[validation[1]], 7)
    assert named.weight.shape == (7, 40)
    assert accuracy(named, (validation[0], names[validation[1]])) == pytest.approx(
        accuracy(plain, validation), abs=0.01
    )
    assert (logits(named, validation[0]).argmax(axis=1) != 2).all()


def test_several_labels_are_several_regressions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each as scikit-learn has it alone; the score is the mean AUROC."""
    rows, classes = clusters(500)
    given = np.stack([classes < 3, classes % 2 == 0, classes == 5], axis=1).astype(np.int64)
    monkeypatch.setattr(probe, "CS", (0.1,))
    fitted = fit(rows[:400], given[:400], rows[400:], given[400:], 3)
    features = rows[:400].astype(np.float64)
    mean, std = features.mean(axis=0), features.std(axis=0)
    for label in range(3):
        theirs = LogisticRegression(C=0.1, tol=1e-8, max_iter=20_000).fit(
            (features - mean) / std, given[:400, label]
        )
        want = theirs.decision_function((rows[400:] - mean) / std)
        np.testing.assert_allclose(logits(fitted, rows[400:])[:, label], want, atol=0.02)
    assert 0.9 < fitted.candidates[0].score < 1


def sgd(train: Part, rate: float, classes: int, epochs: int = 10, batch: int = 32) -> Probe:
    """Return the head after epochs of SGD: momentum 0.9, a cosine to 0, batches shuffled."""
    features, targets = train
    rng = np.random.default_rng(0)
    weight, bias = np.zeros((classes, features.shape[1])), np.zeros(classes)
    speed, drift = np.zeros_like(weight), np.zeros_like(bias)
    steps = epochs * (len(features) // batch)
    order = np.concatenate([rng.permutation(len(features))[: steps // epochs * batch] for _ in range(epochs)])
    for step, rows in enumerate(order.reshape(steps, batch)):
        scores = features[rows] @ weight.T + bias
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        gap = odds / odds.sum(axis=1, keepdims=True) - np.eye(classes)[targets[rows]]
        speed = 0.9 * speed + gap.T @ features[rows] / batch
        drift = 0.9 * drift + gap.mean(axis=0)
        now = rate * (1 + np.cos(np.pi * step / steps)) / 2
        weight -= now * speed
        bias -= now * drift
    return Probe(weight.astype(np.float32), bias.astype(np.float32), 0.0, [])


@pytest.mark.parametrize("data", ["digits", "easy", "hard"])
def test_the_probe_is_at_least_as_good_as_ten_epochs_of_sgd(data: str) -> None:
    """On test images, whichever of seven rates is best on validation, and on standardised features too.

    Those are more than a head on a backbone gets: there the rival may be ahead by a standard error.
    """
    if data == "digits":
        parts = digits()
    else:
        noise = 1.0 if data == "easy" else 2.0
        parts = tuple(clusters(n, noise=noise, seed=n) for n in (1500, 700, 2000))
    mean, std = parts[0][0].mean(axis=0), np.maximum(parts[0][0].std(axis=0), 0.01)
    fitted = accuracy(fit(*parts[0], *parts[1], int(parts[0][1].max()) + 1), parts[2])
    chance = (fitted * (1 - fitted) / len(parts[2][1])) ** 0.5
    assert fitted >= rival(*parts)
    assert fitted >= rival(*(((rows - mean) / std, targets) for rows, targets in parts)) - chance


def rival(train: Part, validation: Part, test: Part) -> float:
    """Return the test accuracy of SGD at the rate that is best on validation."""
    classes = int(train[1].max()) + 1
    heads = [sgd(train, rate, classes) for rate in (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)]
    return accuracy(max(heads, key=lambda head: accuracy(head, validation)), test)


@pytest.mark.parametrize(("where", "split"), [(0, "training"), (2, "validation")])
def test_a_feature_that_is_no_number_is_an_error(where: int, split: str) -> None:
    """A sum over it would be none either."""
    parts = [*clusters(50), *clusters(40, seed=1)]
    parts[where][3, 5] = np.nan
    with pytest.raises(BobrtError, match=f"the {split} features of 1 of"):
        fit(*parts, 6)


def test_targets_that_are_not_those_of_the_features_are_an_error() -> None:
    """Another class than there are, or another number of them."""
    (rows, targets), validation = clusters(50), clusters(40, seed=1)
    with pytest.raises(BobrtError, match="there are 3 classes"):
        fit(rows, targets, *validation, 3)
    with pytest.raises(BobrtError, match="50 training features, 49 targets"):
        fit(rows, targets[:49], *validation, 6)


def test_no_torch_is_needed() -> None:
    """Features come from anywhere."""
    code = "import sys, train.probe; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
