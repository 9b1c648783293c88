"""Dumps whose run was killed, and experts added later: the same bytes as in one run."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from data import store
from data.dump import Dump, read_dump
from data.store import DumpWriter
from tests.toy_dumps import (
    BOTH,
    CONFIG,
    SAMPLES,
    SHA,
    contents,
    find_all,
    make,
    meta_of,
    opened,
    write_outputs,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    return contents(make(tmp_path_factory.mktemp("whole") / "dump").path)


# Killed at any instant.


@pytest.fixture(scope="module", autouse=True)
def nothing_to_collect():
    """Video objects of other tests, collected in a forked child, would wait for its lost threads."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def dies_at(step: int, out: Path, torn: bool = False, **options) -> bool:
    """Make a dump in another process that dies before its `step`-th access to the disk, or, `torn`,
    after ten bytes of the file it opens then. Returns whether it died."""
    child = os.fork()
    if child == 0:
        gc.disable()
        left = [step]

        def hook(event: str, arguments: tuple) -> None:
            touches = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
            if event in touches and str(out) in str(arguments[0]):
                left[0] -= 1
                if left[0] == -1 and torn and event == "open":
                    resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
                elif left[0] == -1:
                    os.kill(os.getpid(), signal.SIGKILL)

        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.addaudithook(hook)
        try:
            make(out, **options)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.fixture
def unsynced(monkeypatch) -> None:
    """A killed process loses nothing that it has written; waiting for the disk only takes time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("torn", [False, True])
def test_killed_at_any_step_and_started_again_it_ends_with_the_same_bytes(
    tmp_path, whole, monkeypatch, torn
):
    written = []
    for name in ("write_faces", "write_outputs"):
        write = getattr(DumpWriter, name)
        monkeypatch.setattr(
            DumpWriter, name, lambda *args, f=write: (written.append(args[1]), f(*args))
        )
    for step in range(150):
        killed = dies_at(step, out := tmp_path / f"{step}", torn, size=5)
        faces = len(list(out.glob("unfinished/faces-*.json")))
        outputs = len(list(out.glob("unfinished/other-*.safetensors")))
        found, complete = (out / "index.csv").exists(), (out / "meta.json").exists()
        written.clear()
        assert contents(make(out, size=5).path) == whole
        expected = (0 if found else 2 - faces) + (0 if complete else 2 - outputs)
        assert len(written) == expected
        if not killed:
            break
    assert not killed and step > 30


@pytest.mark.usefixtures("unsynced")
def test_killed_while_an_expert_is_added_the_dump_stays_readable(tmp_path, whole):
    for step in range(150):
        out = tmp_path / f"{step}"
        make(out, experts=("lite",), size=5)
        killed = dies_at(step, out, experts=("other",), size=5)
        assert read_dump(out).meta["weights"].keys() in ({"lite"}, {"lite", "other"})
        assert contents(make(out, experts=("other",)).path) == whole
        if not killed:
            break
    assert not killed and step > 15


@pytest.mark.usefixtures("unsynced")
def test_killed_while_replacing_a_dump_nothing_half_old_is_readable(tmp_path, whole):
    other = {**CONFIG, "faces": "all"}
    new = contents(make(tmp_path / "new", other).path)
    for step in range(150):
        out = tmp_path / f"{step}"
        make(out, size=10)
        killed = dies_at(step, out, config=other, overwrite=True, size=10)
        if (out / "meta.json").exists():
            files = {k: v for k, v in contents(out).items() if not k.startswith("unfinished")}
            assert files in (whole, new) and read_dump(out)
        else:
            with pytest.raises(ValueError, match="unfinished"):
                read_dump(out)
        assert contents(make(out, other, overwrite=True, size=10).path) == new
        if not killed:
            break
    assert not killed and step > 30


# Adding experts.


def test_experts_added_later_give_the_same_bytes_as_at_once(tmp_path, whole):
    for order in (("lite", "other"), ("other", "lite")):
        for expert in order:
            dump = make(tmp_path / order[0], experts=(expert,))
        assert contents(dump.path) == whole


def test_another_expert_in_between_loses_no_shard(tmp_path, whole):
    with opened(tmp_path, experts=("lite",)) as writer:
        find_all(writer)
        write_outputs(writer, *writer.pending()[0])
    make(tmp_path, experts=("other",))
    with opened(tmp_path, experts=("lite",)) as writer:
        assert [number for number, _ in writer.pending()] == [1, 2]
    assert contents(make(tmp_path).path) == whole


def test_nobody_replaces_a_dump_to_which_experts_are_added_but_it_can_be_read(tmp_path):
    make(tmp_path, experts=("lite",))
    with opened(tmp_path, experts=("other",)):
        with pytest.raises(ValueError, match="another process is writing this dump"):
            opened(tmp_path, experts=("lite",), overwrite=True)
        with opened(tmp_path, experts=("lite",)) as writer:
            assert writer.complete
        assert len(read_dump(tmp_path)) == 8


def test_other_weights_of_an_expert_are_refused(tmp_path):
    make(tmp_path)
    message = "weights of lite: '000000000000' there, 'ffffffffffff' now"
    with pytest.raises(ValueError, match=message):
        DumpWriter(tmp_path, CONFIG, {"lite": "f" * 64}, SAMPLES)


def test_shards_of_other_weights_do_not_count(tmp_path):
    with opened(tmp_path) as writer:
        find_all(writer)
        write_outputs(writer, *writer.pending()[0])
        left = len(writer.pending())
    with DumpWriter(tmp_path, CONFIG, {**SHA, "other": "f" * 64}, SAMPLES) as writer:
        assert len(writer.pending()) == left + 1


def test_a_picture_that_cannot_be_used_any_more_costs_its_faces_the_outputs(tmp_path, monkeypatch):
    def make_with_loss() -> Dump:
        with opened(tmp_path) as writer:
            find_all(writer)
            for number, samples in writer.pending():
                if number == 1:
                    writer.write_outputs(1, [], {}, [(s.path, "gone") for s in samples])
                else:
                    write_outputs(writer, number, samples)
            return writer.finish(meta_of(writer, BOTH))

    with pytest.raises(ValueError, match=r"1 of 8 faces have no usable picture.*real/00.*gone"):
        make_with_loss()
    monkeypatch.setattr(store, "SPOILED", 0.5)
    dump = make_with_loss()
    assert dump.missing == [("real/00.jpg", 0, expert, "gone") for expert in BOTH]
    for array in dump.arrays.values():
        assert np.isnan(array).all((1, 2)).tolist() == [key == "real/00.jpg#0" for key in dump.keys]
