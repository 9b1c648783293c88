"""Evaluation of a detector beside its baselines, on faces it was not trained on.

The newest checkpoint and the newest dump; a report in outputs/reports/<name>:
    python evaluate.py

Two datasets, each trained on and tested on the other too; networks on pixels; every degradation:
    python evaluate.py --features outputs/features/a/lite outputs/features/b/lite --name both
        --networks all --robustness all

Less of it, or a detector for every subset of the families of experts:
    python evaluate.py --protocols given identity-disjoint --ablate none --no-few-shot
    python evaluate.py --no-checkpoint --ablate subsets --no-few-shot --permutations 0

A detector as it is beside the refits, its figures into its card:
    python evaluate.py --checkpoint checkpoints/default --card checkpoints/default/README.md

What is in a dataset folder, and what is missing:
    python evaluate.py inventory DATASET

Two reports side by side; tables, plots and pages of a report again:
    python evaluate.py compare outputs/reports/before outputs/reports/after
    python evaluate.py redraw outputs/reports/both

Protocols: `given` (in-dataset, cross-dataset, Cross-AUC), `together` (all datasets train together),
`identity-disjoint` (no person in two splits), `manipulations` (each left out of training),
`left-out` (each source of some methods, each dataset: by kind of fake), `reference` (against genuine
photographs of the person claimed, where the dataset knows its people: docs/reference.md).
Baselines: the first 16 columns, each embedding of the whole face, file metadata, networks.
Everything is fitted on train, chosen and calibrated on val, scored on test. Every figure is a row of
metrics.csv. Stop it whenever you like: the same command goes on.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path

from tyro.conf import Positional

from command_line import BAD_INPUT, run
from data.dump import newest_dump, read_dump
from data.feature_dataset import join_dumps
from data.files import write_json
from data.inventory import survey, text_of
from evaluation import kinds, measure, metrics_table, plan, reference, systems
from evaluation.card import for_card
from evaluation.compare import compare
from evaluation.plan import Config
from evaluation.report import write_report
from evaluation.run import Progress, work
from inference.bundled import for_dump
from models.checkpoint import Checkpoint
from models.model_card import check_marks, fill
from models.record import Record
from models.tensors import sha256_of
from training.detector import Settings, weights_of
from training.photographs import with_photographs

log = logging.getLogger("masc")
REPORTS = Path("outputs/reports")
NETWORKS = Path("outputs/networks")  # fitted baselines, by what they were fitted on


@dataclass(frozen=True)
class InventoryConfig:
    root: Positional[Path]
    """The dataset folder."""
    index: Path | None = None
    """An index.csv or DeepfakeBench JSON that lies elsewhere."""
    layout: str | None = None
    """Where it cannot be recognised (docs/datasets.md)."""
    compression: str | None = None
    """Compression level of FaceForensics++: raw, c23 or c40."""


@dataclass(frozen=True)
class CompareConfig:
    a: Positional[Path]
    """A report."""
    b: Positional[Path]
    """Another one."""
    out: Path | None = None
    """Default: outputs/reports/compare-A-B."""


@dataclass(frozen=True)
class RedrawConfig:
    report: Positional[Path]
    """The folder of a report."""


def settings_of(checkpoint: Checkpoint) -> dict:
    """The `Settings` of the checkpoint, to fit the same again on other splits."""
    info = checkpoint.info
    one_class = info["head"] == "oneclass"
    return {
        "head": "logreg" if one_class else info["head"],
        "one_class": one_class,
        "drop": tuple(info["groups_dropped"]),
        "only": tuple(info["groups_only"]),
        "fpr": info["threshold"]["fpr"],
        **weights_of(info),
        "seed": info["seed"],
        "photographs": info.get("photographs", False),
    }


def jsonable(data: object) -> object:
    return json.loads(json.dumps(data, default=str))


def evaluate(config: Config) -> Path:
    """Fit, predict, measure, report; go on where an earlier start stopped. Returns: the folder."""
    start = time.perf_counter()
    config.check()
    if config.card:
        check_marks(config.card)
    paths = config.features or (newest_dump(),)
    dumps = [read_dump(path) for path in {Path(path).resolve(): path for path in paths}.values()]
    checkpoint = sha256 = None
    log.info("features    %s", ", ".join(str(dump.path) for dump in dumps))
    path = None if config.no_checkpoint else config.checkpoint or for_dump(dumps[0])
    if path:
        checkpoint, sha256 = Checkpoint.load(path), sha256_of(path / "checkpoint.json")
        checkpoint.check_outputs(dumps[0].meta, str(dumps[0].path))
        config = replace(config, checkpoint=path, **settings_of(checkpoint))
        log.info("checkpoint  %s", path)
    faces, outputs, told = join_dumps(dumps), dumps[0].meta["outputs"], []
    if config.photographs:
        faces = with_photographs(faces, outputs, told)
    names = sorted({dump.meta["dataset"] for dump in dumps})
    out = config.out or REPORTS / (config.name or "-".join(names))
    jobs = plan.planned(config, faces, dumps, checkpoint, NETWORKS)
    # What all fits of a report have in common; other options may change between two starts.
    options = [field.name for field in fields(Settings)]
    options += ["robustness", "limit", "quick", "weights_dir"]
    fixed = {
        "format": metrics_table.FORMAT,
        **{name: jsonable(getattr(config, name)) for name in options},
        "checkpoint_sha256": sha256,
        "dumps": [measure.identity(dump) for dump in dumps],
    }
    progress = Progress.begin(out, fixed, config.overwrite)
    fits = sum(len(fitted) for _, fitted in jobs)
    log.info("report      %s: %d fits in %d experiments", out, fits, len(jobs))
    now = measure.provenance()
    if work(progress, jobs, plan.measure(config, dumps), now["git"]["commit"]):
        progress.minutes = round(progress.minutes + (time.perf_counter() - start) / 60, 2)
        progress.save()
    test = faces.split("test")
    rows = measure.all_figures(progress, jobs, test, outputs, config.replicates, config.seed)
    left_out = kinds.figures(progress, jobs, config.replicates)
    with_people = reference.rows_of(config, faces, dumps, checkpoint)
    table = metrics_table.table_of([*rows, *left_out, *with_people])
    remarks = [*measure.remarks_of(faces, progress, jobs, now), *told]
    if config.ablate == "subsets":
        used = systems.usable_outputs(faces, outputs, config.drop)
        if strays := [name for name in used if not systems.families_of([name])]:
            remarks.append(f"in no family, so in no subset: {', '.join(strays)}")
    report = {
        "format": metrics_table.FORMAT,
        "name": out.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": {**jsonable(asdict(replace(config, out=None, overwrite=False))), **fixed},
        **now,
        "minutes": progress.minutes,
        "datasets": {dump.meta["dataset"]: measure.dataset_entry(dump) for dump in dumps},
        "remarks": remarks,
        "runs": {run.id: e.about(run) for e, _ in jobs for run in e.runs}
        | reference.runs_of(config, faces),
    }
    metrics_table.write_metrics(out / "metrics.csv", table)
    write_json(out / "report.json", report)
    write_report(out)
    glance = (out / "report.md").read_text(encoding="utf-8").split("\n## ")[:2]
    print("\n## ".join(glance))
    if config.card:
        record = [Record.of(checkpoint.info).markdown()] if checkpoint else []
        fill(config.card, "\n\n".join([*record, for_card(report, table)]))
    log.info("written: %s%s", out / "index.html", f", {config.card}" if config.card else "")
    return out


def inventory(config: InventoryConfig) -> int:
    found = survey(config.root, config.index, config.layout, config.compression)
    print(text_of(found))
    return 0 if found.counts else BAD_INPUT


def compare_reports(config: CompareConfig) -> Path:
    names = "-".join(path.resolve().name for path in (config.a, config.b))
    out = compare(config.a, config.b, config.out or REPORTS / f"compare-{names}")
    print((out / "compare.md").read_text(encoding="utf-8"))
    log.info("written: %s", out / "compare.html")
    return out


def redraw(config: RedrawConfig) -> Path:
    log.info("written: %s", write_report(config.report) / "index.html")
    return config.report


COMMANDS = {
    "inventory": (inventory, InventoryConfig, "What is in a dataset folder, and what is missing."),
    "compare": (compare_reports, CompareConfig, "Two reports side by side."),
    "redraw": (redraw, RedrawConfig, "Tables, plots and pages again, from metrics.csv."),
}


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in COMMANDS:
        name, *rest = arguments
        return run(*COMMANDS[name], rest, f"evaluate.py {name}")
    stopped = "What was finished is kept: run the same command again to go on."
    return run(evaluate, Config, __doc__, arguments, "evaluate.py", stopped)


if __name__ == "__main__":
    sys.exit(main())
