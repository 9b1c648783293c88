"""Dataset layouts, near-duplicates, groups and splits."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from data.datasets import find_samples
from data.samples import Sample
from data.splits import fill_groups_and_splits, group_near_duplicates


def touched(root: Path, *names: str) -> Path:
    """A folder with empty files of these names: finding samples opens none of them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def indexed(root: Path, text: str, encoding: str = "utf-8") -> Path:
    (root / "index.csv").write_text(text, encoding=encoding)
    return root


def hex16(value: int) -> str:
    return f"{value:016x}"


# Layouts.


def test_real_and_fake(tmp_path: Path) -> None:
    root = touched(
        tmp_path,
        "real/b.jpg",
        "real/a.PNG",
        "fake/deep/er/c.jpeg",
        "fake/notes.txt",
        "stray.jpg",
        "fake/.x.jpg",
    )
    assert find_samples(root) == [
        Sample("fake/deep/er/c.jpeg", 1),
        Sample("real/a.PNG", 0),
        Sample("real/b.jpg", 0),
    ]


@pytest.mark.parametrize("val", ["valid", "val", "Validation"])
def test_splits_in_any_case(tmp_path: Path, val: str) -> None:
    root = touched(
        tmp_path,
        "Train/REAL/1.jpg",
        "Train/Fake/2.jpg",
        f"{val}/real/3.jpg",
        "test/fake/4.jpg",
        "other/real/5.jpg",
    )
    expected = {
        ("1.jpg", 0, "train"),
        ("2.jpg", 1, "train"),
        ("3.jpg", 0, "val"),
        ("4.jpg", 1, "test"),
    }
    assert {(s.path.split("/")[-1], s.label, s.split) for s in find_samples(root)} == expected


def test_unusual_names(tmp_path: Path) -> None:
    names = ['real/ä 顔, "x".jpg', "fake/" + "y" * 250 + ".png", "fake/two\nlines.jpg"]
    assert [s.path for s in find_samples(touched(tmp_path, *names))] == sorted(names)


def test_one_class_alone(tmp_path: Path) -> None:
    assert [s.label for s in find_samples(touched(tmp_path, "real/1.jpg", "real/2.jpg"))] == [0, 0]


def test_linked_folders(tmp_path: Path) -> None:
    touched(tmp_path, "elsewhere/1.jpg", "set/fake/2.jpg")
    (tmp_path / "set" / "real").symlink_to(tmp_path / "elsewhere")
    assert [s.path for s in find_samples(tmp_path / "set")] == ["fake/2.jpg", "real/1.jpg"]


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder; give the folder of a dataset"):
        find_samples(tmp_path / "none")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "nothing in it says what is real"),
        (["a.jpg", "photos/b.jpg"], "nothing in it says what is real"),
        (["train/a.jpg"], "nothing in it says what is real"),
        (["real/notes.txt", "fake/x.doc"], "no images"),
        (["real/a.jpg", "train/real/b.jpg"], "which holds the dataset"),
    ],
)
def test_not_a_dataset(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        find_samples(touched(tmp_path, *names))
    assert str(tmp_path) in str(caught.value)
    assert "index.csv with the columns" in str(caught.value), "says what would do"


def test_index(tmp_path: Path) -> None:
    text = "Path,source,LABEL,group,split\nb/2.jpg,web,fake,g1,valid\n"
    text += "./a.jpg,web,0,,\nc.jpg,web,Real,g 2,Train\n"
    touched(tmp_path, "a.jpg", "x.jpg")
    expected = [
        Sample("a.jpg", 0),
        Sample("b/2.jpg", 1, "g1", "val"),
        Sample("c.jpg", 0, "g 2", "train"),
    ]
    touched(tmp_path, "a.jpg", "b/2.jpg", "c.jpg", "x.jpg")
    assert find_samples(indexed(tmp_path, text)) == expected
    assert (
        find_samples(indexed(tmp_path, text, "utf-8-sig")) == expected
    )  # as spreadsheets write it
    assert find_samples(indexed(tmp_path, "label,path\n1,x.jpg\n")) == [Sample("x.jpg", 1)]


def test_index_comes_before_folders(tmp_path: Path) -> None:
    touched(tmp_path, "real/1.jpg", "fake/2.jpg")
    assert find_samples(indexed(tmp_path, "path,label\nfake/2.jpg,fake\n")) == [
        Sample("fake/2.jpg", 1)
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.jpg,real\n", "no column path"),
        ("", "no column label and no path"),
        ("path,label\n", "no images"),
        (
            "path,label\na.jpg,real\nb.jpg,maybe\n",
            "line 3: label 'maybe' is none of real, 0, fake, 1",
        ),
        ("path,label\na.jpg\n", "line 2: has 1 cells for 2 columns, and no label"),
        ("path,label,split\na.jpg,real,dev\n", "line 2: split 'dev'"),
        ("path,label\na.jpg,real\n./a.jpg,real\n", "'a.jpg' twice, in lines 2 and 3"),
        ("path,label\n/etc/a.jpg,real\n", "line 2: path '/etc/a.jpg'"),
        ("path,label\n../a.jpg,real\n", "line 2: path '../a.jpg'"),
        ("path,label\n,real\n", "line 2: path ''"),
    ],
)
def test_wrong_index(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        find_samples(indexed(tmp_path, text))
    assert str(tmp_path) in str(caught.value)


def test_index_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_bytes(b"path,label\n\xff\xfe.jpg,real\n")
    with pytest.raises(ValueError, match="index.csv"):
        find_samples(tmp_path)


def test_index_elsewhere(tmp_path: Path) -> None:
    touched(tmp_path, "one/real/1.jpg", "two/real/1.jpg")
    indexed(
        tmp_path,
        "path,label,group\none/real/1.jpg,real,g\none/2.jpg,fake,h\ntwo/real/1.jpg,real,i\n",
    )
    found = find_samples(tmp_path / "one", index=tmp_path / "index.csv")
    assert found == [Sample("2.jpg", 1, "h"), Sample("real/1.jpg", 0, "g")]
    with pytest.raises(FileNotFoundError, match="no such file"):
        find_samples(tmp_path / "one", index=tmp_path / "none.csv")
    with pytest.raises(ValueError, match="none of its 3 pictures"):
        find_samples(touched(tmp_path / "three", "real/1.jpg"), index=tmp_path / "index.csv")


# Near-duplicates.


def brute_force(values: list[int]) -> list[set[int]]:
    """Chains of values within 4 bits, by comparing all with all."""
    sets = [{i} for i in range(len(values))]
    for i, j in combinations(range(len(values)), 2):
        if (values[i] ^ values[j]).bit_count() <= 4 and sets[i] is not sets[j]:
            sets[i] |= sets[j]
            for k in sets[j]:
                sets[k] = sets[i]
    return sets


@pytest.mark.parametrize("flips", [1, 3, 4, 5, 6])
def test_groups_are_those_of_all_comparisons(flips: int) -> None:
    rng = np.random.default_rng(flips)
    values = [int(v) for v in rng.integers(0, 2**63, 40, dtype=np.uint64)]
    for _ in range(160):
        bits = rng.choice(64, rng.integers(0, flips + 1), replace=False)
        values.append(values[rng.integers(len(values))] ^ sum(1 << int(bit) for bit in bits))
    groups = group_near_duplicates([hex16(v) for v in values])
    expected = brute_force(values)
    assert len(set(groups)) < len(values)
    for i, group in enumerate(groups):
        assert {j for j, other in enumerate(groups) if other == group} == expected[i]


def test_distance_four_counts_and_five_does_not() -> None:
    for bits in ([0, 1, 2, 3], [0, 20, 40, 63], [10, 11, 32, 33], [60, 61, 62, 63]):
        far = sum(1 << bit for bit in bits)
        assert len(set(group_near_duplicates([hex16(0), hex16(far)]))) == 1
        assert len(set(group_near_duplicates([hex16(0), hex16(far ^ 1 << 50)]))) == 2


def test_group_names_depend_on_the_group_alone() -> None:
    near, far = [hex16(0b111), hex16(0b1)], hex16(0xFFFF << 32)
    assert group_near_duplicates(near) == ["p" + hex16(1)] * 2
    assert group_near_duplicates([far, *near[::-1]]) == ["p" + far, "p" + hex16(1), "p" + hex16(1)]
    assert group_near_duplicates([]) == []
    assert group_near_duplicates([hex16(2**64 - 1)]) == ["p" + "f" * 16]


@pytest.mark.parametrize("text", ["", "abc", "g" * 16, "0" * 17])
def test_not_a_hash(text: str) -> None:
    with pytest.raises(ValueError, match="hash|base 16"):
        group_near_duplicates([text])


def test_many_hashes_take_seconds() -> None:
    """200,000, a tenth of which are frames of one video: all pairs would be 20,000 million."""
    rng = np.random.default_rng(0)
    strangers = rng.integers(0, 2**64, 180_000, dtype=np.uint64)
    frames = np.uint64(12345) ^ (
        np.uint64(1) << rng.integers(0, 64, (20_000, 2), dtype=np.uint64)
    ).sum(1, dtype=np.uint64)
    groups = group_near_duplicates([hex16(int(v)) for v in np.concatenate([strangers, frames])])
    assert len(set(groups[180_000:])) == 1
    assert len(set(groups[:180_000])) > 179_000


# Groups and splits.


def samples(count: int, **given: str) -> list[Sample]:
    return [Sample(f"{i:05d}.jpg", i % 2, **given) for i in range(count)]


def hashes(count: int) -> list[str]:
    """Far from each other."""
    return [
        hex16(int(v)) for v in np.random.default_rng(1).integers(0, 2**64, count, dtype=np.uint64)
    ]


def test_splits_are_70_10_20() -> None:
    filled = fill_groups_and_splits(samples(4000), hashes(4000))
    counts = Counter(s.split for s in filled)
    assert counts["train"] == pytest.approx(2800, abs=100)
    assert counts["val"] == pytest.approx(400, abs=70)
    assert counts["test"] == pytest.approx(800, abs=90)
    assert [s.path for s in filled] == [s.path for s in samples(4000)]


def test_splits_never_divide_a_group() -> None:
    names = [f"video{i % 50}" for i in range(1000)]
    filled = fill_groups_and_splits(
        [Sample(f"{i}.jpg", 0, name) for i, name in enumerate(names)], hashes(1000)
    )
    assert len({(s.group, s.split) for s in filled}) == 50


def test_splits_do_not_depend_on_the_other_pictures() -> None:
    every, prints = samples(600), hashes(600)
    split = {s.path: s.split for s in fill_groups_and_splits(every, prints)}
    half = fill_groups_and_splits(every[::-2], prints[::-2])
    assert {s.path: s.split for s in half}.items() <= split.items()


def test_what_is_given_is_kept() -> None:
    given = [
        Sample("a.jpg", 0, "g", "val"),
        Sample("b.jpg", 1, "g", "test"),
        Sample("c.jpg", 1, "h", "val"),
    ]
    assert fill_groups_and_splits(given, hashes(3)) == given
    assert [s.split for s in fill_groups_and_splits(samples(30, split="val"), hashes(30))] == [
        "val"
    ] * 30


def test_a_missing_group_is_that_of_the_near_duplicates() -> None:
    near = [hex16(0), hex16(1), hex16(2), hex16(2**40 - 1)]
    mixed = [
        Sample("a.jpg", 0),
        Sample("b.jpg", 1, "video"),
        Sample("c.jpg", 1, "other"),
        Sample("d.jpg", 0),
    ]
    assert [s.group for s in fill_groups_and_splits(mixed, near)] == [
        "other",
        "video",
        "other",
        "p" + near[3],
    ]
    assert [s.group for s in fill_groups_and_splits(mixed[:2], near[:2])] == ["video", "video"]


def test_a_missing_split_is_that_of_the_group() -> None:
    mixed = [Sample("a.jpg", 0, "g", "test"), *(Sample(f"{i}.jpg", 1, "g") for i in range(9))]
    assert {s.split for s in fill_groups_and_splits(mixed, hashes(10))} == {"test"}
    both = [
        Sample("a.jpg", 0, "g", "train"),
        Sample("b.jpg", 0, "g", "test"),
        Sample("c.jpg", 0, "g"),
    ]
    assert [s.split for s in fill_groups_and_splits(both, hashes(3))] == ["train", "test", "test"]


@pytest.mark.parametrize("count", range(3, 30))
def test_a_handful_of_groups_fills_every_split(count: int) -> None:
    names = [f"person {i} of {count}" for i in range(count)]
    filled = fill_groups_and_splits(
        [Sample(f"{name}.jpg", 0, name) for name in names], hashes(count)
    )
    assert {s.split for s in filled} == {"train", "val", "test"}


def test_fewer_groups_than_splits() -> None:
    assert fill_groups_and_splits([], []) == []
    assert len(fill_groups_and_splits(samples(1), hashes(1))) == 1
    assert len({s.split for s in fill_groups_and_splits(samples(2), hashes(2))}) <= 2


def test_one_hash_per_sample() -> None:
    with pytest.raises(ValueError, match="zip"):
        fill_groups_and_splits(samples(3), hashes(2))


# The research images beside the project.


def test_shared_datasets(shared_data: Path) -> None:
    found = find_samples(shared_data / "dfdc")
    assert Counter((s.label, s.split) for s in found)[1, "train"] == 1750
    listed = {s.path: s for s in find_samples(shared_data)}
    assert len(listed) > 13_000
    assert all(listed[f"dfdc/{s.path}"].label == s.label for s in found)
