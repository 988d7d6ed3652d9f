"""Published recipes by name, for plans that ask for one instead of writing it. Read without torch.

`bob2023` is the end-to-end fine-tuning of Battle of the Backbones (arXiv 2310.19909), from the
`model_configs/*.yaml` of hsouri/bob-classification at 19a93cd and the defaults of its `train.py`. The study
trained on eight GPUs with 128 images each; here one device adds up the gradients of eight times 128, so that
batch norms, and the images that share one mixup weight, are as many as there. Of a data set with fewer
images than 1,024 (Flowers-102 has 1,020) an epoch is one full batch, as there. What differs: the learning
rate moves every step instead of every epoch, bfloat16 takes the place of float16 with a scaled loss, and
nothing is chosen by looking, where the study kept the best epoch on the split it reported.
"""

from __future__ import annotations

import msgspec

from bobrt.registry import Registry
from bobrt.spec import Recipe

_BOB2023 = Recipe(
    epochs=100,
    lr=1e-3,
    batch=1024,
    micro_batch=128,
    fill=True,
    optimizer="adamw",
    weight_decay=0.05,
    layer_decay=0.75,
    schedule="cosine",
    warmup_epochs=5,
    warmup_lr=1e-4,
    min_lr=1e-6,
    head_init="xavier-normal",
    drop_path=0.1,
    label_smoothing=0.1,
    crop_scale=(0.08, 1.0),
    crop_ratio=(3 / 4, 4 / 3),
    interpolation="random",
    hflip=0.5,
    color_jitter=0.4,
    auto_augment="rand-m9-mstd0.5-inc1",
    random_erasing=0.25,
    mixup=0.8,
    cutmix=1.0,
    mixup_switch_prob=0.5,
    mixup_batch=128,
)

RECIPES = Registry(
    "recipe",
    {
        "bob2023": _BOB2023,
        "bob2023-large": msgspec.structs.replace(_BOB2023, epochs=50),
        # The encoder has no stochastic depth, neither here nor in the study.
        "bob2023-diffusion": msgspec.structs.replace(_BOB2023, lr=5e-4, drop_path=0.0),
    },
    Recipe,
)

_EXCEPTIONS = {
    "bob2023": {
        "vit_large_patch14_clip_224.laion2b": "bob2023-large",
        "vit_large_patch16_224.mae": "bob2023-large",
        "stable_diffusion_v1_4": "bob2023-diffusion",
    }
}


def recipe_for(name: str, backbone: str, where: str = "") -> Recipe:
    """Return a recipe as its publisher used it with a backbone.

    Args:
        name: An entry of `RECIPES`.
        backbone: Its name in the catalogue.
        where: File, key and line the recipe's name came from, when it came from a file.

    Raises:
        UsageError: There is no such recipe; the hint names the nearest.

    """
    return RECIPES.get(_EXCEPTIONS.get(name, {}).get(backbone, name), where)
