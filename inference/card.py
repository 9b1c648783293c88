"""Drawings of verdicts: a card of 1,200 px per face, and the scores of a video over time.

Colour-blind people can tell the colours apart (Okabe & Ito; PuOr).
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager, get_font
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import Rectangle

from data.files import replacing, write_json
from data.names import for_screen
from features.disagreement import PARTS, Pair
from features.explain import Reason
from features.regions import BOXES, REGIONS, region_masks
from inference.verdict import CLEAR, FAKE, Region, Verdict

INK, GREY, PALE, SILVER = "#202124", "#5f6368", "#e3e5e8", "#aab0b6"
BLUE, ORANGE = "#0072b2", "#d55e00"  # towards real, towards fake
COLOURS = {CLEAR: BLUE, FAKE: ORANGE}
TINT = LinearSegmentedColormap.from_list("unusual", (SILVER, ORANGE))
LINES = (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", GREY, "#000000")
STYLE = {
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a file name may hold dollar signs
    "axes.titlesize": 10,
    "axes.titlecolor": GREY,
    **{f"axes.spines.{side}": False for side in ("left", "right", "top", "bottom")},
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
FAMILY_WORDS = {
    "attributes": "age, gender, race",
    "identities": "identity",
    "vision_language": "overall appearance",
    "expressions": "expression",
    "traces": "forgery traces",
    "appearance": "made or photographed",
    "reference": "photographs of the person",
}
# Matrices of similarities, and the outputs they can show: the first one that is there.
MATRICES = {
    "identity": ("identity",),
    "appearance": ("embedding", "appearance"),
    "origin of the pixels": ("source",),
}


def write_card(verdict: Verdict, image: np.ndarray, folder: Path, stem: str) -> tuple[Path, Path]:
    """Write `<stem>.png` and `<stem>.json`. image: as of `draw_card`."""
    card, data = folder / f"{stem}.png", folder / f"{stem}.json"
    write_figure(draw_card(verdict, image), card)
    write_json(data, verdict.to_json(whole=True))
    return card, data


def write_figure(figure: Figure, file: Path) -> None:
    """As PNG, whole or not at all."""
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    with replacing(file) as opened:
        opened.write(drawn.getbuffer())


@lru_cache(1)
def _glyphs(font: str) -> frozenset[int]:
    return frozenset(get_font(font).get_charmap())


@lru_cache(256)
def with_font(text: str) -> tuple[str, list[str]]:
    """What can be drawn of one line of text, and the fonts for it.

    Characters that the usual font lacks are drawn by one of the system's that has them all (Hangul);
    where there is none they are escaped: \\uc0ac.
    """
    usual = fontManager.findfont(FontProperties(), fallback_to_default=True)
    lacking = {ord(character) for character in text} - _glyphs(usual)
    names = [FontProperties(fname=usual).get_name()]
    if not lacking:
        return text, names
    for font in fontManager.ttflist:
        with suppress(OSError, RuntimeError):  # a font that is gone, or damaged
            if lacking <= get_font(font.fname).get_charmap().keys():
                return text, [*names, font.name]
    escaped = (c.encode("unicode_escape").decode() if ord(c) in lacking else c for c in text)
    return "".join(escaped), names


@rc_context(STYLE)
def draw_card(verdict: Verdict, image: np.ndarray) -> Figure:
    """The card of one face. image: (H, W, 3) uint8 RGB, the whole picture."""
    figure = Figure(figsize=(12, 10.4), dpi=100)
    FigureCanvasAgg(figure)
    colour = COLOURS.get(verdict.verdict, GREY)
    _headline(figure, verdict, colour)
    top = figure.add_gridspec(
        1, 3, width_ratios=(1, 1, 1.9), left=0.02, right=0.985, top=0.86, bottom=0.565, wspace=0.08
    )
    _picture(figure.add_subplot(top[0]), verdict.box, image, colour)
    _face(figure.add_subplot(top[1]), verdict)
    _regions(figure, top[2], verdict.regions)
    low = figure.add_gridspec(
        1, 4, width_ratios=(1, 1, 1, 1.15), left=0.05, right=0.84, top=0.495, bottom=0.3, wspace=0.3
    )
    for place, (title, outputs) in enumerate(MATRICES.items()):
        _matrix(figure.add_subplot(low[place]), title, outputs, verdict.pairs)
    _contributions(figure.add_subplot(low[3]), verdict, colour)
    _reasons(figure.add_axes((0.02, 0.1, 0.96, 0.14)), verdict.reasons, colour)
    about = " ".join(["This detector.", *verdict.record])
    _text(figure, 0.02, 0.088, about, 8.5, GREY, va="top", wrap=True)
    note = (
        "Matrices: purple, more similar than in most real faces; orange, less similar; framed, "
        "outside the range of 90% of real faces. The result is a hint, not a proof."
    )
    _text(figure, 0.02, 0.015, note, 8.5, GREY)
    return figure


def draw_scores(verdicts: Sequence[Verdict]) -> Figure:
    figure = Figure(figsize=(12, 4), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    timed = all(second is not None for verdict in verdicts for second in verdict.clip["seconds"])
    for verdict, colour in zip(verdicts, LINES, strict=False):
        clip = verdict.clip
        label = f"person {verdict.face + 1}: {verdict.words}, mean {verdict.p_fake:.2f}"
        x = clip["seconds" if timed else "frames"]
        axes.plot(x, clip["p_fake"], "o-", color=colour, markersize=4, label=label)
        axes.axhspan(clip["low"], clip["high"], color=colour, alpha=0.1)
    axes.axhline(verdicts[0].threshold, color=GREY, linestyle="--", label="threshold")
    axes.set(ylim=(0, 1), xlabel="seconds" if timed else "frame")
    axes.set_ylabel("p_fake; band: 95% interval of the mean")
    axes.legend(loc="upper left")
    return figure


def _text(
    where: Axes | Figure, x: float, y: float, text: str, size: float, color: str = INK, **style: Any
) -> None:
    where.text(x, y, text, fontsize=size, color=color, **{"va": "center", **style})


def _frame(
    axes: Axes, x: float, y: float, width: float, height: float, colour: str, line: str = "-"
) -> None:
    style = {"fill": False, "edgecolor": colour, "linewidth": 2, "linestyle": line}
    axes.add_patch(Rectangle((x, y), width, height, **style))


def _headline(figure: Figure, verdict: Verdict, colour: str) -> None:
    _text(figure, 0.02, 0.953, verdict.words, 19, colour, weight="bold")
    name, fonts = with_font(for_screen(Path(verdict.path).name))
    name = name if len(name) <= 48 else f"{name[:29]} … {name[-16:]}"
    _text(figure, 0.98, 0.965, name, 10, GREY, ha="right", family=fonts)
    quality = [f"{key} {value}" for key, value in verdict.quality.items() if key != "overall"]
    _text(figure, 0.98, 0.943, ", ".join(quality), 8.5, GREY, ha="right")
    p, threshold = verdict.p_fake, verdict.threshold
    axes = figure.add_axes((0.29, 0.945, 0.33, 0.03))
    ends = np.clip([0, verdict.clear_below, threshold, 1], 0, 1)
    axes.barh([0] * 3, np.diff(ends), 0.3, ends[:-1], color=["#a9c6da", PALE, "#eebf99"])
    axes.plot(p, 0, "o", color=colour, markersize=11)
    _text(axes, p, 0.7, f"p_fake {p:.2f}", 11, colour, ha="center", weight="bold")
    axes.set(xlim=(0, 1), ylim=(-0.3, 0.8), yticks=[], xticks=[])
    text = "   ·   ".join([verdict.p_words, verdict.scale, *verdict.warnings])
    _text(figure, 0.02, 0.922, text, 9.5, va="top", wrap=True)


def _picture(axes: Axes, box: tuple[float, ...], image: np.ndarray, colour: str) -> None:
    axes.imshow(image)
    height, width = image.shape[:2]
    x0, y0, x1, y1 = np.clip(box, 0, (width - 1, height - 1, width - 1, height - 1))
    _frame(axes, x0, y0, x1 - x0, y1 - y0, colour)
    axes.set(title="picture", xticks=[], yticks=[])


def _face(axes: Axes, verdict: Verdict) -> None:
    """The aligned face; the more orange a pixel, the more unusual the regions that contain it."""
    known = [region for region in verdict.regions if region.rank is not None]
    axes.imshow(verdict.aligned)
    if known:
        masks = region_masks()[[REGIONS.index(region.name) for region in known]].astype(float)
        tint = np.tensordot([_unusual(region.rank) for region in known], masks, 1)
        tint /= np.maximum(masks.sum(0), 1)
        axes.imshow(np.dstack([np.full((*tint.shape, 3), to_rgb(ORANGE)), 0.55 * tint]))
        most = max(known, key=lambda region: region.disagreement)
        outer = most.name == "outer"
        x0, y0, x1, y1 = (value * len(tint) for value in BOXES[most.name])
        colour = ORANGE if _unusual(most.rank) else SILVER
        _frame(axes, x0, y0, x1 - x0 - 1, y1 - y0 - 1, colour, "--" if outer else "-")
        name = "outside the box" if outer else most.name
        axes.set_xlabel(f"most: {name} (> {int(100 * most.rank)}% of real faces)")
    axes.set(title="which regions disagree with the others", xticks=[], yticks=[])


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


def _regions(figure: Figure, place: SubplotSpec, regions: Sequence[Region]) -> None:
    ranks = [region.rank for region in regions]
    columns = [("disagreement", 0, [x and (x, f"> {int(100 * x)}% of reals") for x in ranks])]
    keys = {key.rpartition(".")[2]: key for key in reversed(regions[0].predictions)}
    for title, origin, outputs in COLUMNS:
        if output := next((name for name in outputs if name in keys), None):
            values = [region.predictions.get(keys[output]) for region in regions]
            columns.append((title, origin, [v and outputs[output](v) for v in values]))
    grid = place.subgridspec(1, len(columns) + 1, width_ratios=(0.4, *[1] * len(columns)))
    for number, (title, origin, cells) in enumerate(columns, 1):
        axes = figure.add_subplot(grid[number])
        axes.set(title=title, xlim=(0, 1), ylim=(len(regions) - 0.5, -0.5), xticks=[], yticks=[])
        for row, (length, text) in ((row, cell) for row, cell in enumerate(cells) if cell):
            colour = TINT(_unusual(length)) if title == "disagreement" else "#9db8cc"
            axes.barh(row, 1, 0.72, color="#f4f5f6")
            axes.barh(row, min(length, 1) - origin, 0.72, origin, color=colour)
            _text(axes, 0.04, row, text, 8.5)
        if number == 1:
            names = ["whole" if region.name == "full" else region.name for region in regions]
            axes.set_yticks(range(len(names)), names)


def _matrix(axes: Axes, title: str, outputs: Sequence[str], pairs: Sequence[Pair]) -> None:
    """Similarity of every pair of regions, coloured by its rank among real faces."""
    named = (
        pair.output for output in outputs for pair in pairs if pair.output.endswith(f".{output}")
    )
    output = next(named, None)
    shades = np.full((len(REGIONS), len(REGIONS)), np.nan)
    for pair in pairs:
        if pair.output == output:
            x, y = sorted((REGIONS.index(pair.first), REGIONS.index(pair.second)))
            shades[y, x] = 0.08 + 0.84 * pair.rank
            rare = not pair.low <= pair.value <= pair.high
            colour, weight = INK if 0.25 < shades[y, x] < 0.8 else "white", "bold" if rare else None
            text = f"{pair.value:.2f}".replace("0.", ".", 1)
            _text(axes, x, y, text, 7, colour, ha="center", weight=weight)
            if rare:
                _frame(axes, x - 0.46, y - 0.46, 0.92, 0.92, INK)
    axes.imshow(shades, cmap="PuOr", vmin=0, vmax=1, aspect="auto")
    axes.set(xlim=(-0.5, len(REGIONS) - 1.5), ylim=(len(REGIONS) - 0.5, 0.5))
    axes.set_title(f"{title}: {'similarity' if output else 'not available'}")
    names = ["whole", *PARTS]
    axes.set_xticks(range(len(PARTS)), names[:-1], fontsize=7.5, rotation=90)
    axes.set_yticks(range(1, len(names)), PARTS, fontsize=7.5)


def _contributions(axes: Axes, verdict: Verdict, colour: str) -> None:
    base, parts = verdict.baseline_logit, verdict.families
    values = [base, *parts.values(), base + sum(parts.values())]
    signs = [ORANGE if value > 0 else BLUE for value in parts.values()]
    names = [FAMILY_WORDS.get(name, name) for name in parts]
    labels = ["baseline", *names, f"logit of p_fake {verdict.p_fake:.2f}"]
    bars = axes.barh(range(len(values)), values, 0.62, color=[SILVER, *signs, colour])
    axes.bar_label(bars, fmt="{:+.2f}", padding=3)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_yticks(range(len(labels)), labels)
    axes.margins(x=0.5)
    axes.invert_yaxis()
    axes.yaxis.tick_right()
    axes.set(title="contributions to the score", xticks=[])


def _reasons(axes: Axes, reasons: Sequence[Reason], colour: str) -> None:
    """The sentences; beside each the value and the range of 90% of real faces."""
    axes.set(xlim=(0, 1), ylim=(3, 0))
    axes.axis("off")
    for row, reason in enumerate(reasons):
        y = row + 0.5
        _text(axes, 0, y, textwrap.fill(f"{row + 1}. {reason.sentence}", 92), 10.5)
        numbers = np.array([reason.low, reason.high, reason.value])
        span = max(reason.high - reason.low, 1e-9)
        ends = numbers.min() - 0.2 * span, numbers.max() + 0.2 * span
        low, high, value = np.interp(numbers, ends, (0.73, 0.98))
        axes.hlines(y, 0.72, 0.99, color=PALE)
        axes.hlines(y, low, high, color="#a9c6da", linewidth=9)
        axes.plot(value, y, "o", color=colour, markersize=9)
        _text(axes, (low + high) / 2, y + 0.25, "90% of real faces", 7.5, GREY, ha="center")
    if not reasons:
        _text(axes, 0, 0.5, "No single reason.", 10.5)
