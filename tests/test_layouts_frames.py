"""WildDeepfake and DF40, which come as frames, and lists of DeepfakeBench, with their traps."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from data.datasets import find_samples
from data.inventory import survey
from data.layouts import recognise
from tests import miniatures
from tests.miniatures import bench_entry, clips, facts, inventory, listed, pictures

# WildDeepfake.


def test_wilddeepfake(tmp_path: Path) -> None:
    found = clips(miniatures.wilddeepfake(tmp_path))
    sequence = found["real_test/1/real/0"]
    assert facts(sequence) == "0 real_test/1 test real"
    assert [path.rsplit("/", 1)[1] for path in sequence.pictures] == ["9.png", "10.png", "100.png"]
    assert facts(found["fake_test/1/fake/1"]) == "1 fake_test/1 test -"
    assert (
        found["fake_train/10/fake/0"].split
        == found["fake_train/10/fake/1"].split
        in ("train", "val")
    )
    assert len({clip.group for clip in found.values()}) == 8, (
        "numbers recur in each of the four folders"
    )


def test_wilddeepfake_as_archives_leave_it(tmp_path: Path) -> None:
    miniatures.wilddeepfake(tmp_path)
    before = {clip.group for clip in clips(tmp_path).values()}
    for folder in ("real_train", "fake_test"):
        (tmp_path / folder).rename(tmp_path / "moved")
        (tmp_path / folder.replace("_", " ")).mkdir()
        (tmp_path / "moved").rename(tmp_path / folder.replace("_", " ") / "extracted")
    pictures(tmp_path / "real_test", (1,))
    assert {clip.group for clip in clips(tmp_path).values()} == before
    assert survey(tmp_path).unlisted == ["real_test/001.png"]


# DF40.


def test_df40(tmp_path: Path) -> None:
    found = clips(miniatures.df40(tmp_path))
    assert facts(found["DF40_train/simswap/frames/071_054"]) == "1 054_071 train simswap"
    assert facts(found["DF40/simswap/ff/frames/974_953"]) == "1 953_974 test simswap"
    assert facts(found["DF40/StyleGAN2/ff/953"]) == "1 953_974 test StyleGAN2"
    assert facts(found["DF40/simswap/cdf/frames/id0_id1_0000"]) == "1 id0 test simswap"
    assert (
        facts(found["DF40/StyleGAN2/cdf/Fake_from_Celeb-real/id0_0001"]) == "1 id0 test StyleGAN2"
    )
    assert (
        facts(found["DF40/StyleGAN2/cdf/Fake_from_Youtube-real/00170"]) == "1 00170 test StyleGAN2"
    )
    assert facts(found["DF40/heygen/real/frames/real_7"]) == "0 heygen/real_7 test real"
    assert facts(found["DF40/heygen/fake/frames/fake_7"]) == "1 heygen/fake_7 test heygen"
    single = found["DF40/stargan/real/real/5.jpg"]
    assert (single.video, facts(single)) == ("", "0 - test real")
    assert facts(found["DF40/e4e/ff/inversions/001.jpg"]) == "1 001 test e4e"


def test_df40_of_one_part(tmp_path: Path) -> None:
    """Clips from FaceForensics++ are divided by group, those from Celeb-DF are for testing."""
    miniatures.df40(tmp_path)
    assert recognise(tmp_path / "DF40") == recognise(tmp_path / "DF40_train") == "df40"
    found = clips(tmp_path / "DF40")
    assert found["simswap/ff/frames/974_953"].split == ""
    assert found["simswap/cdf/frames/id0_id1_0000"].split == "test"
    assert "fakes only" in inventory(tmp_path / "DF40_train")


def test_df40_pairs_across_the_official_splits(tmp_path: Path) -> None:
    pictures(miniatures.df40(tmp_path) / "DF40_train/inswap/frames/953_071")
    pictures(tmp_path / "DF40/notes")
    text = inventory(tmp_path)
    assert re.search(r"groups in several splits: 1, such as 953_974 \((train|val), test\)", text)
    assert (
        "not listed: 1 there and named by none of its lists, so passed over\n  DF40: notes" in text
    )


# DeepfakeBench.


@pytest.mark.parametrize(
    "above", ["deepfakes_detection_datasets", "./datasets", "/mnt/data/sets", "../data", "D:/sets"]
)
@pytest.mark.parametrize("slash", ["/", "\\"])
def test_deepfakebench(tmp_path: Path, above: str, slash: str) -> None:
    """Wherever the list was written; in the folder above FaceForensics++ and in it."""
    path = miniatures.deepfakebench(tmp_path / "sets", above, slash).rename(tmp_path / "FF-DF.json")
    found = clips(tmp_path / "sets", index=path, compression="c40")
    base = "FaceForensics++/manipulated_sequences/Deepfakes/c40/frames"
    assert facts(found[f"{base}/071_054"]) == "1 054_071 train Deepfakes"
    assert found[f"{base}/071_054"].pictures == tuple(
        f"{base}/071_054/{name}.png" for name in ("008", "009", "010")
    )
    assert (
        facts(found["FaceForensics++/original_sequences/youtube/c40/frames/974"])
        == "0 953_974 test real"
    )
    assert len(found) == 16
    inside = clips(tmp_path / "sets/FaceForensics++", index=path, compression="c40")
    assert {f"FaceForensics++/{video}": facts(clip) for video, clip in inside.items()} == {
        video: facts(clip) for video, clip in found.items()
    }


def test_deepfakebench_compression(tmp_path: Path) -> None:
    miniatures.deepfakebench(tmp_path)
    with pytest.raises(
        ValueError, match=r"FF-DF\.json: compression levels there: c23, c40; choose one"
    ):
        find_samples(tmp_path)
    with pytest.raises(ValueError, match=r"compression levels there: c23, c40; choose one"):
        find_samples(tmp_path, compression="raw")
    assert all("/c23/" in sample.path for sample in find_samples(tmp_path, compression="c23"))


def test_deepfakebench_of_celeb_df(tmp_path: Path) -> None:
    """Its lists have the test videos in all splits, and what is no clip where clips belong."""
    path = miniatures.bench_celeb(tmp_path)
    found = clips(tmp_path)
    tested = {video for video, clip in found.items() if clip.split == "test"}
    assert tested == {
        "Celeb-DF-v2/Celeb-real/frames/id0_0000",
        "Celeb-DF-v2/YouTube-real/frames/00170",
        "Celeb-DF-v2/Celeb-synthesis/frames/id0_id1_0000",
    }
    assert found["Celeb-DF-v2/Celeb-synthesis/frames/id1_id0_0000"].method == "CelebDFv2"
    assert {clip.split for clip in found.values()} == {"train", "val", "test"}
    assert len(found) == 12, "a clip in three splits is one clip"
    text = inventory(tmp_path)
    assert "3 clips are in several of its splits" in text
    assert (
        "1 of its entries are no clips with a list of frames, and passed over: "
        "CelebDFv2_real/val/frames" in text
    )
    with pytest.raises(ValueError, match="levels there: none of raw"):
        find_samples(tmp_path, index=path, compression="c23")


def test_deepfakebench_labels_and_methods(tmp_path: Path) -> None:
    labels = {
        "DFDC_Real": (0, "real"),
        "DFDC_Fake": (1, "DFDC"),
        "DFDCP_FakeA": (1, "DFDCP_FakeA"),
        "UADFV_Real": (0, "real"),
        "FF-NT": (1, "NeuralTextures"),
        "FF-FH": (1, "FaceShifter"),
        "DFD_fake": (1, "DeepFakeDetection"),
        "CelebDFv1_real": (0, "real"),
        "sd2.1_Fake": (1, "sd2.1"),
        "FF-real": (0, "real"),
        "DFD_real": (0, "real"),
    }
    table = {}
    for label in labels:
        folder = pictures(tmp_path / "set" / label / "clip").relative_to(tmp_path).as_posix()
        table[label] = {"test": {"clip": bench_entry(label, folder)}}
    pictures(tmp_path / "DF40/uniface/ff/frames/953_974")
    table["FSAll_Fake"] = {
        "test": {"x": bench_entry("FSAll_Fake", "DF40/uniface/ff/frames/953_974")}
    }
    listed(tmp_path / "all.json", {"all": table})
    found = {
        video.split("/")[1]: (clip.label, clip.method)
        for video, clip in clips(tmp_path, layout="deepfakebench").items()
    }
    assert found == labels | {"uniface": (1, "uniface")}


def test_deepfakebench_pictures_of_many_clips_in_one_folder(tmp_path: Path) -> None:
    """As of DF40's e4e, where every picture is a clip of its own."""
    pictures(tmp_path / "DF40/e4e/ff/inversions", (1, 2))
    entries = {f"{i:03d}": bench_entry("e4e_Fake", "DF40/e4e/ff/inversions", (i,)) for i in (1, 2)}
    listed(tmp_path / "e4e_ff.json", {"e4e_ff": {"e4e_Fake": {"train": entries, "test": entries}}})
    found = clips(tmp_path, layout="deepfakebench")
    assert {video: facts(clip) for video, clip in found.items()} == {
        f"DF40/e4e/ff/inversions/{name}": f"1 {name} test e4e" for name in ("001", "002")
    }


def test_deepfakebench_says_what_is_missing(tmp_path: Path) -> None:
    path = miniatures.deepfakebench(tmp_path)
    base = "FaceForensics++/original_sequences/youtube/c23/frames"
    shutil.rmtree(tmp_path / base / "071")
    (tmp_path / base / "974/009.png").unlink()
    found = survey(tmp_path, compression="c23")
    assert found.missing == [f"{base}/071"]
    assert len(clips(tmp_path, compression="c23")[f"{base}/974"].pictures) == 2
    assert "4 of the frames that it names are not there" in found.notes
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError,
        match="holds none of the frames that .* such as deepfakes_detection_datasets/Face",
    ):
        find_samples(tmp_path / "empty", index=path, compression="c23")


def test_deepfakebench_paths_stay_in_the_folder(tmp_path: Path) -> None:
    pictures(tmp_path / "secret")
    pictures(tmp_path / "root/good")
    clips_of = {"a": bench_entry("x_Real", "good"), "b": bench_entry("x_Real", "good/../../secret")}
    listed(tmp_path / "root/x.json", {"x": {"x_Real": {"test": clips_of}}})
    assert [*clips(tmp_path / "root")] == ["good"]


def test_deepfakebench_names_what_is_malformed(tmp_path: Path) -> None:
    pictures(tmp_path / "good")
    good, none = (
        {"good": bench_entry("x_Real", "good")},
        "of its entries are no clips with a list of frames, and passed over",
    )
    strange = {"a": {"frames": "good/001.png"}, "b": ["good/001.png"], "c": {"label": "x_Real"}}
    for splits, note in (
        ({"train": {**good, **strange}}, "3 NONE: x_Real/train/a, x_Real/train/b, x_Real/train/c"),
        ({"train": good, "test": ["good/001.png"]}, "1 NONE: x_Real/test"),
        ({"train": good, "test": {"c23": {"d": None}}}, "1 NONE: x_Real/test/c23/d"),
        (
            {"train": {"c23": good, "c40": ["a"], "x": good["good"]}},
            "1 NONE: x_Real/train/c40",
        ),
        (
            {"train": {**good, **strange}, "val": None},
            "4 NONE: x_Real/train/a, x_Real/train/b, x_Real/train/c, ...",
        ),
    ):
        listed(tmp_path / "x.json", {"x": {"x_Real": splits}})
        assert [*clips(tmp_path, layout="deepfakebench")] == ["good"]
        assert survey(tmp_path, layout="deepfakebench").notes[-1] == note.replace("NONE", none)
    listed(tmp_path / "x.json", {"x": {"x_Real": {"train": strange}}, "made by": "hand"})
    with pytest.raises(
        ValueError,
        match="x.json: none of its entries is a clip with a list of frames: x_Real/train/a",
    ):
        find_samples(tmp_path)


def test_which_list(tmp_path: Path) -> None:
    path = miniatures.deepfakebench(tmp_path)
    shutil.copy(path, tmp_path / "FF-FS.json")
    with pytest.raises(ValueError, match=r"FF-DF\.json, FF-FS\.json; name one with --index"):
        find_samples(tmp_path, compression="c23")
    assert len(find_samples(tmp_path, index=path, compression="c23", frames=1)) == 16
    other = listed(tmp_path / "other.json", {"a": 1})
    with pytest.raises(ValueError, match=r"other\.json: no list of DeepfakeBench"):
        find_samples(tmp_path, index=other)
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        find_samples(tmp_path, index=tmp_path / "none.json")


def test_an_index_beside_an_official_layout(tmp_path: Path) -> None:
    path = tmp_path / "index.csv"
    path.write_text("path,label\na.png,real\n")
    with pytest.raises(ValueError, match="--index does not go with the layout celeb-df"):
        find_samples(miniatures.celeb_df(tmp_path / "set"), index=path, layout="celeb-df")
