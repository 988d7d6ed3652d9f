"""Weights that timm does not have: a publisher's file, as its own code writes it, and nothing else."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import publishers
import pytest
import timm
import torch
from torch import nn

from bobrt.catalogue import BACKBONES
from bobrt.errors import UsageError
from bobrt.spec import Backbone, Input, WeightsFile
from train import layouts, model, weights
from train.layouts import LAYOUTS
from train.seeding import seed_everything

if TYPE_CHECKING:
    from collections.abc import Callable

    State = dict[str, torch.Tensor]
    Damage = Callable[[State], object]

INPUT = Input(size=32, crop_pct=0.9, interpolation="bilinear", mean=(0.2, 0.3, 0.4), std=(0.5, 0.25, 0.125))
ELSEWHERE = {name: entry for name, entry in BACKBONES.all().items() if entry.weights}
RESNET = {"layers": (1, 1, 1, 1), "base_width": 16}
VIT = {"embed_dim": 48, "depth": 2, "num_heads": 12}


class Published(NamedTuple):
    """A publisher's model in small, and the timm model that its weights are for."""

    net: nn.Module
    """Answers features."""
    content: Any
    """What is saved of it."""
    timm: str
    args: dict[str, Any]

    def entry(self, layout: str, **changes: Any) -> Backbone:
        args = {**self.args, **changes}
        file = WeightsFile(layout=layout, url="http://127.0.0.1/net.pth")
        return Backbone(name="net", timm=self.timm, family="any", args=args, input=INPUT, weights=file)


def moco(encoder: Callable[[int], nn.Module], last: str, layers: int, arch: str) -> tuple[nn.Module, Any]:
    """Return the base encoder without what was put behind it, and the file."""
    both = publishers.stirred(publishers.Moco(encoder, last, layers))
    content = publishers.moco_file(both, arch)
    content["state_dict"] = {name: value.clone() for name, value in content["state_dict"].items()}
    setattr(both.base_encoder, last, nn.Identity())
    return both.base_encoder, content


def publish(layout: str) -> Published:
    """Return what the publisher of a layout would have published."""
    seed_everything(1)
    if layout == "moco-v3-resnet":
        net, content = moco(publishers.torchvision_resnet, "fc", 2, "resnet50")
        return Published(net, content, "resnet50", RESNET)
    if layout.startswith("moco-v3-vit"):
        size = layout.rpartition("-")[2]
        net, content = moco(publishers.MocoVit, "head", 3, f"vit_{size}")
        return Published(net, content, f"vit_{size}_patch16_224", VIT)
    if layout == "midas-swin2":
        net = publishers.stirred(publishers.MidasDpt())
        args = {"window_size": 4, "embed_dim": 8, "depths": (2, 2, 2, 2), "num_heads": (2, 4, 8, 8)}
        return Published(net, net.state_dict(), "swinv2_tiny_window16_256", args)
    make, arch, args = {
        "dino-resnet": (publishers.dino_resnet, "resnet50", RESNET),
        "vicreg-resnet": (publishers.VicregResNet, "resnet50", RESNET),
        "sscd-torchvision": (publishers.SscdModel, "sscd_resnet50", {**RESNET, "dims": 12}),
        "vicregl-convnext": (
            publishers.VicreglConvNext,
            "vicregl_convnext_xlarge",
            {"depths": (2, 2, 2, 2), "dims": (8, 16, 24, 32)},
        ),
    }[layout]
    net = publishers.stirred(make())
    return Published(net, net.state_dict(), arch, args)


ONE_FILE = [name for name, layout in LAYOUTS.all().items() if not layout.read]
WITH_FORWARD = [name for name in ONE_FILE if name != "midas-swin2"]


def saved(content: Any, folder: Path) -> Path:
    """Save as publishers do."""
    path = folder / "net.pth"
    torch.save(content, path)
    return path


def loaded(published: Published, layout: str, folder: Path, size: int = 64) -> tuple[model.Model, Any]:
    """Build the entry's model and load the publisher's file into it; return what became of the keys too."""
    entry = published.entry(layout)
    net = model.build(entry, classes=0, size=size, pretrained=True, own_head=True).eval()
    return net, layouts.load(net.backbone, entry, saved(published.content, folder))


def pictures(size: int) -> torch.Tensor:
    """Return three pictures: `uint8 [3, size, size, 3]`."""
    return torch.randint(0, 256, (3, size, size, 3), dtype=torch.uint8)


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Return images as the entry says its checkpoint wants them."""
    return ((images / 255 - torch.tensor(INPUT.mean)) / torch.tensor(INPUT.std)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("layout", WITH_FORWARD)
@torch.inference_mode()
def test_a_publisher_s_weights_answer_as_in_its_own_code(layout: str, tmp_path: Path) -> None:
    """The feature is the publisher's own, of images normalised as the entry says; there is no classifier."""
    published = publish(layout)
    size = 32 if "vit" in layout else 64
    net, told = loaded(published, layout, tmp_path, size)
    images = pictures(size)

    (features,) = net(images)

    if layout == "sscd-torchvision":
        # Ours is before the scaling to length 1.
        assert (features.norm(dim=1) - 1).abs().min() > 0.1
        features = nn.functional.normalize(features)
    want = published.net(normalised(images))
    assert want.std(dim=0).max() > 1e-3
    torch.testing.assert_close(features, want, rtol=1e-3, atol=1e-4)
    assert net.outputs == ["features"]
    assert told["expected"] == told["loaded"] == len(net.backbone.state_dict())
    assert set(told["left_out"]) == set(LAYOUTS.get(layout).left_out)


def test_every_weight_of_a_midas_encoder_lands_at_its_place(tmp_path: Path) -> None:
    """What downsampled at the end of a stage does so before the next; the decoder is named and left out."""
    published = publish("midas-swin2")
    net, told = loaded(published, "midas-swin2", tmp_path)

    got, want = net.backbone.state_dict(), published.content
    prefix = "pretrained.model."
    for i in range(3):
        for name in ("reduction.weight", "norm.weight", "norm.bias"):
            ours, theirs = f"layers.{i + 1}.downsample.{name}", f"{prefix}layers.{i}.downsample.{name}"
            assert torch.equal(got.pop(ours), want[theirs])
    for name, value in got.items():
        assert torch.equal(value, want[f"{prefix}{name}"]), name
    assert told["left_out"] == {
        "scratch.*": 8,
        "pretrained.model.head.*": 2,
        "pretrained.model.layers.*.attn_mask": 2,
    }
    assert net(pictures(64))[0].shape == (3, 64)


def state_of(content: Any) -> State:
    """Return the state dict in a publisher's file."""
    found: State = content.get("state_dict", content)
    return found


def lose_one(state: State) -> str:
    name = next(name for name in state if name.endswith(("proj.weight", "conv1.weight", "0.weight")))
    del state[name]
    return name.rpartition(".")[2]


def add_one(state: State) -> str:
    state["ema.decay"] = torch.ones(2, 2)
    return "ema.decay"


def reshape_one(state: State) -> str:
    name = next(name for name in state if name.endswith(("norm.bias", "bn1.bias")) and "momentum" not in name)
    state[name] = torch.zeros(3)
    return "is (3,), not"


@pytest.mark.parametrize("layout", ONE_FILE)
@pytest.mark.parametrize(
    ("damage", "what"), [(lose_one, "1 missing"), (add_one, "1 extra"), (reshape_one, "1 of another shape")]
)
def test_a_key_too_few_or_too_many_is_named(
    layout: str, damage: Callable[[State], str], what: str, tmp_path: Path
) -> None:
    """Nothing is loaded half way; the file, the kind of misfit and the key are in the line."""
    published = publish(layout)
    key = damage(state_of(published.content))
    with pytest.raises(UsageError) as caught:
        loaded(published, layout, tmp_path)

    assert caught.value.message.startswith(f"checkpoint {tmp_path}/net.pth does not fit: keys ")
    assert what in caught.value.message
    assert key in caught.value.message


LEFT_OUT = [(name, pattern) for name in ONE_FILE for pattern in LAYOUTS.get(name).left_out]


@pytest.mark.parametrize(("layout", "pattern"), LEFT_OUT)
def test_what_a_layout_leaves_out_has_to_be_there(layout: str, pattern: str, tmp_path: Path) -> None:
    """A file without the publisher's projector, predictor or decoder is not the one that is described."""
    published = publish(layout)
    state = state_of(published.content)
    for name in [name for name in state if fnmatchcase(name, pattern)]:
        del state[name]
    with pytest.raises(UsageError) as caught:
        loaded(published, layout, tmp_path)

    assert caught.value.message.endswith(f"does not fit: keys 1 missing ({pattern})")


def test_weights_with_12_heads_do_not_go_into_a_model_with_6(tmp_path: Path) -> None:
    """Every shape fits and every answer would be wrong: the entry's heads are held against the layout's."""
    published = publish("moco-v3-vit-small")
    entry = published.entry("moco-v3-vit-small", num_heads=6)
    net = model.build(entry, classes=0, size=32)
    before = {name: value.clone() for name, value in net.backbone.state_dict().items()}

    with pytest.raises(UsageError) as caught:
        layouts.load(net.backbone, entry, saved(published.content, tmp_path))

    assert caught.value.message == "the weights of net have 12 attention heads, the model has 6"
    assert caught.value.hint == "args = { num_heads = 12 } in its entry"
    assert all(torch.equal(value, before[name]) for name, value in net.backbone.state_dict().items())
    assert ELSEWHERE["vit_small_patch16_224.moco_v3"].args == {"num_heads": 12}


def test_a_file_that_calls_itself_another_architecture_is_refused(tmp_path: Path) -> None:
    """MoCo v3 writes the architecture into its files."""
    published = publish("moco-v3-vit-base")
    with pytest.raises(UsageError, match="holds a vit_base, not a vit_small"):
        loaded(published, "moco-v3-vit-small", tmp_path)


@pytest.mark.parametrize("size", [32, 64])
def test_the_position_embedding_of_moco_is_fixed_and_fits_any_size(size: int, tmp_path: Path) -> None:
    """It takes no gradient; at another size it is what timm makes of it, the class token's untouched."""
    published = publish("moco-v3-vit-small")
    net, _ = loaded(published, "moco-v3-vit-small", tmp_path, size)
    embedding = net.backbone.pos_embed

    assert not embedding.requires_grad
    assert [name for name, value in net.named_parameters() if not value.requires_grad] == [
        "backbone.pos_embed"
    ]
    assert embedding.shape == (1, 1 + (size // 16) ** 2, 48)
    assert torch.equal(embedding[:, :1], published.net.pos_embed[:, :1])
    if size == 32:
        assert torch.equal(embedding, published.net.pos_embed)


@pytest.mark.parametrize("layout", ["moco-v3-resnet", "sscd-torchvision"])
def test_a_publisher_s_file_can_be_passed_by_hand(layout: str, tmp_path: Path) -> None:
    """`--weights PATH` takes what the publisher offers, for a machine without a network; timm's keys too."""
    published = publish(layout)
    entry = published.entry(layout)
    want, _ = loaded(published, layout, tmp_path)
    timm_keys = tmp_path / "timm.pth"
    torch.save(want.backbone.state_dict(), timm_keys)

    for path in (tmp_path / "net.pth", timm_keys):
        net = model.build(entry, classes=10, size=64)
        model.load_local(net, entry, path)
        for name, value in net.backbone.state_dict().items():
            assert torch.equal(value, want.backbone.state_dict()[name])


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_code_and_is_not_read(tmp_path: Path) -> None:
    """The publisher of SSCD offers it too; what it says when loaded is where to look instead."""
    published = publish("sscd-torchvision")
    traced = torch.jit.trace(published.net, torch.zeros(1, 3, 32, 32))
    torch.jit.save(traced, tmp_path / "net.pth")
    entry = published.entry("sscd-torchvision")
    net = model.build(entry, classes=0, size=32)

    with pytest.raises(UsageError, match="is TorchScript, which is code") as caught:
        layouts.load(net.backbone, entry, tmp_path / "net.pth")
    assert caught.value.hint == "pass a file of weights"


def test_an_unknown_layout_is_answered_with_the_nearest(tmp_path: Path) -> None:
    """Did you mean, with the entry's name."""
    published = publish("dino-resnet")
    with pytest.raises(UsageError, match="net: unknown layout 'dino-resnt'") as caught:
        loaded(published, "dino-resnt", tmp_path)
    assert caught.value.hint.startswith("did you mean dino-resnet")


def test_every_entry_from_elsewhere_is_whole() -> None:
    """It says where and how, what the images are like, and leaves the commit and the digest to a download."""
    used = set()
    for entry in ELSEWHERE.values():
        file = entry.weights
        assert file is not None
        assert (file.url is None) != (file.repo is None)
        assert (file.repo is None) == (file.file is None)
        assert file.url is None or file.url.startswith("https://")
        assert (file.revision, file.sha256) == (None, None)
        assert entry.input
        assert entry.licence
        assert "." not in entry.timm
        assert LAYOUTS.get(file.layout).source
        used.add(file.layout)
    assert used == set(LAYOUTS.names())
    assert len(ELSEWHERE) >= 11


@pytest.mark.parametrize("name", [name for name, entry in ELSEWHERE.items() if entry.family != "diffusion"])
def test_at_full_size_an_entry_is_what_its_publisher_s_file_holds(name: str) -> None:
    """On no device: every name and shape of the file fits; the entry counts parameters and pixels right."""
    entry = ELSEWHERE[name]
    with torch.device("meta"):
        net = timm.create_model(entry.timm, num_classes=0, **entry.args)
    layout = LAYOUTS.get(entry.weights.layout)
    state, _ = layouts.state_of(layout, publishers.at_full_size(name), Path("net.pth"))
    weights.load_strictly(net, state, Path("net.pth"))

    counted = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    assert entry.params_m == pytest.approx(counted, rel=0.01)
    assert model.transform_of(entry, None) == model.Transform(
        size=entry.input.size, crop_pct=entry.input.crop_pct, interpolation=entry.input.interpolation
    )
    config = timm.get_pretrained_cfg(entry.timm)
    assert not config.fixed_input_size or config.input_size[-1] == entry.input.size
    heads = {block.attn.num_heads for block in net.blocks} if layout.heads else set()
    assert heads == ({layout.heads} if layout.heads else set())
