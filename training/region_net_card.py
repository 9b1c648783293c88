"""Measure the region network on faces and people it was not trained on, and write its model card.

    python -m training.region_net_card --teachers DIR [--weights FILE] [--card FILE]

Uses the `test` fold of the teachers' folder. Intervals are 95% bootstrap intervals over people
(verification) or faces.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from command_line import run
from data.files import write_json
from features.regions import REGIONS
from models import BUNDLED
from models.model_card import fill
from models.region_net import load_region_net
from models.tensors import sha256_of
from training.region_net import predict_all
from training.teachers import Teachers, load_teachers

REPETITIONS = 200
MOVING = 0.02  # smallest standard deviation, over the test faces, of a blendshape that counts
DIFFERENT = 100_000  # random pairs of two people

Interval = tuple[float, float, float]  # value, low, high


@dataclass
class Config:
    teachers: Path
    """folder of aligned crops and teacher outputs"""
    weights: Path = BUNDLED["lite"]
    """the network to measure"""
    card: Path = BUNDLED["lite"].with_suffix(".md")
    """where the table goes, between two marks; a .json of the same name holds the figures"""


def bootstrap(statistic: Callable[[np.ndarray], float], count: int) -> Interval:
    """A statistic of row numbers, and its 95% interval over resampled rows."""
    rng = np.random.default_rng(0)
    draws = [statistic(rng.integers(0, count, count)) for _ in range(REPETITIONS)]
    return statistic(np.arange(count)), *np.quantile(draws, (0.025, 0.975))


def verification_intervals(unit: np.ndarray, person: np.ndarray) -> tuple[Interval, Interval]:
    """AUC and TPR at 1% FPR of 'same person?' by cosine, with intervals over people.

    unit: (N, D) unit vectors. person: (N,) int. A pair weighs as often as both people were drawn.
    """
    first, second = np.triu_indices(len(person), 1)
    same = person[first] == person[second]
    others = np.flatnonzero(~same)
    count = min(DIFFERENT, len(others))
    others = np.random.default_rng(0).choice(others, count, replace=False)
    pairs = np.append(np.flatnonzero(same), others)
    first, second, same = first[pairs], second[pairs], same[pairs]
    scores = (unit[first] * unit[second]).sum(1)
    order = np.argsort(-scores)
    people, index = np.unique(person, return_inverse=True)

    def measure(drawn: np.ndarray) -> tuple[float, float]:
        times = np.bincount(drawn, minlength=len(people)).astype(float)
        weight = times[index[first]] * np.where(same, 1, times[index[second]])
        false, true = np.cumsum((weight * ~same)[order]), np.cumsum((weight * same)[order])
        rate = true[np.searchsorted(false, 0.01 * false[-1])] / true[-1]
        return roc_auc_score(same, scores, sample_weight=weight), rate

    rng, size = np.random.default_rng(1), len(people)
    draws = [measure(rng.integers(0, size, size)) for _ in range(REPETITIONS // 4)]
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    auc, rate = measure(np.arange(size))
    return (auc, low[0], high[0]), (rate, low[1], high[1])


def measure_region(predictions: dict[str, np.ndarray], test: Teachers) -> dict[str, Interval]:
    """All figures of one region, from its predictions for the rows of `test`."""

    def mean(values: np.ndarray) -> Interval:
        return bootstrap(lambda rows: float(values[rows].mean()), len(values))

    figures, known, labels = {}, test.person >= 0, test.labels
    figures["identity AUC"], figures["TPR at 1% FPR"] = verification_intervals(
        predictions["identity"][known], test.person[known]
    )
    for name in ("gender", "race"):
        right = predictions[name].argmax(1) == labels[name]
        figures[f"{name} accuracy"] = mean(right[labels[name] >= 0])
    error = np.abs(predictions["age_years"][:, 0] - labels["age"])
    figures["age MAE, years"] = mean(error[labels["age"] >= 0])
    agrees = predictions["expression"].argmax(1) == test.targets["expression"].argmax(1)
    figures["expression agreement"] = mean(agrees)
    moving = moving_blendshapes(test)
    found, wanted = (each["blendshapes"][:, moving] for each in (predictions, test.targets))

    def correlation(rows: np.ndarray) -> float:
        a, b = found[rows] - found[rows].mean(0), wanted[rows] - wanted[rows].mean(0)
        return float(((a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0) + 1e-12)).mean())

    figures["blendshape correlation"] = bootstrap(correlation, len(found))
    return figures


def moving_blendshapes(test: Teachers) -> np.ndarray:
    return test.targets["blendshapes"].std(0) >= MOVING


def table(figures: dict[str, dict[str, Interval]]) -> str:
    """Markdown: one row per region, one column per figure, each with its interval."""
    columns = list(next(iter(figures.values())))
    lines = [f"| region | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
    for region, row in figures.items():
        cells = [region]
        for name, (value, low, high) in row.items():
            d = 1 if "MAE" in name else 3
            cells.append(f"{value:.{d}f} ({low:.{d}f}-{high:.{d}f})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(config: Config) -> Path:
    net, test = load_region_net(config.weights), load_teachers(config.teachers).of("test")
    figures = {
        region: measure_region(predict_all(net, test.faces, region, torch.device("cpu")), test)
        for region in tqdm(REGIONS, desc="regions")
    }
    known, moving = test.person >= 0, moving_blendshapes(test)
    sizes = np.unique(test.person[known], return_counts=True)[1]
    same = int((sizes * (sizes - 1) // 2).sum())
    counts = {
        "identity": f"{known.sum()} pictures of {len(sizes)} people, {same} same-person pairs",
        "gender, race, age": f"{(test.labels['age'] >= 0).sum()} labelled faces",
        "expression, blendshapes": f"{len(test.faces)} faces; {moving.sum()} of {len(moving)} "
        f"blendshapes whose standard deviation is at least {MOVING}",
    }
    parameters = sum(p.numel() for p in net.parameters()) / 1e6
    size, digest = config.weights.stat().st_size / 1e6, sha256_of(config.weights)
    text = f"{parameters:.2f} M parameters, {size:.1f} MB, sha256 `{digest}`.\n\n{table(figures)}\n"
    text += "".join(f"\n- {name}: {count}" for name, count in counts.items())
    fill(config.card, text)
    write_json(config.card.with_suffix(".json"), {"counts": counts, "figures": figures})
    print(text)
    return config.card


if __name__ == "__main__":
    sys.exit(run(main, Config, __doc__, name="training.region_net_card"))
