"""Stable Diffusion v1 as a backbone: what it makes of an image before it starts to draw.

The VAE's encoder, then the U-Net's down and middle blocks at timestep 0, as in Battle of the Backbones. The
prompt never changes, so its embedding is computed once and kept as a buffer; the text encoder is not needed
afterwards. The feature is the mean over positions of the middle block's output: what stands behind it in the
U-Net draws, and what the study put behind it was never trained with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from bobrt.errors import UsageError
from train import layouts, weights

if TYPE_CHECKING:
    from pathlib import Path

    from train.layouts import Layout
    from train.weights import State

PROMPT = "image classification"
TOKENS = 77
SCALE = 0.18215
"""What latents are multiplied with, so that their variance is one: `scaling_factor` of the VAE."""
VAE = layouts.Layout(
    source="huggingface/diffusers models/autoencoders/autoencoder_kl.py AutoencoderKL",
    left_out=("decoder.*", "post_quant_conv.*"),
    # The names of the attention's layers before diffusers 0.15; the published file still has them.
    renames=(
        (r"^(encoder\.mid_block\.attentions\.\d+)\.query\.", r"\1.to_q."),
        (r"^(encoder\.mid_block\.attentions\.\d+)\.key\.", r"\1.to_k."),
        (r"^(encoder\.mid_block\.attentions\.\d+)\.value\.", r"\1.to_v."),
        (r"^(encoder\.mid_block\.attentions\.\d+)\.proj_attn\.", r"\1.to_out.0."),
    ),
)


class Encoder(nn.Module):  # type: ignore[misc]  # torch is too heavy to check ours against
    """VAE encoder and half a U-Net, with the methods of a timm model.

    Args:
        num_classes: 0; it has no classifier of its own.
        width: Channels of the U-Net's first level; the fourth has four times as many.
        vae_width: Channels of the VAE's first level.
        layers: Residual blocks of a level.
        num_heads: Heads of each attention in the U-Net.
        context_width: Width of the prompt's embedding.

    Source: `unet/config.json` and `vae/config.json` of CompVis/stable-diffusion-v1-4.

    """

    def __init__(  # noqa: PLR0913, PLR0917 - what the published configuration says
        self,
        num_classes: int = 0,
        width: int = 320,
        vae_width: int = 128,
        layers: int = 2,
        num_heads: int = 8,
        context_width: int = 768,
    ) -> None:
        super().__init__()
        if num_classes:
            raise ValueError("it has no classifier")
        # On no device: the halves that draw are dropped before they take memory.
        with torch.device("meta"):
            vae = AutoencoderKL(
                block_out_channels=tuple(vae_width * m for m in (1, 2, 4, 4)),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=layers,
                latent_channels=4,
            )
            unet = UNet2DConditionModel(
                block_out_channels=tuple(width * m for m in (1, 2, 4, 4)),
                layers_per_block=layers,
                cross_attention_dim=context_width,
                attention_head_dim=num_heads,  # diffusers' word for the number of heads
                in_channels=4,
                out_channels=4,
            )
        self.encoder, self.quant_conv = vae.encoder, vae.quant_conv
        self.time_proj, self.time_embedding = unet.time_proj, unet.time_embedding
        self.conv_in, self.down_blocks, self.mid_block = unet.conv_in, unet.down_blocks, unet.mid_block
        self.register_buffer("context", torch.zeros(1, TOKENS, context_width, device="meta"))
        self.to_empty(device="cpu")
        self.context.zero_()
        for module in self.modules():
            if reset := getattr(module, "reset_parameters", None):
                reset()
        self.num_classes, self.num_heads = 0, num_heads
        self.num_features = self.head_hidden_size = 4 * width

    def group_matcher(self, coarse: bool = False) -> dict[str, object]:
        """Return timm's patterns of the layers, first to last: what layer decay goes by."""
        del coarse  # the U-Net's levels are few
        stem = r"^encoder|^quant_conv|^conv_in|^time_embedding"
        middle = (r"^mid_block", (len(self.down_blocks),))
        return {"stem": stem, "blocks": [(r"^down_blocks\.(\d+)", None), middle]}

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the middle block's maps: `[n, 4 * width, h / 64, w / 64]` of images `[n, 3, h, w]`.

        Args:
            images: Normalised to -1..1.

        """
        mean, _ = self.quant_conv(self.encoder(images)).chunk(2, dim=1)
        start = torch.zeros(1, device=images.device)
        time = self.time_embedding(self.time_proj(start).to(images.dtype))
        context = self.context.expand(images.shape[0], -1, -1)
        x = self.conv_in(mean * SCALE)
        for block in self.down_blocks:
            more = {"encoder_hidden_states": context} if getattr(block, "has_cross_attention", False) else {}
            x, _ = block(hidden_states=x, temb=time, **more)
        maps: Tensor = self.mid_block(x, time, encoder_hidden_states=context)
        return maps

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the mean over positions: `[n, 4 * width]`."""
        del pre_logits  # there is nothing else
        return maps.mean((2, 3))


def read(layout: Layout, path: Path) -> tuple[State, dict[str, int]]:
    """Return the encoder's state from the published U-Net file and the files beside it.

    Args:
        layout: That of the U-Net's file.
        path: `unet/diffusion_pytorch_model.safetensors` in a folder like the hub's repository.

    Raises:
        UsageError: A file is not there, is damaged, or does not fit.

    """
    folder = path.parents[1]
    for name in layout.beside:
        if not (folder / name).is_file():
            raise UsageError(
                f"checkpoint {path} lacks {folder / name}", "lay the repository's files out alike"
            )
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    unet_state, unet_left_out = layouts.state_of(layout, weights.contents(path)[0], path)
    vae_state, vae_left_out = layouts.state_of(VAE, weights.contents(vae)[0], vae)
    state = {**unet_state, **vae_state, "context": context_of(folder)}
    return state, {**unet_left_out, **vae_left_out}


def context_of(folder: Path) -> Tensor:
    """Return CLIP's embedding of the prompt: `float32 [1, 77, width]`.

    Args:
        folder: Holds `tokenizer/` and `text_encoder/` as the hub's repository does.

    Raises:
        UsageError: The text encoder's file lacks a parameter, or has one too many.

    """
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    text, told = CLIPTextModel.from_pretrained(
        folder / "text_encoder", dtype=torch.float32, local_files_only=True, output_loading_info=True
    )
    odd = {"missing": sorted(told["missing_keys"]), "extra": sorted(told["unexpected_keys"])}
    weights.require_fit(folder / "text_encoder" / "model.safetensors", odd)
    tokens = tokenizer(
        PROMPT, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        embedding: Tensor = text.eval()(tokens).last_hidden_state
    return embedding
