"""The figures, as Vega-Lite specifications: plain data, drawn by the page's browser or into a file.

Each takes its values from a data source called `rows`; `filled` puts them in. Colours are Okabe & Ito's
(2008), told apart by colour-blind eyes; text and lines are `currentColor`, so a figure is read on light and
on dark. Precision is told by shape too, so that nothing hangs on colour alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bobrt.spec import Precision

if TYPE_CHECKING:
    from collections.abc import Sequence

    Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
VERSION = "6.1"
"""Of Vega-Lite, as vl-convert names it."""
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Of families, the most frequent first."""
OTHERS = "#8a8f98"
"""Of families beyond the palette, all one."""
SHAPES = {
    Precision.FP32: "circle",
    Precision.TF32: "diamond",
    Precision.FP16: "square",
    Precision.BF16: "triangle-up",
    Precision.INT8: "triangle-down",
    Precision.FP8: "cross",
}
DIVERGING = ["rgba(213,94,0,0.6)", "rgba(128,128,128,0)", "rgba(0,114,178,0.6)"]
"""Transparent in the middle, so that it is the ground's own colour there."""
FONT = "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', Arial, sans-serif"
CONFIG: Spec = {
    "font": FONT,
    "background": "transparent",
    "aria": False,  # a figure has one text alternative, not one for each of its marks
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "domainColor": "currentColor",
        "tickColor": "currentColor",
        "gridColor": "currentColor",
        "domainOpacity": 0.35,
        "tickOpacity": 0.35,
        "gridOpacity": 0.1,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelLimit": 260,
    },
    "legend": {"labelColor": "currentColor", "titleColor": "currentColor", "symbolStrokeWidth": 1.5},
    "text": {"color": "currentColor", "fontSize": 11},
    "rule": {"color": "currentColor"},
}


def filled(spec: Spec, rows: Sequence[Spec]) -> Spec:
    """Return a specification with its values; with names along its side it is as tall as they need.

    Vega-Lite's own height by step does not go together with a width by container, and a layer of rows with
    something that none has would have no extent. The page's code does the same in the browser.
    """
    height = spec["height"]
    for field in spec["usermeta"]["per"]:
        height *= max(1, len({row[field] for row in rows}))
    layers = [layer for layer in spec["layer"] if not _is_empty(layer, rows)]
    return {**spec, "height": height, "layer": layers, "datasets": {"rows": list(rows)}}


def front(families: Sequence[str], what: str = "score, %") -> Spec:
    """Return a score over latency with error bars, the front, and the front's names.

    Rows have `backbone family precision score low high p50 p50_low p50_high front`.
    """
    x: Spec = {"field": "p50", "type": "quantitative", "title": "median latency of one image, ms (log)"}
    x |= {"scale": {"type": "log", "nice": False, "padding": 48}, "axis": _log_axis()}
    y: Spec = {"field": "score", "type": "quantitative", "title": what}
    y |= {"scale": {"zero": False, "nice": True, "padding": 12}}
    ends_y = {"y": {**y, "field": "low"}, "y2": {"field": "high"}}
    ends_x = {"x": {**x, "field": "p50_low"}, "x2": {"field": "p50_high"}}
    step = {"type": "line", "interpolate": "step-after", "strokeWidth": 1.5, "opacity": 0.45}
    bar = {"type": "rule", "strokeWidth": 1.25, "opacity": 0.45}
    colour = _colour(families)
    return _spec(
        [
            {
                "transform": [_only("front")],
                "mark": {**step, "color": "currentColor"},
                "encoding": {"x": x, "y": y},
            },
            {"mark": bar, "encoding": {"x": x, **ends_y, "color": colour}},
            {"transform": [_only("p50_low")], "mark": bar, "encoding": {**ends_x, "y": y, "color": colour}},
            _points(x, y, families),
            {
                "transform": [_only("front")],
                "mark": {"type": "text", "dy": -11, "fontSize": 11, "limit": 170},
                "encoding": {"x": x, "y": y, "text": {"field": "backbone"}},
            },
        ],
        height=300,
    )


def ladder(families: Sequence[str]) -> Spec:
    """Return what each lower precision gains in speed and in score, both beside fp32.

    Rows have `backbone family precision faster gained told`.
    """
    x: Spec = {"field": "faster", "type": "quantitative", "title": "times as fast as fp32 (log)"}
    x |= {"scale": {"type": "log", "nice": False, "padding": 30}, "axis": _log_axis()}
    y: Spec = {"field": "gained", "type": "quantitative", "title": "points of score gained over fp32"}
    y |= {"scale": {"padding": 14, "nice": True}, "axis": {"format": "+~g"}}
    line = {"type": "rule", "strokeDash": [3, 3], "opacity": 0.5}
    return _spec(
        [
            {"mark": line, "encoding": {"x": {"datum": 1}}},
            {"mark": line, "encoding": {"y": {"datum": 0}}},
            _points(x, y, families),
        ],
        height=280,
    )


def question(families: Sequence[str], what: str = "score, %") -> Spec:
    """Return what engines scored in one question.

    Rows have `backbone family precision score low high order`.
    """
    x: Spec = {
        "field": "score",
        "type": "quantitative",
        "title": what,
        "scale": {"zero": False, "nice": True},
    }
    rows = {"y": _names("backbone"), "yOffset": {"field": "precision", "type": "nominal"}}
    ends = {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "color": _colour(families)}
    points = _points(x, {}, families)
    return _spec(
        [
            {"mark": {"type": "rule", "strokeWidth": 1.25, "opacity": 0.45}, "encoding": {**ends, **rows}},
            {**points, "encoding": {**points["encoding"], **rows}},
        ],
        height=13,
        per=("backbone", "precision"),
    )


def ranks() -> Spec:
    """Return ranks with their intervals.

    Rows have `backbone rank low high low_without high_without order`.
    """
    x: Spec = {
        "field": "rank",
        "type": "quantitative",
        "title": "rank; the bar is its 95 % interval over settings",
    }
    x |= {"scale": {"zero": False, "nice": False, "padding": 8}, "axis": {"tickMinStep": 1, "format": "d"}}
    y = _names("backbone")
    bar = {"type": "rule", "strokeWidth": 5, "opacity": 0.25, "strokeCap": "round"}
    inner = {"type": "rule", "strokeWidth": 1.5, "opacity": 0.7}
    dot = {"type": "point", "filled": True, "size": 60, "color": PALETTE[0], "opacity": 1}
    return _spec(
        [
            {"mark": bar, "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}}},
            {
                "mark": inner,
                "encoding": {"y": y, "x": {**x, "field": "low_without"}, "x2": {"field": "high_without"}},
            },
            {"mark": dot, "encoding": {"y": y, "x": x, "tooltip": _told("backbone", "rank", "low", "high")}},
        ],
        height=20,
        per=("backbone",),
    )


def heat() -> Spec:
    """Return z-scores of backbones in settings. Rows are those of `cells`."""
    return _matrix({"domainMid": 0}, "+.1f")


def agreement() -> Spec:
    """Return how alike settings rank. Rows are those of `cells`."""
    return _matrix({"domain": [-1, 0, 1]}, ".2f")


def cells(matrix: Spec) -> list[Spec]:
    """Return the cells of a matrix with the names of its `rows` and `columns`; what is null is no cell."""
    return [
        {"row": row, "column": column, "value": value, "order": order, "place": place}
        for order, (row, values) in enumerate(zip(matrix["rows"], matrix["values"], strict=True))
        for place, (column, value) in enumerate(zip(matrix["columns"], values, strict=True))
        if value is not None
    ]


def histogram() -> Spec:
    """Return the latencies of one engine, counted. Rows have `low high n`."""
    x: Spec = {
        "field": "low",
        "type": "quantitative",
        "title": "latency of one image, ms",
        "bin": {"binned": True},
    }
    x |= {"scale": {"zero": False, "nice": False}}
    y: Spec = {"field": "n", "type": "quantitative", "title": "calls"}
    mark: Spec = {"type": "bar", "color": PALETTE[0], "binSpacing": 1}
    encoding: Spec = {"x": x, "x2": {"field": "high"}, "y": y, "tooltip": _told("low", "high", "n")}
    return _spec([{"mark": mark, "encoding": encoding}], height=150)


def _spec(layers: list[Spec], height: int, per: tuple[str, ...] = ()) -> Spec:
    size: Spec = {"width": "container", "height": height, "usermeta": {"per": list(per)}}
    return {"$schema": SCHEMA, **size, "data": {"name": "rows"}, "layer": layers}


def _points(x: Spec, y: Spec, families: Sequence[str]) -> Spec:
    shape: Spec = {"field": "precision", "type": "nominal", "title": "precision"}
    shape |= {"scale": {"domain": [str(p) for p in SHAPES], "range": list(SHAPES.values())}}
    told = {"field": "told", "type": "nominal"}
    mark: Spec = {"type": "point", "filled": True, "size": 70, "opacity": 0.9, "cursor": "pointer"}
    return {
        "mark": mark,
        "encoding": {"x": x, "y": y, "shape": shape, "color": _colour(families), "tooltip": told},
    }


def _colour(families: Sequence[str]) -> Spec:
    colours = [PALETTE[i] if i < len(PALETTE) else OTHERS for i in range(len(families))]
    scale = {"domain": list(families), "range": colours}
    return {"field": "family", "type": "nominal", "title": "family", "scale": scale}


def _names(field: str) -> Spec:
    axis = {"ticks": False, "domain": False, "labelPadding": 6}
    return {
        "field": field,
        "type": "nominal",
        "title": None,
        "sort": {"field": "order", "op": "min"},
        "axis": axis,
    }


def _matrix(scale: Spec, format_: str) -> Spec:
    """Return numbers in coloured cells, columns named along the top."""
    x: Spec = {"field": "column", "type": "nominal", "title": None, "sort": {"field": "place", "op": "min"}}
    x |= {"axis": {"orient": "top", "labelAngle": -35, "ticks": False, "domain": False, "labelPadding": 6}}
    colour: Spec = {"field": "value", "type": "quantitative", "legend": None}
    colour |= {"scale": {**scale, "range": DIVERGING, "interpolate": "rgb"}}
    text = {"field": "value", "type": "quantitative", "format": format_}
    both = {"x": x, "y": _names("row")}
    padding = {"left": 5, "top": 5, "bottom": 5, "right": 70}  # the last column's name leans over the edge
    spec = _spec(
        [
            {"mark": {"type": "rect"}, "encoding": {**both, "color": colour}},
            {"mark": {"type": "text", "fontSize": 10.5}, "encoding": {**both, "text": text}},
        ],
        height=21,
        per=("row",),
    )
    return {**spec, "padding": padding}


def _log_axis() -> Spec:
    values = [float(f"{digit}e{power}") for power in range(-4, 7) for digit in (1, 1.5, 2, 3, 4, 5, 6, 8)]
    return {"format": "~g", "values": values, "labelOverlap": True}


def _is_empty(layer: Spec, rows: Sequence[Spec]) -> bool:
    """Tell whether a layer made by `_only` has no row."""
    fields = [step["filter"].removeprefix("datum.") for step in layer.get("transform", [])]
    return any(not any(row[field] for row in rows) for field in fields)


def _only(field: str) -> Spec:
    return {"filter": f"datum.{field}"}


def _told(*fields: str) -> list[Spec]:
    return [{"field": field} for field in fields]
