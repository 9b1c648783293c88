"""Fitting a detector: features, head, calibration, threshold and reference ranges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.feature_dataset import FeatureDataset
from evaluation.metrics import summary, threshold_at_fpr
from features.columns import directions, forgery_logit_columns, groups_of
from features.disagreement import of_regions
from features.explain import PERCENTILES
from features.pipeline import FeaturePipeline
from inference.scorer import Scorer
from models.checkpoint import Checkpoint
from models.heads import fit_head

# What a face may be like to be judged, of those that a detector is trained on: percentiles of every quality, on the poor side,
# and of how far they lie from the training faces.
EDGE, FARTHEST = 1, 99


@dataclass(frozen=True)
class Settings:
    """How a detector is fitted.

    drop, only: groups of columns (features/columns.py). fpr: share of real validation faces that the threshold lets be
    taken for fakes. forgery_weight: weight of the pretrained forgery logit beside the trained head (models/heads.py);
    chosen by leaving a dataset out (docs/research.md).
    """

    head: str = "logreg"
    one_class: bool = False
    drop: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    fpr: float = 0.05
    forgery_weight: float = 0.5
    seed: int = 0

    @property
    def kind(self) -> str:
        return "oneclass" if self.one_class else self.head


def fit(
    train: FeatureDataset, val: FeatureDataset, outputs: dict, settings: Settings, notes: list[str]
) -> tuple[Checkpoint, dict]:
    """Features, head, threshold and reference ranges. Returns: a checkpoint (yet without its origins), the head's report."""
    real = train.rows["label"] == 0
    columns, pipeline = FeaturePipeline.fit(
        train.arrays,
        outputs,
        real,
        train.rows["group"],
        settings.drop,
        settings.only,
        settings.seed,
    )
    seen = ~np.isnan(columns.values).all(1)
    if not seen.all():
        notes.append(
            f"{int((~seen).sum())} training faces have not a single feature and are left out"
        )
    missing = float(np.isnan(columns.values[seen]).mean())
    if missing:
        notes.append(
            f"{missing:.2%} of the training values are missing; the median of real faces stands in"
        )
    kinds = ["expected" if "expected" in groups_of(name) else "raw" for name in columns.names]
    print(
        f"columns     {len(kinds)}: {kinds.count('raw')} raw, {kinds.count('expected')} expected",
        flush=True,
    )
    values = pipeline.transform(val.arrays).values
    known = ~np.isnan(values).all(1)
    head = fit_head(
        settings.kind,
        columns.values[seen],
        train.rows["label"][seen],
        train.rows["group"][seen],
        values[known],
        val.rows["label"][known],
        settings.seed,
        directions(columns.names),
        settings.forgery_weight * forgery_logit_columns(columns.names, pipeline.outputs),
    )
    of_reals = values[known & (val.rows["label"] == 0)]
    if not len(of_reals):
        raise ValueError(
            "no real validation face has a single feature; there is nothing to set a threshold on"
        )
    p_reals = head.p_fake(of_reals)
    info = {
        "outputs": pipeline.outputs,
        "features": pipeline.names,
        "head": head.kind,
        "forgery_weight": settings.forgery_weight,
        "calibration": {
            "a": head.a,
            "b": head.b,
            "how": head.report["calibration"],
            "on": head.report["held_out"],
        },
        "threshold": {"p_fake": threshold_at_fpr(p_reals, settings.fpr), "fpr": settings.fpr},
        "reference": {"percentiles": list(PERCENTILES), "faces": len(of_reals)},
        "seen": limits(train.select(np.flatnonzero(seen)), head.distance(values[known])),
    }
    # A column may be missing on all real validation faces; then the median of the training faces is all there is to say.
    filled = np.where(np.isnan(of_reals).all(0), head.median, of_reals)
    reference = np.nanpercentile(filled, PERCENTILES, axis=0).astype(np.float32)
    apart = of_regions(
        pipeline.names, of_reals, reference
    )  # a region of which nothing is known disagrees with nothing
    apart = np.percentile(np.nan_to_num(apart), PERCENTILES, axis=0).astype(np.float32)
    arrays = {"reference": reference, "real_scores": np.sort(p_reals), "disagreement": apart}
    return Checkpoint(info, {**arrays, **pipeline.state(), **head.state()}), head.report


def limits(train: FeatureDataset, distances: np.ndarray) -> dict[str, float]:
    """Beyond what a face is unlike those that a detector was trained on: of every quality, and of `Head.distance`.

    distances: of validation faces, real and fake, since those of training faces are what the head was fitted on.
    """
    low = {
        name: np.percentile(train.rows[name], EDGE) for name in ("face_px", "sharpness", "score")
    }
    found = {
        **low,
        "yaw": np.percentile(np.abs(train.rows["yaw"]), 100 - EDGE),
        "distance": np.percentile(distances, FARTHEST),
    }
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def figures(
    checkpoint: Checkpoint, faces: FeatureDataset, split: str, seed: int
) -> dict[str, dict]:
    """Rows for `evaluation.metrics.table`: each dataset, and all of them together where there are several."""
    p_fake = Scorer(checkpoint).score(faces.arrays)[1]
    rows, parts = (
        {},
        {name: faces.rows["dataset"] == name for name in sorted(set(faces.rows["dataset"]))},
    )
    if len(parts) > 1:
        parts["all"] = np.ones(len(faces), dtype=bool)
    for name, part in parts.items():
        part = part & ~np.isnan(p_fake)
        if part.any():
            threshold = checkpoint.info["threshold"]["p_fake"]
            rows[f"{name} {split}"] = summary(
                faces.rows["label"][part],
                p_fake[part],
                faces.rows["group"][part],
                threshold,
                seed=seed,
            )
    return rows
