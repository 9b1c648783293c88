"""Dumps -> a detector: features, classifier, calibration and threshold. On a CPU, in a minute.

    python train.py                           # the newest dump below outputs/features
    python train.py --features outputs/features/dfdc/lite outputs/features/openforensics/lite \\
        --name mine                           # two datasets together, into checkpoints/mine
    python train.py --head mlp --only lite.identity
    python train.py --drop expected lite.race/kl
    python train.py --only fairface arcface
    python train.py --drop appearance         # without what a region looks like by itself
    python train.py --one-class               # real faces only
    python train.py --photographs             # with other pictures of each person (docs/reference.md)
    python train.py --identity-disjoint       # as far as the embedding can tell people apart

The head is fitted on `train`; hyper-parameters, calibration, threshold and the percentiles of real
faces come from `val`; `test` is never read. Writes checkpoint.json, arrays-<SHA-256>.safetensors and
metrics.json; with --identity-disjoint also splits.csv, the split that was used. A folder that holds
a detector made in another way is replaced with --overwrite only.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from threadpoolctl import threadpool_limits

from command_line import run
from data import splits
from data.dump import Dump, newest_dump, read_dump
from data.feature_dataset import FeatureDataset, join_dumps
from data.files import write_csv, write_json
from data.people import largest_share
from evaluation.metrics import table
from features.regions import REGIONS
from models.checkpoint import BUNDLED, CHECKPOINTS, INFO, LITE, METRICS, SPLITS, Checkpoint
from models.record import Record
from training import left_out, remarks
from training.detector import WEIGHTS, Settings, figures, fit, weights_of, with_features
from training.photographs import with_photographs

LOG = logging.getLogger("masc")
UNSURE_SHARE = 0.2  # of all faces in one group, above which the identity groups are doubtful
PACKAGES = ("numpy", "scikit-learn", "torch", "xgboost")
SPLIT_COLUMNS = ("dataset", "path", "face", "label", "group", "split")


@dataclass(frozen=True)
class Config(Settings):
    features: tuple[Path, ...] = ()
    """Dumps (default: the newest)."""
    identity_disjoint: bool = False
    """Keep all faces of a person on one side of the splits (data/splits.py)."""
    name: str | None = None
    """Folder below checkpoints/ (default: from datasets and head)."""
    out: Path | None = None
    """The checkpoint's folder itself, instead of --name."""
    left_out: bool = True
    """Measure what it finds of kinds and datasets left out of training: one more fit for each (twelve
    for all kinds, at most). Without it, below the threshold every verdict is `cannot tell`."""
    overwrite: bool = False
    """Replace a detector that was made from other dumps or settings, or the bundled one."""


def main(config: Config) -> Path:
    """Train and validate one detector. Returns: the checkpoint's folder."""
    paths = config.features or (newest_dump(),)
    dumps = [read_dump(path) for path in dict.fromkeys(Path(path).resolve() for path in paths)]
    datasets = sorted({dump.meta["dataset"] for dump in dumps})
    out = config.out or CHECKPOINTS / (config.name or "-".join([*datasets, config.kind]))
    check_folder(out, config, dumps)
    newest = "" if config.features else " (the newest dump)"
    LOG.info(f"features    {', '.join(map(str, paths))}{newest}")
    faces, notes = join_dumps(dumps), []
    if config.identity_disjoint:
        faces = identity_disjoint(faces, notes)
    if config.photographs:  # of the final splits
        faces = with_photographs(faces, dumps[0].meta["outputs"], notes)
    usable = with_features(faces, dumps[0].meta["outputs"], config, notes)
    for note in notes:  # also where the training is refused: they tell why
        LOG.warning(note)
    told = len(notes)
    train, val = splits.train_and_val(usable, notes, config.one_class)
    notes += remarks.on_faces(usable, train, config.one_class)
    LOG.info(f"train       {train.counts()}")
    LOG.info(f"val         {val.counts()}")
    LOG.info(f"test        {int((faces.rows['split'] == 'test').sum())} faces, not read")
    LOG.info(
        f"head        {config.kind}, seed {config.seed}, threshold at {100 * config.fpr:g}% FPR"
    )
    outputs = dumps[0].meta["outputs"]
    with threadpool_limits(1, "blas"):  # small matrices: more threads only wait
        found = left_out.measure(train, val, outputs, config) if config.left_out else None
        checkpoint, report = fit(train, val, outputs, config, notes, found)
    experts = {name.partition(".")[0] for name in checkpoint.info["outputs"]}
    checkpoint.info |= origins(config, dumps[0].meta, experts, {"train": train, "val": val})
    checkpoint.info["dumps"] = made_from(dumps)
    rows = figures(checkpoint, val, "val", config.seed)
    notes += remarks.on_figures(rows)
    LOG.info(f"chosen      {report['chosen']} on the {report['held_out']}")
    print(f"threshold   p_fake {checkpoint.info['threshold']['p_fake']:.3f}\n\n{table(rows)}\n")
    print("\n".join(Record.of(checkpoint.info).lines), end="\n\n")
    for note in notes[told:]:
        LOG.warning(note)
    settings = {
        k: v for k, v in asdict(config).items() if k not in ("features", "out", "overwrite")
    }
    about = {k: v for k, v in checkpoint.info.items() if k not in ("features", "outputs")}
    parts = {"config": settings, "figures": rows, "choice": report, "warnings": notes}
    parts |= {"checkpoint": about, "checkpoint_sha256": checkpoint.sha256}
    with checkpoint.saving(out):
        write_json(out / METRICS, parts)
        if config.identity_disjoint:
            columns = [faces.rows[name].tolist() for name in SPLIT_COLUMNS]
            write_csv(out / SPLITS, SPLIT_COLUMNS, zip(*columns, strict=True))
    print(f"written: {out}")
    return out


def made_from(dumps: Sequence[Dump]) -> list[dict]:
    """The dumps of a detector, as its checkpoint.json names them."""
    return [
        {
            "dataset": dump.meta["dataset"],
            "profile": dump.meta["profile"],
            "condition": dump.meta["config"].get("degrade", ""),
            "digest": dump.digest,
        }
        for dump in dumps
    ]


def check_folder(out: Path, config: Config, dumps: Sequence[Dump]) -> None:
    """Raises: ValueError where `out` is no place for this detector, or holds another one."""
    roots = [Path(dump.meta["data_root"]).resolve() for dump in dumps]
    data = ("index.csv", "meta.json", "unfinished", "real", "fake", "train/real", "train/fake")
    if out.resolve() in roots or any((out / name).exists() for name in data):
        raise ValueError(f"{out}: a dataset or a dump; choose another --out")
    there = next(path for path in (out.resolve(), *out.resolve().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(f"{out}: {there} is no folder that can be written; choose another --out")
    if config.overwrite or not (out / INFO).is_file():
        return
    differing = ["the bundled one"] if out.resolve() in (BUNDLED, LITE) else []
    try:
        found = Checkpoint.load(out).info
    except (OSError, ValueError) as error:
        differing.append(str(error))
    else:
        made_column = any(name.startswith("clip.made/") for name in found["features"])
        weighed, found = WEIGHTS[: 1 + made_column], found | weights_of(found)
        found = {"photographs": False} | found
        made = {
            "head": config.kind,
            "groups_dropped": list(config.drop),
            "groups_only": list(config.only),
            **{name: getattr(config, name) for name in weighed},
            "threshold": {**found["threshold"], "fpr": config.fpr},
            "identity_disjoint": config.identity_disjoint,
            "photographs": config.photographs,
            "seed": config.seed,
            "dumps": made_from(dumps),
        }
        differing += [f"other {name}" for name in made if found.get(name) != made[name]]
    if differing:
        raise ValueError(
            f"{out}: holds another detector ({', '.join(differing)}); use --overwrite to replace "
            "it, or choose another --name"
        )


def identity_disjoint(faces: FeatureDataset, notes: list[str]) -> FeatureDataset:
    """`splits.identity_disjoint`, with warnings added to `notes`."""
    before = len(set(faces.rows["group"]))
    faces = splits.identity_disjoint(faces)
    groups, left_out = faces.rows["group"], int((faces.rows["split"] == "").sum())
    LOG.info(
        f"identities  {before} groups joined into {len(set(groups))} people; {left_out} faces left "
        "out, which may show a person of a later split"
    )
    embedding = next(name for name in faces.arrays if name.endswith(".identity"))
    if embedding != "lite.identity":
        notes.append(f"people told apart by {embedding}, with thresholds for lite.identity")
    if (share := largest_share(groups)) > UNSURE_SHARE:
        notes.append(f"{share:.0%} of all faces could not be told apart: one person, who trains")
    return faces


def origins(
    config: Config, meta: dict, experts: set[str], parts: dict[str, FeatureDataset]
) -> dict:
    """What a checkpoint says about its data, experts and versions."""
    trained_on = [
        {
            "dataset": dataset,
            "counts": {
                split: part.select(part.rows["dataset"] == dataset).counts()
                for split, part in parts.items()
            },
        }
        for dataset in sorted({name for part in parts.values() for name in part.rows["dataset"]})
    ]
    return {
        "profile": meta["profile"],
        "regions": list(REGIONS),
        "weights": {name: digest for name, digest in meta["weights"].items() if name in experts},
        **({"clip_model": meta["clip_model"]} if "clip" in experts else {}),
        "precision": meta["config"].get("precision", "float32"),
        "groups_dropped": list(config.drop),
        "groups_only": list(config.only),
        "trained_on": trained_on,
        "seed": config.seed,
        **({"photographs": True} if config.photographs else {}),
        "identity_disjoint": config.identity_disjoint,
        "versions": {"python": platform.python_version(), **{x: version(x) for x in PACKAGES}},
    }


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__))
