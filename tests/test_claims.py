"""Whom a picture claims to show: person and donor by names, layouts and an index.csv."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.datasets import find_samples
from data.layouts import names
from data.samples import Sample
from tests import miniatures
from tests.miniatures import bench_entry, clips, inventory, listed, pictures
from tests.test_tables import dataset

# Names.


@pytest.mark.parametrize(
    ("name", "method", "person", "donor"),
    [
        ("071", "real", "071", ""),
        ("071", "", "071", ""),
        ("071_054", "Deepfakes", "071", "054"),
        ("071_054", "FaceSwap", "071", "054"),
        ("071_054", "FaceShifter", "071", "054"),
        ("071_054", "simswap", "071", "054"),
        ("071_054", "Face2Face", "071", ""),
        ("071_054", "NeuralTextures", "071", ""),
        ("071_054", "", "071", ""),  # any of these methods
        ("071_054", "real", "", ""),
        ("071_054", "fomm", "", ""),
        ("071", "StyleGAN2", "", ""),
        ("071_M101", "", "071", "M101"),
        ("M101", "real", "M101", ""),
        ("id3_0002", "real", "id3", ""),
        ("id3_id7_0002", "Celeb-synthesis", "id3", "id7"),
        ("id3_id7_0002", "", "id3", "id7"),
        ("id3_id7_0002", "wav2lip", "", ""),
        ("00170", "real", "", ""),
        ("01__kitchen_pan", "real", "actor01", ""),
        ("01_02__kitchen_pan__ABC", "DeepFakeDetection", "actor01", "actor02"),
        ("01_02__kitchen_pan__ABC", "", "actor01", "actor02"),
        ("holiday", "", "", ""),
        ("", "", "", ""),
    ],
)
def test_names(name: str, method: str, person: str, donor: str) -> None:
    assert names.people(name, method) == (person, donor)


# Layouts.


def who(root: Path, **options: str) -> dict[str, tuple[str, str]]:
    """Name of a clip, below the folder of its kind -> (person, donor), of all clips with either."""
    found = clips(root, **options).items()
    return {name: (clip.person, clip.donor) for name, clip in found if clip.person or clip.donor}


def test_faceforensics(tmp_path: Path) -> None:
    found = who(miniatures.faceforensics(tmp_path))
    real, fake = "original_sequences/youtube/c23/videos", "manipulated_sequences"
    assert found[f"{real}/071.mp4"] == ("071", "")
    assert found[f"{fake}/Deepfakes/c23/videos/071_054.mp4"] == ("071", "054")
    assert found[f"{fake}/NeuralTextures/c23/videos/054_071.mp4"] == ("054", "")
    assert len(found) == len(clips(tmp_path)) == 24
    assert "people: 8 known, 8 of 16 fakes with a donor" in inventory(tmp_path)


def test_celeb_df(tmp_path: Path) -> None:
    found = who(miniatures.celeb_df(tmp_path))
    assert found["Celeb-real/id0_0001.mp4"] == ("id0", "")
    assert found["Celeb-synthesis/id3_id1_0000.mp4"] == ("id3", "id1")
    assert {*clips(tmp_path)} - {*found} == {"YouTube-real/00000.mp4", "YouTube-real/00170.mp4"}
    assert "people: 4 known, 5 of 5 fakes with a donor" in inventory(tmp_path)


def test_dfd(tmp_path: Path) -> None:
    found = who(miniatures.dfd(tmp_path))
    assert found["original_sequences/actors/c23/videos/02__kitchen_pan.mp4"] == ("actor02", "")
    fakes = "manipulated_sequences/DeepFakeDetection/c23/videos"
    assert found[f"{fakes}/03_01__hugging_happy__ISF9SP4G.mp4"] == ("actor03", "actor01")


def test_dfdc(tmp_path: Path) -> None:
    found = who(miniatures.dfdc(tmp_path))
    assert found["dfdc_train_part_00/aaaa.mp4"] == ("aaaa", "")
    assert found["dfdc_train_part_00/cccc.mp4"] == ("aaaa", "")
    assert found["dfdc_train_part_01/eeee.mp4"] == ("dddd", "")
    assert found["test/videos/tttt.mp4"] == ("tttt", "")
    assert {*clips(tmp_path)} - {*found} == {
        "test/videos/uuuu.mp4"
    }  # a fake of we do not know whom


def test_dfdc_preview(tmp_path: Path) -> None:
    found = who(miniatures.dfdc_preview(tmp_path))
    for path, (_, _, person, donor) in miniatures.PREVIEW.items():
        assert found[path] == (str(person), str(donor or ""))


def test_wilddeepfake(tmp_path: Path) -> None:
    assert not who(miniatures.wilddeepfake(tmp_path))
    assert "people:" not in inventory(tmp_path)


def test_df40(tmp_path: Path) -> None:
    pictures(miniatures.df40(tmp_path) / "DF40/fomm/cdf/frames/id0_id1_0000")
    assert who(tmp_path) == {
        "DF40_train/simswap/frames/071_054": ("071", "054"),
        "DF40_train/simswap/frames/054_071": ("054", "071"),
        "DF40/simswap/ff/frames/953_974": ("953", "974"),
        "DF40/simswap/ff/frames/974_953": ("974", "953"),
        "DF40/simswap/cdf/frames/id0_id1_0000": ("id0", "id1"),
    }


def test_deepfakebench(tmp_path: Path) -> None:
    miniatures.deepfakebench(tmp_path / "ff")
    found = who(tmp_path / "ff", compression="c23")
    base = "FaceForensics++/{}/c23/frames/{}"
    assert found[base.format("original_sequences/youtube", "071")] == ("071", "")
    assert found[base.format("manipulated_sequences/Deepfakes", "071_054")] == ("071", "054")
    miniatures.bench_celeb(tmp_path / "celeb")
    found = who(tmp_path / "celeb")
    assert found["Celeb-DF-v2/Celeb-synthesis/frames/id3_id1_0000"] == ("id3", "id1")
    assert found["Celeb-DF-v2/Celeb-real/frames/id3_0000"] == ("id3", "")
    assert len(found) == 10


def test_numbers_of_other_lists_are_nobody(tmp_path: Path) -> None:
    pictures(tmp_path / "WildDeepfake/real_test/101")
    entries = {"101": bench_entry("Wild_real", "WildDeepfake/real_test/101")}
    listed(tmp_path / "Wild.json", {"Wild": {"Wild_real": {"test": entries}}})
    assert len(clips(tmp_path)) == 1 and not who(tmp_path)


# Folders called real and fake.


def test_clips_called_as_in_published_datasets(tmp_path: Path) -> None:
    for path in (
        *("real/071", "real/id0_0001", "real/01__walk", "real/beach12", "fake/Deepfakes/071_054"),
        *("fake/Deepfakes/054_071", "fake/Face2Face/071_054", "fake/Face2Face/054_071"),
        *("fake/other/071_054", "fake/other/054_071", "fake/id0_id1_0001", "fake/01_02__walk__A"),
    ):
        pictures(tmp_path / path)
    assert who(tmp_path) == {
        "real/071": ("071", ""),
        "real/id0_0001": ("id0", ""),
        "real/01__walk": ("actor01", ""),
        "fake/Deepfakes/071_054": ("071", "054"),
        "fake/Deepfakes/054_071": ("054", "071"),
        "fake/Face2Face/071_054": ("071", ""),
        "fake/Face2Face/054_071": ("054", ""),
        "fake/id0_id1_0001": ("id0", "id1"),
        "fake/01_02__walk__A": ("actor01", "actor02"),
    }


ACTORS = ("Ronald_Reagan", "Anna Kim", "홍길동")


@pytest.mark.parametrize("form", ["{0}/{0}_{1:04d}.png", "{0}_{1:04d}.png"])
def test_pictures_of_a_name(tmp_path: Path, form: str) -> None:
    for label in ("real", "fake"):
        for name in (*ACTORS, "Zoe" if label == "fake" else "Bob Ray"):
            path = tmp_path / label / form.format(name, 0)
            pictures(path.parent, (1, 2), path.name.replace("0000", "{:04d}"))
    found = who(tmp_path)
    assert {person for person, _ in found.values()} == {*ACTORS, "Bob Ray"}
    assert not any(donor for _, donor in found.values())
    for path, clip in clips(tmp_path).items():
        name = Path(path).stem[:-5]
        assert clip.person == (name if name != "Zoe" else "") and not clip.video


@pytest.mark.parametrize("folders", [("male", "female"), ("ffhq", "celeba", "lfw", "image")])
def test_names_that_are_nobodys(tmp_path: Path, folders: tuple[str, ...]) -> None:
    for name in folders:
        pictures(tmp_path / "real" / name, (1, 2), name + "_{:04d}.png")
    pictures(tmp_path / "real/trip", (1, 2), "IMG_{:04d}.png")
    assert len(clips(tmp_path)) == 2 * len(folders) + 2 and not who(tmp_path)


# A user's index.csv.


def test_people_of_an_index(tmp_path: Path) -> None:
    text = (
        "path,label,person,donor,group,method,kind\n"
        "a.jpg,0,Anna,Bob,,,\n"
        "b.jpg,1,Anna,Bob,,SimSwap,swaps\n"
        "c.jpg,1,Anna,Bob,clip 7,,\n"
        "d.jpg,0,7.0,,,,\n"
        "e.jpg,0,unknown,-,,,\n"
        "f.mp4,1,Anna,,,,\n"
        "g.mp4,1,,Bob,,,\n"
    )
    root = dataset(tmp_path, text, *(f"{name}.jpg" for name in "abcde"), "f.mp4", "g.mp4")
    assert find_samples(root, frames=1) == [
        Sample("a.jpg", 0, "Anna", person="Anna"),
        Sample("b.jpg", 1, "Anna", "", "", "swaps: SimSwap", "Anna", "Bob"),
        Sample("c.jpg", 1, "clip 7", person="Anna", donor="Bob"),
        Sample("d.jpg", 0, "7", person="7"),
        Sample("e.jpg", 0),
        Sample("f.mp4@0of1", 1, "Anna", "", "f.mp4", person="Anna"),
        Sample("g.mp4@0of1", 1, "g.mp4", "", "g.mp4", donor="Bob"),
    ]
    assert "people: 3 known, 3 of 4 fakes with a donor" in inventory(root)
