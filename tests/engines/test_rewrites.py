"""What is said otherwise in the graph is the same to PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from engines import rewrites


@pytest.mark.parametrize(
    ("size", "kernel", "dilation", "padding", "stride"),
    [
        (8, 3, 1, 1, 1),
        (8, 3, 1, 1, 2),
        (9, 3, 1, 1, 2),
        (8, 2, 1, 0, 2),
        ((6, 10), (3, 2), 1, (1, 0), (2, 1)),
        (9, 3, 2, 2, 1),
    ],
)
def test_folding_by_convolution_is_folding(
    size: object, kernel: object, dilation: int, padding: object, stride: object
) -> None:
    """The same sums of overlapping blocks, at every stride and padding that VOLO has and some more."""
    image = torch.randn(2, 5, *(size if isinstance(size, tuple) else (size, size)))
    how = {"kernel_size": kernel, "dilation": dilation, "padding": padding, "stride": stride}
    blocks = functional.unfold(image, **how)
    want = functional.fold(blocks, output_size=size, **how)

    with rewrites.fold_by_convolution():
        got = functional.fold(blocks, output_size=size, **how)

    assert functional.fold.__module__ == "torch.nn.functional"
    torch.testing.assert_close(got, want)
