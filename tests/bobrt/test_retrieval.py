"""Retrieval: by hand, beside scikit-learn and torchmetrics, and by the protocol of Oxford and Paris."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from bobrt.catalogue import TASKS
from bobrt.data import Relevant
from bobrt.data.formats import FORMATS
from bobrt.errors import BobrtError, UsageError
from bobrt.spec import Kind
from bobrt.tasks import retrieval
from bobrt.tasks.retrieval import MEASURES, average_precision, score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NOBODY = np.zeros(0, dtype=np.int64)


def relevant(positives: Sequence[int], junk: Sequence[int] = ()) -> Relevant:
    return Relevant(np.array(positives, dtype=np.int64), np.array(junk, dtype=np.int64))


def ranking(order: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return features of a query and of a database that it ranks in this order: rows of the database."""
    angle = np.empty(len(order))
    angle[list(order)] = np.linspace(0.1, 1.5, len(order))
    return np.array([[1, 0]], np.float32), np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


# By hand.


def test_every_figure_of_a_ranking_by_hand() -> None:
    """Six images, in the order 4 2 0 5 1 3; 4 is junk, 0 and 1 are right: second and fourth of those left."""
    found = score(*ranking([4, 2, 0, 5, 1, 3]), {"all": [relevant([0, 1], [4])]}, {})
    # Just before and at the first positive 0/1 and 1/2, at the second 1/3 and 2/4.
    assert found.value == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    assert (found.n, found.ci95) == (1, pytest.approx((found.value, found.value)))
    assert found.extra == pytest.approx(
        {
            "mrr": 1 / 2,
            "hit_at_1": 0,
            "recall_at_1": 0,
            "precision_at_1": 0,
            "hit_at_5": 1,
            "recall_at_5": 1,
            "precision_at_5": 2 / 5,
            "hit_at_10": 1,
            "recall_at_10": 1,
            "precision_at_10": 2 / 10,
            "left_out": 0,
            "zero_features": 0,
        }
    )


@pytest.mark.parametrize(
    ("places", "area", "at_two"),
    [
        ([0], 1.0, 1.0),
        ([0, 1, 2], 1.0, 1.0),
        ([1], (0 + 1 / 2) / 2, 1 / 2),
        ([3], (0 + 1 / 4) / 2, 0.0),
        ([0, 2], (1 + 1 + 1 / 2 + 2 / 3) / 4, 1 / 2),
        ([1, 3, 4], (0 + 1 / 2 + 1 / 3 + 2 / 4 + 2 / 4 + 3 / 5) / 6, 1 / 4),
    ],
)
def test_average_precision_by_hand(places: list[int], area: float, at_two: float) -> None:
    """By trapezoids over the whole ranking, and up to the second place, of at most two that can be there."""
    assert average_precision(np.array(places)) == pytest.approx(area, abs=1e-12)
    assert average_precision(np.array(places), cutoff=2) == pytest.approx(at_two, abs=1e-12)


# What the study's own code got wrong.


def test_junk_is_gone_before_the_reciprocal_rank_is_taken() -> None:
    """Two junk images come first and the positive third: it is the first of those that count."""
    found = score(*ranking([0, 1, 2, 3]), {"all": [relevant([2], [0, 1])]}, {})
    assert found.extra["mrr"] == 1.0
    assert found.value == 1.0
    assert found.extra["precision_at_1"] == found.extra["hit_at_1"] == 1.0


def test_a_perfect_ranking_of_forty_hits_though_it_cannot_recall() -> None:
    """Recall at 5 of forty positives is at most 1/8; whether one was hit reaches 1."""
    found = score(*ranking(range(60)), {"all": [relevant(range(40))]}, {})
    assert found.extra["recall_at_5"] == 5 / 40
    assert found.extra["hit_at_5"] == found.extra["precision_at_5"] == found.value == 1.0


def test_queries_without_positives_are_left_out_of_every_mean_and_counted() -> None:
    """The study divides the reciprocal ranks by all queries, and the precisions by those that count."""
    query, database = ranking([1, 0, 2])
    settings = {"all": [relevant([1]), relevant([]), relevant([0])], "none": [relevant([])] * 3}
    found = score(np.repeat(query, 3, axis=0), database, settings, {})
    assert (found.n, found.extra["left_out"]) == (2, 1)
    assert found.extra["mrr"] == pytest.approx((1 + 1 / 2) / 2)
    assert (found.extra["n_none"], found.extra["left_out_none"]) == (0, 3)
    assert "map_none" not in found.extra


# Rankings.


def test_the_length_of_features_does_not_count() -> None:
    rng = np.random.default_rng(1)
    queries, database = (rng.standard_normal((n, 8), dtype=np.float32) for n in (5, 40))
    settings = {"all": [relevant(rng.choice(40, 6, replace=False).tolist()) for _ in range(5)]}
    longer = [
        features * rng.uniform(0.1, 90, (len(features), 1)).astype(np.float32)
        for features in (queries, database)
    ]
    assert score(*longer, settings, {}) == score(queries, database, settings, {})


def test_of_equally_similar_images_the_first_row_comes_first() -> None:
    """As in a stable sort: features of few directions, so that most similarities are shared."""
    rng = np.random.default_rng(2)
    queries, database = (rng.integers(-1, 2, (n, 3)).astype(np.float32) for n in (30, 200))
    queries, database = queries[queries.any(axis=1)], database[database.any(axis=1)]
    wanted = [relevant(rng.choice(len(database), 9, replace=False).tolist()) for _ in queries]
    found = score(queries, database, {"all": wanted}, {})
    similarity = queries @ database.T / np.linalg.norm(database, axis=1)
    aps = []
    for row, one in zip(similarity, wanted, strict=True):
        order = np.argsort(-row, kind="stable")
        aps.append(average_precision(np.flatnonzero(np.isin(order, one.positives))))
    assert found.value == pytest.approx(np.mean(aps), abs=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database is read in blocks, and the similarities of a few queries are held at once."""
    rng = np.random.default_rng(3)
    queries, database = (rng.integers(-3, 4, (n, 6)).astype(np.float32) for n in (23, 101))
    wanted = {"all": [relevant(rng.choice(101, 9, replace=False).tolist(), []) for _ in range(23)]}
    whole = score(queries, database, wanted, {})
    monkeypatch.setattr(retrieval, "BLOCK", 7)
    monkeypatch.setattr(retrieval, "SIMILARITIES", 4 * 101)
    assert score(queries, database, wanted, {}) == whole


def test_features_of_zero_are_counted_and_similar_to_nothing() -> None:
    """An image that an engine answers nothing but zeros to comes after what is similar at all."""
    query, database = ranking([0, 1, 2])
    database = np.concatenate([np.zeros((1, 2), np.float32), database])
    found = score(query, database, {"all": [relevant([0])]}, {})
    assert found.extra["mrr"] == 1 / 4
    assert found.extra["zero_features"] == 1


@pytest.mark.parametrize("side", [0, 1])
def test_features_that_are_no_numbers_are_refused(side: int) -> None:
    features = [*ranking([0, 1, 2])]
    features[side][0, 0] = np.nan
    with pytest.raises(BobrtError, match=r"features of 1 of \d images are NaN or infinity"):
        score(*features, {"all": [relevant([0])]}, {})


def test_nothing_to_find_is_an_error() -> None:
    with pytest.raises(BobrtError, match="none of 1 queries has anything to find in the setting 'all'"):
        score(*ranking([0, 1]), {"all": [relevant([])]}, {})
    with pytest.raises(BobrtError, match="there are no features"):
        score(*(np.zeros((0, 4), np.float32) for _ in range(2)), {"all": []}, {})


def test_the_card_says_which_setting_leads_and_where_precision_ends() -> None:
    """The others have their names behind their figures."""
    features = ranking([0, 1, 2, 3])
    settings = {"easy": [relevant([0])], "hard": [relevant([2], [0])]}
    found = score(*features, settings, {"setting": "hard", "place": "somewhere"})
    assert found.value == pytest.approx((0 + 1 / 2) / 2)
    assert (found.extra["map_easy"], found.extra["n_easy"]) == (1.0, 1.0)
    assert {f"{measure}_easy" for measure in MEASURES} <= found.extra.keys()
    assert score(*features, settings, {"setting": "hard", "cutoff": 1}).value == 0.0
    with pytest.raises(UsageError, match="unknown setting 'medium'"):
        score(*features, settings, {"setting": "medium"})


def test_more_queries_narrow_the_interval_and_the_seed_repeats_it() -> None:
    rng = np.random.default_rng(4)
    database = rng.standard_normal((60, 4), dtype=np.float32)
    queries = rng.standard_normal((400, 4), dtype=np.float32)
    wanted = [relevant(rng.choice(60, 5, replace=False).tolist()) for _ in queries]
    some, all_ = (score(queries[:n], database, {"all": wanted}, {}) for n in (25, 400))
    for found in (some, all_):
        assert found.ci95 is not None
        assert found.ci95[0] < found.value < found.ci95[1]
    assert all_.ci95[1] - all_.ci95[0] < (some.ci95[1] - some.ci95[0]) / 2
    assert score(queries, database, {"all": wanted}, {}) == all_


# Random rankings, by others.


class Drawn(NamedTuple):
    """Features, and what each query is to find in the three settings of Oxford and Paris."""

    queries: NDArray[np.float32]
    database: NDArray[np.float32]
    orders: list[list[int]]
    """The rows of the database in the order each query ranks them."""
    judged: list[dict[str, list[int]]]
    settings: dict[str, list[Relevant]]


def drawn(seed: int, count: int = 12, size: int = 150) -> Drawn:
    """Return random features and random lists of easy, hard and junk images, some of them empty."""
    rng = np.random.default_rng(seed)
    queries, database = (rng.standard_normal((n, 12), dtype=np.float32) for n in (count, size))
    lengths = np.linalg.norm(database.astype(np.float64), axis=1)
    similarity = queries.astype(np.float64) @ database.T.astype(np.float64) / lengths
    judged = []
    for _ in range(count):
        rows = rng.permutation(size).tolist()
        ends = np.cumsum(rng.integers(0, 25, 3) * (rng.random(3) > 0.2))
        judged.append(
            {"easy": rows[: ends[0]], "hard": rows[ends[0] : ends[1]], "junk": rows[ends[1] : ends[2]]}
        )
    settings = {
        "easy": [relevant(one["easy"], one["junk"] + one["hard"]) for one in judged],
        "medium": [relevant(one["easy"] + one["hard"], one["junk"]) for one in judged],
        "hard": [relevant(one["hard"], one["junk"] + one["easy"]) for one in judged],
    }
    return Drawn(queries, database, np.argsort(-similarity, axis=1).tolist(), judged, settings)


def joined(judged: dict[str, list[int]], which: list[str]) -> list[int]:
    return [row for key in which for row in judged[key]]


def published(order: list[int], right: list[int], junk: list[int]) -> float:
    """Return the average precision as the evaluation of Oxford and Paris describes it.

    It walks down the ranking, skips junk, and adds for each image the rise in recall times the mean of the
    precisions before and after it, from precision 1 and recall 0.
    """
    area, recall, precision, hits, seen = 0.0, 0.0, 1.0, 0, 0
    for row in order:
        if row in junk:
            continue
        seen += 1
        hits += row in right
        area += (hits / len(right) - recall) * (precision + hits / seen) / 2
        recall, precision = hits / len(right), hits / seen
    return area


@pytest.mark.parametrize("seed", range(5))
def test_settings_are_those_of_the_published_protocol(seed: int) -> None:
    """Mean average precision of each setting, without the queries that have nothing to find there."""
    given = drawn(seed)
    found = score(given.queries, given.database, given.settings, {"setting": "medium"})
    for setting, right, junk in [
        ("easy", ["easy"], ["junk", "hard"]),
        ("medium", ["easy", "hard"], ["junk"]),
        ("hard", ["hard"], ["junk", "easy"]),
    ]:
        aps = [
            published(order, joined(one, right), joined(one, junk))
            for order, one in zip(given.orders, given.judged, strict=True)
            if joined(one, right)
        ]
        ours = (
            (found.value, found.n)
            if setting == "medium"
            else (
                found.extra[f"map_{setting}"],
                found.extra[f"n_{setting}"],
            )
        )
        assert ours == (pytest.approx(np.mean(aps), abs=1e-9), len(aps))


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_at_the_end_is_scikit_learns(seed: int) -> None:
    """Where the two definitions meet: a sum over positives, no trapezoids, no two similarities equal.

    scikit-learn takes equal scores together, as one threshold; here the first row comes first. The
    trapezoids of Oxford and Paris are a smaller sum, unless every positive is at the top.
    """
    given = drawn(seed)
    whole = len(given.database)
    found = score(given.queries, given.database, given.settings, {"setting": "hard", "cutoff": whole})
    aps = []
    for order, one in zip(given.orders, given.settings["hard"], strict=True):
        rows = [row for row in order if row not in one.junk]
        if len(one.positives):
            aps.append(average_precision_score(np.isin(rows, one.positives), -np.arange(len(rows))))
    assert found.value == pytest.approx(np.mean(aps), abs=1e-9)
    assert score(given.queries, given.database, given.settings, {"setting": "hard"}).value < found.value


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("setting", ["easy", "medium", "hard"])
def test_ranks_and_shares_are_those_of_torchmetrics(seed: int, setting: str) -> None:
    """Reciprocal rank, hit rate, recall and precision, of rankings from which junk was taken."""
    import torch  # noqa: PLC0415 - this test alone is about it
    from torchmetrics import retrieval as theirs  # noqa: PLC0415

    given = drawn(seed)
    indexes, predictions, targets = [], [], []
    for query, (order, one) in enumerate(zip(given.orders, given.settings[setting], strict=True)):
        rows = [row for row in order if row not in one.junk]
        indexes += [query] * len(rows)
        predictions += np.linspace(1, 0, len(rows)).tolist()
        targets += np.isin(rows, one.positives).tolist()

    def measured(metric: type, **arguments: int) -> float:
        told = metric(empty_target_action="skip", **arguments)
        return float(told(torch.tensor(predictions), torch.tensor(targets), indexes=torch.tensor(indexes)))

    found = score(given.queries, given.database, given.settings, {"setting": setting}).extra
    assert found["mrr"] == pytest.approx(measured(theirs.RetrievalMRR), abs=1e-6)
    for k in (1, 5, 10):
        assert found[f"hit_at_{k}"] == pytest.approx(measured(theirs.RetrievalHitRate, top_k=k), abs=1e-6)
        assert found[f"recall_at_{k}"] == pytest.approx(measured(theirs.RetrievalRecall, top_k=k), abs=1e-6)
        assert found[f"precision_at_{k}"] == pytest.approx(
            measured(theirs.RetrievalPrecision, top_k=k), abs=1e-6
        )


@pytest.mark.parametrize("seed", range(3))
def test_with_a_cutoff_it_is_the_precision_of_the_landmarks_challenge(seed: int) -> None:
    """Of the first twenty alone, over no more positives than can be there (Weyand et al. 2020)."""
    given = drawn(seed)
    found = score(given.queries, given.database, given.settings, {"setting": "medium", "cutoff": 20})
    aps = []
    for order, one in zip(given.orders, given.settings["medium"], strict=True):
        shown = [row in one.positives for row in order if row not in one.junk][:20]
        precisions = [sum(shown[: rank + 1]) / (rank + 1) for rank, right in enumerate(shown) if right]
        if len(one.positives):
            aps.append(sum(precisions) / min(len(one.positives), 20))
    assert found.value == pytest.approx(np.mean(aps), abs=1e-9)


# The cards.

CARDS = {card.name: card for card in TASKS.all().values() if card.kind is Kind.RETRIEVAL and card.data}


@pytest.mark.parametrize("name", CARDS)
def test_a_card_names_a_format_and_the_line_that_fetches_it(name: str) -> None:
    """Sizes are of both splits or of none, as a loader compares all of them."""
    card = CARDS[name]
    assert card.data in FORMATS
    assert card.metric == "map"
    assert card.fetch.endswith(f"bobrt bench --task {name} --data {card.fetch.rpartition(' ')[2]}")
    assert card.splits.keys() in ({"query", "database"}, set())


def guessed(positives: float, size: int) -> float:
    """Return the expected average precision of a shuffled database: each rank of a positive is as likely."""
    rank = np.arange(size)
    above = rank * (positives - 1) / (size - 1)
    just_before = np.where(rank == 0, 1.0, above / np.maximum(rank, 1))
    return float((just_before + (above + 1) / (rank + 1)).mean() / 2)


def test_the_score_of_a_shuffled_database_is_the_mean_over_all_orders() -> None:
    every = [average_precision(np.array(places)) for places in itertools.combinations(range(9), 3)]
    assert guessed(3, 9) == pytest.approx(np.mean(every), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "positives"),
    [
        ("instre", 40),
        ("inat2021-retrieval", 4),
        ("copydays-strong", 229 / 157),
        ("copydays", 3055 / 157),
    ],
)
def test_a_cards_random_score_is_that_of_a_shuffled_database(name: str, positives: float) -> None:
    """To two digits, with as many positives as each query has on average."""
    card = CARDS[name]
    assert card.random_score == float(f"{guessed(positives, card.splits['database']):.2g}")
