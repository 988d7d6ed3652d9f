"""Backbone + head, with a forward that is exactly what is exported.

`uint8 [batch, height, width, 3]` in; the cast, the layout change and the normalisation are
inside; `features` (timm's own pooled pre-logits) and, where there is a head, `logits` out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec
import timm
import torch
from safetensors.torch import save as serialize
from timm.data import resolve_model_data_config
from timm.models import group_parameters
from torch import Tensor, nn

from bobrt import __version__
from bobrt.catalogue import BACKBONES
from bobrt.errors import MachineError, UsageError
from bobrt.spec import Backbone, FileCard, Input, Protocol, Transform
from train import architectures, layouts, published, weights  # noqa: F401 - the first registers ours with timm
from train.heads import Classifier

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bobrt.spec import Json, TaskCard
    from train.weights import State


_WRAPPED = ("state_dict", "model")
"""Keys under which training scripts keep the state dict: timm's and PyTorch Lightning's, Meta's."""


class Model(nn.Module):  # type: ignore[misc]  # torch is too heavy to check ours against
    """What is trained, exported and measured.

    Args:
        backbone: A timm model, with its own classifier only if that is to be published.
        head: The task's head, or None: see `train.heads`.
        mean: Per-channel mean the checkpoint was trained with, in 0..1.
        std: Per-channel standard deviation, in 0..1.

    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: nn.Module, head: nn.Module | None, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255)

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs, in order."""
        if self.head is not None:
            return ["features", *self.head.outputs]
        return ["features", "logits"] if self.backbone.num_classes else ["features"]

    def group_matcher(self, coarse: bool = False) -> Callable[[str], float]:
        """Return timm's layer of each parameter, the head last: what layer decay goes by."""
        layers = group_parameters(self.backbone, self.backbone.group_matcher(coarse=coarse), reverse=True)
        numbers = {f"backbone.{name}": layer for name, layer in layers.items()}
        return lambda name: numbers.get(name, math.inf)

    def no_weight_decay(self) -> set[str]:
        """Return the parameters that timm keeps from weight decay."""
        return {f"backbone.{name}" for name in getattr(self.backbone, "no_weight_decay", set)()}

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return `features [n, width]` and, where there is a head, what it answers: `logits [n, classes]`.

        Args:
            images: `uint8 [n, height, width, 3]`.

        """
        # TensorRT wants the cast right after a uint8 input, before the transpose.
        x = (images.float().permute(0, 3, 1, 2) - self.mean) / self.std
        maps, levels = self.maps(x)
        features = self.backbone.forward_head(maps, pre_logits=True)
        if self.head is not None:
            return features, *self.head(features, levels)
        if self.backbone.num_classes:
            return features, self.backbone.forward_head(maps)
        return (features,)

    def maps(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the last maps of the trunk, and those its head wants besides, in one pass.

        Args:
            x: `float [n, 3, height, width]`, normalised.

        """
        if self.head is None or not self.head.levels:
            return self.backbone.forward_features(x), []
        last, levels = self.backbone.forward_intermediates(x, indices=list(self.head.levels))
        return last, levels


def build(  # noqa: PLR0913 - what a model is made of
    backbone: Backbone,
    *,
    classes: int,
    size: int | None,
    pretrained: bool = False,
    own_head: bool = False,
    drop_path: float = 0.0,
) -> Model:
    """Return a model of `backbone`, with random weights or its published ones.

    Args:
        backbone: The catalogue entry.
        classes: Width of the new head; 0 for none.
        size: Side of the input in pixels, or None for the checkpoint's own.
        pretrained: Load the published weights, if they are timm's; `layouts.load` loads the others.
        own_head: Keep the classifier the backbone was published with; weights from elsewhere have none.
        drop_path: Rate of stochastic depth, while it is trained.

    Raises:
        UsageError: timm refuses the arguments or the size; or its weights are damaged or do not fit.
        MachineError: The weights cannot be fetched.

    """
    config = _config(backbone)
    fixed = config is not None and config.fixed_input_size
    sized = {"img_size": size} if fixed and size else {}
    # timm would give weights from elsewhere a classifier that nobody trained, and weights of its own.
    at_timm = backbone.weights is None
    fetched = pretrained and at_timm
    # Asked for no classifier, timm lets any key of a file be missing: it is taken off afterwards.
    width = {} if at_timm and (own_head or fetched) else {"num_classes": 0}
    pinned = {}
    if config and backbone.revision:
        pinned = {"hf_hub_id": published.pinned(config, backbone.revision).hf_hub_id}
    try:
        with published.loading(backbone):
            trunk = timm.create_model(
                backbone.timm,
                pretrained=fetched,
                pretrained_cfg_overlay=pinned,
                exportable=True,
                **backbone.args,
                **sized,
                **width,
                **({"drop_path_rate": drop_path} if drop_path else {}),
            )
    except (OSError, ConnectionError) as error:
        raise MachineError(
            f"the weights of {backbone.name} cannot be fetched: {error}",
            "use --weights random, or --weights PATH for a local checkpoint",
        ) from error
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        told = " ".join(str(error).split())
        raise UsageError(f"timm cannot build {backbone.name} at {size or 'its own'} px: {told}") from error
    if fetched and not own_head:
        trunk.reset_classifier(0)
    mean, std = _normalisation(backbone, trunk)
    head = Classifier(trunk.head_hidden_size or trunk.num_features, classes) if classes else None
    return Model(trunk, head, mean, std)


def described(backbone: Backbone, net: Model) -> Backbone:
    """Return an entry that says what its images are like, where only timm knew."""
    if backbone.input is not None:
        return backbone
    mean, std = _normalisation(backbone, net.backbone)
    own = transform_of(backbone, None)
    found = {"mean": mean, "std": std, **msgspec.structs.asdict(own)}
    return msgspec.structs.replace(backbone, input=msgspec.convert(found, type=Input))


def _require_same_network(saved: Backbone, wanted: Backbone, path: Path) -> None:
    """Raise `UsageError` if one of our checkpoints is another network's: keys and shapes tell no head count.

    The images of both must be normalised alike, since the normalisation is in the model.
    """
    ends = [
        (
            entry.timm.partition(".")[0],
            entry.args,
            (entry.input.mean, entry.input.std) if entry.input else None,
        )
        for entry in (saved, wanted)
    ]
    for what, was, now in zip(("architecture", "arguments", "mean and deviation"), *ends, strict=True):
        if was != now:
            raise UsageError(
                f"checkpoint {path} was saved as {saved.name}, of {what} {was}, and {wanted.name} has {now}",
                f"name what it was saved as: {saved.name} --weights {path}",
            )


def transform_of(backbone: Backbone, card: TaskCard | None) -> Transform:
    """Return the task's preprocessing, or the checkpoint's own where the task leaves it open."""
    if card and card.transform:
        return card.transform
    if own := backbone.input:
        return Transform(size=own.size, crop_pct=own.crop_pct, interpolation=own.interpolation)
    config = _config(backbone)
    if config is None:
        raise UsageError(f"timm publishes no input size for {backbone.name}")
    return Transform(
        size=config.input_size[-1],
        crop_pct=config.crop_pct,
        interpolation="bilinear" if config.interpolation == "bilinear" else "bicubic",
    )


def _config(backbone: Backbone) -> Any:  # noqa: ANN401 - timm's `PretrainedCfg`
    """Return what timm knows of an entry's weights, or None.

    A package of its own registers its architecture with timm when it is imported: when its entry is found.
    """
    BACKBONES.find(backbone.name)
    return timm.get_pretrained_cfg(backbone.timm)


def _normalisation(backbone: Backbone, trunk: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation the checkpoint was trained with: the entry's, else timm's."""
    if backbone.input:
        return backbone.input.mean, backbone.input.std
    config = resolve_model_data_config(trunk)
    return config["mean"], config["std"]


def card_of(  # noqa: PLR0913, PLR0917 - one argument per field the caller decides
    backbone: Backbone,
    weights: str,
    protocol: Protocol,
    seed: int,
    transform: Transform,
    task: TaskCard | None,
) -> FileCard:
    """Return what a checkpoint's header says."""
    return FileCard(
        bobrt=__version__,
        backbone=backbone,
        weights=weights,
        task=task.name if task else "",
        protocol=protocol,
        seed=seed,
        labels=list(task.labels) if task else [],
        transform=transform,
    )


class Heads(TypedDict):
    """Which classifier a model has."""

    classes: int
    """Width of a new one on the features; 0 for none."""
    own_head: bool
    """The one it was published with."""


def heads(protocol: Protocol, task: str, labels: Sequence[str]) -> Heads:
    """Return the classifier of a checkpoint: a new one, its own, or none where features are the answer."""
    if protocol is Protocol.PUBLISHED:  # for a task without labels, which is retrieval, features are enough
        return {"classes": 0, "own_head": not task or bool(labels)}
    return {"classes": 0 if protocol is Protocol.KNN else len(labels), "own_head": False}


def save(model: Model, card: FileCard, path: Path) -> None:
    """Write a checkpoint: the state dict, with the card in the header."""
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    path.write_bytes(serialize(state, metadata={"bobrt": msgspec.json.encode(card).decode()}))


def load(path: Path) -> tuple[Model, FileCard]:
    """Return the model of one of our checkpoints, in eval mode, and its card.

    Raises:
        UsageError: The file is damaged, is not ours, or does not fit its own card.

    """
    card, state = read_checkpoint(path)
    if card is None:
        raise UsageError(f"checkpoint {path} has no bobrt header", f"pass it as --weights {path}")
    model = build(card.backbone, size=card.transform.size, **heads(card.protocol, card.task, card.labels))
    weights.load_strictly(model, state, path)
    return model.eval(), card


def read_checkpoint(path: Path) -> tuple[FileCard | None, State]:
    """Return a checkpoint's card (None if the file is not ours) and its state dict.

    Raises:
        UsageError: The file is damaged, or holds no state dict.

    """
    content, header = weights.contents(path)
    if header:
        try:
            return msgspec.json.decode(header, type=FileCard), content
        except (msgspec.DecodeError, RecursionError) as error:
            raise UsageError(f"checkpoint {path} is damaged or truncated: {error}") from error
    inside = next((key for key in _WRAPPED if isinstance(content, dict) and key in content), "")
    return None, weights.state_in(content, path, inside)


def load_local(model: Model, backbone: Backbone, path: Path) -> dict[str, Json]:
    """Load a backbone's weights from a user's file: timm's keys, the publisher's, or one of our checkpoints.

    The file's classifier is left out when the model has none; everything else must fit.

    Returns:
        What became of the keys: `expected` by the model, `loaded`, and `left_out` by pattern.

    Raises:
        UsageError: The file is damaged, or its keys do not fit.

    """
    card, state = read_checkpoint(path)
    trunk = model.backbone
    if card is None and backbone.weights and not trunk.state_dict().keys() <= state.keys():
        return layouts.load(trunk, backbone, path)
    left_out: dict[str, Json] = {}
    if card is not None:
        _require_same_network(card.backbone, described(backbone, model), path)
        left_out = _split(state, ("head.",))[1]
        state = {
            name.removeprefix("backbone."): v for name, v in state.items() if name.startswith("backbone.")
        }
    names = trunk.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
    if not trunk.num_classes:
        state, more = _split(state, heads)
        left_out |= more
    weights.load_strictly(trunk, state, path, heads)
    return {"expected": len(trunk.state_dict()), "loaded": len(state), "left_out": left_out}


def _split(state: State, heads: tuple[str, ...]) -> tuple[State, dict[str, Json]]:
    """Return a state dict without what belongs to a classifier, and how many keys that were."""
    kept = {name: value for name, value in state.items() if not name.startswith(heads)}
    counts = {head: sum(name.startswith(head) for name in state) for head in heads}
    return kept, {f"{head}*": n for head, n in counts.items() if n}
