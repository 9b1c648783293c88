"""A report for readers: tables, plots, report.md and one index.html, from metrics.csv, report.json and predictions.

Nothing is measured here but the curves of the plots, so a report can be written again at any time, and is the same bytes
every time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pandas as pd

from evaluation import page, plots, tables
from evaluation.metrics import auc
from evaluation.metrics_table import UNITS, read_report
from evaluation.page import Names, Picture, Section, Table, number
from evaluation.predictions import of_test, read_predictions
from evaluation.protocols import slug
from evaluation.sanity import chance_remark, metadata_remark
from evaluation.systems import BASELINE, ENSEMBLE, MASC, METADATA

TOLERANCE = 1e-3  # of an AUC: predictions are stored with six digits
TITLES = {
    "in-dataset": "In-dataset",
    "identity-disjoint": "Identity-disjoint",
    "cross-dataset": "Cross-dataset",
    "leave-one-manipulation-out": "Leave-one-manipulation-out",
    "cross-auc": "Cross-AUC: reals of one dataset, fakes of another",
}
READING = (
    "AUC, AP, TPR@1%FPR and accuracy are better when higher; EER, FPR, ECE and Brier when lower. An AUC of 0.5 is chance.",
    "Accuracy and FPR are at the threshold that was set on validation faces; nothing is chosen on test faces.",
    "Frames are single pictures. The score of a video is the mean of its frames. The two are never in one table.",
    "Behind a figure stands its 95% bootstrap interval, drawing whole groups (a source video, a person).",
    "That of ECE may lie above its value: drawing adds noise to every bin.",
    "n/a: undefined for these faces, or not measured.",
)


def derived_remarks(report: Mapping, table: pd.DataFrame) -> list[str]:
    """Sanity checks that follow from the figures: permuted labels at chance, and the metadata baseline."""
    rows = tables.main_rows(table)
    rows = rows[(rows["metric"] == "auc") & (rows["level"] == "frame")]
    permuted = rows[rows["protocol"] == "permuted-labels"]
    remarks = [
        chance_remark(test, part["value"].tolist())
        for test, part in permuted.groupby("test", sort=False)
    ]
    for (run, test), part in rows[rows["size"].isna()].groupby(["run", "test"], sort=False):
        aucs = part.set_index("system")["value"]
        if {MASC, METADATA} <= set(aucs.index) and aucs[METADATA] >= aucs[MASC]:
            where = f"{report['runs'][run]['title']}, test {test}"
            remarks.append(metadata_remark(where, aucs[MASC], aucs[METADATA]))
    return remarks


class _Writer:
    """Writes tables and plots into a report's folder."""

    def __init__(self, folder: Path, report: Mapping, table: pd.DataFrame) -> None:
        self.folder, self.report, self.table = folder, report, table
        self.names, self.plots = Names(), Names()
        self.doubts: list[str] = []
        # A system looks the same in all pictures.
        kinds = table[table["kind"].isin((ENSEMBLE, BASELINE))].sort_values(
            "kind", key=lambda kind: kind != ENSEMBLE, kind="stable"
        )
        known = [*kinds["system"], *table["system"]]
        self.places = {name: i for i, name in enumerate(dict.fromkeys(known))}
        for name in ("tables", "plots"):
            (folder / name).mkdir(exist_ok=True)

    def write(self, made: Sequence[Table]) -> list[Table]:
        for table in made:
            path = self.folder / "tables" / table.name
            page.write(path.with_name(f"{table.name}.md"), page.markdown_table(table))
            page.write(path.with_name(f"{table.name}.tex"), page.latex_table(table))
        return list(made)

    def picture(self, title: str, drawn: plots.Drawn, *name: str, wide: bool = False) -> Picture:
        path = f"plots/{self.plots(*name)}.png"
        plots.save(drawn[0], self.folder / path)
        return Picture(path, title, f"{drawn[1]}.", wide)

    def tidy(self) -> None:
        """Remove what an earlier writing left in tables/ and plots/."""
        kept = {f"{name}{ending}" for name in self.names.taken for ending in (".md", ".tex")}
        kept |= {f"{name}.png" for name in self.plots.taken}
        for pattern in ("tables/*.md", "tables/*.tex", "plots/*.png"):
            for path in self.folder.glob(pattern):
                if path.name not in kept:
                    path.unlink()

    def run(self, id: str, run: Mapping) -> Section:
        rows = self.table[self.table["run"] == id]
        trained, validated = (
            f"{' + '.join(n['datasets'])}: {n['real']} real and {n['fake']} fake frames in {n['groups']} groups"
            for n in (run["train"], run["val"])
        )
        blocks: list = [f"Trained on {trained}. Validated on {validated}."]
        blocks += [tuple(run["remarks"])] if run["remarks"] else []
        blocks += self.write([tables.systems_table(self.names, run, rows)])
        found = tables.main_rows(rows)
        scores = {}
        for name in tables.unique(found, "system"):
            path = self.folder / "predictions" / id / f"{slug(name)}.csv"
            if path.parent.parent.is_dir():  # a report may come without its predictions
                scores[name] = read_predictions(path)
        pairs = [(level, test) for level in UNITS for test in tables.unique(found, "test")]
        for level, test in pairs:
            aucs = found[(found["level"] == level) & (found["test"] == test)]
            aucs = aucs[aucs["metric"] == "auc"].to_dict("records")
            if not aucs:
                continue
            blocks += self.write([tables.run_table(self.names, run, rows, level, test)])
            drawn = []
            for row in (row for row in aucs if row["system"] in scores):
                part = of_test(scores[row["system"]], test, level)
                self.verify(f"{run['title']}, {row['system']}, {UNITS[level]} of {test}", row, part)
                if len(part) and row["kind"] in (ENSEMBLE, BASELINE):
                    drawn.append((row, part))
            drawn.sort(key=lambda each: self.places[each[0]["system"]])
            if drawn:
                blocks.append(list(self.curves(id, run, rows, drawn)))
        return Section(run["title"], blocks, 3)

    def verify(self, where: str, row: Mapping, part: pd.DataFrame) -> None:
        """Note where metrics.csv and the predictions do not belong together."""
        y = part["label"].to_numpy()
        value = auc(y, part["p_fake"].to_numpy()) if len(y) else float("nan")
        if (len(y), y.sum()) != (row["n"], row["n_fake"]):
            self.doubts.append(
                f"{where}: {row['n']:.0f} in metrics.csv, {len(y)} in the predictions, or other labels"
            )
        elif abs(value - row["value"]) > TOLERANCE:
            self.doubts.append(
                f"{where}: AUC {number(row['value'])} in metrics.csv, {number(value)} from the predictions"
            )

    def curves(
        self,
        id: str,
        run: Mapping,
        rows: pd.DataFrame,
        found: Sequence[tuple[Mapping, pd.DataFrame]],
    ) -> Iterator[Picture]:
        """ROC of MASC and the baselines, scores of MASC and of the best baseline, reliability of MASC."""
        first = found[0][0]
        level, test = first["level"], first["test"]
        aucs = pd.DataFrame([row for row, _ in found])
        about = f"{run['title']}, {tables.counted(aucs, level)} of {test}"
        name = (id, test, level)
        lines = [
            (self.places[row["system"]], f"{row['system']}  {inline(row)}", part)
            for row, part in found
            if 0 < part["label"].sum() < len(part)
        ]
        if lines:
            title = f"ROC: {about}"
            yield self.picture(title, plots.roc(title, lines), *name, "roc")
        best = tables.best_baseline(aucs)
        thresholds = rows[rows["metric"] == "threshold"].set_index("system")["value"]
        panels = [
            (row["system"], part, thresholds[row["system"]])
            for row, part in found
            if row["kind"] == ENSEMBLE or (best and row["system"] == best["system"])
        ]
        if panels:
            title = f"Scores: {about}"
            yield self.picture(title, plots.histograms(title, panels), *name, "scores")
        for row, part in found:
            if row["kind"] == ENSEMBLE:
                title = f"Reliability of {row['system']}: {about}"
                drawn = plots.reliability(title, part)
                yield self.picture(title, drawn, *name, "reliability", row["system"])

    def robustness(self) -> Section:
        rows = self.table[self.table["condition"] != ""]
        low = plots.lowest(rows)
        pictures = []
        for test, family, part, headings in tables.degraded(self.table):
            title = f"Robustness: {family}, {tables.frames_of(part)} frames of {test}"
            drawn = plots.robustness(title, part, headings, self.places, low)
            pictures.append(self.picture(title, drawn, "robustness", test, family))
        made = self.write(tables.robustness(self.names, self.table))
        return Section("Robustness", [f"{tables.LOST}.", pictures, *made] if made else [])

    def few_shot(self) -> Section:
        pictures = []
        for test, part in tables.few_shot_rows(self.table).groupby("test", sort=False):
            title = f"Few-shot: {test}, tested on {tables.counted(part, 'frame')}"
            drawn = plots.few_shot(title, part, self.places)
            pictures.append(self.picture(title, drawn, "few-shot", test))
        made = self.write(tables.few_shot(self.names, self.table))
        return Section("Few-shot: few training faces", [pictures, *made] if made else [])

    def bars(
        self, title: str, rows: pd.DataFrame, label: str, made: list[Table], **look
    ) -> Section:
        """A picture per run and test. label: column with the names of the bars."""
        pictures = []
        for (run, test), part in rows.groupby(["run", "test"], sort=False):
            about = f"{title}: {tables.measured(self.report, self.table, run, test)}"
            drawn = plots.bars(about, part, label, **look)
            pictures.append(self.picture(about, drawn, title, run, test))
        return Section(title, [pictures, *self.write(made)] if made else [])

    def inconsistency(self) -> Section:
        pictures = []
        rows = self.table[self.table["metric"].isin(plots.DISTANCES)]
        for (test, output, metric), part in rows.groupby(
            ["test", "attribute", "metric"], sort=False
        ):
            n = part.groupby("system")["n"].first()
            count = " and ".join(f"{n.get(word, 0):.0f} {word}" for word in ("real", "fake"))
            title = f"Inconsistency: {output}, {test}, {count} frames; {plots.DISTANCES[metric]}"
            drawn = plots.heat_maps(title, part)
            pictures.append(self.picture(title, drawn, "inconsistency", test, output, wide=True))
        return Section("Inconsistency of regions", [pictures] if pictures else [])

    def how(self) -> Section:
        report = self.report
        known = {"code": report["git"], "version": report["versions"], "setting": report["config"]}
        cells = pd.DataFrame(list(flat(known).items()), columns=["what", "value"])
        table = Table(self.names("made"), "Code, versions and settings", cells, texts=2)
        return Section("How it was made", self.write([table]))

    def sections(self) -> list[Section]:
        """Everything, in reading order. Runs are read first: doubts about the files stand at the top."""
        report, table, names = self.report, self.table, self.names
        runs: list[Section] = []
        for protocol, title in TITLES.items():
            found = {id: x for id, x in report["runs"].items() if x["protocol"] == protocol}
            if not found:
                continue
            across = protocol == "cross-dataset"
            made = [tables.cross_dataset(names, table, level) for level in UNITS if across]
            runs.append(Section(title, self.write([each for part in made for each in part])))
            runs += [self.run(id, run) for id, run in found.items()]
        glance: list = self.write(
            [x for level in UNITS for x in tables.overview(names, table, level)]
        )
        doubts = [
            f"metrics.csv and its predictions do not belong together: {x}" for x in self.doubts
        ]
        remarks = (*doubts, *report["remarks"], *derived_remarks(report, table))
        glance += [remarks] if remarks else []
        importance = table[table["metric"] == "permutation_importance"]
        less = tables.ablation_rows(table)
        auc_bars = {"axis": "AUC on frames, 95% interval", "start": 0.5}
        loss_bars = {"axis": "loss of AUC on frames, 95% interval", "start": 0.0}
        made = [
            Section("At a glance", glance),
            Section("How to read this", [READING]),
            Section("Datasets", self.write([tables.datasets_table(names, report["datasets"])])),
            *runs,
            self.few_shot(),
            self.robustness(),
            Section("Subgroups", self.write(tables.subgroups(names, table, report))),
            Section("Stratified AUC", self.write(tables.stratified(names, table, report))),
            self.bars(
                "Ablations", less, "system", tables.ablation(names, table, report), **auc_bars
            ),
            self.bars(
                "Permutation importance",
                importance,
                "attribute",
                tables.importance(names, table, report),
                **loss_bars,
            ),
            self.inconsistency(),
            self.how(),
        ]
        headings = {id(a) for a, b in pairwise(made) if b.level > a.level}
        return [section for section in made if section.blocks or id(section) in headings]


def inline(row: Mapping) -> str:
    """A figure within a sentence."""
    value, _, interval = page.figure(row["value"], row["low"], row["high"]).partition("\n")
    return f"{value} ({interval})" if interval else value


def flat(data: object, where: str = "") -> dict[str, str]:
    """dotted.key -> value as text. Lists of plain values are values."""
    if isinstance(data, list) and any(isinstance(value, dict) for value in data):
        data = dict(enumerate(data))
    if isinstance(data, dict) and data:
        parts = [
            flat(value, f"{where}.{key}" if where else str(key)) for key, value in data.items()
        ]
        return {key: value for part in parts for key, value in part.items()}
    return {where: data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)}


def about(report: Mapping) -> str:
    """When, from which code and in how long a report was made."""
    git = report["git"]
    changes = " with changes" if git["dirty"] else ""
    code = f"commit {git['commit']}{changes}" if git["commit"] else "code of no known commit"
    return f"Made on {report['created']} in {report['minutes']:g} minutes, by {code}."


def write_report(folder: Path) -> Path:
    """Tables, plots, report.md and index.html of a report; what an earlier writing left in tables/ and plots/ is replaced.

    Returns:
        The folder.

    Raises:
        FileNotFoundError, ValueError: where something is missing or damaged, with the name of the file.
    """
    folder = Path(folder)
    report, table = read_report(folder)
    writer = _Writer(folder, report, table)
    sections = writer.sections()
    title, lead = f"MASC: {report['name']}", [about(report)]
    page.write(folder / "report.md", page.markdown(title, lead, sections))
    page.write(folder / "index.html", page.html(title, lead, sections, folder))
    writer.tidy()
    return folder
