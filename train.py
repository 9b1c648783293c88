"""Dumps -> a detector: features, classifier, calibration and threshold. On a CPU, in a minute.

    python train.py                           # the newest dump below outputs/features
    python train.py --features outputs/features/dfdc/lite outputs/features/openforensics/lite \\
        --name mine                           # two datasets together, into checkpoints/mine
    python train.py --head mlp --only lite.identity
    python train.py --drop expected lite.race/kl
    python train.py --only fairface arcface
    python train.py --one-class               # real faces only
    python train.py --identity-disjoint       # as far as the embedding can tell people apart

The head is fitted on `train`; hyper-parameters, calibration, threshold and the percentiles of real
faces come from `val`; `test` is never read. Writes checkpoint.json, arrays.safetensors and
metrics.json; with --identity-disjoint also splits.csv, the split that was used.
"""

from __future__ import annotations

import logging
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from command_line import run
from data import splits
from data.dump import newest_dump, read_dump
from data.feature_dataset import FeatureDataset, join_dumps
from data.files import write_csv, write_json
from data.people import largest_share
from evaluation.metrics import table
from features.regions import REGIONS
from models.checkpoint import CHECKPOINTS
from training.detector import Settings, figures, fit

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


def main(config: Config) -> Path:
    """Train and validate one detector. Returns: the checkpoint's folder."""
    paths = config.features or (newest_dump(),)
    dumps = [read_dump(path) for path in dict.fromkeys(Path(path).resolve() for path in paths)]
    datasets = sorted({dump.meta["dataset"] for dump in dumps})
    out = config.out or CHECKPOINTS / (config.name or "-".join([*datasets, config.kind]))
    newest = "" if config.features else " (the newest dump)"
    LOG.info(f"features    {', '.join(map(str, paths))}{newest}")
    faces, notes = join_dumps(dumps), []
    if config.identity_disjoint:
        faces = identity_disjoint(faces, notes)
    train, val = splits.train_and_val(faces, notes, config.one_class)
    LOG.info(f"train       {train.counts()}\nval         {val.counts()}")
    LOG.info(f"test        {int((faces.rows['split'] == 'test').sum())} faces, not read")
    LOG.info(f"head        {config.kind}, seed {config.seed}, threshold at {config.fpr:.0%} FPR")
    checkpoint, report = fit(train, val, dumps[0].meta["outputs"], config, notes)
    experts = {name.partition(".")[0] for name in checkpoint.info["outputs"]}
    checkpoint.info |= origins(config, dumps[0].meta, experts, {"train": train, "val": val})
    rows = figures(checkpoint, val, "val", config.seed)
    LOG.info(f"chosen      {report['chosen']} on the {report['held_out']}")
    print(f"threshold   p_fake {checkpoint.info['threshold']['p_fake']:.3f}\n\n{table(rows)}\n")
    for note in notes:
        LOG.warning(note)
    checkpoint.save(out)
    settings = {k: v for k, v in asdict(config).items() if k not in ("features", "out")}
    about = {k: v for k, v in checkpoint.info.items() if k not in ("features", "outputs")}
    parts = {"config": settings, "figures": rows, "choice": report, "warnings": notes}
    write_json(out / "metrics.json", {**parts, "checkpoint": about})
    if config.identity_disjoint:
        columns = [faces.rows[name].tolist() for name in SPLIT_COLUMNS]
        write_csv(out / "splits.csv", SPLIT_COLUMNS, zip(*columns, strict=True))
    print(f"written: {out}")
    return out


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
        "identity_disjoint": config.identity_disjoint,
        "versions": {"python": platform.python_version(), **{x: version(x) for x in PACKAGES}},
    }


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__))
