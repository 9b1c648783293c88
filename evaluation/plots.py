"""Pictures of a report. Each function returns a figure and, in words, what it shows.

Colours are those of Okabe and Ito (Color Universal Design, 2008); line styles and markers tell systems apart in grey too. Names
are data: nothing in them is taken for TeX, and what the font lacks is written as its code.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import (
    Figure,
)  # without pyplot there is no screen to open: PNG is drawn by Agg
from matplotlib.font_manager import findfont, get_font
from sklearn.metrics import roc_curve

from evaluation.metrics import BINS, bootstrap
from evaluation.page import figure, number, words
from evaluation.tables import auc_of, mean_auc, steps, together

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9")
DASHES = ((), (5, 2), (1, 1.5), (6, 2, 1, 2), (9, 3))
MARKERS = "os^DvPX*"
FONT = "DejaVu Sans"  # ships with matplotlib
RC = {"font.family": [FONT], "font.size": 8, "text.parse_math": False, "text.usetex": False}
DPI, WIDTH = 190, 3.5  # inches: readable on a phone, and three side by side
REPLICATES = 400  # for the intervals of the reliability diagram
BOUNDS = ("value", "low", "high")
CHANCE = {"color": "0.6", "linewidth": 0.8}
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
    look = {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": (0, dashes) if dashes else "-",
        "linewidth": 1.4,
    }
    return look | {"marker": MARKERS[place % len(MARKERS)], "markersize": 4.5}


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
    lines = axis.get_legend_handles_labels()
    look = {"fontsize": 7.5, "frameon": False, "title": title, "ncols": columns}
    made.legend(*lines, loc="outside lower center", **look)


def _bounds(cells: Sequence[Mapping | None]) -> np.ndarray:
    """Returns: (3, N) value, low, high; NaN where undefined."""
    rows = [[(cell or {}).get(name) for name in BOUNDS] for cell in cells]
    return np.array(rows, dtype=float).reshape(-1, len(BOUNDS)).T


@styled
def roc(
    title: str, curves: Sequence[tuple[int, str, np.ndarray, np.ndarray, Mapping | None]]
) -> Drawn:
    """curves: (place, name, y, p, AUC with interval) of every system, the most important first; y holds both classes."""
    made = _figure(3.9 + 0.19 * len(curves), title)
    axis = made.subplots()
    axis.plot([0, 1], [0, 1], **CHANCE)
    for order, (place, name, y, p, found) in enumerate(curves):
        look = style(place) | {"markevery": (place % 7 / 50, 0.16), "zorder": 3 - order / 100}
        axis.plot(*roc_curve(y, p)[:2], **look, label=drawable(f"{name}  {words(found)}", 56))
    axis.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axis.grid(color="0.9")
    _legend(made, axis, "AUC, 95% interval by group")
    (_, first, _, _, found), *others = curves
    said = f"{first} has an AUC of {words(found)}"
    if others:
        _, name, _, _, best = max(others, key=lambda curve: (curve[4] or {}).get("value") or 0)
        said += f", {f'the best of {len(others)} others, ' if others[1:] else ''}{name}, one of {words(best)}"
    return (
        made,
        f"Share of fakes found (up) at every share of false alarms (right); chance lies on the diagonal. {said}",
    )


@styled
def histograms(
    title: str, panels: Sequence[tuple[str, np.ndarray, np.ndarray, float | None]]
) -> Drawn:
    """panels: (name, y, p, threshold) of every system."""
    made = _figure(1.2 + 1.4 * len(panels), title)
    axes = made.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    said = ["Shares of all reals and of all fakes, by score"]
    for axis, (name, y, p, threshold) in zip(axes, panels, strict=True):
        for label, (word, colour, hatch) in enumerate(
            (("real", COLOURS[0], ""), ("fake", COLOURS[1], "////"))
        ):
            part = p[y == label]
            look = {
                "bins": 25,
                "range": (0, 1),
                "histtype": "stepfilled",
                "hatch": hatch,
                "edgecolor": colour,
            }
            look |= {
                "weights": np.full(len(part), 1 / max(len(part), 1)),
                "facecolor": (colour, 0.25),
            }
            axis.hist(part, **look, label=word)
        counts = f"{name}: {(y == 0).sum()} real, {(y == 1).sum()} fake"
        if threshold is not None:
            counts += f", threshold {number(threshold)}"
            axis.axvline(threshold, color="black", linewidth=1.2, linestyle="--", label="threshold")
            real, fake = (
                f"{(p[y == c] >= threshold).mean():.1%}" if (y == c).any() else "n/a"
                for c in (0, 1)
            )
            said.append(
                f"At its threshold, {name} calls {real} of the reals and {fake} of the fakes fake"
            )
        axis.set_title(drawable(counts, 50), loc="left", fontsize=8)
        axis.set(ylabel="share", xlim=(0, 1))
    axes[-1].set_xlabel("P(fake)")
    _legend(made, axes[0], columns=3)
    return made, ". ".join(said)


def _share(chosen: int, y: np.ndarray, bins: np.ndarray) -> float:
    """Of fakes in one bin."""
    return float(y[bins == chosen].mean()) if (bins == chosen).any() else np.nan


@styled
def reliability(
    title: str, y: np.ndarray, p: np.ndarray, groups: Sequence[str], found: Mapping | None
) -> Drawn:
    """found: the expected calibration error with its interval."""
    bins = np.clip((p * BINS).astype(int), 0, BINS - 1)
    sizes = np.bincount(bins, minlength=BINS)
    filled = np.flatnonzero(sizes)
    intervals = bootstrap({str(b): partial(_share, b) for b in filled}, y, bins, groups, REPLICATES)
    said, true = (np.bincount(bins, values, BINS)[filled] / sizes[filled] for values in (p, y))
    made = _figure(4.3, title)
    axis, below = made.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axis.plot([0, 1], [0, 1], **CHANCE)
    axis.vlines(
        said, *np.array([intervals[str(b)] for b in filled]).T, color=COLOURS[0], linewidth=1.2
    )
    axis.plot(said, true, **style(0))
    axis.set(ylabel="share of fakes, 95% interval", xlim=(0, 1), ylim=(-0.03, 1.03))
    axis.grid(color="0.9")
    below.bar((np.arange(BINS) + 0.5) / BINS, sizes, 0.9 / BINS, color="0.75")
    for b in filled:
        below.text(
            (b + 0.5) / BINS,
            sizes[b],
            f" {sizes[b]}",
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=6.5,
        )
    below.set(xlabel="P(fake)", ylabel="count", ylim=(0, sizes.max() * 1.55))
    return made, (
        "Share of fakes among alike scores, and how many there are; on the diagonal, scores are probabilities. The expected "
        f"calibration error is {words(found)}; scores average {number(p.mean())}, and {number(y.mean())} are fakes"
    )


def lowest(curves: Sequence[Mapping]) -> float:
    """Where the axis of several robustness plots may begin, so that they can be compared by eye."""
    cells = [curve["clean"] for curve in curves]
    cells += [
        point[name]
        for curve in curves
        for point in curve["points"]
        for name in ("auc", "auc_with_lost")
    ]
    return float(np.nanmin([0.47, *_bounds(cells).ravel()])) - 0.02


@styled
def robustness(
    title: str, curves: Sequence[Mapping], places: Mapping[str, int], low: float
) -> Drawn:
    """All systems on one data set under one kind of degradation. places: of the systems, for style. low: end of the axis."""
    made = _figure(3.2 + 0.19 * len(curves), title)
    axis = made.subplots()
    said, ticks = [], {0: "clean"}
    for curve in curves:
        look = style(places[curve["system"]])
        points = sorted(curve["points"], key=lambda point: point["level"])
        ticks |= {point["level"]: point["parameter"] for point in points}
        levels = [0, *(point["level"] for point in points)]
        value, bottom, top = _bounds([curve["clean"], *(point["auc"] for point in points)])
        axis.fill_between(levels, bottom, top, color=look["color"], alpha=0.12, linewidth=0)
        axis.plot(levels, value, **look, label=drawable(curve["system"], 50))
        lost = _bounds([curve["clean"], *(point["auc_with_lost"] for point in points)])[0]
        axis.plot(
            levels,
            lost,
            **look | {"linestyle": ":", "linewidth": 0.9, "markerfacecolor": "white"},
            zorder=1.9,
        )
        if points:
            last = points[-1]
            said.append(
                f"At level {last['level']}, {curve['system']} has gone from {words(curve['clean'])} to {words(last['auc'])}, and "
                f"{last['lost']} faces are lost"
            )
    axis.axhline(0.5, **CHANCE)
    axis.set_xticks(list(ticks), [drawable(text, 9) for text in ticks.values()])
    axis.set(ylabel="AUC", ylim=(low, 1.01))
    axis.grid(color="0.9")
    _legend(made, axis)
    how = "Filled: AUC on faces still found, with 95% bands by group. Hollow, dotted: lost faces count as no alarm"
    return made, ". ".join([how, *said])


@styled
def few_shot(title: str, entries: Sequence[Mapping], places: Mapping[str, int]) -> Drawn:
    """All systems on one data set, by the number of training faces. places: of the systems, for style."""
    columns, parts = steps(entries), together(entries, "system")
    sizes = [round(float(np.mean([entry["faces"] for entry in column]))) for column in columns]
    made = _figure(3.2 + 0.19 * len(parts), title)
    axis = made.subplots()
    said = []
    for order, ((system,), part) in enumerate(parts):
        shift = 1.03 ** (
            order - (len(parts) - 1) / 2
        )  # so that the bars of several systems stand side by side
        means = [
            {b: mean_auc([e for e in column if e in part], b) for b in BOUNDS} for column in columns
        ]
        value, bottom, top = _bounds(means)
        look, x = style(places[system]), np.array(sizes) * shift
        axis.plot(x, value, **look, label=drawable(system, 50))
        axis.vlines(x, bottom, top, color=look["color"], linewidth=1)
        dots = [(entry["faces"] * shift, auc_of(entry)) for entry in part]
        axis.plot(*np.array(dots, dtype=float).T, ".", color=look["color"], markersize=3, alpha=0.5)
        known = [number(mean) for mean in value if not np.isnan(mean)]
        said += [f"{system} goes from {known[0]} to {known[-1]}"] if known else []
    axis.set_xscale("log")
    axis.set_xticks(sizes, map(str, sizes))
    axis.set_xticks([], minor=True)
    axis.set(xlabel="training faces", ylabel="AUC")
    axis.axhline(0.5, **CHANCE)
    axis.grid(color="0.9")
    _legend(made, axis)
    draws = len({entry["seed"] for entry in entries})
    return made, (
        f"Lines: mean AUC of {draws} draws of the training faces (dots: each draw). Bars: 95% interval by group of the test "
        f"faces, averaged over the draws. From {sizes[0]} to {sizes[-1]} faces, {'; '.join(said) or 'nothing is known'}"
    )


@styled
def bars(
    title: str,
    rows: Sequence[tuple[str, Mapping | None]],
    label: str,
    start: float,
    sign: bool = False,
) -> Drawn:
    """A bar from `start` to the value of each row, and its interval."""
    names = [drawable(name, 21) for name, _ in rows]
    heights = np.array([0.24 + 0.14 * name.count("\n") for name in names])
    places = np.cumsum(heights) - heights / 2
    made = _figure(1.3 + heights.sum(), title)
    axis = made.subplots()
    value, low, high = _bounds([found for _, found in rows])
    axis.barh(places, value - start, 0.17, left=start, color=COLOURS[6])
    axis.hlines(places, low, high, color="black", linewidth=1.2)
    axis.plot(value, places, "|", color="black", markersize=7)
    axis.axvline(start, color="black", linewidth=0.8)
    axis.set_yticks(places, names, fontsize=7.5)
    axis.set(xlabel=label, ylim=(heights.sum(), 0))
    axis.secondary_yaxis("right").set_yticks(
        places, [figure(found, sign).text for _, found in rows], fontsize=7.5
    )
    known = [
        rows[place] for place in np.argsort(-value, kind="stable") if not np.isnan(value[place])
    ]
    ends = {"Highest": known[0], "lowest": known[-1]} if known else {}
    said = [f"{word}: {name}, {words(found)}" for word, (name, found) in ends.items()]
    return made, f"Lines are 95% intervals by group. {'; '.join(said) or 'Nothing is known'}"


@styled
def heat_maps(title: str, entry: Mapping) -> Drawn:
    """Every two regions: real | fake | fake less real."""
    real, fake = (np.array(entry[name], dtype=float) for name in ("real", "fake"))
    difference, regions = fake - real, entry["regions"]
    made = _figure(3.7, title, 11)
    values = np.array([real, fake])
    known = values[~np.isnan(values)] if not np.isnan(values).all() else np.zeros(1)
    both = {"cmap": "viridis", "vmin": known.min(), "vmax": known.max()}
    reach = np.nanmax(np.abs([*difference.ravel(), 1e-6]))
    looks = {"real": (real, both), "fake": (fake, both)}
    looks["fake less real"] = (difference, {"cmap": "PuOr", "vmin": -reach, "vmax": reach})
    for axis, (name, (part, look)) in zip(made.subplots(1, 3), looks.items(), strict=True):
        image = axis.imshow(part, **look)
        axis.set_title(name, fontsize=9)
        ticks = (range(len(regions)), [drawable(region, 20) for region in regions])
        axis.set_xticks(*ticks, rotation=45)
        axis.set_yticks(*ticks)
        made.colorbar(image, ax=axis, shrink=0.75)
        for (i, j), value in np.ndenumerate(part):
            if not np.isnan(value):
                light = (
                    np.dot(image.to_rgba(value)[:3], (0.299, 0.587, 0.114)) > 0.5
                )  # luma of ITU-R BT.601
                shown = (
                    f"{value:+z.3f}".replace("0.", ".", 1) if part is difference else f"{value:.2f}"
                )
                axis.text(
                    j,
                    i,
                    shown,
                    ha="center",
                    va="center",
                    fontsize=6.5,
                    color="black" if light else "white",
                )
    pairs = [
        (i, j)
        for i, j in zip(*np.triu_indices(len(regions), 1), strict=True)
        if not np.isnan(difference[i, j])
    ]
    said = "Of no pair is the difference known"
    if pairs:
        i, j = max(pairs, key=lambda pair: abs(difference[pair]))
        more = f"Fakes disagree more than reals in {sum(difference[pair] > 0 for pair in pairs)} of {len(pairs)} pairs"
        means = f"{number(real[i, j])} for reals and {number(fake[i, j])} for fakes"
        said = f"{more}, most differently for {regions[i]} and {regions[j]}, {means}"
    return (
        made,
        f"How much two regions of one face disagree, on average (without intervals). {said}",
    )
