"""Can the explanations be trusted? Measured on forgeries whose altered part is known, and on labelled faces.

    python -m benchmarks.explanations --features outputs/features/A/lite outputs/features/B/lite
    python -m benchmarks.explanations --features outputs/features/A/lite --checkpoint checkpoints/mine --split val --faces 400

Blame: eyes, nose, mouth or jaw of a real face are replaced by somebody else's (data/forge.py). How often is the part of the
face that disagrees most the one that was altered: upper, middle or lower? Each is altered equally often: chance is one third.
Deletion: the blamed part of the forgery is given back the original's pixels; so is, in turn, each other part. Does the score
fall more for the blamed one? Beside it, what giving back the part that was really altered does.
Coverage: on the labelled faces of the split, how accurate are verdicts where one is given, and how accurate would they be if
the least usual faces were left out, few or many? Accuracy is that of p_fake at one half.

Prints all, with 95% bootstrap intervals by group; --out DIR also writes them as JSON, and the curve as a picture.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data import forge
from data.dump import Dump, landmarks_of, read_dump
from data.faces import similarity
from data.feature_dataset import join_dumps
from data.images import ImageError, read_image
from data.quality import QUALITIES
from evaluation.metrics import auc, bootstrap
from features.regions import BOXES
from inference.detector import BUNDLED, Detector
from inference.verdict import UNSURE, Verdict, out_of_distribution

ALTERED = {"eyes": "upper", "nose": "middle", "mouth": "lower", "jaw": "lower"}
ORDER = ("eyes", "nose", "mouth", "eyes", "nose", "jaw")  # each part of the face equally often
BLAMED = ("upper", "middle", "lower")


def interval(values: np.ndarray, groups: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95% bootstrap interval by group. values, groups: (N,)."""
    found = bootstrap(
        {"mean": lambda _, drawn: float(drawn.mean())}, values, values, groups.tolist()
    )
    return float(values.mean()), *found["mean"]


def blamed(verdict: Verdict) -> str:
    """The part that disagrees most, of those that a forgery here may alter."""
    apart = {
        region.name: region.disagreement for region in verdict.regions if region.name in BLAMED
    }
    return max(apart, key=lambda name: -np.inf if apart[name] is None else apart[name])


def part_mask(part: str, landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Which pixels of a picture lie in a part of its face: (H, W) bool. landmarks: (5, 2)."""
    scale, shift = (value[0] for value in similarity(landmarks[None]))
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    template = ((x + 1j * y) - shift) / scale / 112 + (0.5 + 0.5j) / 112
    x0, y0, x1, y1 = BOXES[part]
    # Parts that reach the template's border end there: what lies beyond is hardly seen, and is nobody's face.
    return (
        (template.real >= x0) & (template.real < x1) & (template.imag >= y0) & (template.imag < y1)
    )


def forgeries(
    detector: Detector, dumps: list[Dump], split: str, count: int, seed: int
) -> list[dict]:
    """What was altered, what was blamed, and p_fake of the original, the forgery, and the forgery with each part given back."""
    rng, found = np.random.default_rng(seed), []
    for dump in dumps:
        rows = dump.rows
        good = (
            (rows["label"] == 0)
            & (rows["split"] == split)
            & (rows["face_px"] > 70)
            & (np.abs(rows["yaw"]) < 25)
        )
        order = rng.permutation(np.flatnonzero(good))[:count]
        landmarks, root = landmarks_of(rows), Path(dump.meta["data_root"])
        for place, row in enumerate(
            tqdm(order, desc=f"forgeries of {dump.meta['dataset']}", unit=" faces", disable=None)
        ):
            kind = ORDER[place % len(ORDER)]
            donor = order[(place + 1 + rng.integers(max(1, len(order) - 1))) % len(order)]
            if donor == row:
                continue
            try:
                image, other = (read_image(root / rows["path"][each]) for each in (row, donor))
                forged, _ = forge.region_swap(
                    image, other, landmarks[row], landmarks[donor], kind, seed=place
                )
            except (ImageError, ValueError):
                continue
            back = [
                np.where(part_mask(p, landmarks[row], *image.shape[:2])[..., None], image, forged)
                for p in BLAMED
            ]
            said = detector.predict_images([image, forged, *back], list("abcde"))
            if len(said) != 5 or any(verdict.error for verdict in said):
                continue
            p_fake = dict(
                zip(
                    ("original", "forged", *BLAMED),
                    (verdict.p_fake for verdict in said),
                    strict=True,
                )
            )
            told = {
                "altered": ALTERED[kind],
                "kind": kind,
                "blamed": blamed(said[1]),
                "untouched": blamed(said[0]),
            }
            whose = {"dataset": dump.meta["dataset"], "group": str(rows["group"][row])}
            found.append({**whose, **told, "p_fake": p_fake})
    return found


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


def faithfulness(found: list[dict]) -> dict:
    """Blame and deletion, with intervals. found: of `forgeries`."""
    groups = np.array([f"{each['dataset']}/{each['group']}" for each in found])
    hits = np.array([each["blamed"] == each["altered"] for each in found], float)
    still = np.array([each["untouched"] == each["altered"] for each in found], float)
    falls = {"blamed": [], "another": [], "altered": []}
    for each in found:
        whole = logit(each["p_fake"]["forged"])
        fall = {part: whole - logit(each["p_fake"][part]) for part in BLAMED}
        falls["blamed"].append(fall[each["blamed"]])
        falls["altered"].append(fall[each["altered"]])
        falls["another"].append(
            np.mean([value for part, value in fall.items() if part != each["blamed"]])
        )
    arrays = {name: np.array(values) for name, values in falls.items()}
    return {
        "forgeries": len(found),
        "blamed is altered": interval(hits, groups),
        "of those with p_fake of at least one half": _some(
            hits, groups, np.array([each["p_fake"]["forged"] >= 0.5 for each in found])
        ),
        "same part of the untouched face": interval(still, groups),
        "logit falls by, blamed part given back": interval(arrays["blamed"], groups),
        "another part given back": interval(arrays["another"], groups),
        "blamed less another": interval(arrays["blamed"] - arrays["another"], groups),
        "altered part given back": interval(arrays["altered"], groups),
    }


def _some(
    values: np.ndarray, groups: np.ndarray, keep: np.ndarray
) -> tuple[float, float, float] | None:
    return interval(values[keep], groups[keep]) if keep.sum() > 1 else None


def coverage(detector: Detector, dumps: list[Dump], split: str) -> dict:
    """Accuracy of the verdicts that are given, and of those on the most usual share of the faces."""
    faces = join_dumps(dumps).split(split)
    values, p_fake = detector.score(faces.arrays)
    rows = faces.rows
    known = np.flatnonzero(~np.isnan(p_fake))
    label, groups = rows["label"][known], rows["group"][known]
    right = ((p_fake[known] >= 0.5) == (label == 1)).astype(float)
    told = [
        detector.decide(
            float(p_fake[row]), values[row], {name: float(rows[name][row]) for name in QUALITIES}
        )
        for row in known
    ]
    given = np.array([verdict != UNSURE for verdict, _ in told])
    usual = np.array([not out_of_distribution(doubts) for _, doubts in told])
    order = np.argsort(detector.head.distance(values[known]))
    sure = np.argsort(-np.abs(p_fake[known] - 0.5))
    curve = []
    for share in (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1):
        kept, surest = (rank[: max(2, round(share * len(known)))] for rank in (order, sure))
        curve.append(
            {
                "coverage": share,
                "accuracy": interval(right[kept], groups[kept]),
                "auc": auc(label[kept], p_fake[known][kept])
                if len(set(label[kept])) == 2
                else None,
                "accuracy of the surest": interval(right[surest], groups[surest]),
            }
        )
    return {
        "faces": len(known),
        "judged": float(given.mean()),
        "accuracy of what is judged": _some(right, groups, given),
        "accuracy of all": interval(right, groups),
        "unlike what was seen": float(1 - usual.mean()),
        "accuracy of those": _some(right, groups, ~usual),
        "curve": curve,
    }


def draw(result: dict, path: Path) -> None:
    """Accuracy by coverage, leaving out the least usual faces, and leaving out the least sure scores."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for key, name, colour in (
        ("accuracy of the surest", "the least sure scores left out", "#0072b2"),
        ("accuracy", "the least usual faces left out", "#d55e00"),
    ):
        x = [point["coverage"] for point in result["curve"]]
        value, low, high = zip(*(point[key] for point in result["curve"]), strict=True)
        axes.plot(x, value, "o-", color=colour, label=name, markersize=4)
        axes.fill_between(x, low, high, color=colour, alpha=0.15)
    if result["accuracy of what is judged"]:
        axes.plot(
            [result["judged"]],
            [result["accuracy of what is judged"][0]],
            "k*",
            markersize=13,
            label="the verdicts given",
        )
    axes.set(
        xlabel="share of faces that are judged",
        ylabel="accuracy at p_fake one half",
        xlim=(1.02, 0.08),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)


def said(name: str, value: object) -> str:
    if isinstance(value, tuple):
        return f"  {name:<46}{value[0]:>8.3f}  95% {value[1]:.3f} to {value[2]:.3f}"
    return f"  {name:<46}{value if isinstance(value, int | str) else f'{value:8.3f}' if value is not None else 'n/a':>8}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--features",
        type=Path,
        nargs="+",
        required=True,
        help="dumps with real faces, and fakes for coverage",
    )
    parser.add_argument("--checkpoint", type=Path, default=BUNDLED)
    parser.add_argument("--split", default="test")
    parser.add_argument(
        "--faces", type=int, default=300, help="forgeries of each dump (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for explanations.json and coverage.png")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    try:
        detector = Detector(args.checkpoint, args.device)
        dumps = [read_dump(path) for path in args.features]
        for dump in dumps:
            detector.checkpoint.check_outputs(dump.meta, str(dump.path))
        found = forgeries(detector, dumps, args.split, args.faces, args.seed)
        if not found:
            raise ValueError(f"no face of split {args.split!r} could be forged and judged again")
        trusted, told = faithfulness(found), {}
        print(f"\nBlame and deletion, {args.split} faces; chance is 0.333")
        print("\n".join(said(name, value) for name, value in trusted.items()))
        for dump in dumps:
            name = dump.meta["dataset"]
            told[name] = coverage(detector, [dump], args.split)
            print(f"\nCoverage, {name} {args.split}")
            print(
                "\n".join(said(key, value) for key, value in told[name].items() if key != "curve")
            )
            for point in told[name]["curve"]:
                print(said(f"most usual {point['coverage']:.0%}: accuracy", point["accuracy"]))
        if args.out:
            args.out.mkdir(parents=True, exist_ok=True)
            everything = {
                "split": args.split,
                "faithfulness": trusted,
                "coverage": told,
                "forgeries": found,
            }
            (args.out / "explanations.json").write_text(json.dumps(everything, indent=1) + "\n")
            for name, result in told.items():
                draw(result, args.out / f"coverage-{name}.png")
    except (ValueError, OSError) as error:
        sys.exit(f"explanations: {error}")


if __name__ == "__main__":
    main()
