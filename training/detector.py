"""Fitting a detector: features, head, calibration, threshold and reference percentiles."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from data.feature_dataset import FeatureDataset
from evaluation.metrics import summary, threshold_at_fpr
from features.columns import directions, forgery_logit_columns, groups_of
from features.disagreement import of_regions
from features.explain import PERCENTILES
from features.pipeline import NO_OUTPUT, FeaturePipeline, chosen_names
from inference.scorer import Scorer
from models.checkpoint import PRIOR, Checkpoint
from models.classifiers import MODELS
from models.heads import Head, fit_head
from training.remarks import on_columns, without_output

if TYPE_CHECKING:
    from training.left_out import LeftOut

LOG = logging.getLogger("masc")
HEADS = tuple(kind for kind, model in MODELS.items() if not model.real_only)
WEIGHTS = ("forgery_weight", "appearance_weight")  # of pretrained logits beside the head
EDGE, FARTHEST = 1, 99  # abstention limits: percentiles of poor quality, and of the distance


@dataclass(frozen=True)
class Settings:
    """How a detector is fitted. Raises: ValueError for numbers out of range."""

    head: Literal[HEADS] = "logreg"
    """The classifier (models/classifiers.py)."""
    one_class: bool = False
    """Train on real faces only; no fakes are needed."""
    drop: tuple[str, ...] = ()
    """Groups of columns to leave out: appearance, clip, raw, lite.age, kl, ... (docs/features.md)."""
    only: tuple[str, ...] = ()
    """Groups of columns to use alone."""
    photographs: bool = False
    """Compare each face with other real pictures of its person, too, where the dataset knows people: the
    family `reference`. Such a detector wants predict.py --person; without, those columns are unknown."""
    fpr: float = 0.05
    """False positive rate of the threshold, on real validation faces."""
    # Chosen by leaving one dataset out: docs/research.md.
    forgery_weight: float = 0.5
    """Weight of each pretrained forgery logit but the next beside the trained head; 0: none."""
    appearance_weight: float = 3.0
    """Weight of `clip.made`, the logit of the head on CLIP's blocks, beside it (docs/block_head.md)."""
    seed: int = 0
    """Seed of all random numbers."""

    def __post_init__(self) -> None:
        if not 0 < self.fpr < 1:
            raise ValueError(f"--fpr lies between 0 and 1 (given: {self.fpr})")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"--seed is at least 0 and below {2**31} (given: {self.seed})")
        for name in WEIGHTS:
            if not 0 <= (weight := getattr(self, name)) < np.inf:
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"{option} is a number of at least 0 (given: {weight})")

    @property
    def kind(self) -> str:
        return "oneclass" if self.one_class else self.head


def weights_of(info: Mapping) -> dict[str, float]:
    """`WEIGHTS` of a checkpoint; earlier ones had the first for all logits."""
    return {name: info.get(name, info["forgery_weight"]) for name in WEIGHTS}


def with_features(
    faces: FeatureDataset, outputs: dict, settings: Settings, notes: list[str]
) -> FeatureDataset:
    """The faces with any output that the chosen columns are made of.

    notes: how many of the training and validation faces have none. Raises: ValueError: all the real
    training faces, or unknown groups of columns.
    """
    names = chosen_names(faces.arrays, outputs, settings.drop, settings.only)
    known = faces.known({name.partition("/")[0] for name in names})
    for split, what in (("train", "training"), ("val", "validation")):
        part = faces.rows["split"] == split
        labels = faces.rows["label"][part]
        notes += without_output(labels, known[part], what)
        if split == "train" and 0 in labels and 0 not in labels[known[part]]:
            raise ValueError(NO_OUTPUT.format("real training"))
    return faces.select(known)


def head_on(
    pipeline: FeaturePipeline,
    settings: Settings,
    train: tuple[np.ndarray, np.ndarray, np.ndarray],
    val: tuple[np.ndarray, np.ndarray],
) -> Head:
    """train: columns (N, F), labels and groups; val: columns and labels. Raises: as `fit_head`."""
    names = pipeline.names
    looks = np.array(["appearance" in groups_of(name) for name in names])
    weight = np.where(looks, settings.appearance_weight, settings.forgery_weight)
    weight = weight * forgery_logit_columns(names, pipeline.outputs)
    return fit_head(settings.kind, *train, *val, settings.seed, directions(names), weight)


def fit(
    train: FeatureDataset,
    val: FeatureDataset,
    outputs: dict,
    settings: Settings,
    notes: list[str],
    left_out: LeftOut | None = None,
) -> tuple[Checkpoint, dict]:
    """Fit features and head on `train`; choose threshold and reference percentiles on `val`.

    Args:
        train, val: faces of at least two groups.
        outputs: the table of the dump's meta.json.
        notes: warnings for the user are appended.
        left_out: what the same head finds of what it was not trained on.

    Returns:
        A checkpoint, yet without what it was trained on, and the report of `fit_head`.

    Raises:
        ValueError: too few faces, or unknown groups of columns.
    """
    reals, groups = train.rows["label"] == 0, train.rows["group"]
    chosen = (settings.drop, settings.only, settings.seed)
    columns, pipeline = FeaturePipeline.fit(train.arrays, outputs, reals, groups, *chosen)
    names = pipeline.names
    expected = sum("expected" in groups_of(name) for name in names)
    LOG.info(f"columns     {len(names)}: {len(names) - expected} raw, {expected} expected")
    known = ~np.isnan(columns.values).all(1)
    notes += without_output(train.rows["label"], known, "training")
    train, values = train.select(known), columns.values[known]
    for name in sorted(outputs.keys() - pipeline.outputs.keys()):
        if not np.isfinite(train.arrays[name][train.rows["label"] == 0]).any():
            notes.append(f"{name} has no value on any real training face and is left out")
    if missing := float(np.isnan(values).mean()):
        notes.append(f"{missing:.2%} of the training values are missing: median-imputed")
    notes += on_columns(names, values, train.rows["label"])
    val_values = pipeline.transform(val.arrays).values
    known = ~np.isnan(val_values).all(1)
    notes += without_output(val.rows["label"], known, "validation")
    val_values, val_labels = val_values[known], val.rows["label"][known]
    reals = val_values[val_labels == 0]
    if not len(reals):
        raise ValueError(NO_OUTPUT.format("real validation"))
    faces = (values, train.rows["label"], train.rows["group"])
    head = head_on(pipeline, settings, faces, (val_values, val_labels))
    report, carried = head.report, {}
    how = {"how": report["calibration"], "on": report["held_out"]}
    how |= {} if settings.one_class else {"prior": PRIOR}
    if left_out:
        head.a, head.b = left_out.a * head.a, left_out.a * head.b + left_out.b
        how["on"] += left_out.calibrated_on
    p_reals = head.p_fake(reals)
    threshold = threshold_at_fpr(p_reals, settings.fpr)
    if left_out:
        carried = left_out.carried(p_reals, threshold)
    info = {
        "outputs": pipeline.outputs,
        "features": names,
        "head": head.kind,
        **{name: getattr(settings, name) for name in WEIGHTS},
        "calibration": {"a": head.a, "b": head.b, **how},
        "threshold": {"p_fake": threshold, "fpr": settings.fpr},
        "reference": {"percentiles": list(PERCENTILES), "faces": len(reals)},
        "limits": limits(train, np.isnan(values).mean(1), head.distance(val_values)),
        **carried,
    }
    # A column without any value on real validation faces gets the median of the training faces.
    filled = np.where(np.isnan(reals).all(0), head.median, reals)
    reference = np.nanpercentile(filled, PERCENTILES, axis=0).astype(np.float32)
    # A region without any value disagrees with nothing.
    disagreement = np.nan_to_num(of_regions(names, reals, reference))
    arrays = {
        "reference": reference,
        "real_scores": np.sort(p_reals),
        "disagreement": np.percentile(disagreement, PERCENTILES, axis=0).astype(np.float32),
    }
    return Checkpoint(info, {**arrays, **pipeline.state(), **head.state()}), report


def limits(train: FeatureDataset, missing: np.ndarray, distances: np.ndarray) -> dict[str, float]:
    """Abstention limits.

    missing: (N,) share of each training face's columns without a value; distances: of validation
    faces, on which the head was not fitted.
    """
    low = ("face_px", "sharpness", "score")
    found = {name: np.percentile(train.rows[name], EDGE) for name in low}
    found["yaw"] = np.percentile(np.abs(train.rows["yaw"]), 100 - EDGE)
    found["missing"] = np.percentile(missing, FARTHEST)
    found["distance"] = np.percentile(distances, FARTHEST)
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def figures(
    checkpoint: Checkpoint, faces: FeatureDataset, split: str, seed: int
) -> dict[str, dict]:
    """Rows for `evaluation.metrics.table`: each dataset, and all together where several."""
    p_fake, found = Scorer(checkpoint).score(faces.arrays)[1], {}
    names = faces.rows["dataset"]
    parts = {name: names == name for name in np.unique(names).tolist()}
    if len(parts) > 1:
        parts["all"] = np.full(len(faces), True)
    for name, part in parts.items():
        part = part & ~np.isnan(p_fake)
        if part.any():
            label, group = faces.rows["label"][part], faces.rows["group"][part]
            threshold = checkpoint.info["threshold"]["p_fake"]
            found[f"{name} {split}"] = summary(label, p_fake[part], group, threshold, seed=seed)
    return found
