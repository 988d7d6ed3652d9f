"""The verbs: parse -> spec -> call -> render.

Importing this file loads no heavy library; each verb imports what it is about. Everything a
user can do wrong ends in one line, a hint and an exit code.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import traceback
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import msgspec
import typer
from typer.exceptions import TyperException

from bobrt import __version__, config, console
from bobrt.errors import (
    BobrtError,
    ErrorKind,
    ExitCode,
    MachineError,
    NothingMatchedError,
    UsageError,
)
from bobrt.options import (
    DRAWN,
    AsJson,
    BackboneName,
    BatchAxis,
    DataFolder,
    Format,
    Listable,
    Many,
    MaxDrop,
    Output,
    PlanName,
    ProtocolName,
    ReportFormat,
    ResultsFolder,
    Seed,
    TaskName,
    Weights,
)
from bobrt.strict import require_utf8

if TYPE_CHECKING:
    from bench.store import Loaded
    from bobrt.result import Result

app = typer.Typer(
    name="bobrt",
    help="Battle of the backbones, fought on the artefact you ship.",
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Battle of the backbones, fought on the artefact you ship."""
    if show_version:
        console.data(f"bobrt {__version__}")
    elif context.invoked_subcommand is None:
        console.data(context.get_help())


@app.command()
def train(
    backbone: BackboneName,
    task: TaskName = None,
    data: DataFolder = None,
    protocol: ProtocolName = None,
    plan: PlanName = "quick",
    weights: Weights = "pretrained",
    seed: Seed = 0,
    output: Output = None,
    json: AsJson = False,
) -> None:
    """Adapt a backbone to a task by the plan's recipe: a checkpoint."""
    from bench import plan as plans
    from bobrt import flags, making

    chosen = plans.load(plan)
    task = flags.placed(data, task) or chosen.tasks[0]
    question = flags.question(backbone, task, protocol, "ort-cpu", "fp32", "dynamic", weights, seed)
    making.make(backbone, chosen, question, "train", output, json)


@app.command()
def export(
    backbone: BackboneName,
    task: TaskName = None,
    data: DataFolder = None,
    protocol: ProtocolName = None,
    plan: PlanName = "quick",
    weights: Weights = "pretrained",
    batch: BatchAxis = "dynamic",
    seed: Seed = 0,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Make a folder that a box without torch can bench.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Also copy the file to this path; with --bundle, the folder."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Export a backbone to ONNX: fine-tuned on --task, or as it is published."""
    from bench import plan as plans
    from bobrt import flags, making

    task = flags.placed(data, task)
    if bundle and not task:
        raise UsageError(
            "--bundle carries a task's images, and no --task was named",
            f"bobrt export {backbone} --task digits --bundle",
        )
    question = flags.question(backbone, task, protocol, "ort-cpu", "fp32", batch, weights, seed)
    if bundle:
        making.bundle(backbone, plans.load(plan), question, output, json)
    else:
        making.make(backbone, plans.load(plan), question, "export", output, json)


@app.command()
def build(
    backbone: BackboneName,
    task: TaskName = None,
    data: DataFolder = None,
    protocol: ProtocolName = None,
    plan: PlanName = "quick",
    runtime: Annotated[str, typer.Option(help="A name of `bobrt list runtimes`.")] = "ort-cpu",
    precision: Annotated[str, typer.Option(help="A name of `bobrt list precisions`.")] = "fp32",
    weights: Weights = "pretrained",
    batch: BatchAxis = "dynamic",
    seed: Seed = 0,
    max_drop: MaxDrop = None,
    output: Output = None,
    json: AsJson = False,
) -> None:
    """Build the file a runtime runs at a precision: an ONNX file or a TensorRT engine."""
    from bench import plan as plans
    from bobrt import flags, making

    task = flags.placed(data, task)
    question = flags.question(backbone, task, protocol, runtime, precision, batch, weights, seed)
    making.make(backbone, plans.load(plan, max_drop=max_drop), question, "build", output, json)


@app.command()
def bench(
    backbones: Annotated[list[str] | None, typer.Argument(help="Backbones, ONNX files, or bundles.")] = None,
    plan: Annotated[
        str | None,
        typer.Option(help="A bundled plan, or the path of a TOML file; else quick, or own with --data."),
    ] = None,
    task: Many = None,
    data: DataFolder = None,
    protocol: Many = None,
    gauntlet: Annotated[
        list[str] | None, typer.Option(help="What else to ask: names of `bobrt list questions`.")
    ] = None,
    surrogate: Annotated[
        str | None, typer.Option(help="Backbone whose checkpoint the attacks are made on; else each its own.")
    ] = None,
    runtime: Many = None,
    precision: Many = None,
    weights: Many = None,
    batch: Many = None,
    seed: Many = None,
    max_drop: MaxDrop = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use only so many test images; not ranked.")
    ] = None,
    scenario: Many = None,
    repeat: Annotated[
        int | None, typer.Option(min=1, help="Rounds: time every cell so often, in turn with the others.")
    ] = None,
    min_time: Annotated[
        float | None, typer.Option(min=0.001, max=86399, help="Seconds each loop lasts at least.")
    ] = None,
    results: ResultsFolder = None,
    rerun: Annotated[bool, typer.Option("--rerun", help="Measure again what is already done.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and why.")] = False,
    format: Annotated[Format, typer.Option(help="How to show the results.")] = Format.TABLE,
    json: AsJson = False,
) -> None:
    """Measure accuracy and speed of the same files, and rank them. Without a name: the default plan."""
    from bench import campaign, decide, store
    from bench import plan as plans
    from bench.show import plan_report, report
    from bobrt import flags
    from bobrt.paths import check_writable

    names = backbones or []
    files = [Path(name) for name in names if flags.is_model_file(name)]
    names = [name for name in names if not flags.is_model_file(name)]
    folders = [name for name in names if flags.is_bundle(name)]
    if data is not None:
        task, gauntlet = flags.asked_of(flags.placed(data, ",".join(task or [])), gauntlet)
    typed = {"backbones": [name for name in names if name not in folders], "tasks": task}
    typed |= {"protocols": protocol, "runtimes": runtime, "precisions": precision, "gauntlet": gauntlet}
    typed |= {"weights": weights, "batches": batch, "seeds": seed}
    changes = flags.changes_of(typed)
    asked = flags.changes_of({"scenarios": scenario}).get("scenarios")
    plan = plan or ("own" if data else "quick")
    chosen = plans.load(plan, changes, repeat=repeat, min_time=min_time, scenarios=asked, max_drop=max_drop)
    chosen = plans.with_surrogate(chosen, surrogate)
    questions = flags.file_questions(files, changes)
    questions += flags.bundle_questions([Path(name) for name in folders], changes)
    if "backbones" in changes or not (files or folders):
        questions += plans.questions(chosen)
    flags.require_apart(questions)
    if not questions:
        raise NothingMatchedError("the plan has no cell", "bobrt bench --dry-run")
    settings = config.load(results=results)
    desk = decide.Desk(chosen, settings.cache.path, settings.results.path, limit=limit, rerun=rerun)
    if dry_run:
        decisions = [desk.decide(question) for question in questions]
        plan_report.show(decisions, desk.missing(decisions), as_json=json or format is Format.JSON)
        return
    check_writable(settings.results.path)
    with console.Progress() as progress:
        answered = campaign.Campaign(desk, progress).run(questions)
    report.FORMATS["json" if json else format](answered, store.read_boards(settings.results.path))
    report.write_markdown(
        _read_results(store.read_all(settings.results.path)), settings.results.path / "report.md"
    )
    if report.failed(answered):
        raise typer.Exit(ExitCode.FAILED)
    if report.bound_missed(answered):
        raise typer.Exit(ExitCode.NOTHING_MATCHED)


@app.command()
def report(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Results folders; several are merged, a column per machine.")
    ] = None,
    results: ResultsFolder = None,
    format: Annotated[ReportFormat, typer.Option(help="How to show the results.")] = ReportFormat.TABLE,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File of html, folder of svg and png; if not given, in the results folder."
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Show results: rankings, standings, what is left out and why."""
    from bench import records, store
    from bench.show import report as reports

    roots = folders or []
    for folder in roots:
        if not folder.is_dir():
            raise UsageError(f"{folder} is no results folder", "bobrt report FOLDER")
    if results is not None or not roots:
        roots = [*roots, config.load(results=results).results.path]
    drawn = format in DRAWN and not json
    if output is not None and not drawn:
        raise UsageError(f"--output is for {', '.join(DRAWN)}", "bobrt report --format html --output PATH")
    loaded, beside = store.read_all(*roots), store.read_boards(*roots)
    found = _read_results(loaded)
    records.leave(found)
    for problem in beside.problems:
        console.warn(f"{problem}; left out")
    if not (found or beside.published):
        raise NothingMatchedError(f"no results in {', '.join(map(str, roots))}", "bobrt bench")
    if not drawn:
        with records.uncollected():
            reports.FORMATS["json" if json else format](found, beside)
    elif format is ReportFormat.HTML:
        from bench.show import html_report

        path = output or roots[0]
        path = path / html_report.NAME if path.is_dir() else path
        html_report.write(found, beside, roots, path, loaded.problems)
        console.data(str(path))
    else:
        from bench.show import figure_report

        for path in figure_report.write(found, beside, output or roots[0] / figure_report.NAME, format):
            console.data(str(path))


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="Results folder of the base.")],
    after: Annotated[Path, typer.Argument(help="Results folder of the head.")],
    fail_above: Annotated[
        str | None, typer.Option(help="Exit 1 if a cell is slower by more, as 3%, or has failed.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Compare even if the machines differ.")] = False,
    format: Annotated[Format, typer.Option(help="How to show the comparison.")] = Format.TABLE,
    json: AsJson = False,
) -> None:
    """Compare two results folders: what became slower or faster, and what cannot be told."""
    from bench import compare as compares
    from bench import store
    from bench.show import comparison_report
    from bobrt import flags

    limit = None if fail_above is None else flags.fraction("fail-above", fail_above)
    found = []
    for folder in (before, after):
        found.append(_read_results(store.read_all(folder)))
        if not found[-1]:
            raise NothingMatchedError(f"no results in {folder}", f"bobrt bench --results {folder}")
    if not force:
        compares.require_one_system(found[0], found[1], (before, after))
    comparison = compares.compare(found[0], found[1])
    gate = None if limit is None else compares.gate(comparison, limit)
    comparison_report.FORMATS["json" if json else format](comparison, gate)
    if gate is not None and gate.unclear:
        console.warn(f"--fail-above cannot judge {gate.unclear} unclear cells")
    if gate is not None and gate.reasons:
        console.note(gate.sentence)
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def pick(
    task: TaskName = None,
    protocol: ProtocolName = None,
    runtime: Annotated[str | None, typer.Option(help="Only engines of this runtime.")] = None,
    precision: Annotated[str | None, typer.Option(help="Only engines at this precision.")] = None,
    system: Annotated[str | None, typer.Option(help="Only rows of this machine, by its id.")] = None,
    max_p50: Annotated[str | None, typer.Option("--max-p50", help="Most median latency, as 5ms.")] = None,
    max_p99: Annotated[str | None, typer.Option("--max-p99", help="Most p99 latency, as 5ms.")] = None,
    min_accuracy: Annotated[str | None, typer.Option(help="Least accuracy, as 0.95 or 95%.")] = None,
    min_images_per_s: Annotated[
        str | None, typer.Option("--min-images-per-s", help="Least images per second, of the best batch.")
    ] = None,
    max_bytes: Annotated[str | None, typer.Option(help="Most bytes of the file, as 20MB.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="Most peak memory, as 500MB.")] = None,
    results: ResultsFolder = None,
    json: AsJson = False,
) -> None:
    """Name the engine to ship within bounds, the next one, and where the evidence is."""
    from bench import pick as picks
    from bench import store
    from bench.show import pick_report
    from bobrt import flags

    words = {"task": task, "protocol": protocol, "runtime": runtime, "precision": precision, "system": system}
    bounds = flags.bounds(
        {
            "max-p50": max_p50,
            "max-p99": max_p99,
            "min-accuracy": min_accuracy,
            "min-images-per-s": min_images_per_s,
            "max-bytes": max_bytes,
            "max-memory": max_memory,
        }
    )
    settings = config.load(results=results)
    folder, cache = settings.results.path, settings.cache.path
    found = _read_results(store.read_all(folder))
    if not found:
        raise NothingMatchedError(f"no results in {folder}", "bobrt bench")
    picked = picks.pick(found, {key: word for key, word in words.items() if word is not None}, bounds)
    if json:
        console.document({"pick": pick_report.as_dict(picked, bounds, folder, cache)})
    for line in [] if json else pick_report.lines(picked, folder, cache):
        console.data(line)
    if picked.winner is None:
        flag = pick_report.relax(picked)
        console.note(f"hint: relax {flag}" if flag else "hint: bobrt bench --repeat 3 --min-time 3")
        raise typer.Exit(ExitCode.NOTHING_MATCHED)


@app.command("list")
def list_(
    what: Annotated[Listable, typer.Argument(help="What to list.")] = Listable.BACKBONES,
    json: AsJson = False,
) -> None:
    """List what can be named: backbones, tasks, runtimes, precisions, protocols, plans; and what is kept."""
    from bobrt import listing

    entries = listing.ENTRIES[what]()
    if json:
        console.document({what.value: entries})
        return
    if not entries:
        console.note(f"no {what.value} yet")
        return
    header = list(entries[0])
    rows = [[listing.text(entry[key]) for key in header] for entry in entries]
    console.table(console.Table(header, rows))


@app.command()
def doctor(
    runtimes: Annotated[
        list[str] | None, typer.Argument(help="Runtimes that have to run here. Without: one of all.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Say what this machine can do, what it cannot, and what to do about it."""
    from bobrt import doctor as doctors

    diagnosis = doctors.examine(config.load(), runtimes or [])
    if json:
        console.data(msgspec.json.encode(diagnosis).decode())
    else:
        marks = {"ok": "✓", "bang": "!", "cross": "✗"}
        for check in diagnosis.checks:
            console.data(f"{marks[check.status]} {check.name}: {check.detail}")
            if check.hint:
                console.data(f"    hint: {check.hint}")
    if not diagnosis.ok:
        raise typer.Exit(ExitCode.MACHINE)


def main() -> NoReturn:
    """Run the command line and end with a documented exit code."""
    as_json = _wants_json(sys.argv)
    # CUDA counts GPUs as NVML and nvidia-smi do: here, and in all that is started from here.
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    try:
        require_utf8([*sys.argv[1:], os.environ.get("PWD", "")])
        code = app(standalone_mode=False, prog_name="bobrt")
    except BobrtError as error:
        _fail(error.kind, error.message, error.hint, error.exit_code, as_json=as_json)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", "interrupted", "the same command goes on", ExitCode.INTERRUPTED, as_json=as_json)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "bobrt"
        message = error.format_message().replace("Value error, ", "")
        _fail("usage", message, _near(message, f"{path} --help"), ExitCode.USAGE, as_json=as_json)
    except Exception as error:  # noqa: BLE001 - the last net: a bug is saved, not shown
        with tempfile.NamedTemporaryFile("w", prefix="bobrt-bug-", suffix=".log", delete=False) as file:
            traceback.print_exc(file=file)
        message = f"a bug in bobrt: {type(error).__name__}: {error}"
        _fail("internal", message, f"please report it with {file.name}", ExitCode.INTERNAL, as_json=as_json)
    if code == ExitCode.INTERRUPTED:  # typer turns Ctrl-C into a code of its own
        _fail("interrupted", "interrupted", "the same command goes on", ExitCode.INTERRUPTED, as_json=as_json)
    sys.exit(code if isinstance(code, int) else ExitCode.OK)


def _read_results(loaded: Loaded) -> list[Result]:
    """Return the results that can be used, naming those that cannot."""
    for problem in loaded.problems:
        console.warn(f"{problem}; left out")
    return loaded.results


def _near(message: str, hint: str) -> str:
    """Return `hint`, led by the nearest of the choices a parser's message lists, if it lists any."""
    wrong, _, listed = message.partition(" is not one of ")
    near = get_close_matches(wrong.rpartition(" ")[2], listed.rstrip(".").split(", "), n=1)
    return f"did you mean {near[0].strip(chr(39))}? ({hint})" if near else hint


def _wants_json(arguments: list[str]) -> bool:
    """Tell whether errors are to be JSON too; asked before the arguments are parsed, which may fail."""
    return "--json" in arguments or "--format=json" in arguments or "--format json" in " ".join(arguments)


def _fail(kind: ErrorKind, message: str, hint: str, code: ExitCode, *, as_json: bool) -> NoReturn:
    if as_json:
        with contextlib.suppress(MachineError):  # stdout is full; stderr says what went wrong before
            console.document({"error": {"kind": kind, "message": message, "hint": hint}})
    console.error(message, hint)
    sys.exit(code)
