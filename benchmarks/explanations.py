"""How far explanations can be trusted: on pseudo-fakes of a known part, and on labelled faces.

    python -m benchmarks.explanations --features outputs/features/A/lite outputs/features/B/lite

Localisation: is the part of a face (of three) that was swapped the one that disagrees most?
Deletion: does restoring the predicted part lower the score more than restoring another part?
Abstention: accuracy, at p_fake one half, of the verdicts given and of the least unusual faces.
Intervals are 95% bootstrap intervals by group; docs/explanations.md. --out DIR also writes JSON and
curves.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import logit
from tqdm import tqdm

from command_line import run
from data.alignment import SIZE, similarity
from data.dump import Dump, landmarks_of, read_dump
from data.feature_dataset import join_dumps
from data.files import write_json
from data.images import read_image
from data.quality import QUALITIES
from evaluation.metrics import auc, bootstrap
from features.regions import BOXES
from inference.detector import Detector
from inference.verdict import UNSURE, Verdict, out_of_distribution
from training.pseudo_fakes import region_swap

PARTS = ("upper", "middle", "lower")
PART_OF = {"eyes": "upper", "nose": "middle", "mouth": "lower", "jaw": "lower"}
ORDER = ("eyes", "nose", "mouth", "eyes", "nose", "jaw")  # each part equally often
SHARES = (1.0, 0.95, *np.arange(0.9, 0.05, -0.1).round(1).tolist())  # of the faces, for the curves
MIN_FACE, MAX_YAW = 70, 25  # px, degrees: faces of which a part can be swapped

Interval = tuple[float, float, float]  # value, low, high


@dataclass
class Config:
    features: tuple[Path, ...]
    """dumps with real faces, and fakes for the abstention figures"""
    checkpoint: Path | None = None
    """folder of the detector, instead of the bundled one"""
    split: str = "test"
    """whose faces to use"""
    faces: int = 300
    """pseudo-fakes of each dump"""
    seed: int = 0
    out: Path | None = None
    """folder for explanations.json and coverage-DATASET.png"""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


def interval(values: np.ndarray, groups: Sequence[str]) -> Interval | None:
    """Mean and 95% bootstrap interval by group; None for fewer than two values."""
    if len(values) < 2:
        return None
    values = np.asarray(values, float)
    found = bootstrap({"mean": lambda _, drawn: drawn.mean()}, values, values, groups)
    return float(values.mean()), *found["mean"]


def predicted_part(verdict: Verdict) -> str:
    """The part of the face that disagrees most."""
    scores = {region.name: region.disagreement for region in verdict.regions}
    return max(PARTS, key=lambda name: -np.inf if scores[name] is None else scores[name])


def part_mask(part: str, landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels (H, W) bool of a photograph in a part of its face, within the template."""
    scale, shift = (value[0] for value in similarity(landmarks[None]))
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    point = ((x + 1j * y) - shift) / scale / SIZE + (0.5 + 0.5j) / SIZE
    x0, y0, x1, y1 = BOXES[part]
    return (point.real >= x0) & (point.real < x1) & (point.imag >= y0) & (point.imag < y1)


def manipulate(
    detector: Detector, dumps: Sequence[Dump], split: str, count: int, seed: int
) -> pd.DataFrame:
    """One row per pseudo-fake.

    Columns: dataset, group, kind, `manipulated` and `predicted` part, `predicted_before` on the
    real face, p_fake of `real` and `fake`, and with one part restored: `upper`, `middle`, `lower`.
    """
    rng, found = np.random.default_rng(seed), []
    for dump in dumps:
        rows, name = dump.rows, dump.meta["dataset"]
        good = (rows["label"] == 0) & (rows["split"] == split)
        good &= (rows["face_px"] > MIN_FACE) & (np.abs(rows["yaw"]) < MAX_YAW)
        order = rng.permutation(np.flatnonzero(good))[:count]
        landmarks, root = landmarks_of(rows), Path(dump.meta["data_root"])
        for i, row in enumerate(tqdm(order, desc=f"pseudo-fakes of {name}", disable=None)):
            kind = ORDER[i % len(ORDER)]
            donor = order[(i + 1 + rng.integers(max(1, len(order) - 1))) % len(order)]
            if donor == row:
                continue
            try:
                real, source = (read_image(root / rows["path"][each]) for each in (row, donor))
                fake, _ = region_swap(real, source, *landmarks[[row, donor]], kind, seed=i)
            except ValueError:  # no readable picture, or no face that can be swapped
                continue
            masks = [part_mask(part, landmarks[row], *real.shape[:2])[..., None] for part in PARTS]
            restored = [np.where(mask, real, fake) for mask in masks]
            verdicts = detector.predict_images([real, fake, *restored], ["real", "fake", *PARTS])
            if any(verdict.error for verdict in verdicts):
                continue
            record = {"dataset": name, "group": f"{name}/{rows['group'][row]}", "kind": kind}
            record |= {"manipulated": PART_OF[kind], "predicted": predicted_part(verdicts[1])}
            record["predicted_before"] = predicted_part(verdicts[0])
            found.append(record | {verdict.path: verdict.p_fake for verdict in verdicts})
    return pd.DataFrame(found)


def localisation(found: pd.DataFrame) -> dict[str, int | Interval | None]:
    """Localisation and deletion figures of `manipulate`'s rows."""
    groups, hits = found["group"], found["predicted"] == found["manipulated"]
    falls = logit(found[["fake"]].to_numpy()) - logit(found[list(PARTS)].to_numpy())  # (N, 3)
    rows, suspect = np.arange(len(found)), found["fake"] >= 0.5
    by_predicted, by_manipulated = (
        falls[rows, found[name].map(PARTS.index)] for name in ("predicted", "manipulated")
    )
    others = (falls.sum(1) - by_predicted) / (len(PARTS) - 1)
    before = found["predicted_before"] == found["manipulated"]
    return {
        "pseudo-fakes": len(found),
        "predicted part is the manipulated one": interval(hits, groups),
        "the same, p_fake at least one half": interval(hits[suspect], groups[suspect]),
        "the same before the manipulation": interval(before, groups),
        "fall of the logit, predicted part restored": interval(by_predicted, groups),
        "another part restored": interval(others, groups),
        "difference of the two": interval(by_predicted - others, groups),
        "manipulated part restored": interval(by_manipulated, groups),
    }


def abstention(detector: Detector, dump: Dump, split: str) -> dict:
    """Accuracy of the verdicts given, and of the nearest faces and the surest scores."""
    faces = join_dumps([dump]).split(split)
    values, p_fake = detector.score(faces.arrays)
    known = np.flatnonzero(~np.isnan(p_fake))
    faces, values, p_fake = faces.select(known), values[known], p_fake[known]
    label, groups = faces.rows["label"], faces.rows["group"]
    right = (p_fake >= 0.5) == (label == 1)
    quality = pd.DataFrame({name: faces.rows[name] for name in QUALITIES}).to_dict("records")
    verdicts = list(map(detector.decide, p_fake.tolist(), values, quality))
    given = np.array([verdict != UNSURE for verdict, _ in verdicts])
    unusual = np.array([out_of_distribution(reasons) for _, reasons in verdicts])
    by_distance = np.argsort(detector.head.distance(values))
    by_score = np.argsort(-np.abs(p_fake - 0.5))
    curve = []
    for share in SHARES:
        size = max(2, round(share * len(faces)))
        near, sure = by_distance[:size], by_score[:size]
        both = len(set(label[near])) == 2
        point = {"coverage": share, "accuracy of the nearest": interval(right[near], groups[near])}
        point["auc of the nearest"] = auc(label[near], p_fake[near]) if both else None
        curve.append(point | {"accuracy of the surest": interval(right[sure], groups[sure])})
    return {
        "faces": len(faces),
        "coverage of the verdicts": float(given.mean()),
        "accuracy of the verdicts": interval(right[given], groups[given]),
        "accuracy on all faces": interval(right, groups),
        "share out of distribution": float(unusual.mean()),
        "accuracy out of distribution": interval(right[unusual], groups[unusual]),
        "curve": curve,
    }


def plot(result: dict, path: Path) -> None:
    """Accuracy by coverage."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    axes = figure.add_subplot(xlabel="coverage", ylabel="accuracy at p_fake one half")
    axes.invert_xaxis()
    x = [point["coverage"] for point in result["curve"]]
    for name in ("surest", "nearest"):
        points = [point[f"accuracy of the {name}"] for point in result["curve"]]
        value, low, high = zip(*points, strict=True)
        axes.plot(x, value, "o-", label=f"the {name} faces")
        axes.fill_between(x, low, high, alpha=0.15)
    if accuracy := result["accuracy of the verdicts"]:
        axes.plot(result["coverage of the verdicts"], accuracy[0], "k*", label="the verdicts given")
    axes.legend()
    figure.savefig(path)


def line(name: str, value: float | Interval | None) -> str:
    if isinstance(value, tuple):
        text = "{:>8.3f}  95% {:.3f} to {:.3f}".format(*value)
    elif isinstance(value, float):
        text = f"{value:>8.3f}"
    else:
        text = f"{'n/a' if value is None else value:>8}"
    return f"  {name:<46}{text}"


def main(config: Config) -> None:
    detector = Detector(config.checkpoint, config.device)
    dumps = [read_dump(path) for path in config.features]
    for dump in dumps:
        detector.checkpoint.check_outputs(dump.meta, str(dump.path))
    split, abstained = config.split, {}
    found = manipulate(detector, dumps, split, config.faces, config.seed)
    if found.empty:
        raise ValueError(f"no real face of split {split!r} could be used; are the pictures there?")
    faithful = localisation(found)
    print(f"\nLocalisation and deletion, {split} faces; chance is 0.333")
    print("\n".join(map(line, *zip(*faithful.items(), strict=True))))
    for dump in dumps:
        name = dump.meta["dataset"]
        abstained[name] = figures = abstention(detector, dump, split)
        print(f"\nAbstention, {name} {split}")
        print("\n".join(line(key, value) for key, value in figures.items() if key != "curve"))
        for point in figures["curve"]:
            share, accuracy = point["coverage"], point["accuracy of the nearest"]
            print(line(f"nearest {share:.0%}: accuracy", accuracy))
    if config.out:
        config.out.mkdir(parents=True, exist_ok=True)
        results = {"split": split, "localisation": faithful, "abstention": abstained}
        results["pseudo_fakes"] = found.to_dict("records")
        write_json(config.out / "explanations.json", results)
        for name, figures in abstained.items():
            plot(figures, config.out / f"coverage-{name}.png")


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__, name="benchmarks.explanations"))
