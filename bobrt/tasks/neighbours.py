"""Nearest neighbours in feature space, and the classifier that asks them.

Features are L2-normalised, so near is a high cosine similarity. The bank is read block by
block, once, and may be larger than memory if it is memory-mapped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bobrt.errors import BobrtError
from bobrt.tasks.probabilities import require_finite

if TYPE_CHECKING:
    from numpy.typing import NDArray

KS = (20, 10, 5, 50, 1)
TEMPERATURES = (0.07, 0.02, 0.2)
"""What is tried, the usual first (k 20, temperature 0.07: Wu et al. 2018, Caron et al. 2021)."""

QUERIES, BANK = 512, 8192
"""Rows of a block: its similarities and their keys are 50 MB."""


class Nearest(NamedTuple):
    """The nearest rows of a bank, the nearest first; of equally near ones the first row of the bank."""

    similarity: NDArray[np.float32]
    """`[n, k]`, the cosine."""
    rows: NDArray[np.int64]
    """`[n, k]`."""


class Candidate(NamedTuple):
    """One way to ask the neighbours."""

    k: int
    temperature: float
    accuracy: float
    """On validation."""


class Knn(NamedTuple):
    """The answers of the neighbours, and how they were asked."""

    predictions: NDArray[np.int64]
    """`[n]`."""
    k: int
    temperature: float
    candidates: list[Candidate]
    """All that was tried: the same for every backbone, but for k larger than the bank."""


def knn(
    bank: NDArray[np.float32],
    labels: NDArray[np.int64],
    validation: NDArray[np.float32],
    validation_targets: NDArray[np.int64],
    queries: NDArray[np.float32],
) -> Knn:
    """Return the class that the nearest training images vote for.

    Each of the k nearest votes with weight `exp(similarity / temperature)` (Wu et al. 2018). k and the
    temperature are those of the best validation accuracy; among equally good ones the first tried. Of equal
    votes the lowest class wins. The validation images do not vote.

    Args:
        bank: `[m, d]` features of the training images.
        labels: `[m]` classes of them.
        validation: `[v, d]` features that k and the temperature are chosen on.
        validation_targets: `[v]`.
        queries: `[n, d]` features to classify.

    Raises:
        BobrtError: A feature is NaN or infinity, or there is none.

    """
    ks = [k for k in KS if k <= len(bank)]
    watched = nearest(validation, bank, max(ks, default=0))
    candidates = [
        Candidate(k, temperature, float((answers == validation_targets).mean()))
        for temperature in TEMPERATURES
        for k, answers in vote(watched, labels, ks, temperature).items()
    ]
    best = max(candidates, key=lambda candidate: candidate.accuracy)
    answers = vote(nearest(queries, bank, best.k), labels, [best.k], best.temperature)[best.k]
    return Knn(answers, best.k, best.temperature, candidates)


def nearest(queries: NDArray[np.float32], bank: NDArray[np.float32], k: int) -> Nearest:
    """Return the k rows of a bank that are most similar to each query, or all of a smaller bank.

    One float32 copy of the queries is held, and one block of the bank.

    Args:
        queries: `[n, d]`.
        bank: `[m, d]`; a memory-mapped one is read once.
        k: How many.

    Raises:
        BobrtError: A feature is NaN or infinity, or there is none.

    """
    if not len(bank):
        raise BobrtError("there are no training features to be near to", "raise --limit")
    k = min(k, len(bank))
    directions = unit(queries)
    best = np.empty((len(queries), 0), np.int64)
    for first in range(0, len(bank), BANK):
        block = unit(bank[first : first + BANK])
        rows = np.arange(first, first + len(block))
        best = np.concatenate(
            [
                _most(
                    np.hstack([best[i : i + QUERIES], keys(directions[i : i + QUERIES] @ block.T, rows)]), k
                )
                for i in range(0, len(queries), QUERIES)
            ]
        )
    return _read(np.sort(best, axis=1)[:, ::-1])


def vote(
    found: Nearest, labels: NDArray[np.int64], ks: list[int], temperature: float
) -> dict[int, NDArray[np.int64]]:
    """Return the class `[n]` that the first k neighbours vote for, for each k.

    Args:
        found: Neighbours, as many as the largest k.
        labels: `[m]` classes of the bank's rows.
        ks: How many are asked.
        temperature: The smaller, the more the nearest are listened to.

    """
    answers = {k: np.empty(len(found.rows), np.int64) for k in ks}
    for i in range(0, len(found.rows), QUERIES):
        classes = labels[found.rows[i : i + QUERIES]]
        weights = np.exp(found.similarity[i : i + QUERIES].astype(np.float64) / temperature)
        votes = np.zeros((len(classes), int(labels.max()) + 1))
        for asked in range(max(ks)):
            votes[np.arange(len(classes)), classes[:, asked]] += weights[:, asked]
            if asked + 1 in answers:
                answers[asked + 1][i : i + QUERIES] = votes.argmax(axis=1)
    return answers


def unit(features: NDArray[Any]) -> NDArray[np.float32]:
    """Return rows `[n, d]` brought to length 1, in float32; a row of zeros stays one.

    Raises:
        BobrtError: A feature is NaN or infinity, or there is none.

    """
    require_finite(features, "features")
    rows = features.astype(np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    length[length == 0] = 1
    rows /= length
    return rows


def keys(similarity: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return integers that order as (similarity, then the lower row): no two are equal, so no tie is left.

    The upper half is the similarity's bits, which order as it does once those of a negative one are turned,
    the lower half counts rows downwards.
    """
    bits = (similarity + np.float32(0)).view(np.int32)  # + 0 as -0 has other bits
    bits ^= (bits >> 31) & 0x7FFFFFFF
    return (bits.astype(np.int64) << 32) | (0xFFFFFFFF - rows)


def _read(keys: NDArray[np.int64]) -> Nearest:
    """Return what keys stand for."""
    bits = (keys >> 32).astype(np.int32)
    bits ^= (bits >> 31) & 0x7FFFFFFF
    return Nearest(bits.view(np.float32), 0xFFFFFFFF - (keys & 0xFFFFFFFF))


def _most(keys: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Return the k largest of each row, in no order."""
    if keys.shape[1] <= k:
        return keys
    keys.partition(keys.shape[1] - k, axis=1)
    return keys[:, -k:].copy()
