"""FaceForensics++, DeepFakeDetection, Celeb-DF and DFDC as distributed, with their traps."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from data.datasets import find_samples
from data.inventory import survey
from data.layouts import recognise
from data.splits import fill_groups_and_splits
from tests import miniatures
from tests.miniatures import clip, clips, facts, inventory, listed, pictures

# FaceForensics++ and DeepFakeDetection.


def test_faceforensics(tmp_path: Path) -> None:
    found = clips(miniatures.faceforensics(tmp_path))
    base, fakes = "original_sequences/youtube/c23/videos", "manipulated_sequences"
    assert facts(found[f"{base}/071.mp4"]) == "0 054_071 train real"
    assert facts(found[f"{fakes}/Deepfakes/c23/videos/054_071.mp4"]) == "1 054_071 train Deepfakes"
    assert (
        facts(found[f"{fakes}/NeuralTextures/c23/videos/071_054.mp4"])
        == "1 054_071 train NeuralTextures"
    )
    assert facts(found[f"{fakes}/Deepfakes/c23/videos/672_720.mp4"]) == "1 672_720 val Deepfakes"
    assert facts(found[f"{base}/974.mp4"]) == "0 953_974 test real"
    assert len(found) == 8 + 2 * 8


def test_faceforensics_lists_in_splits_or_nowhere(tmp_path: Path) -> None:
    beside = clips(miniatures.faceforensics(tmp_path / "a"))
    assert clips(miniatures.faceforensics(tmp_path / "b", lists="splits")) == beside
    without = clips(miniatures.faceforensics(tmp_path / "c", lists=None))
    assert {clip.group for clip in without.values()} == {clip.group for clip in beside.values()}
    assert {clip.split for clip in without.values()} == {""}
    assert "splits are unknown" in inventory(tmp_path / "c")
    filled = fill_groups_and_splits(
        find_samples(tmp_path / "c", frames=1), [f"{i:016x}" for i in range(24)]
    )
    assert max(Counter(s.group for s in {*filled}).values()) == 6, "a pair never parts"
    assert len({(s.group, s.split) for s in filled}) == 4


def test_faceforensics_compression(tmp_path: Path) -> None:
    miniatures.faceforensics(tmp_path, levels=("c23", "c40"))
    with pytest.raises(ValueError, match=r"levels there: c23, c40; choose one with --compression"):
        find_samples(tmp_path)
    assert "choose one with --compression" in inventory(tmp_path)
    with pytest.raises(ValueError, match="levels there: c23, c40; choose one"):
        find_samples(tmp_path, compression="raw")
    samples = find_samples(tmp_path, compression="c40", frames=1)
    assert len(samples) == 24
    assert all("/c40/" in sample.path for sample in samples)
    text = inventory(tmp_path, compression="c40")
    assert "passed over: 24 other pictures and videos" in text
    assert "manipulated_sequences/Deepfakes/c23: 8" in text


def test_faceforensics_as_frames(tmp_path: Path) -> None:
    root = miniatures.faceforensics(
        tmp_path, make=lambda path: pictures(path, (10, 9, 8, 100), "{:d}.png")
    )
    found = clips(root)
    ordered = found["original_sequences/youtube/c23/images/071"]
    names = [path.rsplit("/", 1)[1] for path in ordered.pictures]
    assert names == ["8.png", "9.png", "10.png", "100.png"]
    assert [sample.path.rsplit("/", 1)[1] for sample in ordered.samples(2)] == ["9.png", "100.png"]
    assert (
        facts(found["manipulated_sequences/Deepfakes/c23/images/071_054"])
        == "1 054_071 train Deepfakes"
    )


def test_faceforensics_says_what_is_missing(tmp_path: Path) -> None:
    root = miniatures.faceforensics(tmp_path)
    (root / "original_sequences/youtube/c23/videos/953.mp4").unlink()
    shutil.rmtree(root / "manipulated_sequences/NeuralTextures/c23")
    clip(root / "original_sequences/youtube/c23/videos/999.mp4")
    clip(root / "manipulated_sequences/Deepfakes/c23/videos/071_003.mp4")
    (root / "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4").write_bytes(b"")
    found = survey(root)
    assert found.missing[0] == "original_sequences/youtube/c23/953"
    assert len(found.missing) == 1 + 8
    assert found.unlisted == [
        "original_sequences/youtube/c23/videos/999.mp4",
        "manipulated_sequences/Deepfakes/c23/videos/071_003.mp4",
    ]
    assert found.empty == ["manipulated_sequences/Deepfakes/c23/videos/000_003.mp4"]
    text = inventory(root)
    assert "missing: 9 named by its lists and not there" in text
    assert "manipulated_sequences/NeuralTextures/c23: 8, such as 000_003, 003_000, 054_071" in text
    assert "not listed: 2 there and named by none" in text
    assert "empty files: 1" in text
    assert "note: FaceShifter is not there" in text
    assert "passed over" not in text.replace("so passed over", ""), "they are named once"


def test_faceforensics_in_folders_of_another_case(tmp_path: Path) -> None:
    root = miniatures.faceforensics(tmp_path)
    (root / "original_sequences/youtube").rename(root / "original_sequences/YouTube")
    (root / "manipulated_sequences/Deepfakes").rename(root / "manipulated_sequences/DeepFakes")
    found = clips(root)
    assert facts(found["original_sequences/YouTube/c23/videos/071.mp4"]) == "0 054_071 train real"
    assert found["manipulated_sequences/DeepFakes/c23/videos/054_071.mp4"].method == "Deepfakes"
    assert len(found) == 8 + 2 * 8
    assert recognise(root) == "faceforensics"
    text = inventory(root)
    assert "passed over" not in text
    assert "Deepfakes is not there" not in text
    (root / "original_sequences/youtube").mkdir()  # empty: not what is meant
    assert len(clips(root)) == 8 + 2 * 8
    shutil.copytree(
        root / "original_sequences/YouTube", root / "original_sequences/youtube", dirs_exist_ok=True
    )
    assert sum(video.startswith("original_sequences/youtube/") for video in clips(root)) == 8
    (root / "manipulated_sequences/deepfakedetection/c23").mkdir(parents=True)
    assert "passed over: 8 other" in inventory(root) and "no method" not in inventory(root)
    shutil.rmtree(root / "original_sequences")
    assert "note: original_sequences/youtube: the real videos are not there" in inventory(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}', "no list"),
        ('[["071", "054", "000"]]', "no pair"),
        ("[[", "cannot be read"),
        ('[["071", "054"]]', "071 is in the pair 054_071 of train too"),
    ],
)
def test_faceforensics_lists_of_something_else(tmp_path: Path, content: str, message: str) -> None:
    (miniatures.faceforensics(tmp_path) / "test.json").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        find_samples(tmp_path)
    assert f"{tmp_path}/test.json" in str(caught.value)


def test_dfd(tmp_path: Path) -> None:
    found = clips(miniatures.dfd(tmp_path))
    real, fake = (
        "original_sequences/actors/c23/videos",
        "manipulated_sequences/DeepFakeDetection/c23/videos",
    )
    assert facts(found[f"{real}/01__kitchen_pan.mp4"]) == "0 actor01 - real"
    assert (
        facts(found[f"{fake}/01_02__kitchen_pan__YVGY8LOK.mp4"]) == "1 actor01 - DeepFakeDetection"
    )
    assert {clip.group for clip in found.values()} == {"actor01", "actor02", "actor03"}
    assert "only one of them is swapped" in inventory(tmp_path)


def test_dfd_in_folders_of_another_case(tmp_path: Path) -> None:
    root = miniatures.dfd(tmp_path)
    before = len(clips(root))
    (root / "original_sequences/actors").rename(root / "original_sequences/Actors")
    (root / "manipulated_sequences/DeepFakeDetection").rename(
        root / "manipulated_sequences/Deepfakedetection"
    )
    assert recognise(root) == "dfd" and len(clips(root)) == before
    shutil.rmtree(root / "original_sequences")
    assert recognise(root) == "dfd"


def test_dfd_beside_faceforensics(tmp_path: Path) -> None:
    """One download holds both; their names tell them apart."""
    miniatures.dfd(miniatures.faceforensics(tmp_path))
    assert recognise(tmp_path) == "faceforensics"
    assert not any(
        "actors" in s.path or "DeepFakeDetection" in s.path for s in find_samples(tmp_path)
    )
    assert {s.method for s in find_samples(tmp_path, layout="dfd")} == {"real", "DeepFakeDetection"}
    assert "--layout dfd reads it" in inventory(tmp_path)


# Celeb-DF.


def test_celeb_df(tmp_path: Path) -> None:
    """1 is real in its list, and the test videos lie among the others."""
    found = clips(miniatures.celeb_df(tmp_path))
    assert {path for path, clip in found.items() if clip.split == "test"} == {
        "Celeb-real/id0_0000.mp4",
        "YouTube-real/00170.mp4",
        "Celeb-synthesis/id0_id1_0000.mp4",
    }
    assert found["Celeb-real/id0_0000.mp4"].label == 0
    assert found["Celeb-synthesis/id0_id1_0000.mp4"].label == 1
    assert (
        found["Celeb-synthesis/id1_id0_0000.mp4"].group
        == found["Celeb-real/id1_0000.mp4"].group
        == "id1"
    )
    assert found["YouTube-real/00000.mp4"].group == "YouTube-real/00000"
    assert {clip.split for clip in found.values()} == {"train", "val", "test"}, "all are known"
    assert "groups in several splits: 1, such as id0 (train, test)" in inventory(tmp_path).replace(
        "val,", "train,"
    )


def test_celeb_df_validation_depends_on_the_group_alone(tmp_path: Path) -> None:
    whole = {path: clip.split for path, clip in clips(miniatures.celeb_df(tmp_path)).items()}
    shutil.rmtree(tmp_path / "YouTube-real")
    shutil.rmtree(tmp_path / "Celeb-synthesis")
    (tmp_path / "YouTube-real").mkdir()
    assert {path: clip.split for path, clip in clips(tmp_path).items()}.items() <= whole.items()


def test_celeb_df_in_other_folders(tmp_path: Path) -> None:
    """With videos/ in between and "Youtube" written otherwise, as benchmarks have it."""
    miniatures.celeb_df(tmp_path)
    before = {path.split("/")[-1]: facts(clip) for path, clip in clips(tmp_path).items()}
    for folder in ("Celeb-real", "Celeb-synthesis", "YouTube-real"):
        (tmp_path / folder).rename(tmp_path / "moved")
        (tmp_path / folder.replace("YouTube", "Youtube")).mkdir()
        (tmp_path / "moved").rename(tmp_path / folder.replace("YouTube", "Youtube") / "videos")
    assert {path.split("/")[-1]: facts(clip) for path, clip in clips(tmp_path).items()} == before


def test_celeb_df_list(tmp_path: Path) -> None:
    root = miniatures.celeb_df(
        tmp_path, tested=miniatures.CELEB_TEST + "1 Celeb-real/id9_0000.mp4\n\n"
    )
    assert survey(root).missing == ["celeb-real/id9_0000"]
    (root / "List_of_testing_videos.txt").write_text("0 Celeb-real/id0_0000.mp4\n")
    with pytest.raises(ValueError, match=r"calls Celeb-real/id0_0000\.mp4 fake"):
        find_samples(root)
    (root / "List_of_testing_videos.txt").write_text("Celeb-real/id0_0000.mp4\n")
    with pytest.raises(ValueError, match=r"line 1: expected '1 YouTube-real/00170\.mp4'"):
        find_samples(root)
    (root / "List_of_testing_videos.txt").unlink()
    assert {s.split for s in find_samples(root)} == {""}
    assert "List_of_testing_videos.txt" in inventory(root)


# Deepfake Detection Challenge.


def test_dfdc(tmp_path: Path) -> None:
    found = clips(miniatures.dfdc(tmp_path))
    labels = sorted(f"{Path(path).stem} {clip.label} {clip.group}" for path, clip in found.items())
    assert ", ".join(labels) == (
        "aaaa 0 aaaa, bbbb 1 aaaa, cccc 1 aaaa, dddd 0 dddd, eeee 1 dddd, "
        "ffff 0 ffff, gggg 1 ffff, tttt 0 tttt, uuuu 1 uuuu"
    )
    assert {path for path, clip in found.items() if clip.split == "test"} == {
        "test/videos/tttt.mp4",
        "test/videos/uuuu.mp4",
    }
    assert {clip.split for clip in found.values()} == {"train", "val", "test"}


def test_dfdc_of_one_part(tmp_path: Path) -> None:
    """Kaggle calls everything train; what has no test videos is divided anew."""
    miniatures.dfdc(tmp_path)
    part = tmp_path / "dfdc_train_part_00"
    assert recognise(part) == "dfdc"
    found = {(s.video, s.label, s.split) for s in find_samples(part)}
    assert found == {(f"{name * 4}.mp4", int(name in "bc"), "") for name in "abcd"}
    shutil.rmtree(tmp_path / "test")
    assert {s.split for s in find_samples(tmp_path)} == {""}
    assert {s.video for s in find_samples(tmp_path)} > {"dfdc_train_part_01/gggg.mp4"}


def test_dfdc_with_train_and_validation(tmp_path: Path) -> None:
    miniatures.dfdc(tmp_path)
    (tmp_path / "train").mkdir()
    for part in ("dfdc_train_part_00", "dfdc_train_part_01"):
        (tmp_path / part).rename(tmp_path / "train" / part)
    clip(tmp_path / "validation/vvvv.mp4")
    (tmp_path / "validation/labels.csv").write_text("filename,label\nvvvv.mp4,1\n")
    splits = {path: clip.split for path, clip in clips(tmp_path).items()}
    assert splits["train/dfdc_train_part_00/aaaa.mp4"] == "train"
    assert [path for path, split in splits.items() if split == "val"] == ["validation/vvvv.mp4"]


def test_dfdc_says_what_is_missing(tmp_path: Path) -> None:
    part = miniatures.dfdc(tmp_path) / "dfdc_train_part_00"
    (part / "bbbb.mp4").unlink()
    clip(part / "zzzz.mp4")
    (tmp_path / "test/labels.csv").write_text(
        "filename,label\ntttt.mp4,0\nuuuu.mp4,1\nwwww.mp4,1\n"
    )
    found = survey(tmp_path)
    assert found.missing == ["dfdc_train_part_00/bbbb.mp4", "test/wwww.mp4"]
    assert found.unlisted == ["dfdc_train_part_00/zzzz.mp4"]
    listed(part / "metadata.json", {"aaaa.mp4": {"label": "REAL"}, "cccc.mp4": {"label": "MAYBE"}})
    with pytest.raises(
        ValueError, match=r"metadata\.json: cccc\.mp4: expected a label REAL or FAKE"
    ):
        find_samples(tmp_path)
    (part / "metadata.json").write_text("{")
    with pytest.raises(ValueError, match=r"part_00/metadata\.json: cannot be read"):
        find_samples(tmp_path)


def test_dfdc_labels_of_something_else(tmp_path: Path) -> None:
    miniatures.dfdc(tmp_path)
    (tmp_path / "test/labels.csv").write_text("filename,label\ntttt.mp4,0\nuuuu.mp4,2\n")
    with pytest.raises(
        ValueError, match=r"labels\.csv: line 3: expected a file and a label 0 or 1"
    ):
        find_samples(tmp_path)


def test_dfdc_preview(tmp_path: Path) -> None:
    found = clips(miniatures.dfdc_preview(tmp_path))
    fake = found["method_B/1255229/1255229_C/1260311_1255229_C_001.mp4"]
    assert facts(fake) == "1 1255229 test method_B", (
        "of the actor who is filmed, not of the one whose face it is"
    )
    assert facts(found["original_videos/1255229/1255229_C_001.mp4"]) == "0 1255229 test real"
    train = found["method_A/643049/643049_A/1224068_643049_A_001.mp4"]
    assert (train.group, train.split) == (
        "643049",
        found["original_videos/643049/643049_A_001.mp4"].split,
    )
    assert {clip.split for clip in found.values()} == {"train", "val", "test"}


def test_dfdc_preview_of_a_benchmark(tmp_path: Path) -> None:
    """Frames of some of the clips, in frames/ of the folder at the top."""
    miniatures.dfdc_preview(tmp_path)
    shutil.rmtree(tmp_path / "method_A/643049")
    pictures(tmp_path / "method_A/frames/1224068_643049_A_001")
    shutil.rmtree(tmp_path / "method_B")
    clip(tmp_path / "original_videos/stranger.mp4")
    found = survey(tmp_path)
    assert clips(tmp_path)["method_A/frames/1224068_643049_A_001"].group == "643049"
    assert found.missing == ["method_B/1255229/1255229_C/1260311_1255229_C_001.mp4"]
    assert found.unlisted == ["original_videos/stranger.mp4"]
    text = inventory(tmp_path)
    assert "one class: test is all real" in text
    content = json.loads((tmp_path / "dataset.json").read_text())
    listed(tmp_path / "dataset.json", content | {"method_A/x.mp4": {"set": "train"}})
    with pytest.raises(
        ValueError, match=r"dataset\.json: method_A/x\.mp4: expected a label real or fake and a set"
    ):
        find_samples(tmp_path)
