"""Plots of a report. Each function returns a figure and its caption.

Colours are those of Okabe and Ito (Color Universal Design, 2008); line styles and markers differ in
grey too. Names are data: nothing in them is taken for TeX, and characters that the font lacks are
written as their code.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure  # without pyplot there is no screen to open: drawn by Agg
from matplotlib.font_manager import findfont, get_font
from sklearn.metrics import roc_curve

from data.degrade import FAMILIES, Condition
from evaluation.metrics import BINS, bootstrap
from evaluation.page import number
from evaluation.robustness import CLEAN
from features.regions import REGIONS

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9")
DASHES = ((), (5, 2), (1, 1.5), (6, 2, 1, 2), (9, 3))
MARKERS = "os^DvPX*"
FONT = "DejaVu Sans"  # ships with matplotlib
RC = {"font.family": [FONT], "font.size": 8, "text.parse_math": False, "text.usetex": False}
DPI, WIDTH = 190, 3.5  # inches: readable on a phone, and three side by side
REPLICATES = 400  # for the intervals of the reliability diagram
CHANCE = {"color": "0.6", "linewidth": 0.8}
DISTANCES = {"cosine_distance": "1 - cosine", "js_divergence": "Jensen-Shannon divergence, nats"}
Drawn = tuple[Figure, str]
styled = matplotlib.rc_context(RC)  # decorates a function


@cache
def _characters() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())


def drawable(text: str, width: int) -> str:
    """Text in lines of about `width` characters, four at most."""
    known = (
        c if ord(c) in _characters() else c.encode("ascii", "backslashreplace").decode()
        for c in text
    )
    return "\n".join(textwrap.wrap("".join(known), width, max_lines=4, placeholder=" …"))


def style(place: int) -> dict:
    """How the system at this place is drawn, everywhere in a report."""
    dashes = DASHES[place % len(DASHES)]
    line = {"linestyle": (0, dashes) if dashes else "-", "linewidth": 1.4}
    marker = {"marker": MARKERS[place % len(MARKERS)], "markersize": 4.5}
    return {"color": COLOURS[place % len(COLOURS)], **line, **marker}


@styled
def save(drawn: Figure, path: Path) -> None:
    """The same picture is the same bytes: no date and no version goes in."""
    drawn.savefig(path, dpi=DPI, metadata={"Software": None})


def _figure(height: float, title: str, width: float = WIDTH) -> Figure:
    made = Figure((width, height), layout="constrained")
    made.get_layout_engine().set(h_pad=0.08)
    made.suptitle(drawable(title, int(width * 15)), fontsize=8, x=0.02, ha="left")
    return made


def _legend(made: Figure, axis: Axes, title: str | None = None, columns: int = 1) -> None:
    """Below the axes, in the order of drawing."""
    look = {"fontsize": 7.5, "frameon": False, "title": title, "ncols": columns}
    made.legend(*axis.get_legend_handles_labels(), loc="outside lower center", **look)


@styled
def roc(title: str, curves: Sequence[tuple[int, str, pd.DataFrame]]) -> Drawn:
    """curves: (place, label, predictions of both classes), the most important first."""
    made = _figure(3.9 + 0.19 * len(curves), title)
    axis = made.subplots()
    axis.plot([0, 1], [0, 1], **CHANCE)
    for order, (place, label, part) in enumerate(curves):
        look = style(place) | {"markevery": (place % 7 / 50, 0.16), "zorder": 3 - order / 100}
        fpr, tpr, _ = roc_curve(part["label"], part["p_fake"])
        axis.plot(fpr, tpr, **look, label=drawable(label, 56))
    axis.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axis.grid(color="0.9")
    _legend(made, axis, "AUC, 95% interval by group")
    return made, "Share of fakes found at every share of false alarms; chance is the diagonal"


@styled
def histograms(title: str, panels: Sequence[tuple[str, pd.DataFrame, float | None]]) -> Drawn:
    """panels: (name, predictions, threshold) of every system."""
    made = _figure(1.2 + 1.4 * len(panels), title)
    axes = made.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    caption = ["Shares of all reals and of all fakes, by score"]
    for axis, (name, part, threshold) in zip(axes, panels, strict=True):
        scores = [part[part["label"] == label]["p_fake"].to_numpy() for label in (0, 1)]
        for p, word, colour, hatch in zip(
            scores, ("real", "fake"), COLOURS, ("", "////"), strict=False
        ):
            look = {"bins": 25, "range": (0, 1), "histtype": "stepfilled", "hatch": hatch}
            look |= {"facecolor": (colour, 0.25), "edgecolor": colour, "label": word}
            axis.hist(p, weights=np.full(len(p), 1 / max(len(p), 1)), **look)
        heading = f"{name}: {len(scores[0])} real, {len(scores[1])} fake"
        if threshold is not None and not np.isnan(threshold):
            heading += f", threshold {number(threshold)}"
            look = {"color": "black", "linewidth": 1.2, "linestyle": "--"}
            axis.axvline(threshold, **look, label="threshold")
            real, fake = (f"{(p >= threshold).mean():.1%}" if len(p) else "n/a" for p in scores)
            caption.append(f"Called fake by {name}: {real} of the reals, {fake} of the fakes")
        axis.set_title(drawable(heading, 50), loc="left", fontsize=8)
        axis.set(ylabel="share", xlim=(0, 1))
    axes[-1].set_xlabel("P(fake)")
    _legend(made, axes[0], columns=3)
    return made, ". ".join(caption)


def _share(chosen: int, y: np.ndarray, bins: np.ndarray) -> float:
    """Share of fakes in one bin."""
    return float(y[bins == chosen].mean()) if (bins == chosen).any() else np.nan


@styled
def reliability(title: str, part: pd.DataFrame) -> Drawn:
    y, p, groups = (part[name].to_numpy() for name in ("label", "p_fake", "group"))
    bins = np.clip((p * BINS).astype(int), 0, BINS - 1)
    sizes = np.bincount(bins, minlength=BINS)
    filled = np.flatnonzero(sizes)
    shares = {str(b): partial(_share, b) for b in filled}
    intervals = bootstrap(shares, y, bins, groups.astype(str), REPLICATES)
    mean, share = (np.bincount(bins, values, BINS)[filled] / sizes[filled] for values in (p, y))
    made = _figure(4.3, title)
    axis, below = made.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axis.plot([0, 1], [0, 1], **CHANCE)
    bounds = np.array([intervals[str(b)] for b in filled]).T
    axis.vlines(mean, *bounds, color=COLOURS[0], linewidth=1.2)
    axis.plot(mean, share, **style(0))
    axis.set(ylabel="share of fakes, 95% interval", xlim=(0, 1), ylim=(-0.03, 1.03))
    axis.grid(color="0.9")
    below.bar((np.arange(BINS) + 0.5) / BINS, sizes, 0.9 / BINS, color="0.75")
    look = {"rotation": 90, "ha": "center", "va": "bottom", "fontsize": 6.5}
    for b in filled:
        below.text((b + 0.5) / BINS, sizes[b], f" {sizes[b]}", **look)
    below.set(xlabel="P(fake)", ylabel="count", ylim=(0, sizes.max() * 1.55))
    return made, (
        "Share of fakes among faces of similar scores, and how many there are; on the diagonal, scores are probabilities"
    )


def lowest(rows: pd.DataFrame) -> float:
    """Where the axis of several robustness plots begins, so that they can be compared by eye."""
    rows = rows[rows["metric"].isin(("auc", "auc_with_lost"))]
    return float(np.nanmin([0.47, *rows[["value", "low"]].to_numpy(float).ravel()])) - 0.02


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
    made = _figure(3.2 + 0.19 * len(systems), title)
    axis = made.subplots()
    names = [CLEAN, *map(str, conditions)]
    x = [0, *(each.level for each in conditions)]
    for system, part in systems:
        look = style(places[system])
        found = part[part["metric"] == "auc"].set_index("condition").reindex(names)
        bounds = found[["low", "high"]].to_numpy(float).T
        axis.fill_between(x, *bounds, color=look["color"], alpha=0.12, linewidth=0)
        axis.plot(x, found["value"], **look, label=drawable(system, 50))
        lost = part[part["metric"] == "auc_with_lost"].set_index("condition")["value"]
        lost = lost.reindex(names).fillna({CLEAN: found["value"].iloc[0]})
        thin = {"linestyle": ":", "linewidth": 0.9, "markerfacecolor": "white"}
        axis.plot(x, lost, **look | thin, zorder=1.9)
    axis.axhline(0.5, **CHANCE)
    units = [f"{each.value:g} {FAMILIES[each.family].unit}" for each in conditions]
    axis.set_xticks(x, [drawable(text, 9) for text in (CLEAN, *units)])
    axis.set(ylabel="AUC", ylim=(low, 1.01))
    axis.grid(color="0.9")
    _legend(made, axis)
    return made, (
        "Filled: AUC on faces still found, with 95% bands by group. Hollow, dotted: lost faces raise no alarm"
    )


@styled
def few_shot(title: str, rows: pd.DataFrame, places: Mapping[str, int]) -> Drawn:
    """All systems on one dataset. places: of the systems, for `style`."""
    systems = rows.groupby("system", sort=False)
    sizes = sorted(set(rows["size"]))
    made = _figure(3.2 + 0.19 * len(systems), title)
    axis = made.subplots()
    for order, (system, part) in enumerate(systems):
        shift = 1.03 ** (order - (len(systems) - 1) / 2)  # bars of several systems side by side
        means = part.groupby("size")[["value", "low", "high"]].mean()
        look, x = style(places[system]), means.index.to_numpy(float) * shift
        axis.plot(x, means["value"], **look, label=drawable(system, 50))
        axis.vlines(x, means["low"], means["high"], color=look["color"], linewidth=1)
        dots = {"color": look["color"], "markersize": 3, "alpha": 0.5}
        axis.plot(part["size"].to_numpy(float) * shift, part["value"], ".", **dots)
    axis.set_xscale("log")
    axis.set_xticks(sizes, [f"{size:.0f}" for size in sizes])
    axis.set_xticks([], minor=True)
    axis.set(xlabel="training faces", ylabel="AUC")
    axis.axhline(0.5, **CHANCE)
    axis.grid(color="0.9")
    _legend(made, axis)
    return made, (
        "Lines: mean AUC over draws of the training faces (dots: each draw). Bars: 95% interval by group of the test faces, "
        "averaged over the draws"
    )


@styled
def bars(title: str, rows: pd.DataFrame, label: str, axis: str, start: float) -> Drawn:
    """A bar from `start` to every value. label: column with names; axis: of the values."""
    names = [drawable(name, 21) for name in rows[label]]
    heights = np.array([0.24 + 0.14 * name.count("\n") for name in names])
    places = np.cumsum(heights) - heights / 2
    made = _figure(1.3 + heights.sum(), title)
    axes = made.subplots()
    value, low, high = rows[["value", "low", "high"]].to_numpy(float).T
    axes.barh(places, value - start, 0.17, left=start, color=COLOURS[6])
    axes.hlines(places, low, high, color="black", linewidth=1.2)
    axes.plot(value, places, "|", color="black", markersize=7)
    axes.axvline(start, color="black", linewidth=0.8)
    axes.set_yticks(places, names, fontsize=7.5)
    axes.set(xlabel=axis, ylim=(heights.sum(), 0))
    texts = [number(each, sign=not start) for each in value]
    axes.secondary_yaxis("right").set_yticks(places, texts, fontsize=7.5)
    return made, "Lines are 95% intervals by group"


@styled
def heat_maps(title: str, rows: pd.DataFrame) -> Drawn:
    """Mean distance of every two regions: real | fake | fake - real."""
    matrices = {word: np.full((len(REGIONS),) * 2, np.nan) for word in ("real", "fake")}
    for word, pair, value in rows[["system", "group", "value"]].itertuples(index=False):
        i, j = map(REGIONS.index, pair.split("~"))
        matrices[word][i, j] = matrices[word][j, i] = value
    difference = matrices["fake"] - matrices["real"]
    values = np.array([0.0] if rows["value"].isna().all() else rows["value"].dropna())
    both = {"cmap": "viridis", "vmin": values.min(), "vmax": values.max()}
    reach = np.nanmax(np.abs([*difference.ravel(), 1e-6]))
    looks = {word: (matrix, both) for word, matrix in matrices.items()}
    looks["fake - real"] = (difference, {"cmap": "PuOr", "vmin": -reach, "vmax": reach})
    made = _figure(3.7, title, 11)
    for axis, (name, (matrix, look)) in zip(made.subplots(1, 3), looks.items(), strict=True):
        image = axis.imshow(matrix, **look)
        axis.set_title(name, fontsize=9)
        axis.set_xticks(range(len(REGIONS)), REGIONS, rotation=45)
        axis.set_yticks(range(len(REGIONS)), REGIONS)
        made.colorbar(image, ax=axis, shrink=0.75)
        for (i, j), value in np.ndenumerate(matrix):
            if np.isnan(value):
                continue
            luma = np.dot(image.to_rgba(value)[:3], (0.299, 0.587, 0.114))  # ITU-R BT.601
            text = f"{value:.2f}"
            if matrix is difference:
                text = f"{value:+z.3f}".replace("0.", ".", 1)
            look = {"ha": "center", "va": "center", "fontsize": 6.5}
            axis.text(j, i, text, color="black" if luma > 0.5 else "white", **look)
    return made, "Mean distance of two regions of one face (without intervals)"
