"""Pictures arrive in order, decoded ahead of time, and never too many at once."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from data import loading
from data.images import ImageError, perceptual_hash
from data.loading import Picture, batches, in_order, load, load_ahead


def picture(height: int = 4, width: int = 6) -> Picture:
    return Picture(np.zeros((height, width, 3), np.uint8), 1, (0.0, 0.0, 0.0), "0" * 16)


def test_load_tells_what_the_file_is(tmp_path, astronaut):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), astronaut[..., ::-1])
    loaded = load(path, 10**8)
    assert np.array_equal(loaded.image, astronaut)
    assert loaded.file_bytes == path.stat().st_size and loaded.phash == perceptual_hash(astronaut)
    assert loaded.mean == pytest.approx(astronaut.mean((0, 1)), abs=1e-3)


def test_load_returns_what_is_wrong(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    assert isinstance(load(tmp_path / "a.jpg", 10**8), ImageError)
    assert isinstance(load(tmp_path / "gone.jpg", 10**8), ImageError)
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((20, 20, 3), np.uint8))
    assert isinstance(load(tmp_path / "b.png", 399), ImageError) and isinstance(
        load(tmp_path / "b.png", 400), Picture
    )


def test_order_is_kept_whoever_is_ready_first(monkeypatch):
    def slow(path: Path, _: int) -> str:
        time.sleep(0.02 if int(path.name) % 3 == 0 else 0)
        return path.name

    monkeypatch.setattr(loading, "load", slow)
    assert list(load_ahead((Path(str(i)) for i in range(20)), threads=4, ahead=8)) == [
        str(i) for i in range(20)
    ]


def test_decoding_runs_ahead_but_not_away(monkeypatch):
    started, lock = [], threading.Lock()

    def counting(path: Path, _: int) -> Picture:
        with lock:
            started.append(path)
        return picture()

    monkeypatch.setattr(loading, "load", counting)
    threads = threading.active_count()
    stream = load_ahead((Path(str(i)) for i in range(100)), threads=2, ahead=5)
    next(stream)
    until = time.monotonic() + 60
    while len(started) < 6 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(started) == 6
    monkeypatch.setattr(loading, "AHEAD_BYTES", 2 * 4 * 6 * 3)  # two pictures
    next(stream)
    for _ in range(5):
        next(stream)
        time.sleep(0.02)
    assert len(started) <= 8 + 2
    stream.close()
    assert threading.active_count() == threads


def test_an_exception_reaches_the_caller_in_its_turn():
    results = in_order(lambda x: 1 // x, [2, 1, 0, 1], threads=3, ahead=3)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_batches_end_early_where_pictures_are_large(monkeypatch):
    small, large = picture(), picture(40, 60)
    error = ImageError(Path("a.jpg"), "an empty file")
    items = list(enumerate([small, error, small, large, small, large, large, small]))
    monkeypatch.setattr(loading, "BATCH_BYTES", large.image.nbytes)
    assert [[i for i, _ in batch] for batch in batches(items, 3)] == [
        [0, 1, 2],
        [3],
        [4, 5],
        [6],
        [7],
    ]
    assert list(batches([], 3)) == []
