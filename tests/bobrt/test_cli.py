"""The surface of the command line: verbs, options, streams, exit codes, JSON, and a line for each mistake."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import pytest
import typer.main
from support import BOBRT, Ran, environment, run_here

from bobrt import __version__, cli
from bobrt.cli import app
from bobrt.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Bobrt = Callable[..., Ran]

HEAVY = ["torch", "timm", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "modelopt", "numpy", "sklearn"]

# Every verb with its arguments and options. A word may be added here; none may be changed or taken away.
SURFACE = {
    "train": "backbone --task --plan --weights --seed --output -o --json",
    "export": "backbone --task --plan --weights --batch --seed --bundle --output -o --json",
    "build": "backbone --task --plan --runtime --precision --weights --batch --seed --max-drop --output -o"
    " --json",
    "bench": "backbones --plan --task --data --protocol --gauntlet --surrogate --runtime --precision"
    " --weights --batch --seed --max-drop --limit --scenario --repeat --min-time --results --rerun"
    " --dry-run --format --json",
    "report": "folders --results --format --output -o --json",
    "compare": "before after --fail-above --force --format --json",
    "pick": "--task --protocol --runtime --precision --system --max-p50 --max-p99 --min-accuracy"
    " --min-images-per-s --max-bytes --max-memory --results --json",
    "list": "what --json",
    "doctor": "runtimes --json",
}


def strict(text: str) -> Any:
    """Return the one JSON document of a stdout, which holds nothing else and no NaN."""
    assert text.count("\n") == 1 or text.startswith("{\n")
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def modules_after(code: str) -> set[str]:
    """Return the heavy libraries a fresh interpreter has loaded after some code."""
    show = f"import sys; sys.stderr.write(' '.join(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{code}\n{show}"],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    return set(done.stderr.split())


# -- light and quick ---------------------------------------------------------------------------


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    """Not even numpy: each verb imports what it is about."""
    assert modules_after("import bobrt.cli") == set()
    assert modules_after("import bobrt.cli, numpy") == {"numpy"}


@pytest.mark.parametrize(
    "args", [["--help"], ["bench", "--help"], ["list", "backbones"], ["doctor", "--json"]]
)
def test_what_is_only_asked_loads_nothing_heavy(args: list[str]) -> None:
    """Help, lists and the doctor look at files and names alone."""
    run = f"import sys; sys.argv = ['bobrt', *{args}]\nfrom bobrt.cli import main"
    assert (
        modules_after(f"{run}\ntry:\n    main()\nexcept SystemExit as end:\n    assert not end.code") == set()
    )


def test_help_answers_at_once() -> None:
    """Under 0.3 s of user CPU time, in the best of three."""
    times = []
    for _ in range(3):
        process = subprocess.Popen([BOBRT, "--help"], stdout=subprocess.DEVNULL, env=environment())
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        times.append(used.ru_utime)
    assert min(times) < 0.3


# -- help --------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_bare_bobrt_is_its_help(bobrt: Bobrt, args: list[str]) -> None:
    """Every verb is on stdout, and the exit code is 0."""
    ran = bobrt(*args)
    assert (ran.code, ran.err) == (ExitCode.OK, "")
    assert ran.out.startswith("Usage: bobrt ")
    for verb in SURFACE:
        assert re.search(rf"^  {verb}  +\S", ran.out, re.MULTILINE)


def test_the_version_is_that_of_the_package(bobrt: Bobrt) -> None:
    """On stdout, alone."""
    assert bobrt("--version") == (ExitCode.OK, f"bobrt {__version__}\n", "")


def test_the_surface_is_frozen() -> None:
    """Every verb, argument and option of before is still there."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert set(SURFACE) <= set(commands)
    for verb, words in SURFACE.items():
        parameters = commands[verb].get_params(typer.Context(commands[verb], info_name=verb))
        there = {word for parameter in parameters for word in (*parameter.opts, *parameter.secondary_opts)}
        assert set(words.split()) - there == set(), verb


@pytest.mark.parametrize("verb", sorted(SURFACE))
def test_every_verb_has_help_for_every_option(here: Bobrt, verb: str) -> None:
    """Each word of the surface is on its page, on stdout, with a sentence beside or below it."""
    ran = here(verb, "--help")
    assert (ran.code, ran.err) == (ExitCode.OK, "")
    assert ran.out.startswith(f"Usage: bobrt {verb} ")
    for word in [*SURFACE[verb].split(), "-h", "--help"]:
        assert re.search(rf"(^|[ ,{{\[]){re.escape(word)}([ ,.}}\]]|$)", ran.out, re.MULTILINE), word


# -- one line, a hint, exit code 2 ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "says", "hint"),
    [
        ("exprt", "No such command 'exprt'. Did you mean 'export'", "bobrt --help"),
        ("list backbnes", "'backbnes' is not one of", "did you mean backbones? (bobrt list --help)"),
        ("list zzz", "Invalid value for 'what': 'zzz' is not one of 'backbones', ", "bobrt list --help"),
        ("list --jsn", "No such option: --jsn (Possible options: --json)", "bobrt list --help"),
        ("bench --precison fp16", "No such option: --precison (Possible", "bobrt bench --help"),
        ("bench --format tabel", "'tabel' is not one of 'table'", "did you mean table? (bobrt bench --help)"),
        ("bench --max-drop -1", "'--max-drop': Input should be greater than or", "bobrt bench --help"),
        (
            "bench --max-drop 101",
            "'--max-drop': Input should be less than or equal to 100",
            "bobrt bench --help",
        ),
        ("bench --max-drop 1%", "'--max-drop': Input should be a valid number", "bobrt bench --help"),
        ("build test_resnet --max-drop x", "'--max-drop': Input should be a valid", "bobrt build --help"),
        ("bench --limit 0", "Invalid value for '--limit'", "bobrt bench --help"),
        ("bench --limit", "Option '--limit' requires an argument", "bobrt --help"),
        ("bench --seed x", "--seed 'x' is not a number", "a whole number"),
        ("bench --seed -1", "--seed -1 is below 0", "a whole number from 0"),
        ("bench --batch 0", "--batch 0 is too small", "a number from 1, or dynamic"),
        ("bench --batch 2147483648", "--batch 2147483648 is too large", "a number to 2147483647, or dynamic"),
        ("bench --batch one", "--batch 'one' is not a number", "a number from 1, or dynamic"),
        ("bench --precision ,", "--precision is empty", "bobrt bench --help"),
        ("bench --precision fp61", "unknown precision 'fp61'", "did you mean fp16 or fp8 or fp32?"),
        ("bench --runtime ort_cpu", "unknown runtime 'ort_cpu'", "did you mean ort-cpu or"),
        ("bench --task digit", "unknown task 'digit'", "did you mean digits or digits-8-9"),
        ("bench --protocol finetun", "unknown protocol 'finetun'", "did you mean finetune?"),
        ("bench --plan quik", "unknown plan 'quik'", "did you mean quick?"),
        ("bench --weights radnom", "weights 'radnom' are no file", "did you mean random?"),
        ("bench test_resnt", "unknown backbone 'test_resnt'", "did you mean test_resnet or"),
        ("train test_resnet --task digit", "unknown task 'digit'", "did you mean digits or digits-8-9"),
        ("build test_resnet --precision in8", "unknown precision 'in8'", "did you mean int8?"),
        ("build test_resnet --runtime tensort", "unknown runtime 'tensort'", "did you mean tensorrt or"),
        ("export convnxt", "unknown backbone 'convnxt'", "did you mean convnext or"),
        ("export", "Missing argument 'backbone'", "bobrt export --help"),
        ("export test_resnet --weights no.pt", "weights 'no.pt' are no file", "one of: pretrained, random"),
        ("build test_vit --runtime torch --precision int8 --task digits", "torch has no int8", "bobrt list"),
        (
            "build test_resnet --precision int8",
            "int8 is set on a task's training images, and a backbone as published has none",
            "bobrt build test_resnet --task digits --precision int8",
        ),
    ],
)
def test_a_slip_is_one_line_with_a_hint(
    here: Bobrt, tmp_path: Path, typed: str, says: str, hint: str
) -> None:
    """What was wrong, what was meant, exit code 2; nothing on stdout, and nothing is made."""
    ran = here(*typed.split())
    assert ran.code == ExitCode.USAGE
    assert not ran.out
    error, blank, said = ran.err.rstrip("\n").split("\n")[-3:]
    assert error.startswith("error: ")
    assert says in error
    assert not blank
    assert said.startswith(f"hint: {hint}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "kind", "code"),
    [
        ("list backbnes --json", "usage", ExitCode.USAGE),
        ("bench --precision fp61 --json", "usage", ExitCode.USAGE),
        ("bench --precision fp61 --format json", "usage", ExitCode.USAGE),
        ("bench --format=json --precision fp61", "usage", ExitCode.USAGE),
        ("report --json", "nothing-matched", ExitCode.NOTHING_MATCHED),
    ],
)
def test_an_error_is_json_too_when_json_was_asked_for(
    here: Bobrt, typed: str, kind: str, code: ExitCode
) -> None:
    """The document on stdout, the same in prose on stderr."""
    ran = here(*typed.split())
    assert ran.code == code
    said = strict(ran.out)
    assert set(said) == {"schema", "error"}
    assert said["schema"] == 1
    assert set(said["error"]) == {"kind", "message", "hint"}
    assert said["error"]["kind"] == kind
    assert f"error: {said['error']['message']}\n\nhint: {said['error']['hint']}\n" in ran.err


def test_nothing_matched_has_an_exit_code_of_its_own(bobrt: Bobrt, tmp_path: Path) -> None:
    """An empty results folder: 4, its path, and what fills it."""
    ran = bobrt("report")
    assert (ran.code, ran.out) == (ExitCode.NOTHING_MATCHED, "")
    assert ran.err == f"error: no results in {tmp_path / 'results'}\n\nhint: bobrt bench\n"


# -- no hub -------------------------------------------------------------------------------------


SOON_S = 30
"""What a command without a hub ends within: it waits for 6 s, and other tests may keep the machine busy."""


@contextmanager
def hub(answer: bytes, drip: bytes = b"") -> Iterator[str]:
    """Serve one answer to whoever connects on loopback, then drip bytes or hang up; yield the address."""
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                connection = server.accept()[0]
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)
                    while drip and not over.wait(0.2):
                        connection.sendall(drip)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


@contextmanager
def silent_hub() -> Iterator[socket.socket]:
    """Listen on loopback: connections are accepted, and nobody ever answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        yield server


def closed_port() -> int:
    """Return a loopback port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def without_hub(home: Path, endpoint: str, **more: str) -> dict[str, str]:
    """Return an environment whose hub is at `endpoint`, with nothing cached and no proxy."""
    return {"HF_ENDPOINT": endpoint, "HF_HOME": str(home / "hf"), "NO_PROXY": "*", "no_proxy": "*", **more}


def lost(ran: Ran, *says: str) -> None:
    """Assert that a command ended because of the hub, in one of these words, with two ways out."""
    assert ran.code == ExitCode.MACHINE
    assert not ran.out
    resolved, _, error, _, hint = ran.err.rstrip("\n").split("\n")
    assert resolved == "convnext is convnext_tiny.fb_in1k"
    assert error.startswith("error: ")
    assert any(words in error for words in says), error
    assert hint == "hint: bobrt export convnext --weights random, or --weights PATH for a local checkpoint"


def test_a_hub_that_is_not_there_ends_at_once(bobrt: Bobrt, tmp_path: Path) -> None:
    """Nobody listens: the address is in the line."""
    endpoint = f"http://127.0.0.1:{closed_port()}"
    ran = bobrt("export", "convnext", env=without_hub(tmp_path, endpoint), timeout=SOON_S)
    lost(
        ran, f"the hub cannot be reached for the weights of convnext ({endpoint}/timm/convnext_tiny.fb_in1k/"
    )
    assert "Connection refused" in ran.err


def test_a_hub_that_never_answers_is_given_up(bobrt: Bobrt, tmp_path: Path) -> None:
    """The connection is accepted, then there is silence."""
    with silent_hub() as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        ran = bobrt("export", "convnext", env=without_hub(tmp_path, endpoint), timeout=SOON_S)
    lost(ran, "timed out", "no answer within 6 s")


def test_a_hub_that_never_stops_answering_is_given_up(bobrt: Bobrt, tmp_path: Path) -> None:
    """Each byte comes in time, the answer never ends: there is one deadline for all of it."""
    with hub(b"HTTP/1.1 200 OK\r\nX-Slow: ", drip=b"x") as endpoint:
        ran = bobrt("export", "convnext", env=without_hub(tmp_path, endpoint), timeout=SOON_S)
    lost(ran, "no answer within 6 s")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "answered 503"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH-2.0"),
        (b"", "cannot be reached"),
    ],
    ids=["in-trouble", "another-protocol", "hangs-up"],
)
def test_a_hub_in_trouble_is_the_machines_fault(
    bobrt: Bobrt, tmp_path: Path, answer: bytes, says: str
) -> None:
    """Whatever is at the address, it is one line and no bug."""
    with hub(answer) as endpoint:
        lost(bobrt("export", "convnext", env=without_hub(tmp_path, endpoint), timeout=SOON_S), says)


def test_a_hub_that_is_switched_off_is_not_asked(bobrt: Bobrt, tmp_path: Path) -> None:
    """HF_HUB_OFFLINE: no connection is made."""
    with silent_hub() as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        env = without_hub(tmp_path, endpoint, HF_HUB_OFFLINE="1")
        lost(bobrt("export", "convnext", env=env, timeout=SOON_S), "not cached and HF_HUB_OFFLINE is set")
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_hub_without_such_weights_is_the_users_business(bobrt: Bobrt, tmp_path: Path) -> None:
    """404 is exit code 2 and one line, in JSON too."""
    with hub(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as endpoint:
        ran = bobrt("export", "convnext", "--json", env=without_hub(tmp_path, endpoint), timeout=SOON_S)
    assert ran.code == ExitCode.USAGE
    error = strict(ran.out)["error"]
    assert error["kind"] == "usage"
    assert error["message"].startswith(f"the hub has no weights for convnext: {endpoint}/timm/")
    assert error["message"].endswith(" answered 404")
    assert "--weights random" in error["hint"]
    assert ran.err.count("error: ") == 1


@pytest.mark.heavy
def test_random_weights_need_no_hub(bobrt: Bobrt, tmp_path: Path) -> None:
    """Offline a backbone is exported: the path alone is on stdout; a second time nothing is made."""
    env = without_hub(tmp_path, f"http://127.0.0.1:{closed_port()}")
    ran = bobrt("export", "test_resnet", "--weights", "random", env=env)
    assert ran.code == ExitCode.OK, ran.err
    path = Path(ran.out.removesuffix("\n"))
    assert path.is_relative_to(tmp_path / "cache")
    assert path.suffix == ".onnx"
    assert ran.err.startswith("no --task: the backbone as it is published, ")
    assert "· exporting\n" in ran.err
    assert "parity with PyTorch: max |diff| " in ran.err
    outputs = {value.name: value.type.tensor_type.shape.dim for value in onnx.load(path).graph.output}
    assert {name: (sides[0].dim_param, sides[1].dim_value) for name, sides in outputs.items()} == {
        "features": ("batch", 96),
        "logits": ("batch", 1000),
    }

    copy = tmp_path / "out" / "mine.onnx"
    again = bobrt("export", "test_resnet", "--weights", "random", "--json", "-o", copy, env=env)
    assert again.code == ExitCode.OK
    assert "exporting" not in again.err
    artifact = strict(again.out)["artifact"]
    assert artifact["path"] == str(copy)
    assert artifact["sha256"] == hashlib.sha256(copy.read_bytes()).hexdigest()
    assert copy.read_bytes() == path.read_bytes()


# -- how it ends otherwise ------------------------------------------------------------------------


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "prose"])
def test_ctrl_c_says_so(tmp_path: Path, *, as_json: bool) -> None:
    """130, one line, and how to go on; as JSON where that was asked for."""
    with silent_hub() as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        env = environment(without_hub(tmp_path, endpoint, BOBRT_CACHE=str(tmp_path / "cache")))
        command = [BOBRT, "export", "convnext", *(["--json"] if as_json else [])]
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=env, **streams) as process, server.accept()[0]:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert process.returncode == ExitCode.INTERRUPTED
    assert err.endswith("error: interrupted\n\nhint: the same command goes on\n")
    assert "Traceback" not in err
    if as_json:
        assert strict(out)["error"]["kind"] == "interrupted"
    else:
        assert not out


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "prose"])
def test_a_bug_of_ours_is_saved_and_not_shown(tmp_path: Path, *, as_json: bool) -> None:
    """70, one line, and the file with the traceback."""
    code = """
import sys
from bobrt import cli, listing
listing.ENTRIES["plans"] = lambda: 1 / 0
sys.argv = ["bobrt", "list", "plans", *sys.argv[1:]]
cli.main()
"""
    command = [sys.executable, "-c", code, *(["--json"] if as_json else [])]
    done = subprocess.run(
        command, env=environment({"TMPDIR": str(tmp_path)}), capture_output=True, text=True, check=False
    )
    assert done.returncode == ExitCode.INTERNAL
    (saved,) = tmp_path.glob("bobrt-bug-*.log")
    assert done.stderr == (
        f"error: a bug in bobrt: ZeroDivisionError: division by zero\n\nhint: please report it with {saved}\n"
    )
    text = saved.read_text(encoding="utf-8")
    assert text.startswith("Traceback (most recent call last):\n")
    assert "cli.py" in text
    assert text.endswith("ZeroDivisionError: division by zero\n")
    if as_json:
        assert strict(done.stdout)["error"] == {
            "kind": "internal",
            "message": "a bug in bobrt: ZeroDivisionError: division by zero",
            "hint": f"please report it with {saved}",
        }
    else:
        assert not done.stdout


@pytest.mark.parametrize("args", [["list", "backbones"], ["list", "backbones", "--json"], []])
def test_a_reader_that_has_had_enough_is_no_failure(args: list[str]) -> None:
    """`bobrt list | head -0` ends well."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [BOBRT, *args], stdout=write, stderr=subprocess.PIPE, text=True, env=environment(), check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["list", "tasks"], ExitCode.MACHINE, "cannot write to stdout: No space left on device"),
        (["list", "tasks", "--json"], ExitCode.MACHINE, "cannot write to stdout: No space left on device"),
        (["report", "--json"], ExitCode.NOTHING_MATCHED, "no results in "),
    ],
)
def test_a_full_disk_under_stdout_is_said(tmp_path: Path, args: list[str], code: ExitCode, says: str) -> None:
    """What could not be written is an error of the machine; an error that came before it is still told."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [BOBRT, *args],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment({"BOBRT_RESULTS": str(tmp_path)}),
            check=False,
        )
    assert done.returncode == code
    assert done.stderr.startswith(f"error: {says}")
    assert "Traceback" not in done.stderr


# -- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args", [["--help"], ["bench", "--help"], ["list", "tasks"], ["list", "tusks"], ["doctor"], ["report"]]
)
@pytest.mark.parametrize(
    "env",
    [{}, {"NO_COLOR": "", "FORCE_COLOR": "1", "GITHUB_ACTIONS": "true", "_TYPER_FORCE_DISABLE_TERMINAL": ""}],
    ids=["plain", "forced"],
)
def test_piped_output_has_no_escapes(bobrt: Bobrt, args: list[str], env: dict[str, str]) -> None:
    """Into a file goes text, whatever a build server's environment says."""
    ran = bobrt(*args, env=env)
    assert "\x1b" not in ran.out + ran.err
    assert ran.out + ran.err


def test_a_dry_run_shows_the_default_plan_and_makes_nothing(here: Bobrt, tmp_path: Path) -> None:
    """Every cell with what becomes of it, what it needs and why; counted below; no folder appears."""
    ran = here("bench", "--dry-run")
    assert (ran.code, ran.err) == (ExitCode.OK, "")
    header, *lines, counts = ran.out.splitlines()
    assert header.split() == ["cell", "action", "makes", "why"]
    assert sum(int(number) for number in re.findall(r"\d+", counts)) == len(lines) == 35
    assert list(tmp_path.iterdir()) == []


def test_the_default_plan_at_fp16_is_a_plan_of_its_own(here: Bobrt) -> None:
    """`bobrt bench --precision fp16`: each backbone at fp16, and its fp32 reference beside it."""
    ran = here("bench", "--precision", "fp16", "--dry-run", "--json")
    assert (ran.code, ran.err) == (ExitCode.OK, "")
    said = strict(ran.out)
    assert set(said) == {"schema", "plan", "missing"}
    assert said["schema"] == 1
    for row in said["plan"]:
        assert set(row) >= {"cell", "action", "reason", "make"}
        assert row["action"] in {"done", "run", "skipped", "unsupported"}
        assert row["reason"]
    asked = {(row["cell"]["runtime"], row["cell"]["precision"]) for row in said["plan"]}
    assert asked == {("torch", "fp32"), ("ort-cpu", "fp16"), ("tensorrt-rtx", "fp16")}
    assert len(said["plan"]) == 15
    assert len({row["cell"]["key"] for row in said["plan"]}) == 15


def test_flags_take_several_values_either_way(here: Bobrt) -> None:
    """Commas and repetition mean the same, and spaces do not matter."""
    one = here("bench", "--precision", "fp16, int8", "--seed", "0,1", "--dry-run", "--json")
    other = here(
        *("bench", "--precision", "fp16", "--precision", "int8", "--seed", "0", "--seed", "1"),
        *("--dry-run", "--format", "json"),
    )
    assert one.code == ExitCode.OK
    assert one.out == other.out
    assert {row["cell"]["seed"] for row in strict(one.out)["plan"]} == {0, 1}


def test_the_users_own_folders_are_left_alone(bobrt: Bobrt, tmp_path: Path) -> None:
    """A run from a folder with a `train.py`, a `bench/` and a `bobrt.py` of the user's never imports them."""
    work = tmp_path / "work"
    for name in ("train.py", "engines.py", "bobrt.py", "bench/__init__.py", "tests/__init__.py", "typer.py"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text("raise SystemExit('the user's own')\n", encoding="utf-8")
    for args in (["list", "runtimes"], ["bench", "--dry-run"], ["doctor"]):
        ran = bobrt(*args, cwd=work)
        assert (ran.code, ran.err) == (ExitCode.OK, "")


def test_gpus_are_counted_in_the_order_of_their_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """As NVML and nvidia-smi count them: among unlike cards CUDA would begin with the fastest."""
    seen: list[str | None] = []
    monkeypatch.setattr(cli, "app", lambda **_: seen.append(os.environ.get("CUDA_DEVICE_ORDER")))

    assert run_here("doctor", env={"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}).code == 0

    assert seen == ["PCI_BUS_ID"]
