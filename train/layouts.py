"""How publishers wrote the weights that timm does not have, and how that becomes timm's names.

A layout is data, read off the publisher's own model code (`source`), never off a file of ours. What it leaves
out it names, so that a key nobody thought of is an error and not a silent loss.
"""

from __future__ import annotations

import importlib
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from timm.layers import resample_abs_pos_embed

from bobrt.errors import UsageError
from bobrt.registry import Registry
from train import weights

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from bobrt.spec import Backbone, Json
    from train.weights import State


class Layout(NamedTuple):
    """One publisher's way to lay a file out."""

    source: str
    """Repository, file and class that give the keys their names."""
    inside: str = ""
    """Key of the file under which the state dict is, if the file holds more."""
    prefix: str = ""
    """What stands before each of the backbone's keys."""
    left_out: tuple[str, ...] = ()
    """Patterns of keys that are not the backbone's. The publisher's file always has some of each."""
    renames: tuple[tuple[str, str], ...] = ()
    """Regular expressions and what replaces them, one after the other, on the way to timm's names."""
    heads: int | None = None
    """Attention heads, where no shape in the file tells their number."""
    arch: str = ""
    """What the file itself calls the architecture, where it says so."""
    fixed: tuple[str, ...] = ()
    """Parameters that the publisher never trained, and neither do we."""
    beside: tuple[str, ...] = ()
    """Files of the same repository that are read with it."""
    read: str = ""
    """`module:function` that reads several files: a `Layout` and a path in, what `state_of` returns out."""


_TORCHVISION = "torchvision/models/resnet.py ResNet"
_MOCO = "facebookresearch/moco-v3 main_moco.py save_checkpoint, moco/builder.py MoCo"
_MOCO_LEFT_OUT = ("module.momentum_encoder.*", "module.predictor.*")
_MOCO_VIT = Layout(
    # `vit_small` and `vit_base` both have 12 heads; `build_2d_sincos_position_embedding` takes no gradient.
    source=f"{_MOCO}; vits.py VisionTransformerMoCo",
    inside="state_dict",
    prefix="module.base_encoder.",
    left_out=(*_MOCO_LEFT_OUT, "module.base_encoder.head.*"),
    heads=12,
    fixed=("pos_embed",),
)

LAYOUTS = Registry(
    "layout",
    {
        # The teacher's backbone alone, `fc` taken away.
        "dino-resnet": Layout(source=f"facebookresearch/dino hubconf.py dino_resnet50; {_TORCHVISION}"),
        # Pads by one before a stem that pads by two: what timm does in one step.
        "vicreg-resnet": Layout(source="facebookresearch/vicreg resnet.py ResNet, hubconf.py resnet50"),
        "moco-v3-resnet": Layout(
            source=f"{_MOCO}; {_TORCHVISION}",
            inside="state_dict",
            prefix="module.base_encoder.",
            left_out=(*_MOCO_LEFT_OUT, "module.base_encoder.fc.*"),
            arch="resnet50",
        ),
        "moco-v3-vit-small": _MOCO_VIT._replace(arch="vit_small"),
        "moco-v3-vit-base": _MOCO_VIT._replace(arch="vit_base"),
        # The last `norm` comes before the mean over positions, and blocks have no `gamma`.
        "vicregl-convnext": Layout(
            source="facebookresearch/VICRegL convnext.py ConvNeXt, hubconf.py convnext_xlarge_alpha0p75",
            renames=(
                (r"^downsample_layers\.0\.", "stem."),
                (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
                (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
                (r"\.dwconv\.", ".conv_dw."),
                (r"\.pwconv(\d)\.", r".mlp.fc\1."),
                (r"^norm\.", "norm_pre."),
            ),
        ),
        # timm 0.6 had a stage's downsampling at its end and kept the attention masks as buffers.
        "midas-swin2": Layout(
            source="isl-org/MiDaS midas/dpt_depth.py DPT, midas/backbones/swin_common.py; "
            "timm 0.6.12 models/swin_transformer_v2.py SwinTransformerV2",
            prefix="pretrained.model.",
            left_out=("scratch.*", "pretrained.model.head.*", "pretrained.model.layers.*.attn_mask"),
            renames=tuple((rf"^layers\.{i}\.downsample\.", f"layers.{i + 1}.downsample.") for i in (2, 1, 0)),
        ),
        # Of the three formats offered, the one that is a plain state dict: TorchScript is code.
        "sscd-torchvision": Layout(
            source=f"facebookresearch/sscd-copy-detection sscd/models/model.py Model; {_TORCHVISION}",
            prefix="backbone.",
            renames=((r"^fc\.", "embed."),),
        ),
        "stable-diffusion-v1": Layout(
            source="huggingface/diffusers models/unets/unet_2d_condition.py UNet2DConditionModel",
            left_out=("up_blocks.*", "conv_norm_out.*", "conv_out.*"),
            heads=8,
            beside=(
                "vae/diffusion_pytorch_model.safetensors",
                "text_encoder/config.json",
                "text_encoder/model.safetensors",
                "tokenizer/merges.txt",
                "tokenizer/special_tokens_map.json",
                "tokenizer/tokenizer_config.json",
                "tokenizer/vocab.json",
            ),
            read="train.stable_diffusion:read",
        ),
    },
    Layout,
)


def load(trunk: nn.Module, backbone: Backbone, path: Path) -> dict[str, Json]:
    """Load a publisher's file into a timm model, every key accounted for.

    Args:
        trunk: The model, without a classifier.
        backbone: The entry; its `weights` name the layout.
        path: The file as it was published.

    Returns:
        What became of the keys: `expected` by the model, `loaded`, and `left_out` by pattern.

    Raises:
        UsageError: The file is damaged, has a key the layout does not know or lacks one that is needed,
            or the model has another number of attention heads than the file was trained with.

    """
    if backbone.weights is None:
        raise UsageError(f"{backbone.name} has no weights of another publisher")
    layout = LAYOUTS.get(backbone.weights.layout, backbone.name)
    _require_heads(trunk, layout, backbone)
    if layout.read:
        module, _, function = layout.read.partition(":")
        state, left_out = getattr(importlib.import_module(module), function)(layout, path)
    else:
        state, left_out = state_of(layout, weights.contents(path)[0], path)
    weights.load_strictly(trunk, _at_size(state, trunk), path)
    for name in layout.fixed:
        trunk.get_parameter(name).requires_grad_(requires_grad=False)
    return {"expected": len(trunk.state_dict()), "loaded": len(state), "left_out": left_out}


def state_of(layout: Layout, content: Any, path: Path) -> tuple[State, dict[str, int]]:  # noqa: ANN401 - a file's
    """Return the backbone's part of a file under timm's names, and how many keys each pattern left out.

    Raises:
        UsageError: Names the keys that the layout does not know, and the patterns that found nothing.

    """
    state = weights.state_in(content, path, layout.inside)
    if layout.arch and (arch := content.get("arch", layout.arch)) != layout.arch:
        raise UsageError(f"checkpoint {path} holds a {arch}, not a {layout.arch}")
    kept: State = {}
    left_out = dict.fromkeys(layout.left_out, 0)
    extra = []
    for key, value in state.items():
        name = _renamed(layout, key)
        if pattern := next((p for p in layout.left_out if fnmatchcase(key, p)), None):
            left_out[pattern] += 1
        elif not key.startswith(layout.prefix) or name in kept:
            extra.append(key)
        else:
            kept[name] = value
    weights.require_fit(path, {"missing": [p for p, n in left_out.items() if not n], "extra": extra})
    return kept, left_out


def _renamed(layout: Layout, key: str) -> str:
    name = key.removeprefix(layout.prefix)
    for pattern, replacement in layout.renames:
        name = re.sub(pattern, replacement, name)
    return name


def _require_heads(trunk: nn.Module, layout: Layout, backbone: Backbone) -> None:
    """Raise if the model's attention has another number of heads: the file would fit, and answer nonsense."""
    found = {module.num_heads for module in trunk.modules() if hasattr(module, "num_heads")}
    if layout.heads and found != {layout.heads}:
        has = " and ".join(map(str, sorted(found))) or "no"
        raise UsageError(
            f"the weights of {backbone.name} have {layout.heads} attention heads, the model has {has}",
            f"args = {{ num_heads = {layout.heads} }} in its entry",
        )


def _at_size(state: State, trunk: nn.Module) -> State:
    """Return a state whose position embedding has the grid of the model's image size, as timm resizes it."""
    old, new = state.get("pos_embed"), getattr(trunk, "pos_embed", None)
    if old is None or new is None or old.shape == new.shape:
        return state
    tokens = trunk.num_prefix_tokens
    resized = resample_abs_pos_embed(old, new_size=trunk.patch_embed.grid_size, num_prefix_tokens=tokens)
    return {**state, "pos_embed": resized}
