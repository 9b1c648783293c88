"""Published datasets as distributed: labels, groups, splits, methods, and the inventory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from data.datasets import find_samples
from data.inventory import survey
from data.layouts import LAYOUTS, recognise
from data.layouts.names import actor, linked, person, sources
from data.loading import Picture, load_ahead
from data.samples import FRAMES, Clip, Sample, film_order
from data.splits import with_val
from tests import miniatures
from tests.miniatures import clip, inventory, listed, pictures

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "faceforensics": miniatures.faceforensics,
    "dfd": miniatures.dfd,
    "celeb-df": miniatures.celeb_df,
    "dfdc": miniatures.dfdc,
    "dfdc-preview": miniatures.dfdc_preview,
    "wilddeepfake": miniatures.wilddeepfake,
    "df40": miniatures.df40,
    "deepfakebench": miniatures.bench_celeb,
}


# All of them.


def test_every_layout_has_a_miniature() -> None:
    assert [*BUILDERS] == [*LAYOUTS]


@pytest.mark.parametrize("name", BUILDERS)
def test_recognised_and_readable(tmp_path: Path, name: str) -> None:
    """It is recognised as itself and nothing else, and every frame opens."""
    root = BUILDERS[name](tmp_path / "set") or tmp_path
    root = tmp_path / "set"
    assert recognise(root) == name
    samples = find_samples(root, frames=2)
    loaded = list(load_ahead((root / sample.path for sample in samples), 2, 8))
    assert [item for item in loaded if not isinstance(item, Picture)] == []
    per_video = Counter(sample.video for sample in samples if sample.video)
    assert {*per_video.values()} == {2}
    assert all(sample.method == "real" for sample in samples if sample.label == 0)
    assert find_samples(root, frames=2, layout=name) == samples
    assert find_samples(root, frames=1)[0].group == samples[0].group


@pytest.mark.parametrize("name", BUILDERS)
def test_no_group_is_in_train_and_val(tmp_path: Path, name: str) -> None:
    BUILDERS[name](tmp_path)
    groups = {
        split: {s.group for s in find_samples(tmp_path) if s.split == split}
        for split in ("train", "val")
    }
    assert groups["train"].isdisjoint(groups["val"])


@pytest.mark.parametrize("name", BUILDERS)
def test_inventory_counts_what_is_found(tmp_path: Path, name: str) -> None:
    BUILDERS[name](tmp_path)
    samples, found = find_samples(tmp_path), survey(tmp_path)
    assert found.layout == name
    assert (found.reason, found.missing, found.empty) == ("", [], [])
    expected = Counter((s.split, s.label, s.method) for s in samples)
    assert {(row.split, row.label, row.method): row.frames for row in found.counts} == expected
    assert sum(row.videos for row in found.counts) == len({s.video for s in samples} - {""})
    text = inventory(tmp_path)
    assert f"{tmp_path}: {name}" in text
    table = text.split("\n\n")[1].splitlines()
    assert len({len(line) for line in table}) == 1, "aligned"
    assert table[-1].split() == [
        "all",
        str(sum(row.videos for row in found.counts)),
        str(len(samples)),
    ]


def test_an_unknown_layout(tmp_path: Path) -> None:
    message = "--layout ff: no such layout; the layouts are plain, .*deepfakebench"
    with pytest.raises(ValueError, match=message):
        find_samples(miniatures.faceforensics(tmp_path), layout="ff")


def test_a_layout_that_is_not_there(tmp_path: Path) -> None:
    for name in LAYOUTS:
        with pytest.raises(ValueError, match=str(tmp_path)):
            find_samples(tmp_path, layout=name)


def test_two_layouts_in_one_folder(tmp_path: Path) -> None:
    miniatures.celeb_df(miniatures.faceforensics(tmp_path))
    with pytest.raises(
        ValueError, match="looks like faceforensics and celeb-df; say which with --layout"
    ):
        find_samples(tmp_path)
    assert {s.method for s in find_samples(tmp_path, layout="celeb-df")} == {
        "real",
        "Celeb-synthesis",
    }
    assert "looks like faceforensics and celeb-df" in inventory(tmp_path)


def test_a_published_layout_beside_folders(tmp_path: Path) -> None:
    pictures(miniatures.celeb_df(tmp_path) / "real")
    with pytest.raises(
        ValueError, match="looks like celeb-df and has real/ or fake/ too; say --layout celeb-df or"
    ):
        find_samples(tmp_path)
    assert len(find_samples(tmp_path, layout="plain")) == 3
    (tmp_path / "index.csv").write_text("path,label\nreal/008.png,real\n")
    assert find_samples(tmp_path) == [Sample("real/008.png", 0)], (
        "somebody wrote the index on purpose"
    )


def test_compression_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match="--compression c23: .* is celeb-df; only faceforensics, dfd, deepfakebench",
    ):
        find_samples(miniatures.celeb_df(tmp_path), compression="c23")


def test_no_frames_at_all(tmp_path: Path) -> None:
    for name in ("celeb-df", "wilddeepfake"):
        BUILDERS[name](tmp_path / name)
        with pytest.raises(ValueError, match="--frames 0"):
            find_samples(tmp_path / name, frames=0)


def test_folders_without_clips(tmp_path: Path) -> None:
    for folder in ("Celeb-real", "Celeb-synthesis"):
        (tmp_path / folder).mkdir()
    with pytest.raises(ValueError, match="looks like celeb-df, but none of its videos"):
        find_samples(tmp_path)
    assert "no videos and no pictures" in inventory(tmp_path)


# Names.


def test_names_tell_who_is_seen() -> None:
    assert (sources("071"), sources("071_054"), sources("0071"), sources("a_b")) == (
        ("071",),
        ("071", "054"),
        (),
        (),
    )
    assert (person("id0_0000"), person("id12_id3_0007"), person("00170")) == ("id0", "id12", "")
    assert (actor("01__kitchen_pan"), actor("01_02__kitchen_pan__YVGY8LOK"), actor("071_054")) == (
        "actor01",
        "actor01",
        "",
    )


def test_linked_source_videos() -> None:
    assert linked(["000", "071_054", "054_071"]) == {
        "000": "000",
        "054": "054_071",
        "071": "054_071",
    }
    chain = ["001_002", "002_003", "003_001", "004_005", "005_004"]
    assert {*linked(chain).values()} == {"001_002", "004_005"}
    assert linked(chain, mutual=True) == {
        "001": "001",
        "002": "002",
        "003": "003",
        "004": "004_005",
        "005": "004_005",
    }
    assert linked([]) == {}


def test_frames_are_in_the_order_of_the_film() -> None:
    assert sorted(["10.png", "9.png", "100.png"], key=film_order) == ["9.png", "10.png", "100.png"]
    assert sorted(["f_10_2", "f_9_10", "f_9_9"], key=film_order) == ["f_9_9", "f_9_10", "f_10_2"]


def test_an_eighth_of_the_training_groups_is_for_validation() -> None:
    many = [
        Clip(f"{i}.mp4", 0, group=f"g{i // 2}", split="train" if i < 1600 else "test")
        for i in range(2000)
    ]
    divided = with_val(many)
    counts = Counter(clip.split for clip in divided)
    assert counts["val"] == pytest.approx(200, abs=60)
    assert counts["test"] == 400
    assert len({(clip.group, clip.split) for clip in divided}) == 1000
    few = [
        Clip("a", 0, group="a", split="train"),
        Clip("b", 0, group="b", split="train"),
        *many[1600:],
    ]
    assert Counter(clip.split for clip in with_val(few)) == {"train": 1, "val": 1, "test": 400}


# Plain folders and index.csv.


def test_videos_in_plain_folders(tmp_path: Path) -> None:
    clip(tmp_path / "real/deep/a.MP4")
    clip(tmp_path / "fake/b.mov")
    pictures(tmp_path / "fake", (1,))
    samples = find_samples(tmp_path)
    assert len(samples) == 2 * FRAMES + 1
    assert samples[0] == Sample("fake/001.png", 1)
    assert samples[1] == Sample("fake/b.mov@0of32", 1, "fake/b.mov", "", "fake/b.mov")
    assert [s.path for s in samples[-2:]] == ["real/deep/a.MP4@30of32", "real/deep/a.MP4@31of32"], (
        "by number"
    )
    assert [s.path for s in find_samples(tmp_path, frames=2)] == [
        *("fake/001.png", "fake/b.mov@0of2", "fake/b.mov@1of2"),
        *("real/deep/a.MP4@0of2", "real/deep/a.MP4@1of2"),
    ]


def test_videos_in_an_index(tmp_path: Path) -> None:
    clip(tmp_path / "x/a.mp4")
    rows = [
        "path,label,group,split,video,method",
        "x/a.mp4,fake,g,val,,Deepfakes",
        "b.mp4,real",
        "x/a.mp4@3of9,1,,,v",
        "c.png,0",
    ]
    (tmp_path / "index.csv").write_text("\n".join(rows))
    samples = find_samples(tmp_path, frames=2)
    assert samples == [
        Sample("b.mp4@0of2", 0, "b.mp4", "", "b.mp4"),
        Sample("b.mp4@1of2", 0, "b.mp4", "", "b.mp4"),
        Sample("c.png", 0),
        Sample("x/a.mp4@0of2", 1, "g", "val", "x/a.mp4", "Deepfakes"),
        Sample("x/a.mp4@1of2", 1, "g", "val", "x/a.mp4", "Deepfakes"),
        Sample("x/a.mp4@3of9", 1, "", "", "v"),
    ]
    found = survey(tmp_path)
    assert found.missing == ["b.mp4", "c.png"]
    assert not found.over
    (tmp_path / "one").mkdir()
    clip(tmp_path / "one/d.mp4")
    (tmp_path / "index.csv").write_text("path,label\none/d.mp4,1\nx/a.mp4,0\n")
    elsewhere = find_samples(tmp_path / "one", index=tmp_path / "index.csv", frames=1)
    assert elsewhere == [Sample("d.mp4@0of1", 1, "d.mp4", "", "d.mp4")]


def test_files_that_only_look_like_lists(tmp_path: Path) -> None:
    """What lies in a plain dataset does not make it another, even where it is damaged."""
    pictures(tmp_path / "real")
    for name in ("metadata.json", "dataset.json", "notes.json"):
        (tmp_path / name).write_text("{ not JSON")
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe,label\n")
    assert len(find_samples(tmp_path)) == 3
    for content in ({}, [], {"a": 1}, {"a": {"b": 1}}, {"a": {"b": {"c": {}}}}, "text", None):
        for name in ("metadata.json", "dataset.json", "notes.json"):
            listed(tmp_path / name, content)
        assert len(find_samples(tmp_path)) == 3
