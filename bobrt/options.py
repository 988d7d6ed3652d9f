"""What can be typed for more than one verb, and the words that can be chosen from."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """How results are shown."""

    TABLE = "table"
    MARKDOWN = "markdown"
    JSON = "json"


class ReportFormat(StrEnum):
    """How a report is shown."""

    TABLE = "table"
    MARKDOWN = "markdown"
    JSON = "json"
    CSV = "csv"
    HTML = "html"
    SVG = "svg"
    PNG = "png"
    CARD = "card"


DRAWN = (ReportFormat.HTML, ReportFormat.SVG, ReportFormat.PNG)
"""Formats that are files."""


class Listable(StrEnum):
    """What `bobrt list` can list."""

    BACKBONES = "backbones"
    TASKS = "tasks"
    QUESTIONS = "questions"
    RUNTIMES = "runtimes"
    PRECISIONS = "precisions"
    PROTOCOLS = "protocols"
    PLANS = "plans"
    CACHE = "cache"


BackboneName = Annotated[str, typer.Argument(help="A name of `bobrt list backbones`, or any timm id.")]
PlanName = Annotated[str, typer.Option("--plan", help="A bundled plan, or the path of a TOML file.")]
TaskName = Annotated[str | None, typer.Option("--task", help="A name of `bobrt list tasks`.")]
DataFolder = Annotated[
    str | None,
    typer.Option(
        "--data", help="Folder of the task's images, of your own, or hf://datasets/ORG/NAME; remembered."
    ),
]
ProtocolName = Annotated[str | None, typer.Option("--protocol", help="A name of `bobrt list protocols`.")]
Weights = Annotated[str, typer.Option("--weights", help="pretrained, random, or the path of a checkpoint.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seeds the weights and every epoch.")]
BatchAxis = Annotated[str, typer.Option("--batch", help="The engine's batch axis: dynamic, or a number.")]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop", min=0, max=100, help="Points int8 and fp8 may lose on validation, else blocks stay out."
    ),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Also copy the file to this path.")]
ResultsFolder = Annotated[Path | None, typer.Option("--results", help="Folder of the results.")]
AsJson = Annotated[bool, typer.Option("--json", help="One strict JSON document on stdout.")]
Many = Annotated[list[str] | None, typer.Option(help="One or several, separated by commas.")]
