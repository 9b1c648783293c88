"""Two reports side by side: what is better in the second, on which faces, and what else differs between them.

Where both have predictions, the difference of two AUCs is measured anew on the faces that both have scored, with a paired
bootstrap by group: both systems are measured on the same draws, so that what makes faces hard for both cancels out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from evaluation import page
from evaluation.metrics import HEADINGS, auc, bootstrap
from evaluation.page import Cell, Section, Table, figure, number, texts
from evaluation.predictions import Predictions, by_video, face_keys, of_test
from evaluation.report import about
from evaluation.saved import UNITS, flat, read_results, read_scores
from evaluation.tables import counts, entry_of, tests_of

NOTES = (
    "B less A is the difference of the two figures in the reports",
    "Paired: the difference on the faces that both have scored, with the 95% interval of a bootstrap by A's groups in which "
    "both are measured on the same draws",
)
# What else is in a report, and what an entry of it is about.
PARTS = {
    "few_shot": ("dataset", "system", "asked", "seed"),
    "robustness": ("dataset", "family", "system"),
    "subgroups": ("run", "dataset", "attribute", "system"),
    "importance": ("run", "group"),
    "ablation": ("run", "dataset", "name"),
    "inconsistency": ("dataset", "output"),
}


def rows_of(found: Predictions) -> dict[tuple, int]:
    return {key: row for row, key in enumerate(face_keys(found))}


def paired(a: Predictions, b: Predictions, level: str) -> tuple[str, dict | None]:
    """How the faces of two systems' scores on one test go together, and the AUC of b less that of a on what they share.

    Returns: in words, and {"value", "low", "high"} (None without faces of both classes).
    """
    there, here = rows_of(a), rows_of(b)
    shared = [
        key for key in there if key in here and a["label"][there[key]] == b["label"][here[key]]
    ]
    all_of_them = len(shared) == len(there) == len(here)
    said = (
        f"the same {len(shared)}"
        if all_of_them
        else f"{len(shared)} of {len(there)} and {len(here)}"
    )
    if other := len(there.keys() & here.keys()) - len(shared):
        said += f"; {other} with another label in B are left out"
    first = {name: values[[there[key] for key in shared]] for name, values in a.items()}
    # Of a face, only the score comes from b: videos and groups are those of a.
    second = {**first, "p_fake": b["p_fake"][[here[key] for key in shared]]}
    if level == "video":
        first, second = by_video(first), by_video(second)
    y = first["label"]
    if not 0 < y.sum() < len(y):
        return said, None
    scores = np.column_stack([first["p_fake"], second["p_fake"]])
    low, high = bootstrap({"it": _delta_auc}, y, scores, first["group"].tolist())["it"]
    return said, {"value": _delta_auc(y, scores), "low": low, "high": high}


def _delta_auc(y: np.ndarray, scores: np.ndarray) -> float:
    return auc(y, scores[:, 1]) - auc(y, scores[:, 0])


def scores_of(folder: Path, system: Mapping, kept: dict[Path, Predictions]) -> Predictions | None:
    """None where the report came without them. kept: what was read before."""
    path = folder / (system["predictions"] or "")
    if path.is_file() and path not in kept:
        kept[path] = read_scores(path)
    return kept.get(path)


def pairs(a: Mapping, b: Mapping, level: str) -> Iterator[tuple[str, list[Mapping], list[Mapping]]]:
    """Test, systems and figures of everything on one level of a run that is in both reports, in the order of A."""
    there = {system["name"]: system for system in b["systems"]}
    for test in (test for at, test in tests_of(a) if at == level):
        for system in (system for system in a["systems"] if system["name"] in there):
            both = [system, there[system["name"]]]
            entries = [entry_of(each, level, test) for each in both]
            if None not in entries:
                yield test, both, [entry["figures"] for entry in entries]


def run_section(folders: tuple[Path, Path], a: Mapping, b: Mapping) -> Section:
    """What both reports tell about one run; frames and videos in tables of their own."""
    blocks: list[Table] = []
    kept: dict[Path, Predictions] = {}
    rest = [name for name in HEADINGS if name != "auc"]
    for level in UNITS:
        rows, others, faces = [], [], {}
        for test, systems, figures in pairs(a, b, level):
            faces.setdefault(test, {}).update(
                dict.fromkeys(counts(each, level) for each in figures)
            )
            found = [
                scores_of(folder, system, kept)
                for folder, system in zip(folders, systems, strict=True)
            ]
            said, difference = "n/a", None
            if None not in found:
                said, difference = paired(*(of_test(each, test) for each in found), level)
            row = texts(test, systems[0]["name"])
            aucs = [*(figure(each["auc"]) for each in figures), less(figures, "auc")]
            threshold = Cell(" → ".join(number(system["threshold"]) for system in systems))
            rows.append([*row, *aucs, Cell(said), figure(difference, sign=True), threshold])
            others.append(row + [change(figures, name) for name in rest])
        if rows:
            title = f"{a['title']}, {UNITS[level]}"
            notes = [*(f"{test}: {' or '.join(told)}" for test, told in faces.items()), *NOTES]
            head = [
                "test",
                "system",
                "AUC in A",
                "AUC in B",
                "B less A",
                "faces",
                "paired",
                "threshold",
            ]
            blocks.append(Table("", f"{title}: AUC, 95% intervals by group", head, rows, notes, 2))
            notes = ["A → B and B less A; the 95% intervals are in the reports"]
            head = ["test", "system", *(HEADINGS[name] for name in rest)]
            blocks.append(Table("", f"{title}: the other figures", head, others, notes, 2))
    return Section(a["title"], blocks, 3)


def less(figures: Sequence[Mapping], name: str) -> Cell:
    a, b = ((each[name] or {}).get("value") for each in figures)
    return Cell() if a is None or b is None else Cell(number(b - a, sign=True))


def change(figures: Sequence[Mapping], name: str) -> Cell:
    values = (figure(each[name]).text for each in figures)
    difference = less(figures, name).text
    return Cell(" → ".join(values), "" if difference == "n/a" else difference)


def differing(a: Mapping, b: Mapping) -> Table:
    """Code, versions, settings and counts that are not the same."""
    rows = []
    for part in ("git", "versions", "config", "datasets"):
        found = [flat(data[part], part) for data in (a, b)]
        rows += _differing(*found)
    runs = [
        {run["id"]: {part: run[part] for part in ("train", "val")} for run in data["runs"]}
        for data in (a, b)
    ]
    for run in runs[0]:
        if run in runs[1]:
            rows += _differing(*(flat(each[run], run) for each in runs))
    return Table(
        "", "Code, versions, settings and counts that differ", ["what", "A", "B"], rows, texts=3
    )


def _differing(a: Mapping[str, str], b: Mapping[str, str]) -> list[list[Cell]]:
    keys = dict.fromkeys([*a, *b])
    return [
        texts(key, a.get(key, "–"), b.get(key, "–")) for key in keys if a.get(key) != b.get(key)
    ]


def items(data: Mapping) -> dict[tuple, str]:
    """Everything that a report has figures of: its place, within others of which it is a part, and in words."""
    found: dict[tuple, str] = {}
    for run in data["runs"]:
        place: tuple = ("run", run["id"])
        found[place] = f"run {run['id']} ({run['title']})"
        for system in run["systems"]:
            found[*place, system["name"]] = f"run {run['id']}: {system['name']}"
            for test in system["tests"]:
                where = f"{UNITS[test['level']]} of {test['test']}"
                found[*place, system["name"], where] = f"run {run['id']}: {system['name']}, {where}"
    for part, keys in PARTS.items():
        for entry in data[part]:
            values = [str(entry[key]) for key in keys]
            found[part, *values] = f"{part.replace('_', ' ')}: {', '.join(values)}"
    return found


def only_in(data: Mapping, other: Mapping) -> tuple[str, ...]:
    """What the other report lacks; of a run or system that it lacks, the parts are not told too."""
    here, there = items(data), items(other)
    lacking = {place: told for place, told in here.items() if place not in there}
    return tuple(told for place, told in lacking.items() if place[:-1] not in lacking)


def compare(a: Path, b: Path, out: Path | None = None) -> Path:
    """compare.md and compare.html in `out` (default: compare-A-B beside b), of two folders that evaluate.py wrote reports into.

    Returns: `out`.
    Raises: FileNotFoundError, ValueError where something is missing or damaged, with the name of the file.
    """
    folders = Path(a), Path(b)
    data = [read_results(folder) for folder in folders]
    out = Path(
        out
        or folders[1].resolve().parent
        / "-".join(["compare", *(folder.resolve().name for folder in folders)])
    )
    there = {run["id"]: run for run in data[1]["runs"]}
    runs = [
        run_section(folders, run, there[run["id"]]) for run in data[0]["runs"] if run["id"] in there
    ]
    runs = [section for section in runs if section.blocks]
    table = differing(*data)
    lead = [
        f"{letter}: {each['name']}. {about(each)}" for letter, each in zip("AB", data, strict=True)
    ]
    same = "Code, versions, settings and counts are the same."
    sections = [Section("What differs", [table if table.rows else same])]
    for letter, missing in zip("AB", (only_in(*data), only_in(*data[::-1])), strict=True):
        sections += [Section(f"Only in {letter}", [missing])] if missing else []
    sections += [
        Section("What is in both", [] if runs else ["No run, test and system is in both."]),
        *runs,
    ]
    title = f"{data[0]['name']} (A) and {data[1]['name']} (B)"
    out.mkdir(parents=True, exist_ok=True)
    page.write(out / "compare.md", page.markdown(title, lead, sections))
    page.write(out / "compare.html", page.html(title, lead, sections, out))
    return out
