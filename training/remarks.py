"""Warnings where a training says little, or learns something else than it should. One line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.spatial import KDTree

from data.feature_dataset import FeatureDataset
from data.names import for_screen
from data.splits import SPLITS

LABELS = ("real", "fake")
FEW = 50  # training faces of one label
FEW_HELD_OUT = 25  # fake validation faces
IMBALANCE = 10  # faces of one label for each of the other
GAP = 0.1  # of the faces of one label, by which missing values tell it from the other
SAME, DIRECTIONS = 0.1, 8  # distance (in standard deviations) and random directions of `_twins`
NAMED = 3  # examples in a line


def on_faces(faces: FeatureDataset, train: FeatureDataset, one_class: bool) -> list[str]:
    """About the faces of all splits, and those that train. one_class: fakes do not train."""
    return [
        *_few(train, one_class),
        *_one_label(faces),
        *_on_two_sides(faces),
        *_twins(faces),
    ]


def _few(train: FeatureDataset, one_class: bool) -> Iterator[str]:
    counts = train.counts()
    for number, label in enumerate(LABELS[:1] if one_class else LABELS):
        if counts[label] < FEW:
            groups = len(set(train.rows["group"][train.rows["label"] == number]))
            yield (
                f"only {counts[label]} {label} training faces, of {groups} groups: what is learned "
                "from them may not hold for others"
            )
    rare, common = sorted(LABELS, key=counts.get)
    if counts[common] > IMBALANCE * counts[rare] and not one_class:
        yield (
            f"{counts[common]} {common} training faces and {counts[rare]} {rare}: with so few of one "
            "label, p_fake and the threshold are rough"
        )


def without_output(labels: np.ndarray, known: np.ndarray, what: str) -> Iterator[str]:
    """About faces without a feature. labels, known: (N,), known is bool; what: they are for."""
    if not known.all():
        parts = []
        for number, label in enumerate(LABELS):
            lost = ~known[labels == number]
            parts.append(f"{lost.sum()} of {len(lost)} {label}")
        yield (
            f"{(~known).sum()} {what} faces have not a single feature and are left out: "
            f"{', '.join(parts)}"
        )


def _one_label(faces: FeatureDataset) -> Iterator[str]:
    for split in SPLITS[1:]:
        counts = faces.split(split).counts()
        found = [label for label in LABELS if counts[label]]
        if len(found) == 1:
            yield f"all faces of the {split} split are {found[0]}: nothing tells there how good it is"
        elif split == "val" and 0 < counts["fake"] < FEW_HELD_OUT:
            yield f"only {counts['fake']} fake validation faces: the figures are rough"


def _on_two_sides(faces: FeatureDataset) -> Iterator[str]:
    pictures = [f"{x}/{y}" for x, y in zip(faces.rows["dataset"], faces.rows["path"], strict=True)]
    for what, names in (("group", faces.rows["group"]), ("picture", pictures)):
        sides: dict[str, set[str]] = {}
        for name, split in zip(names, faces.rows["split"], strict=True):
            sides.setdefault(str(name), set()).add(str(split))
        if shared := sorted(name for name, found in sides.items() if len(found - {""}) > 1):
            yield (
                f"{len(shared)} {what}s have faces in more than one split, such as "
                f"{for_screen(', '.join(shared[:NAMED]))}: the figures are too good"
            )
            return


def _twins(faces: FeatureDataset) -> Iterator[str]:
    """The same face as real and as fake: the outputs of its whole face are those of the other.

    The perceptual hash alone does not tell that: a face swap may have that of its source. One of zeros
    is that of a flat picture.
    """
    used = np.flatnonzero(np.isin(faces.rows["split"], SPLITS[:2]))
    names, hashes, labels = (faces.rows[name][used] for name in ("path", "phash", "label"))
    rng, places = np.random.default_rng(0), np.zeros((len(used), DIRECTIONS), np.float32)
    known = np.zeros(len(used), bool)
    for name in sorted(faces.arrays):
        values = faces.arrays[name][used, 0].astype(np.float32)
        finite = np.isfinite(values)
        known |= finite.any(1)
        values = np.where(finite, values, 0)
        spread = values.std() or 1.0
        places += values / spread @ rng.normal(size=(values.shape[1], DIRECTIONS)).astype("f4")
    places /= np.sqrt(max(1, sum(value.shape[2] for value in faces.arrays.values())))
    reals, fakes = (np.flatnonzero(known & (labels == label)) for label in (0, 1))
    if not len(reals) or not len(fakes):
        return
    distance, nearest = KDTree(places[reals]).query(places[fakes])
    same = distance < SAME
    pairs = [(names[a], names[b]) for a, b in zip(fakes[same], reals[nearest[same]], strict=True)]
    if pairs:
        yield (
            f"{len(pairs)} fakes show the same face as a real picture, such as {_shown(pairs)}: one "
            "of the two labels must be wrong"
        )
    looks = {hashes[row]: names[row] for row in reals[::-1] if hashes[row].strip("0")}
    alike = [(names[row], looks[hashes[row]]) for row in fakes[~same] if hashes[row] in looks]
    if alike:
        yield (
            f"{len(alike)} fakes have the perceptual hash of a real picture, such as {_shown(alike)}: "
            "they were made from it, or one of the two labels is wrong"
        )


def _shown(pairs: list[tuple[str, str]]) -> str:
    return for_screen("; ".join(f"{fake} = {real}" for fake, real in pairs[:NAMED]))


def on_columns(names: Sequence[str], values: np.ndarray, labels: np.ndarray) -> list[str]:
    """About the columns of the training faces. values: (N, F), NaN where missing."""
    notes, missing = [], np.isnan(values)
    low, high = (np.where(missing, x, values) for x in (np.inf, -np.inf))
    spread = high.max(0) - low.min(0)
    if constant := int((~(spread > 0)).sum()):
        first = names[int(np.argmin(spread > 0))]
        notes.append(
            f"{constant} of {len(names)} columns have the same value for all training faces, such as "
            f"{first}"
        )
    if len(set(labels.tolist())) == 2:
        notes += _telling_gaps(names, missing, labels)
    return notes


def _telling_gaps(names: Sequence[str], missing: np.ndarray, labels: np.ndarray) -> Iterator[str]:
    outputs = np.array([name.partition("/")[0] for name in names])
    for output in dict.fromkeys(outputs.tolist()):
        shares = [missing[labels == label][:, outputs == output].mean() for label in (0, 1)]
        if abs(shares[0] - shares[1]) > GAP:
            yield (
                f"{output} is missing for {shares[0]:.0%} of the real and {shares[1]:.0%} of the "
                "fake training faces: that alone tells them apart, and may be what is learned"
            )


def on_figures(rows: Mapping[str, Mapping]) -> list[str]:
    """About the validation figures. rows: as of `training.detector.figures`."""
    notes = []
    for name, row in rows.items():
        value, low, high = (row["auc"][key] for key in ("value", "low", "high"))
        if value is not None and (low is None or low <= 0.5):
            span = "too few groups for an interval" if low is None else f"{low:.3f} to {high:.3f}"
            notes.append(
                f"{name}: AUC {value:.3f} ({span}): not shown to be better than chance on validation"
            )
    return notes
