"""What a checkpoint is asked for with: read by who plans, without torch."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from bobrt.spec import Backbone, Frozen, Protocol, Recipe, Search, TaskCard


class CheckpointOptions(Frozen, frozen=True, kw_only=True):
    """What a checkpoint is made from; the whole of it is hashed into the artifact's name."""

    backbone: Backbone
    weights: str
    """`random`, `pretrained`, or `file:<sha256>`."""
    weights_path: str | None = None
    task: TaskCard | None = None
    protocol: Protocol
    recipe: Recipe | None = None
    search: Search | None = None
    """Values the recipe is tried with; null for the recipe as it is."""
    seed: int


class AttackOptions(Frozen, frozen=True, kw_only=True):
    """How a checkpoint's test images are changed to mislead it."""

    attacks: Annotated[tuple[Literal["fgsm", "pgd"], ...], Meta(min_length=1)] = ("fgsm", "pgd")
    epsilons: Annotated[tuple[Annotated[int, Meta(ge=0, le=255)], ...], Meta(min_length=1)] = (1, 2, 4, 8)
    """How far a value of a pixel may move, in 1/255: whole numbers, since an engine takes uint8."""
    steps: Annotated[int, Meta(ge=1)] = 20
    """Of PGD."""
    limit: Annotated[int, Meta(ge=1)] | None = None
    """Test images, evenly spread over the split; null for all."""
    seed: Annotated[int, Meta(ge=0)] = 0
    """Of PGD's random start."""

    def asked(self) -> dict[str, tuple[str, int]]:
        """Return attack and epsilon by what they are called in the stage's file: `fgsm-2`, `pgd20-8`."""
        titles = {"fgsm": "fgsm", "pgd": f"pgd{self.steps}"}
        return {f"{titles[attack]}-{eps}": (attack, eps) for attack in self.attacks for eps in self.epsilons}
