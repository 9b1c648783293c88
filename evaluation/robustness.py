"""How the score falls when pictures are compressed, blurred, shrunk: every test picture again, degraded before its face is
looked for.

One dump per condition, made like every other dump, so resumable and kept; a later run of another detector needs no pictures.
A picture whose face is not found any more is counted, and scored as what it is to a user: no alarm (p_fake 0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from data.cutting import samples_of
from data.degrade import FAMILIES, Condition
from data.dump import NO_FACE, Dump, read_dump
from data.feature_dataset import FeatureDataset, join_dumps
from data.samples import even_subsample
from data.video import split_frame
from evaluation.metrics import auc, bootstrap
from evaluation.predictions import face_keys
from preprocessing_pipeline import Config, degraded_at
from preprocessing_pipeline import main as preprocess

REPLICATES = 400


def degraded_dump(
    clean: Dump, root: Path, condition: Condition, limit: int | None, settings: Mapping
) -> Dump:
    """The test pictures of `clean` (at most `limit`, evenly spaced) in one condition, by the same experts; made where missing,
    extended where some of the experts have answered before.

    root: the pictures. settings: of preprocessing_pipeline.Config, such as the device.
    Raises: as preprocessing_pipeline.main; ValueError where a picture cannot be read any more.
    """
    experts = tuple(clean.meta["weights"])
    out = degraded_at(clean.meta["dataset"], clean.meta["profile"], condition, limit)
    config = Config(
        data_root=root,
        out=out,
        like=clean.path,
        split="test",
        degrade=str(condition),
        limit=limit,
        experts=experts,
        faces=clean.meta["config"]["faces"],
        precision=clean.meta["config"]["precision"],
        max_pixels=clean.meta["config"]["max_pixels"],
        **settings,
    )
    dump = read_dump(preprocess(config))
    if dump.meta["counts"]["unreadable"]:  # not lost to the degradation: not to be scored as such
        path, reason = next((path, reason) for path, reason in dump.failures if reason != NO_FACE)
        raise ValueError(
            f"{root / path}: {reason}, and {dump.meta['counts']['unreadable'] - 1} more that could be read when {clean.path} "
            f"was made; put the pictures back, or name their folder with --data-root, and delete {dump.path}"
        )
    return dump


def measured(
    clean: FeatureDataset, p_clean: np.ndarray, degraded: FeatureDataset, p: np.ndarray
) -> dict:
    """One point of a curve: AUC over the faces found, and over all with p_fake 0 for those lost.

    clean: the same pictures undegraded, with a face each. Faces are told by path and number.
    """
    there = {key: row for row, key in enumerate(face_keys(degraded.rows))}
    at = np.array([there.get(key, -1) for key in face_keys(clean.rows)])
    scores = np.where((at >= 0) & ~np.isnan(p_clean), np.append(p, np.nan)[at], np.nan)
    known, counted = ~np.isnan(scores), ~np.isnan(p_clean)
    y, groups = clean.rows["label"], clean.rows["group"]
    lost = int((counted & ~known).sum())
    return {
        "n": int(known.sum()),
        "lost": lost,
        "auc": interval(y[known], scores[known], groups[known]),
        "auc_with_lost": interval(
            y[counted], np.where(known, scores, 0.0)[counted], groups[counted]
        ),
    }


def interval(y: np.ndarray, p: np.ndarray, groups: np.ndarray) -> dict:
    """AUC with its 95% interval by group; None where undefined."""
    low, high = (
        bootstrap({"auc": auc}, y, p, groups, REPLICATES)["auc"] if len(y) else (np.nan, np.nan)
    )
    values = {"value": auc(y, p) if len(y) else np.nan, "low": low, "high": high}
    return {name: None if np.isnan(value) else float(value) for name, value in values.items()}


def slope(clean: float | None, points: Sequence[dict]) -> float | None:
    """AUC per level, by least squares over the clean picture (level 0) and every level measured."""
    found = [(0, clean), *((point["level"], point["auc"]["value"]) for point in points)]
    found = [(level, value) for level, value in found if value is not None]
    return float(np.polyfit(*zip(*found, strict=True), 1)[0]) if len(found) > 1 else None


def curves(
    clean: FeatureDataset,
    of: Mapping[Condition, FeatureDataset],
    scorers: Mapping[str, Callable[[FeatureDataset], np.ndarray]],
    dataset: str,
) -> list[dict]:
    """The curves of every system on one dataset. clean: the faces that were degraded. scorers: system -> faces -> p_fake."""
    found = []
    for system, p_fake in scorers.items():
        p_clean = p_fake(clean)
        known = ~np.isnan(p_clean)
        base = interval(clean.rows["label"][known], p_clean[known], clean.rows["group"][known])
        for family in dict.fromkeys(condition.family for condition in of):
            points = []
            for condition, faces in of.items():
                if condition.family == family:
                    parameter = f"{condition.value:g} {FAMILIES[family].unit}"
                    point = measured(
                        clean, p_clean, faces, p_fake(faces) if len(faces) else np.empty(0)
                    )
                    points.append({"level": condition.level, "parameter": parameter, **point})
            curve = {"system": system, "dataset": dataset, "family": family, "clean": base}
            found.append({**curve, "slope": slope(base["value"], points), "points": points})
    return found


def degraded_faces(
    clean: Dump, root: Path, wanted: Iterable[Condition], limit: int | None, settings: Mapping
) -> tuple[FeatureDataset, dict[Condition, FeatureDataset]]:
    """The test faces of `clean` that were degraded, and themselves in every condition.

    Where the dataset has pictures that are no frames of video files, conditions for clips are left out.
    """
    clips = all(map(split_frame, clean.rows["path"].tolist()))
    of = {}
    for condition in wanted:
        if condition.clips_only and not clips:
            continue
        of[condition] = join_dumps([degraded_dump(clean, root, condition, limit, settings)])
    paths = [sample.path for sample in even_subsample(samples_of(clean, "test"), limit)]
    faces = join_dumps([clean])
    return faces.select(np.isin(faces.rows["path"].astype(str), paths)), of
