"""benchmarks/: figures of explanations on known cases, and the timing table."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks import explanations, preprocess
from benchmarks.explanations import PARTS, interval, localisation, manipulate, part_mask
from data.alignment import TEMPLATE
from inference.verdict import Region, Verdict
from tests.photographs import LANDMARKS


def test_the_predicted_part_disagrees_most() -> None:
    scores = {"full": None, "left": 9.0, "upper": None, "middle": 0.3, "lower": 0.2}
    regions = [Region(name, score, None, {}) for name, score in scores.items()]
    assert explanations.predicted_part(Verdict("a", regions=regions)) == "middle"


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_part_masks_lie_on_the_face(scale: float) -> None:
    landmarks = TEMPLATE * scale + (30, 10)
    masks = {part: part_mask(part, landmarks, 260, 300) for part in PARTS}
    shares = {part: mask.sum() / (112 * scale) ** 2 for part, mask in masks.items()}
    assert shares == pytest.approx({"upper": 0.5625, "middle": 0.3125, "lower": 0.375}, abs=0.02)
    eye, mouth = (tuple(np.rint(landmarks[i]).astype(int)[::-1]) for i in (0, 3))
    assert masks["upper"][eye] and not masks["lower"][eye]
    assert masks["lower"][mouth] and not masks["upper"][mouth]


def test_localisation_figures() -> None:
    rows = []
    for manipulated, predicted, restored in (
        ("lower", "lower", 0.5),
        ("upper", "lower", 0.5),
        ("middle", "middle", 0.7),
    ):
        p_fake = {"real": 0.3, "fake": 0.7, **dict.fromkeys(PARTS, 0.6), predicted: restored}
        parts = {"manipulated": manipulated, "predicted": predicted, "predicted_before": "upper"}
        rows += [{"group": f"{manipulated} {i}", **parts, **p_fake} for i in range(20)]
    figures = localisation(pd.DataFrame(rows))
    values = [value if isinstance(value, int) else value[0] for value in figures.values()]
    seven, six = np.log(7 / 3), np.log(6 / 4)
    by_predicted, other = 2 * seven / 3, seven - six
    wanted = [60, 2 / 3, 2 / 3, 1 / 3, by_predicted, other, by_predicted - other]
    assert values == pytest.approx([*wanted, (seven + other + 0) / 3])


class Recorder:
    """In a detector's place: keeps its input, and gives the lower face the largest disagreement."""

    def __init__(self) -> None:
        self.shown = []

    def predict_images(self, images, paths):
        self.shown.append(images)
        regions = [Region(name, 0.1 + (name == "lower"), 0.5, {}) for name in PARTS]
        return [Verdict(path, p_fake=0.1 * i, regions=regions) for i, path in enumerate(paths, 1)]


def test_each_part_is_restored_where_it_was_manipulated(astronaut, tmp_path) -> None:
    rows = {
        f"l{axis}{i}": np.full(3, LANDMARKS[i, j]) for i in range(5) for j, axis in enumerate("xy")
    }
    rows |= {"label": np.zeros(3, int), "split": np.full(3, "val"), "yaw": np.zeros(3)}
    rows |= {"face_px": np.full(3, 90.0), "group": np.array(list("abc"))}
    rows["path"] = np.array([f"{i}.png" for i in range(3)])
    for i, path in enumerate(rows["path"]):
        lit = np.clip(astronaut.astype(int) + 40 * i - 40, 0, 255).astype(np.uint8)
        Image.fromarray(lit).save(tmp_path / path)
    dump = SimpleNamespace(rows=rows, meta={"data_root": str(tmp_path), "dataset": "a"})
    recorder = Recorder()
    found = manipulate(recorder, [dump], "val", 3, 0)
    assert len(found) == len(recorder.shown) > 0
    p_fake = found[["real", "fake", *PARTS]].to_numpy()
    assert np.allclose(p_fake, [0.1, 0.2, 0.3, 0.4, 0.5])
    assert (found[["predicted", "predicted_before"]] == "lower").all(axis=None)
    for manipulated, (real, fake, *restored) in zip(
        found["manipulated"], recorder.shown, strict=True
    ):
        left = [(image != real).any(-1).sum() for image in restored]
        assert PARTS[int(np.argmin(left))] == manipulated
        assert min(left) < 0.5 * (fake != real).any(-1).sum()
        for part, image in zip(PARTS, restored, strict=True):
            inside = part_mask(part, LANDMARKS, *real.shape[:2])
            assert (image[inside] == real[inside]).all()
            assert (image[~inside] == fake[~inside]).all()


def test_intervals_hold_the_mean_and_resample_groups() -> None:
    few, many = (interval(np.arange(n) % 2, np.arange(n)) for n in (20, 2000))
    assert few[1] < 0.5 < few[2] and many[1] < 0.5 < many[2]
    assert many[2] - many[1] < (few[2] - few[1]) / 5
    grouped = interval(np.repeat(np.arange(20) % 2, 100), np.repeat(np.arange(20), 100))
    assert grouped[2] - grouped[1] > 3 * (many[2] - many[1])


def test_timing_table(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(preprocess, "PLAIN", 1)
    root = preprocess.make_dataset(tmp_path, 3)
    options = {"experts": ("lite",), "device": "cpu", "batch_size": 2, "workers": 1}
    measured = preprocess.measure(preprocess.Config(root, images=2, rounds=1, **options))
    assert measured["images"] == measured["faces"] == 2
    assert min(measured[name] for name in ("forwards", "plain_per_face", "decode", "network")) > 0
    assert "end to end" in capsys.readouterr().out
