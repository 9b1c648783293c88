"""Dumps -> a detector: consistency features, a small classifier, calibration, a threshold. All on the CPU, in about a minute.

The newest dump below outputs/features: its train split, validated on its val split:
    python train.py
Two datasets together, into checkpoints/mine:
    python train.py --features outputs/features/dfdc/lite outputs/features/openforensics/lite --name mine
Other classifiers, ablations, real faces alone:
    python train.py --head mlp --only lite.identity
    python train.py --drop expected lite.race/kl
    python train.py --only fairface arcface
    python train.py --one-class
Figures that do not flatter: no person on both sides of a split, as far as the identity embedding can tell:
    python train.py --identity-disjoint

Fitted on `train`; hyper-parameters, calibration, threshold and the ranges of real faces come from `val`; `test` is never
looked at. Writes checkpoint.json, arrays.safetensors and metrics.json; with --identity-disjoint also splits.csv, the split that
was used.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from data.dump import newest_dump, read_dump
from data.gathered import Faces, gather, kept_apart, train_and_val
from features.disagreement import of_regions
from features.explain import PERCENTILES
from features.people import identity_groups, largest_share, lookalikes
from features.pipeline import FeaturePipeline
from features.regions import REGIONS
from features.vector import FeatureTable, directions, evidence_columns, groups_of
from models.checkpoint import CHECKPOINTS, Checkpoint
from models.classifiers import KINDS
from models.heads import Head, fit_head
from models.metrics import summary, table, threshold_at_fpr

# What a face may be like to be judged, of those that a detector is trained on: percentiles of every quality, on the poor side,
# and of how far they lie from the training faces.
EDGE, FARTHEST = 1, 99


@dataclass(frozen=True)
class Config:
    """features: dumps (none: the newest). drop, only: groups of columns (features/vector.py). fpr: share of real validation
    faces that the threshold lets be taken for fakes. evidence: how much what an expert says as evidence by itself counts beside
    what the labels teach (models/heads.py); chosen by leaving a dataset out (docs/research.md). out: the checkpoint's folder
    (None: checkpoints/<name>)."""

    features: tuple[Path, ...] = ()
    head: str = "logreg"
    one_class: bool = False
    drop: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    identity_disjoint: bool = False
    fpr: float = 0.05
    evidence: float = 0.5
    seed: int = 0
    name: str | None = None
    out: Path | None = None

    @property
    def kind(self) -> str:
        return "oneclass" if self.one_class else self.head


def by_people(faces: Faces) -> Faces:
    """Groups joined where real faces look like one person, and everybody kept on one side of the splits (`kept_apart`).

    Groups of train and val with a face that may be of a person in test, though not certainly, are in no split ("") either.
    Raises: ValueError where no output is an identity embedding.
    """
    names = [name for name in faces.arrays if name.endswith(".identity")]
    if not names:
        raise ValueError(f"--identity-disjoint needs an identity embedding; the dump has {', '.join(faces.arrays)}")
    whole = faces.arrays[names[0]][:, REGIONS.index("full")].astype(np.float32)
    real, given = faces.rows["label"] == 0, faces.rows["group"]
    groups = given.copy()
    # Each dataset by itself: what its faces share (a camera, compression) would join them all, beside another dataset.
    parts = [faces.rows["dataset"] == name for name in sorted(set(faces.rows["dataset"]))]
    for part in parts:
        groups[part] = identity_groups(whole[part], given[part], real[part])
    apart = kept_apart(faces, groups)
    testing = apart.rows["split"] == "test"
    doubtful = np.zeros(len(faces), dtype=bool)
    for part in parts:
        doubtful[part] = lookalikes(whole[part], real[part], ~testing[part], testing[part])
    left_out = np.isin(given.astype(str), given[doubtful].astype(str)) & ~testing
    apart.rows["split"] = np.where(left_out, "", apart.rows["split"])
    return apart


def score(checkpoint: Checkpoint, arrays: dict[str, np.ndarray]) -> tuple[FeatureTable, np.ndarray]:
    """Features and calibrated P(fake) of faces whose raw outputs are at hand.

    arrays: "expert.output" -> (N, R, D). Returns: the checkpoint's columns (N, F) and (N,) float64, NaN for faces without a
    single feature. Raises: ValueError where the outputs are not those the checkpoint was trained on.
    """
    features = FeaturePipeline.from_state(checkpoint.info, checkpoint.arrays).transform(arrays)
    p_fake = Head.from_state(checkpoint.info, checkpoint.arrays).p_fake(features.values)
    return features, np.where(np.isnan(features.values).all(1), np.nan, p_fake)


def fit(train: Faces, val: Faces, outputs: dict, config: Config, notes: list[str]) -> tuple[Checkpoint, dict]:
    """Features, head, threshold and reference ranges. Returns: a checkpoint (yet without its origins), the head's report."""
    real = train.rows["label"] == 0
    columns, pipeline = FeaturePipeline.fit(
        train.arrays, outputs, real, train.rows["group"], config.drop, config.only, config.seed
    )
    seen = ~np.isnan(columns.values).all(1)
    if not seen.all():
        notes.append(f"{int((~seen).sum())} training faces have not a single feature and are left out")
    missing = float(np.isnan(columns.values[seen]).mean())
    if missing:
        notes.append(f"{missing:.2%} of the training values are missing; the median of real faces stands in")
    kinds = ["expected" if "expected" in groups_of(name) else "raw" for name in columns.names]
    print(f"columns     {len(kinds)}: {kinds.count('raw')} raw, {kinds.count('expected')} expected", flush=True)
    values = pipeline.transform(val.arrays).values
    known = ~np.isnan(values).all(1)
    head = fit_head(
        config.kind,
        columns.values[seen],
        train.rows["label"][seen],
        train.rows["group"][seen],
        values[known],
        val.rows["label"][known],
        config.seed,
        directions(columns.names),
        config.evidence * evidence_columns(columns.names, pipeline.outputs),
    )
    of_reals = values[known & (val.rows["label"] == 0)]
    if not len(of_reals):
        raise ValueError("no real validation face has a single feature; there is nothing to set a threshold on")
    p_reals = head.p_fake(of_reals)
    info = {
        "outputs": pipeline.outputs,
        "features": pipeline.names,
        "head": head.kind,
        "evidence": config.evidence,
        "calibration": {"a": head.a, "b": head.b, "how": head.report["calibration"], "on": head.report["held_out"]},
        "threshold": {"p_fake": threshold_at_fpr(p_reals, config.fpr), "fpr": config.fpr},
        "reference": {"percentiles": list(PERCENTILES), "faces": len(of_reals)},
        "seen": limits(train.select(np.flatnonzero(seen)), head.distance(values[known])),
    }
    # A column may be missing on all real validation faces; then the median of the training faces is all there is to say.
    filled = np.where(np.isnan(of_reals).all(0), head.median, of_reals)
    reference = np.nanpercentile(filled, PERCENTILES, axis=0).astype(np.float32)
    apart = of_regions(pipeline.names, of_reals, reference)  # a region of which nothing is known disagrees with nothing
    apart = np.percentile(np.nan_to_num(apart), PERCENTILES, axis=0).astype(np.float32)
    arrays = {"reference": reference, "real_scores": np.sort(p_reals), "disagreement": apart}
    return Checkpoint(info, {**arrays, **pipeline.state(), **head.state()}), head.report


def limits(train: Faces, distances: np.ndarray) -> dict[str, float]:
    """Beyond what a face is unlike those that a detector was trained on: of every quality, and of `Head.distance`.

    distances: of validation faces, real and fake, since those of training faces are what the head was fitted on.
    """
    low = {name: np.percentile(train.rows[name], EDGE) for name in ("face_px", "sharpness", "score")}
    found = {
        **low,
        "yaw": np.percentile(np.abs(train.rows["yaw"]), 100 - EDGE),
        "distance": np.percentile(distances, FARTHEST),
    }
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def figures(checkpoint: Checkpoint, faces: Faces, split: str, seed: int) -> dict[str, dict]:
    """Rows for `models.metrics.table`: each dataset, and all of them together where there are several."""
    p_fake = score(checkpoint, faces.arrays)[1]
    rows, parts = {}, {name: faces.rows["dataset"] == name for name in sorted(set(faces.rows["dataset"]))}
    if len(parts) > 1:
        parts["all"] = np.ones(len(faces), dtype=bool)
    for name, part in parts.items():
        part = part & ~np.isnan(p_fake)
        if part.any():
            threshold = checkpoint.info["threshold"]["p_fake"]
            rows[f"{name} {split}"] = summary(
                faces.rows["label"][part], p_fake[part], faces.rows["group"][part], threshold, seed=seed
            )
    return rows


def main(config: Config) -> Path:
    """Train and validate one detector. Returns: the checkpoint's folder.

    Raises: FileNotFoundError, ValueError where the dumps cannot be used so (the message says what to do).
    """
    if not 0 < config.fpr < 1 or config.seed < 0 or config.evidence < 0:
        raise ValueError(
            f"--fpr lies between 0 and 1 (given: {config.fpr}), --seed and --evidence are at least 0 (given: {config.seed}, "
            f"{config.evidence})"
        )
    paths = config.features or (newest_dump(),)
    dumps = [read_dump(path) for path in {Path(path).resolve(): path for path in paths}.values()]
    name = config.name or "-".join([*sorted({dump.meta["dataset"] for dump in dumps}), config.kind])
    out = Path(config.out or CHECKPOINTS / name)
    faces, notes = gather(dumps), []
    people = "people may recur across splits"
    if config.identity_disjoint:
        before = len(set(faces.rows["group"]))
        faces = by_people(faces)
        share, left_out = largest_share(faces.rows["group"]), int((faces.rows["split"] == "").sum())
        judge = next(name for name in faces.arrays if name.endswith(".identity"))
        if judge != "lite.identity":
            notes.append(
                f"people were told apart by {judge}, with thresholds that were measured for the bundled embedding"
            )
        people = (
            f"{before} groups joined into {len(set(faces.rows['group']))} people; {left_out} faces left out, who "
            "are or resemble somebody on a later side of train, val and test"
        )
        if share > 0.2:
            notes.append(f"{share:.0%} of all faces could not be told apart and count as one person, who trains")
    train, val = train_and_val(faces, notes, config.one_class)
    print(f"features    {', '.join(str(dump.path) for dump in dumps)}{'' if config.features else ' (the newest dump)'}")
    for split, part in (("train", train), ("val", val)):
        print(f"{split:<12}{part.counts()}")
    print(f"test        {int((faces.rows['split'] == 'test').sum())} faces, not looked at; {people}")
    beside = f", evidence {config.evidence:g}" if config.evidence and not config.one_class else ""
    print(
        f"head        {config.kind}{beside}, seed {config.seed}, threshold at {config.fpr:.0%} of real validation faces"
    )
    print(f"checkpoint  {out}", flush=True)
    checkpoint, report = fit(train, val, dumps[0].meta["outputs"], config, notes)
    experts = {name.partition(".")[0] for name in checkpoint.info["outputs"]}
    clip_model = {"clip_model": dumps[0].meta["clip_model"]} if "clip" in experts else {}
    checkpoint.info |= {
        "profile": dumps[0].meta["profile"],
        "regions": list(REGIONS),
        "weights": {name: sha256 for name, sha256 in dumps[0].meta["weights"].items() if name in experts},
        **clip_model,
        "precision": dumps[0].meta["config"].get("precision", "float32"),
        "groups_dropped": list(config.drop),
        "groups_only": list(config.only),
        "trained_on": [
            {
                "dataset": dataset,
                "counts": {
                    split: part.select(part.rows["dataset"] == dataset).counts()
                    for split, part in (("train", train), ("val", val))
                },
            }
            for dataset in sorted(set(faces.rows["dataset"]))
        ],
        "seed": config.seed,
        "identity_disjoint": config.identity_disjoint,
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in ("numpy", "scikit-learn", "torch", "xgboost")},
    }
    rows = figures(checkpoint, val, "val", config.seed)
    print(f"chosen      {report['chosen']} on the {report['held_out']} ({report['held_out_faces']} faces)")
    print(f"threshold   p_fake {checkpoint.info['threshold']['p_fake']:.3f}\n\n{table(rows)}\n")
    for note in notes:
        print("warning:", note)
    checkpoint.save(out)
    settings = {name: value for name, value in asdict(config).items() if name not in ("features", "out")}
    about = {name: value for name, value in checkpoint.info.items() if name not in ("features", "outputs")}
    metrics = {"config": settings, "figures": rows, "choice": report, "warnings": notes, "checkpoint": about}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if config.identity_disjoint:
        write_splits(out, faces)
    print(f"written: {out}")
    return out


def write_splits(out: Path, faces: Faces) -> None:
    """splits.csv: which group and split every face was put into, so that others can hold to it."""
    names = ("dataset", "path", "face", "label", "group", "split")
    with (out / "splits.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(zip(*(faces.rows[name] for name in names), strict=True))


def cli() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Config()
    parser.add_argument(
        "--features", nargs="+", type=Path, default=(), metavar="DUMP", help="dumps (default: the newest)"
    )
    parser.add_argument("--head", choices=[kind for kind in KINDS if kind != "oneclass"], default=default.head)
    parser.add_argument("--one-class", action="store_true", help="learn from real faces alone; fakes are not needed")
    parser.add_argument(
        "--drop", nargs="+", default=(), metavar="GROUP", help="leave out columns: clip, raw, lite.age, kl, ..."
    )
    parser.add_argument("--only", nargs="+", default=(), metavar="GROUP", help="use these columns alone")
    parser.add_argument("--identity-disjoint", action="store_true", help="keep everybody on one side of the splits")
    parser.add_argument("--fpr", type=float, default=default.fpr, help="of the threshold, on real validation faces")
    parser.add_argument(
        "--evidence",
        type=float,
        default=default.evidence,
        help="weight of the trace network's evidence beside what the labels teach; 0: only what they teach (default %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--name", help="folder below checkpoints/ (default: made of dataset and head)")
    parser.add_argument("--out", type=Path, help="the checkpoint's folder itself, instead of --name")
    args = vars(parser.parse_args())
    args |= {name: tuple(args[name]) for name in ("features", "drop", "only")}
    try:
        main(Config(**args))
    except (OSError, ValueError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(cli())
