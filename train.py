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

from data import splits
from data.dump import newest_dump, read_dump
from data.feature_dataset import FeatureDataset, join_dumps
from data.people import largest_share
from data.splits import train_and_val
from evaluation.metrics import table
from features.regions import REGIONS
from models.checkpoint import CHECKPOINTS
from models.classifiers import KINDS
from training.detector import Settings, figures, fit


@dataclass(frozen=True)
class Config(Settings):
    """What to train on and where to keep it.

    features: dumps (none: the newest). identity_disjoint: see data/splits.py. out: the checkpoint's folder (None:
    checkpoints/<name>).
    """

    features: tuple[Path, ...] = ()
    identity_disjoint: bool = False
    name: str | None = None
    out: Path | None = None


def main(config: Config) -> Path:
    """Train and validate one detector. Returns: the checkpoint's folder.

    Raises: FileNotFoundError, ValueError where the dumps cannot be used so (the message says what to do).
    """
    if not 0 < config.fpr < 1 or config.seed < 0 or config.forgery_weight < 0:
        raise ValueError(
            f"--fpr lies between 0 and 1 (given: {config.fpr}), --seed and --forgery-weight are at "
            f"least 0 (given: {config.seed}, {config.forgery_weight})"
        )
    paths = config.features or (newest_dump(),)
    dumps = [read_dump(path) for path in {Path(path).resolve(): path for path in paths}.values()]
    name = config.name or "-".join([*sorted({dump.meta["dataset"] for dump in dumps}), config.kind])
    out = Path(config.out or CHECKPOINTS / name)
    faces, notes = join_dumps(dumps), []
    people = "people may recur across splits"
    if config.identity_disjoint:
        before = len(set(faces.rows["group"]))
        faces = splits.identity_disjoint(faces)
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
            notes.append(
                f"{share:.0%} of all faces could not be told apart and count as one person, who trains"
            )
    train, val = train_and_val(faces, notes, config.one_class)
    print(
        f"features    {', '.join(str(dump.path) for dump in dumps)}{'' if config.features else ' (the newest dump)'}"
    )
    for split, part in (("train", train), ("val", val)):
        print(f"{split:<12}{part.counts()}")
    print(
        f"test        {int((faces.rows['split'] == 'test').sum())} faces, not looked at; {people}"
    )
    beside = (
        f", evidence {config.forgery_weight:g}"
        if config.forgery_weight and not config.one_class
        else ""
    )
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
        "weights": {
            name: sha256 for name, sha256 in dumps[0].meta["weights"].items() if name in experts
        },
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
    print(
        f"chosen      {report['chosen']} on the {report['held_out']} ({report['held_out_faces']} faces)"
    )
    print(f"threshold   p_fake {checkpoint.info['threshold']['p_fake']:.3f}\n\n{table(rows)}\n")
    for note in notes:
        print("warning:", note)
    checkpoint.save(out)
    settings = {
        name: value for name, value in asdict(config).items() if name not in ("features", "out")
    }
    about = {
        name: value
        for name, value in checkpoint.info.items()
        if name not in ("features", "outputs")
    }
    metrics = {
        "config": settings,
        "figures": rows,
        "choice": report,
        "warnings": notes,
        "checkpoint": about,
    }
    (out / "metrics.json").write_text(
        json.dumps(metrics, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
    if config.identity_disjoint:
        write_splits(out, faces)
    print(f"written: {out}")
    return out


def write_splits(out: Path, faces: FeatureDataset) -> None:
    """splits.csv: which group and split every face was put into, so that others can hold to it."""
    names = ("dataset", "path", "face", "label", "group", "split")
    with (out / "splits.csv").open(
        "w", newline="", encoding="utf-8", errors="surrogateescape"
    ) as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(zip(*(faces.rows[name] for name in names), strict=True))


def cli() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Config()
    parser.add_argument(
        "--features",
        nargs="+",
        type=Path,
        default=(),
        metavar="DUMP",
        help="dumps (default: the newest)",
    )
    parser.add_argument(
        "--head", choices=[kind for kind in KINDS if kind != "oneclass"], default=default.head
    )
    parser.add_argument(
        "--one-class", action="store_true", help="learn from real faces alone; fakes are not needed"
    )
    parser.add_argument(
        "--drop",
        nargs="+",
        default=(),
        metavar="GROUP",
        help="leave out columns: clip, raw, lite.age, kl, ...",
    )
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="GROUP", help="use these columns alone"
    )
    parser.add_argument(
        "--identity-disjoint", action="store_true", help="keep everybody on one side of the splits"
    )
    parser.add_argument(
        "--fpr", type=float, default=default.fpr, help="of the threshold, on real validation faces"
    )
    parser.add_argument(
        "--forgery-weight",
        type=float,
        default=default.forgery_weight,
        help="weight of the pretrained forgery logit beside the trained head; 0: the head alone (default %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument(
        "--name", help="folder below checkpoints/ (default: made of dataset and head)"
    )
    parser.add_argument(
        "--out", type=Path, help="the checkpoint's folder itself, instead of --name"
    )
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
