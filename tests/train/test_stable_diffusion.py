"""Stable Diffusion's encoder: what diffusers itself computes, from the files as they are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file
from support import Workspace, install_package
from website import COMMIT, hub_files, serve

from bobrt.catalogue import backbone
from bobrt.errors import MachineError, UsageError
from bobrt.spec import Backbone, Input, WeightsFile
from engines.ort_cpu import OrtCpuRunner
from train import architectures, layouts, model
from train.seeding import seed_everything

if TYPE_CHECKING:
    from collections.abc import Callable

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

UNET = "unet/diffusion_pytorch_model.safetensors"
SMALL = {"width": 32, "vae_width": 32, "layers": 1, "context_width": 24}
ENTRY = Backbone(
    name="net",
    timm="stable_diffusion_v1_encoder",
    family="diffusion",
    args=SMALL,
    input=Input(size=64, crop_pct=1.0, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3),
    weights=WeightsFile(layout="stable-diffusion-v1", repo="someone/net", file=UNET),
)
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
DEPRECATED = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
"""What diffusers called the layers of a VAE's attention when the weights were published."""


class Repository:
    """The published repository in small, by the libraries that it was published with.

    Args:
        folder: Where its files go.

    """

    def __init__(self, folder: Path) -> None:
        seed_everything(3)
        self.folder = folder
        # unet/config.json and vae/config.json of CompVis/stable-diffusion-v1-4, a tenth as wide
        self.unet = diffusers.UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            block_out_channels=(32, 64, 128, 128),
            layers_per_block=1,
            attention_head_dim=8,
            cross_attention_dim=24,
        ).eval()
        self.vae = diffusers.AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(32, 64, 128, 128),
            layers_per_block=1,
            latent_channels=4,
            scaling_factor=0.18215,
        ).eval()
        self._write_text()
        save_file(self.unet.state_dict(), self._file(UNET))
        vae = {self._published(name): value for name, value in self.vae.state_dict().items()}
        save_file(vae, self._file(VAE))

    def _published(self, name: str) -> str:
        if ".attentions." in name:
            for now, then in DEPRECATED.items():
                name = name.replace(f".{now}.", f".{then}.")
        return name

    def _write_text(self) -> None:
        letters = "abcdefghijklmnopqrstuvwxyz"
        words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
        vocabulary = {word: number for number, word in enumerate(words)}
        config = transformers.CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=24,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            bos_token_id=vocabulary["<|startoftext|>"],
            eos_token_id=vocabulary["<|endoftext|>"],
        )
        self.text = transformers.CLIPTextModel(config).eval()
        self.tokens = [vocabulary["<|startoftext|>"], *(vocabulary[x] for x in "imag"), vocabulary["e</w>"]]
        self.tokens += [*(vocabulary[x] for x in "classificatio"), vocabulary["n</w>"]]
        self.tokens += [vocabulary["<|endoftext|>"]] * (77 - len(self.tokens))
        self._file("tokenizer/vocab.json").write_text(json.dumps(vocabulary))
        self._file("tokenizer/merges.txt").write_text("#version: 0.2\n")
        marks = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
        self._file("tokenizer/special_tokens_map.json").write_text(json.dumps(marks))
        config_of_it = {**marks, "do_lower_case": True, "model_max_length": 77}
        self._file("tokenizer/tokenizer_config.json").write_text(json.dumps(config_of_it))
        self._file("text_encoder/config.json").write_text(config.to_json_string())
        # As transformers wrote it then: under `text_model`, with the positions as a buffer.
        state = {f"text_model.{name}": value for name, value in self.text.state_dict().items()}
        state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
        save_file(state, self._file(TEXT), metadata={"format": "pt"})

    def _file(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @torch.inference_mode()
    def feature(self, images: torch.Tensor) -> torch.Tensor:
        """Return the mean of the middle block's output on diffusers' own way to a drawing."""
        context = self.text(torch.tensor([self.tokens])).last_hidden_state.expand(len(images), -1, -1)
        latents = self.vae.encode(images).latent_dist.mode() * self.vae.config.scaling_factor
        seen: list[torch.Tensor] = []
        with self.unet.mid_block.register_forward_hook(lambda *call: seen.append(call[2])):
            self.unet(latents, timestep=0, encoder_hidden_states=context)
        return seen[0].mean((2, 3))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Nobody may write into it."""
    return Repository(tmp_path_factory.mktemp("published"))


@pytest.fixture
def own(tmp_path: Path) -> Repository:
    """A repository of a test's own."""
    return Repository(tmp_path)


def loaded(repository: Repository, entry: Backbone = ENTRY) -> model.Model:
    net = model.build(entry, classes=0, size=64, pretrained=True, own_head=True).eval()
    layouts.load(net.backbone, entry, repository.folder / UNET)
    return net


@torch.inference_mode()
def test_the_feature_is_what_diffusers_has_after_the_middle_block(published: Repository) -> None:
    """From bytes to the mean over positions: VAE, scaling, timestep 0, the prompt's embedding as context."""
    net = loaded(published)
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)

    (features,) = net(images)

    want = published.feature((images / 255 * 2 - 1).permute(0, 3, 1, 2))
    assert features.shape == (2, 128)
    assert want.std(dim=0).max() > 1e-3
    torch.testing.assert_close(features, want, rtol=1e-3, atol=1e-4)
    assert net.outputs == ["features"]


MYLAB = f"""
import msgspec
from bobrt.spec import Backbone

NET = msgspec.convert({msgspec.to_builtins(ENTRY)!r}, Backbone)
"""


def test_it_is_exported_from_the_hub_by_its_name(published: Repository, tmp_path: Path) -> None:
    """The U-Net and what lies beside it, all of one commit; the ONNX file answers as diffusers does."""
    files = [path for path in published.folder.rglob("*") if path.is_file()]
    names = {str(path.relative_to(published.folder)): path.read_bytes() for path in files}
    space = Workspace(tmp_path / "cache", tmp_path / "results")
    site = install_package(tmp_path / "site", "mylab", "[bobrt.backbones]\nnet = mylab:NET\n", MYLAB)
    with serve(hub_files("someone/net", names)) as hub:
        env = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(site)}
        done = space.bobrt("export", "net", "--json", env=env)
        asked = {heard.path for heard in hub.heard if "/resolve/" in heard.path}

    assert done.code == 0, done.err
    artifact = json.loads(done.out)["artifact"]
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with OrtCpuRunner(Path(artifact["path"]), 1) as runner:
        features = runner.infer({"images": images.numpy()})["features"]
    want = published.feature((images / 255 * 2 - 1).permute(0, 3, 1, 2))
    torch.testing.assert_close(torch.from_numpy(features), want, rtol=1e-3, atol=1e-4)
    beside = {f"/someone/net/resolve/{COMMIT}/{name}" for name in names if name != UNET}
    assert asked == {f"/someone/net/resolve/main/{UNET}"} | beside


def test_every_key_is_accounted_for(published: Repository) -> None:
    """What draws is left out by name, the prompt is a buffer, and nothing of the text encoder stays."""
    net = model.build(ENTRY, classes=0, size=64)
    told = layouts.load(net.backbone, ENTRY, published.folder / UNET)

    assert told["expected"] == told["loaded"] == len(net.backbone.state_dict())
    assert set(told["left_out"]) == {
        "up_blocks.*", "conv_norm_out.*", "conv_out.*", "decoder.*", "post_quant_conv.*"
    }  # fmt: skip
    with torch.inference_mode():
        want = published.text(torch.tensor([published.tokens])).last_hidden_state
    torch.testing.assert_close(net.backbone.context, want)
    assert "context" not in dict(net.backbone.named_parameters())


def change(name: str, edit: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Repository], None]:
    def damage(repository: Repository) -> None:
        path = repository.folder / name
        state = load_file(path)
        edit(state)
        save_file(state, path, metadata={"format": "pt"})

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change(UNET, lambda s: s.pop("conv_in.weight")), "1 missing (conv_in.weight)"),
        (change(UNET, lambda s: s.update(ema=torch.ones(1))), "1 extra (ema)"),
        (
            change(VAE, lambda s: s.pop("encoder.mid_block.attentions.0.query.bias")),
            "attentions.0.to_q.bias)",
        ),
        (change(VAE, lambda s: s.update({"loss.logvar": torch.ones(1)})), "1 extra (loss.logvar)"),
        (change(VAE, lambda s: [s.pop(k) for k in list(s) if k.startswith("decoder")]), "(decoder.*)"),
        (change(TEXT, lambda s: s.pop("text_model.final_layer_norm.weight")), "final_layer_norm.weight"),
        (lambda r: (r.folder / "tokenizer/merges.txt").unlink(), "lacks"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_file_that_does_not_fit_is_named(
    own: Repository, damage: Callable[[Repository], None], message: str
) -> None:
    """Whichever of the files it is."""
    damage(own)
    with pytest.raises(UsageError) as caught:
        loaded(own)

    assert message in caught.value.message
    assert str(own.folder) in caught.value.message


def test_the_number_of_heads_is_held_against_the_layout_s(published: Repository) -> None:
    """Four heads would fit every shape."""
    entry = msgspec.structs.replace(ENTRY, args={**SMALL, "num_heads": 4})
    with pytest.raises(UsageError, match="have 8 attention heads, the model has 4"):
        loaded(published, entry)


def test_layer_decay_goes_down_the_u_net() -> None:
    """The VAE first, the middle block last, the head behind it."""
    net = model.build(ENTRY, classes=10, size=64)
    layer = net.group_matcher()
    names = [name for name, _ in net.named_parameters()]

    assert all(layer(name) < layer("head.weight") for name in names if name.startswith("backbone."))
    order = ["encoder.conv_in", "down_blocks.0.resnets.0.conv1", "down_blocks.3.resnets.0.conv1"]
    numbers = [layer(f"backbone.{name}.weight") for name in [*order, "mid_block.resnets.0.conv1"]]
    assert numbers == sorted(set(numbers))


def test_the_entry_is_the_published_size() -> None:
    """Its width, blocks and heads are the published configuration's, counted on no device."""
    with torch.device("meta"):
        vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
        unet = diffusers.UNet2DConditionModel(cross_attention_dim=768)
    parts = [vae.encoder, vae.quant_conv, unet.conv_in, unet.time_embedding, unet.down_blocks, unet.mid_block]
    counted = sum(parameter.numel() for part in parts for parameter in part.parameters()) / 1e6

    assert backbone("stable_diffusion_v1_4").params_m == pytest.approx(counted, rel=0.001)
    assert sum(p.numel() for p in unet.parameters()) / 1e6 == pytest.approx(859.5, rel=0.001)


def test_without_diffusers_the_line_that_installs_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra: everything else works without."""
    monkeypatch.setattr(architectures, "find_spec", lambda name: None if name == "diffusers" else name)
    with pytest.raises(MachineError, match="needs diffusers, not installed") as caught:
        model.build(ENTRY, classes=0, size=64)
    assert caught.value.hint == "pip install 'bobrt[diffusion]'"
