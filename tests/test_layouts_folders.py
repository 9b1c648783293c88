"""Clips, people and single pictures in folders called real and fake, by names alone."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from data.datasets import find_samples
from data.layouts.runs import runs_of
from data.samples import Sample
from data.splits import fill_groups_and_splits
from tests.miniatures import inventory


def found(root: Path, *names: str, count: int = 3, start: int = 0) -> list[Sample]:
    """Samples of a folder with these files, `count` for each {}."""
    for name in names:
        for number in range(start, start + count):
            path = root / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return find_samples(root)


def by_clip(samples: list[Sample]) -> dict[str, set[str]]:
    """Video -> its groups."""
    clips: dict[str, set[str]] = {}
    for sample in samples:
        clips.setdefault(sample.video, set()).add(sample.group)
    return clips


@pytest.mark.parametrize(
    "frame",
    [
        "{:04d}.jpg",
        "frame_{}.png",
        "frame{:03d}.PNG",
        "fr{:03d}_subj0.jpg",
        "img_{:03d}.png",
        "c_{}_a.jpg",
    ],
)
@pytest.mark.parametrize("clip", ["{}", "{}.mp4", "clip_{}", "{}/frames", "{}/c23/images"])
def test_folders_of_frames_are_clips(tmp_path: Path, clip: str, frame: str) -> None:
    names = [f"real/{clip.format(n)}/{frame}" for n in ("000", "003", "17")]
    names += [f"fake/{clip.format(n)}/{frame}" for n in ("000_003", "003_000", "17")]
    samples = found(tmp_path, *names, count=5)
    top = clip.split("/")[0]
    clips = by_clip(samples)
    assert set(clips) == {f"real/{top.format(n)}" for n in ("000", "003", "17")} | {
        f"fake/{top.format(n)}" for n in ("000_003", "003_000", "17")
    }
    if clip != "clip_{}":
        assert clips[f"real/{top.format('000')}"] == clips[f"fake/{top.format('000_003')}"]
    assert clips[f"real/{top.format('17')}"] == clips[f"fake/{top.format('17')}"]
    filled = fill_groups_and_splits(
        samples, [f"{n:016x}" for n in range(0, len(samples) << 40, 1 << 40)]
    )
    assert len({(s.video, s.split) for s in filled}) == 6


@pytest.mark.parametrize("names", [("071", "054"), ("id0_0001", "id1_0000"), ("clip1", "clip2")])
@pytest.mark.parametrize("frame", ["_{:03d}.png", "-{}.jpg", "_frame_{:04d}.jpg", "_frame{}.png"])
def test_frames_side_by_side_are_clips(tmp_path: Path, names: tuple[str, ...], frame: str) -> None:
    samples = found(tmp_path, *(f"{label}/{n}{frame}" for label in ("real", "fake") for n in names))
    assert set(by_clip(samples)) == {f"{label}/{n}" for label in ("real", "fake") for n in names}
    assert all(len(groups) == 1 for groups in by_clip(samples).values())


def test_a_series_that_is_called_video(tmp_path: Path) -> None:
    samples = found(tmp_path, "real/video_{:03d}.png", "fake/vid{:03d}.png", count=40)
    assert set(by_clip(samples)) == {"real/video", "fake/vid"}
    assert len(samples) == 64, "32 frames of each"


def test_the_limit_of_frames_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        samples = found(tmp_path, "real/000/{:02d}.png", "fake/004/{:02d}.png", count=40)
    assert len(samples) == 64
    assert (
        "2 folders or series" in caplog.text
        and "16 pictures beyond 32 of a clip are left out" in caplog.text
    )
    assert "note: 2 folders or series" in inventory(tmp_path)
    (tmp_path / "index.csv").write_text("path,label\nreal/000/01.png,real\nfake/004/01.png,fake\n")
    assert {sample.video for sample in find_samples(tmp_path)} == {""}


@pytest.mark.parametrize(
    "names",
    [
        ["real/IMG_{:04d}.jpg", "fake/{:05d}.png"],
        ["real/holiday/IMG_{:04d}.jpg", "real/party/IMG_{:04d}.jpg"],
        ["real/2019/DSC_{:04d}.JPG", "real/2020/DSC_{:04d}.JPG"],
        ["real/a/20220101_12300{}.jpg", "real/b/20220102_12300{}.jpg"],
        ["real/ffhq/{:05d}.png", "fake/stylegan2/seed{:04d}.png", "fake/sdxl/{:04d}.png"],
        ["real/people/{:05d}.png", "fake/made/{:05d}.png"],
        ["real/real_{:05d}.jpg", "fake/fake_{:05d}.jpg"],
        ["real/easy_{}_1110.jpg", "fake/mid_{}_0110.jpg"],
        [
            "real/x/a8f{}c.jpg",
            "real/x/some photo {}.jpg",
            "real/x/what{}ever.jpg",
            "real/y/z{}.jpg",
        ],
    ],
)
def test_single_pictures_stay_single(tmp_path: Path, names: list[str]) -> None:
    samples = found(tmp_path, *names, count=9)
    assert by_clip(samples) == {"": {""}}
    assert len(samples) == 9 * len(names)


def test_one_numbering_over_many_folders(tmp_path: Path) -> None:
    """As FFHQ has it; where the numbers start again, folders are clips."""
    for start in (1000, 2000, 3000):
        samples = found(tmp_path, f"real/{start:05d}/{{:05d}}.png", start=start)
    assert by_clip(samples) == {"": {""}} and len(samples) == 9
    samples = found(tmp_path, "real/02000/{:05d}.png", count=1)
    assert set(by_clip(samples)) == {"real/01000", "real/02000", "real/03000"}


def test_collections_are_longer_than_clips(tmp_path: Path) -> None:
    samples = found(tmp_path, "real/here/{}.png", "real/there/{}.png", count=2001)
    assert len(samples) == 4002


@pytest.mark.parametrize("name", ["{0}/{0}_{{:04d}}.jpg", "{0}_{{:04d}}.jpg"])
def test_people_are_groups_of_all_their_pictures(tmp_path: Path, name: str) -> None:
    people = ("Aaron_Eckhart", "Bo_Li", "C_D", "Éva Ł")
    names = [f"{label}/{name.format(who)}" for label in ("real", "fake") for who in people]
    samples = found(tmp_path, *names, count=40)
    assert len(samples) == 320 and by_clip(samples) == {"": set(people)}


def test_folders_above_clips_are_methods(tmp_path: Path) -> None:
    samples = found(
        tmp_path,
        *(
            f"fake/{m}/{c}/{{}}.png"
            for m in ("Deepfakes", "FaceSwap")
            for c in ("000_003", "003_000")
        ),
        *(f"real/{source}/{{}}.png" for source in ("000", "003", "004")),
    )
    assert {(s.method, s.label) for s in samples} == {
        ("Deepfakes", 1),
        ("FaceSwap", 1),
        ("real", 0),
    }
    assert {s.group for s in samples if "004" not in s.video} == {"000_003"}


def test_videos_of_one_source_share_a_group(tmp_path: Path) -> None:
    samples = found(
        tmp_path, "real/000.mp4", "fake/000_003.mp4", "real/a.mp4", "fake/a.avi", "real/p/out.mp4",
        "real/q/out.mp4", "fake/p/out.mp4",
    )  # fmt: skip
    groups = {video: group for video, (group,) in by_clip(samples).items()}
    assert groups["real/000.mp4"] == groups["fake/000_003.mp4"] == "000"
    assert groups["real/a.mp4"] == groups["fake/a.avi"]
    assert groups["real/p/out.mp4"] == groups["fake/p/out.mp4"] != groups["real/q/out.mp4"]


def test_equal_names_in_given_splits_are_not_one_source(tmp_path: Path) -> None:
    parts = [
        f"{split}/{label}/abc/{{}}.png" for split in ("train", "test") for label in ("real", "fake")
    ]
    parts += [part.replace("abc", "def") for part in parts]
    assert {(s.split, s.group) for s in found(tmp_path, *parts)} == {
        (split, f"{split}/{name}") for split in ("train", "test") for name in ("abc", "def")
    }


@pytest.mark.parametrize(
    "form",
    [
        "{clip}_{frame}_0",
        "{clip}_frame{frame:04d}_0",
        "{clip}_{frame:04d}_face",
        "{clip}_{frame:03d}_crop",
        "{frame:05d}_{clip}",
        "{clip}_{frame}",
    ],
)
def test_other_ways_to_call_a_frame(form):
    for clips in (("071", "054", "003"), ("aagfhg1", "abarnv2", "bbb3")):
        if form.startswith("{frame") and not clips[0].isdecimal():
            continue
        paths = [form.format(clip=c, frame=f) + ".jpg" for c in clips for f in range(4)]
        runs = runs_of(paths)
        assert {run.name for run in runs} == set(clips), form
        assert all(run.film and len(run.pictures) == 4 for run in runs)


def test_a_single_clip_of_a_published_set():
    for name in ("000_003", "id0_0000", "id0_id1_0002"):
        (run,) = runs_of([f"{name}_{frame}.jpg" for frame in range(4)])
        assert run.name == name and run.film
