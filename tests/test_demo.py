"""Pictures of the demo and the examples: their sources, splits and manipulations."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from command_line import run
from data.datasets import find_samples
from data.images import read_image
from scripts import demo
from training import examples


@pytest.fixture(scope="module")
def photos() -> list[demo.Photo]:
    """Two pictures of everybody."""
    return demo.photographs(np.random.default_rng(0), each=2)


@pytest.fixture(scope="module")
def dataset(photos: list[demo.Photo], tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    root = tmp_path_factory.mktemp("demo")
    return root, demo.write_dataset(root, photos, np.random.default_rng(1))


def test_everybody_is_found_in_the_installed_packages(photos: list[demo.Photo]) -> None:
    people = {source.person: source.split for source in demo.SOURCES}
    assert Counter(people.values()) == {"train": 6, "val": 3, "test": 3}
    assert Counter(photo.person for photo in photos) == dict.fromkeys(people, 2)
    for photo in photos:
        height, width, _ = photo.image.shape
        assert max(height, width) == demo.SIDE
        left, right, nose, mouth_left, mouth_right = photo.landmarks
        assert left[0] < right[0] and mouth_left[0] < mouth_right[0]
        assert max(left[1], right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])
        assert (photo.landmarks > 0.15 * demo.SIDE).all()
        assert (photo.landmarks < (0.85 * width, 0.85 * height)).all()


def test_landmarks_follow_the_picture(photos: list[demo.Photo]) -> None:
    """They are found at the same place in the framed, scaled and perhaps mirrored picture."""
    some = photos[::5]
    crops = demo.FaceCutter()([photo.image for photo in some])
    assert crops.image.tolist() == list(range(len(some)))
    for photo, points in zip(some, crops.landmarks, strict=True):
        width = np.ptp(photo.landmarks[:, 0])
        assert np.abs(points - photo.landmarks).max() < 0.15 * width, photo.person


def test_dataset_is_identity_disjoint(dataset, photos: list[demo.Photo]) -> None:
    root, rows = dataset
    samples = find_samples(root)
    assert [(s.path, s.label, s.group, s.split) for s in samples] == sorted(
        (row.path, int(row.label == "fake"), row.group, row.split) for row in rows.itertuples()
    )
    assert Counter(sample.label for sample in samples) == {0: len(photos), 1: len(photos)}
    assert (rows.groupby("group")["split"].nunique() == 1).all()
    split_of = dict(zip(rows["group"], rows["split"], strict=True))
    swaps = rows[rows["path"].str.contains("_swap_")]
    donors = swaps["path"].str.removesuffix(".jpg").str.split("_").str[-1]
    assert (donors.map(split_of) == swaps["split"]).all()
    real, fake = (read_image(root / path) for path in rows["path"][:2])
    assert real.shape == fake.shape and np.abs(real.astype(int) - fake).max() > 30


def test_kinds_alternate_and_spare_covered_eyes(dataset) -> None:
    paths = dataset[1]["path"]
    assert all(paths.str.contains(kind).any() for kind in demo.KINDS)
    sunglasses = paths[paths.str.startswith("fake/friend1")]
    assert len(sunglasses) and not sunglasses.str.contains("eyes_swap|face_swap").any()
    assert not paths.str.endswith("swap_friend1.jpg").any()


def test_missing_picture_names_the_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"nobody\.png: not there"):
        demo.read(demo.Source("nobody", "test", "skimage", "data/nobody.png"))
    with pytest.raises(FileNotFoundError, match="no_such_package"):
        demo.read(demo.Source("nobody", "test", "no_such_package", "face.jpg"))


def test_clearest_verdicts(tmp_path: Path) -> None:
    rows = [
        ("a", 0, 0.4),
        ("b", 0, 0.1),
        ("c_jaw_swap_x", 1, 0.3),
        ("d_jaw_swap_x", 1, 0.05),
        ("e_self_blend", 1, 0.9),
        ("f_jaw_swap_x", 1, None),
    ]
    path = tmp_path / "predictions.csv"
    pd.DataFrame(rows, columns=["path", "label", "p_fake"]).to_csv(path)
    assert demo.clearest(path) == ("b", "c_jaw_swap_x")


def test_failing_command_ends_the_demo(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="exit code 3"):
        demo.run("-c", "raise SystemExit(3)")
    assert "python -c 'raise SystemExit(3)'" in capfd.readouterr().out


def test_examples_are_written(tmp_path: Path) -> None:
    assert run(examples.main, examples.Config, None, [str(tmp_path)]) == 0
    photograph, blended, swapped, both = (
        np.asarray(Image.open(tmp_path / f"{name}.png")) for name in examples.NAMES.values()
    )
    assert photograph.shape == blended.shape == swapped.shape and both.shape[1] == 1024
    assert (photograph != blended).any() and (photograph != swapped).any()
