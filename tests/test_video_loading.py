"""Frames of videos are loaded in order like pictures, several at a time, with degradations."""

from __future__ import annotations

import threading
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from data import loading
from data.degrade import Condition
from data.images import ImageError
from data.loading import Picture, load, load_ahead
from data.video import frame_names
from tests.miniatures import face, number_of, numbered, write_video


def video(path: Path, count: int) -> Path:
    return write_video(path, map(numbered, range(count)))


def test_frames_load_like_pictures(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", 20)
    with av.open(str(path)) as container:
        sizes = [packet.size for packet in container.demux(video=0)]
    loaded = load(Path(f"{path}@3of4"), 10**8)
    assert number_of(loaded.image) == 17
    assert loaded.file_bytes == round(sum(sizes) / 20), (
        "the average frame of the stream, headers and sound left out"
    )
    assert loaded.mean == pytest.approx(loaded.image.mean((0, 1)), abs=1e-3)
    assert load(Path(f"{tmp_path}/none.mp4@3of4"), 10**8).reason.startswith("cannot be opened")


def test_order_is_kept_across_videos_and_pictures(tmp_path: Path) -> None:
    a, b = video(tmp_path / "a.mp4", 30), video(tmp_path / "b.mp4", 9)
    cv2.imwrite(str(tmp_path / "p.png"), numbered(200))
    names = [
        *frame_names(str(a), 20),
        str(tmp_path / "p.png"),
        *frame_names(str(b), 3)[::-1],
        f"{a}@0of1",
        f"{tmp_path}/no.png",
    ]
    for threads, ahead in ((1, 1), (4, 8), (3, 40)):
        *pictures, missing = load_ahead(map(Path, names), threads, ahead)
        expected = [int((i + 0.5) * 1.5) for i in range(20)]
        assert [number_of(picture.image) for picture in pictures] == [*expected, 200, 7, 4, 1, 15]
        assert isinstance(missing, ImageError)


def test_a_job_is_at_most_eight_frames_of_one_video(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = []

    def recorded(video: Path, wanted: list, *_: object) -> tuple[list, int]:
        jobs.append((video.name, [i for i, _ in wanted]))
        return [numbered(i) for i, _ in wanted], 7

    monkeypatch.setattr(loading, "read_clip", recorded)
    monkeypatch.setattr(
        loading, "load", lambda path, _: Picture(numbered(99), 1, (0.0, 0.0, 0.0), "0" * 16)
    )
    names = [*frame_names("a.mp4", 19), *frame_names("b.mp4", 2), "x.png", *frame_names("b.mp4", 2)]
    loaded = list(load_ahead(map(Path, names), threads=1, ahead=100))
    assert jobs == [
        *(("a.mp4", list(range(start, min(start + 8, 19)))) for start in (0, 8, 16)),
        *(("b.mp4", [0, 1]), ("b.mp4", [0, 1])),
    ]
    assert [number_of(picture.image) for picture in loaded] == [*range(19), 0, 1, 99, 0, 1]
    assert {picture.file_bytes for picture in loaded} == {7, 1}

    jobs.clear()
    stream = load_ahead(
        (Path(f"{i}.mp4@{j}of8") for i in range(50) for j in range(8)), threads=2, ahead=20
    )
    next(stream)
    assert len(jobs) <= 4, (
        "three jobs of eight are more than twenty pictures, and the first of them is asked for"
    )
    stream.close()


def test_every_thread_has_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a single job is more than what is asked for ahead."""
    together = threading.Barrier(3, timeout=20)

    def waiting(video: Path, wanted: list, *_: object) -> tuple[list, int]:
        together.wait()
        return [numbered(i) for i, _ in wanted], 7

    monkeypatch.setattr(loading, "read_clip", waiting)
    names = [name for i in range(3) for name in frame_names(f"{i}.mp4", 8)]
    loaded = load_ahead(map(Path, names), threads=3, ahead=4)
    assert [number_of(picture.image) for picture in loaded] == [*range(8)] * 3


def test_conditions(tmp_path: Path) -> None:
    """Pictures and frames go through it; compression of clips is for frames only."""
    frames = [Path(name) for name in frame_names(str(video(tmp_path / "a.mp4", 20)), 2)]
    cv2.imwrite(str(tmp_path / "p.png"), face()[..., ::-1])
    clean = list(load_ahead([*frames, tmp_path / "p.png"], 2, 4))
    dark = list(
        load_ahead([*frames, tmp_path / "p.png"], 2, 4, condition=Condition.of("contrast:5"))
    )
    for before, after in zip(clean, dark, strict=True):
        assert np.array_equal(after.image, Condition.of("contrast:5")(before.image))
        assert after.mean == pytest.approx(after.image.mean((0, 1)), abs=1e-3)
        assert after.file_bytes == before.file_bytes
    compressed = list(load_ahead(frames, 2, 4, condition=Condition.of("h264:5")))
    assert [number_of(picture.image) for picture in compressed] == [5, 15]
    assert not np.array_equal(compressed[0].image, clean[0].image)
    with pytest.raises(ValueError, match="h264 compresses clips"):
        list(load_ahead([tmp_path / "p.png"], 2, 4, condition=Condition.of("h264:5")))
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    assert isinstance(next(load_ahead([bad], 1, 1, condition=Condition.of("h264:5"))), ImageError)
