"""Batches decoded by threads, or by processes that hand over stacks."""

from __future__ import annotations

from collections import namedtuple
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
    layout = [(3, 3, True), (3, 3, True), (3, 2, True), (4, 3, False)]
    assert [(n, len(batch), s is not None) for n, batch, s in found] == layout
    assert [(n, len(batch), s) for n, batch, s in plain] == [(*x[:2], None) for x in layout]
    for (_, batch, stack), (_, expected, _) in zip(found, plain, strict=True):
        pictures = [item for _, item in batch if isinstance(item, Picture)]
        if stack is not None:
            assert len(stack) == len(pictures)
            assert stack.shapes.tolist() == [[*item.image.shape[:2]] for item in pictures]
        for (sample, item), (other, wanted) in zip(batch, expected, strict=True):
            assert sample == other and type(item) is type(wanted)
            if isinstance(item, ImageError):
                assert sample.path == "05.png" and item.reason == wanted.reason
                continue
            whole = load(root / sample.path, 10**8)
            assert np.array_equal(item.image, whole.image)
            assert np.array_equal(wanted.image, whole.image)
            assert vars(item).keys() == vars(whole).keys()
            for name in ("file_bytes", "mean", "phash"):
                assert getattr(item, name) == getattr(whole, name)


def test_little_shared_memory_leaves_it_to_threads(shards, monkeypatch):
    root, some = shards
    usage = namedtuple("usage", "free")
    room = 3 * 3 * LARGEST**2  # for one process
    monkeypatch.setattr(decoding.shutil, "disk_usage", lambda _: usage(room - 1))
    monkeypatch.setattr(decoding, "_by_processes", lambda *_: pytest.fail("processes"))
    found = listed(root, some, stacked=True)
    assert [stack is not None for _, _, stack in found] == [True, True, True, False]
    assert decoding._processes(3) == 0
    monkeypatch.setattr(decoding.shutil, "disk_usage", lambda _: usage(5 * room))
    assert decoding._processes(3) == 5
    monkeypatch.setattr(decoding, "SHARED", root / "nowhere")
    assert decoding._processes(3) == 0


def test_stopped_early(shards):
    root, some = shards
    parts = decoded(some, Reading(root, 2, 2), stacked=True)
    next(parts)
    parts.close()
