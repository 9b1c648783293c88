"""How good is a detector, beside what it must beat, on faces it was not trained on?

The newest checkpoint on the test splits of the dumps it was trained on, or of others:
    python evaluate.py --features outputs/features/dfdc/lite outputs/features/openforensics/lite
Into a model card, between its marks, and as JSON:
    python evaluate.py --checkpoint checkpoints/default --features DUMP... --card checkpoints/default/README.md

Four tables, every figure on frames with its count and a 95% bootstrap interval by group:
  given splits       the checkpoint as it is, and what it must beat, fitted on the same training faces: the project's first 16
                     columns, and a classifier that sees only file size, picture size, mean colour and sharpness
  people apart       the same, fitted anew after joining the groups of real faces that look like one person (identity
                     embedding) and dividing them again: what the given splits flatter
  across datasets    fitted on one dataset, tested on the others (with two dumps or more)
  ablations          given splits, with raw columns only, expected columns only, and real faces only (no fake seen)
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.dump import newest_dump, read_dump
from data.gathered import Faces, gather, train_and_val
from features.baselines import plain_features, trivial_features
from features.people import largest_share
from models.cards import fill
from models.checkpoint import Checkpoint, newest_checkpoint
from models.heads import fit_head
from models.metrics import summary, table, threshold_at_fpr
from train import Config, by_people, fit, score

Rows = dict[str, dict]  # name -> models.metrics.summary


def settings(checkpoint: Checkpoint) -> Config:
    """What the checkpoint was trained with, to fit the same again on other splits."""
    info = checkpoint.info
    one_class = info["head"] == "oneclass"
    return Config(
        head="logreg" if one_class else info["head"],
        one_class=one_class,
        drop=tuple(info["groups_dropped"]),
        only=tuple(info["groups_only"]),
        fpr=info["threshold"]["fpr"],
        seed=info["seed"],
    )


def by_dataset(name: str, faces: Faces, p_fake: np.ndarray, threshold: float) -> Rows:
    """A row per dataset: figures of one system on `faces`; faces without a score (NaN) do not count."""
    rows = {}
    for dataset in sorted(set(faces.rows["dataset"])):
        part = (faces.rows["dataset"] == dataset) & ~np.isnan(p_fake)
        if part.any():
            labels, groups = faces.rows["label"][part], faces.rows["group"][part]
            rows[f"{name}, {dataset}"] = summary(labels, p_fake[part], groups, threshold)
    return rows


def masc(name: str, checkpoint: Checkpoint, test: Faces) -> Rows:
    return by_dataset(name, test, score(checkpoint, test.arrays)[1], checkpoint.info["threshold"]["p_fake"])


def baselines(train: Faces, val: Faces, test: Faces, config: Config) -> Rows:
    """The two systems to beat, fitted and validated on the same faces as the detector."""
    tables = {
        "first 16 columns": (config.head, lambda faces: plain_features(faces.arrays)),
        "trivial": ("xgboost", lambda faces: trivial_features(faces.rows)),
    }
    rows = {}
    for name, (kind, features) in tables.items():
        x, x_val = features(train).values, features(val).values
        head = fit_head(kind, x, train.rows["label"], train.rows["group"], x_val, val.rows["label"], config.seed)
        threshold = threshold_at_fpr(head.p_fake(x_val[val.rows["label"] == 0]), config.fpr)
        rows |= by_dataset(name, test, head.p_fake(features(test).values), threshold)
    return rows


def fitted(name: str, faces: Faces, tested: Faces, outputs: dict, config: Config) -> tuple[Rows, Rows]:
    """A detector and the baselines, fitted on the train split of `faces` and measured on `tested`."""
    train, val = train_and_val(faces, [])
    checkpoint, _ = fit(train, val, outputs, config, [])
    checkpoint.info["outputs"] = outputs
    return masc(name, checkpoint, tested), baselines(train, val, tested, config)


def evaluate(checkpoint: Checkpoint, faces: Faces, outputs: dict) -> tuple[dict[str, Rows], list[str]]:
    """All tables, and remarks that belong to them."""
    config, remarks = settings(checkpoint), []
    train, val = train_and_val(faces, remarks)
    test = faces.split("test")
    if not len(test):
        raise ValueError("none of these dumps has a test split")
    tables = {"given splits": masc("MASC", checkpoint, test) | baselines(train, val, test, config)}

    apart = by_people(faces)
    before, after = len(set(faces.rows["group"])), len(set(apart.rows["group"]))
    share = largest_share(apart.rows["group"])
    shared = people_on_both_sides(faces, apart)
    remarks.append(
        f"people apart: {before} groups joined into {after} ({share:.1%} of all faces in the largest, which trains), "
        f"{int((apart.rows['split'] == '').sum())} faces that resemble somebody in test left out; in the given splits, "
        f"{shared:.0%} of the real test faces belong to somebody who also has training faces, as far as the bundled identity "
        "embedding can tell"
    )
    ours, others = fitted("MASC", apart, apart.split("test"), outputs, config)
    tables["people apart"] = ours | others

    datasets = sorted(set(faces.rows["dataset"]))
    if len(datasets) > 1:
        tables["across datasets"] = {}
        for dataset in datasets:
            inside = faces.rows["dataset"] == dataset
            ours, others = fitted(
                f"MASC from {dataset}", faces.select(inside), faces.select(~inside).split("test"), outputs, config
            )
            tables["across datasets"] |= ours | {f"{name} from {dataset}": row for name, row in others.items()}

    tables["ablations"] = {}
    for name, changed in {
        "raw columns only": replace(config, only=("raw",)),
        "expected columns only": replace(config, only=("expected",)),
        "real faces only": replace(config, one_class=True),
    }.items():
        tables["ablations"] |= masc(name, fit(train, val, outputs, changed, [])[0], test)
    return tables, remarks


def people_on_both_sides(given: Faces, apart: Faces) -> float:
    """Share of real test faces whose joined group also has training faces in the given splits."""
    real, splits, people = given.rows["label"] == 0, given.rows["split"], apart.rows["group"]
    trained = set(people[splits == "train"])
    tested = people[real & (splits == "test")]
    return float(np.mean([person in trained for person in tested])) if len(tested) else float("nan")


def markdown(tables: dict[str, Rows], remarks: list[str]) -> str:
    parts = [f"### {name[0].upper()}{name[1:]}\n\n```\n{table(rows)}\n```" for name, rows in tables.items()]
    return "\n\n".join([*parts, *remarks])


def main(checkpoint_path: Path, features: tuple[Path, ...], out: Path, card: Path | None) -> Path:
    """Measure, print, write `out` (JSON) and fill `card`. Returns: `out`.

    Raises: FileNotFoundError, ValueError where checkpoint and dumps do not fit together.
    """
    checkpoint = Checkpoint.load(checkpoint_path)
    dumps = [read_dump(path) for path in features]
    print(f"checkpoint  {checkpoint_path}\nfeatures    {', '.join(str(dump.path) for dump in dumps)}", flush=True)
    faces = gather(dumps)
    checkpoint.check_answers(dumps[0].meta, str(dumps[0].path))
    tables, remarks = evaluate(checkpoint, faces, dumps[0].meta["outputs"])
    text = markdown(tables, remarks)
    print(text)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"tables": tables, "remarks": remarks}, indent=1) + "\n", encoding="utf-8")
    if card:
        fill(card, text)
    print(f"written: {out}{f', {card}' if card else ''}")
    return out


def cli() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="a folder that train.py wrote (default: the newest)")
    parser.add_argument("--features", nargs="+", type=Path, metavar="DUMP", help="dumps (default: the newest)")
    parser.add_argument("--out", type=Path, default=Path("outputs/evaluation.json"), help="default %(default)s")
    parser.add_argument("--card", type=Path, help="a Markdown file whose figures are replaced")
    args = parser.parse_args()
    try:
        features = tuple(args.features or [newest_dump()])
        main(args.checkpoint or newest_checkpoint(), features, args.out, args.card)
    except (FileNotFoundError, ValueError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(cli())
