"""A verdict as a picture: the photograph with the judged face, the aligned face with the regions that disagree, and the reasons
with where the value lies against real faces.

The verdict is anything with the fields of predict.Verdict that are drawn here; this file knows only pixels.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from features.regions import BOXES

RED, GREEN, GREY, BLUE = "#b3261e", "#1e7d32", "#5f6368", "#1a56b0"
SIDE_COLOURS = (BLUE, "#c77700")


def draw_verdict(verdict: Any, threshold: float, image: np.ndarray, path: Path) -> Path:
    """Draw one verdict into a PNG of about 1,200 x 480 px.

    image: (H, W, 3) uint8 RGB, the source of the verdict. Returns: `path`.
    """
    colour = RED if verdict.verdict == "fake" else GREEN
    figure = Figure(figsize=(12, 4.8), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        1, 3, width_ratios=(1, 1, 1.7), left=0.02, right=0.98, top=0.86, bottom=0.08, wspace=0.06
    )
    title = f"{verdict.verdict.upper()}    p_fake = {verdict.p_fake:.2f}"
    figure.text(0.02, 0.92, title, fontsize=19, weight="bold", color=colour)
    figure.text(0.98, 0.93, f"fake from {threshold:.2f} on", fontsize=10, color=GREY, ha="right")

    photo = figure.add_subplot(grid[0])
    photo.imshow(image)
    x0, y0, x1, y1 = verdict.box
    photo.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=2.5))
    name = Path(verdict.path).name.encode("utf-8", "replace").decode()  # names need not be UTF-8, fonts insist
    photo.set_title(textwrap.shorten(name.replace("$", r"\$"), 36), fontsize=10, color=GREY)
    photo.axis("off")

    face = figure.add_subplot(grid[1])
    face.imshow(verdict.aligned)
    size = verdict.aligned.shape[0]
    if verdict.reasons:
        for region, edge in zip(dict.fromkeys(verdict.reasons[0].regions), SIDE_COLOURS, strict=False):
            a, b, c, d = (value * size - 0.5 for value in BOXES[region])
            style = "--" if region == "outer" else "-"
            box = (a + 1, b + 1), c - a - 2, d - b - 2
            face.add_patch(Rectangle(*box, fill=False, edgecolor=edge, linewidth=3, linestyle=style, label=region))
        face.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, frameon=False, fontsize=10)
        face.set_title("what reason 1 compares", fontsize=10, color=GREY)
    face.axis("off")

    words = figure.add_subplot(grid[2])
    words.set(xlim=(0, 1), ylim=(0, 1))
    words.axis("off")
    for index, reason in enumerate(verdict.reasons):
        top = 0.97 - index * 0.33
        text = textwrap.fill(f"{index + 1}. {reason.sentence}", 60)
        words.text(0.04, top, text, fontsize=10.5, va="top", color="#202124")
        _range_bar(words, reason, top - 0.21, colour)
    quality = ", ".join(f"{name} {value}" for name, value in verdict.quality.items())
    figure.text(0.98, 0.03, f"face: {quality}", fontsize=8.5, color=GREY, ha="right")
    figure.savefig(path)
    return path


def _range_bar(axes: Any, reason: Any, y: float, colour: str) -> None:
    """The 5th to 95th percentile of real faces as a band, the value of this face as a dot, on an axis that holds both."""
    span = max(reason.high - reason.low, 1e-9)
    low = min(reason.low - 0.3 * span, reason.value - 0.1 * span)
    high = max(reason.high + 0.3 * span, reason.value + 0.1 * span)

    def place(value: float) -> float:
        return 0.06 + 0.86 * (value - low) / (high - low)

    axes.plot([0.06, 0.92], [y, y], color="#dadce0", linewidth=1.5, zorder=1)
    axes.plot(
        [place(reason.low), place(reason.high)], [y, y], color="#a8d5b0", linewidth=9, solid_capstyle="butt", zorder=2
    )
    axes.plot([place(reason.value)], [y], "o", color=colour, markersize=9, zorder=3)
    axes.text(
        place((reason.low + reason.high) / 2), y - 0.035, "real faces", fontsize=7.5, color=GREY, ha="center", va="top"
    )
