"""The dataset of face swaps between people."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.swaps import Config, Photographs, main, names_of


def test_donors_are_of_the_same_split_and_the_similar_one_is_similar():
    count = 40
    rng = np.random.default_rng(0)
    person = np.array([f"p{i // 2}" for i in range(count)])
    split = np.array(["val", "test"])[np.arange(count) // 2 % 2]
    identity = rng.normal(size=(count, 8))
    identity /= np.linalg.norm(identity, axis=1, keepdims=True)
    about = np.column_stack(
        [rng.uniform(20, 70, count), np.arange(count) // 4 % 2, np.full(count, 99.0)]
    )
    paths = [Path(f"{name}/{name}_{i % 2}.jpg") for i, name in enumerate(person)]
    some = Photographs(
        paths, names_of(paths), person, split, np.zeros((count, 5, 2)), identity, about
    )
    for index in range(count):
        found = list(some.donors(index, 3))
        assert found == list(some.donors(index, 3))
        assert sum(kind == "random donor" for kind, _ in found) == 3
        for kind, donor in found:
            assert split[donor] == split[index] and person[donor] != person[index]
            if kind == "similar donor":
                assert abs(about[donor, 0] - about[index, 0]) < 10
                assert about[donor, 1] == about[index, 1]


def test_a_dataset_of_swaps_says_whose_head_and_whose_face(tmp_path, astronaut, hopper):
    people = tmp_path / "people"
    for name, image in (
        ("Ann", astronaut),
        ("Bob", hopper),
        ("Cat", astronaut[:, ::-1]),
        ("Dan", hopper[:, ::-1]),
    ):
        (people / name).mkdir(parents=True)
        Image.fromarray(image).resize((256, 256)).save(people / name / f"{name}_1.jpg")
    shutil.copy(people / "Ann" / "Ann_1.jpg", people / "Ann" / "Ann_2.jpg")
    (people / "Bob" / "broken.jpg").write_bytes(b"nothing")
    out = main(Config(people, tmp_path / "swaps", donors=1))
    with (out / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    real, fake = ([row for row in rows if row["label"] == label] for label in ("real", "fake"))
    assert len(real) == 5 and fake
    sides = {row["person"]: row["split"] for row in real}
    for row in fake:
        assert row["donor"] and row["donor"] != row["person"]
        assert sides[row["donor"]] == sides[row["person"]] == row["split"]
        assert (out / row["path"]).is_file()
        with Image.open(out / row["path"]) as image:
            assert image.format == "JPEG"
    assert len({row["path"] for row in rows}) == len(rows)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        main(Config(tmp_path / "nobody"))
    with pytest.raises(ValueError, match="not empty"):
        main(Config(people, out))


def test_names_of_photographs_never_repeat():
    paths = ["Ann/Ann_1.jpg", "Ann/1.jpg", "Bob/1.jpg", "Bob/1.png", "Cat/a__b.jpg"]
    names = names_of([Path(path) for path in paths])
    assert names == ["Ann_1", "Ann_1_jpg", "Bob_1", "Bob_1_png", "Cat_a_b"]
