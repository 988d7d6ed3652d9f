"""What can be known of an image before it is built: its files, its user, its entrypoint, its services."""

from __future__ import annotations

import fnmatch
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from dockerfile import FOLDER, IMAGES, ROOT, arguments, copied, read

if TYPE_CHECKING:
    from pathlib import Path

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


def test_smoke_hands_its_arguments_to_the_bench(tmp_path: Path) -> None:
    """By default one small backbone on the CPU; anything else in its place; never a whole run."""
    stand_in = tmp_path / "bobrt"
    stand_in.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n', encoding="utf-8")
    stand_in.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    for args in ([], ["a bundle", "--runtime", "tensorrt"]):
        subprocess.run([str(FOLDER / "smoke.sh"), *args], env=env, check=True)
    assert (tmp_path / "said").read_text(encoding="utf-8").splitlines() == [
        "doctor",
        "bench test_resnet --runtime ort-cpu --precision fp32 --limit 100 --repeat 1",
        "report",
        "doctor",
        "bench a bundle --runtime tensorrt --limit 100 --repeat 1",
        "report",
    ]
