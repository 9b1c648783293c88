"""Drawings of verdicts: a card of 1,200 px per face, and the scores of a video over time.

Colour-blind people can tell the colours apart (Okabe & Ito; PuOr).
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from data.files import write_json
from features.disagreement import PARTS, Pair
from features.regions import BOXES, REGIONS, region_masks
from inference.verdict import FAKE, REAL, Region, Verdict

INK, GREY, PALE, SILVER = "#202124", "#5f6368", "#e3e5e8", "#aab0b6"
BLUE, ORANGE = "#0072b2", "#d55e00"  # real, fake
COLOURS = {REAL: BLUE, FAKE: ORANGE}
LINES = (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", GREY, "#000000")
FAMILY_WORDS = {
    "attributes": "age, gender, race",
    "identities": "identity",
    "vision_language": "overall appearance",
    "expressions": "expression",
    "traces": "forgery traces",
}
# Title of a matrix of similarities, and outputs it can show: the first one that is there.
MATRICES = {
    "identity": ("identity",),
    "appearance": ("embedding", "appearance"),
    "origin of the pixels": ("source",),
}


def write_card(verdict: Verdict, image: np.ndarray, folder: Path, stem: str) -> tuple[Path, Path]:
    """Write `<stem>.png` and `<stem>.json`; returns both paths. image: as of `draw_card`."""
    card, data = folder / f"{stem}.png", folder / f"{stem}.json"
    draw_card(verdict, image).savefig(card)
    write_json(data, verdict.to_json(whole=True))
    return card, data


def draw_card(verdict: Verdict, image: np.ndarray) -> Figure:
    """The card of one face. image: (H, W, 3) uint8 RGB, the whole picture."""
    figure = _figure(12, 10.4)
    _headline(figure, verdict)
    top = figure.add_gridspec(
        1, 3, width_ratios=(1, 1, 1.9), left=0.02, right=0.985, top=0.86, bottom=0.565, wspace=0.08
    )
    _picture(figure.add_subplot(top[0]), verdict, image)
    _face(figure.add_subplot(top[1]), verdict)
    _regions(figure.add_subplot(top[2]), verdict.regions)
    low = figure.add_gridspec(
        1, 4, width_ratios=(1, 1, 1, 1.15), left=0.05, right=0.84, top=0.495, bottom=0.3, wspace=0.3
    )
    for place, (title, outputs) in enumerate(MATRICES.items()):
        found = {pair.output.rpartition(".")[2]: pair.output for pair in reversed(verdict.pairs)}
        name = next((found[output] for output in outputs if output in found), None)
        pairs = [pair for pair in verdict.pairs if pair.output == name]
        _matrix(figure.add_subplot(low[place]), title, pairs)
    _contributions(figure.add_subplot(low[3]), verdict)
    _reasons(figure.add_axes((0.02, 0.03, 0.96, 0.195)), verdict)
    note = (
        "Matrices: purple, more similar than in most real faces; orange, less similar; framed, "
        "outside the range of 90% of real faces. The result is a hint, not a proof."
    )
    _text(figure, 0.02, 0.012, note, 8.5, GREY, va="baseline")
    return figure


def draw_scores(verdicts: Sequence[Verdict]) -> Figure:
    """Scores over time of all persons of one video."""
    figure = _figure(12, 4, layout="constrained")
    axes = figure.add_subplot()
    timed = all(second is not None for verdict in verdicts for second in verdict.clip["seconds"])
    for verdict, colour in zip(verdicts, LINES, strict=False):
        clip = verdict.clip
        label = f"person {verdict.face + 1}: {verdict.verdict}, mean {verdict.p_fake:.2f}"
        x = clip["seconds" if timed else "frames"]
        axes.plot(x, clip["p_fake"], "o-", color=colour, markersize=4, label=label)
        axes.axhspan(clip["low"], clip["high"], color=colour, alpha=0.1)
    threshold = verdicts[0].threshold
    axes.axhline(threshold, color=GREY, linestyle="--", linewidth=1, label="threshold")
    axes.set(ylim=(0, 1), xlabel="seconds" if timed else "frame")
    axes.set_ylabel("p_fake; band: 95% interval of the mean")
    axes.legend(loc="upper left", fontsize=9)
    return figure


def _figure(width: float, height: float, **options: str) -> Figure:
    figure = Figure(figsize=(width, height), dpi=100, facecolor="white", **options)
    FigureCanvasAgg(figure)
    return figure


def _headline(figure: Figure, verdict: Verdict) -> None:
    """Verdict, p_fake on a scale, file name, quality and warnings."""
    colour = COLOURS.get(verdict.verdict, GREY)
    _text(figure, 0.02, 0.953, verdict.verdict.upper(), 24, colour, weight="bold")
    # A name need not be UTF-8, and a dollar sign would start a formula.
    name = Path(verdict.path).name.encode("utf-8", "replace").decode().replace("\n", " ")
    name = (name if len(name) <= 48 else f"{name[:47]}…").replace("$", r"\$")
    quality = [f"{key} {value}" for key, value in verdict.quality.items() if key != "overall"]
    _text(figure, 0.98, 0.965, name, 10, GREY, ha="right")
    _text(figure, 0.98, 0.943, ", ".join(quality), 8.5, GREY, ha="right")
    axes = figure.add_axes((0.24, 0.925, 0.36, 0.05))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.axis("off")
    p, threshold = verdict.p_fake, verdict.threshold
    _box(axes, 0, 0.5, 1, 0.16, facecolor=PALE)
    _box(axes, threshold, 0.5, 1 - threshold, 0.16, facecolor=ORANGE, alpha=0.35)
    axes.plot([p], [0.58], "o", color=colour, markersize=11, zorder=3)
    _text(axes, 0, 0.36, "0", 8, GREY, va="top")
    _text(axes, 1, 0.36, "1", 8, GREY, va="top", ha="right")
    _text(axes, threshold, 0.36, f"fake from {threshold:.2f}", 8, GREY, va="top", ha="center")
    score = f"p_fake {p:.2f}"
    _text(axes, p, 0.82, score, 11, colour, va="baseline", ha="center", weight="bold")
    lines = [verdict.false_alarm_rate.words] if verdict.false_alarm_rate else []
    text = "   ·   ".join([*lines, *verdict.warnings])
    _text(figure, 0.02, 0.912, text, 10, va="top", wrap=True)


def _text(
    where: Axes | Figure, x: float, y: float, text: str, size: float, color: str = INK, **style: Any
) -> None:
    where.text(x, y, text, fontsize=size, color=color, **{"va": "center", **style})


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=10, color=GREY)


def _box(axes: Axes, x: float, y: float, width: float, height: float, **style: Any) -> None:
    axes.add_patch(Rectangle((x, y), width, height, **{"edgecolor": "none", **style}))


def _picture(axes: Axes, verdict: Verdict, image: np.ndarray) -> None:
    axes.imshow(image)
    height, width = image.shape[:2]
    x0, y0, x1, y1 = np.clip(verdict.box, 0, (width - 1, height - 1, width - 1, height - 1))
    colour = COLOURS.get(verdict.verdict, GREY)
    _box(axes, x0, y0, x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=2.5)
    _title(axes, "picture")
    axes.axis("off")


def _face(axes: Axes, verdict: Verdict) -> None:
    """The aligned face; the more orange a pixel, the more unusual the regions that contain it."""
    size = verdict.aligned.shape[0]
    known = [region for region in verdict.regions if region.rank is not None]
    axes.imshow(verdict.aligned)
    if known:
        masks = region_masks()[[REGIONS.index(region.name) for region in known]].astype(float)
        tint = np.tensordot([_unusual(region.rank) for region in known], masks, 1)
        tint = tint / np.maximum(masks.sum(0), 1)
        axes.imshow(np.dstack([np.broadcast_to(to_rgb(ORANGE), (*tint.shape, 3)), 0.55 * tint]))
        most = max(known, key=lambda region: region.disagreement)
        outer = most.name == "outer"
        x0, y0, x1, y1 = (value * size + 0.5 for value in BOXES[most.name])
        colour, line = ORANGE if _unusual(most.rank) else SILVER, "--" if outer else "-"
        sides = (x1 - x0 - 2, y1 - y0 - 2)
        _box(axes, x0, y0, *sides, fill=False, edgecolor=colour, linewidth=3, linestyle=line)
        name = "outside the box" if outer else most.name
        label = f"most: {name} (> {int(100 * most.rank)}% of real faces)"
        axes.set_xlabel(label, fontsize=9, color=INK)
    _title(axes, "which regions disagree with the others")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _unusual(rank: float) -> float:
    """0 up to the rank of 80% of real faces, 1 from 99% on."""
    return float(np.clip((rank - 0.8) / 0.19, 0, 1))


def _top_class(value: dict[str, float]) -> tuple[float, str]:
    name = max(value, key=value.get)
    return value[name], f"{name.lower()} {value[name]:.0%}"


def _female(value: dict[str, float]) -> tuple[float, str] | None:
    share = value.get("Female")
    return share and (share, f"{share:.0%} female")


# Title, where the bars start, and for each output that may be shown: length of the bar, and text.
COLUMNS: tuple[tuple[str, float, dict[str, Callable]], ...] = (
    ("age, years", 0, {"age_years": lambda y: (y / 80, f"{y:.0f}"), "age": _top_class}),
    ("gender", 0.5, {"gender": _female}),
    ("expression", 0, {"expression": _top_class, "emotion": _top_class}),
)


def _regions(axes: Axes, regions: Sequence[Region]) -> None:
    """A table with a row per region: disagreement and predictions as bars."""
    cells = [
        region.rank and (region.rank, f"> {int(100 * region.rank)}% of reals") for region in regions
    ]
    columns = [("disagreement", 0, cells)]
    keys = {key.rpartition(".")[2]: key for key in reversed(regions[0].predictions)}
    for title, origin, outputs in COLUMNS:
        if output := next((name for name in outputs if name in keys), None):
            values = [region.predictions.get(keys[output]) for region in regions]
            columns.append((title, origin, [v and outputs[output](v) for v in values]))
    axes.set(xlim=(0, 1), ylim=(len(regions) - 0.4, -1.1))
    axes.axis("off")
    for row, region in enumerate(regions):
        _text(axes, 0, row, "whole" if region.name == "full" else region.name, 10)
    starts = np.linspace(0.11, 1, len(columns) + 1)
    width = (starts[1] - starts[0]) * 0.94
    for x, (title, origin, cells) in zip(starts, columns, strict=False):
        _text(axes, x, -0.85, title, 9.5, GREY)
        for row, (length, text) in ((row, cell) for row, cell in enumerate(cells) if cell):
            colour = "#9db8cc"
            if title == "disagreement":
                mix = _unusual(length)
                colour = mix * np.array(to_rgb(ORANGE)) + (1 - mix) * np.array(to_rgb(SILVER))
            low, high = sorted((origin, min(length, 1.0)))
            _box(axes, x, row - 0.36, width, 0.72, facecolor="#f4f5f6")
            _box(axes, x + low * width, row - 0.36, (high - low) * width, 0.72, facecolor=colour)
            back = {"facecolor": "white", "alpha": 0.72, "edgecolor": "none", "pad": 1.2}
            _text(axes, x + 0.04 * width, row, text, 8.5, bbox=back)


def _matrix(axes: Axes, title: str, pairs: Sequence[Pair]) -> None:
    """Similarity of every pair of regions, coloured by its rank among real faces."""
    axes.set(xlim=(-0.5, len(REGIONS) - 1.5), ylim=(len(REGIONS) - 0.5, 0.5))
    for pair in pairs:
        x, y = sorted((REGIONS.index(pair.first), REGIONS.index(pair.second)))
        shade = 0.08 + 0.84 * pair.rank
        _box(axes, x - 0.5, y - 0.5, 1, 1, facecolor=colormaps["PuOr"](shade), edgecolor="white")
        rare = not pair.low <= pair.value <= pair.high
        colour, weight = INK if 0.25 < shade < 0.8 else "white", "bold" if rare else None
        text = f"{pair.value:.2f}".replace("0.", ".", 1)
        _text(axes, x, y, text, 7, colour, ha="center", weight=weight)
        if rare:
            _box(axes, x - 0.46, y - 0.46, 0.92, 0.92, fill=False, edgecolor=INK, linewidth=1.4)
    names = ["whole", *PARTS]
    axes.set_xticks(range(len(names) - 1), names[:-1], fontsize=7.5, rotation=90)
    axes.set_yticks(range(1, len(names)), names[1:], fontsize=7.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    what = "similarity" if pairs else "not available"
    _title(axes, f"{title}: {what}")


def _contributions(axes: Axes, verdict: Verdict) -> None:
    """What each family of experts adds to the baseline, and the sum."""
    base, parts = verdict.baseline_logit, verdict.families
    total = base + sum(parts.values())
    signs = [ORANGE if value > 0 else BLUE for value in parts.values()]
    colours = [SILVER, *signs, COLOURS.get(verdict.verdict, GREY)]
    values = [base, *parts.values(), total]
    limit = 1.75 * max(0.5, *map(abs, values))
    axes.barh(range(len(values)), values, color=colours, height=0.62)
    for place, value in enumerate(values):
        x, align = value + np.copysign(0.02 * limit, value), "left" if value >= 0 else "right"
        _text(axes, x, place, f"{value:+.2f}", 8.5, ha=align)
    names = [FAMILY_WORDS.get(name, name) for name in parts]
    labels = ["baseline", *names, f"logit of p_fake {verdict.p_fake:.2f}"]
    axes.set_yticks(range(len(labels)), labels, fontsize=8.5)
    axes.set(xlim=(-limit, limit), ylim=(len(labels) - 0.4, -0.6), xticks=[])
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.spines[:].set_visible(False)
    axes.yaxis.tick_right()
    axes.tick_params(length=0)
    _title(axes, "contributions to the score")


def _reasons(axes: Axes, verdict: Verdict) -> None:
    """The sentences; beside each the value and the range of 90% of real faces."""
    axes.set(xlim=(0, 1), ylim=(3, 0))
    axes.axis("off")
    colour = COLOURS.get(verdict.verdict, GREY)
    for row, reason in enumerate(verdict.reasons):
        y = row + 0.5
        text = textwrap.fill(f"{row + 1}. {reason.sentence}", 92)
        _text(axes, 0, y, text, 10.5)
        span = max(reason.high - reason.low, 1e-9)
        start = min(reason.low - 0.3 * span, reason.value - 0.1 * span)
        end = max(reason.high + 0.3 * span, reason.value + 0.1 * span)
        numbers = np.array([reason.low, reason.high, reason.value])
        low, high, value = 0.72 + 0.27 * (numbers - start) / (end - start)
        axes.plot([0.72, 0.99], [y, y], color=PALE, linewidth=1.5, zorder=1)
        bar = {"color": "#a9c6da", "linewidth": 9, "solid_capstyle": "butt", "zorder": 2}
        axes.plot([low, high], [y, y], **bar)
        axes.plot([value], [y], "o", color=colour, markersize=9, zorder=3)
        _text(
            axes,
            (low + high) / 2,
            y + 0.3,
            "90% of real faces",
            7.5,
            GREY,
            va="baseline",
            ha="center",
        )
    if not verdict.reasons:
        _text(axes, 0, 0.5, "No single reason.", 10.5)
