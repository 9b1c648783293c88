"""Tables of a report, from the content of its results.json. Frames and videos are never in one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from evaluation.metrics import HEADINGS
from evaluation.page import Cell, Names, Table, figure, number, texts
from evaluation.saved import UNITS
from evaluation.systems import MASC

LOWER_IS_BETTER = ("eer", "fpr", "ece", "brier")
LOST = (
    "Degradations are applied to the picture before the face is looked for; a picture whose face is lost raises no alarm "
    "(p_fake 0) in the second figure"
)
DELONG = (
    "MASC less it: MASC's AUC less that of the system, on the faces that both have scored, with the 95% interval and the p of "
    "DeLong's test, which takes faces for independent"
)


def counts(figures: Mapping, level: str) -> str:
    real, fake, groups = (figures[f"n_{name}"] for name in ("real", "fake", "groups"))
    return f"{real} real and {fake} fake {UNITS[level]} in {groups} groups"


def counts_of_all(found: Sequence[Mapping], level: str) -> str:
    """Of summaries that may differ in which faces were scored."""
    ordered = sorted(found, key=lambda figures: figures["n"])
    ends = dict.fromkeys(counts(ordered[end], level) for end in (0, -1) if ordered)
    return " to ".join(ends) or "none"


def with_best(rows: Sequence[list[Cell]], column: int, lower: bool = False) -> None:
    """Mark the best of a column where there is a choice, ties as they are shown."""
    known = [float(row[column].text) for row in rows if row[column].text not in ("n/a", "–")]
    if len(set(known)) > 1:
        winner = number(min(known) if lower else max(known))
        for row in rows:
            row[column] = replace(row[column], best=row[column].text == winner)


def together(entries: Iterable[Mapping], *keys: str) -> list[tuple[tuple, list[Mapping]]]:
    """Entries that share these values, in the order of their first appearance."""
    found: dict[tuple, list[Mapping]] = {}
    for entry in entries:
        found.setdefault(tuple(entry.get(key) for key in keys), []).append(entry)
    return list(found.items())


# Runs.


def tests_of(run: Mapping) -> list[tuple[str, str]]:
    """(level, test) of everything that a system of the run was measured on, frames first."""
    found = dict.fromkeys(
        (test["level"], test["test"]) for system in run["systems"] for test in system["tests"]
    )
    return [pair for level in UNITS for pair in found if pair[0] == level]


def entry_of(system: Mapping, level: str, test: str) -> Mapping | None:
    return next((e for e in system["tests"] if (e["level"], e["test"]) == (level, test)), None)


def ours(run: Mapping) -> Mapping | None:
    """The MASC that was fitted for the run, or else the first one that was measured."""
    found = [system for system in run["systems"] if system["kind"] == "masc"]
    return min(found, key=lambda system: system["name"] != MASC, default=None)


def strongest(run: Mapping, level: str, test: str) -> tuple[Mapping, Mapping] | None:
    """The baseline with the highest AUC on a test, and its entry."""
    found = [(s, entry_of(s, level, test)) for s in run["systems"] if s["kind"] == "baseline"]
    known = [(s, e) for s, e in found if e and auc_of(e) is not None]
    return max(known, key=lambda pair: auc_of(pair[1]), default=None)


def auc_of(entry: Mapping) -> float | None:
    return (entry["figures"]["auc"] or {}).get("value")


def training(part: Mapping) -> str:
    named = " + ".join(part["datasets"])
    return f"{named}: {part['real']} real and {part['fake']} fake frames in {part['groups']} groups"


def _delong(entry: Mapping | None) -> list[Cell]:
    found = entry["delong"] if entry else None
    if not found:
        return texts("", "")
    p = found["p"]
    less = figure({**found, "value": found["difference"]}, sign=True)
    return [less, Cell("< 0.001" if p is not None and p < 1e-3 else number(p))]


def _numbers(figures: Mapping) -> Cell:
    return Cell(f"{figures['n_real']} + {figures['n_fake']}", f"{figures['n_groups']} groups")


def run_table(names: Names, run: Mapping, level: str, test: str) -> Table:
    """Every figure of every system on one test, at one level."""
    rows, notes, tested = [], [], []
    for system in run["systems"]:
        entry = entry_of(system, level, test)
        if entry is None:
            rows.append([*texts(system["name"]), *[Cell()] * (len(HEADINGS) + 1), *texts("", "")])
            notes.append(f"{system['name']}: {system['note'] or 'no figures on this test'}")
            continue
        figures = entry["figures"]
        tested.append(figures)
        values = [figure(figures[name]) for name in HEADINGS]
        rows.append([Cell(system["name"]), _numbers(figures), *values, *_delong(entry)])
    for column, name in enumerate(HEADINGS, 2):
        with_best(rows, column, name in LOWER_IS_BETTER)
    head = ["system", "real + fake", *HEADINGS.values(), "MASC less it", "p"]
    compared = any(row[-1].text for row in rows)
    # Without what all rows share (the caption tells it) and what no row has.
    first, end = (
        1 + (len({counts(figures, level) for figures in tested}) < 2),
        len(head) - (0 if compared else 2),
    )
    head, *rows = ([row[0], *row[first:end]] for row in (head, *rows))
    caption = f"{run['title']}: {counts_of_all(tested, level)} of {test}; 95% intervals by group"
    return Table(
        names(run["id"], test, level),
        caption,
        head,
        rows,
        [*notes, *([DELONG] if compared else [])],
    )


def systems_table(names: Names, run: Mapping) -> Table:
    rows = [
        texts(s["name"], s["kind"], s["note"] or "–", number(s["threshold"]), f"{s['seconds']:.1f}")
        for s in run["systems"]
    ]
    head = ["system", "kind", "note", "threshold", "seconds"]
    notes = [
        "From the threshold on, p_fake is called fake (accuracy, FPR). It was set on the validation faces"
    ]
    return Table(
        names(run["id"], "systems"), f"{run['title']}: the systems", head, rows, notes, texts=3
    )


def overview(names: Names, runs: Sequence[Mapping], level: str) -> Table | None:
    """A row per run and test: MASC, and the best of what it must beat."""
    rows = []
    for run in (run for _, part in together(runs, "protocol") for run in part):
        masc = ours(run)
        for test in (
            test for at, test in tests_of(run) if at == level and run["protocol"] != "sanity"
        ):
            entry = entry_of(masc, level, test) if masc else None
            other, theirs = strongest(run, level, test) or (None, None)
            tested = entry or theirs
            row = texts(
                run["protocol"],
                " + ".join(run["train"]["datasets"]),
                test,
                other["name"] if other else "none",
            )
            row.append(_numbers(tested["figures"]) if tested else Cell())
            row += [figure(each["figures"]["auc"] if each else None) for each in (entry, theirs)]
            rows.append(row + _delong(theirs))
    if not rows:
        return None
    head = [
        "protocol",
        "trained on",
        "tested on",
        "best baseline",
        "real + fake",
        "AUC of MASC",
        "AUC of the baseline",
    ]
    notes = [
        "The best baseline is the one with the highest AUC on the very test: that flatters it",
        DELONG,
    ]
    caption = f"MASC and the best baseline of every run, {UNITS[level]}, 95% intervals by group"
    return Table(
        names("overview", level), caption, [*head, "MASC less it", "p"], rows, notes, texts=4
    )


def matrix(names: Names, runs: Sequence[Mapping], level: str) -> Table | None:
    """AUC of every system: trained on the row's, tested on the column's data set."""
    if not any(run["protocol"] == "cross-dataset" for run in runs):
        return None
    found: dict[tuple[str, str], dict[str, Mapping]] = {}
    for run in runs:
        for system in run["systems"] if run["protocol"] in ("in-dataset", "cross-dataset") else ():
            for entry in system["tests"] if system["kind"] != "ablation" else ():
                if entry["level"] == level:
                    row = found.setdefault(
                        (" + ".join(run["train"]["datasets"]), system["name"]), {}
                    )
                    row[entry["test"]] = entry["figures"]
    if not found:
        return None
    tests = {test: row[test] for row in found.values() for test in sorted(row)}
    rows = []
    for _, part in together([{"train": t, "system": s} for t, s in found], "train"):
        block = [
            texts(e["train"], e["system"])
            + [figure(found[e["train"], e["system"]].get(test, {}).get("auc")) for test in tests]
            for e in part
        ]
        for column in range(2, 2 + len(tests)):
            with_best(block, column)
        rows += block
    notes = [f"{test}: {counts(figures, level)}" for test, figures in tests.items()]
    notes.append(
        "Where a test is also in `trained on`, the figure is in-dataset. Best: of those with the same training set"
    )
    caption = f"AUC across data sets, {UNITS[level]}, 95% intervals by group"
    return Table(
        names("matrix", level), caption, ["trained on", "system", *tests], rows, notes, texts=2
    )


def datasets_table(names: Names, datasets: Mapping[str, Mapping]) -> Table:
    splits = list(dict.fromkeys(split for found in datasets.values() for split in found["splits"]))
    rows = [
        texts(name, found["dump"])
        + [_split(found["splits"].get(split)) for split in splits]
        + texts(found["no_face"], found["unreadable"])
        for name, found in datasets.items()
    ]
    head = ["data set", "dump", *splits, "no face", "unreadable"]
    return Table(
        names("datasets"), "The data sets: real + fake frames of each split", head, rows, texts=2
    )


def _split(found: Mapping | None) -> Cell:
    return (
        Cell(f"{found['real']} + {found['fake']}", f"{found['groups']} groups")
        if found
        else Cell("–")
    )


# What goes beyond runs: all on single frames.


def sizes_of(curves: Sequence[Mapping]) -> str:
    """How many faces were degraded; a range where systems scored more or fewer."""
    sizes = sorted({point["n"] + point["lost"] for curve in curves for point in curve["points"]})
    return "–".join(map(str, sizes[:: len(sizes) - 1 or 1]))


def robustness(names: Names, curves: Sequence[Mapping]) -> list[Table]:
    """One for each data set and kind of degradation: found faces, with lost ones, and how many are lost."""
    tables = []
    for (dataset, family), part in together(curves, "dataset", "family"):
        parameters = {p["level"]: p["parameter"] for curve in part for p in curve["points"]}
        levels = sorted(parameters)
        rows = []
        for curve in part:
            points = {point["level"]: point for point in curve["points"]}
            at = [points.get(level) for level in levels]
            lost = (Cell(f"{point['n']}, {point['lost']}") if point else Cell() for point in at)
            system, blank = Cell(curve["system"]), Cell("–")
            found = [
                figure(curve["clean"]),
                *(figure(p and p["auc"]) for p in at),
                Cell(number(curve["slope"], True)),
            ]
            rows += [
                [system, Cell("AUC, faces found"), *found],
                [
                    system,
                    Cell("AUC, with lost faces"),
                    blank,
                    *(figure(p and p["auc_with_lost"]) for p in at),
                    blank,
                ],
                [system, Cell("faces found, lost"), blank, *lost, blank],
            ]
        for column in range(2, 3 + len(levels)):
            with_best(rows[::3], column)
            with_best(rows[1::3], column)
        head = [
            "system",
            "figure",
            "clean",
            *(f"{level}: {parameters[level]}" for level in levels),
            "slope",
        ]
        caption = (
            f"Robustness: {family}, {sizes_of(part)} frames of {dataset}; 95% intervals by group"
        )
        notes = [LOST, "Slope: AUC per level, over the clean picture and all levels"]
        tables.append(
            Table(names("robustness", dataset, family), caption, head, rows, notes, texts=2)
        )
    return tables


def subgroups(names: Names, found: Sequence[Mapping], runs: Sequence[Mapping]) -> list[Table]:
    tables = []
    for (run, dataset, attribute), part in together(found, "run", "dataset", "attribute"):
        rows = []
        for entry in part:
            for group in entry["groups"]:
                row = texts(entry["system"], group["name"], group["n_real"], group["n_fake"])
                rows.append([*row, figure(group["auc"]), figure(group["fpr"])])
            gaps = [number(entry["largest_gap"][name]) for name in ("auc", "fpr")]
            rows.append(texts(entry["system"], "largest gap", "", "", *gaps))
        head = ["system", attribute, "real", "fake", "AUC", "FPR"]
        caption = f"By {attribute}, as an expert sees it, {measured(runs, run, dataset)}; 95% intervals by group"
        notes = ["n/a: too few faces to say. FPR is at the threshold of the run"]
        tables.append(
            Table(names("subgroups", run, dataset, attribute), caption, head, rows, notes, texts=2)
        )
    return tables


def steps(entries: Sequence[Mapping]) -> list[list[Mapping]]:
    """Few-shot entries by the size that was asked for; whole groups are drawn, so a training set may be a little larger."""
    return [
        [e for e in entries if e["asked"] == asked]
        for asked in sorted({e["asked"] for e in entries})
    ]


def few_shot(names: Names, found: Sequence[Mapping]) -> list[Table]:
    tables = []
    for (dataset,), part in together(found, "dataset"):
        columns = steps(part)
        spans = [sorted({e["faces"] for e in column}) for column in columns]
        rows = []
        for (system,), of_system in together(part, "system"):
            seeds = list(dict.fromkeys(e["seed"] for e in of_system))
            at = [[e for e in column if e["system"] == system] for column in columns]
            for seed in seeds:
                cells = [
                    next((figure(e["figures"]["auc"]) for e in step if e["seed"] == seed), Cell())
                    for step in at
                ]
                rows.append(texts(system, seed) + cells)
            if len(seeds) > 1:
                rows.append(texts(system, "mean", *(number(mean_auc(step)) for step in at)))
        head = [
            "system",
            "seed",
            *(f"{s[0]} faces" if len(s) < 2 else f"{s[0]}–{s[-1]} faces" for s in spans),
        ]
        tested = counts_of_all([e["figures"] for e in part], "frame")
        caption = f"AUC on frames of {dataset} ({tested}) by the number of training faces; 95% intervals by group"
        notes = [
            "Intervals are about the test faces; the seeds show what the draw of the training faces does"
        ]
        tables.append(Table(names("few-shot", dataset), caption, head, rows, notes, texts=2))
    return tables


def mean_auc(entries: Sequence[Mapping], bound: str = "value") -> float | None:
    known = [(e["figures"]["auc"] or {}).get(bound) for e in entries]
    return None if not known or None in known else sum(known) / len(known)


def measured(runs: Sequence[Mapping], run: str, dataset: str | None) -> str:
    """What MASC was measured on in the run of this id: its title, the test (the first where it is not told) and counts."""
    for each in runs:
        for entry in (ours(each) or {"tests": ()})["tests"] if each["id"] == run else ():
            if entry["level"] == "frame" and dataset in (entry["test"], None):
                return f"{each['title']}: {counts(entry['figures'], 'frame')} of {entry['test']}"
    return f"{run}: frames of {dataset}" if dataset else run


def ablation(names: Names, found: Sequence[Mapping], runs: Sequence[Mapping]) -> list[Table]:
    tables = []
    for (run, dataset), part in together(found, "run", "dataset"):
        rows = [
            texts(e["name"], "n/a" if e["columns"] is None else e["columns"]) + [figure(e["auc"])]
            for e in part
        ]
        with_best(rows, 2)
        caption = f"MASC with less, {measured(runs, run, dataset)}; 95% intervals by group"
        tables.append(
            Table(names("ablation", run, dataset), caption, ["system", "columns", "AUC"], rows)
        )
    return tables


def importance(names: Names, found: Sequence[Mapping], runs: Sequence[Mapping]) -> list[Table]:
    tables = []
    for (run, dataset), part in together(found, "run", "dataset"):
        rows = [[Cell(entry["group"]), figure(entry["fall"], sign=True)] for entry in part]
        caption = f"What MASC leans on, {measured(runs, run, dataset)}; 95% intervals by group"
        notes = [
            "By how much the AUC falls when the columns of one group are dealt out anew among the test faces"
        ]
        name = names("importance", run, dataset or "")
        tables.append(Table(name, caption, ["columns of", "fall of AUC"], rows, notes))
    return tables
