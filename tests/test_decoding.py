"""Batches decoded by threads, or by processes that hand over stacks."""

from __future__ import annotations

from collections import namedtuple
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import decoding
from data.decoding import Reading, decoded
from data.images import ImageError
from data.loading import Picture, load
from data.samples import Sample
from data.stack import LARGEST


@pytest.fixture(scope="module")
def shards(tmp_path_factory, astronaut) -> tuple[Path, list]:
    """Two shards: seven pictures of several sizes and a damaged one; three, one of them large."""
    root = tmp_path_factory.mktemp("pictures")
    names = [f"{i:02d}.png" for i in range(11)]
    for i, name in enumerate(names):
        Image.fromarray(astronaut[: 100 + 20 * i, : 300 - 10 * i]).save(root / name)
    (root / "05.png").write_bytes(b"no picture")
    Image.new("RGB", (LARGEST + 1, 20), "white").save(root / "09.png")
    samples = [Sample(name, 0, "", "train") for name in names]
    return root, [(3, samples[:8]), (4, samples[8:])]


def listed(root: Path, shards: list, **options: object) -> list:
    reading = Reading(root, batch_size=3, workers=2)
    return list(decoded(shards, reading, **options))


def test_by_processes_as_by_threads(shards):
    root, some = shards
    plain = listed(root, some, stacked=False)
    found = listed(root, some, stacked=True)
    layout = [(3, 3, True), (3, 3, True), (3, 2, True), (4, 1, True), (4, 1, False), (4, 1, True)]
    assert [(n, len(batch), s is not None) for n, batch, s in found] == layout
    assert [(n, len(batch), s) for n, batch, s in plain] == [
        *((3, 3, None), (3, 3, None), (3, 2, None), (4, 3, None))
    ]
    for _, batch, stack in found:
        pictures = [item for _, item in batch if isinstance(item, Picture)]
        if stack is not None:
            assert len(stack) == len(pictures)
            assert stack.shapes.tolist() == [[*item.image.shape[:2]] for item in pictures]
    found, plain = ([pair for _, batch, _ in parts for pair in batch] for parts in (found, plain))
    for (sample, item), (other, wanted) in zip(found, plain, strict=True):
        assert sample == other and type(item) is type(wanted)
        if isinstance(item, ImageError):
            assert sample.path == "05.png" and item.reason == wanted.reason
            continue
        whole = load(root / sample.path, 10**8)
        assert np.array_equal(item.image, whole.image)
        assert np.array_equal(wanted.image, whole.image)
        for name in ("file_bytes", "mean", "phash"):
            assert getattr(item, name) == getattr(whole, name)


def test_processes_serve_another_turn_after_one_that_was_left(shards):
    root, some = shards
    parts = decoded(some, Reading(root, 2, 2), stacked=True)
    next(parts)
    parts.close()
    again = listed(root, some[1:], stacked=True)
    assert [sample.path for _, batch, _ in again for sample, _ in batch] == [
        *("08.png", "09.png", "10.png")
    ]


def test_a_process_ended_from_outside_is_told(shards):
    root, some = shards
    parts = decoded(some * 20, Reading(root, 1, 2), stacked=True)
    next(parts)
    for child in active_children():
        child.kill()
    with pytest.raises(MemoryError, match="was ended"):
        list(parts)
    assert len(listed(root, some, stacked=True)) == 6  # others are started


def test_no_stack_grows_by_one_large_picture(shards, monkeypatch):
    def entry(height: int, width: int) -> tuple:
        image = np.broadcast_to(np.uint8(0), (height, width, 3))
        return None, Picture(image, 1, (0.0, 0.0, 0.0), "0" * 16)

    monkeypatch.setattr(decoding, "BATCH_BYTES", 3 * 400 * 300)
    unread = (None, ImageError(Path("a"), "damaged"))
    batch = [entry(100, 100)] * 5 + [unread, entry(400, 20), unread] + [entry(100, 100)] * 2
    parts = [len(part) for part in decoding._parts(batch)]
    assert parts == [6, 4]
    large = entry(20, LARGEST + 1)
    parts = [len(part) for part in decoding._parts([large, *batch[:2], large, large])]
    assert parts == [1, 2, 2]


def test_little_shared_memory_leaves_it_to_threads(shards, monkeypatch):
    root, some = shards
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(decoding.shutil, "disk_usage", lambda _: usage(decoding.ROOM - 1))
    monkeypatch.setattr(decoding, "_by_processes", lambda *_: pytest.fail("processes"))
    found = listed(root, some, stacked=True)
    assert [stack is not None for _, _, stack in found] == [True] * 4 + [False, True]
    assert decoding._room() == 0
    monkeypatch.setattr(decoding.shutil, "disk_usage", lambda _: usage(5 * decoding.ROOM))
    assert decoding._room() == 5
    monkeypatch.setattr(decoding, "SHARED", root / "nowhere")
    assert decoding._room() == 0
