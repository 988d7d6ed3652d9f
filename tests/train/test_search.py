"""A search: equal trials from one start, selected on validation, resumed where it was cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch

from bobrt.errors import BobrtError
from bobrt.spec import Search
from bobrt.tasks import cards
from train import finetune, model, search

if TYPE_CHECKING:
    from collections.abc import Callable

    from bobrt.artifacts import Artifact, Target, Workshop

FEW = cards.resolved("digits@10shot")
RATES = (3e-3, 1e-5, 1e-3)


def searched(wanted: Callable[..., Target], **lists: tuple[float, ...]) -> Target:
    """Describe a checkpoint on a hundred digits that a search is to find."""
    return wanted(task=FEW, recipe={"epochs": 2, "batch": 20}, search=Search(**lists))


@pytest.fixture(scope="module")
def found(
    shop_in: Callable[..., Workshop],
    wanted: Callable[..., Target],
    tmp_path_factory: pytest.TempPathFactory,
) -> Artifact:
    """The best of three learning rates."""
    return shop_in(tmp_path_factory.mktemp("search")).make(searched(wanted, lr=RATES))


def detail(artifact: Artifact) -> dict[str, Any]:
    return artifact.manifest.detail


def test_every_trial_is_told_and_the_best_on_validation_is_kept(found: Artifact) -> None:
    """Three trials for three values; the highest score among them is that of the checkpoint."""
    told = detail(found)
    assert [trial["lr"] for trial in told["search"]] == [*RATES]
    scores = [trial["validation"] for trial in told["search"]]
    assert told["validation"] == max(scores)
    assert told["chosen"] == {"lr": RATES[scores.index(max(scores))]}
    assert len(set(scores)) > 1  # else nothing was selected


def test_the_best_trial_is_the_training_by_its_values_alone(
    found: Artifact, shop: Workshop, wanted: Callable[..., Target]
) -> None:
    """Trials leave nothing to each other: its bits are those of a plain training with the chosen rate."""
    (rate,) = detail(found)["chosen"].values()
    plain = shop.make(wanted(task=FEW, recipe={"epochs": 2, "batch": 20, "lr": rate}))
    alone, best = (model.load(one.path)[0].state_dict() for one in (plain, found))
    assert all(torch.equal(alone[name], best[name]) for name in alone)


def test_a_value_at_the_end_of_its_list_is_named() -> None:
    """A better one may lie beyond it; a list of one value has no beyond, since it was not searched."""
    asked = Search(lr=RATES, weight_decay=(0.05,))
    assert asked.at_edge({"lr": 3e-3, "weight_decay": 0.05}) == ["lr"]
    assert asked.at_edge({"lr": 1e-5, "weight_decay": 0.05}) == ["lr"]
    assert asked.at_edge({"lr": 1e-3, "weight_decay": 0.05}) == []


def test_lists_are_crossed() -> None:
    """Two rates and two decays are four trials; a key without values is the recipe's own."""
    asked = Search(lr=(1.0, 2.0), layer_decay=(0.5, 1.0))
    assert asked.trials() == [
        {"lr": 1.0, "layer_decay": 0.5},
        {"lr": 1.0, "layer_decay": 1.0},
        {"lr": 2.0, "layer_decay": 0.5},
        {"lr": 2.0, "layer_decay": 1.0},
    ]


def test_a_search_that_was_cut_off_goes_on(
    found: Artifact, shop: Workshop, wanted: Callable[..., Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in its third trial, it trains that one alone, and ends with the same bits."""
    train, calls = finetune.run, []

    def run(net: Any, card: Any, transform: Any, recipe: Any, *rest: Any) -> Any:
        calls.append(recipe.lr)
        if len(calls) == len(RATES):
            raise KeyboardInterrupt
        return train(net, card, transform, recipe, *rest)

    monkeypatch.setattr(finetune, "run", run)
    with pytest.raises(KeyboardInterrupt):
        shop.make(searched(wanted, lr=RATES))
    again = shop.make(searched(wanted, lr=RATES))

    assert calls == [*RATES, RATES[-1]]
    assert (again.sha256, detail(again)) == (found.sha256, detail(found))
    assert not list(again.path.parent.glob("trial-*"))


def test_a_trial_whose_network_was_damaged_is_done_again(
    found: Artifact, shop: Workshop, wanted: Callable[..., Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flipped byte in the best network so far is found, and that trial trained anew."""
    train, calls = finetune.run, []

    def run(net: Any, card: Any, transform: Any, recipe: Any, *rest: Any) -> Any:
        calls.append(recipe.lr)
        if len(calls) == len(RATES):
            (kept,) = shop.cache.rglob(search.NET)
            content = bytearray(kept.read_bytes())
            content[-200] ^= 1
            kept.write_bytes(content)
            raise KeyboardInterrupt
        return train(net, card, transform, recipe, *rest)

    monkeypatch.setattr(finetune, "run", run)
    with pytest.raises(KeyboardInterrupt):
        shop.make(searched(wanted, lr=RATES))
    again = shop.make(searched(wanted, lr=RATES))

    assert len(calls) == len(RATES) + 2
    assert again.sha256 == found.sha256


def test_a_trial_that_diverges_is_an_answer_too(shop: Workshop, wanted: Callable[..., Target]) -> None:
    """It is told with its reason, and another is chosen."""
    told = detail(shop.make(searched(wanted, lr=(1e30, 1e-3))))
    lost, kept = told["search"]
    assert lost["validation"] is None
    assert "training diverged" in lost["problem"]
    assert "problem" not in kept
    assert told["chosen"] == {"lr": 1e-3}


def test_a_search_in_which_all_diverge_fails(shop: Workshop, wanted: Callable[..., Target]) -> None:
    with pytest.raises(BobrtError, match="every trial of the search diverged: training diverged") as caught:
        shop.make(searched(wanted, lr=(1e30, 1e31)))
    assert caught.value.hint == "search lower values of lr"


def test_layer_decay_of_one_is_none(shop: Workshop, wanted: Callable[..., Target]) -> None:
    """So a search may say whether it helps at all."""
    recipe = {"epochs": 1, "batch": 50}
    whole, none = (
        shop.make(wanted(task=FEW, recipe={**recipe, "layer_decay": decay})) for decay in (1.0, None)
    )
    first, second = (model.load(one.path)[0].state_dict() for one in (whole, none))
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in first)


def test_a_probe_tells_its_search_the_same_way(shop: Workshop, wanted: Callable[..., Target]) -> None:
    """Its values of C are a search too: what was tried, and which was kept."""
    told = detail(shop.make(wanted(task=FEW, recipe=None, protocol="probe")))
    assert told["chosen"]["c"] in [trial["c"] for trial in told["search"]]
    assert msgspec.convert(told["at_edge"], type=list[str]) in ([], ["c"])
