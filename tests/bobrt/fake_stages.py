"""A stage of the tests' own: it makes real files in real processes, and gets into real trouble.

Run as `python fake_stages.py CACHE TEXT`, it makes one target and prints what happens, a line each.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from bobrt.artifacts import Artifact, Job, Produced, Stage, Target, Workshop
from bobrt.errors import BobrtError

LOG = "FAKE_STAGES_LOG"
"""Names the file that gets one line for each time the stage really works."""
TROUBLE = "FAKE_STAGES_TROUBLE"
"""`raise`: end half way with an error. A path: having written half, wait for a line from that FIFO."""
FILE_LIMIT = "FAKE_STAGES_FILE_LIMIT"
"""Bytes a file may have: for the process it is what a full disk is, for root too."""

STAGES = {
    "text": Stage("fake_stages:produce", (), "fake"),
    "capitals": Stage("fake_stages:produce", (), "fake"),
    "versioned": Stage("fake_stages:produce", ("faketool",), "fake"),
}


def produce(job: Job) -> Produced:
    """Write the text of the options, or that of the source in capitals."""
    with Path(os.environ[LOG]).open("a", encoding="utf-8") as log:
        log.write(f"{job.folder.parent.name}\n")
    text = job.source.path.read_text(encoding="utf-8").upper() if job.source else str(job.options["text"])
    file = job.folder / "made.txt"
    trouble = os.environ.get(TROUBLE)
    if trouble:
        file.write_text(text[: len(text) // 2], encoding="utf-8")
    if trouble == "raise":
        raise ValueError("trouble half way")
    if trouble:
        with Path(trouble).open(encoding="utf-8") as gate:
            gate.readline()
    job.report("writing", f"{len(text)} letters")
    file.write_text(text, encoding="utf-8")
    return Produced(file.name, {"letters": len(text)})


def text(words: str, **more: object) -> Target:
    """Return the target of a text."""
    return Target(stage="text", options={"text": words, **more})


def main(cache: str, words: str) -> None:
    """Make a text in this process, and say how it goes."""
    if limit := os.environ.get(FILE_LIMIT):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    try:
        made: Artifact = Workshop(Path(cache), STAGES).make(
            text(words), lambda phase, _: say(phase), lambda: say("running")
        )
        say(f"made {made.sha256}")
    except BobrtError as error:
        say(f"{error.kind}: {error.message} ({error.hint})")


def say(line: str) -> None:
    """Write a line at once: someone is waiting for it."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
