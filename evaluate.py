"""How good is a detector, beside what it must beat, on faces it was not trained on? The tables and plots of a paper.

The newest checkpoint and the newest dump; a report in outputs/reports/<name>:
    python evaluate.py
Two datasets, each trained on and tested on the other too; networks that look at pixels; every kind of degradation:
    python evaluate.py --features outputs/features/dfdc/lite outputs/features/openforensics/lite --name both \\
        --networks all --robustness all
    python evaluate.py --features DUMP --protocols given people --no-ablations --no-few-shot     # less of it
A detector as it is beside the refits, its figures into its card:
    python evaluate.py --checkpoint checkpoints/default --features DUMP... --card checkpoints/default/README.md
What lies in a dataset folder, and what is missing; two reports side by side; pictures and pages of a report again:
    python evaluate.py inventory DATASET
    python evaluate.py compare outputs/reports/before outputs/reports/after
    python evaluate.py redraw outputs/reports/both

Protocols: `given` (each dataset by its given splits: in-dataset, cross-dataset, reals of one against fakes of another),
`together` (all train together), `people` (nobody on both sides of a split, as far as the identity embedding can tell),
`methods` (each way of making fakes left out of training; where the dumps know it).
Systems: MASC and ablations of it; its first 16 columns; each embedding of the whole face with logistic regression; file
size, colour and sharpness alone; networks from scratch or from published weights.
Everything is fitted on train, chosen and calibrated on val, scored on test; predictions are written first and measured
after; frames and videos are never in one column. Stop it whenever you like: the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from data.degrade import FAMILIES
from data.dump import Dump, newest_dump, read_dump
from data.feature_dataset import FeatureDataset, join_dumps
from data.files import write_json
from data.inventory import survey, text_of
from evaluation import plan as planning
from evaluation import results, sanity
from evaluation.card import for_card
from evaluation.compare import compare
from evaluation.inspect import inconsistency
from evaluation.plan import PROTOCOLS, Config
from evaluation.predictions import face_keys
from evaluation.protocols import of_dataset, unused
from evaluation.report import write_report
from evaluation.run import Progress, work
from evaluation.subgroups import attributes
from evaluation.systems import MASC, METADATA
from models.checkpoint import Checkpoint, newest_checkpoint
from models.classifiers import KINDS
from models.model_card import check_marks, fill
from models.tensors import sha256_of
from training.detector import Settings as Training

REPORTS = Path("outputs/reports")
NETWORKS = Path("outputs/networks")  # fitted baselines, by what they were fitted on


def training_of(checkpoint: Checkpoint) -> Training:
    """What the checkpoint was trained with, to fit the same again on other splits."""
    info = checkpoint.info
    one_class = info["head"] == "oneclass"
    return Training(
        head="logreg" if one_class else info["head"],
        one_class=one_class,
        drop=tuple(info["groups_dropped"]),
        only=tuple(info["groups_only"]),
        fpr=info["threshold"]["fpr"],
        forgery_weight=info["forgery_weight"],
        seed=info["seed"],
    )


def predicted_groups(faces: FeatureDataset, outputs: dict) -> dict[tuple, dict[str, str]]:
    """(dataset, path, face) -> attribute -> the group that the experts see."""
    found = attributes(faces, outputs)
    keys = face_keys(faces.rows)
    return {
        key: {name: str(values[row]) for name, values in found.items()}
        for row, key in enumerate(keys)
    }


def about(dump: Dump) -> dict:
    """One entry of results.json's `datasets`."""
    faces = join_dumps([dump])
    splits = {split: faces.split(split).counts() for split in ("train", "val", "test")}
    lost = {name: dump.meta["counts"].get(name, 0) for name in ("no_face", "unreadable")}
    return {"dump": str(dump.path), "splits": splits, **lost}


def remarks_of(faces: FeatureDataset, runs: list[dict]) -> list[str]:
    """What a reviewer would ask for."""
    remarks = unused(faces) + sanity.duplicates(faces)
    for name in sorted(set(faces.rows["dataset"].tolist())):
        remarks += sanity.leaks(of_dataset(faces, name).split("train"), name)
    remarks += results.chance_remarks(runs)
    for run in runs:
        aucs: dict[str, dict[str, float]] = {}
        for system in run["systems"]:
            for test in (test for test in system["tests"] if test["level"] == "frame"):
                aucs.setdefault(test["test"], {})[system["name"]] = test["figures"]["auc"]["value"]
        for test, values in aucs.items():
            remarks += sanity.beaten(values, MASC, METADATA, f"{run['title']}, test {test}")
    return remarks


def main(
    config: Config, out: Path | None = None, overwrite: bool = False, card: Path | None = None
) -> Path:
    """Fit, predict, measure, report; go on where an earlier start stopped. out: None is outputs/reports/<datasets>. Returns:
    the report's folder.

    Raises: FileNotFoundError, ValueError where checkpoint, dumps and options do not fit together.
    """
    start = time.perf_counter()
    if card:
        check_marks(card)
    dumps = [
        read_dump(path) for path in {path.resolve(): path for path in config.features}.values()
    ]
    checkpoint = Checkpoint.load(config.checkpoint) if config.checkpoint else None
    print(f"features    {', '.join(str(dump.path) for dump in dumps)}")
    if checkpoint is not None:
        checkpoint.check_outputs(dumps[0].meta, str(dumps[0].path))
        config = replace(config, training=training_of(checkpoint))
        print(f"checkpoint  {config.checkpoint}")
    planning.check_datasets(config, dumps)
    faces, outputs = join_dumps(dumps), dumps[0].meta["outputs"]
    out = out or REPORTS / "-".join(sorted({dump.meta["dataset"] for dump in dumps}))
    plan = planning.planned(config, faces, dumps, checkpoint, NETWORKS)
    settings = jsonable({**asdict(config), "dumps": [results.identity(dump) for dump in dumps]})
    settings["checkpoint_sha256"] = (
        sha256_of(config.checkpoint / "checkpoint.json") if checkpoint else None
    )
    progress = Progress.begin(out, settings, overwrite)
    print(
        f"report      {out}: {sum(len(systems) for _, systems in plan)} fits in {len(plan)} experiments",
        flush=True,
    )
    before, now = progress.minutes, results.provenance()
    if work(progress, plan, planning.also(config, dumps), now["git"]["commit"]):
        progress.minutes = round(before + (time.perf_counter() - start) / 60, 2)
        progress.save()
    runs, growth = results.runs_of(progress, plan, config.replicates, config.training.seed)
    compared = [
        MASC,
        METADATA,
        *(system.name for system in plan[0][1] if system.name.endswith("whole face")),
    ]
    done = [
        progress.done[f"{experiment.name}/{system.name}"]
        for experiment, fitted in plan
        for system in fitted
    ]
    test = faces.split("test")
    parts = {dump.meta["dataset"]: of_dataset(test, dump.meta["dataset"]) for dump in dumps}
    data = {
        "format": results.FORMAT,
        "name": out.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": settings,
        **now,
        "minutes": progress.minutes,
        "datasets": {dump.meta["dataset"]: about(dump) for dump in dumps},
        "remarks": results.made_by(progress, plan, now)
        + remarks_of(faces, runs)
        + results.stratified_remarks(progress, plan),
        "runs": runs,
        "few_shot": growth,
        "robustness": [curve for found in done for curve in found.get("robustness", [])],
        "subgroups": results.subgroups_of(
            progress, plan, predicted_groups(test, outputs), compared
        ),
        "importance": [entry for found in done for entry in found.get("importance", [])],
        "ablation": results.ablation_of(progress, plan, runs),
        "inconsistency": [
            {"dataset": name, **e}
            for name, part in parts.items()
            for e in inconsistency(part, outputs)
        ],
    }
    write_json(out / "results.json", results.without_nan(data))
    write_report(out)
    glance = (
        (out / "report.md").read_text(encoding="utf-8").split("\n## ")[:2]
    )  # all of it is on the page
    print("\n## ".join(glance))
    if card:
        fill(card, for_card(data))
    print(f"written: {out / 'index.html'}{f', {card}' if card else ''}")
    return out


def jsonable(data: object) -> object:
    """Paths as text, tuples as lists."""
    if isinstance(data, dict):
        return {str(key): jsonable(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [jsonable(value) for value in data]
    return str(data) if isinstance(data, Path) else data


def cli_run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument_group("what to read and write").add_argument
    add("--features", nargs="+", type=Path, metavar="DUMP", help="dumps (default: the newest)")
    add(
        "--checkpoint",
        type=Path,
        help="a folder that train.py wrote, measured as it is too (default: the newest)",
    )
    add(
        "--no-checkpoint",
        action="store_true",
        help="only what is fitted here, with the options of train.py below",
    )
    add("--name", help=f"of the report, a folder in {REPORTS} (default: the datasets)")
    add("--out", type=Path, help="the report's folder itself, instead of --name")
    add("--overwrite", action="store_true", help="begin anew, whatever report is there")
    add("--card", type=Path, help="a Markdown file whose figures are replaced")
    add = parser.add_argument_group("what to try").add_argument
    add(
        "--protocols",
        nargs="+",
        choices=PROTOCOLS,
        default=PROTOCOLS,
        help="default: all that the dumps allow",
    )
    add("--no-ablations", action="store_true", help="MASC and the baselines only")
    add("--no-few-shot", action="store_true", help="no training with 100, 300, 1000, 3000 faces")
    add(
        "--permutations",
        type=int,
        default=Config.permutations,
        metavar="N",
        help="of the labels, as a check (default %(default)s)",
    )
    add(
        "--networks",
        nargs="+",
        default=(),
        metavar="NAME",
        help="that look at pixels: mesoinception4, ... or all",
    )
    add(
        "--weights-dir",
        type=Path,
        metavar="DIR",
        help="published weights of networks; nothing is downloaded (or MASC_WEIGHTS)",
    )
    add(
        "--full-size", action="store_true", help="networks as on a GPU, though there is none (days)"
    )
    add(
        "--robustness",
        nargs="+",
        default=(),
        metavar="FAMILY",
        help=f"all, or some of {', '.join(FAMILIES)}",
    )
    add(
        "--limit",
        type=int,
        metavar="N",
        help="degraded test pictures per dataset, evenly spaced (default: all)",
    )
    add(
        "--data-root",
        nargs="+",
        default=(),
        metavar="DATASET=DIR",
        help="where pictures lie that have moved",
    )
    add(
        "--replicates",
        type=int,
        default=Config.replicates,
        metavar="N",
        help="of the bootstrap (default %(default)s)",
    )
    add("--device", default=Config.device, help="default here: %(default)s")
    add = parser.add_argument_group(
        "how MASC is trained, without a checkpoint (see train.py)"
    ).add_argument
    add("--head", choices=[kind for kind in KINDS if kind != "oneclass"], default=Training.head)
    add("--drop", nargs="+", default=(), metavar="GROUP")
    add("--only", nargs="+", default=(), metavar="GROUP")
    add("--fpr", type=float, default=Training.fpr)
    add("--seed", type=int, default=Training.seed)
    args = parser.parse_args(arguments)
    if args.checkpoint and args.no_checkpoint:
        parser.error("--checkpoint and --no-checkpoint exclude each other")
    if args.permutations < 0 or args.replicates < 2 or (args.limit is not None and args.limit < 1):
        parser.error("--permutations is at least 0, --replicates at least 2, --limit at least 1")
    if not 0 < args.fpr < 1 or args.seed < 0:
        parser.error("--fpr lies between 0 and 1, --seed is at least 0")
    if wrong := [pair for pair in args.data_root if not all(pair.partition("=")[::2])]:
        parser.error(f"--data-root takes DATASET=DIR, not {', '.join(wrong)}")
    roots = dict(pair.partition("=")[::2] for pair in args.data_root)
    config = Config(
        features=tuple(args.features or [newest_dump()]),
        training=Training(
            head=args.head,
            drop=tuple(args.drop),
            only=tuple(args.only),
            fpr=args.fpr,
            seed=args.seed,
        ),
        checkpoint=None if args.no_checkpoint else args.checkpoint or newest_checkpoint(),
        protocols=tuple(args.protocols),
        ablations=not args.no_ablations,
        few_shot=not args.no_few_shot,
        permutations=args.permutations,
        networks=planning.networks_of(args.networks),
        quick=Config.quick and not args.full_size,
        families=planning.families_of(args.robustness),
        limit=args.limit,
        roots={name: Path(folder) for name, folder in roots.items()},
        weights_dir=args.weights_dir,
        replicates=args.replicates,
        device=args.device,
    )
    main(
        config, args.out or (REPORTS / args.name if args.name else None), args.overwrite, args.card
    )
    return 0


def cli_inventory(arguments: list[str]) -> int:
    description = "What lies in a dataset folder, and what is missing. Exit code 2 where it holds nothing that can be used."
    parser = argparse.ArgumentParser(prog="evaluate.py inventory", description=description)
    parser.add_argument("root", type=Path)
    parser.add_argument(
        "--index",
        type=Path,
        metavar="FILE",
        help="an index.csv or DeepfakeBench JSON that lies elsewhere",
    )
    parser.add_argument(
        "--layout", metavar="NAME", help="where it cannot be told (docs/datasets.md)"
    )
    parser.add_argument(
        "--compression", metavar="LEVEL", help="of FaceForensics++: raw, c23 or c40"
    )
    args = parser.parse_args(arguments)
    found = survey(args.root, args.index, args.layout, args.compression)
    print(text_of(found))
    return 0 if found.counts else 2


def cli_compare(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="evaluate.py compare", description="Two reports side by side."
    )
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"default: {REPORTS}/compare-A-B")
    args = parser.parse_args(arguments)
    out = compare(
        args.a,
        args.b,
        args.out or REPORTS / f"compare-{args.a.resolve().name}-{args.b.resolve().name}",
    )
    print((out / "compare.md").read_text(encoding="utf-8") + f"\nwritten: {out / 'compare.html'}")
    return 0


def cli_redraw(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="evaluate.py redraw",
        description="Tables, plots and pages of a report again, from its results.json.",
    )
    parser.add_argument("report", type=Path)
    print(f"written: {write_report(parser.parse_args(arguments).report) / 'index.html'}")
    return 0


COMMANDS = {"inventory": cli_inventory, "compare": cli_compare, "redraw": cli_redraw}


def cli(arguments: list[str] | None = None) -> int:
    """Returns: the exit code: 0 done, 2 a mistake in the command or its files, 130 stopped by Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments and arguments[0] in COMMANDS:
            return COMMANDS[arguments[0]](arguments[1:])
        return cli_run(arguments)
    except KeyboardInterrupt:
        print(
            "\nstopped. What was finished is kept: run the same command again to go on.",
            file=sys.stderr,
        )
        return 130
    except (OSError, ValueError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(cli())
