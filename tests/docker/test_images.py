"""What can be known of an image before it is built: its files, its user, its entrypoint, its services."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile import FOLDER, IMAGES, ROOT, arguments, copied, read

COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
every_image = pytest.mark.parametrize("image", IMAGES)


def ignored(path: str) -> bool:
    """Tell what Docker leaves out of the context: of all patterns that match, the last decides."""
    answer = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        kept = pattern.startswith("!")
        words = pattern.removeprefix("!").removeprefix("**/")
        ends = [path.split("/")[:depth] for depth in range(1, path.count("/") + 2)]
        tried = [part for end in ends for part in ("/".join(end), *([end[-1]] if "**/" in pattern else []))]
        if any(fnmatch.fnmatchcase(part, words) and part.count("/") == words.count("/") for part in tried):
            answer = not kept
    return answer


@every_image
def test_everything_that_is_copied_is_there_and_in_the_context(image: str) -> None:
    """A file that .dockerignore leaves out would end the build."""
    sources = [source for step in read(image) if step.word == "COPY" for source in copied(step)[0]]
    assert {"pyproject.toml", "constraints.txt", "bobrt", "bench", "engines", "train"} <= set(sources)
    assert [source for source in sources if not (ROOT / source).exists() or ignored(source)] == []


def test_what_an_image_has_no_use_for_stays_outside() -> None:
    """Results, environments, history, tests, what Python leaves behind, and a user's secrets."""
    outside = ["results/a.json", ".venv/bin/python", ".git/HEAD", "tests/conftest.py", ".env", "model.onnx"]
    outside += ["bobrt/__pycache__/a.pyc", "bobrt/data/__pycache__/a.pyc", "bench/published/a/b.json"]
    inside = ["bobrt/cli.py", "bobrt/catalogue/tasks.toml", "bench/plans/quick.toml", "docker/install.py"]
    assert [path for path in outside + inside if ignored(path)] == outside


@every_image
def test_an_image_ends_as_a_user_who_owns_nothing(image: str) -> None:
    """Not root, and whoever `--user` names may write to the two volumes."""
    steps = read(image)
    users = [step.text for step in steps if step.word == "USER"]
    assert users == ["${UID}"]
    assert int(arguments(steps)["UID"]) > 0
    (volumes,) = [step.text for step in steps if step.word == "VOLUME"]
    assert volumes == '["/cache", "/results"]'
    assert any("install -d -m 1777 /cache /results" in step.text for step in steps)
    (settings,) = [step.text for step in steps if step.word == "ENV" and "HOME=" in step.text]
    assert "XDG_CACHE_HOME=/cache" in settings
    assert "BOBRT_RESULTS=/results" in settings


@every_image
def test_the_bases_entrypoint_stays_and_the_command_is_ours(image: str) -> None:
    """NVIDIA's entrypoint sets up what its CUDA needs."""
    steps = read(image)
    assert [step for step in steps if step.word == "ENTRYPOINT"] == []
    assert steps[-1] == ("CMD", '["bobrt", "doctor"]')


@every_image
def test_the_base_is_an_argument_with_a_tag_and_no_invented_digest(image: str) -> None:
    """Every FROM is an argument's, so that a digest can be given; the default is a tag with a version."""
    steps = read(image)
    given = arguments(steps)
    bases = {name: value for name, value in given.items() if name.startswith("BASE")}
    assert bases
    for value in bases.values():
        assert re.fullmatch(r"[\w./-]+:\d[\w.-]+", value), value
    stages = [step.text.split(" AS ")[0] for step in steps if step.word == "FROM"]
    assert {f"${{{name}}}" for name in bases} <= set(stages)
    assert not any("sha256:" in step.text for step in steps)


@pytest.mark.parametrize("image", ["gpu", "run"])
def test_both_tensorrts_can_be_asked_for(image: str) -> None:
    """11 by default, 10 by one argument; the install is told which, and refuses another."""
    steps = read(image)
    stages = [step.text for step in steps if step.word == "FROM"]
    assert stages == [
        "${BASE} AS tensorrt-11",
        "${BASE_TENSORRT_10} AS tensorrt-10",
        "tensorrt-${TENSORRT}",
    ]
    given = arguments(steps)
    assert given["TENSORRT"] == "11"
    assert given["BASE_TENSORRT_10"].endswith(":26.05-py3")
    assert any('install.py --tensorrt "${TENSORRT}" ' in step.text for step in steps if step.word == "RUN")


@every_image
def test_an_image_says_what_it_is(image: str) -> None:
    """The annotations of the OCI that can be known here."""
    labels = " ".join(step.text for step in read(image) if step.word == "LABEL")
    for word in ("title", "description", "licenses", "revision"):
        assert f"org.opencontainers.image.{word}=" in labels


def test_a_bundle_is_benched_without_pytorch() -> None:
    """The slim image asks for no extra that brings PyTorch."""
    (line,) = [step.text for step in read("run") if "install.py " in step.text and step.word == "RUN"]
    assert set(line.split()[-1].split(",")) == {"tensorrt", "report"}


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = COMPOSE["services"]
    return found


def test_compose_builds_each_image_from_its_file() -> None:
    """From the repository's root, with arguments that the file knows."""
    assert set(services()) == set(IMAGES)
    for name, service in services().items():
        build = service["build"]
        assert (FOLDER / build["context"]).resolve() == ROOT
        assert build["dockerfile"] == f"docker/{name}.Dockerfile"
        assert set(build["args"]) <= set(arguments(read(name)))
        assert service["image"].startswith(f"bobrt:{name}")


def test_compose_has_a_profile_with_a_gpu_and_one_without() -> None:
    """Nothing starts unasked; only what needs a GPU reserves one."""
    assert {name: service["profiles"] for name, service in services().items()} == {
        "cpu": ["cpu"],
        "gpu": ["gpu"],
        "run": ["gpu"],
    }
    for name, service in services().items():
        devices = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
        assert devices == (
            [] if name == "cpu" else [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
        )
        assert service["init"] is True


def test_compose_keeps_both_folders() -> None:
    """Every mount is a volume of the image's, and its default is declared."""
    for service in services().values():
        mounts = [re.fullmatch(r"\$\{\w+:-(\w+)\}:(/\w+)", mount) for mount in service["volumes"]]
        assert [mount and mount[2] for mount in mounts] == ["/cache", "/results"]
        assert {mount[1] for mount in mounts if mount} == set(COMPOSE["volumes"])


def test_no_secret_is_written_down() -> None:
    """The token comes from whoever starts it."""
    for service in services().values():
        assert set(service["environment"].values()) == {None}


def test_smoke_stops_at_the_first_thing_that_fails(tmp_path: Path) -> None:
    """With a doctor that fails nothing is benched, the exit code is the doctor's, and nothing stays."""
    stand_in = tmp_path / "bin" / "bobrt"
    stand_in.parent.mkdir()
    stand_in.write_text(
        f'#!/bin/sh\necho "$@" "$HF_HUB_OFFLINE" >> {tmp_path}/said\nexit 3\n', encoding="utf-8"
    )
    stand_in.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    env = {"PATH": f"{stand_in.parent}:/usr/bin:/bin", "TMPDIR": str(tmp_path / "tmp")}
    done = subprocess.run([str(FOLDER / "smoke.sh")], env=env, check=False)
    assert done.returncode == 3
    assert (tmp_path / "said").read_text(encoding="utf-8") == "doctor 1\n"
    assert list((tmp_path / "tmp").iterdir()) == []


def reporting(folder: Path, *states: str) -> dict[str, str]:
    """Put a bobrt in a folder that notes its arguments and reports such rows; return its environment."""
    report = json.dumps({"schema": 1, "results": [{"state": state} for state in states]})
    stand_in = folder / "bobrt"
    stand_in.write_text(
        f"#!/bin/sh\necho \"$@\" >> {folder}/said\n[ \"$*\" != 'report --json' ] || echo '{report}'\n",
        encoding="utf-8",
    )
    stand_in.chmod(0o755)
    return {"PATH": f"{folder}:{Path(sys.executable).parent}:/usr/bin:/bin"}


def test_smoke_hands_its_arguments_to_the_bench(tmp_path: Path) -> None:
    """By default one small backbone on the CPU; anything else in its place; never a whole run."""
    env = reporting(tmp_path, "unsupported", "complete")
    for args in ([], ["a bundle", "--runtime", "tensorrt"]):
        subprocess.run([str(FOLDER / "smoke.sh"), *args], env=env, check=True)
    assert (tmp_path / "said").read_text(encoding="utf-8").splitlines() == [
        "doctor",
        "bench test_resnet --runtime ort-cpu --precision fp32 --limit 100 --repeat 1",
        "report",
        "report --json",
        "doctor",
        "bench a bundle --runtime tensorrt --limit 100 --repeat 1",
        "report",
        "report --json",
    ]


@pytest.mark.parametrize("states", [[], ["unsupported", "skipped"]])
def test_smoke_fails_where_nothing_was_measured(tmp_path: Path, states: list[str]) -> None:
    """A runtime that is not here is no error of the bench's, and no installation that works."""
    done = subprocess.run(
        [str(FOLDER / "smoke.sh"), "ok.onnx", "--runtime", "ort-cuda"],
        env=reporting(tmp_path, *states),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        "error: no cell is complete of: bobrt bench ok.onnx --runtime ort-cuda; the report above says why",
        "",
        "hint: bobrt doctor",
    ]


COLLECT = """
import sys
sys.modules.update(dict.fromkeys(["tensorrt_rtx", "torchmetrics", "playwright"]))
import pytest
sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""
"""Pytest where what the image leaves out cannot be imported."""


def test_what_the_readme_runs_on_a_gpu_can_be_collected_in_the_image() -> None:
    """It names every file with a test for a GPU, and none that needs more than the image has."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    (words,) = re.findall(r"python3 -m pytest ([^|]+?) \|\| status=", text)
    args = words.replace("\\\n", " ").split()
    done = subprocess.run(
        [sys.executable, "-P", "-c", COLLECT, *args], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    found = {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    marked = re.compile(r"^@?pytest\.mark\.gpu$|^pytestmark = .*\bpytest\.mark\.gpu\b", re.MULTILINE)
    having = {path for path in (ROOT / "tests").rglob("test_*.py") if marked.search(path.read_text("utf-8"))}
    assert found == {str(path.relative_to(ROOT)) for path in having}


@pytest.mark.parametrize("beside", [True, False])
def test_the_tests_find_bobrt_where_a_systems_python_has_it(tmp_path: Path, *, beside: bool) -> None:
    """Beside the interpreter, or where pip puts scripts: in /usr/local/bin for a Python in /usr/bin."""
    for folder in ["bin", "local"] if beside else ["local"]:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "bobrt").touch(0o755)
    code = f"import sys; sys.executable = '{tmp_path}/bin/python3'; import support; print(support.BOBRT)"
    env = os.environ | {"PATH": f"{tmp_path}/local:/usr/bin:/bin", "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, check=True)
    assert done.stdout.decode().strip() == str(tmp_path / ("bin" if beside else "local") / "bobrt")
