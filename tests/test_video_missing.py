"""Frames that a damaged video has lost are counted; a whole one has lost none, however it is made."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from data.images import ImageError
from data.video import read_frames
from tests.miniatures import number_of, numbered, write_video
from tests.test_video import whole

NOISE = np.random.default_rng(0).integers(0, 256, (60, 32, 64, 3), np.uint8)
PIECES = {"movflags": "frag_keyframe+empty_moov"}
KINDS = {
    "a.mkv": ("libx264", {"g": "10", "bf": "2"}, {}),
    "b.mkv": ("libx264", {"g": "60", "bf": "0", "sc_threshold": "0"}, {}),
    "a.webm": ("libvpx", {"g": "10"}, {}),
    "a.avi": ("mpeg4", {"g": "10"}, {}),
    "a.flv": ("flv", {"g": "10"}, {}),
    "a.mp4": ("libx264", {"g": "12", "bf": "0", "sc_threshold": "0"}, PIECES),
}


def noisy(path: Path, name: str, **more: object) -> Path:
    """60 numbered frames, of as many bytes each."""
    codec, options, container = KINDS[name]
    frames = [np.vstack([numbered(i)[:32], NOISE[i]]) for i in range(60)]
    options = options | ({"crf": "20"} if codec == "libx264" else {"b": "3M"})
    return write_video(path / name, frames, codec, options=options, container=container, **more)


def seen(path: Path, count: int = 60) -> dict[int, int]:
    """The numbers on those of `count` frames that can be read."""
    frames = enumerate(read_frames(path, whole(count)))
    return {i: number_of(frame) for i, frame in frames if not isinstance(frame, ImageError)}


def places(path: Path) -> list[int]:
    with av.open(str(path)) as file:
        return [packet.pos for packet in file.demux(video=0) if packet.size]


@pytest.mark.parametrize("name", ["a.mkv", "b.mkv", "a.webm", "a.avi", "a.flv", "a.mkv with sound"])
def test_what_is_cut_off_counts_as_lost(tmp_path, name):
    name, sound = name.split()[0], "sound" in name
    path = noisy(tmp_path, name, sound=sound)
    assert seen(path) == {i: i for i in range(60)}
    path.write_bytes(path.read_bytes()[: places(path)[40] + 100])
    frames = read_frames(path, whole(60))
    assert {frame.repeated for frame in frames if isinstance(frame, ImageError)} == {False}
    found = seen(path)
    assert found == {i: i for i in found}
    assert 30 <= len(found) <= 41


def test_what_is_cut_off_the_last_piece_counts_as_lost(tmp_path):
    """MP4 in pieces, each with a list of its frames: of further pieces nothing is known."""
    path = noisy(tmp_path, "a.mp4")
    path.write_bytes(path.read_bytes()[: places(path)[40] + 100])
    frames = read_frames(path, whole(48))
    good = [i for i, frame in enumerate(frames) if not isinstance(frame, ImageError)]
    assert [number_of(frames[i]) for i in good] == good == [*range(40)]
    assert {frame.reason for frame in frames[40:]} == {
        "damaged or cut short: this one of its 48 frames cannot be decoded"
    }


@pytest.mark.parametrize("name", ["a.mkv", "b.mkv", "a.webm"])
@pytest.mark.parametrize("filling", ["zeros", "noise"])
def test_a_hole_counts_as_lost_up_to_the_next_key_frame(tmp_path, name, filling):
    path = noisy(tmp_path, name)
    before, at = read_frames(path, whole(60)), places(path)
    data, begin, end = bytearray(path.read_bytes()), at[25], at[32] + 100
    noise = np.random.default_rng(1).integers(0, 256, end - begin, np.uint8).tobytes()
    data[begin:end] = bytes(end - begin) if filling == "zeros" else noise
    path.write_bytes(data)
    after = read_frames(path, whole(60))
    good = [i for i, frame in enumerate(after) if not isinstance(frame, ImageError)]
    assert all(np.array_equal(after[i], before[i]) for i in good)
    assert 24 <= len(good) < 54
    assert (59 in good) == (name != "b.mkv"), "all after the hole depends on what was in it"


def test_an_end_of_zeros_as_of_a_download_that_stopped(tmp_path):
    path = noisy(tmp_path, "a.mkv")
    data, begin = path.read_bytes(), places(path)[40]
    path.write_bytes(data[:begin] + bytes(len(data) - begin))
    assert [*seen(path)] == [*range(40)]


def sound_clips(folder: Path) -> list[Path]:
    """Whole clips whose times, or durations, are odd: 20 frames each."""
    folder.mkdir(exist_ok=True)
    frames = [numbered(i) for i in range(20)]
    uneven = [i * 3 + (i > 9) * 100 + (i > 15) * 40 for i in range(20)]
    found = []
    for name, codec in {"mkv": "libx264", "webm": "libvpx", "avi": "mpeg4", "flv": "flv"}.items():
        found.append(write_video(folder / f"uneven.{name}", frames, codec, times=uneven))
    for name, container in {
        "live.mkv": {"live": "1"},
        "pieces.mp4": PIECES,
        "front.mkv": {"cues_to_front": "1", "reserve_index_space": "5000"},
        "small.mkv": {"cluster_size_limit": "500"},
    }.items():
        made = write_video(folder / name, frames, times=uneven, container=container)
        found.append(made)
    for name in ("long_sound.mkv", "long_sound.mp4", "long_sound.avi"):
        with av.open(str(folder / name), "w") as file:
            stream = file.add_stream("mpeg4", rate=25)
            silence = file.add_stream("mp3", rate=16000, layout="mono")
            stream.width = stream.height = 64
            for image in frames:
                file.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            file.mux(stream.encode())
            for second in range(5):
                for packet in sounds_at(silence, second):
                    file.mux(packet)
            file.mux(silence.encode())
        found.append(folder / name)
    return found


def sounds_at(stream: av.audio.stream.AudioStream, second: int) -> list[av.Packet]:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
    frame.sample_rate, frame.pts = 16000, 16000 * second
    return stream.encode(frame)


def test_nothing_is_lost_of_whole_clips(tmp_path):
    for path in sound_clips(tmp_path / "clips"):
        assert seen(path, 20) == {i: i for i in range(20)}, path.name
        if path.name == "live.mkv":  # it does not tell where its end is
            continue
        path.write_bytes(path.read_bytes() + b"something behind it" * 10)
        assert seen(path, 20) == {i: i for i in range(20)}, f"{path.name} with something behind it"
