"""What becomes a board: records of one engine kind, or a table somebody published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from boards import PUBLISHED, made, published

from bench import store
from bench.boards.board import Engines, Origin, Reference, from_results, mean
from bench.boards.score_files import from_scores
from bobrt.errors import UsageError
from bobrt.result import Answer
from bobrt.spec import Precision, Protocol, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bobrt.result import Result

    Make = Callable[..., Result]

HEAD = 'title = "t"\nsource = "s"\ntable = "scores.csv"\n'
COLUMN = '[[setting]]\nname = "one"\ngroup = "g"\nmetric = "top1"\n'


def answer(question: str, value: float | None, **changes: Any) -> Answer:
    """Return an answer of the gauntlet."""
    given = {"kind": "corruption", "metric": "top1", "higher_is_better": True, "n": 200, "ci95": None}
    return Answer(question=question, value=value, reference=None, drop=None, **{**given, **changes})


def write(folder: Path, toml: str, table: str) -> Path:
    """Write a published table and return its first file."""
    (folder / "scores.csv").write_text(table)
    (folder / "scores.toml").write_text(toml)
    return folder / "scores.toml"


def test_a_board_for_each_machine_runtime_precision_and_batch(make_result: Make) -> None:
    """What is not the same engine kind is never one standing; fp32 comes before int8."""
    kinds = [{}, {"precision": Precision.INT8}, {"runtime": "torch"}, {"batch": 8}]
    boards = from_results([make_result("a", cell=kind) for kind in kinds])

    told = [board.engines for board in boards]
    assert [(e.runtime, e.precision, e.batch) for e in told if e] == [
        ("ort-cpu", "fp32", "8"),
        ("ort-cpu", "fp32", "dynamic"),
        ("ort-cpu", "int8", "dynamic"),
        ("torch", "fp32", "dynamic"),
    ]
    assert boards[0].title == f"ort-cpu fp32, batch 8, on {make_result().system.id}"
    assert told[0] == Engines.of(make_result("a", cell={"batch": 8}))


def test_settings_are_task_protocol_metric_and_question(make_result: Make) -> None:
    """Every score has its column: direction, chance and group from the catalogue and the record."""
    asked = [answer("corruptions", 0.5)]
    asked += [answer("reliability", 0.02, kind="reliability", metric="ece", higher_is_better=False)]
    rows = [make_result("a", 0.9, gauntlet=asked), make_result("b", 0.8)]
    rows += [
        make_result("a", 0.7, cell={"protocol": Protocol.KNN}),
        make_result("a", 0.6, cell={"task": "mine"}),
    ]
    (board,) = from_results(rows)

    assert [tuple(setting) for setting in board.settings] == [
        ("digits finetune top1", "classification", "top1", True, 0.1, 1.0),
        ("digits knn top1", "classification", "top1", True, 0.1, 1.0),
        ("mine finetune top1", "classification", "top1", True, None, None),
        ("digits finetune corruptions top1", "corruption", "top1", True, 0.1, 1.0),
        ("digits finetune reliability ece (lower)", "reliability", "ece", False, 1.0, 0.0),
    ]
    assert board.backbones == ["a", "b"]
    np.testing.assert_array_equal(
        board.scores[:, :, 0], [[0.9, 0.7, 0.6, 0.5, 0.02], [0.8, np.nan, np.nan, np.nan, np.nan]]
    )
    assert board.signs.tolist() == [1, 1, 1, 1, -1]


def test_a_variant_of_a_task_has_its_tasks_chance(make_result: Make) -> None:
    """`digits@10shot` is guessed as well as digits, and is a setting of its own."""
    (board,) = from_results([make_result("a", cell={"task": "digits@10shot"})])
    assert board.settings[0][:2] == ("digits@10shot finetune top1", "classification")
    assert board.settings[0].random == 0.1


def test_what_was_not_answered_whole_is_not_on_a_board(make_result: Make) -> None:
    """Failed cells and limited ones are left out; an answer without a finite value is a missing cell."""
    rows = [make_result("a", 0.9, gauntlet=[answer("x", None), answer("y", float("nan")), answer("z", 0.4)])]
    rows += [make_result("b", limit=50), make_result("c", state=State.FAILED, reason="no", accuracy=None)]
    rows += [make_result("d", float("nan")), make_result("e", accuracy=None)]
    (board,) = from_results(rows)

    assert board.backbones == ["a"]
    assert [setting.name for setting in board.settings] == ["digits finetune top1", "digits finetune z top1"]


def test_no_results_and_only_failed_ones_are_no_board(make_result: Make) -> None:
    """There is nothing to show, and nothing breaks."""
    assert from_results([]) == []
    assert from_results([make_result("a", state=State.FAILED, reason="no", accuracy=None)]) == []


def test_seeds_are_an_axis_and_weights_are_another_backbone(make_result: Make) -> None:
    """The mean is over seeds; random and pretrained weights of one backbone do not mix."""
    rows = [make_result("a", value, cell={"seed": seed}) for seed, value in enumerate((0.7, 0.8, 0.9))]
    rows += [make_result("a", 0.95, cell={"weights": "pretrained"}), make_result("b", 0.5, cell={"seed": 2})]
    (board,) = from_results(rows)

    assert board.backbones == ["a (pretrained)", "a (random)", "b"]
    assert board.origins == [Origin("a", "pretrained"), Origin("a", "random"), Origin("b", "random")]
    assert board.scores.shape == (3, 1, 3)
    np.testing.assert_allclose(board.values[:, 0], [0.95, 0.8, 0.5], rtol=1e-12)


def test_of_two_records_of_one_cell_the_newest_counts(make_result: Make) -> None:
    """Whatever order they are read in, and it is said."""
    old = make_result("a", 0.5, started="2020-01-01T00:00:00+00:00")
    new = make_result("a", 0.9, started="2021-01-01T00:00:00+00:00")
    for rows in ([old, new], [new, old]):
        (board,) = from_results(rows)
        assert board.values.tolist() == [[0.9]]
        assert board.notes == ["1 records have a newer one of the same cell"]


def test_a_pool_is_named(make_result: Make) -> None:
    """Who is in the pool is the folder's to say; of a name that has no result it is said."""
    rows = [make_result(name) for name in "abc"]
    (board,) = from_results(rows, Reference(pool=["a", "z", "b"], weights={"classification": 2.0}))
    assert board.pool.tolist() == [True, True, False]
    assert board.weights == {"classification": 2.0}
    assert board.notes == ["z is of the pool and not here"]


def test_a_folder_names_its_pool(tmp_path: Path) -> None:
    """In a file of its own; without it all are alike, and a wrong one is named."""
    assert store.read_boards(tmp_path).against == Reference()
    (tmp_path / "standing.toml").write_text('pool = ["a"]\n[weights]\nretrieval = 2\n')
    assert store.read_boards(tmp_path).against == Reference(pool=["a"], weights={"retrieval": 2.0})
    (tmp_path / "standing.toml").write_text("[weights]\nretrieval = -2\n")
    found = store.read_boards(tmp_path)
    assert found.against == Reference()
    assert ["key 'weights" in problem for problem in found.problems] == [True]


def test_the_same_name_twice_is_an_error() -> None:
    """Two rows of one name could not be told apart in a report."""
    with pytest.raises(UsageError, match="two backbones are called 'x'"):
        made([[1.0], [2.0]], backbones=["x", "x"])


def test_a_negative_weight_is_an_error() -> None:
    """A group cannot count against its own winners."""
    with pytest.raises(UsageError, match="weight -1 of g"):
        made([[1.0]], weights={"g": -1.0})


def test_mean_of_what_is_there() -> None:
    """NaN is passed over, and where nothing is there is no mean."""
    values = np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(mean(values, axis=1), [2.0, np.nan])


def test_the_published_table_is_whole() -> None:
    """33 backbones, 8 settings, nothing missing, each row known to the catalogue."""
    board = published()
    assert board.scores.shape == (33, 8, 1)
    assert not np.isnan(board.scores).any()
    assert all(origin.backbone for origin in board.origins)
    assert len({origin.backbone for origin in board.origins}) == 33
    assert "nb_plotting.ipynb, cell 8" in board.source


def test_a_table_may_have_holes_and_seeds(tmp_path: Path) -> None:
    """An empty cell was not measured; a column `seed` makes rows of one backbone one."""
    toml = HEAD + 'pool = ["a"]\nweights = { g = 2.0 }\n' + COLUMN
    board = from_scores(write(tmp_path, toml, "backbone,one,seed\na,0.5,0\na,0.7,1\nb,,0\n"))

    assert board.backbones == ["a", "b"]
    assert board.pool.tolist() == [True, False]
    np.testing.assert_array_equal(board.scores[:, 0], [[0.5, 0.7], [np.nan, np.nan]])


@pytest.mark.parametrize(
    ("toml", "table", "said"),
    [
        (HEAD + COLUMN, "backbone,two\na,1\n", "have no column 'one'"),
        (HEAD + COLUMN, "backbone,one\na,high\n", "line 2: 'high' is no number"),
        (HEAD + COLUMN, "backbone,one\na,inf\n", "line 2: 'inf' is no score"),
        (HEAD + COLUMN, "backbone,one\na,1\na,2\n", "line 3: 'a' stands there twice"),
        (HEAD + COLUMN, "backbone,one\na\n", "line 2: not as many cells as columns"),
        (HEAD + COLUMN, "backbone,one\na,1,2\n", "line 2: not as many cells as columns"),
        (HEAD + 'pool = ["z"]\n' + COLUMN, "backbone,one\na,1\n", "'z' of the pool is not in scores.csv"),
        (HEAD + COLUMN + COLUMN, "backbone,one\na,1\n", "two settings are called 'one'"),
        (HEAD + COLUMN + "best = 1\n", "backbone,one\na,1\n", "line 8: unknown key 'setting[0].best'"),
        ('title = "t"\n', "", "key 'source' is missing"),
        ("title = ", "", "is not TOML"),
    ],
)
def test_a_damaged_table_is_named(tmp_path: Path, toml: str, table: str, said: str) -> None:
    """File, line and what is wrong; a folder's other results are still read."""
    path = write(tmp_path, toml, table)
    with pytest.raises(UsageError) as caught:
        from_scores(path)
    assert said in caught.value.message

    found = store.read_boards(tmp_path)
    assert found.published == []
    assert [said in problem for problem in found.problems] == [True]


def test_a_folder_has_its_published_tables(tmp_path: Path) -> None:
    """Wherever they lie in it; a folder that is not there has none."""
    assert [board.title for board in store.read_boards(PUBLISHED.parent).published] == [published().title]
    assert store.read_boards(tmp_path / "none") == ([], Reference(), [])


def test_a_record_read_back_makes_the_same_board(make_result: Make) -> None:
    """A board is made of what the record holds, nothing else."""
    result = make_result("a", 0.9, gauntlet=[answer("corruptions", 0.5)])
    again = msgspec.json.decode(msgspec.json.encode(result), type=type(result))
    assert from_results([again])[0].settings == from_results([result])[0].settings
