"""Vega as vl-convert carries it: the browser's code for the page, and figures as SVG and PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bobrt.errors import MachineError

try:
    import vl_convert
except ImportError as error:
    raise MachineError(
        "vl-convert-python is not installed, which draws figures", "pip install 'bobrt[report]'"
    ) from error

from bench.show import figures

if TYPE_CHECKING:
    Spec = dict[str, Any]

WIDTH = 520
"""Pixels of a figure in a file; a page's are as wide as there is room."""
SCALE = 2.0
"""Pixels of a PNG for each of the figure's."""


def bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that needs nothing else."""
    # Its stub knows no default of the first argument, which it has.
    script: str = vl_convert.javascript_bundle(vl_version=figures.VERSION)  # type: ignore[call-arg]
    return script


def svg(spec: Spec) -> bytes:
    """Return a figure as SVG."""
    drawn: str = vl_convert.vegalite_to_svg(_sized(spec), vl_version=figures.VERSION, config=figures.CONFIG)
    return drawn.encode()


def png(spec: Spec) -> bytes:
    """Return a figure as PNG, on white."""
    config = {**figures.CONFIG, "background": "white"}
    drawn: bytes = vl_convert.vegalite_to_png(
        _sized(spec), vl_version=figures.VERSION, config=config, scale=SCALE
    )
    return drawn


def _sized(spec: Spec) -> Spec:
    return {**spec, "width": WIDTH}
