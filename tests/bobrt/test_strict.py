"""A wrong file is named, with the key and the line, whatever is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.plan import Plan
from bobrt.errors import ExitCode, UsageError
from bobrt.spec import Frozen
from bobrt.strict import line_of, parse_json, read_toml

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import Ran

GOOD = """backbones = ["test_resnet"]
tasks = ["digits"]
runtimes = ["ort-cpu"]
precisions = ["fp32"]
"""
TRAINED = "[finetune]\nepochs = 1\nlr = 1e-3\nbatch = 8\n"


class Small(Frozen, frozen=True, kw_only=True):
    """A record of this test's own."""

    name: str
    sizes: list[int]


def problem(folder: Path, text: str) -> UsageError:
    """Return the error of reading `text` as a plan."""
    (folder / "plan.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_toml(folder / "plan.toml", Plan, "plan")
    assert str(folder / "plan.toml") in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


def test_a_good_plan_is_read(tmp_path: Path) -> None:
    """What is right passes, nested tables included."""
    (tmp_path / "plan.toml").write_text(GOOD + TRAINED, encoding="utf-8")
    plan = read_toml(tmp_path / "plan.toml", Plan, "plan")
    assert plan.backbones == ("test_resnet",)
    assert plan.finetune is not None
    assert plan.finetune.batch == 8


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (GOOD + "colour = 3\n", 5, "unknown key 'colour'"),
        (GOOD + TRAINED + "lrr = 1\n", 9, "unknown key 'finetune.lrr'"),
        (GOOD + "finetune = { epochs = 1, lr = 1.0, batch = 2, lrr = 3 }\n", 5, "unknown key 'finetune.lrr'"),
        (GOOD.replace('["fp32"]', '"fp32"'), 4, "key 'precisions': Expected `array`, got `str`"),
        (GOOD.replace('["fp32"]', '["fp32", 3]'), 4, "key 'precisions[1]': Expected `str`, got `int`"),
        (GOOD.replace('["fp32"]', "[]"), 4, "key 'precisions': Expected a list with at least one entry"),
        (GOOD + "timing = 3\n", 5, "key 'timing': Expected `object`, got `int`"),
        (GOOD + "reference = 2020-01-01\n", 5, "key 'reference': Expected `bool`, got `date`"),
        (GOOD + "batches = [0]\n", 5, "key 'batches[0]': Expected `int` >= 1"),
        (GOOD + 'batches = ["free"]\n', 5, "key 'batches[0]': Invalid enum value 'free'"),
        (GOOD + TRAINED.replace("1e-3", '"x"'), 7, "key 'finetune.lr': Expected `float`, got `str`"),
        (GOOD + TRAINED.replace("= 1\n", "= 0\n"), 6, "key 'finetune.epochs': Expected `int` >= 1"),
        (GOOD + "\n[finetune]\nepochs = 1\n", 6, "key 'finetune.lr' is missing"),
        (GOOD + 'finetune = { epochs = 1, lr = "x", batch = 2 }\n', 5, "key 'finetune.lr': Expected `float`"),
        (GOOD + 'finetune.epochs = 1\nfinetune.lr = "x"\nfinetune.batch = 2\n', 6, "key 'finetune.lr'"),
        (GOOD + "[timing]\nmin_s = nan\n", 6, "key 'timing.min_s': Expected `float` > 0"),
        (GOOD + "[timing]\nthroughput_batches = [\n  8,\n  0,\n]\n", 6, "key 'timing.throughput_batches[1]'"),
    ],
)
def test_what_is_wrong_in_a_plan_is_named_with_its_line(
    tmp_path: Path, text: str, line: int, says: str
) -> None:
    """File, line and key are in the one line of the error."""
    message = problem(tmp_path, text).message
    assert f", line {line}: {says}" in message


def test_a_missing_key_at_the_top_is_named(tmp_path: Path) -> None:
    """A key that is nowhere has no line; the file and the key are named."""
    message = problem(tmp_path, GOOD.replace('tasks = ["digits"]\n', "")).message
    assert message.endswith("plan.toml: key 'tasks' is missing")


def test_what_is_not_toml_is_named_with_its_line(tmp_path: Path) -> None:
    """The parser's own line and column are kept."""
    assert (
        "plan.toml is not TOML: Invalid value (at line 5," in problem(tmp_path, GOOD + "seeds = \n").message
    )


@pytest.mark.parametrize(
    ("key", "near"), [("precision", "precisions"), ("finetune.epoch", "finetune.epochs")]
)
def test_an_unknown_key_is_answered_with_the_nearest(tmp_path: Path, key: str, near: str) -> None:
    """Did you mean works for keys of tables too."""
    table, _, name = key.rpartition(".")
    text = GOOD + (TRAINED if table else "") + f"{name} = 1\n"
    assert problem(tmp_path, text).hint.startswith(f"did you mean {near}")


def test_a_key_like_no_other_gets_no_guess(tmp_path: Path) -> None:
    """No suggestion is better than a wild one."""
    assert not problem(tmp_path, GOOD + "zzzz = 1\n").hint


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """The path is in the error."""
    with pytest.raises(UsageError, match=r"plan .*absent\.toml does not exist"):
        read_toml(tmp_path / "absent.toml", Plan, "plan")


@pytest.mark.parametrize("content", [b"\xff\xfe name", None], ids=["not-utf8", "a-folder"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    """Bytes that are no text, and a folder where a file should be."""
    path = tmp_path / "plan.toml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(UsageError, match=r"plan .*plan\.toml cannot be read"):
        read_toml(path, Plan, "plan")


def test_the_command_line_says_the_same(here: Callable[..., Ran], tmp_path: Path) -> None:
    """A wrong plan is exit code 2 and one line on stderr, before anything is made."""
    path = tmp_path / "mine.toml"
    path.write_text(GOOD + TRAINED + "lrr = 1\n", encoding="utf-8")
    ran = here("bench", "--plan", path)
    assert ran.code == ExitCode.USAGE
    assert not ran.out
    assert ran.err.startswith(f"error: plan {path}, line 9: unknown key 'finetune.lrr'\n\nhint: did you mean")
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("a = 1\nb = 2\n", "b", 2),
        ("a = 1\n[t]\na = 2\n", "a", 1),
        ("a = 1\n[t]\na = 2\n", "t.a", 3),
        ("[t]\na = 2\n[t.u]\na = 3\n", "t.u.a", 4),
        ("[ t . u ]\na = 3\n", "t.u.a", 2),
        ("[[t]]\na = 3\n", "t[0].a", 2),
        ("[[t]]\na = 3\n[[t]]\nb = 3\n", "t[0].a", 2),
        ("t = { a = 3 }\n", "t.a", 1),
        ("x = 0\nt.a = 3\n", "t.a", 2),
        ('"t" = 3\n', "t", 1),
        ("[t]\nb = 1\n", "t.a", 1),
        ("[t]\nb = [\n  1,\n  2,\n]\n", "t.b[1]", 2),
        ("[u.t]\nb = 1\n", "t", None),
        ("ab = 1\n", "a", None),
        ("# a = 1\n", "a", None),
        ("", "a", None),
    ],
)
def test_line_of_finds_a_key_however_it_is_written(text: str, key: str, line: int | None) -> None:
    """Plain, nested, dotted, quoted and inline keys; for a key that is not set, its table."""
    assert line_of(text, key) == line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Input data was truncated"),
        ('{"name": "a", "sizes": [1, 2', "Input data was truncated"),
        ('{"name": "a", "sizes": [1, "2"]}', r"key 'sizes\[1\]': Expected `int`, got `str`"),
        ('{"name": "a"}', "key 'sizes' is missing"),
        ('{"name": "a", "sizes": [], "more": 1}', "unknown key 'more'"),
        ('{"name": "a", "sizes": [NaN]}', "malformed"),
    ],
)
def test_damaged_json_is_named(text: str, says: str) -> None:
    """The file is named with the key, whether it was cut, edited or is another kind of thing."""
    with pytest.raises(UsageError, match=f"^manifest /x.json is damaged: .*{says}"):
        parse_json(text, Small, "manifest /x.json")


def test_json_that_is_nested_without_end_is_named() -> None:
    """Where anything may stand, as in a manifest's details, brackets may too."""
    with pytest.raises(UsageError, match=r"^manifest /x\.json is damaged: nested too deeply"):
        parse_json('{"detail": ' + 3000 * "[" + 3000 * "]" + "}", dict, "manifest /x.json")
