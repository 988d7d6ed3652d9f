"""Flags > BOBRT_* > ./bobrt.toml > the user's config file > defaults, each value with its origin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import run_bobrt

from bobrt import config
from bobrt.errors import ExitCode, UsageError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a working folder with nothing in them; return the home."""
    for name in ("BOBRT_CACHE", "BOBRT_RESULTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home" / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "caches"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return tmp_path / "home"


def users_file(home: Path, text: str) -> Path:
    """Write the user's own config file."""
    path = home / "config" / "bobrt" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_every_level_beats_the_one_below(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Added one after another from the weakest, each takes over, and says where it comes from."""
    work = Path.cwd()
    assert config.load().results == (work / "results", "default")
    assert config.load().cache == (home / "caches" / "bobrt", "default")

    users = users_file(home, 'results = "/users"\ncache = "~/c"\n')
    assert config.load().results == (Path("/users"), str(users))
    assert config.load().cache == (home / "c", str(users))

    (work / "bobrt.toml").write_text('results = "here"\n', encoding="utf-8")
    assert config.load().results == (work / "here", str(work / "bobrt.toml"))
    assert config.load().cache == (home / "c", str(users))

    monkeypatch.setenv("BOBRT_RESULTS", "from-env")
    assert config.load().results == (work / "from-env", "BOBRT_RESULTS")

    assert config.load(results=Path("flag")).results == (work / "flag", "--results")


def test_an_empty_variable_is_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """`BOBRT_RESULTS= bobrt report` does not mean the current folder."""
    monkeypatch.setenv("BOBRT_RESULTS", "")
    assert config.load().results.origin == "default"


def test_without_xdg_the_folders_are_in_the_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard places, where the variables are not set."""
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME")
    path = home / ".config" / "bobrt" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text('results = "r"\n', encoding="utf-8")
    assert config.load().cache.path == home / ".cache" / "bobrt"
    assert config.load().results == (path.parent / "r", str(path))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cache = 3\n", r"bobrt\.toml, line 1: key 'cache': Expected `str"),
        ('results = "x"\nresult = "y"\n', r"bobrt\.toml, line 2: unknown key 'result'"),
        ("cache =\n", r"bobrt\.toml is not TOML"),
    ],
)
def test_a_wrong_config_file_is_named(text: str, says: str) -> None:
    """File, line and key: it is never passed over in silence."""
    Path("bobrt.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=f"config file .*{says}"):
        config.load()


def test_the_command_line_reads_the_same_settings(home: Path, tmp_path: Path) -> None:
    """`bobrt doctor` shows each folder with what set it; a wrong file stops a verb with exit code 2."""
    users_file(home, 'cache = "cache"\n')
    Path("bobrt.toml").write_text('results = "mine"\n', encoding="utf-8")
    env = {"XDG_CONFIG_HOME": str(home / "config"), "XDG_CACHE_HOME": str(home / "caches")}
    ran = run_bobrt("doctor", "--json", env=env)
    details = {check["name"]: check["detail"] for check in json.loads(ran.out)["checks"]}
    work = tmp_path / "work"
    assert details["results"].startswith(f"{work / 'mine'} (from {work / 'bobrt.toml'}), ")
    assert details["cache"].startswith(f"{home / 'config/bobrt/cache'} (from ")
    env["BOBRT_RESULTS"] = "elsewhere"
    report = run_bobrt("report", env=env)
    assert report.code == ExitCode.NOTHING_MATCHED
    assert report.err.startswith(f"error: no results in {work / 'elsewhere'}\n")
    assert f"no results in {work / 'flag'}\n" in run_bobrt("report", "--results", "flag", env=env).err
    Path("bobrt.toml").write_text("result = 1\n", encoding="utf-8")
    wrong = run_bobrt("report", env=env)
    assert wrong.code == ExitCode.USAGE
    assert "bobrt.toml, line 1: unknown key 'result'\n\nhint: did you mean results?" in wrong.err
