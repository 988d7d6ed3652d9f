"""Which blocks stay out of eight bits: the fewest that keep the goal, those that hurt most first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from onnx import helper

from bobrt.errors import BobrtError
from engines import hybrid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engines.hybrid import Hybrid

PARTS = {"stem": ["s"], "blocks.0": ["a", "b"], "blocks.1": ["c"], "blocks.2": ["d"], "head": ["h"]}


class Network:
    """A network whose blocks each lose so many points when they are converted."""

    def __init__(self, loses: dict[str, float]) -> None:
        self.loses = loses
        self.converted: list[frozenset[str]] = []

    def convert(self, kept: Sequence[str]) -> Path:
        """Return a path that names the nodes kept out."""
        self.converted.append(frozenset(kept))
        return Path(",".join(sorted(kept)) or "all")

    def lost(self, file: Path) -> float:
        """Return the sum over the blocks that are converted, some node of which was not kept out."""
        kept = set(file.name.split(","))
        return sum(self.loses.get(name, 0.0) for name, nodes in PARTS.items() if not set(nodes) <= kept)

    def search(self, goal: float) -> Hybrid:
        """Search with harm and drop both told by the blocks' own losses."""
        return hybrid.search(PARTS, self.convert, self.lost, self.lost, goal)


def test_a_file_that_keeps_the_goal_is_taken_whole() -> None:
    """One conversion, and no block is looked at."""
    network = Network({"blocks.0": 0.4, "head": 0.5})
    found = network.search(1.0)

    assert (found.kept, found.drop, str(found.file)) == ([], pytest.approx(0.9), "all")
    assert network.converted == [frozenset()]


@pytest.mark.parametrize(
    ("goal", "kept"),
    [
        (4.0, ["blocks.1"]),
        (3.0, ["blocks.1", "head"]),
        (1.0, ["blocks.1", "head", "blocks.0"]),
        (0.2, ["blocks.1", "head", "blocks.0", "stem"]),
        (0.0, ["blocks.1", "head", "blocks.0", "stem", "blocks.2"]),
    ],
)
def test_the_most_harmful_blocks_are_kept_out_and_no_more_than_it_takes(goal: float, kept: list[str]) -> None:
    """By the harm each does alone, not by where it stands in the graph."""
    network = Network({"stem": 0.5, "blocks.0": 1.0, "blocks.1": 5.0, "blocks.2": 0.1, "head": 2.0})
    found = network.search(goal)

    assert found.kept == kept
    assert found.drop <= goal
    assert found.drop == pytest.approx(network.lost(found.file))


def test_a_goal_that_no_choice_of_blocks_keeps_is_refused() -> None:
    """Where 16 bits beside the blocks lose more than the goal, nothing that is kept out helps."""
    network = Network({"blocks.0": 3.0})

    def drop(file: Path) -> float:
        return network.lost(file) + 1.14

    with pytest.raises(BobrtError) as caught:
        hybrid.search(PARTS, network.convert, network.lost, drop, 1.0)

    assert caught.value.message == (
        "precision-not-realised: with all 5 blocks kept out the file still loses 1.14 points, more than the "
        "1 allowed: what is beside the blocks costs that"
    )
    assert caught.value.hint == "allow it: --max-drop 1.2"


def test_every_node_of_a_block_goes_with_it() -> None:
    """A block is put back whole."""
    network = Network({"blocks.0": 3.0})
    assert str(network.search(1.0).file) == "a,b"


@pytest.mark.parametrize(
    ("node", "block"),
    [
        ("backbone.blocks.3.mlp.fc1/MatMul_9", "backbone.blocks.3"),
        ("backbone.stages.2.blocks.5.conv_dw/Conv_1", "backbone.stages.2.blocks.5"),
        ("backbone.layer1.0.conv1/Conv_2", "backbone.layer1.0"),
        ("backbone.blocks.2.1.conv_pw/Conv_3", "backbone.blocks.2.1"),
        ("backbone.stem.conv/Conv_0", "backbone.stem.conv"),
        ("head/Gemm_7", "head"),
        ("node_12", "node_12"),
    ],
)
def test_a_block_is_the_numbered_part_a_node_belongs_to(node: str, block: str) -> None:
    """In the names that timm's families give their modules."""
    assert hybrid.block_of(node) == block


def test_only_nodes_with_arithmetic_are_in_a_block() -> None:
    """A Relu is not quantised, so there is nothing to put back; the order is the graph's."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], name="stem/Conv_0"),
        helper.make_node("Relu", ["y"], ["z"], name="stem/Relu_1"),
        helper.make_node("MatMul", ["z", "v"], ["u"], name="blocks.0.fc/MatMul_2"),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [], []))

    assert hybrid.blocks(model) == {"stem": ["stem/Conv_0"], "blocks.0": ["blocks.0.fc/MatMul_2"]}
