"""What publishers of weights saved, told anew from their own model code and cut down in size.

Each class has the attribute names and the arithmetic of the class it cites, and nothing of ours: its state
dict is the published file in small, and its answer is what the backbone must answer with those weights.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import Bottleneck, ResNet

if TYPE_CHECKING:
    from collections.abc import Callable


def stirred(module: nn.Module) -> nn.Module:
    """Move every norm away from where it starts, so that a swapped or forgotten one is seen; in eval mode."""
    for layer in module.modules():
        if getattr(layer, "weight", None) is not None and layer.weight.ndim == 1:
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
        if getattr(layer, "running_var", None) is not None:
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return module.eval()


def torchvision_resnet(num_classes: int = 1000, *, full: bool = False) -> ResNet:
    """Return torchvision's ResNet-50, or one with a bottleneck a stage, each a quarter as wide."""
    layers, width = ([3, 4, 6, 3], 64) if full else ([1, 1, 1, 1], 16)
    return ResNet(Bottleneck, layers, num_classes=num_classes, width_per_group=width)


def dino_resnet(*, full: bool = False) -> nn.Module:
    """Source: facebookresearch/dino, hubconf.py `dino_resnet50`: torchvision's, `fc` an identity."""
    net = torchvision_resnet(full=full)
    net.fc = nn.Identity()
    return net


class VicregResNet(nn.Module):
    """Source: facebookresearch/vicreg, resnet.py `ResNet`: it pads by one, and then the stem by two."""

    def __init__(self, *, full: bool = False) -> None:
        super().__init__()
        like = torchvision_resnet(full=full)
        self.padding = nn.ConstantPad2d(1, 0.0)
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            like.layer1,
            like.layer2,
            like.layer3,
            like.layer4,
        )
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.padding(x)))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return torch.flatten(self.avgpool(x), 1)


class ChannelsFirstNorm(nn.Module):
    """Source: facebookresearch/VICRegL, convnext.py `LayerNorm` with `channels_first`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        x = centred / torch.sqrt(centred.pow(2).mean(1, keepdim=True) + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class ConvNextBlock(nn.Module):
    """Source: facebookresearch/VICRegL, convnext.py `Block` with `layer_scale_init_value=0`: no `gamma`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        return x + self.pwconv2(functional.gelu(self.pwconv1(y))).permute(0, 3, 1, 2)


class VicreglConvNext(nn.Module):
    """Source: facebookresearch/VICRegL, convnext.py `ConvNeXt`: the norm comes before the mean."""

    def __init__(
        self, dims: tuple[int, ...] = (8, 16, 24, 32), depths: tuple[int, ...] = (2, 2, 2, 2)
    ) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, stride=4), ChannelsFirstNorm(dims[0]))
        self.downsample_layers = nn.ModuleList([stem])
        for before, after in itertools.pairwise(dims):
            down = nn.Sequential(ChannelsFirstNorm(before), nn.Conv2d(before, after, 2, stride=2))
            self.downsample_layers.append(down)
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNextBlock(dim) for _ in range(depth)))
            for dim, depth in zip(dims, depths, strict=True)
        )
        self.norm = nn.LayerNorm(dims[-1], eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        for down, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(down(x))
        return self.norm(x.flatten(2, 3).permute(0, 2, 1)).mean(dim=1)


class VitAttention(nn.Module):
    """Source: timm 0.4.9, vision_transformer.py `Attention`, which facebookresearch/moco-v3 builds on."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        n, length, dim = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        weight = (q @ k.transpose(-2, -1) * (dim // self.heads) ** -0.5).softmax(dim=-1)
        return self.proj((weight @ v).transpose(1, 2).reshape(n, length, dim))


class VitBlock(nn.Module):
    """Source: timm 0.4.9, vision_transformer.py `Block`."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = VitAttention(dim, heads)
        self.mlp = nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp.fc2(functional.gelu(self.mlp.fc1(self.norm2(x))))


class MocoVit(nn.Module):
    """Source: facebookresearch/moco-v3, vits.py `VisionTransformerMoCo`: sine-cosine positions, 12 heads."""

    def __init__(self, num_classes: int, size: int = 32, dim: int = 48, depth: int = 2) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.pos_embed = nn.Parameter(self._positions(size // 16, dim), requires_grad=False)
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, dim, 16, stride=16)
        self.blocks = nn.Sequential(*(VitBlock(dim, heads=12) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)

    def _positions(self, side: int, dim: int) -> Tensor:
        along, across = torch.meshgrid(torch.arange(side).float(), torch.arange(side).float(), indexing="ij")
        omega = 1 / 10000 ** (torch.arange(dim // 4) / (dim // 4))
        angles = [torch.outer(grid.flatten(), omega) for grid in (along, across)]
        grid = torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)
        return torch.cat([torch.zeros(1, 1, dim), grid[None]], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        return self.norm(self.blocks(x))[:, 0]


class Moco(nn.Module):
    """Source: facebookresearch/moco-v3, moco/builder.py `MoCo`: two encoders, with an MLP for a classifier.

    Args:
        encoder: Makes an encoder with so many classes.
        last: Name of its classifier, `fc` or `head`.
        layers: Layers of the MLP in its place.

    """

    def __init__(self, encoder: Callable[[int], nn.Module], last: str, layers: int) -> None:
        super().__init__()
        self.base_encoder, self.momentum_encoder = encoder(16), encoder(16)
        for side in (self.base_encoder, self.momentum_encoder):
            setattr(side, last, self._mlp(layers, getattr(side, last).in_features))
        self.predictor = self._mlp(2, 8)

    def _mlp(self, layers: int, width: int) -> nn.Sequential:
        mlp: list[nn.Module] = []
        for i in range(layers):
            final = i == layers - 1
            out = 8 if final else 16
            mlp += [nn.Linear(16 if i else width, out, bias=False), nn.BatchNorm1d(out, affine=not final)]
            mlp += [] if final else [nn.ReLU()]
        return nn.Sequential(*mlp)


def moco_file(moco: nn.Module, arch: str) -> dict[str, Any]:
    """Return what main_moco.py saves; `DistributedDataParallel` calls the model `module`."""
    state = nn.ModuleDict({"module": moco}).state_dict()
    return {"epoch": 300, "arch": arch, "state_dict": state, "optimizer": {"state": {}}, "scaler": {}}


class MidasDpt(nn.Module):
    """The names of a MiDaS file with a Swin V2 encoder, without the arithmetic.

    Source: isl-org/MiDaS, midas/dpt_depth.py `DPT`, midas/blocks.py `_make_scratch`; timm 0.6.12,
    swin_transformer_v2.py `SwinTransformerV2`: a stage downsamples at its end, and `attn_mask` is a buffer of
    the blocks that shift their windows.
    """

    def __init__(
        self,
        dim: int = 8,
        heads: tuple[int, ...] = (2, 4, 8, 8),
        depths: tuple[int, ...] = (2, 2, 2, 2),
        window: int = 4,
        grid: int = 16,
    ) -> None:
        super().__init__()
        self.dims, self.heads, self.depths = [dim * 2**i for i in range(4)], heads, depths
        self.window, self.grid = window, grid
        self.pretrained, self.scratch = nn.Module(), nn.Module()
        self.pretrained.model = swin = nn.Module()
        swin.patch_embed = nn.Module()
        swin.patch_embed.proj, swin.patch_embed.norm = nn.Conv2d(3, dim, 4, stride=4), nn.LayerNorm(dim)
        swin.layers = nn.ModuleList(self._stage(i) for i in range(4))
        swin.norm, swin.head = nn.LayerNorm(8 * dim), nn.Linear(8 * dim, 1000)
        for i, width in enumerate(self.dims, 1):
            setattr(self.scratch, f"layer{i}_rn", nn.Conv2d(width, 4, 3, padding=1, bias=False))
        self.scratch.output_conv = nn.Sequential(nn.Conv2d(4, 2, 3), nn.Identity(), nn.Conv2d(2, 1, 1))

    def _stage(self, i: int) -> nn.Module:
        stage, dim = nn.Module(), self.dims[i]
        stage.blocks = nn.ModuleList(self._block(i, shifted=j % 2 == 1) for j in range(self.depths[i]))
        stage.downsample = nn.Identity()
        if i < 3:
            stage.downsample = nn.Module()
            stage.downsample.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
            stage.downsample.norm = nn.LayerNorm(2 * dim)
        return stage

    def _block(self, i: int, *, shifted: bool) -> nn.Module:
        block, dim, heads = nn.Module(), self.dims[i], self.heads[i]
        block.attn = attn = nn.Module()
        attn.logit_scale = nn.Parameter(torch.ones(heads, 1, 1))
        attn.cpb_mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads, bias=False))
        attn.qkv, attn.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        attn.q_bias, attn.v_bias = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        block.norm1, block.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        block.mlp = nn.Module()
        block.mlp.fc1, block.mlp.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        windows = (self.grid // 2**i // self.window) ** 2
        if shifted and windows > 1:
            block.register_buffer("attn_mask", torch.zeros(windows, self.window**2, self.window**2))
        return block


class GlobalGeMPool2d(nn.Module):
    """Source: facebookresearch/sscd-copy-detection, sscd/models/gem_pooling.py."""

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.size()
        mean = x.reshape(n, channels, height * width).clamp(min=1e-6).pow(3.0).mean(dim=2)
        return mean.pow(1.0 / 3.0)


class SscdModel(nn.Module):
    """Source: facebookresearch/sscd-copy-detection, sscd/models/model.py `Model` with `TV_RESNET50`."""

    def __init__(self, dims: int = 12, *, full: bool = False) -> None:
        super().__init__()
        self.backbone = torchvision_resnet(num_classes=dims, full=full)
        self.backbone.avgpool = GlobalGeMPool2d()

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(self.backbone(x))


def at_full_size(name: str) -> dict[str, Any]:
    """Return what the catalogue's entry `name` would download, by names and shapes alone: on no device."""
    tiny = {"dim": 96, "heads": (3, 6, 12, 24), "depths": (2, 2, 6, 2), "window": 16, "grid": 64}
    base = {"dim": 128, "heads": (4, 8, 16, 32), "depths": (2, 2, 18, 2), "window": 24, "grid": 96}
    makers: dict[str, Callable[[], nn.Module]] = {
        "resnet50.dino": partial(dino_resnet, full=True),
        "resnet50.vicreg": partial(VicregResNet, full=True),
        "resnet50.moco_v3": lambda: Moco(partial(torchvision_resnet, full=True), "fc", 2),
        "vit_small_patch16_224.moco_v3": lambda: Moco(
            partial(MocoVit, size=224, dim=384, depth=12), "head", 3
        ),
        "vit_base_patch16_224.moco_v3": lambda: Moco(
            partial(MocoVit, size=224, dim=768, depth=12), "head", 3
        ),
        "convnext_xlarge.vicregl_in22k": lambda: VicreglConvNext((256, 512, 1024, 2048), (3, 3, 27, 3)),
        "swinv2_tiny_window16_256.midas": partial(MidasDpt, **tiny),
        "swinv2_base_window12to24_192to384.midas": partial(MidasDpt, **base),
        "resnet50.sscd_imagenet_mixup": partial(SscdModel, 512, full=True),
        "resnet50.sscd_disc_mixup": partial(SscdModel, 512, full=True),
    }
    archs = {"resnet50.moco_v3": "resnet50", "vit_small": "vit_small", "vit_base": "vit_base"}
    with torch.device("meta"):
        net = makers[name]()
    if name.endswith("moco_v3"):
        return moco_file(net, next(arch for start, arch in archs.items() if name.startswith(start)))
    return net.state_dict()
