"""Protocol `reference`: test faces against genuine photographs of the people whom they claim to show.

Positive is a claim that is wrong: a swap that claims to show the person whose head it is, or whose face
it is, or a genuine picture of somebody else. Nobody in the test split was seen by what is measured, if
the splits are of people. Photographs and pictures of one source are never compared (data/claims.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from data.claims import FACE, GENUINE, HEAD, OTHER, Claims, claims_of
from data.dump import Dump, landmarks_of
from data.feature_dataset import FeatureDataset
from data.video import split_frame
from evaluation.delong import delong
from evaluation.events import same_event, surroundings
from evaluation.measure import false_alarm_rows
from evaluation.metrics import auc, eer, interval, tpr_at_fpr
from evaluation.metrics_table import counts_of
from evaluation.plan import Config, degraded_tests, people_in, root_of
from evaluation.protocols import datasets_of, of_dataset
from features.reference import PATTERNS, column, identities, names_of, output_of
from features.regions import REGIONS
from inference.comparison import (
    CANNOT_TELL,
    REFERENCE,
    REFERENCE_LITE,
    Comparison,
    beyond,
    similarities_of,
)
from inference.scorer import Scorer
from models.checkpoint import Checkpoint
from training.reference import FPR, LIMITS, fits_of, weights_of

log = logging.getLogger("masc")
PROTOCOL = "reference"
MASC = "MASC, with photographs"
VERIFICATION = "whole-face verification"
REGION = "region "
# Regions of which no degradation is told.
WITHOUT = tuple(f"{REGION}{region} " for region in REGIONS if region not in ("inner", "outer"))
SINGLE = "the picture alone"
COUNTS = (1, 2, 3, 4, 8)  # photographs
CLAIMS = {FACE: "face's person", HEAD: "head's person", OTHER: "somebody else"}
MIN_CLAIMS = 20
MEASURED = ("face_px", "sharpness", "yaw")  # of a face, which a degradation changes
EVERY = "all claims"
BINS = 10  # of p_conflict
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.5)
SUSPECT, PHOTOGRAPHS, EVENTS = "picture degraded", "photographs degraded", "other events"
FIGURES = {"auc": auc, "eer": eer, "tpr_at_1pct_fpr": tpr_at_fpr}


@dataclass(frozen=True)
class Scored:
    """Claims of one number of photographs. scores: system -> (M,), higher where the claim is wrong."""

    claims: Claims
    scores: dict[str, np.ndarray]
    probabilities: np.ndarray  # (M, 4)
    doubtful: np.ndarray  # (M,) bool: outside the limits of the comparison
    groups: np.ndarray  # (M,) the person whose picture it is
    methods: np.ndarray  # (M,) how a swap was made

    def select(self, keep: np.ndarray) -> Scored:
        scores = {name: x[keep] for name, x in self.scores.items()}
        rest = (self.probabilities, self.doubtful, self.groups, self.methods)
        return Scored(self.claims.select(keep), scores, *(x[keep] for x in rest))


def score(
    claims: Claims,
    comparison: Comparison,
    faces: FeatureDataset,
    photographs: FeatureDataset | None = None,
    p_fake: np.ndarray | None = None,
) -> Scored:
    """Claims of one number of photographs; those without an output are left out.

    photographs: the same rows, where they are degraded; p_fake: (N,) of the faces by a detector.
    """
    count = len(claims.photographs[0]) if len(claims) else 1
    own = None if photographs is None else photographs.arrays
    verifiers = [name for name in faces.arrays if name.endswith(".identity")]
    outputs = list(dict.fromkeys((*comparison.outputs, *verifiers)))
    values = similarities_of(claims, outputs, faces.arrays, own)
    by_name = dict(zip(names_of(outputs), values.T, strict=True))
    used = np.stack([by_name[name] for name in comparison.columns], axis=1)
    probabilities = comparison.of(count).probabilities(used)
    scores = {MASC: 1 - probabilities[:, GENUINE]}
    scores |= {f"{VERIFICATION} ({x})": -by_name[column(x, "full")] for x in verifiers}
    shown = [name for name in by_name if name.rpartition("/")[2] in ("inner", "outer")]
    for name in dict.fromkeys((*shown, *comparison.columns)):
        region = name.rpartition("/")[2]
        if region != "full":  # verification
            scores[f"{REGION}{region} ({output_of(name)})"] = -by_name[name]
    scores = {name: score for name, score in scores.items() if np.isfinite(score).any()}
    if p_fake is not None:
        scores[SINGLE] = p_fake[claims.row]
    rows, doubtful = faces.rows, np.zeros(len(claims), bool)
    for name, limit in comparison.limits.items():
        if name != "seen":  # which a dump does not hold
            value = rows["sharpness" if name == "noise" else name][claims.row]
            doubtful |= beyond(value, name, limit)
    about = (rows["person"][claims.row], rows["method"][claims.row])
    found = Scored(claims, scores, probabilities, doubtful, *about)
    return found.select(np.isfinite(used).all(1))


def figures(
    faces: FeatureDataset,
    comparison: Comparison,
    replicates: int,
    alone: Callable[[FeatureDataset], np.ndarray] | None = None,
    degraded: Mapping[str, FeatureDataset] | None = None,
    crops: np.ndarray | None = None,
) -> Iterator[dict]:
    """Rows of metrics.csv of one dataset.

    faces: of the test split; alone: p_fake of faces by a detector of single pictures; degraded: condition
    -> the same rows, NaN outputs where the face was lost; crops: of the faces, for `same_event`.
    """
    claims, dataset = claims_of(faces.rows), str(faces.rows["dataset"][0])
    about = {
        "protocol": PROTOCOL,
        "run": run_of(dataset),
        "level": "frame",
        "kind": PROTOCOL,
    }

    def rows(found: Scored, count: int, all_systems: bool, **more: str) -> Iterator[dict]:
        for row in claim_rows(found, comparison, count, replicates, all_systems):
            yield {**about, "size": count, **row, **more}

    for count in COUNTS:
        chosen = claims.with_photographs(count)
        if (chosen.kind == GENUINE).sum() < MIN_CLAIMS:
            continue
        found = score(chosen, comparison, faces, p_fake=alone and alone(faces))
        yield from rows(found, count, all_systems=True)
        if count > 1:
            continue
        error = calibration_error(found)
        row = {"metric": "ece", "value": error, "n": len(found.claims), "test": EVERY}
        yield {**about, "size": count, "system": MASC, **row}
        for coverage, right in coverages(found, comparison, count):
            row = {"metric": "named", "value": right, "n": len(found.claims)}
            yield {
                **about,
                "size": count,
                "system": MASC,
                "test": f"coverage {coverage:.0%}",
                **row,
            }
        if crops is not None:
            pairs = np.array(
                [
                    [row, refs[0]]
                    for row, refs in zip(found.claims.row, found.claims.photographs, strict=True)
                ]
            )
            apart = ~same_event(crops, *pairs.T)
            yield from rows(found.select(apart), count, all_systems=True, group=EVENTS)
        for condition, other in (degraded or {}).items():
            lost = score(chosen, comparison, other, faces, alone and alone(other))
            yield from rows(lost, count, False, condition=condition, group=SUSPECT)
            lost = score(chosen, comparison, faces, other)
            yield from rows(lost, count, False, condition=condition, group=PHOTOGRAPHS)


def claim_rows(
    found: Scored, comparison: Comparison, count: int, replicates: int, all_systems: bool
) -> Iterator[dict]:
    """AUC, EER and TPR by claim and donor; DeLong against MASC; what is said of each."""
    kind, fit = found.claims.kind, comparison.of(count)
    named = np.array([fit.pattern(p) for p in found.probabilities], object)
    named[found.doubtful] = CANNOT_TELL
    genuine = kind == GENUINE
    conflict = found.scores[MASC]
    told = genuine & ~found.doubtful
    alarms = false_alarm_rows(
        np.where(told, conflict, 0)[genuine], found.groups[genuine], fit.threshold
    )
    yield from ({"system": MASC, "test": "genuine", **row} for row in alarms)
    yield {"system": MASC, "test": "genuine", **_share(named[genuine], PATTERNS[GENUINE])}
    for claim, title in CLAIMS.items():
        methods = sorted({*found.methods[kind == claim].tolist()} - {""})
        for method in ("", *methods):
            of_claim = (kind == claim) & ((found.methods == method) | (method == ""))
            keep = genuine | of_claim
            if min(of_claim.sum(), genuine.sum()) < MIN_CLAIMS:
                continue
            test = f"{title}, {method}" if method else title
            y, groups = of_claim[keep].astype(int), found.groups[keep]
            counts = counts_of(y, groups)
            for system, scores in found.scores.items():
                if not all_systems and system.startswith(WITHOUT):
                    continue
                scores, known = scores[keep], np.isfinite(scores[keep])
                for metric, figure in FIGURES.items() if all_systems else [("auc", auc)]:
                    cell = interval(figure, y[known], scores[known], groups[known], replicates)
                    yield {"system": system, "test": test, "metric": metric, **counts, **cell}
                if system != MASC and known.all():
                    compared = delong(y, conflict[keep], scores)
                    delta = {"value": compared["difference"]} | {
                        x: compared[x] for x in ("low", "high")
                    }
                    yield {"system": system, "test": test, "metric": "delta_auc", **counts, **delta}
                    p = {"metric": "delong_p", "value": compared["p"]}
                    yield {"system": system, "test": test, **p, **counts}
            right = _share(named[of_claim], PATTERNS[claim])
            yield {"system": MASC, "test": test, **right}


def _share(named: np.ndarray, pattern: str) -> dict:
    """How often the right pattern is named; a note says what else is."""
    counts = {name: int((named == name).sum()) for name in (*PATTERNS, CANNOT_TELL)}
    note = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    value = float((named == pattern).mean()) if len(named) else np.nan
    return {"metric": "named", "value": value, "n": len(named), "note": note}


def calibration_error(found: Scored) -> float:
    """Expected calibration error of p_conflict, every kind of claim as frequent as the prior says."""
    p, wrong = found.scores[MASC], found.claims.kind != GENUINE
    weight = weights_of(found.claims.kind)
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    sums = [np.bincount(place, weight * x, BINS) for x in (p, wrong)]
    return float(np.abs(sums[0] - sums[1]).sum() / weight.sum())


def coverages(found: Scored, comparison: Comparison, count: int) -> Iterator[tuple[float, float]]:
    """(Share of claims that are answered, the surest first, share of those named rightly).

    Every kind of claim weighs as in `training.reference.PRIOR`.
    """
    forced = replace(comparison.of(count), clear_below=comparison.of(count).threshold)
    named = np.array([forced.pattern(p) for p in found.probabilities], object)
    right = named == np.array(PATTERNS, object)[found.claims.kind]
    sure, weight = found.probabilities.max(1), weights_of(found.claims.kind)
    order = np.argsort(-sure, kind="stable")
    share = np.cumsum(weight[order]) / weight.sum()
    for coverage in COVERAGES:
        chosen = order[: int(np.searchsorted(share, coverage - 1e-9)) + 1]
        yield coverage, float(np.average(right[chosen], weights=weight[chosen]))


def comparison_for(faces: FeatureDataset, meta: Mapping) -> Comparison | None:
    """A bundled comparison, if the dump is of its experts; else one fitted on the split `val`."""
    for path in (REFERENCE, REFERENCE_LITE):
        with suppress(FileNotFoundError):
            bundled = Comparison.load(path)
            if all(meta["weights"].get(name) == x for name, x in bundled.weights.items()):
                return bundled
    outputs = tuple(identities(meta["outputs"]))
    try:
        columns, fits, about = fits_of(faces.split("val"), outputs, FPR)
    except ValueError:
        return None
    return Comparison(tuple(columns), {}, fits, LIMITS, about)


def run_of(dataset: str) -> str:
    return f"{PROTOCOL}-{dataset}"


def runs_of(config: Config, faces: FeatureDataset) -> dict[str, dict]:
    """Entries of report.json's `runs`. Nothing is trained; people of `val` may fit a comparison."""
    found = {}
    for dataset in people_in(config, faces):
        own, nobody = of_dataset(faces, dataset), faces.select(np.arange(0))
        parts = {"train": nobody, "val": own.split("val")}
        found[run_of(dataset)] = {
            "protocol": PROTOCOL,
            "title": f"{dataset}, against genuine photographs of the person",
            "remarks": [],
            **{name: {"datasets": datasets_of(x), **x.counts()} for name, x in parts.items()},
        }
    return found


def aligned(faces: FeatureDataset, other: FeatureDataset) -> FeatureDataset:
    """The rows of `faces` as they are in a degraded dump of them; NaN where the face was lost."""
    place = {key: row for row, key in enumerate(_keys(other))}
    rows = np.array([place.get(key, -1) for key in _keys(faces)])
    arrays = {
        name: np.where((rows >= 0)[:, None, None], array[rows], np.float16(np.nan))
        for name, array in other.arrays.items()
    }
    quality = {name: np.where(rows >= 0, other.rows[name][rows], np.nan) for name in MEASURED}
    return replace(faces, arrays=arrays, rows={**faces.rows, **quality})


def _keys(faces: FeatureDataset) -> list[tuple]:
    return list(zip(faces.rows["path"].tolist(), faces.rows["face"].tolist(), strict=True))


def rows_of(
    config: Config, faces: FeatureDataset, dumps: Sequence[Dump], checkpoint: Checkpoint | None
) -> Iterator[dict]:
    """Figures of the protocol `reference`, of every dataset that knows its people.

    By the bundled comparison; where the dumps are of other experts, by one fitted on their people of
    the split `val`.
    """
    wanted = people_in(config, faces)
    known = {str(faces.rows["dataset"][row]) for row in np.flatnonzero(faces.rows["person"] != "")}
    for name in sorted(known - set(wanted)) if "reference" in config.protocols else ():
        log.info(
            "%s: its people have too few real test pictures of other clips to compare with", name
        )
    for dump in (each for each in dumps if each.meta["dataset"] in wanted):
        own = of_dataset(faces, dump.meta["dataset"])
        comparison, test = comparison_for(own, dump.meta), own.split("test")
        if comparison is None:
            log.warning("%s: too few people of the split val to fit a comparison", dump.path)
            continue
        scorer = checkpoint and Scorer(checkpoint)
        alone = scorer and (lambda some, scorer=scorer: scorer.score(some.arrays)[1])
        degraded = {}
        if config.degradations:
            if config.limit:
                log.warning(
                    "--limit does not hold for the protocol `reference`: people would lack photographs"
                )
            _, found = degraded_tests(config, dump, None)
            degraded = {str(each): aligned(test, x) for each, x in found.items()}
        paths = [root_of(config, dump) / path for path in test.rows["path"].tolist()]
        there = not any(map(split_frame, test.rows["path"].tolist())) and paths[0].is_file()
        crops = surroundings(paths, landmarks_of(test.rows)) if there else None
        yield from figures(test, comparison, config.replicates, alone, degraded, crops)
