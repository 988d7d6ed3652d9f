"""Published recipes: the numbers that were published, and a look-up without torch."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from bobrt.catalogue import backbone
from bobrt.errors import UsageError
from bobrt.spec import Recipe
from train import recipes

PLAIN = Recipe(epochs=1, lr=1.0, batch=1)


def test_bob2023_is_the_study_s_recipe() -> None:
    """Every number of its configuration files, and nothing left at a default that was not published."""
    recipe = recipes.RECIPES.get("bob2023")

    assert msgspec.structs.asdict(recipe) == {
        "epochs": 100,
        "lr": 1e-3,
        "batch": 8 * 128,
        "micro_batch": 128,
        "fill": True,
        "optimizer": "adamw",
        "weight_decay": 0.05,
        "layer_decay": 0.75,
        "schedule": "cosine",
        "warmup_epochs": 5,
        "warmup_lr": 1e-4,
        "min_lr": 1e-6,
        "head_init": "xavier-normal",
        "drop_path": 0.1,
        "label_smoothing": 0.1,
        "crop_scale": (0.08, 1.0),
        "crop_ratio": (3 / 4, 4 / 3),
        "interpolation": "random",
        "hflip": 0.5,
        "color_jitter": 0.4,
        "auto_augment": "rand-m9-mstd0.5-inc1",
        "random_erasing": 0.25,
        "mixup": 0.8,
        "cutmix": 1.0,
        "mixup_switch_prob": 0.5,
        "mixup_batch": 128,
    }


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("resnet50.a1_in1k", {}),
        ("vit_base_patch16_224.mae", {}),
        ("vit_large_patch14_clip_224.laion2b", {"epochs": 50}),
        ("vit_large_patch16_224.mae", {"epochs": 50}),
        ("stable_diffusion_v1_4", {"lr": 5e-4, "drop_path": 0.0}),
    ],
)
def test_the_study_s_exceptions_are_few_and_named(name: str, changed: dict[str, float]) -> None:
    """Two large networks for half as long, the diffusion encoder at half the rate: all in the catalogue."""
    plain = recipes.RECIPES.get("bob2023")

    assert backbone(name).name == name
    assert recipes.recipe_for("bob2023", name) == msgspec.structs.replace(plain, **changed)


def test_a_recipe_says_nothing_new_unless_asked() -> None:
    """Three numbers are a recipe still, and every later word of it is off."""
    off = {
        "micro_batch": None,
        "fill": False,
        "warmup_lr": 1e-5,
        "head_init": "torch",
        "drop_path": 0,
        "interpolation": None,
        "color_jitter": 0,
        "random_erasing": 0,
        "mixup": 0,
        "cutmix": 0,
        "mixup_batch": None,
    }

    assert {key: getattr(PLAIN, key) for key in off} == off


def test_an_unknown_recipe_is_named_with_its_place_and_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"plan it\.toml, line 3: unknown recipe 'bob2032'") as caught:
        recipes.recipe_for("bob2032", "resnet50.a1_in1k", "plan it.toml, line 3")

    assert "bob2023" in caught.value.hint


def test_a_planner_reads_recipes_without_torch() -> None:
    code = "import sys, train.recipes; print({'torch', 'timm'} & sys.modules.keys())"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"
