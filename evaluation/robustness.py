"""Robustness: every test picture again, compressed, blurred or shrunk before its face is looked
for.

One dump per condition, made like every other dump, so resumable and kept; a later evaluation of
another detector needs no pictures. A picture whose face is not found any more is counted, and
scored as what it is to a user: no alarm (p_fake 0).
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
from evaluation.predictions import face_keys
from evaluation.systems import quiet
from preprocessing_pipeline import Config, degraded_at
from preprocessing_pipeline import main as preprocess

REPLICATES = 400
CLEAN = "clean"  # condition of the same faces undegraded


def degraded_dump(
    clean: Dump, root: Path, condition: Condition, limit: int | None, settings: Mapping
) -> Dump:
    """The test pictures of `clean` in one condition, by the same experts; made or completed
    where needed.

    Args:
        root: folder of the pictures.
        limit: pictures at most, evenly spaced.
        settings: of preprocessing_pipeline.Config, such as the device.

    Raises:
        As preprocessing_pipeline.main; ValueError where a picture cannot be read any more.
    """
    out = degraded_at(clean.meta["dataset"], clean.meta["profile"], condition, limit)
    config = Config(
        data_root=root,
        out=out,
        like=clean.path,
        split="test",
        degrade=str(condition),
        limit=limit,
        experts=tuple(clean.meta["weights"]),
        faces=clean.meta["config"]["faces"],
        precision=clean.meta["config"]["precision"],
        max_pixels=clean.meta["config"]["max_pixels"],
        **settings,
    )
    with quiet():
        dump = read_dump(preprocess(config))
    if dump.meta["counts"]["unreadable"]:  # not lost to the degradation: not to be scored as such
        path, reason = next((path, reason) for path, reason in dump.failures if reason != NO_FACE)
        more = dump.meta["counts"]["unreadable"] - 1
        raise ValueError(
            f"{root / path}: {reason}, and {more} more that could be read when {clean.path} was made; put the pictures "
            f"back, or name their folder with --data-root, and delete {dump.path}"
        )
    return dump


def measured(
    clean: FeatureDataset, p_clean: np.ndarray, degraded: FeatureDataset, p: np.ndarray
) -> list[dict]:
    """AUC over the faces found, AUC over all with p_fake 0 for those lost, and how many are lost.

    clean: the same pictures undegraded. Faces are matched by path and number.
    """
    place = {key: row for row, key in enumerate(face_keys(degraded.rows))}
    at = np.array([place.get(key, -1) for key in face_keys(clean.rows)])
    counted = ~np.isnan(p_clean)
    scores = np.where((at >= 0) & counted, np.append(p, np.nan)[at], np.nan)
    known = ~np.isnan(scores)
    rows = [
        auc_row(clean, scores, known),
        auc_row(clean, np.where(known, scores, 0.0), counted, "auc_with_lost"),
    ]
    lost = {"metric": "lost", "value": int((counted & ~known).sum()), "n": int(counted.sum())}
    return [*rows, lost]


def auc_row(faces: FeatureDataset, p: np.ndarray, used: np.ndarray, metric: str = "auc") -> dict:
    y, groups = faces.rows["label"][used], faces.rows["group"][used]
    counts = {"n": len(y), "n_fake": int(y.sum()), "groups": len(set(groups))}
    return {"metric": metric, **counts, **interval(auc, y, p[used], groups, REPLICATES)}


def slope(aucs: Mapping[int, float | None]) -> float | None:
    """AUC per level, by least squares. aucs: level (0 is clean) -> AUC."""
    found = [(level, value) for level, value in aucs.items() if value is not None]
    return float(np.polyfit(*zip(*found, strict=True), 1)[0]) if len(found) > 1 else None


def curves(
    clean: FeatureDataset,
    degraded: Mapping[Condition, FeatureDataset],
    p_fake: Callable[[FeatureDataset], np.ndarray],
) -> list[dict]:
    """Rows of metrics.csv of one system on one dataset: clean, every condition, and the slope of
    every family.

    clean: the faces that were degraded.
    """
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

    Where the dataset has pictures that are no frames of video files, conditions for clips are left
    out.
    """
    clips = all(map(split_frame, clean.rows["path"].tolist()))
    degraded = {}
    for condition in wanted:
        if condition.clips_only and not clips:
            continue
        dump = degraded_dump(clean, root, condition, limit, settings)
        degraded[condition] = join_dumps([dump])
    paths = [sample.path for sample in even_subsample(samples_of(clean, "test"), limit)]
    faces = join_dumps([clean])
    return faces.select(np.isin(faces.rows["path"].astype(str), paths)), degraded
