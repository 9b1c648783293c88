"""Measure the region network on faces and people it was never trained on, and write its model card.

    python -m scripts.region_net_card --teachers DIR [--weights FILE] [--card checkpoints/region_net.md]

Only the `test` fold of the teachers' folder counts. For the full face and for each region: verification of identity over
all pairs of labelled people (AUC, and TPR at 1% FPR), gender and race accuracy and age error against the labels, agreement
with the expression teacher, and correlation with the muscle-activation teacher. Intervals are 95% bootstrap intervals over
people (verification) or faces (the rest).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from data.distill import Teachers, load_teachers
from features.regions import REGIONS
from models import BUNDLED
from models.cards import fill
from models.region_net import load_region_net
from scripts.train_region_net import predict_all

REPETITIONS = 200
MOVING = 0.02  # a muscle activation counts if the teacher's standard deviation over the test faces is at least this

Interval = tuple[float, float, float]  # value, low, high


def bootstrap(statistic: Callable[[np.ndarray], float], count: int, seed: int = 0) -> Interval:
    """A statistic of row numbers, and its 95% interval when `count` rows are drawn again with replacement."""
    rng = np.random.default_rng(seed)
    draws = [statistic(rng.integers(0, count, count)) for _ in range(REPETITIONS)]
    return statistic(np.arange(count)), *np.quantile(draws, (0.025, 0.975))


def verification_intervals(
    unit: np.ndarray, person: np.ndarray, different: int = 100_000
) -> tuple[Interval, Interval]:
    """AUC and TPR at 1% FPR of 'same person?' by cosine, with intervals over people.

    unit: (N, D) L2-normalised; person: (N,) int. All same-person pairs, and `different` random pairs of two people.
    A pair weighs as often as both its people were drawn.
    """
    first, second = np.triu_indices(len(person), 1)
    same = person[first] == person[second]
    others = np.random.default_rng(0).choice(
        np.flatnonzero(~same), min(different, (~same).sum()), replace=False
    )
    pairs = np.concatenate([np.flatnonzero(same), others])
    first, second, same = first[pairs], second[pairs], same[pairs]
    scores = (unit[first] * unit[second]).sum(1)
    people, index = np.unique(person, return_inverse=True)

    def measure(drawn: np.ndarray) -> tuple[float, float]:
        times = np.bincount(drawn, minlength=len(people))
        weight = np.where(
            same, times[index[first]], times[index[first]] * times[index[second]]
        ).astype(float)
        order = np.argsort(-scores)
        false, true = np.cumsum((weight * ~same)[order]), np.cumsum((weight * same)[order])
        rate = true[np.searchsorted(false, 0.01 * false[-1])] / true[-1]
        return roc_auc_score(same, scores, sample_weight=weight), rate

    rng = np.random.default_rng(1)
    draws = np.array(
        [measure(rng.integers(0, len(people), len(people))) for _ in range(REPETITIONS // 4)]
    )
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    auc, rate = measure(np.arange(len(people)))
    return (auc, low[0], high[0]), (rate, low[1], high[1])


def measure_region(said: dict[str, np.ndarray], test: Teachers) -> dict[str, Interval]:
    """All figures of one region. said: what the network answered for the rows of `test`."""
    figures: dict[str, Interval] = {}
    known = test.person >= 0
    figures["identity AUC"], figures["TPR at 1% FPR"] = verification_intervals(
        said["identity"][known], test.person[known]
    )
    for name in ("gender", "race"):
        label = test.labels[name]
        right = (said[name].argmax(1) == label)[label >= 0]
        figures[f"{name} accuracy"] = bootstrap(
            lambda rows, right=right: float(right[rows].mean()), len(right)
        )
    age = test.labels["age"]
    error = np.abs(said["age_years"][:, 0] - age)[age >= 0]
    figures["age MAE, years"] = bootstrap(lambda rows: float(error[rows].mean()), len(error))
    agree = said["expression"].argmax(1) == test.targets["expression"].argmax(1)
    figures["expression agreement"] = bootstrap(lambda rows: float(agree[rows].mean()), len(agree))
    moving = test.targets["blendshapes"].std(0) >= MOVING
    given, wanted = said["blendshapes"][:, moving], test.targets["blendshapes"][:, moving]

    def correlation(rows: np.ndarray) -> float:
        a, b = given[rows] - given[rows].mean(0), wanted[rows] - wanted[rows].mean(0)
        return float(((a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0) + 1e-12)).mean())

    figures["blendshape correlation"] = bootstrap(correlation, len(given))
    return figures


def held_out(teachers: Teachers) -> Teachers:
    rows = teachers.fold == "test"
    return Teachers(
        teachers.faces[rows],
        {name: value[rows] for name, value in teachers.targets.items()},
        teachers.kinds,
        teachers.names,
        teachers.person[rows],
        teachers.fold[rows],
        teachers.source[rows],
        {name: value[rows] for name, value in teachers.labels.items()},
    )


def table(figures: dict[str, dict[str, Interval]]) -> str:
    """One row per region, one column per figure, each with its interval."""
    columns = list(next(iter(figures.values())))
    lines = ["| region | " + " | ".join(columns) + " |", "|" + "---|" * (len(columns) + 1)]
    for region, row in figures.items():
        cells = [
            f"{v:.1f} ({a:.1f}-{b:.1f})" if "MAE" in name else f"{v:.3f} ({a:.3f}-{b:.3f})"
            for name, (v, a, b) in row.items()
        ]
        lines.append(f"| {region} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(teachers_dir: Path, weights: Path, card: Path) -> Path:
    """Measure `weights` and write the figures into `card` (between its two marks, keeping the rest) and `card`.json."""
    net = load_region_net(weights)
    test = held_out(load_teachers(teachers_dir))
    device = torch.device("cpu")
    figures = {
        region: measure_region(predict_all(net, test.faces, region, device), test)
        for region in tqdm(REGIONS, desc="regions")
    }
    known, moving = test.person >= 0, test.targets["blendshapes"].std(0) >= MOVING
    sizes = np.unique(test.person[known], return_counts=True)[1]
    same = int((sizes * (sizes - 1) // 2).sum())
    counts = {
        "identity": f"{known.sum()} pictures of {len(sizes)} people, {same} same-person pairs",
        "gender, race, age": f"{int((test.labels['age'] >= 0).sum())} labelled faces",
        "expression, blendshapes": f"{len(test.faces)} faces; {int(moving.sum())} of {len(moving)} activations "
        f"whose standard deviation is at least {MOVING}",
    }
    parameters = sum(p.numel() for p in net.parameters())
    text = "\n".join(
        [
            f"{parameters / 1e6:.2f} M parameters, {weights.stat().st_size / 1e6:.1f} MB, "
            f"sha256 `{hashlib.sha256(weights.read_bytes()).hexdigest()}`.",
            "",
            table(figures),
            "",
            *(f"- {name}: {count}" for name, count in counts.items()),
        ]
    )
    fill(card, text)
    card.with_suffix(".json").write_text(
        json.dumps({"counts": counts, "figures": figures}, indent=1) + "\n"
    )
    print(text)
    return card


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--teachers", type=Path, required=True, help="folder of aligned crops and teacher outputs"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        default=BUNDLED["lite"],
        help="the network to measure (default: the bundled one)",
    )
    parser.add_argument(
        "--card", type=Path, default=BUNDLED["lite"].with_suffix(".md"), help="where the table goes"
    )
    args = parser.parse_args()
    main(args.teachers, args.weights, args.card)
