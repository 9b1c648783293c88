"""Plots of a report. Each function returns a figure and its caption.

Colours are those of Okabe and Ito (Color Universal Design, 2008). Nothing in names is taken for TeX.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # without pyplot there is no screen to open: drawn by Agg
from matplotlib.font_manager import findfont, get_font
from sklearn.metrics import roc_curve

from data.degrade import FAMILIES, Condition
from data.files import replacing
from evaluation.metrics import BINS, bootstrap
from evaluation.metrics_table import pick
from evaluation.page import number
from evaluation.robustness import CLEAN
from features.regions import REGIONS

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (9, 3)))
MARKERS = "os^DvPX*"
FONT = "DejaVu Sans"  # ships with matplotlib
CHARACTERS = frozenset(get_font(findfont(FONT)).get_charmap())
RC = {"font.family": [FONT], "font.size": 8, "text.parse_math": False, "text.usetex": False}
RC |= {"axes.titlesize": 8, "grid.color": "0.9", "legend.fontsize": 7.5, "legend.frameon": False}
DPI, WIDTH = 190, 3.5  # inches: readable on a phone, and three side by side
REPLICATES = 400  # for the intervals of the reliability diagram
CHANCE = {"color": "0.6", "linewidth": 0.8}
DISTANCES = {"cosine_distance": "1 - cosine", "js_divergence": "Jensen-Shannon divergence, nats"}
Drawn = tuple[Figure, str]
styled = matplotlib.rc_context(RC)  # decorates a function


def drawable(text: str, width: int) -> str:
    """Lines of about `width` characters, four at most. What the font lacks is written as its code."""
    known = (x if ord(x) in CHARACTERS else ascii(x)[1:-1] for x in text)
    return "\n".join(textwrap.wrap("".join(known), width, max_lines=4, placeholder=" …"))


def style(place: int) -> dict:
    """How the system at this place is drawn, everywhere in a report."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": DASHES[place % len(DASHES)],
        "linewidth": 1.4,
        "marker": MARKERS[place % len(MARKERS)],
        "markersize": 4.5,
    }


@styled
def save(drawn: Figure, path: Path) -> None:
    """The same picture is the same bytes: no date and no version goes in."""
    with replacing(path) as file:
        drawn.savefig(file, format="png", dpi=DPI, metadata={"Software": None})


def _figure(height: float, title: str, width: float = WIDTH) -> Figure:
    made = Figure((width, height), layout="constrained")
    made.get_layout_engine().set(h_pad=0.08)
    made.suptitle(drawable(title, int(width * 15)), fontsize=8, x=0.02, ha="left")
    return made


def _legend(made: Figure, axis: Axes, title: str | None = None, columns: int = 1) -> None:
    """Below the axes, in the order of drawing."""
    handles = axis.get_legend_handles_labels()
    made.legend(*handles, loc="outside lower center", title=title, ncols=columns)


def _lines(title: str, systems: int, extra: float = 0.0) -> tuple[Figure, Axes]:
    """A figure with room for a legend of so many systems."""
    made = _figure(3.2 + extra + 0.19 * systems, title)
    axis = made.subplots()
    axis.grid()
    return made, axis


@styled
def roc(title: str, curves: Sequence[tuple[int, str, pd.DataFrame]]) -> Drawn:
    """curves: (place, label, predictions of both classes), the most important first."""
    made, axis = _lines(title, len(curves), 0.7)
    axis.plot([0, 1], [0, 1], **CHANCE)
    for order, (place, label, part) in enumerate(curves):
        look = style(place) | {"markevery": (place % 7 / 50, 0.16), "zorder": 3 - order / 100}
        fpr, tpr, _ = roc_curve(part["label"], part["p_fake"])
        axis.plot(fpr, tpr, **look, label=drawable(label, 56))
    axis.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    _legend(made, axis, "AUC, 95% interval by group")
    return made, "Share of fakes found at every share of false alarms; chance is the diagonal"


@styled
def histograms(title: str, panels: Sequence[tuple[str, pd.DataFrame, float | None]]) -> Drawn:
    """panels: (name, predictions, threshold) of every system."""
    made = _figure(1.2 + 1.4 * len(panels), title)
    axes = made.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    caption = "Shares of all reals and of all fakes, by score"
    for axis, (name, part, threshold) in zip(axes, panels, strict=True):
        counts, called = [], []
        for label, (word, hatch) in enumerate({"real": "", "fake": "////"}.items()):
            p = pick(part, label=label)["p_fake"].to_numpy()
            look = {"facecolor": (COLOURS[label], 0.25), "edgecolor": COLOURS[label]}
            look |= {"histtype": "stepfilled", "hatch": hatch, "label": word}
            weights = np.full(len(p), 1 / max(len(p), 1))
            axis.hist(p, 25, range=(0, 1), weights=weights, **look)
            counts.append(f"{len(p)} {word}")
            called.append(f"{(p >= threshold).mean():.1%}" if len(p) else "n/a")
        heading = f"{name}: {', '.join(counts)}"
        if not np.isnan(threshold):
            heading += f", threshold {number(threshold)}"
            axis.axvline(threshold, color="black", linestyle="--", label="threshold")
            caption += ". Called fake by {}: {} of the reals, {} of the fakes".format(name, *called)
        axis.set_title(drawable(heading, 50), loc="left")
        axis.set(ylabel="share", xlim=(0, 1))
    axes[-1].set_xlabel("P(fake)")
    _legend(made, axes[0], columns=3)
    return made, caption


def _share(chosen: int, y: np.ndarray, bins: np.ndarray) -> float:
    return y[bins == chosen].mean() if (bins == chosen).any() else np.nan


@styled
def reliability(title: str, part: pd.DataFrame) -> Drawn:
    y, p, groups = (part[name].to_numpy() for name in ("label", "p_fake", "group"))
    bins = np.clip((p * BINS).astype(int), 0, BINS - 1)
    filled, sizes = np.unique(bins, return_counts=True)
    shares = {b: partial(_share, b) for b in filled}
    intervals = bootstrap(shares, y, bins, groups.astype(str), REPLICATES)
    mean, share = ([values[bins == b].mean() for b in filled] for values in (p, y))
    made = _figure(4.3, title)
    axis, below = made.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axis.plot([0, 1], [0, 1], **CHANCE)
    axis.vlines(mean, *np.transpose([*intervals.values()]), color=COLOURS[0], linewidth=1.2)
    axis.plot(mean, share, **style(0))
    axis.set(ylabel="share of fakes, 95% interval", xlim=(0, 1), ylim=(-0.03, 1.03))
    axis.grid()
    drawn = below.bar((filled + 0.5) / BINS, sizes, 0.9 / BINS, color="0.75")
    below.bar_label(drawn, rotation=90, padding=2, fontsize=6.5)
    below.set(xlabel="P(fake)", ylabel="count")
    below.margins(y=0.55)
    return made, (
        "Share of fakes among faces of similar scores, and how many there are; on the diagonal, "
        "scores are probabilities"
    )


def lowest(rows: pd.DataFrame) -> float:
    """Where the axis of several robustness plots begins, so that they can be compared by eye."""
    values = pick(rows, metric=("auc", "auc_with_lost"))[["value", "low"]]
    return float(np.nanmin([0.47, *values.to_numpy(float).ravel()])) - 0.02


@styled
def robustness(
    title: str,
    rows: pd.DataFrame,
    conditions: Sequence[Condition],
    places: Mapping[str, int],
    low: float,
) -> Drawn:
    """All systems on one dataset under one family. low: end of the axis."""
    systems = rows.groupby("system", sort=False)
    made, axis = _lines(title, len(systems))
    names = [CLEAN, *map(str, conditions)]
    x = [0, *(each.level for each in conditions)]
    for system, part in systems:
        look = style(places[system])
        found = pick(part, metric="auc").set_index("condition").reindex(names)
        axis.fill_between(x, found["low"], found["high"], color=look["color"], alpha=0.12, lw=0)
        axis.plot(x, found["value"], **look, label=drawable(system, 50))
        lost = pick(part, metric="auc_with_lost").set_index("condition")["value"]
        lost = lost.reindex(names).fillna({CLEAN: found["value"].iloc[0]})
        look |= {"linestyle": ":", "linewidth": 0.9, "markerfacecolor": "white"}
        axis.plot(x, lost, **look, zorder=1.9)
    axis.axhline(0.5, **CHANCE)
    units = [f"{each.value:g} {FAMILIES[each.family].unit}" for each in conditions]
    axis.set_xticks(x, [drawable(text, 9) for text in (CLEAN, *units)])
    axis.set(ylabel="AUC", ylim=(low, 1.01))
    _legend(made, axis)
    return made, (
        "Filled: AUC on faces still found, with 95% bands by group. Hollow, dotted: lost faces raise no alarm"
    )


@styled
def few_shot(title: str, rows: pd.DataFrame, places: Mapping[str, int]) -> Drawn:
    """All systems on one dataset. places: of the systems, for `style`."""
    systems = rows.groupby("system", sort=False)
    sizes = sorted(set(rows["size"]))
    made, axis = _lines(title, len(systems))
    for order, (system, part) in enumerate(systems):
        shift = 1.03 ** (order - (len(systems) - 1) / 2)  # bars of several systems side by side
        means = part.groupby("size")[["value", "low", "high"]].mean()
        look, x = style(places[system]), means.index * shift
        axis.plot(x, means["value"], **look, label=drawable(system, 50))
        axis.vlines(x, means["low"], means["high"], color=look["color"], linewidth=1)
        dots = {"color": look["color"], "markersize": 3, "alpha": 0.5}
        axis.plot(part["size"] * shift, part["value"], ".", **dots)
    axis.set_xscale("log")
    axis.set_xticks(sizes, [f"{size:.0f}" for size in sizes])
    axis.set_xticks([], minor=True)
    axis.set(xlabel="training faces", ylabel="AUC")
    axis.axhline(0.5, **CHANCE)
    _legend(made, axis)
    return made, (
        "Lines: mean AUC over draws of the training faces (dots: each draw). Bars: 95% interval "
        "by group of the test faces, "
        "averaged over the draws"
    )


@styled
def bars(title: str, rows: pd.DataFrame, label: str, axis: str, start: float) -> Drawn:
    """A bar from `start` to every value. label: column with names; axis: of the values."""
    names = [drawable(name, 21) for name in rows[label]]
    lines = 1 + max(name.count("\n") for name in names)
    value, low, high = rows[["value", "low", "high"]].to_numpy(float).T
    made = _figure(1.3 + (0.1 + 0.14 * lines) * len(names), title)
    axes, places = made.subplots(), range(len(names))
    axes.barh(places, value - start, 0.5, left=start, color=COLOURS[6])
    axes.hlines(places, low, high, color="black", linewidth=1.2)
    axes.axvline(start, color="black", linewidth=0.8)
    axes.set_yticks(places, names, fontsize=7.5)
    axes.set(xlabel=axis, ylim=(len(names) - 0.5, -0.5))
    texts = [number(each, sign=not start) for each in value]
    axes.secondary_yaxis("right").set_yticks(places, texts, fontsize=7.5)
    return made, "Lines are 95% intervals by group"


@styled
def heat_maps(title: str, rows: pd.DataFrame) -> Drawn:
    """Mean distance of every two regions: real | fake | fake - real."""
    maps = {word: np.full((len(REGIONS),) * 2, np.nan) for word in ("real", "fake")}
    for word, pair, value in rows[["system", "group", "value"]].itertuples(index=False):
        i, j = map(REGIONS.index, pair.split("~"))
        maps[word][i, j] = maps[word][j, i] = value
    values = rows["value"].dropna()
    both = {"cmap": "viridis", "vmin": values.min(), "vmax": values.max()} if len(values) else {}
    maps["fake - real"] = maps["fake"] - maps["real"]
    reach = np.nanmax([*np.abs(maps["fake - real"]).ravel(), 1e-6])
    made = _figure(3.7, title, 11)
    for axis, (name, matrix) in zip(made.subplots(1, 3), maps.items(), strict=True):
        difference = name not in ("real", "fake")
        look = {"cmap": "PuOr", "vmin": -reach, "vmax": reach} if difference else both
        image = axis.imshow(matrix, **look)
        axis.set_title(name)
        axis.set_xticks(range(len(REGIONS)), REGIONS, rotation=45)
        axis.set_yticks(range(len(REGIONS)), REGIONS)
        made.colorbar(image, ax=axis, shrink=0.75)
        for (i, j), value in np.ndenumerate(matrix):
            if not np.isnan(value):
                luma = np.dot(image.to_rgba(value)[:3], (0.299, 0.587, 0.114))  # ITU-R BT.601
                text = f"{value:+z.3f}".replace("0.", ".", 1) if difference else f"{value:.2f}"
                look = {"ha": "center", "va": "center", "fontsize": 6.5}
                axis.text(j, i, text, color="black" if luma > 0.5 else "white", **look)
    return made, "Mean distance of two regions of one face (without intervals)"
