"""What a checkpoint is asked for with: read by who plans, without torch."""

from __future__ import annotations

from bobrt.spec import Backbone, Frozen, Protocol, Recipe, TaskCard


class CheckpointOptions(Frozen, frozen=True, kw_only=True):
    """What a checkpoint is made from; the whole of it is hashed into the artifact's name."""

    backbone: Backbone
    weights: str
    """`random`, `pretrained`, or `file:<sha256>`."""
    weights_path: str | None = None
    task: TaskCard | None = None
    protocol: Protocol
    recipe: Recipe | None = None
    seed: int
