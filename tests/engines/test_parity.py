"""Two files that agree, two that do not, and two that agree on nothing."""

from __future__ import annotations

import numpy as np
import pytest

from bobrt.errors import BobrtError
from engines.parity import difference, require_fp32

ANSWERS = np.linspace(-4, 4, 30, dtype=np.float32).reshape(3, 10)
"""Three images, ten values each, every one of which moves with the image."""


def check(got: np.ndarray, want: np.ndarray, *, moving: bool = True) -> dict[str, float]:
    return require_fp32({"logits": got}, {"logits": want}, "it.onnx", moving=moving)


def test_a_difference_is_measured_against_the_reference() -> None:
    """Largest and mean gap, the largest answer, and how far one value moves between images."""
    want = np.array([[1.0, -2.0], [3.0, -2.0]], np.float32)
    got = np.array([[1.5, -2.0], [3.0, -1.9]], np.float32)

    gap = difference(got, want)

    assert gap == pytest.approx((0.5, 0.15, 3.0, 1.0))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_ten_thousandth_of_the_largest_answer_is_the_border(scale: float) -> None:
    """Below it the relative difference is returned, above it the file is refused, at any scale."""
    want = ANSWERS * np.float32(scale)
    near, far = want.copy(), want.copy()
    near[1, 2] += 0.9e-4 * 4 * scale
    far[1, 2] += 1.1e-4 * 4 * scale

    assert check(near, want)["logits"] == pytest.approx(0.9e-4, rel=0.01)
    with pytest.raises(BobrtError, match=r"it\.onnx differs from PyTorch in logits: max \|diff\|"):
        check(far, want)


@pytest.mark.parametrize(
    ("own", "other", "passes"),
    [
        (1e-3, 1.5e-3, True),
        (1e-3, -1.5e-3, True),
        (1e-3, 2.5e-3, False),
        (0.0, 1e-3, False),
        (5e-3, -5e-3, False),
    ],
)
def test_rounding_is_told_from_error_by_exact_arithmetic(own: float, other: float, passes: bool) -> None:
    """Where PyTorch itself is further than the border from fp64, a file may be twice as far, and no more."""
    exact = ANSWERS.astype(np.float64)
    want, got = ANSWERS.copy(), ANSWERS.copy()
    want[1, 2] += own
    got[1, 2] += other

    def check_exactly() -> None:
        require_fp32({"logits": got}, {"logits": want}, "it.onnx", exact=lambda: {"logits": exact})

    if passes:
        check_exactly()
    else:
        with pytest.raises(BobrtError, match="differs from PyTorch"):
            check_exactly()


def test_exact_arithmetic_is_asked_for_only_beyond_the_border() -> None:
    """A second forward pass in fp64 is for the few that need it; NaN is never rounding."""

    def exact() -> dict[str, np.ndarray]:
        raise AssertionError("asked for")

    require_fp32({"logits": ANSWERS}, {"logits": ANSWERS}, "it.onnx", exact=exact)
    broken = ANSWERS.copy()
    broken[0, 0] = np.nan
    with pytest.raises(BobrtError, match="differs from PyTorch"):
        require_fp32(
            {"logits": broken},
            {"logits": ANSWERS},
            "it.onnx",
            exact=lambda: {"logits": ANSWERS.astype(float)},
        )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_never_agrees(value: float) -> None:
    """One NaN or infinity in the file's answers is a difference."""
    got = ANSWERS.copy()
    got[2, 9] = value

    with pytest.raises(BobrtError, match="differs from PyTorch in logits"):
        check(got, ANSWERS)


def test_two_files_that_both_answer_nan_do_not_agree() -> None:
    """A reference that is no number proves nothing, whatever is compared with it."""
    broken = ANSWERS.copy()
    broken[0, 0] = np.nan

    with pytest.raises(BobrtError, match=r"it\.onnx"):
        check(broken, broken)


@pytest.mark.parametrize(
    "constant",
    [np.zeros((3, 10)), np.ones((3, 10)), np.tile(np.arange(10.0), (3, 1)), ANSWERS * 1e-5 + 1],
    ids=["zeros", "ones", "the same for every image", "moved by a hair"],
)
def test_agreeing_on_a_constant_proves_nothing(constant: np.ndarray) -> None:
    """A reference that does not move with the image is refused, and the hint asks for trained weights."""
    answers = constant.astype(np.float32)

    with pytest.raises(BobrtError, match=r"parity of it\.onnx proves nothing: output logits") as caught:
        check(answers, answers)

    assert "--weights" in caught.value.hint
    assert check(answers, answers, moving=False) == {"logits": 0.0}


def test_every_output_must_move_and_agree() -> None:
    """One output that agrees does not speak for another that does not."""
    wrong = ANSWERS + np.float32(0.1)
    outputs = {"features": ANSWERS, "logits": ANSWERS}

    assert require_fp32(outputs, outputs, "it.onnx") == {"features": 0.0, "logits": 0.0}
    with pytest.raises(BobrtError, match="differs from PyTorch in features"):
        require_fp32({**outputs, "features": wrong}, outputs, "it.onnx")
    with pytest.raises(BobrtError, match="output logits is the same"):
        require_fp32(outputs, {**outputs, "logits": np.zeros_like(ANSWERS)}, "it.onnx")
