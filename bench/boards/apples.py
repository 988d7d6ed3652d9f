"""Apples to apples: what pretraining does to one architecture, architecture to one pretraining, and size.

What a backbone is made of is read from the catalogue. Two pretrainings are compared on the architectures
that the board has under both, setting by setting; two architectures likewise.
"""

from __future__ import annotations

import re
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bench.boards.alike import LEAST, ranks, spearman, spearman_interval
from bench.boards.board import mean
from bench.welch import holm
from bobrt.catalogue import BACKBONES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bench.boards.board import Board, Origin
    from bench.boards.standing import Standing

    Floats = NDArray[np.float64]

ALL = "all"
"""In place of a family: every backbone."""


class Kin(NamedTuple):
    """What a backbone is made of."""

    architecture: str
    pretraining: str | None
    """Method and data; `none` for random weights, None for a file nobody described."""
    family: str
    params_m: float | None
    data_m: float | None
    """Images of its pretraining, in millions."""


class Contrast(NamedTuple):
    """Two pretrainings, or two architectures, and what they do to the same others."""

    a: str
    """The better one on average."""
    b: str
    shared: tuple[str, ...]
    """What both are compared on."""
    n: int
    """Settings in which both were measured on any of those."""
    difference: float
    """Mean z of `a` less that of `b`, 0 or more."""
    ahead: int
    """Settings in which `a` is ahead."""
    p: float
    """Wilcoxon's signed-rank test over the settings, exact, two-sided."""
    holm: float
    """The same, corrected for all contrasts of its table (Holm 1979)."""


class Scale(NamedTuple):
    """How far size goes with the overall score, within a family."""

    family: str
    by: str
    """`parameters` or `pretraining images`."""
    n: int
    rho: float | None
    """Spearman's, so that a logarithm would change nothing."""
    rho95: tuple[float, float] | None
    reason: str
    """Why there is no coefficient; empty where there is."""


def kin(board: Board) -> list[Kin | None]:
    """Return what each of a board's backbones is made of; None for those the catalogue does not have."""
    if not board.origins:
        return [None] * len(board.backbones)
    return [_kin(origin) for origin in board.origins]


def _kin(origin: Origin) -> Kin | None:
    entry = BACKBONES.find(origin.backbone)
    if entry is None:
        return None
    pretrained = origin.weights == "pretrained"
    method = f"{entry.pretraining}, {entry.data}" if pretrained and entry.pretraining else None
    return Kin(
        architecture=architecture(entry.timm),
        pretraining="none" if origin.weights == "random" else method,
        family=entry.family,
        params_m=entry.params_m,
        data_m=entry.data_m if pretrained else None,
    )


def architecture(timm: str) -> str:
    """Return the architecture of a timm id: without its weights tag, plain ViTs under one name.

    A DeiT is a plain ViT, and CLIP's ViT one with a norm before its blocks; CLIP's ResNets have another stem
    and an attention pool and stay on their own.
    """
    name = timm.partition(".")[0]
    return re.sub(r"^(vit_\w+?)_clip(_\d+)$", r"\1\2", re.sub(r"^deit_", "vit_", name))


def pretrainings(board: Board, found: Standing) -> list[Contrast]:
    """Return what pretrainings do to the same architectures, the clearest first."""
    known = {b: (str(k.pretraining), k.architecture) for b, k in _described(board)}
    return _contrasts(known, found.z)


def architectures(board: Board, found: Standing) -> list[Contrast]:
    """Return what architectures make of the same pretraining, the clearest first."""
    known = {b: (k.architecture, str(k.pretraining)) for b, k in _described(board)}
    return _contrasts(known, found.z)


def _described(board: Board) -> list[tuple[int, Kin]]:
    """Return the rows whose pretraining is known."""
    return [(b, k) for b, k in enumerate(kin(board)) if k and k.pretraining]


def _contrasts(known: dict[int, tuple[str, str]], z: Floats) -> list[Contrast]:
    """Return every pair of first names that share a second one, given first and second name of rows of z."""
    cells: dict[tuple[str, str], list[int]] = {}
    for row, names in known.items():
        cells.setdefault(names, []).append(row)
    scores = {names: mean(z[rows], axis=0) for names, rows in cells.items()}
    found = []
    for pair in combinations(sorted({first for first, _ in scores}), 2):
        shared = sorted(
            second for first, second in scores if first == pair[0] and (pair[1], second) in scores
        )
        if shared:
            # One difference for each setting, over what is shared: the setting is what was drawn, and
            # backbones in one setting are not independent of each other.
            differences = np.array([scores[pair[0], name] - scores[pair[1], name] for name in shared])
            found.append((*pair, tuple(shared), mean(differences, axis=0)))
    contrasts = [_contrast(*entry) for entry in found if not np.isnan(entry[3]).all()]
    corrected = holm([contrast.p for contrast in contrasts])
    contrasts = [c._replace(holm=p) for c, p in zip(contrasts, corrected, strict=True)]
    return sorted(contrasts, key=lambda c: (c.p, -c.difference, c.a, c.b))


def _contrast(a: str, b: str, shared: tuple[str, ...], differences: Floats) -> Contrast:
    differences = differences[~np.isnan(differences)]
    if differences.mean() < 0:
        a, b, differences = b, a, -differences
    p = wilcoxon(differences)
    return Contrast(
        a, b, shared, len(differences), float(differences.mean()), int((differences > 0).sum()), p, p
    )


def wilcoxon(differences: Floats) -> float:
    """Return the exact two-sided p of Wilcoxon's signed-rank test (Wilcoxon 1945).

    Differences of zero are dropped, equal ones share their rank, and the distribution is that over all signs
    of these very ranks, so ties need no approximation.

    Args:
        differences: `[n]` without NaN, some hundreds at most: the work grows with n^3.

    """
    values = differences[differences != 0]
    if len(values) == 0:
        return 1.0
    doubled = np.rint(2 * ranks(np.abs(values))).astype(int)
    chance = np.zeros(int(doubled.sum()) + 1)
    chance[0] = 1.0
    for rank in doubled:
        chance = (chance + np.concatenate([np.zeros(rank), chance[:-rank]])) / 2
    reached = int(doubled[values > 0].sum())
    return float(min(1.0, 2 * min(chance[: reached + 1].sum(), chance[reached:].sum())))


def scales(board: Board, found: Standing) -> Iterator[Scale]:
    """Yield how parameters, then pretraining images, go with the overall z: over all, then by family."""
    known = [(k, float(z)) for k, z in zip(kin(board), found.overall, strict=True) if k and not np.isnan(z)]
    families = [ALL, *sorted({k.family for k, _ in known})]
    for by, size in (("parameters", "params_m"), ("pretraining images", "data_m")):
        for family in families:
            pairs = [(getattr(k, size), z) for k, z in known if family in {ALL, k.family}]
            yield _scale(
                family, by, np.array([pair for pair in pairs if pair[0] is not None], dtype=np.float64)
            )


def _scale(family: str, by: str, pairs: Floats) -> Scale:
    n = len(pairs)
    if n < LEAST:
        return Scale(family, by, n, None, None, f"{n} backbones; {LEAST} are needed")
    if (pairs == pairs[0]).all(axis=0).any():
        return Scale(family, by, n, None, None, f"all {n} are the same")
    rho = spearman(pairs[:, 0], pairs[:, 1])
    return Scale(family, by, n, rho, spearman_interval(rho, n), "")
