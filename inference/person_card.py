"""The card of a comparison: genuine photographs beside the face, and how alike each region is."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from data.names import for_screen
from features.reference import CONSISTENT
from features.regions import BOXES, Crop, region_masks
from inference.card import BLUE, GREY, INK, ORANGE, PALE, SILVER, STYLE, with_font
from inference.comparison import CANNOT_TELL
from inference.person import Photograph
from inference.reference import PARTS, Likeness, Reference
from models.person_net import HEAD, head_mask

COLOURS = {CONSISTENT: BLUE, CANNOT_TELL: GREY}  # all others: ORANGE
SHOWN = 6  # photographs
LINES = 9
LEAST = 0.1  # share of genuine pairs that are less alike than a region that fits
NOTE = (
    "Compared by what faces look like, not by traces of forgery. An edit or a lip-sync that keeps the identity, a twin "
    "and a look-alike are not seen. Another haircut, glasses or many years can look like another head. The result is a "
    "hint, not a proof."
)


@rc_context(STYLE)
def draw_person_card(reference: Reference, path: str) -> Figure:
    """path: of the picture that is judged, for its title."""
    figure = Figure(figsize=(12, 7.2), dpi=100)
    FigureCanvasAgg(figure)
    colour = COLOURS.get(reference.pattern, ORANGE)
    _line(figure, 0.02, 0.95, reference.pattern, 19, colour, weight="bold")
    text = f"against {reference.of}"
    if reference.conflict_words:
        text += (
            f"   ·   p_conflict {reference.conflict_words}; a conflict is named from "
            f"{reference.threshold:.2f} on, set for {100 * reference.fpr:g}% of genuine pictures"
        )
    _line(figure, 0.02, 0.905, text, 10)
    _line(figure, 0.98, 0.955, Path(path).name, 10, GREY, ha="right")
    _suspect(figure.add_axes((0.02, 0.45, 0.24, 0.4)), reference)
    _photographs(figure, reference)
    _likeness(figure.add_axes((0.78, 0.45, 0.205, 0.37)), reference.regions)
    axes = figure.add_axes((0.02, 0.1, 0.96, 0.28))
    axes.axis("off")
    told = [*reference.person.left_out, *reference.person.notes]
    for photograph in reference.person.photographs:  # without their folders
        told = [text.replace(photograph.name, Path(photograph.name).name) for text in told]
    lines = [*reference.sentences, *told]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"and {len(lines) - LINES + 1} more lines (see the JSON)"]
    for row, sentence in enumerate(
        textwrap.shorten(line, 165, placeholder=" ...") for line in lines
    ):
        weight = "bold" if row == 0 else None
        _line(axes, 0, 0.96 - 0.115 * row, sentence, 10, INK, weight=weight)
    _line(figure, 0.02, 0.06, NOTE, 8.5, GREY, va="top", wrap=True)
    return figure


def _line(
    where: Figure | Axes,
    x: float,
    y: float,
    text: str,
    size: float,
    color: str = INK,
    **style: object,
) -> None:
    text, fonts = with_font(for_screen(text))
    where.text(x, y, text, fontsize=size, color=color, family=fonts, **{"va": "center", **style})


def shade(likeness: Likeness) -> tuple[str, float]:
    """Colour and strength: blue where a region fits, orange where nine in ten genuine pairs are more alike."""
    if likeness.genuine >= LEAST:
        return BLUE, 0.1 + 0.2 * likeness.genuine
    return ORANGE, 0.45 - 0.25 * likeness.genuine / LEAST


def _suspect(axes: Axes, reference: Reference) -> None:
    axes.imshow(reference.view)
    box, inner = head_mask(), ~region_masks(HEAD, ("outer",))[0]
    for name, mask in (("outer", box), ("inner", inner)):
        likeness = reference.likeness(name)
        if likeness is None or np.isnan(likeness.similarity):
            continue
        colour, strength = shade(likeness)
        layer = np.zeros((*mask.shape, 4))
        layer[mask] = (*to_rgb(colour), strength)
        axes.imshow(layer)
        if name == "inner":
            _frame(axes, BOXES["inner"], HEAD, colour)
    axes.set(title="this picture: blue fits, orange does not", xticks=[], yticks=[])


def _frame(axes: Axes, box: tuple[float, ...], crop: Crop, colour: str) -> None:
    x0, y0, x1, y1 = (
        (value - start) / length * crop.px
        for value, start, length in zip(
            box, (crop.x0, crop.y0) * 2, (crop.width, crop.height) * 2, strict=True
        )
    )
    style = {"fill": False, "edgecolor": colour, "linewidth": 2}
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, **style))


def _photographs(figure: Figure, reference: Reference) -> None:
    """The first ones that count, then those that were left out, in grey."""
    own = reference.person
    shown = [*own.used, *(x for x in own.photographs if x.left_out and x.view is not None)]
    rest = len(shown) - len(shown[:SHOWN])
    for place, photograph in enumerate(shown[:SHOWN]):
        row, column = divmod(place, 3)
        axes = figure.add_axes((0.285 + 0.115 * column, 0.66 - 0.2 * row, 0.105, 0.175))
        _photograph(axes, photograph)
    title = f"genuine photographs of {own.name}"
    more = f" ({rest} more are not shown)" if rest > 0 else ""
    _line(figure, 0.285, 0.868, title + more, 10, GREY)


def _photograph(axes: Axes, photograph: Photograph) -> None:
    view = photograph.view
    if photograph.left_out:
        view = np.repeat(view.mean(-1, keepdims=True), 3, -1).astype(np.uint8) // 2 + 110
        axes.text(64, 64, "left out", ha="center", va="center", fontsize=9, color=INK)
    axes.imshow(view)
    axes.set(xticks=[], yticks=[])


def _likeness(axes: Axes, regions: list[Likeness]) -> None:
    """A line for each region: where genuine pairs and different people lie, and this face."""
    order = sorted(regions, key=lambda each: list(PARTS).index(each.region))
    for row, each in enumerate(order):
        if np.isnan(each.similarity):
            continue
        bands = ((each.different_low, each.different_high, "#eebf99", -0.16),)
        bands += ((each.genuine_low, each.genuine_high, "#a9c6da", 0.16),)
        for low, high, colour, shift in bands:
            axes.barh(row + shift, high - low, 0.28, low, color=colour)
        colour, _ = shade(each)
        axes.plot(each.similarity, row, "o", color=colour, markersize=8, markeredgecolor="white")
    axes.set_yticks(range(len(order)), [PARTS[each.region] for each in order], fontsize=8)
    axes.invert_yaxis()
    axes.tick_params(axis="x", labelsize=8, colors=GREY)
    axes.grid(axis="x", color=PALE)
    axes.set_axisbelow(True)
    axes.axvline(0, color=SILVER, linewidth=0.8)
    axes.set_title(
        "similarity; 90% of genuine pairs (blue)\nand of different people (orange)", fontsize=9
    )
