"""Small members of each family of the catalogue: timm's architectures, cut down through their arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from timm.models import nest, register_model, volo

from bobrt.spec import Backbone

if TYPE_CHECKING:
    from torch import nn


class Member(NamedTuple):
    """A small member of a family."""

    timm: str
    size: int = 64
    args: dict[str, Any] = {}


VIT = {"depth": 2, "embed_dim": 48}
ROPE = {**VIT, "num_heads": 4}
STAGES = {"depths": (1, 1, 1, 1)}
FOUR = (16, 24, 32, 48)
DIMS = {**STAGES, "dims": FOUR}
RESNET = {"layers": (1, 1, 1, 1), "base_width": 16}
FAMILIES = {
    "beit": [Member("beit_base_patch16_224", 32, VIT)],
    "cait": [Member("cait_xxs24_224", 32, VIT)],
    "coatnet": [Member("coatnet_0_rw_224", 64, {**STAGES, "embed_dim": (16, 32, 64, 64), "stem_width": 16})],
    "convnext": [
        Member("convnext_tiny", 64, DIMS),
        Member("convnextv2_tiny", 64, DIMS),
        Member("vicregl_convnext_xlarge", 64, DIMS),
    ],
    "crossvit": [Member("crossvit_9_240", 120, {"depth": ((1, 2, 0),)})],
    "davit": [
        Member("davit_tiny", 64, {**STAGES, "embed_dims": (16, 32, 48, 64), "num_heads": (1, 2, 3, 4)})
    ],
    "densenet": [Member("densenet121", 64, {"block_config": (1, 1, 1, 1), "growth_rate": 8})],
    "edgenext": [Member("edgenext_small", 64, DIMS)],
    "efficientformer": [Member("efficientformerv2_s0", 64, {"depths": (1, 1, 1, 1)})],
    "efficientnet": [Member("test_efficientnet", 32), Member("efficientnet_b0", 32)],
    "efficientvit": [Member("efficientvit_b0")],
    "eva": [Member("eva02_tiny_patch14_224", 28, {"depth": 2})],
    "fastvit": [Member("fastvit_sa12", 64, {"layers": (1, 1, 1, 1)})],
    "ghostnet": [Member("ghostnetv2_100")],
    "hgnet": [Member("hgnetv2_b0")],
    "hiera": [Member("hiera_tiny_224", 64, {"embed_dim": 24, "stages": (1, 1, 1, 1)})],
    "lcnet": [Member("lcnet_035")],
    "levit": [Member("levit_128s", 64, {"depth": (1, 1, 1)})],
    "mambaout": [Member("mambaout_femto", 64, DIMS)],
    "maxvit": [Member("maxvit_tiny_tf_224", 64, {**STAGES, "embed_dim": (32, 32, 64, 64), "stem_width": 16})],
    "mobilenet": [Member("mobilenetv3_small_050", 32), Member("mobilenetv4_conv_small_035", 32)],
    "mobileone": [Member("mobileone_s0", 32)],
    "mobilevit": [Member("mobilevit_xxs"), Member("mobilevitv2_050")],
    "nest": [Member("nest_cut_down")],
    "nextvit": [Member("nextvit_small", 64, {"depths": (1, 1, 5, 1)})],
    "poolformer": [Member("poolformer_s12")],
    "pvt": [Member("pvt_v2_b0", 64, STAGES)],
    "regnet": [Member("regnetx_002", 32), Member("regnetz_005", 32)],
    "repvit": [Member("repvit_m0_9", 64, {"embed_dim": FOUR, "depth": (1, 1, 1, 1)})],
    "resnet": [
        Member("resnet50", 64, RESNET),
        Member("resnet50_clip", 64),
        Member("resnetv2_18", 32),
        Member("sscd_resnet50", 64, {**RESNET, "dims": 12}),
    ],
    "sequencer": [
        Member(
            "sequencer2d_s",
            56,
            {"layers": (1, 1, 1, 1), "embed_dims": (16, 32, 32, 32), "hidden_sizes": (8, 8, 8, 8)},
        )
    ],
    "starnet": [Member("starnet_s050")],
    "swin": [Member("swinv2_tiny_window8_256", 64, {**STAGES, "embed_dim": 24})],
    "tinyvit": [
        Member("tiny_vit_5m_224", 64, {**STAGES, "embed_dims": (32, 32, 64, 64), "num_heads": (1, 1, 2, 2)})
    ],
    "vit": [
        Member("vit_small_patch16_224", 32, VIT),
        Member("vit_small_patch14_dinov2", 28, VIT),
        Member("vit_small_patch16_dinov3", 32, ROPE),
        Member("vit_base_patch16_clip_224", 32, VIT),
        Member("vit_base_patch16_siglip_224", 32, VIT),
        Member("vit_pe_core_base_patch16_224", 32, ROPE),
        Member("vit_pe_spatial_base_patch16_512", 32, ROPE),
        Member("samvit_base_patch16", 64, VIT),
        Member("naflexvit_base_patch16_gap", 32, ROPE),
        Member("test_vit", 32, {"patch_size": 8, "class_token": False, "global_pool": "avg"}),
    ],
    # As published, its logits have a share of what each patch says besides.
    "volo": [Member("volo_cut_down", 64, {"use_aux_head": False})],
    "xcit": [Member("xcit_tiny_12_p16_224", 32, {"depth": 1, "embed_dim": 48})],
}
"""By the catalogue's word for it; Stable Diffusion has tests of its own."""
MEMBERS = [member for members in FAMILIES.values() for member in members]


default_cfgs = {
    "nest_cut_down": nest.default_cfgs["nest_tiny_jx"],
    "volo_cut_down": volo.default_cfgs["volo_d1_224"],
}
"""Read by `register_model`. timm's own functions of these two take no depths."""


@register_model
def nest_cut_down(pretrained: bool = False, **options: Any) -> nn.Module:
    """Return NesT with a block a level."""
    small = {"embed_dims": (24, 48, 96), "num_heads": (1, 2, 4), "depths": (1, 1, 1), "pad_type": "same"}
    return nest._create_nest("nest_tiny_jx", pretrained, **small, **options)


@register_model
def volo_cut_down(pretrained: bool = False, **options: Any) -> nn.Module:
    """Return VOLO with a block a stage."""
    small = {"layers": (1, 1, 1, 1), "embed_dims": (96, 192, 192, 192), "num_heads": (3, 6, 6, 6)}
    return volo._create_volo("volo_d1_224", pretrained, **small, **options)


def entry(member: Member) -> Backbone:
    return Backbone(name=member.timm, timm=member.timm, family="any", args=member.args)
