"""From results.json and predictions to everything that a reader sees: tables, plots, report.md and one index.html.

Nothing is measured here that is not in results.json; curves are drawn from the predictions beside it. So a report can be
written again at any time, and is the same bytes every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from evaluation import page, plots, tables
from evaluation.metrics import auc
from evaluation.page import Names, Picture, Section, Table, number, texts
from evaluation.predictions import Predictions
from evaluation.saved import UNITS, at_level, flat, read_results, read_scores
from evaluation.tables import auc_of, entry_of, tests_of, together

TOLERANCE = 1e-3  # of an AUC: predictions are stored with six digits, and what rounding makes equal counts half
TITLES = {
    "in-dataset": "In-dataset",
    "identity-disjoint": "People apart",
    "cross-dataset": "Across data sets",
    "leave-one-manipulation-out": "Manipulations never seen",
    "cross-auc": "Reals of one data set, fakes of another",
    "few-shot": "Few-shot runs",
    "sanity": "Permuted labels",
}
READING = (
    "AUC, AP, TPR@1%FPR and accuracy are better when higher; EER, FPR, ECE and Brier when lower. An AUC of 0.5 is chance.",
    "Accuracy and FPR are at the threshold that was set on validation faces; nothing is chosen on test faces.",
    "Frames are single pictures. The score of a video is the mean of its frames. The two are never in one table.",
    "Behind a figure stands its 95% bootstrap interval, drawing whole groups (a source video, a person): faces of one are alike.",
    "That of ECE may lie above its value: drawing adds noise to every bin.",
    "n/a: undefined for these faces, or not measured.",
)
DELTA_AUC, LEANS = "MASC with less", "What MASC leans on"
KINDS = ("masc", "baseline")  # in curves, in this order


class _Writer:
    """Writes tables and plots into a report's folder, and knows which there are."""

    def __init__(self, folder: Path, data: Mapping) -> None:
        self.folder, self.data, self.runs = folder, data, data["runs"]
        self.names, self.plots = Names(), Names()
        self.doubts: list[str] = []
        kinds = {system["name"]: system["kind"] for run in self.runs for system in run["systems"]}
        ordered = [name for kind in KINDS for name in kinds if kinds[name] == kind]
        others = [entry["system"] for part in ("robustness", "few_shot") for entry in data[part]]
        # A system looks the same in all pictures.
        self.places = {name: place for place, name in enumerate(dict.fromkeys([*ordered, *others]))}
        for name in ("tables", "plots"):
            (folder / name).mkdir(exist_ok=True)

    def write(self, made: Sequence[Table | None]) -> list[Table]:
        kept = [table for table in made if table is not None and table.rows]
        for table in kept:
            page.write(self.folder / "tables" / f"{table.name}.md", page.markdown_table(table))
            page.write(self.folder / "tables" / f"{table.name}.tex", page.latex_table(table))
        return kept

    def picture(self, title: str, drawn: plots.Drawn, *name: str, wide: bool = False) -> Picture:
        path = f"plots/{self.plots(*name)}.png"
        plots.save(drawn[0], self.folder / path)
        return Picture(path, title, f"{drawn[1]}.", wide)

    def tidy(self) -> None:
        """Remove what an earlier writing left in tables/ and plots/."""
        kept = {f"tables/{name}{ending}" for name in self.names.taken for ending in (".md", ".tex")}
        kept |= {f"plots/{name}.png" for name in self.plots.taken}
        for pattern in ("tables/*.md", "tables/*.tex", "plots/*.png"):
            for path in self.folder.glob(pattern):
                if path.relative_to(self.folder).as_posix() not in kept:
                    path.unlink()

    def run(self, run: Mapping) -> Section:
        blocks: list = [
            f"Trained on {tables.training(run['train'])}. Validated on {tables.training(run['val'])}."
        ]
        blocks += [tuple(run["remarks"])] if run["remarks"] else []
        blocks += self.write([tables.systems_table(self.names, run)])
        scores = {
            s["name"]: read_scores(self.folder / s["predictions"])
            for s in run["systems"]
            if s["predictions"]
        }
        for level, test in tests_of(run):
            blocks += self.write([tables.run_table(self.names, run, level, test)])
            found = []
            for system in run["systems"]:
                entry = entry_of(system, level, test)
                if entry and system["name"] in scores:
                    rows = at_level(scores[system["name"]], test, level)
                    self.verify(
                        f"{run['title']}, {system['name']}, {UNITS[level]} of {test}", entry, rows
                    )
                    found += (
                        [(system, entry, rows)]
                        if len(rows["label"]) and system["kind"] in KINDS
                        else []
                    )
            found.sort(key=lambda each: self.places[each[0]["name"]])
            blocks += [pictures] if (pictures := list(self.curves(run, level, test, found))) else []
        return Section(run["title"], blocks, 3)

    def verify(self, where: str, entry: Mapping, rows: Predictions) -> None:
        """Note it where results.json and the predictions do not belong together."""
        told, value = entry["figures"], auc_of(entry)
        y = rows["label"]
        real, fake = int((y == 0).sum()), int((y == 1).sum())
        if (real, fake) != (told["n_real"], told["n_fake"]):
            counts = f"{told['n_real']} real and {told['n_fake']} fake"
            self.doubts.append(
                f"{where}: {counts} in results.json, {real} and {fake} in the predictions"
            )
        elif value is not None and not abs(auc(y, rows["p_fake"]) - value) < TOLERANCE:
            found = number(auc(y, rows["p_fake"]))
            self.doubts.append(
                f"{where}: an AUC of {number(value)} in results.json, {found} from the predictions"
            )

    def curves(
        self,
        run: Mapping,
        level: str,
        test: str,
        found: Sequence[tuple[Mapping, Mapping, Predictions]],
    ) -> Iterator[Picture]:
        """ROC of MASC and the baselines, scores of MASC and of the best baseline, reliability of MASC."""
        count = tables.counts_of_all([entry["figures"] for _, entry, _ in found], level)
        about, name = f"{run['title']}, {count} of {test}", (run["id"], test, level)
        lines = [
            (
                self.places[system["name"]],
                system["name"],
                rows["label"],
                rows["p_fake"],
                entry["figures"]["auc"],
            )
            for system, entry, rows in found
            if 0 < rows["label"].sum() < len(rows["label"])
        ]
        if lines:
            title = f"ROC: {about}"
            yield self.picture(title, plots.roc(title, lines), *name, "roc")
        best = tables.strongest(run, level, test)
        panels = [
            (system["name"], rows["label"], rows["p_fake"], system["threshold"])
            for system, _, rows in found
            if system["kind"] == "masc" or (best and system is best[0])
        ]
        if panels:
            title = f"Scores: {about}"
            yield self.picture(title, plots.histograms(title, panels), *name, "scores")
        for system, entry, rows in found:
            if system["kind"] == "masc":
                title = f"Reliability of {system['name']}: {about}"
                drawn = plots.reliability(
                    title, rows["label"], rows["p_fake"], rows["group"], entry["figures"]["ece"]
                )
                yield self.picture(title, drawn, *name, "reliability", system["name"])

    def robustness(self, curves: Sequence[Mapping]) -> Section:
        blocks: list = [f"{tables.LOST}."] if curves else []
        for (dataset,), part in together(curves, "dataset"):
            low = plots.lowest(part)
            pictures = []
            for (family,), of_family in together(part, "family"):
                title = f"Robustness: {family}, {tables.sizes_of(of_family)} frames of {dataset}"
                drawn = plots.robustness(title, of_family, self.places, low)
                pictures.append(self.picture(title, drawn, "robustness", dataset, family))
            blocks.append(pictures)
        return Section("Robustness", [*blocks, *self.write(tables.robustness(self.names, curves))])

    def few_shot(self, entries: Sequence[Mapping]) -> Section:
        pictures = []
        for (dataset,), part in together(entries, "dataset"):
            tested = tables.counts_of_all([entry["figures"] for entry in part], "frame")
            title = f"Few training faces: {dataset}, tested on {tested}"
            pictures.append(
                self.picture(title, plots.few_shot(title, part, self.places), "few-shot", dataset)
            )
        return Section(
            "Few training faces", [pictures, *self.write(tables.few_shot(self.names, entries))]
        )

    def bars(
        self,
        what: str,
        entries: Sequence[Mapping],
        keys: tuple[str, str],
        made: list[Table],
        **look: object,
    ) -> Section:
        """keys: of the name and of the figure of a bar. look: see plots.bars."""
        pictures = []
        for (run, dataset), part in together(entries, "run", "dataset"):
            title = f"{what}: {tables.measured(self.runs, run, dataset)}"
            drawn = plots.bars(title, [tuple(entry[key] for key in keys) for entry in part], **look)
            pictures.append(self.picture(title, drawn, what, run, dataset or ""))
        return Section(what, [pictures, *self.write(made)])

    def inconsistency(self, entries: Sequence[Mapping]) -> Section:
        pictures = []
        for entry in entries:
            count = f"{entry['n_real']} real and {entry['n_fake']} fake frames"
            title = f"Regions that disagree: {entry['output']}, {entry['dataset']}, {count}; {entry['unit']}"
            drawn = plots.heat_maps(title, entry)
            pictures.append(
                self.picture(title, drawn, "regions", entry["dataset"], entry["output"], wide=True)
            )
        return Section("Regions that disagree", [pictures])

    def how(self) -> Section:
        """Versions and settings."""
        known = {
            "code": self.data["git"],
            "version": self.data["versions"],
            "setting": self.data["config"],
        }
        rows = [texts(name, value) for name, value in flat(known).items()]
        table = Table(
            self.names("made"), "Code, versions and settings", ["what", "value"], rows, texts=2
        )
        return Section("How it was made", self.write([table]))

    def sections(self) -> list[Section]:
        """Everything, in reading order. Runs are read first: what they tell about the files stands at the top."""
        data, names = self.data, self.names
        protocols: list[Section] = []
        for (protocol,), runs in together(self.runs, "protocol"):
            matrices = [
                tables.matrix(names, self.runs, level)
                for level in UNITS
                if protocol == "cross-dataset"
            ]
            protocols += [
                Section(TITLES.get(protocol, protocol), self.write(matrices)),
                *map(self.run, runs),
            ]
        glance: list = self.write([tables.overview(names, self.runs, level) for level in UNITS])
        doubts = [
            f"results.json and its predictions do not belong together: {doubt}"
            for doubt in self.doubts
        ]
        glance += [remarks] if (remarks := (*doubts, *data["remarks"])) else []
        made = [Section("At a glance", glance), Section("How to read this", [READING])]
        made += [
            Section("Data sets", self.write([tables.datasets_table(names, data["datasets"])])),
            *protocols,
        ]
        made += [self.few_shot(data["few_shot"]), self.robustness(data["robustness"])]
        made += [
            Section(
                "Groups of people",
                self.write(tables.subgroups(names, data["subgroups"], self.runs)),
            )
        ]
        less, leans = (data[name] for name in ("ablation", "importance"))
        look: dict = {"label": "AUC on frames, 95% interval", "start": 0.5}
        made += [
            self.bars(
                DELTA_AUC, less, ("name", "auc"), tables.ablation(names, less, self.runs), **look
            )
        ]
        look = {"label": "fall of AUC on frames, 95% interval", "start": 0, "sign": True}
        made += [
            self.bars(
                LEANS, leans, ("group", "fall"), tables.importance(names, leans, self.runs), **look
            )
        ]
        made += [self.inconsistency(data["inconsistency"]), self.how()]
        headings = {id(section) for section, after in pairwise(made) if after.level > section.level}
        return [section for section in made if any(section.blocks) or id(section) in headings]


def about(data: Mapping) -> str:
    """When, from which code and in how long a report was made."""
    git = data["git"]
    changes = " with changes" if git["dirty"] else ""
    code = f"commit {git['commit']}{changes}" if git["commit"] else "code of no known commit"
    return f"Made on {data['created']} in {data['minutes']:g} minutes, by {code}."


def write_report(folder: Path) -> Path:
    """Tables, plots, report.md and index.html of the results.json and the predictions in `folder`.

    What an earlier writing left in tables/ and plots/ is replaced. Returns: the folder.
    Raises: FileNotFoundError, ValueError where something is missing or damaged, with the name of the file.
    """
    folder = Path(folder)
    data = read_results(folder)
    writer = _Writer(folder, data)
    sections = writer.sections()
    title, lead = f"MASC: {data['name']}", [about(data)]
    page.write(folder / "report.md", page.markdown(title, lead, sections))
    page.write(folder / "index.html", page.html(title, lead, sections, folder))
    writer.tidy()
    return folder
