"""Files that are no videos, or damaged ones: a reason, or the right frames, never a guess."""

from __future__ import annotations

import os
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from data.images import ImageError
from data.video import read_frames
from tests.miniatures import clip, numbered, sounds, write_video
from tests.test_video import SHORT, numbers, reasons, video, whole


def test_missing_and_empty_files(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    assert reasons(tmp_path / "none.mp4", whole(2)) == {
        "cannot be opened (No such file or directory)"
    }
    assert reasons(tmp_path / "empty.mp4", whole(2)) == {"an empty file"}
    assert reasons(tmp_path / "folder.mp4", whole(2)) == {"a folder, not a file"}


def test_files_that_are_something_else(tmp_path: Path) -> None:
    """A playlist would have FFmpeg open another file, and a picture is no video."""
    video(tmp_path / "good.mp4")
    (tmp_path / "text.mp4").write_text("these are words\n" * 200)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile good.mp4\n")
    (tmp_path / "live.mp4").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\ngood.mp4\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "picture.mp4").write_bytes(cv2.imencode(".png", numbered(1))[1].tobytes())
    said = "a picture, not a video; name it .png"
    assert reasons(tmp_path / "picture.mp4", whole(2)) == {said}
    for name in ("text", "list", "live"):
        assert {
            reason.split(" (")[0] for reason in reasons(tmp_path / f"{name}.mp4", whole(2))
        } == {"not a video, or damaged"}


def test_only_sound(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        for packet in sounds(file.add_stream("aac", rate=16000, layout="mono")):
            file.mux(packet)
    assert reasons(tmp_path / "a.mp4", whole(2)) == {"no video in it, only sound or other data"}


def test_a_codec_nobody_knows(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    assert reasons(path, whole(2)) == {"compressed in a way that cannot be read"}


def test_cut_short(tmp_path: Path) -> None:
    """An MP4 file with its index at the end is lost; with it at the front, the rest can be read."""
    path = video(tmp_path / "a.mp4", 60, options=SHORT)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert {reason.split(" (")[0] for reason in reasons(path, whole(2))} == {
        "not a video, or damaged"
    }

    path = video(tmp_path / "b.mp4", 60, options=SHORT, container={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2])
    frames = dict(enumerate(read_frames(path, whole(60))))
    lost = [number for number, frame in frames.items() if isinstance(frame, ImageError)]
    good = [number for number in frames if number not in lost]
    assert {*range(15)} <= {*good}
    assert {*range(45, 60)} <= {*lost}
    assert numbers([frames[number] for number in good]) == good
    reason = "damaged or cut short: this one of its 60 frames cannot be decoded"
    assert {frames[number].reason for number in lost} == {reason}


def test_damage_that_decoders_would_patch_over(tmp_path: Path) -> None:
    """Zeros in the data of one frame: FFmpeg returns something in its place, and continues."""
    rng = np.random.default_rng(0)
    noisy = [
        np.vstack([numbered(i)[:32], rng.integers(0, 256, (32, 64, 3), np.uint8)])
        for i in range(60)
    ]
    path = write_video(
        tmp_path / "a.mp4", noisy, options={"g": "20", "bf": "0", "sc_threshold": "0"}
    )
    before = read_frames(path, whole(60))
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][30]
        begin, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    data[begin + size // 2 : begin + size // 2 + 100] = bytes(100)
    path.write_bytes(data)
    after = read_frames(path, whole(60))
    assert [number for number, frame in enumerate(after) if isinstance(frame, ImageError)] == list(
        range(30, 40)
    )
    assert all(
        np.array_equal(after[number], before[number]) for number in (*range(30), *range(40, 60))
    )


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv"])
def test_damage_costs_the_frames_around_it(tmp_path: Path, name: str) -> None:
    """Noise over a part of the file: a frame is the right one or refused, never a guess."""
    rng = np.random.default_rng(0)
    noisy = [
        np.vstack([numbered(i)[:32], rng.integers(0, 256, (32, 64, 3), np.uint8)])
        for i in range(60)
    ]
    codec = "mpeg4" if name == "a.avi" else "libx264"
    path = write_video(tmp_path / name, noisy, codec, options={"g": "10", "bf": "0"})
    before = [frame[:32] for frame in read_frames(path, whole(60))]
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    if (
        name == "a.mp4"
    ):  # from a packet's first byte: noise within a picture of noise may pass for one
        with av.open(str(path)) as container:
            middle = [packet for packet in container.demux(video=0) if packet.size][30].pos
    data[middle : middle + 400] = rng.integers(0, 256, 400, np.uint8).tobytes()
    path.write_bytes(data)
    after = read_frames(path, whole(60))
    good = [number for number, frame in enumerate(after) if not isinstance(frame, ImageError)]
    assert 10 <= len(good) < 60
    assert all(np.array_equal(after[number][:32], before[number]) for number in good)
    assert good[0] == 0
    assert (good[-1] == 59) == (name != "a.avi"), (
        "after the next key frame all is well, unless frames must be counted"
    )


def test_size_limits(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4")
    assert reasons(path, whole(2), max_pixels=64 * 64 - 1) == {
        "larger than the limit of 4,095 pixels"
    }
    assert numbers(read_frames(path, whole(2), max_pixels=64 * 64)) == [12, 37]
    small = write_video(tmp_path / "b.mp4", [numbered(3, 8).repeat(3, 1)] * 4)
    assert reasons(small, whole(2)) == {"too small (24x8 pixels)"}


def test_unusual_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        b"a:b.mp4",
        b"http:c.mp4",
        b"%d.mp4",
        b"two\nlines.mp4",
        "顔.mp4".encode(),
        b"\xff.mp4",
        b"-x.mp4",
    ):
        path = Path(os.fsdecode(name))
        path.write_bytes(clip(tmp_path / "good.mp4").read_bytes())
        assert not isinstance(read_frames(path, [(0, 1)])[0], ImageError), name
