"""benchmarks/explanations.py: what it calls blame, which pixels it gives back, and that its figures are of what it says."""

from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmarks.explanations import (
    ALTERED,
    BLAMED,
    blamed,
    faithfulness,
    forgeries,
    interval,
    part_mask,
)
from data.faces import TEMPLATE
from inference.verdict import Region, Verdict
from tests.test_forge import LANDMARKS


def test_the_blamed_part_disagrees_most_of_those_that_can_be_altered():
    regions = [Region("full", None, None, {}), Region("left", 9.0, 0.99, {})]
    regions += [
        Region(name, apart, 0.5, {})
        for name, apart in (("upper", None), ("middle", 0.3), ("lower", 0.2))
    ]
    assert blamed(Verdict("a", regions=regions)) == "middle"


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_parts_are_given_back_where_the_face_is(scale):
    landmarks = TEMPLATE * scale + (30, 10)
    masks = {part: part_mask(part, landmarks, 260, 300) for part in BLAMED}
    assert {part: mask.sum() / (112 * scale) ** 2 for part, mask in masks.items()} == pytest.approx(
        {"upper": 0.5625, "middle": 0.3125, "lower": 0.375}, abs=0.02
    )
    eye, mouth = (np.rint(landmarks[i]).astype(int) for i in (0, 3))
    assert masks["upper"][eye[1], eye[0]] and not masks["lower"][eye[1], eye[0]]
    assert masks["lower"][mouth[1], mouth[0]] and not masks["upper"][mouth[1], mouth[0]]


number = count()


def entry(altered, found, fall):
    p_fake = {"original": 0.3, "forged": 0.7, **dict.fromkeys(BLAMED, 0.6)}
    told = {
        "altered": altered,
        "blamed": found,
        "untouched": "upper",
        "p_fake": p_fake | {found: fall},
    }
    return {"dataset": "a", "group": f"{altered} {next(number)}", **told}


def test_figures_are_shares_and_falls_of_the_logit():
    found = [
        entry("lower", "lower", 0.5),
        entry("upper", "lower", 0.5),
        entry("middle", "middle", 0.7),
    ] * 20
    told = faithfulness(found)
    assert told["forgeries"] == 60 and told["blamed is altered"][0] == pytest.approx(2 / 3)
    assert told["same part of the untouched face"][0] == pytest.approx(1 / 3)
    seven, six = np.log(7 / 3), np.log(6 / 4)
    assert told["logit falls by, blamed part given back"][0] == pytest.approx(
        (seven + seven + 0) / 3
    )
    assert told["another part given back"][0] == pytest.approx(seven - six)
    assert told["of those with p_fake of at least one half"][0] == pytest.approx(2 / 3)


class Recorder:
    """In a detector's place: keeps what it is shown, and blames the lower face of whatever is second."""

    def __init__(self):
        self.shown = []

    def judge(self, images, paths):
        self.shown.append(images)
        regions = [Region(name, 0.1 + (name == "lower"), 0.5, {}) for name in BLAMED]
        return [
            Verdict(path, p_fake=0.1 * (i + 1), regions=regions) for i, path in enumerate(paths)
        ]


def test_each_part_is_given_back_where_it_was_altered(astronaut, tmp_path):
    rows = {
        f"l{axis}{i}": np.full(3, LANDMARKS[i, j]) for i in range(5) for j, axis in enumerate("xy")
    }
    rows |= {
        "label": np.zeros(3, int),
        "split": np.full(3, "val"),
        "face_px": np.full(3, 90.0),
        "yaw": np.zeros(3),
    }
    rows |= {"path": np.array([f"{i}.png" for i in range(3)]), "group": np.array(list("abc"))}
    for i, path in enumerate(rows["path"]):
        Image.fromarray(np.clip(astronaut.astype(int) + 40 * i - 40, 0, 255).astype(np.uint8)).save(
            tmp_path / path
        )
    dump = SimpleNamespace(rows=rows, meta={"data_root": str(tmp_path), "dataset": "a"})
    recorder = Recorder()
    found = forgeries(recorder, [dump], "val", 3, 0)
    assert len(found) == len(recorder.shown) > 0
    for each, (image, forged, *back) in zip(found, recorder.shown, strict=True):
        assert each["p_fake"] == pytest.approx(
            dict(zip(("original", "forged", *BLAMED), (0.1, 0.2, 0.3, 0.4, 0.5), strict=True))
        )
        assert (
            each["altered"] == ALTERED[each["kind"]]
            and each["blamed"] == each["untouched"] == "lower"
        )
        left = [(given != image).any(-1).sum() for given in back]
        assert (
            BLAMED[int(np.argmin(left))] == each["altered"]
            and min(left) < 0.5 * (forged != image).any(-1).sum()
        )
        for part, given in zip(BLAMED, back, strict=True):
            inside = part_mask(part, LANDMARKS, *image.shape[:2])
            assert (given[inside] == image[inside]).all() and (
                given[~inside] == forged[~inside]
            ).all()


def test_intervals_hold_the_mean_and_shrink():
    few, many = (interval(np.arange(n) % 2 * 1.0, np.arange(n)) for n in (20, 2000))
    assert (
        few[1] < 0.5 < few[2]
        and many[1] < 0.5 < many[2]
        and many[2] - many[1] < (few[2] - few[1]) / 5
    )
    alike = interval(np.repeat(np.arange(20) % 2 * 1.0, 100), np.repeat(np.arange(20), 100))
    assert alike[2] - alike[1] > 3 * (many[2] - many[1]), "faces of one group are drawn together"
