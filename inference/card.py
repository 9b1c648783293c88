"""A verdict as a picture of 1,200 px: what was judged, who disagrees about what, what that adds up to, and how sure it is.

Colours are those of Okabe and Ito and of viridis' relatives, which people tell apart whatever colours they see.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from features.disagreement import PARTS, Pair
from features.regions import BOXES, REGIONS, region_masks
from inference.verdict import FAKE, REAL, Region, Verdict

INK, GREY, PALE = "#202124", "#5f6368", "#e3e5e8"
BLUE, ORANGE = "#0072b2", "#d55e00"  # real, fake
COLOURS = {REAL: BLUE, FAKE: ORANGE}
USUAL, ODD = (
    "#aab0b6",
    ORANGE,
)  # the bar of a region that disagrees as real faces do, and of one that disagrees more
FAMILY_WORDS = {
    "attributes": "age, gender, race",
    "identities": "identity",
    "vision_language": "overall appearance",
    "expressions": "expression",
    "traces": "traces of making",
    "other": "other",
}
MATRICES = (  # what the matrices of pairs are called, and which outputs they show: the first that is there
    ("identity", ("identity",)),
    ("appearance", ("embedding", "appearance")),
    ("origin of the pixels", ("source",)),
)


def write_card(verdict: Verdict, image: np.ndarray, folder: Path, stem: str) -> tuple[Path, Path]:
    """`<stem>.png` and `<stem>.json` of one verdict. image: (H, W, 3) uint8 RGB, its picture. Returns: both paths."""
    drawn, told = folder / f"{stem}.png", folder / f"{stem}.json"
    draw_card(verdict, image).savefig(drawn)
    text = json.dumps(verdict.to_json(whole=True), indent=1, ensure_ascii=False) + "\n"
    told.write_bytes(text.encode("utf-8", "surrogateescape"))  # file names need not be UTF-8
    return drawn, told


def draw_card(verdict: Verdict, image: np.ndarray) -> Figure:
    """The card of one face. image: (H, W, 3) uint8 RGB, the picture that the verdict is about."""
    figure = Figure(figsize=(12, 10.4), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    _head(figure, verdict)
    top = figure.add_gridspec(
        1, 3, width_ratios=(1, 1, 1.9), left=0.02, right=0.985, top=0.86, bottom=0.565, wspace=0.08
    )
    _photo(figure.add_subplot(top[0]), verdict, image)
    _face(figure.add_subplot(top[1]), verdict)
    _regions(figure.add_subplot(top[2]), verdict.regions)
    low = figure.add_gridspec(
        1, 4, width_ratios=(1, 1, 1, 1.15), left=0.05, right=0.84, top=0.495, bottom=0.3, wspace=0.3
    )
    for place, (title, outputs) in enumerate(MATRICES):
        axes = figure.add_subplot(low[place])
        name = next(
            (p.output for o in outputs for p in verdict.pairs if p.output.rpartition(".")[2] == o),
            None,
        )
        _matrix(axes, title, [pair for pair in verdict.pairs if pair.output == name])
    _families(figure.add_subplot(low[3]), verdict)
    _reasons(figure, verdict)
    return figure


def _head(figure: Figure, verdict: Verdict) -> None:
    colour = COLOURS.get(verdict.verdict, GREY)
    figure.text(
        0.02, 0.953, verdict.verdict.upper(), fontsize=24, weight="bold", color=colour, va="center"
    )
    name = (
        Path(verdict.path).name.encode("utf-8", "replace").decode()
    )  # names need not be UTF-8, fonts insist
    name = (
        textwrap.shorten(_plain(name.replace("\n", " ")), 48, placeholder="…")
        or _plain(name)[:47] + "…"
    )
    figure.text(0.98, 0.965, name, fontsize=10, color=GREY, ha="right", va="center")
    quality = ", ".join(
        f"{key} {value}" for key, value in verdict.quality.items() if key != "overall"
    )
    figure.text(0.98, 0.943, quality, fontsize=8.5, color=GREY, ha="right", va="center")
    axes = figure.add_axes((0.24, 0.925, 0.36, 0.05))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.axis("off")
    axes.add_patch(Rectangle((0, 0.5), 1, 0.16, color=PALE))
    axes.add_patch(
        Rectangle((verdict.threshold, 0.5), 1 - verdict.threshold, 0.16, color=ORANGE, alpha=0.35)
    )
    axes.plot([verdict.p_fake], [0.58], "o", color=colour, markersize=11, zorder=3)
    axes.text(0, 0.36, "0", fontsize=8, color=GREY, va="top")
    axes.text(1, 0.36, "1", fontsize=8, color=GREY, va="top", ha="right")
    axes.text(
        verdict.threshold,
        0.36,
        f"fake from {verdict.threshold:.2f}",
        fontsize=8,
        color=GREY,
        va="top",
        ha="center",
    )
    axes.text(
        verdict.p_fake,
        0.82,
        f"p_fake {verdict.p_fake:.2f}",
        fontsize=11,
        weight="bold",
        color=colour,
        ha="center",
    )
    lines = [verdict.rarity.words] if verdict.rarity else []
    lines += [f"Cannot tell: {doubt}" for doubt in verdict.doubts]
    if verdict.quality.get("overall", "good") != "good":
        lines.append(f"Careful: {verdict.quality['overall']}")
    figure.text(0.02, 0.912, "   ·   ".join(lines), fontsize=10, color=INK, va="top", wrap=True)


def _plain(text: str) -> str:
    return text.replace("$", r"\$")


def _photo(axes: Axes, verdict: Verdict, image: np.ndarray) -> None:
    axes.imshow(image)
    height, width = image.shape[:2]
    x0, y0, x1, y1 = np.clip(verdict.box, 0, (width - 1, height - 1, width - 1, height - 1))
    edge = COLOURS.get(verdict.verdict, GREY)
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=edge, linewidth=2.5))
    axes.set_title("the picture", fontsize=10, color=GREY)
    axes.axis("off")


def _face(axes: Axes, verdict: Verdict) -> None:
    """The aligned face, each pixel the more orange the more unusually the regions that hold it disagree with the rest."""
    size = verdict.aligned.shape[0]
    known = [region for region in verdict.regions if region.rank is not None]
    axes.imshow(verdict.aligned)
    if known:
        masks = region_masks()[[REGIONS.index(region.name) for region in known]].astype(float)
        odd = np.tensordot([_odd(region.rank) for region in known], masks, 1) / np.maximum(
            masks.sum(0), 1
        )
        axes.imshow(np.dstack([np.broadcast_to(to_rgb(ODD), (*odd.shape, 3)), 0.55 * odd]))
        most = max(known, key=lambda region: region.disagreement)
        a, b, c, d = (value * size - 0.5 for value in BOXES[most.name])
        style = "--" if most.name == "outer" else "-"
        colour = ODD if _odd(most.rank) else USUAL
        box = Rectangle(
            (a + 1, b + 1),
            c - a - 2,
            d - b - 2,
            fill=False,
            edgecolor=colour,
            linewidth=3,
            linestyle=style,
        )
        axes.add_patch(box)
        name = "all but the box" if most.name == "outer" else most.name
        axes.set_xlabel(
            f"most: {name} (> {int(100 * most.rank)}% of real faces)", fontsize=9, color=INK
        )
    axes.set_title("which regions disagree with the rest", fontsize=10, color=GREY)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _odd(rank: float) -> float:
    """How odd a rank is: nothing up to that of four in five real faces, 1 for the last of them."""
    return float(np.clip((rank - 0.8) / 0.19, 0, 1))


Column = tuple[str, list[float | None], list[str], float]


def _columns(regions: Sequence[Region]) -> list[Column]:
    """What the table of regions shows beside disagreement: title, bar lengths from 0 to 1, words, and the bars' middle."""
    first: dict[str, str] = {}  # what is said -> the first expert output that says it
    for key in regions[0].predictions if regions else ():
        first.setdefault(key.rpartition(".")[2], key)
    values = {
        name: [region.predictions.get(key) for region in regions] for name, key in first.items()
    }
    found = []
    if "age_years" in values:
        years = values["age_years"]
        lengths = [None if y is None else y / 80 for y in years]
        found.append(("age, years", lengths, ["" if y is None else f"{y:.0f}" for y in years], 0))
    elif "age" in values:
        found.append(_likeliest("age, years", values["age"]))
    if "gender" in values:
        share = [v.get("Female") if v else None for v in values["gender"]]
        found.append(
            ("gender", share, ["" if s is None else f"{s:.0%} female" for s in share], 0.5)
        )
    feeling = values.get("expression", values.get("emotion"))
    return [*found, _likeliest("expression", feeling)] if feeling else found


def _likeliest(title: str, values: Sequence[dict[str, float] | None]) -> Column:
    """The class that each region finds most likely."""
    best = [max(v, key=v.get) if v else None for v in values]
    share = [None if b is None else v[b] for v, b in zip(values, best, strict=True)]
    return (
        title,
        share,
        ["" if b is None else f"{b.lower()} {s:.0%}" for b, s in zip(best, share, strict=True)],
        0,
    )


def _regions(axes: Axes, regions: Sequence[Region]) -> None:
    """One line per region: how much it disagrees, and what it says, as small bars."""
    columns = _columns(regions)
    axes.set(xlim=(0, 1), ylim=(len(regions) - 0.4, -1.1))
    axes.axis("off")
    starts = np.linspace(0.11, 1, len(columns) + 2)
    width = (starts[1] - starts[0]) * 0.94
    titles = ["disagreement", *(title for title, *_ in columns)]
    for start, title in zip(starts, titles, strict=False):
        axes.text(start, -0.85, title, fontsize=9.5, color=GREY, va="center")
    for row, region in enumerate(regions):
        axes.text(
            0.0,
            row,
            "whole" if region.name == "full" else region.name,
            fontsize=10,
            color=INK,
            va="center",
        )
        if region.rank is not None:
            odd = _odd(region.rank)
            colour = tuple(odd * np.array(to_rgb(ODD)) + (1 - odd) * np.array(to_rgb(USUAL)))
            _bar(
                axes,
                starts[0],
                row,
                width,
                0,
                region.rank,
                colour,
                f"> {int(100 * region.rank)}% of reals",
            )
        for start, (_, shares, words, middle) in zip(starts[1:], columns, strict=False):
            if shares[row] is not None:
                _bar(axes, start, row, width, middle, min(shares[row], 1.0), "#9db8cc", words[row])


def _bar(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    start: float,
    end: float,
    colour: object,
    text: str,
) -> None:
    axes.add_patch(Rectangle((x, y - 0.36), width, 0.72, facecolor="#f4f5f6", edgecolor="none"))
    low, high = sorted((start, end))
    axes.add_patch(
        Rectangle(
            (x + low * width, y - 0.36),
            (high - low) * width,
            0.72,
            facecolor=colour,
            edgecolor="none",
        )
    )
    box = {"facecolor": "white", "alpha": 0.72, "edgecolor": "none", "pad": 1.2}
    axes.text(x + 0.04 * width, y, text, fontsize=8.5, color=INK, va="center", bbox=box)


def _matrix(axes: Axes, title: str, pairs: Sequence[Pair]) -> None:
    """Agreement of every compared pair, coloured by the share of real faces that agree less."""
    names = REGIONS
    axes.set(xlim=(-0.5, len(names) - 1.5), ylim=(len(names) - 0.5, 0.5))
    shades = colormaps["PuOr"]
    for pair in pairs:
        y, x = sorted((names.index(pair.first), names.index(pair.second)), reverse=True)
        share = 0.08 + 0.84 * pair.rank
        axes.add_patch(
            Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=shades(share), edgecolor="white")
        )
        rare = not pair.low <= pair.value <= pair.high
        dark = 0.25 < share < 0.8
        text = f"{pair.value:.2f}".replace("0.", ".", 1)
        axes.text(
            x,
            y,
            text,
            fontsize=7,
            color=INK if dark else "white",
            ha="center",
            va="center",
            weight="bold" if rare else None,
        )
        if rare:
            axes.add_patch(
                Rectangle(
                    (x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor=INK, linewidth=1.4
                )
            )
    words = ["whole", *PARTS]
    axes.set_xticks(range(len(names) - 1), words[:-1], fontsize=7.5, rotation=90)
    axes.set_yticks(range(1, len(names)), words[1:], fontsize=7.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(
        f"{title}: similarity" if pairs else f"{title}: not known", fontsize=10, color=GREY
    )


def _families(axes: Axes, verdict: Verdict) -> None:
    """What each family of experts adds to the logit, from that of a usual real face to this one's."""
    names = [*verdict.families]
    values = [verdict.families[name] for name in names]
    places = range(1, len(names) + 1)
    limit = (
        max([abs(value) for value in (*values, verdict.usual, sum(values) + verdict.usual)] + [0.5])
        * 1.75
    )
    axes.barh(
        places, values, color=[ORANGE if value > 0 else BLUE for value in values], height=0.62
    )
    total = verdict.usual + sum(values)
    axes.barh([0], [verdict.usual], color="#b8bcc2", height=0.62)
    axes.barh([len(names) + 1], [total], color=COLOURS.get(verdict.verdict, GREY), height=0.62)
    for place, value in zip(
        (0, *places, len(names) + 1), (verdict.usual, *values, total), strict=True
    ):
        side = "left" if value >= 0 else "right"
        axes.text(
            value + np.copysign(0.02 * limit, value),
            place,
            f"{value:+.2f}",
            fontsize=8.5,
            va="center",
            ha=side,
            color=INK,
        )
    words = [
        "a usual real face",
        *(FAMILY_WORDS.get(name, name) for name in names),
        f"logit of p_fake {verdict.p_fake:.2f}",
    ]
    axes.set_yticks(range(len(words)), words, fontsize=8.5)
    axes.set(xlim=(-limit, limit), ylim=(len(words) - 0.4, -0.6), xticks=[])
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.yaxis.tick_right()
    axes.tick_params(length=0)
    axes.set_title("what adds up to the score", fontsize=10, color=GREY)


def _reasons(figure: Figure, verdict: Verdict) -> None:
    """The sentences, each with this face's value against nine of ten real faces."""
    axes = figure.add_axes((0.02, 0.03, 0.96, 0.195))
    axes.set(xlim=(0, 1), ylim=(3, 0))
    axes.axis("off")
    colour = COLOURS.get(verdict.verdict, GREY)
    for row, reason in enumerate(verdict.reasons):
        text = textwrap.fill(f"{row + 1}. {reason.sentence}", 92)
        axes.text(0, row + 0.5, text, fontsize=10.5, color=INK, va="center")
        span = max(reason.high - reason.low, 1e-9)
        low = min(reason.low - 0.3 * span, reason.value - 0.1 * span)
        high = max(reason.high + 0.3 * span, reason.value + 0.1 * span)
        x = [
            0.72 + 0.27 * (value - low) / (high - low)
            for value in (reason.low, reason.high, reason.value)
        ]
        axes.plot([0.72, 0.99], [row + 0.5] * 2, color=PALE, linewidth=1.5, zorder=1)
        axes.plot(
            x[:2], [row + 0.5] * 2, color="#a9c6da", linewidth=9, solid_capstyle="butt", zorder=2
        )
        axes.plot(x[2:], [row + 0.5], "o", color=colour, markersize=9, zorder=3)
        axes.text(
            (x[0] + x[1]) / 2,
            row + 0.8,
            "nine of ten real faces",
            fontsize=7.5,
            color=GREY,
            ha="center",
        )
    if not verdict.reasons:
        axes.text(
            0,
            0.5,
            "No single comparison speaks for this verdict.",
            fontsize=10.5,
            color=INK,
            va="center",
        )
    figure.text(
        0.02,
        0.012,
        "Matrices: purple, more alike than most real faces; orange, less; framed, "
        "outside nine of ten. Not proof: one hint among others.",
        fontsize=8.5,
        color=GREY,
    )
