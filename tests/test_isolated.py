"""Decoding in a process of its own: the same pictures, limits of time and memory, its end."""

import os
import signal
import struct
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from data import isolated
from data.images import ImageError
from data.isolated import IsolatedReader
from data.reader import Reader
from tests.miniatures import SIDE
from tests.test_video import video

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def reader():
    with IsolatedReader(max_pixels=4_000_000) as reader:
        yield reader


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_it_reads_what_a_reader_reads(reader, tmp_path):
    picture, film = tmp_path / "b\udcb0\n.png", video(tmp_path / "a.mp4", 5)
    frames = [Image.fromarray(data.astronaut()), Image.fromarray(data.astronaut()[::-1])]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "a.gif").rename(picture)
    plain, wanted = Reader(), [(i, 8) for i in range(8)]
    assert reader.frame_count(picture) == plain.frame_count(picture) == 2
    assert reader.picture_count(picture) == 2 and reader.stream_count(film) == 1
    assert reader.stream_count(picture) == plain.stream_count(picture) == 0
    for frame in (0, 1):
        assert (reader.image(picture, frame) == plain.image(picture, frame)).all()
    assert reader.seconds(film) == plain.seconds(film)
    for found, expected in zip(
        reader.frames(film, wanted), plain.frames(film, wanted), strict=True
    ):
        if isinstance(expected, ImageError):
            assert str(found) == str(expected) and found.repeated == expected.repeated
        else:
            assert (found == expected).all()


@pytest.mark.parametrize("name", ["none.png", "text.png", "small.png", "large.png"])
def test_errors_are_those_of_a_reader(reader, tmp_path, name):
    (tmp_path / "text.png").write_text("text")
    Image.new("RGB", (3, 3)).save(tmp_path / "small.png")
    Image.new("RGB", (3000, 3000)).save(tmp_path / "large.png")
    with pytest.raises(ImageError) as expected:
        Reader(4_000_000).image(tmp_path / name)
    with pytest.raises(ImageError) as found:
        reader.image(tmp_path / name)
    assert str(found.value) == str(expected.value)


def test_a_slow_file_costs_its_time_only(tmp_path):
    path = tmp_path / "slow.gif"
    frames = [Image.effect_noise((512, 512), 90 + k) for k in range(40)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    Image.fromarray(data.astronaut()).save(tmp_path / "a.png")
    with IsolatedReader(seconds=0.05) as reader:
        for _ in range(2):
            with pytest.raises(ImageError, match=r"slow.gif: takes more than 0.05 s to decode"):
                reader.image(path, 39)
        reader.seconds_allowed = 20
        assert reader.image(tmp_path / "a.png").shape == (512, 512, 3)


def test_a_greedy_file_is_refused(tmp_path):
    Image.new("RGB", (9000, 9000)).save(tmp_path / "large.png")
    Image.fromarray(data.astronaut()).save(tmp_path / "a.png")
    with IsolatedReader(memory=200 << 20) as reader:
        with pytest.raises(ImageError, match="takes more memory"):
            reader.image(tmp_path / "large.png")
        assert reader.image(tmp_path / "a.png").shape == (512, 512, 3)


def test_a_crash_costs_one_file(reader, tmp_path, monkeypatch):
    Image.fromarray(data.astronaut()).save(tmp_path / "a.png")
    reader.image(tmp_path / "a.png")
    read = isolated._read_answer

    def killed(*rest):
        os.kill(reader._process.pid, signal.SIGKILL)
        return read(*rest)

    monkeypatch.setattr(isolated, "_read_answer", killed)
    os.kill(reader._process.pid, signal.SIGSTOP)
    with pytest.raises(ImageError, match="made the decoder crash"):
        reader.image(tmp_path / "a.png")
    monkeypatch.undo()
    assert reader.image(tmp_path / "a.png").shape == (512, 512, 3)


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]\n", b"{}\n", b'{"items": [{"shape": [9000, 9000]}]}\n', b'{"items": 3}\n']
    + [b'{"items": [{"shape": [2, 2]}]}\nabc', b'{"items": [{"shape": ["a", 2]}]}\n'],
)
def test_answers_are_not_trusted(reader, tmp_path, answer, monkeypatch):
    read = isolated._read_answer
    file = tmp_path / "answer"
    file.write_bytes(answer)
    monkeypatch.setattr(isolated, "_read_answer", lambda pipe, *rest: read(file.open("rb"), *rest))
    with pytest.raises(ImageError, match="made the decoder crash"):
        reader.image(tmp_path / "a.png")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_it_ends_with_its_parent(tmp_path, how):
    Image.fromarray(data.astronaut()).save(tmp_path / "a.png")
    code = (
        "import sys, time; from data.isolated import IsolatedReader; r = IsolatedReader();"
        f"r.image({str(tmp_path / 'a.png')!r}); print(r._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(how)
    for _ in range(100):
        if not alive(pid):
            break
        time.sleep(0.1)
    assert not alive(pid)


def claims(path: Path, count: int) -> None:
    """Let the tables of a short MP4 claim `count` frames of one byte."""
    content = bytearray(path.read_bytes())
    for name, value in (("stsz", (1, count)), ("stsc", (1, count, 1)), ("stts", (count, 1))):
        place = content.find(name.encode()) + (8 if name == "stsz" else 12)
        struct.pack_into(f">{len(value)}I", content, place, *value)
    path.write_bytes(content)


def test_tables_that_claim_more_than_there_is_are_refused(reader, tmp_path):
    path = video(tmp_path / "bomb.mp4", 5)
    claims(path, 60_000_000)
    for one in (reader, Reader()):
        (error,) = one.frames(path, [(0, 1)])
        assert "claims 60,000,000 frames" in error.reason
        assert one.seconds(path) is None


def test_pixels_that_are_not_square_are_shown_as_players_do(tmp_path):
    sizes = {None: 1, Fraction(2): 2, Fraction(1, 2): 0.5, Fraction(1000): 1}
    for ratio, wider in sizes.items():
        path = video(tmp_path / "a.mp4", 3, ratio=ratio)
        (frame,) = Reader().frames(path, [(0, 1)])
        assert frame.shape == (SIDE, SIDE * wider, 3), ratio
    assert np.ptp(frame) > 0
