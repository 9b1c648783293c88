"""A small dataset of real pictures, and how preprocessing_pipeline.py is called on it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from models import BUNDLED
from models.base import Output
from models.region_net import RegionNet, save_region_net
from preprocessing_pipeline import Config

COPIES = 6  # of the one face, per class


def write_weights(folder: Path) -> Path:
    """A small untrained region network. The trace network is the bundled one."""
    torch.manual_seed(0)
    age = Output("distribution", 9, tuple("abcdefghi"))
    outputs = {"identity": Output("embedding", 16), "age": age, "age_years": Output("scalar", 1)}
    net = RegionNet(outputs, (8, 8), (1, 1))
    save_region_net(net, folder / BUNDLED["lite"].name, {})
    return folder


def write_pictures(root: Path, astronaut: np.ndarray) -> Path:
    """Crops of one real face, half of them called fake, and two pictures that cannot be used."""
    rng = np.random.default_rng(0)
    for label in ("real", "fake"):
        (root / label).mkdir(parents=True)
        for i in range(COPIES):
            x, y = rng.integers(60, 120), rng.integers(0, 15)
            light = rng.uniform(0.7, 1.2)
            crop = cv2.convertScaleAbs(astronaut[y : y + 240, x : x + 240], alpha=light)
            cv2.imwrite(str(root / label / f"{i}.jpg"), crop[..., ::-1])
    (root / "real" / "empty.jpg").write_bytes(b"")
    cv2.imwrite(str(root / "fake" / "stripes.png"), np.tile(np.uint8([0, 90, 200]), (64, 64, 1)))
    return root


def configured(dataset: Path, weights: Path, out: Path, *experts: str, **options) -> Config:
    more = {"device": "cpu", "batch_size": 4, "shard_size": 4, "workers": 2, **options}
    return Config(dataset, out, experts=experts or ("lite",), weights_dir=weights, **more)


def arguments(config: Config, *more: str) -> list[str]:
    paths = ["--data_root", str(config.data_root), "--out", str(config.out)]
    sizes = ["--device", "cpu", "--batch-size", "4", "--shard-size", "4", "--workers", "2"]
    experts = [] if "--experts" in more else ["--experts", *config.experts]
    return [*paths, *sizes, *experts, "--weights-dir", str(config.weights_dir), *more]
