"""A report for readers: tables, plots, report.md and one index.html, from metrics.csv, report.json
and predictions.

Nothing is measured here but the curves of the plots, so a report can be written again at any time,
and is the same bytes every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pandas as pd

from evaluation import page, plots, tables
from evaluation.metrics import auc
from evaluation.metrics_table import UNITS, read_report
from evaluation.page import Names, Picture, Table, inline, number
from evaluation.predictions import of_test, read_predictions
from evaluation.protocols import slug
from evaluation.sections import sections
from evaluation.systems import BASELINE, ENSEMBLE

TOLERANCE = 1e-3  # of an AUC: predictions are stored with six digits


class Plots:
    """Draws the plots of a report into its folder."""

    def __init__(self, folder: Path, report: Mapping, table: pd.DataFrame) -> None:
        self.folder, self.report, self.table = folder, report, table
        self.names = Names()
        self.doubts: list[str] = []
        kinds = table[table["kind"].isin((ENSEMBLE, BASELINE))]
        kinds = kinds.sort_values("kind", key=lambda kind: kind != ENSEMBLE, kind="stable")
        # A system looks the same in all pictures.
        self.places = {
            x: i for i, x in enumerate(dict.fromkeys([*kinds["system"], *table["system"]]))
        }

    def save(self, title: str, drawn: plots.Drawn, *name: str, wide: bool = False) -> Picture:
        path = f"plots/{self.names(*name)}.png"
        plots.save(drawn[0], self.folder / path)
        return Picture(path, title, f"{drawn[1]}.", wide)

    def of_section(self, key: str) -> list[Picture]:
        """The plots that belong to the section with this key."""
        if key in self.report["runs"]:
            return [*self.run(key)]
        made = {
            "few-shot": self.few_shot,
            "robustness": self.robustness,
            "ablations": self.ablations,
            "importance": self.importance,
            "inconsistency": self.inconsistency,
        }
        return [*made[key]()] if key in made else []

    def run(self, id: str) -> Iterator[Picture]:
        """ROC curves, scores of MASC and of the best baseline, reliability of MASC."""
        title = self.report["runs"][id]["title"]
        rows = self.table[self.table["run"] == id]
        thresholds = rows[rows["metric"] == "threshold"].set_index("system")["value"]
        folder = self.folder / "predictions"
        aucs = tables.main_rows(rows, "auc") if folder.is_dir() else rows.iloc[:0]
        scores = {
            x: read_predictions(folder / id / f"{slug(x)}.csv")
            for x in tables.unique(aucs, "system")
        }
        for level, test in ((x, y) for x in UNITS for y in tables.unique(aucs, "test")):
            part = aucs[(aucs["level"] == level) & (aucs["test"] == test)]
            found = []
            for row in part.to_dict("records"):
                scored = of_test(scores[row["system"]], test, level)
                self.verify(f"{title}, {row['system']}, {UNITS[level]} of {test}", row, scored)
                if row["kind"] in (ENSEMBLE, BASELINE) and len(scored):
                    found.append((row, scored))
            if not found:
                continue
            found.sort(key=lambda each: self.places[each[0]["system"]])
            used = part[part["kind"].isin((ENSEMBLE, BASELINE))]
            about, name = f"{title}, {tables.counted(used, level)} of {test}", (id, test, level)
            lines = [
                (self.places[row["system"]], f"{row['system']}  {inline(row)}", scored)
                for row, scored in found
                if 0 < scored["label"].sum() < len(scored)
            ]
            if lines:
                yield self.save(f"ROC: {about}", plots.roc(f"ROC: {about}", lines), *name, "roc")
            best = (tables.best_baseline(used) or {}).get("system")
            ours = [each for each in found if each[0]["kind"] == ENSEMBLE]
            panels = [
                (row["system"], scored, thresholds[row["system"]])
                for row, scored in found
                if row["kind"] == ENSEMBLE or row["system"] == best
            ]
            if panels:
                heading = f"Scores: {about}"
                yield self.save(heading, plots.histograms(heading, panels), *name, "scores")
            for row, scored in ours:
                heading = f"Reliability of {row['system']}: {about}"
                drawn = plots.reliability(heading, scored)
                yield self.save(heading, drawn, *name, "reliability", row["system"])

    def verify(self, where: str, row: Mapping, scored: pd.DataFrame) -> None:
        """Note where metrics.csv and the predictions do not belong together."""
        y = scored["label"].to_numpy()
        value = auc(y, scored["p_fake"].to_numpy()) if len(y) else float("nan")
        counts = f"{row['n'] - row['n_fake']:.0f} real and {row['n_fake']:.0f} fake"
        found = f"{(y == 0).sum()} real and {(y == 1).sum()} fake"
        if counts != found:
            self.doubts.append(f"{where}: {counts} in metrics.csv, {found} in the predictions")
        elif abs(value - row["value"]) > TOLERANCE:
            self.doubts.append(
                f"{where}: AUC {number(row['value'])} in metrics.csv, {number(value)} from the predictions"
            )

    def few_shot(self) -> Iterator[Picture]:
        for test, part in tables.few_shot_rows(self.table).groupby("test", sort=False):
            title = f"Few-shot: {test}, tested on {tables.counted(part)}"
            yield self.save(title, plots.few_shot(title, part, self.places), "few-shot", test)

    def robustness(self) -> Iterator[Picture]:
        rows = self.table[self.table["condition"] != ""]
        low = plots.lowest(rows)
        for test, part in rows.groupby("test", sort=False):
            for family, conditions in tables.conditions_of(part).items():
                title = f"Robustness: {family}, {tables.frames_of(part)} frames of {test}"
                drawn = plots.robustness(title, part, conditions, self.places, low)
                yield self.save(title, drawn, "robustness", test, family)

    def ablations(self) -> Iterator[Picture]:
        yield from self.bars(
            "Ablations",
            tables.ablation_rows(self.table),
            "system",
            "AUC on frames, 95% interval",
            0.5,
        )

    def importance(self) -> Iterator[Picture]:
        rows = self.table[self.table["metric"] == "permutation_importance"]
        axis = "loss of AUC on frames, 95% interval"
        yield from self.bars("Permutation importance", rows, "attribute", axis, 0.0)

    def bars(
        self, title: str, rows: pd.DataFrame, label: str, axis: str, start: float
    ) -> Iterator[Picture]:
        for (run, test), part in rows.groupby(["run", "test"], sort=False):
            about = f"{title}: {tables.measured(self.report, self.table, run, test)}"
            yield self.save(about, plots.bars(about, part, label, axis, start), title, run, test)

    def inconsistency(self) -> Iterator[Picture]:
        rows = self.table[self.table["metric"].isin(plots.DISTANCES)]
        for (test, output, metric), part in rows.groupby(
            ["test", "attribute", "metric"], sort=False
        ):
            n = part.groupby("system")["n"].first()
            count = " and ".join(f"{n.get(word, 0):.0f} {word}" for word in ("real", "fake"))
            title = f"Inconsistency: {output}, {test}, {count} frames; {plots.DISTANCES[metric]}"
            drawn = plots.heat_maps(title, part)
            yield self.save(title, drawn, "inconsistency", test, output, wide=True)


def tidy(folder: Path, kept: set[str]) -> None:
    """Remove what an earlier writing left in tables/ and plots/."""
    for pattern in ("tables/*.md", "tables/*.tex", "plots/*.png"):
        for path in folder.glob(pattern):
            if path.relative_to(folder).as_posix() not in kept:
                path.unlink()


def about(report: Mapping) -> str:
    """When, from which code and in how long a report was made."""
    git = report["git"]
    changes = " with changes" if git["dirty"] else ""
    code = f"commit {git['commit']}{changes}" if git["commit"] else "code of no known commit"
    return f"Made on {report['created']} in {report['minutes']:g} minutes, by {code}."


def write_report(folder: Path) -> Path:
    """Tables, plots, report.md and index.html of a report; what an earlier writing left in tables/
    and plots/ is replaced.

    Returns:
        The folder.

    Raises:
        FileNotFoundError, ValueError: where something is missing or damaged, with the name of the
            file.
    """
    folder = Path(folder)
    report, table = read_report(folder)
    for name in ("tables", "plots"):
        (folder / name).mkdir(exist_ok=True)
    drawing, names, made = Plots(folder, report, table), Names(), []
    for section in sections(report, table, names):
        blocks = [*section.blocks, drawing.of_section(section.key)]
        made.append(replace(section, blocks=[block for block in blocks if block]))
    doubts = [
        f"metrics.csv and its predictions do not belong together: {x}" for x in drawing.doubts
    ]
    made[0].blocks.insert(0, tuple(doubts)) if doubts else None
    headings = {a.key for a, b in pairwise(made) if a.key == "protocol" and b.level > a.level}
    made = [section for section in made if section.blocks or section.key in headings]
    kept = {f"plots/{name}.png" for name in drawing.names.taken}
    for block in (block for section in made for block in section.blocks):
        if isinstance(block, Table):
            path = folder / "tables" / block.name
            page.write(path.with_name(f"{block.name}.md"), page.markdown_table(block))
            page.write(path.with_name(f"{block.name}.tex"), page.latex_table(block))
            kept |= {f"tables/{block.name}.md", f"tables/{block.name}.tex"}
    title, lead = f"MASC: {report['name']}", [about(report)]
    page.write(folder / "report.md", page.markdown(title, lead, made))
    page.write(folder / "index.html", page.html(title, lead, made, folder))
    tidy(folder, kept)
    return folder
