"""What turns a backbone's features into a task's named outputs.

A head is a module with two words of its own: `outputs`, the names of what it answers, in order, and
`levels`, which of timm's feature maps it wants (`forward_intermediates`), from the finest to the coarsest;
none for a head on the pooled features alone. It is called with the pooled features `[n, width]` and a list
of those maps, `[n, channels, height, width]` each, and returns a tuple of tensors `[n, ...]` whose other axes
do not depend on the image: boxes are padded to a number that is always the same, masks have one size.
"""

from __future__ import annotations

from torch import Tensor, nn


class Classifier(nn.Linear):  # type: ignore[misc]  # torch is too heavy to check ours against
    """One linear layer on the pooled features."""

    outputs = ("logits",)
    levels: tuple[int, ...] = ()

    def forward(self, features: Tensor, _levels: list[Tensor]) -> tuple[Tensor]:
        """Return `logits [n, classes]`."""
        return (super().forward(features),)
