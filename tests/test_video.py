"""The right frame of a video, whatever its codec and container."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest

from data.images import ImageError
from data.video import frame_names, h264, read_clip, read_frames, split_frame
from tests.miniatures import number_of, numbered, write_video

LONG = {
    "bf": "3",
    "g": "250",
    "sc_threshold": "0",
}  # three frames between two others, one key frame in all
SHORT = {"bf": "2", "g": "6"}
OPEN = {
    "bf": "3",
    "g": "10",
    "x264-params": "open-gop=1:scenecut=0",
}  # frames that are shown before a key frame follow it
EVERY = {"g": "1"}
KINDS = {
    "long.mp4": ("libx264", LONG),
    "short.mp4": ("libx264", SHORT),
    "every.mp4": ("libx264", EVERY),
    "open.mp4": ("libx264", OPEN),
    "open.mkv": ("libx264", OPEN),
    "no_header.mkv": ("libx264", LONG),
    "pieces.mp4": ("libx264", SHORT),
    "old.mp4": ("mpeg4", SHORT),
    "old.avi": ("mpeg4", SHORT),
    "h264.avi": ("libx264", SHORT),
    "old.mpg": ("mpeg2video", {"bf": "2", "g": "9"}),
    "web.webm": (
        "libvpx-vp9",
        {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime"},
    ),
}


def video(
    path: Path, count: int = 50, codec: str = "libx264", options: dict | None = None, **more: object
) -> Path:
    return write_video(
        path, map(numbered, range(count)), codec, options={"crf": "20"} | (options or {}), **more
    )


def whole(count: int) -> list[tuple[int, int]]:
    return [(i, count) for i in range(count)]


def numbers(frames: list) -> list[int]:
    errors = [frame.reason for frame in frames if isinstance(frame, ImageError)]
    assert not errors
    return [number_of(frame) for frame in frames]


def reasons(path: Path, wanted: list[tuple[int, int]], **options: int) -> set[str]:
    frames = read_frames(path, wanted, **options)
    assert all(isinstance(frame, ImageError) for frame in frames)
    assert [frame.path for frame in frames] == [Path(f"{path}@{i}of{n}") for i, n in wanted]
    return {frame.reason for frame in frames}


# Names.


def test_names() -> None:
    assert frame_names("a/b.mp4", 3) == ["a/b.mp4@0of3", "a/b.mp4@1of3", "a/b.mp4@2of3"]
    assert split_frame("a/b.mp4@2of3") == (Path("a/b.mp4"), 2, 3)
    assert split_frame(Path("/x/a@b.MOV@31of32")) == (Path("/x/a@b.MOV"), 31, 32)
    for other in (
        "a.mp4",
        "a.png@1of3",
        "a.mp4@3of3",
        "a.mp4@of3",
        "a.mp4@1of3.png",
        "a.mp4@-1of3",
        "@1of3",
        ".mp4@0of1",
    ):
        assert split_frame(other) is None, other
    with pytest.raises(ValueError, match="--frames 0: at least one"):
        frame_names("a.mp4", 0)


# Which frame.


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_is_the_right_one(tmp_path: Path, name: str) -> None:
    codec, options = KINDS[name]
    in_pieces = {"movflags": "frag_keyframe+empty_moov"} if name == "pieces.mp4" else {}
    path = video(tmp_path / name, 50, codec, options, container=in_pieces)
    assert numbers(read_frames(path, whole(50))) == list(range(50))
    assert numbers(read_frames(path, whole(1))) == [25]
    assert numbers(read_frames(path, whole(7))) == [int((i + 0.5) * 50 / 7) for i in range(7)]
    assert numbers(read_frames(path, [(31, 32), (0, 32), (31, 32), (5, 50)])) == [49, 0, 49, 5]
    assert read_frames(path, []) == []


def test_the_fixtures_are_what_they_claim(tmp_path: Path) -> None:
    """Frames out of order, key frames followed by earlier frames, no count in the header."""
    packets = {}
    for name in ("long.mp4", "open.mkv", "no_header.mkv"):
        with av.open(str(video(tmp_path / name, 50, *KINDS[name]))) as container:
            assert (container.streams.video[0].frames == 0) == name.endswith("mkv")
            packets[name] = [(p.pts, p.is_keyframe) for p in container.demux(video=0) if p.size]
    assert [pts for pts, _ in packets["long.mp4"]] != sorted(pts for pts, _ in packets["long.mp4"])
    assert sum(key for _, key in packets["long.mp4"]) == 1
    keys = [place for place, (_, key) in enumerate(packets["open.mkv"]) if key]
    assert len(keys) > 3
    assert packets["open.mkv"][keys[1] + 1][0] < packets["open.mkv"][keys[1]][0]


def test_frames_at_uneven_times(tmp_path: Path) -> None:
    times = np.cumsum(np.random.default_rng(0).integers(1, 60, 40)).tolist()
    for name in ("a.mp4", "b.mkv"):
        assert numbers(
            read_frames(video(tmp_path / name, 40, times=times, options=LONG), whole(40))
        ) == list(range(40))


def test_frames_that_an_edit_list_cuts_off(tmp_path: Path) -> None:
    """An MP4 file may begin later than its first frame; players do not show those before."""
    path = video(tmp_path / "a.mp4", 50, options=LONG)
    data = bytearray(path.read_bytes())
    at = (
        data.index(b"elst") + 4 + 4 + 4 + 4
    )  # type, version and flags, number of entries, duration of the first
    begin = struct.unpack(">i", data[at : at + 4])[0]
    data[at : at + 4] = struct.pack(">i", begin + 10 * 512)
    path.write_bytes(data)
    assert numbers(read_frames(path, whole(40))) == list(range(10, 50))


def test_only_what_is_needed_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, decoded = (
        video(tmp_path / "a.mp4", 120, options={"g": "10", "bf": "0", "sc_threshold": "0"}),
        [],
    )
    from data import video as module

    frames = module._frames

    def counting(packets: object) -> object:
        for frame, sound in frames(packets):
            decoded.append(number_of(frame.to_ndarray(format="rgb24")))
            yield frame, sound

    monkeypatch.setattr(module, "_frames", counting)
    assert numbers(read_frames(path, [(3, 120), (1, 120), (74, 120)])) == [3, 1, 74]
    assert decoded == [0, 1, 2, 3, 70, 71, 72, 73, 74]


def test_sound_beside_the_pictures(tmp_path: Path) -> None:
    assert numbers(read_frames(video(tmp_path / "a.mp4", 20, sound=True), whole(20))) == list(
        range(20)
    )


def test_fewer_frames_than_wanted(tmp_path: Path) -> None:
    frames = read_frames(video(tmp_path / "a.mp4", 5), whole(8))
    places = [int((i + 0.5) * 5 / 8) for i in range(8)]
    assert places == [0, 0, 1, 2, 2, 3, 4, 4]
    assert numbers([frames[i] for i in (0, 2, 3, 5, 6)]) == [0, 1, 2, 3, 4]
    assert {frames[i].reason for i in (1, 4, 7)} == {
        "the video has only 5 frames: this one would repeat an earlier one"
    }
    assert str(frames[1]).startswith(f"{tmp_path}/a.mp4@1of8: ")


# Upright.

QUARTERS = (
    np.uint8([[[250, 20, 20], [20, 250, 20]], [[20, 20, 250], [250, 250, 250]]])
    .repeat(32, 0)
    .repeat(48, 1)
)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((1, 0, 0, 1), QUARTERS),
        (
            (0, 1, -1, 0),
            np.rot90(QUARTERS, -1),
        ),  # a telephone held upright: a quarter turn clockwise
        ((-1, 0, 0, -1), np.rot90(QUARTERS, 2)),
        ((0, -1, 1, 0), np.rot90(QUARTERS)),
        ((-1, 0, 0, 1), QUARTERS[:, ::-1]),
        ((1, 0, 0, -1), QUARTERS[::-1]),
        ((0, 1, 1, 0), QUARTERS.swapaxes(0, 1)),
        ((0, -1, -1, 0), np.rot90(QUARTERS, 2).swapaxes(0, 1)),
    ],
)
def test_turned_as_the_file_says(
    tmp_path: Path, matrix: tuple[int, ...], expected: np.ndarray
) -> None:
    path = write_video(tmp_path / "a.mp4", [QUARTERS] * 3, options={"crf": "1"})
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    assert struct.unpack(">9i", data[at : at + 36]) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    [image] = read_frames(path, [(0, 1)])
    assert image.shape == expected.shape
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert np.abs(image.astype(int) - expected).mean() < 8


# Compressed again.


def test_compression_degrades_the_frame_that_it_is_about(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", 50, options=LONG)
    clean, nbytes = read_clip(path, whole(10))
    errors = []
    for crf in (20, 35, 51):
        frames, same = read_clip(path, whole(10), crf=crf)
        assert numbers(frames) == numbers(clean)
        assert same == nbytes
        errors.append(
            np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(clean, frames, strict=True)])
        )
    assert 0 < errors[0] < errors[1] < errors[2]
    again, _ = read_clip(path, [(4, 10)], crf=35)
    assert np.array_equal(again[0], read_clip(path, whole(10), crf=35)[0][4]), (
        "whatever else is read with it"
    )
    assert isinstance(read_clip(tmp_path / "none.mp4", [(0, 1)], crf=35)[0][0], ImageError)


def test_a_frame_is_compressed_amid_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, runs = video(tmp_path / "a.mp4", 50), []
    from data import video as module

    def recorded(images: list[np.ndarray], crf: float) -> list[np.ndarray]:
        runs.append(([number_of(image) for image in images], crf))
        return images

    monkeypatch.setattr(module, "h264", recorded)
    assert numbers(read_clip(path, [(49, 50), (0, 50), (10, 50), (12, 50)], crf=30)[0]) == [
        49,
        0,
        10,
        12,
    ]
    assert runs == [(list(range(*run)), 30) for run in ((0, 4), (2, 14), (4, 16), (41, 50))]


def test_h264_of_odd_sizes() -> None:
    images = [np.full((33, 47, 3), 40 * i, np.uint8) for i in range(3)]
    assert [image.shape for image in h264(images, 30)] == [(33, 47, 3)] * 3
    assert np.abs(np.stack(h264(images, 10)).astype(int) - np.stack(images)).mean() < 3
