"""Plans: what is asked, each cell once; and what is wrong with a plan, in one line."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
import pytest
from support import TINY

from bench import plan as plans
from bench.decide import Desk
from bobrt.catalogue import backbone
from bobrt.errors import UsageError
from bobrt.spec import Protocol, Search

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def asked(path: Path | str, **changes: object) -> list[str]:
    """Return every cell of a plan in words."""
    return [str(question.cell) for question in plans.questions(plans.load(str(path), changes))]


def test_lists_are_crossed_and_the_reference_comes_first() -> None:
    """The tiny plan asks for its reference and every runtime at every precision."""
    assert asked(TINY) == [
        "test_resnet digits torch fp32",
        "test_resnet digits ort-cpu fp32",
        "test_resnet digits ort-cpu fp16",
        "test_resnet digits ort-cpu int8",
        "test_resnet digits tensorrt-rtx fp32",
        "test_resnet digits tensorrt-rtx fp16",
        "test_resnet digits tensorrt-rtx int8",
    ]


def test_default_plan_asks_five_backbones_from_five_families() -> None:
    """Each family with its reference, at three precisions in two runtimes, from random weights."""
    chosen = plans.load("quick")
    cells = [question.cell for question in plans.questions(chosen)]
    assert "quick" in plans.bundled()
    assert len({backbone(name).family for name in chosen.backbones}) == 5
    assert len(cells) == 5 * (1 + 2 * 3)
    assert {cell.weights for cell in cells} == {"random"}
    assert len({cell.key for cell in cells}) == len(cells)


def test_cells_of_one_checkpoint_stand_side_by_side() -> None:
    """All that one training feeds comes before the next training."""
    cells = [
        question.cell
        for question in plans.questions(plans.load(str(TINY), {"seeds": (0, 1), "precisions": ("fp32",)}))
    ]
    assert [(cell.seed, cell.runtime) for cell in cells] == [
        (seed, runtime) for seed in (0, 1) for runtime in ("torch", "ort-cpu", "tensorrt-rtx")
    ]


def test_a_cell_that_is_asked_twice_is_answered_once() -> None:
    """Repeated names, aliases of one name, and a reference that is also asked for give one cell each."""
    assert asked(
        TINY, backbones=("resnet", "resnet50.a1_in1k"), runtimes=("torch",), precisions=("fp32",)
    ) == ["resnet50.a1_in1k digits torch fp32"]


def test_flags_replace_keys_of_the_plan() -> None:
    """A flag's list takes the place of the plan's, and the rest stays."""
    assert asked(TINY, runtimes=("ort-cpu",), precisions=("fp16",), batches=(1, "dynamic"), seeds=(3,)) == [
        "test_resnet digits torch fp32 seed 3",
        "test_resnet digits ort-cpu fp16 batch 1 seed 3",
        "test_resnet digits ort-cpu fp16 seed 3",
    ]


def test_a_drop_that_was_typed_replaces_the_plans() -> None:
    """One point where neither says anything; 0 is a goal too."""
    assert plans.load("quick").max_drop == 1.0
    assert [plans.load(str(TINY), max_drop=drop).max_drop for drop in (None, 0.0, 2.5)] == [100.0, 0.0, 2.5]


def test_without_a_reference_only_what_is_listed_is_asked(plan: Callable[..., Path]) -> None:
    """`reference = false` takes the PyTorch row away."""
    path = plan(reference=False, runtimes=["ort-cpu"], precisions=["fp32"])
    assert asked(path) == ["test_resnet digits ort-cpu fp32"]


def test_a_local_checkpoint_is_named_by_its_bytes(tmp_path: Path) -> None:
    """The same file under another name is the same question; other bytes are another one."""
    first, again = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    first.write_bytes(b"weights")
    again.write_bytes(b"weights")
    assert plans.weights_of(str(first)) == (f"file:{hashlib.sha256(b'weights').hexdigest()}", first)
    assert plans.weights_of(str(first))[0] == plans.weights_of(str(again))[0]
    again.write_bytes(b"weight")
    assert plans.weights_of(str(first))[0] != plans.weights_of(str(again))[0]


GOOD = TINY.read_text()


@pytest.mark.parametrize(
    ("was", "becomes", "line", "words", "hint"),
    [
        ("runtimes =", "runtime =", 6, "unknown key 'runtime'", "did you mean runtimes"),
        ("min_n =", "min_m =", 16, "unknown key 'timing.min_m'", "did you mean timing.min_"),
        ("epochs = 2", 'epochs = "one"', 10, "key 'finetune.epochs': Expected `int`, got `str`", ""),
        ("epochs = 2", "epochs = 0", 10, "key 'finetune.epochs': Expected `int` >= 1", ""),
        ('["test_resnet"]', '"test_resnet"', 3, "key 'backbones': Expected `array`, got `str`", ""),
        ('["test_resnet"]', '["test_resnet", 3]', 3, "key 'backbones[1]'", ""),
        (
            '["fp32", "fp16", "int8"]',
            "[]",
            7,
            "key 'precisions': Expected a list with at least one entry",
            "",
        ),
        ("throughput_batches = [8]", "throughput_batches = [0]", 17, "'timing.throughput_batches[0]'", ""),
        ("min_s = 0.1", "min_s = -1", 15, "key 'timing.min_s': Expected `float` > 0.0", ""),
        ("min_s = 0.1", "min_s = inf", 15, "key 'timing.min_s': Expected `float` <", ""),
        ("warmup_s = 0.1", "warmup_s = nan", 14, "key 'timing.warmup_s'", ""),
        ('weights = ["random"]', "seeds = [-1]", 5, "key 'seeds[0]': Expected `int` >= 0", ""),
        ('weights = ["random"]', "batches = [0]", 5, "key 'batches[0]'", ""),
        ('weights = ["random"]', "batches = [2147483648]", 5, "key 'batches[0]'", ""),
        ('weights = ["random"]', 'batches = ["free"]', 5, "key 'batches[0]'", ""),
        ("max_drop = 100.0", "max_drop = -1", 8, "key 'max_drop': Expected `float` >= 0.0", ""),
        ("max_drop = 100.0", "max_drop = 101", 8, "key 'max_drop': Expected `float` <= 100.0", ""),
        ("max_drop = 100.0", 'max_drop = "1 %"', 8, "key 'max_drop': Expected `float`, got `str`", ""),
        ('"test_resnet"', '"test_resnt"', 3, "unknown backbone 'test_resnt'", "did you mean test_resnet"),
        ('"digits"', '"digit"', 4, "unknown task 'digit'", "did you mean digits"),
        ('"ort-cpu"', '"ort-cup"', 6, "unknown runtime 'ort-cup'", "did you mean ort-cpu"),
        ('"fp16"', '"fp61"', 7, "unknown precision 'fp61'", "did you mean fp16"),
        (
            'weights = ["random"]',
            'protocols = ["finetun"]',
            5,
            "unknown protocol 'finetun'",
            "did you mean finetune",
        ),
    ],
)
def test_a_wrong_plan_is_named_with_key_and_line(  # noqa: PLR0913, PLR0917 - what is wrong, and what is said
    tmp_path: Path, was: str, becomes: str, line: int, words: str, hint: str
) -> None:
    """The error gives file, line, key and what is wrong with it; a misspelling gets its neighbour."""
    assert GOOD.count(was) == 1
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace(was, becomes))
    with pytest.raises(UsageError) as caught:
        plans.load(str(path))
    assert f"plan {path}, line {line}" in caught.value.message
    assert words in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"backbones = [", "is not TOML: Invalid value (at end of document)"),
        (b"tasks = ['digits']\nbackbones == 3", "is not TOML: Invalid value (at line 2, column 12)"),
        (b"\xff\xfe", "cannot be read: 'utf-8' codec"),
        (b"seeds = [" + 5000 * b"9" + b"]", "is not TOML: Exceeds the limit"),
        (b"tasks = " + 3000 * b"[" + 3000 * b"]", "is nested too deeply"),
        (b"", "key 'backbones' is missing"),
        (GOOD.replace("[finetune]", "[finetuned]").encode(), "line 9: unknown key 'finetuned'"),
        (GOOD[: GOOD.index("[finetune]")].encode(), "fine-tunes and has no [finetune] table"),
        (GOOD.replace("lr = 3e-3\n", "").encode(), "line 9: key 'finetune.lr' is missing"),
    ],
    ids=[
        "cut off",
        "no value",
        "not text",
        "long",
        "deep",
        "empty",
        "table misspelt",
        "no recipe",
        "half a recipe",
    ],
)
def test_a_file_that_is_no_plan_is_named(tmp_path: Path, text: bytes, words: str) -> None:
    """Whatever the bytes, the answer is one line with the file in it."""
    path = tmp_path / "mine.toml"
    path.write_bytes(text)
    with pytest.raises(UsageError) as caught:
        plans.load(str(path))
    assert f"plan {path}" in caught.value.message
    assert words in caught.value.message


def test_a_plan_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A missing file, a folder and a misspelt bundled name each get their own line."""
    with pytest.raises(UsageError, match=r"none\.toml does not exist"):
        plans.load(str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match=r"cannot be read: .*directory"):
        plans.load(str(tmp_path))
    with pytest.raises(UsageError, match="unknown plan 'quik'") as caught:
        plans.load("quik")
    assert "did you mean quick" in caught.value.hint


def test_a_flags_mistake_is_not_blamed_on_the_plan() -> None:
    """A wrong name that came from the command line is told without the plan's file and line."""
    with pytest.raises(UsageError) as caught:
        plans.load(str(TINY), {"precisions": ("fp61",)})
    assert caught.value.message == "unknown precision 'fp61'"


def test_weights_that_are_no_file_are_named() -> None:
    """Neither of the two words nor a file: the two words are the hint."""
    with pytest.raises(UsageError, match=r"'randm' are no file") as caught:
        plans.questions(plans.load(str(TINY), {"weights": ("randm",)}))
    assert "did you mean random" in caught.value.hint


SEARCH = """
[search]
lr = [1e-3, 3e-3]
layer_decay = [0.75, 1.0]
"""


def test_a_search_is_the_same_for_every_backbone_and_names_other_checkpoints(tmp_path: Path) -> None:
    """Four trials for each, in the options that name the checkpoint; without the table there are none."""
    path = tmp_path / "plan.toml"
    path.write_text(GOOD.replace('["test_resnet"]', '["test_resnet", "test_vit_patch8"]') + SEARCH)
    desk = Desk(plans.load(str(path)), tmp_path / "cache", tmp_path / "results")
    options = [desk._checkpoint(question).options for question in plans.questions(desk.plan)]
    budgets = {msgspec.json.encode(one["search"]) for one in options}
    assert len(budgets) == 1
    assert len(msgspec.json.decode(budgets.pop(), type=Search).trials()) == 4
    plain = Desk(plans.load(str(TINY)), tmp_path / "cache", tmp_path / "results")
    assert {plain._checkpoint(question).options["search"] for question in plans.questions(plain.plan)} == {
        None
    }


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("[search]\nlr = [1e-3]\n", "1 trial is no search", "give a key several values"),
        ("[search]\n", "1 trial is no search", "lr = [1e-3, 3e-3]"),
        ("[search]\nepochs = [1, 2]\n", "unknown key 'search.epochs'", ""),
        ("[search]\nlr = [0]\n", "key 'search.lr[0]': Expected `float` > 0.0", ""),
        ("[search]\nlayer_decay = [1.5]\n", "key 'search.layer_decay[0]': Expected `float` <= 1.0", ""),
    ],
)
def test_a_wrong_search_is_named(tmp_path: Path, text: str, says: str, hint: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(GOOD + text)
    with pytest.raises(UsageError) as caught:
        plans.load(str(path))
    assert says in caught.value.message
    assert hint in caught.value.hint


def test_a_layer_decay_is_searched_and_never_set_for_all(tmp_path: Path) -> None:
    """The study gave every architecture the value that suits a ViT; its own recipe alone still does."""
    path = tmp_path / "plan.toml"
    path.write_text(GOOD.replace("[timing]", "layer_decay = 0.75\n[timing]"))
    with pytest.raises(UsageError, match="what suits one architecture would be set for all") as caught:
        plans.load(str(path))
    assert caught.value.hint == "let it be searched: [search] layer_decay = [0.75, 1.0]"
    assert ", key 'layer_decay'" in caught.value.message
    assert plans.load("battle").recipe(Protocol.FINETUNE, "resnet50.a1_in1k").layer_decay == 0.75  # type: ignore[union-attr]


def test_one_name_is_one_checkpoint_in_every_task(tmp_path: Path) -> None:
    """The study's tasks loaded different files under one name: here all begin from one entry."""
    plan = plans.load(str(TINY), {"tasks": ("digits", "digits:probe", "digits@10shot:lowshot", "digits-0-7")})
    desk = Desk(plan, tmp_path / "cache", tmp_path / "results")
    options = [desk._checkpoint(question).options for question in plans.questions(plan)]
    assert len({one["task"]["name"] for one in options}) == 3
    assert len({msgspec.json.encode([one["backbone"], one["weights"]]) for one in options}) == 1
