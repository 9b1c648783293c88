"""Ways to call frames that people meet, by names alone: no clip may fall apart into several groups."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

import pytest

from data.datasets import find_samples
from data.layouts.folders import _clips, _groups
from data.layouts.runs import runs_of
from data.layouts.series import called

SIDE_BY_SIDE = [
    "{c}_{i:04d}",
    "{c}_{i}",
    "{c}-{i}",
    "{c}.{i}",
    "{c}_frame{i}",
    "{c}_frame_{i}",
    "{c}frame{i}",
    "{c}_f{i}",
    "{c}_{i}_0",
    "{c}_{i}_face",
    "{c}_{i}_face_0",
    "{c}_{i}_crop",
    "{c}.mp4_{i}",
    "{c}.mp4-{i:04d}",
    "{c}_mp4_{i}",
    "{c}_face_{i}",
    "{c}_face{i}",
    "{c}#{i}",
    "{c}@{i}",
    "{c}_t{i}",
    "{c}_{i}s",
    "{c}_{i}ms",
    "{c}_{i}.00",
    "{c}_sec{i}",
    "{c}_{i:08d}",
    "vid{c}_{i}",
    "{c}__{i}",
    "{c}_c23_{i}",
    "c23_{c}_{i}",
    "{c}_{i}_landmarks_aligned",
    "{c}_{i}_left",
    "{c}_{i}_0.{r}",
    "{c}_{i}_1{r}_5{r}_200_220",
    "frame{i}_{c}",
    "frame_{i}_{c}",
    "real_{c}_{i}",
]
FOLDERS = [
    "{c}/frame{i}",
    "{c}/{i}",
    "{c}.mp4/{i}",
    "{c}/{c}_{i}",
    "{c}/{i}_0",
    "{c}/face_{i}_0",
    "{c}/{i}/face0",
    "{c}/0/{i}",
    "{c}/id0/{i}",
    "{c}/face_0/{i}",
    "{c}/face/{i}",
    "{c}/faces_0/{i}",
    "{c}/mtcnn/{i}",
    "{c}/{i:03d}/0",
    "{c}/cropped_faces/{i}",
    "{c}_faces/{i}",
    "{c}/frame{i}/face",
    "frame{i}/{c}",
    "{c}/data_src/aligned/{i}_0",
]
CLIPS = {
    "sources": [f"{n:03d}" for n in range(20)],
    "pairs": [f"{n:03d}_{n + 500:03d}" for n in range(20)],
    "people": [f"id{n // 3}_id{n // 3 + 1}_{n % 3:04d}" for n in range(24)],
    "words": ["".join(random.Random(n).choices("abcdefghij", k=10)) for n in range(20)],
    "numbered": [f"clip{n}" for n in range(9)],
    "one letter": [f"P{n}" for n in range(1, 12)],
}


def apart(paths: dict[str, str]) -> tuple[list[str], list[set[str]]]:
    """Clips of which not all pictures share a source; and the clips that share one.

    paths: picture -> clip.
    """
    of_clip, of_source = defaultdict(set), defaultdict(set)
    for run in runs_of(paths):
        for picture in run.pictures:
            of_clip[paths[picture]].add(run.source or picture)
            of_source[run.source or picture].add(paths[picture])
    return [c for c, some in of_clip.items() if len(some) > 1], [*of_source.values()]


@pytest.mark.parametrize("step", [1, 13], ids=["all", "every13th"])
@pytest.mark.parametrize("clips", CLIPS)
@pytest.mark.parametrize("form", [*SIDE_BY_SIDE, *FOLDERS])
def test_frames_of_a_clip_stay_together(form: str, clips: str, step: int) -> None:
    draw = random.Random(0)
    paths = {
        form.format(c=c, i=i * step, r=draw.randrange(100, 999)) + ".png": c
        for c in CLIPS[clips]
        for i in range(10)
    }
    spread, sharing = apart(paths)
    assert not spread
    people = max(len({name.split("_")[0] for name in some}) for some in sharing)
    assert people == 1, "no more is kept together than clips of one source"


@pytest.mark.parametrize("form", [*SIDE_BY_SIDE[:4], "{c}_{i}_face_0", "{i}_{c}", "{i:05d}_{c}"])
def test_frames_that_are_missing_change_nothing(form: str) -> None:
    draw = random.Random(0)
    paths = {
        form.format(c=c, i=13 * i) + ".png": c
        for c in CLIPS["pairs"]
        for i in range(12)
        if draw.random() < 0.85
    }
    assert apart(paths)[0] == []


@pytest.mark.parametrize("form", ["{i}_{c}", "{i:04d}_{c}", "{i:05d}_{c}"])
@pytest.mark.parametrize("ids", [("071", "054", "003", "500"), ("clip1", "clip2"), CLIPS["people"]])
def test_the_frame_first(form: str, ids: list[str]) -> None:
    for step in (1, 10):
        if step > 1 and ids[0].isdecimal() and "0" not in form:
            continue
        paths = {form.format(c=c, i=step * i) + ".png": c for c in ids for i in range(9)}
        assert apart(paths)[0] == []


def test_times_are_numbers_of_frames() -> None:
    paths = {
        f"clip{n}_00_{k // 3:02d}_{k % 3 * 20:02d}.png": str(n) for n in range(8) for k in range(12)
    }
    assert apart(paths)[0] == []


@pytest.mark.parametrize(
    "form",
    [
        "{i:05d}",
        "real_{i:05d}",
        "img{i}",
        "seed{i:04d}",
        "{i:05d}-{r}",
        "{i:05d}-0-{r}",
        "ComfyUI_{i:05d}_",
        "25_{b}_{b}_2017{r}{r}",
        "IMG_{i:04d}",
        "IMG_2019010{b}_12{i:04d}",
        "DSC{i:05d}",
        "P1{i:06d}",
        "PXL_20210101_{i:09d}",
        "2019010{b}_12{i:04d}",
        "{i:04d}.jpg_face",
        "FB_IMG_{r}{r}",
        "midjourney ({i})",
        "easy_{i}_1011",
    ],
)
def test_single_pictures_stay_single(form: str) -> None:
    draw = random.Random(0)
    rows = [(i, i % 2, draw.randrange(10**8, 10**9)) for i in range(60)]
    runs = runs_of({form.format(i=i, b=b, r=r) + ".png" for i, b, r in rows})
    assert len(runs) >= 59 and all(len(run.pictures) == 1 and not run.name for run in runs)


@pytest.mark.parametrize("letters", ["0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789abcdef"])
@pytest.mark.parametrize("length", [8, 10, 32])
def test_names_drawn_at_random_say_nothing(letters: str, length: int) -> None:
    draw = random.Random(0)
    runs = runs_of({"".join(draw.choices(letters, k=length)) + ".jpg" for _ in range(400)})
    assert sum(len(run.pictures) for run in runs if run.name) <= 20


@pytest.mark.parametrize(
    "form",
    [
        "IMG_{0:04d}_frame{1:04d}",
        "IMG_{0:04d}/IMG_{0:04d}_{1:04d}",
        "SAMANTHA{0}_{1:04d}",
        "WPX{0}_{1:04d}",
    ],
)
def test_a_camera_says_one_number(form: str) -> None:
    paths = {form.format(n, k) + ".png": str(n) for n in range(8) for k in range(9)}
    assert apart(paths)[0] == [] and all(run.film for run in runs_of(paths))


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        ("{0}_c23_{2}", "{0}_{1}_c23_{2}"),
        ("{0}_{2}", "{0}_{1}_mp4_{2}"),
        ("vid{0}_{2}", "vid{0}_{1}_{2}"),
        ("{0}_faces/{2}", "{0}_{1}_faces/{2}"),
        ("{0}/{2}", "{0}_M101/{2}"),
        ("id{0}/00001/{2}", "id{0}/00001_id00020_wavtolip/{2}"),
        ("{0}/0/{2}", "{0}/1/{2}"),
    ],
)
def test_a_fake_is_of_the_group_of_its_source(tmp_path: Path, real: str, fake: str) -> None:
    numbers = [(f"{n:03d}", f"{n + 500:03d}", k) for n in range(14) for k in range(3)]
    for label, form in (("real", real), ("fake", fake)):
        for three in numbers:
            path = tmp_path / label / f"{form.format(*three)}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    groups = defaultdict(set)
    for sample in find_samples(tmp_path):
        groups[sample.path.split("/", 1)[1].lstrip("vid")[:3]].add(sample.group)
    assert len(groups) == 14 and all(len(some) == 1 for some in groups.values())
    assert len(set.union(*groups.values())) == 14


def test_frames_that_were_dealt_out_to_the_splits_are_of_one_group(tmp_path: Path) -> None:
    """Clips of equal names that begin anew in each split are not."""
    for number in range(16):
        for label in ("real", "fake"):
            split = ("train", "test")[number % 2]
            for name in (
                f"dealt/{split}/{label}/clip1_{number:04d}",
                f"new/{split}/{label}/clip1_{number // 2:04d}",
            ):
                for path in (name, name.replace("clip1", "clip2")):
                    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                    (tmp_path / f"{path}.png").touch()
    assert {s.group for s in find_samples(tmp_path / "dealt")} == {"clip1", "clip2"}
    assert {s.group for s in find_samples(tmp_path / "new")} == {
        f"{split}/clip{n}" for split in ("train", "test") for n in (1, 2)
    }


def test_folders_called_by_a_method_beside_others_like_it_are_clips() -> None:
    for names in (["clip_diff01", "clip_diff02"], ["obama_fake", "bush_fake", "merkel_fake"]):
        runs = runs_of(f"{name}/{k}.png" for name in names for k in range(9))
        assert {run.name for run in runs} == {*names}
    runs = runs_of(f"{name}/{k}.png" for name in ("stylegan2", "simswap", "sdxl") for k in range(9))
    assert not any(run.name for run in runs)


def test_a_clip_may_be_long_and_have_a_thumbnail() -> None:
    runs = runs_of(f"video{n}_{k}.png" for n in range(2) for k in range(2100))
    assert {(run.name, len(run.pictures)) for run in runs} == {("video0", 2100), ("video1", 2100)}
    runs = runs_of(f"clip{n}/{k}.png" for n in range(2) for k in (*range(9), *"abc"))
    assert {len(run.pictures) for run in runs} == {12}


def test_films_of_several_scenes_share_a_source() -> None:
    says = called(f"{v}_{q}_{k}" for v in range(6) for q in range(3) for k in range(5))
    assert {one.clip for one in says.values()} == {f"{v}_{q}" for v in range(6) for q in range(3)}
    assert {one.source for one in says.values()} == {str(v) for v in range(6)}


@pytest.mark.parametrize("within", ["faces/", "crops/", "cropped_faces/", "aligned/", ""])
def test_frames_of_published_sets_in_other_folders(tmp_path: Path, within: str) -> None:
    for folder, clip in (("Celeb-real", "id0_0000"), ("Celeb-synthesis", "id0_id1_0000")):
        for form in (f"{within}{clip}/{{}}.png", f"{within}{clip}_{{:04d}}.png"):
            for k in range(3):
                root = tmp_path / ("flat" if "_{" in form else "folders")
                path = root / folder / form.format(k)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    for root in (tmp_path / "flat", tmp_path / "folders"):
        samples = find_samples(root)
        assert len(samples) == 6 and {s.group for s in samples} == {"id0"}


def test_methods_with_the_same_clips_are_no_frames() -> None:
    paths = [f"{m}/{c}/{k}.png" for m in ("a", "b", "c") for c in ("000", "003") for k in range(5)]
    assert {clip.video for clip in _clips(paths, 1, "")} == {
        f"{m}/{c}" for m in "abc" for c in ("000", "003")
    }


def test_frames_at_every_13th_place_before_clips_that_are_numbered() -> None:
    paths = {f"{i * 13}_{c}.png": c for c in CLIPS["sources"] for i in range(10)}
    assert apart(paths)[0] == []


def test_the_number_of_a_face_is_not_that_of_the_frame() -> None:
    """Two faces in some of the frames, of clips called by a number or by a word."""
    names = ("071", "054", "aabqyygbaa")
    stems = [f"{c}_{i}_{face}" for c in names for i in range(9) for face in range(1 + i % 2)]
    assert {one.clip for one in called(stems).values()} == {*names}


def test_the_target_of_a_swap_is_known_behind_other_words() -> None:
    pairs = [("000", "003"), ("003", "000"), ("001", "870"), ("870", "001")]
    fakes = [f"{a}_{b}_c23/{k}.png" for a, b in pairs for k in "12"]
    reals = [f"{a}_c23/{k}.png" for a, _ in pairs for k in "12"]
    clips = [*_clips(fakes, 1, ""), *_clips(reals, 0, "")]
    assert {*_groups([(clip, clip.group) for clip in clips])} == {"000_003", "001_870"}


def test_a_single_frame_of_a_film_goes_with_it() -> None:
    """Minute 2 has one frame."""
    stems = [
        f"clip{n}_00_{m:02d}_{s:02d}" for n in range(3) for m in (0, 1) for s in range(0, 60, 6)
    ]
    runs = runs_of(f"{stem}.png" for stem in [*stems, *(f"clip{n}_00_02_05" for n in range(3))])
    assert all(run.film for run in runs) and {run.source for run in runs} == {
        "clip0",
        "clip1",
        "clip2",
    }
