"""The demo's faces: where they come from, who is in which split, and what is done to them."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from data.datasets import find_samples
from data.images import read_image
from scripts import demo


@pytest.fixture(scope="module")
def photos() -> list[demo.Photo]:
    """Two pictures of everybody."""
    return demo.join_dumps(np.random.default_rng(0), each=2)


def test_everybody_is_found_in_the_installed_packages(photos: list[demo.Photo]) -> None:
    people = {source.person: source.split for source in demo.SOURCES}
    assert len(people) == 12
    assert Counter(photo.person for photo in photos) == dict.fromkeys(people, 2)
    assert Counter(people.values()) == {"train": 6, "val": 3, "test": 3}
    for photo in photos:
        height, width, _ = photo.image.shape
        assert max(height, width) == demo.SIDE
        left, right, nose, mouth_left, mouth_right = photo.landmarks
        assert left[0] < right[0]
        assert mouth_left[0] < mouth_right[0]
        assert (photo.landmarks > 0.15 * demo.SIDE).all()
        assert (photo.landmarks < (0.85 * width, 0.85 * height)).all()
        assert max(left[1], right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])


def test_landmarks_follow_the_picture(photos: list[demo.Photo]) -> None:
    """Found anew in the picture that was framed, scaled and perhaps mirrored, they are where it says."""
    some = photos[::5]
    crops = demo.FaceCutter()([photo.image for photo in some])
    assert crops.image.tolist() == list(range(len(some)))
    for photo, points in zip(some, crops.landmarks, strict=True):
        apart = np.ptp(photo.landmarks[:, 0])
        assert np.abs(points - photo.landmarks).max() < 0.15 * apart, photo.person


def test_dataset_keeps_people_apart(photos: list[demo.Photo], tmp_path: Path) -> None:
    rows = demo.write_dataset(tmp_path, photos, np.random.default_rng(0))
    samples = find_samples(tmp_path)
    assert [(s.path, s.label, s.group, s.split) for s in samples] == sorted(
        (row["path"], int(row["label"] == "fake"), row["group"], row["split"]) for row in rows
    )
    assert Counter(sample.label for sample in samples) == {0: len(photos), 1: len(photos)}
    split_of = {sample.group: sample.split for sample in samples}
    splits = defaultdict(set)
    for sample in samples:
        splits[sample.group].add(sample.split)
        if (
            sample.label and "self_blend" not in sample.path
        ):  # whoever lent a face is of the same split
            assert split_of[Path(sample.path).stem.split("_")[-1]] == sample.split
    assert {len(found) for found in splits.values()} == {1}
    real, fake = (read_image(tmp_path / rows[i]["path"]) for i in (0, 1))
    assert real.shape == fake.shape
    assert np.abs(real.astype(int) - fake).max() > 30


def test_forgery_kinds_take_turns_and_spare_covered_eyes(
    photos: list[demo.Photo], tmp_path: Path
) -> None:
    rows = demo.write_dataset(tmp_path, photos, np.random.default_rng(1))
    kinds = {kind for kind in demo.KINDS for row in rows if kind in row["path"]}
    assert kinds == set(demo.KINDS)
    sunglasses = [
        row["path"] for row in rows if row["group"] == "friend1" and row["label"] == "fake"
    ]
    assert sunglasses
    assert not [path for path in sunglasses if "eyes_swap" in path or "face_swap" in path]
    assert not [row["path"] for row in rows if row["path"].endswith("swap_friend1.jpg")]


def test_missing_picture_names_the_file() -> None:
    source = demo.Source("nobody", "test", "skimage", "data/nobody.png", "")
    with pytest.raises(FileNotFoundError, match=r"nobody\.png: not there"):
        demo.read(source)
    with pytest.raises(FileNotFoundError, match="no_such_package"):
        demo.read(demo.Source("nobody", "test", "no_such_package", "face.jpg", ""))


def test_clearest_verdicts(tmp_path: Path) -> None:
    rows = [
        ("a", 0, 0.4),
        ("b", 0, 0.1),
        ("c_jaw_swap_x", 1, 0.3),
        ("d_jaw_swap_x", 1, 0.05),
        ("e_self_blend", 1, 0.9),
    ]
    with (tmp_path / "predictions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "p_fake"), *rows])
    assert demo.clearest(tmp_path / "predictions.csv") == ("b", "c_jaw_swap_x")


def test_failing_command_ends_the_demo(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="exit code 3"):
        demo.run("-c", "raise SystemExit(3)")
    assert "python -c 'raise SystemExit(3)'" in capfd.readouterr().out
