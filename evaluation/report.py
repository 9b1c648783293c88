"""A report for readers: tables, plots, report.md and index.html, from metrics.csv, report.json and
predictions. It can be written again at any time, and is the same bytes every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from evaluation import page, plots, reference_tables, tables
from evaluation.metrics import auc
from evaluation.metrics_table import UNITS, pick, read_report, unique
from evaluation.page import Names, Picture, Table, inline, number
from evaluation.predictions import of_test, read_predictions
from evaluation.protocols import slug
from evaluation.sections import sections
from evaluation.systems import BASELINE, ENSEMBLE

TOLERANCE = 1e-3  # of an AUC: predictions are stored with six digits


class Pictures:
    """Draws the plots of a report into its folder. doubts: where its files contradict each other."""

    def __init__(self, folder: Path, report: Mapping, table: pd.DataFrame) -> None:
        self.folder, self.report, self.table = folder, report, table
        self.names, self.doubts = Names(), []
        systems = [pick(table, kind=kind)["system"] for kind in (ENSEMBLE, BASELINE)]
        systems = dict.fromkeys(pd.concat([*systems, table["system"]]))
        # A system looks the same in all pictures.
        self.places = {name: place for place, name in enumerate(systems)}

    def save(self, title: str, drawn: plots.Drawn, *name: str, wide: bool = False) -> Picture:
        path = f"plots/{self.names(*name)}.png"
        plots.save(drawn[0], self.folder / path)
        return Picture(path, title, f"{drawn[1]}.", wide)

    def of_section(self, key: str) -> Iterator[Picture]:
        """The plots that belong to the section with this key."""
        if key in self.report["runs"]:
            yield from self.of_run(key)
        elif key == "few-shot":
            for test, part in tables.few_shot_rows(self.table).groupby("test", sort=False):
                title = f"Few-shot: {test}, tested on {tables.counted(part)}"
                yield self.save(title, plots.few_shot(title, part, self.places), key, test)
        elif key == "robustness":
            rows = self.table[self.table["condition"] != ""]
            rows = rows[rows["protocol"] != reference_tables.PROTOCOL]
            low = plots.lowest(rows)
            for test, part in rows.groupby("test", sort=False):
                for family, conditions in tables.conditions_of(part).items():
                    title = f"Robustness: {family}, {tables.frames_of(part)} frames of {test}"
                    drawn = plots.robustness(title, part, conditions, self.places, low)
                    yield self.save(title, drawn, key, test, family)
        elif key == "ablations":
            rows, axis = tables.ablation_rows(self.table), "AUC on frames, 95% interval"
            yield from self.bars("Ablations", rows, "system", axis, 0.5)
        elif key == "importance":
            rows = pick(self.table, metric="permutation_importance")
            axis = "loss of AUC on frames, 95% interval"
            yield from self.bars("Permutation importance", rows, "attribute", axis, 0.0)
        elif key == "inconsistency":
            rows = pick(self.table, metric=tuple(plots.DISTANCES))
            keys = ["test", "attribute", "metric"]
            for (test, output, metric), part in rows.groupby(keys, sort=False):
                n = part.groupby("system")["n"].first()
                count = " and ".join(f"{n.get(word, 0):.0f} {word}" for word in ("real", "fake"))
                about = f"{output}, {test}, {count} frames; {plots.DISTANCES[metric]}"
                title = f"Inconsistency: {about}"
                drawn = plots.heat_maps(title, part)
                yield self.save(title, drawn, key, test, output, wide=True)

    def bars(
        self, title: str, rows: pd.DataFrame, label: str, axis: str, start: float
    ) -> Iterator[Picture]:
        for (run, test), part in rows.groupby(["run", "test"], sort=False):
            about = f"{title}: {tables.measured(self.report, self.table, run, test)}"
            yield self.save(about, plots.bars(about, part, label, axis, start), title, run, test)

    def of_run(self, id: str) -> Iterator[Picture]:
        """ROC curves, scores of MASC and of the best baseline, reliability of MASC."""
        title, folder = self.report["runs"][id]["title"], self.folder / "predictions"
        rows = pick(self.table, run=id)
        thresholds = pick(rows, metric="threshold").set_index("system")["value"]
        aucs = tables.main_rows(rows if folder.is_dir() else rows[:0], metric="auc")
        files = {name: folder / id / f"{slug(name)}.csv" for name in unique(aucs, "system")}
        scores = {name: read_predictions(path) for name, path in files.items()}
        aucs = aucs.sort_values("level", kind="stable")
        for (level, test), part in aucs.groupby(["level", "test"], sort=False):
            found = []
            for row in part.to_dict("records"):
                scored = of_test(scores[row["system"]], test, level)
                self.verify(f"{title}, {row['system']}, {UNITS[level]} of {test}", row, scored)
                if row["kind"] in (ENSEMBLE, BASELINE) and len(scored):
                    found.append((row, scored))
            if not found:
                continue
            found.sort(key=lambda each: self.places[each[0]["system"]])
            used = pick(part, kind=(ENSEMBLE, BASELINE))
            best = (tables.best_baseline(used) or {}).get("system")
            about, name = f"{title}, {tables.counted(used, level)} of {test}", (id, test, level)
            lines, panels = [], []
            for row, scored in found:
                system = row["system"]
                if scored["label"].nunique() > 1:
                    lines.append((self.places[system], f"{system}  {inline(row)}", scored))
                if row["kind"] == ENSEMBLE or system == best:
                    panels.append((system, scored, thresholds[system]))
            if lines:
                heading = f"ROC: {about}"
                yield self.save(heading, plots.roc(heading, lines), *name, "roc")
            if panels:
                heading = f"Scores: {about}"
                yield self.save(heading, plots.histograms(heading, panels), *name, "scores")
            for system, scored, _ in panels:
                if system != best:
                    heading = f"Reliability of {system}: {about}"
                    drawn = plots.reliability(heading, scored)
                    yield self.save(heading, drawn, *name, "reliability", system)

    def verify(self, where: str, row: Mapping, scored: pd.DataFrame) -> None:
        """Note where metrics.csv and the predictions do not belong together."""
        y, p = scored["label"].to_numpy(), scored["p_fake"].to_numpy()
        value = auc(y, p) if len(y) else float("nan")
        counts = f"{row['n'] - row['n_fake']:.0f} real and {row['n_fake']:.0f} fake"
        found = f"{(y == 0).sum()} real and {(y == 1).sum()} fake"
        if counts == found:
            counts, found = f"AUC {number(row['value'])}", f"AUC {number(value)}"
            if not abs(value - row["value"]) > TOLERANCE:
                return
        self.doubts.append(
            "metrics.csv and its predictions do not belong together: "
            f"{where}: {counts} in metrics.csv, {found} in the predictions"
        )


def about(report: Mapping) -> str:
    """From which code a report was made. When and in how long: report.json, so that the same
    figures are the same pages."""
    git = report["git"]
    changes = " with changes" if git["dirty"] else ""
    code = f"commit {git['commit']}{changes}" if git["commit"] else "code of no known commit"
    return f"Made by {code}."


def write_report(folder: Path) -> Path:
    """Tables, plots, report.md and index.html of a report; earlier ones are replaced."""
    folder = Path(folder)
    report, table = read_report(folder)
    for name in ("tables", "plots"):
        (folder / name).mkdir(exist_ok=True)
    pictures = Pictures(folder, report, table)
    made = sections(report, table, pictures.of_section)
    if pictures.doubts:
        made[0].blocks.insert(0, tuple(pictures.doubts))
    kept = {folder / "plots" / f"{name}.png" for name in pictures.names.taken}
    for block in (block for section in made for block in section.blocks):
        if isinstance(block, Table):
            forms = {"md": page.markdown_table(block), "tex": page.latex_table(block)}
            for ending, text in forms.items():
                path = folder / "tables" / f"{block.name}.{ending}"
                page.write(path, text)
                kept.add(path)
    title, lead = f"MASC: {report['name']}", [about(report)]
    page.write(folder / "report.md", page.markdown(title, lead, made))
    page.write(folder / "index.html", page.html(title, lead, made, folder))
    for pattern in ("tables/*.md", "tables/*.tex", "plots/*.png"):
        for path in {*folder.glob(pattern)} - kept:
            path.unlink()
    return folder
