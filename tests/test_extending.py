"""What docs/ARCHITECTURE.md promises: an extension is one file, class or function, and one row in a table.

Each test adds a toy row and runs what a user would run with it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest
import torch

import models
from data import degrade
from data.datasets import find_samples
from data.degrade import Family
from data.dump import Dump, read_dump
from data.layouts import LAYOUTS
from data.samples import Clip, Listing
from features.columns import raw_features
from features.regions import REGIONS, Crop
from models import classifiers
from models.base import Output, WholeFaceExpert
from models.heads import Head, fit_head
from preprocessing_pipeline import Config, main


class ToyExpert(WholeFaceExpert):
    """The mean colour of the region, as a distribution, and those of its halves as an embedding."""

    name = "toy"
    crop = Crop.of_box(1.0, 32)
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    outputs = {
        "colour": Output("distribution", 3, ("red", "green", "blue")),
        "halves": Output("embedding", 6),
    }

    def __init__(self, weights: Path, bf16: bool = False) -> None:
        super().__init__(torch.nn.AdaptiveAvgPool2d((2, 1)), weights, bf16)

    def predict(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        halves = self.net(images)[..., 0]  # (N, 3, 2)
        return {
            "colour": (4 * halves.mean(-1)).softmax(-1),
            "halves": torch.nn.functional.normalize(halves.flatten(1), dim=-1),
        }

    prediction = predict


@pytest.fixture
def toy_expert(tmp_path, monkeypatch) -> None:
    """The row of an expert, and the place of its weights."""
    weights = tmp_path / "toy.safetensors"
    weights.write_bytes(b"none needed")
    monkeypatch.setitem(models.EXPERTS, "toy", (__name__, "ToyExpert"))
    monkeypatch.setitem(models.BUNDLED, "toy", weights)


def dump_of(root: Path, out: Path, **options) -> Dump:
    return read_dump(main(Config(root, out, experts=("toy",), device="cpu", **options)))


def test_an_expert_is_a_class_and_a_row_of_experts(toy_expert, portraits, tmp_path) -> None:
    dump = dump_of(portraits, tmp_path / "dump")
    assert dump.arrays["toy.colour"].shape == (6, len(REGIONS), 3)
    names = raw_features(dump.arrays, dump.meta["outputs"]).names
    assert {name.split("/")[0] for name in names} == {"toy.colour", "toy.halves"}
    assert any("js" in name for name in names) and any("cos" in name for name in names)


def test_a_degradation_is_a_function_and_a_row_of_families(
    toy_expert, portraits, tmp_path, monkeypatch
) -> None:
    def red_only(image: np.ndarray, share: float) -> np.ndarray:
        return (image * [1, share, share]).astype(np.uint8)

    monkeypatch.setitem(degrade.FAMILIES, "red", Family(red_only, (0.5, 0.0), "of green and blue"))
    assert [str(each) for each in degrade.conditions(("red",))] == ["red:1", "red:2"]
    plain = dump_of(portraits, tmp_path / "plain").arrays["toy.colour"][:, 0, 0]
    red = dump_of(portraits, tmp_path / "red", degrade="red:1").arrays["toy.colour"][:, 0, 0]
    assert (red > plain + 0.03).all()


def test_a_layout_is_a_module_and_a_row_of_layouts(toy_expert, portraits, tmp_path, monkeypatch):
    layout = ModuleType("letters")
    layout.fits = lambda root: (root / "R").is_dir() and (root / "F").is_dir()
    layout.read = lambda root, index=None, compression=None: Listing(
        [
            Clip(
                "", int(path.parent.name == "F"), (path.relative_to(root).as_posix(),), split="test"
            )
            for path in sorted(root.rglob("*.png"))
        ]
    )
    monkeypatch.setitem(LAYOUTS, "letters", layout)
    root = tmp_path / "set"
    shutil.copytree(portraits / "real", root / "R")
    shutil.copytree(portraits / "fake", root / "F")
    samples = find_samples(root)
    assert [(each.path, each.label) for each in samples][2:4] == [("F/2.png", 1), ("R/0.png", 0)]
    dump = dump_of(root, tmp_path / "dump")
    assert list(dump.rows["label"]) == [1, 1, 1, 0, 0, 0] and set(dump.rows["split"]) == {"test"}


@dataclass
class Centroids:
    """How much nearer a face is to the mean fake than to the mean real face. line: (F,)."""

    line: np.ndarray
    middle: np.ndarray
    rounds: int = 0
    choices: ClassVar = [{}]
    real_only: ClassVar = False

    @classmethod
    def fit(cls, z: np.ndarray, y: np.ndarray, seed: int, watched: object) -> Centroids:
        real, fake = z[y == 0].mean(0), z[y == 1].mean(0)
        return cls(fake - real, (fake + real) / 2)

    def score(self, z: np.ndarray) -> np.ndarray:
        return (z - self.middle) @ self.line

    def parts(self, z: np.ndarray, base: np.ndarray) -> np.ndarray:
        return self.line * (z - base)

    def state(self) -> dict[str, np.ndarray]:
        return {"line": self.line, "middle": self.middle}


def test_a_head_is_a_class_and_a_row_of_models(monkeypatch) -> None:
    monkeypatch.setitem(classifiers.MODELS, "centroids", Centroids)
    monkeypatch.setitem(getattr(classifiers, "CHOICES", {}), "centroids", [{}])
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    x = rng.normal(size=(120, 4)) + 2 * y[:, None]
    groups = [str(i // 2) for i in range(120)]
    head = fit_head("centroids", x[:60], y[:60], groups[:60], x[60:], y[60:])
    p = head.p_fake(x)
    assert p[y == 1].mean() > 0.8 and p[y == 0].mean() < 0.2
    info = {"head": "centroids", "calibration": {"a": head.a, "b": head.b}}
    assert np.array_equal(Head.from_state(info, head.state()).p_fake(x), p)
    parts, rest = head.contributions(x, np.zeros(4))
    assert np.allclose(parts.sum(1) + rest, head.a * head.logit(x) + head.b)


def test_a_pseudo_fake_is_a_function_and_a_row_of_kinds(monkeypatch) -> None:
    pseudo_fakes = pytest.importorskip("training.pseudo_fakes")
    from training.aligned_crops import WIDE_CROP, AlignedCrops

    def upside_down(crops, index: int, rng: np.random.Generator):
        mask = np.zeros((WIDE_CROP.px, WIDE_CROP.px), np.float32)
        mask[64:160, 64:160] = 1
        real = crops.images[index, ..., :3]
        fake = real.copy()
        fake[64:160, 64:160] = fake[159:63:-1, 64:160]
        return real, fake, mask

    monkeypatch.setitem(pseudo_fakes.KINDS, "flip", (1.0, upside_down))
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 4), dtype=np.uint8)
    images[..., 3] = 255
    landmarks = np.tile(
        np.float64([[90, 90], [134, 90], [112, 115], [95, 140], [129, 140]]), (2, 1, 1)
    )
    crops = AlignedCrops(images, landmarks, np.array(["a", "b"]))
    real, fake, cells, kind = pseudo_fakes.PseudoFakes(crops, {"flip": 1.0}).pair(
        0, 0, Crop.of_box(1.3, 112), 7
    )
    assert kind == "flip" and real.shape == fake.shape == (112, 112, 3)
    assert cells.shape == (7, 7) and cells.max() > 0.5 > cells.min()
    assert (real != fake).any()
