"""Pseudo-fakes are told from real faces by where two origins meet, and by nothing else.

Two classifiers must be at chance: one that sees only what surrounds the manipulation, and one that
sees only colour and sharpness of the picture as a whole.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evaluation.metrics import auc
from training import device_fakes, pseudo_fakes
from training.aligned_crops import AlignedCrops
from training.device_images import Draws

pytestmark = pytest.mark.usefixtures("one_thread")
PAIRS = 32  # of each kind
Pairs = list[tuple[np.ndarray, np.ndarray, np.ndarray]]  # real, fake (S, S, 3) uint8; mask (S, S)


def on_cpu(kind: str, crops: AlignedCrops) -> Pairs:
    rng, make = np.random.default_rng(0), pseudo_fakes.KINDS[kind][1]
    made = (make(crops, index % len(crops), rng) for index in range(2 * PAIRS))
    return [pair for pair in made if pair is not None][:PAIRS]


def in_batches(kind: str, crops: AlignedCrops) -> Pairs:
    faces = device_fakes.Faces(crops, torch.device("cpu"))
    rows = torch.arange(PAIRS) % len(crops)
    made = device_fakes.KINDS[kind](faces, rows, Draws(0, 0, faces.device))
    real, fake, mask = (part[~made[3]].permute(0, 2, 3, 1).numpy() for part in made[:3])
    return list(zip(real.astype(np.uint8), fake.astype(np.uint8), mask[..., 0], strict=True))


def colour_and_sharpness(image: np.ndarray) -> list[float]:
    """Mean and deviation of each colour; logarithms of the energy of gradients and Laplacian, and
    of the noise (Immerkaer, 1996)."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    gradients = sum(np.square(np.diff(grey, axis=axis)).mean() for axis in (0, 1))
    noise = cv2.filter2D(grey, -1, np.float32([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]))
    energies = gradients, np.square(cv2.Laplacian(grey, cv2.CV_32F)).mean(), np.abs(noise).mean()
    return [*image.mean((0, 1)), *image.std((0, 1)), *np.log(np.add(energies, 0.1))]


def cross_validated(features: np.ndarray) -> float:
    """AUC of a classifier of real and fake in turn, fitted to the other half of the pairs."""
    label = np.arange(len(features)) % 2
    half = np.arange(len(features)) // 2 // 4 % 2  # the four faces are in both
    found = np.zeros(len(features))
    for part in (0, 1):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
        model.fit(features[half != part], label[half != part])
        found[half == part] = model.decision_function(features[half == part])
    return auc(label, found)


@pytest.mark.parametrize("maker", [on_cpu, in_batches])
def test_neither_surroundings_nor_the_whole_tell(maker, crops: AlignedCrops) -> None:
    features, single = [], []
    for kind in pseudo_fakes.KINDS:
        pairs = maker(kind, crops)
        assert len(pairs) > 0.8 * PAIRS
        for real, fake, mask in pairs:
            assert np.array_equal(real[mask == 0], fake[mask == 0]), kind
        seen = np.array([colour_and_sharpness(image) for pair in pairs for image in pair[:2]])
        features.append(seen)
        label = np.arange(len(seen)) % 2
        single.append([auc(label, column) for column in seen.T])
    assert np.abs(np.array(single) - 0.5).max() < 0.1
    assert cross_validated(np.concatenate(features)) < 0.57
