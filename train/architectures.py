"""Architectures of published weights that timm does not have, registered with it: there is one way to build.

Each is timm's own class, or one with timm's methods, so that layer decay, the head and the export know it.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.convnext import ConvNeXt
from timm.models.resnet import Bottleneck, ResNet
from torch import nn

from bobrt.errors import MachineError

if TYPE_CHECKING:
    from torch import Tensor

__all__: list[str] = []  # timm adds the names it registers

_IMAGENET = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD, "num_classes": 0}

# Read by `register_model`: no addresses, only what timm wants to know of any model.
default_cfgs = generate_default_cfgs(
    {
        "sscd_resnet50": {
            **_IMAGENET,
            "input_size": (3, 288, 288),
            "first_conv": "conv1",
            "classifier": "fc",
        },
        "vicregl_convnext_xlarge": {
            **_IMAGENET,
            "input_size": (3, 224, 224),
            "first_conv": "stem.0",
            "classifier": "head.fc",
        },
        "stable_diffusion_v1_encoder": {
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "num_classes": 0,
            "input_size": (3, 512, 512),
        },
    }
)


class Sscd(ResNet):  # type: ignore[misc]  # timm has no types
    """A ResNet whose feature is SSCD's descriptor, before it is scaled to length 1.

    The maps are pooled by a generalised mean of power 3 and projected, both as trained; dividing by the
    length is left to what compares descriptors, because a classifier learns nothing from it.

    Args:
        dims: Width of the descriptor.
        options: Arguments of timm's `ResNet`.

    Source: facebookresearch/sscd-copy-detection, `Model` with `TV_RESNET50` and `GlobalGeMPool2d`.

    """

    def __init__(self, dims: int = 512, **options: Any) -> None:  # noqa: ANN401 - timm's
        super().__init__(**options)
        self.embed = nn.Linear(self.head_hidden_size, dims)
        nn.init.xavier_uniform_(self.embed.weight)
        nn.init.zeros_(self.embed.bias)
        self.num_features = dims
        self.reset_classifier(self.num_classes)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the descriptor `[n, dims]` of maps `[n, channels, height, width]`, or its logits."""
        pooled = x.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)
        descriptor = self.embed(pooled)
        return descriptor if pre_logits else self.fc(descriptor)


def sscd_resnet50(pretrained: bool = False, **options: Any) -> nn.Module:  # noqa: ANN401 - timm's
    """Return SSCD's ResNet-50 with a descriptor of 512 numbers."""
    shape = {"block": Bottleneck, "layers": (3, 4, 6, 3)}
    return build_model_with_cfg(Sscd, "sscd_resnet50", pretrained, **{**shape, **options})


def vicregl_convnext_xlarge(pretrained: bool = False, **options: Any) -> nn.Module:  # noqa: ANN401 - timm's
    """Return VICRegL's ConvNeXt-XL: no layer scale, and the last norm before the mean over positions."""
    shape = {
        "depths": (3, 3, 27, 3),
        "dims": (256, 512, 1024, 2048),
        "ls_init_value": None,
        "head_norm_first": True,
    }
    return build_model_with_cfg(ConvNeXt, "vicregl_convnext_xlarge", pretrained, **{**shape, **options})


def stable_diffusion_v1_encoder(pretrained: bool = False, **options: Any) -> nn.Module:  # noqa: ANN401 - timm's
    """Return the encoder of Stable Diffusion v1, if `diffusers` is here."""
    absent = [name for name in ("diffusers", "transformers") if find_spec(name) is None]
    if absent:
        raise MachineError(
            f"the Stable Diffusion encoder needs {' and '.join(absent)}, not installed here",
            "pip install 'bobrt[diffusion]'",
        )
    from train.stable_diffusion import Encoder  # noqa: PLC0415 - what only this one needs

    return build_model_with_cfg(
        Encoder,
        "stable_diffusion_v1_encoder",
        pretrained,
        kwargs_filter=("global_pool", "in_chans"),
        **options,
    )


for _architecture in (sscd_resnet50, vicregl_convnext_xlarge, stable_diffusion_v1_encoder):
    register_model(_architecture)
