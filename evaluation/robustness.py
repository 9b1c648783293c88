"""Robustness: every test picture again, compressed, blurred or shrunk before face detection.

One dump per condition, made like every other dump, so resumable and kept. A picture whose face is
lost is counted, and scored as what it is to a user: no alarm (p_fake 0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from data.cutting import samples_of
from data.degrade import Condition
from data.dump import NO_FACE, Dump, read_dump
from data.feature_dataset import FeatureDataset, join_dumps
from data.samples import even_subsample
from data.video import split_frame
from evaluation.metrics import auc, interval
from evaluation.metrics_table import counts_of
from evaluation.predictions import FACE, face_table
from evaluation.systems import quiet
from preprocessing_pipeline import Config, degraded_at
from preprocessing_pipeline import main as preprocess

REPLICATES = 400
CLEAN = "clean"  # condition of the same faces undegraded


def degraded_dump(
    clean: Dump, root: Path, condition: Condition, limit: int | None, settings: Mapping
) -> Dump:
    """The test pictures of `clean` in one condition, by the same experts; made where needed.

    Args:
        root: folder of the pictures.
        limit: pictures at most, evenly spaced.
        settings: of preprocessing_pipeline.Config, such as the device.
    """
    names = ("faces", "precision", "max_pixels")
    config = Config(
        data_root=root,
        out=degraded_at(clean.meta["dataset"], clean.meta["profile"], condition, limit),
        like=clean.path,
        split="test",
        degrade=str(condition),
        limit=limit,
        experts=tuple(clean.meta["weights"]),
        clip_model=clean.meta.get("clip_model"),
        **{name: clean.meta["config"][name] for name in names},
        **settings,
    )
    with quiet():
        dump = read_dump(preprocess(config))
    if count := dump.meta["counts"]["unreadable"]:  # not lost to the degradation
        path, reason = next((path, reason) for path, reason in dump.failures if reason != NO_FACE)
        raise ValueError(
            f"{root / path}: {reason}, and {count - 1} more that could be read when {clean.path} was made; put the "
            f"pictures back, or name their folder with --data-root, and delete {dump.path}"
        )
    return dump


def measured(
    clean: FeatureDataset, p_clean: np.ndarray, degraded: FeatureDataset, p: np.ndarray
) -> list[dict]:
    """AUC over the faces found, AUC over all with p_fake 0 for those lost, and how many are lost.

    clean: the same pictures undegraded; a face without a score there does not count.
    """
    both = face_table(clean, {}).merge(face_table(degraded, {"p": p}), on=FACE, how="left")
    scores, counted = both["p"].to_numpy(float), ~np.isnan(p_clean)
    known = counted & ~np.isnan(scores)
    rows = [
        auc_row(clean, scores, known),
        auc_row(clean, np.where(known, scores, 0.0), counted, "auc_with_lost"),
    ]
    lost = {"metric": "lost", "value": int((counted & ~known).sum()), "n": int(counted.sum())}
    return [*rows, lost]


def auc_row(faces: FeatureDataset, p: np.ndarray, used: np.ndarray, metric: str = "auc") -> dict:
    y, groups = faces.rows["label"][used], faces.rows["group"][used]
    figure = interval(auc, y, p[used], groups, REPLICATES)
    return {"metric": metric, **counts_of(y, groups), **figure}


def slope(aucs: Mapping[int, float | None]) -> float | None:
    """AUC per level, by least squares. aucs: level (0 is clean) -> AUC."""
    found = [(level, value) for level, value in aucs.items() if value is not None]
    return float(np.polyfit(*zip(*found, strict=True), 1)[0]) if len(found) > 1 else None


def curves(
    clean: FeatureDataset,
    degraded: Mapping[Condition, FeatureDataset],
    p_fake: Callable[[FeatureDataset], np.ndarray],
) -> list[dict]:
    """Rows of metrics.csv of one system: clean, every condition, and the slope of every family."""
    p_clean = p_fake(clean)
    base = auc_row(clean, p_clean, ~np.isnan(p_clean))
    rows = [{**base, "condition": CLEAN}]
    aucs: dict[str, dict[int, float | None]] = {}
    for condition, faces in degraded.items():
        p = p_fake(faces) if len(faces) else np.empty(0)
        found = measured(clean, p_clean, faces, p)
        rows += [{**row, "condition": str(condition)} for row in found]
        levels = aucs.setdefault(condition.family, {0: base["value"]})
        levels[condition.level] = found[0]["value"]
    for family, levels in aucs.items():
        rows.append({"metric": "slope", "condition": family, "value": slope(levels)})
    return [{**row, "level": "frame"} for row in rows]


def degraded_faces(
    clean: Dump, root: Path, wanted: Iterable[Condition], limit: int | None, settings: Mapping
) -> tuple[FeatureDataset, dict[Condition, FeatureDataset]]:
    """The test faces of `clean` that were degraded, and the same in every condition.

    Conditions for clips are left out where some pictures are no frames of video files.
    """
    clips = all(map(split_frame, clean.rows["path"].tolist()))
    degraded = {
        condition: join_dumps([degraded_dump(clean, root, condition, limit, settings)])
        for condition in wanted
        if clips or not condition.clips_only
    }
    paths = [sample.path for sample in even_subsample(samples_of(clean, "test"), limit)]
    faces = join_dumps([clean])
    return faces.select(np.isin(faces.rows["path"].astype(str), paths)), degraded
