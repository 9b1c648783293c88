"""Dumps: what goes in comes out, and no instant at which a run dies makes a difference."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from data.datasets import Sample
from data.store import NO_FACE, NOT_FINITE, Dump, DumpWriter, Row, newest_dump, read_dump

OUTPUTS = {
    "lite.age": {"kind": "distribution", "size": 3, "names": ["young", "old", "older"]},
    "lite.identity": {"kind": "embedding", "size": 5, "names": []},
}
META = {
    "dataset": "toy",
    "data_root": "/toy",
    "profile": "lite",
    "regions": ["full", "upper"],
    "outputs": OUTPUTS,
    "weights": {"lite": "00"},
    "versions": {},
}
CONFIG = {"profile": "lite", "faces": "one"}
SAMPLES = [
    Sample(f"{kind}/{i:02d}.jpg", int(kind == "fake"), "", "")
    for kind in ("fake", "real")
    for i in range(5)
]


def row(sample: Sample, face: int = 0, **other) -> Row:
    numbers = dict.fromkeys(Row.__dataclass_fields__, 1.5)
    number = int(sample.path[-6:-4]) if sample.path[-6:-4].isdigit() else 0
    text = {
        "path": sample.path,
        "group": sample.group,
        "split": sample.split,
        "video": "",
        "method": "",
        "phash": f"{number * 0x1111111:016x}",
    }
    whole = {"face": face, "label": sample.label, "width": 320, "height": 200, "file_bytes": 1234}
    return Row(**{**numbers, **text, **whole, **other})


def write(writer: DumpWriter, number: int, samples: list[Sample]) -> None:
    """Image 3 of each class is unreadable, 4 has no face, 2 has two faces; values tell which face they belong to."""
    rows, failures = [], []
    for sample in samples:
        last = sample.path[-5]
        if last in "34":
            failures.append((sample.path, "empty file" if last == "3" else NO_FACE))
        else:
            rows += [row(sample, face) for face in range(2 if last == "2" else 1)]
    values = np.array([value_of(r) for r in rows], np.float32)[:, None, None]
    sizes = {name: (2, output["size"]) for name, output in OUTPUTS.items()}
    arrays = (
        {name: values + np.zeros(shape, np.float32) for name, shape in sizes.items()}
        if rows
        else {}
    )
    writer.write_shard(number, rows, arrays, failures)


def value_of(r: Row) -> float:
    return r.label * 100 + int(r.path[-6:-4]) * 10 + r.face


def make(out: Path, config: dict = CONFIG, samples: list[Sample] = SAMPLES, **options) -> Dump:
    with DumpWriter(out, config, samples, **{"shard_size": 3, **options}) as writer:
        for number, some in writer.pending():
            write(writer, number, some)
        return writer.finish(META)


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def test_round_trip(tmp_path):
    dump = make(tmp_path / "dump")
    assert len(dump) == 8 and dump.keys[:4] == [
        "fake/00.jpg#0",
        "fake/01.jpg#0",
        "fake/02.jpg#0",
        "fake/02.jpg#1",
    ]
    assert (
        dump.arrays["lite.identity"].shape == (8, 2, 5)
        and dump.arrays["lite.identity"].dtype == np.float16
    )
    expected = [100, 110, 120, 121, 0, 10, 20, 21]
    assert dump.arrays["lite.age"][:, 1, 2].tolist() == expected and dump.arrays[
        "lite.age"
    ].shape == (8, 2, 3)
    assert dump.rows["label"].tolist() == [1] * 4 + [0] * 4 and dump.rows["label"].dtype == np.int64
    assert dump.rows["sharpness"].dtype == np.float64 and (dump.rows["yaw"] == 1.5).all()
    assert dump.failures[:2] == [("fake/03.jpg", "empty file"), ("fake/04.jpg", NO_FACE)]
    counts = {
        "images": 10,
        "kept": 6,
        "faces": 8,
        "real": 4,
        "fake": 4,
        "no_face": 2,
        "unreadable": 2,
    }
    assert dump.meta["counts"] == counts
    assert dump.meta["outputs"] == OUTPUTS and dump.meta["config"]["faces"] == "one"
    assert sorted(contents(dump.path)) == [
        "failures.csv",
        "index.csv",
        "lite.age.npy",
        "lite.identity.npy",
        "meta.json",
        "missing.csv",
    ]


def test_faces_of_one_image_share_group_and_split_and_given_ones_stay(tmp_path):
    samples = [Sample("real/00.jpg", 0, "clip7", "val"), Sample("real/02.jpg", 0, "", "")]
    dump = make(tmp_path, samples=samples)
    assert dump.rows["group"][0] == "clip7" and dump.rows["split"][0] == "val"
    groups, splits = set(dump.rows["group"][1:]), set(dump.rows["split"][1:])
    assert (
        len(groups) == 1
        and groups != {""}
        and len(splits) == 1
        and splits <= {"train", "val", "test"}
    )


def dies_at(step: int, out: Path, torn: bool = False, **options) -> bool:
    """Make a dump in another process that dies right before its `step`-th touch of the disk, or, `torn`, after ten bytes of
    the file it opens then. Whether it did."""
    child = os.fork()
    if child == 0:
        left = [step]

        def hook(event: str, arguments: tuple) -> None:
            if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and str(
                out
            ) in str(arguments[0]):
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


@pytest.mark.parametrize("torn", [False, True])
def test_killed_at_any_step_and_started_again_it_ends_with_the_same_bytes(
    tmp_path, monkeypatch, torn
):
    whole = contents(make(tmp_path / "whole").path)
    written = []
    write_shard = DumpWriter.write_shard
    monkeypatch.setattr(
        DumpWriter,
        "write_shard",
        lambda self, n, *rest: (written.append(n), write_shard(self, n, *rest)),
    )
    shards = 4
    for step in range(60):
        killed = dies_at(step, out := tmp_path / f"{step}", torn)
        on_disk = len(list(out.glob("unfinished/*.safetensors")))
        complete = (out / "meta.json").exists()
        written.clear()
        assert contents(make(out).path) == whole
        assert len(written) == (0 if complete else shards - on_disk)
    assert not killed and step > 30


def test_killed_while_replacing_a_dump_nothing_half_old_is_readable(tmp_path):
    other = {**CONFIG, "faces": "all"}
    old, new = contents(make(tmp_path / "old").path), contents(make(tmp_path / "new", other).path)
    for step in range(60):
        out = tmp_path / f"{step}"
        make(out)
        killed = dies_at(step, out, config=other, overwrite=True)
        if (out / "meta.json").exists():
            read_dump(out)
            files = {
                name: data
                for name, data in contents(out).items()
                if not name.startswith("unfinished")
            }
            assert files in (old, new)
        else:
            with pytest.raises(ValueError, match="unfinished"):
                read_dump(out)
        assert contents(make(out, other, overwrite=True).path) == new
        if not killed:
            return
    pytest.fail("it should have come to an end")


def test_other_settings_are_refused_and_named(tmp_path):
    before = contents(make(tmp_path).path)
    with pytest.raises(
        ValueError, match=r"other settings:\n  faces: 'one' there, 'all' now\n.*--overwrite"
    ):
        make(tmp_path, {**CONFIG, "faces": "all"})
    with pytest.raises(ValueError, match=r"images: 10 there, 9 now\n  samples: "):
        make(tmp_path, samples=SAMPLES[1:])
    assert contents(tmp_path) == before
    dump = make(tmp_path, {**CONFIG, "faces": "all"}, SAMPLES[1:], overwrite=True)
    assert dump.meta["config"]["faces"] == "all" and dump.meta["counts"]["images"] == 9


def test_other_settings_are_refused_while_unfinished(tmp_path):
    with DumpWriter(tmp_path, CONFIG, SAMPLES, 3) as writer:
        write(writer, *writer.pending()[0])
    with pytest.raises(ValueError, match="profile: 'lite' there, 'full' now"):
        DumpWriter(tmp_path, {**CONFIG, "profile": "full"}, SAMPLES, 3)
    with pytest.raises(ValueError, match="unfinished"):
        read_dump(tmp_path)
    with DumpWriter(tmp_path, {**CONFIG, "profile": "full"}, SAMPLES, 3, overwrite=True) as writer:
        assert [number for number, _ in writer.pending()] == [0, 1, 2, 3]


def test_a_finished_dump_is_not_made_again(tmp_path):
    make(tmp_path)
    with DumpWriter(tmp_path, CONFIG, SAMPLES, 5) as writer:
        assert writer.complete and writer.pending() == [] and len(writer.finish(META)) == 8
    with DumpWriter(tmp_path, CONFIG, SAMPLES, 5, overwrite=True) as writer:
        assert not writer.complete and len(writer.pending()) == 2


def test_an_unfinished_dump_keeps_its_shard_size_also_with_overwrite(tmp_path):
    with DumpWriter(tmp_path, CONFIG, SAMPLES, 3) as writer:
        write(writer, *writer.pending()[0])
    with DumpWriter(tmp_path, CONFIG, SAMPLES, 7, overwrite=True) as writer:
        assert writer.shard_size == 3 and [number for number, _ in writer.pending()] == [1, 2, 3]


def test_files_that_are_no_dump_are_left_alone(tmp_path):
    (tmp_path / "index.csv").write_text("path,label\n")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"index\.csv.*another --out"):
            DumpWriter(tmp_path, CONFIG, SAMPLES, overwrite=overwrite)
    (tmp_path / "meta.json").write_text("{}")
    with pytest.raises(ValueError, match=r"meta\.json: not written by this project"):
        DumpWriter(tmp_path, CONFIG, SAMPLES, overwrite=True)
    assert contents(tmp_path) == {"index.csv": b"path,label\n", "meta.json": b"{}"}


def test_two_runs_do_not_write_one_dump(tmp_path):
    with DumpWriter(tmp_path, CONFIG, SAMPLES), pytest.raises(ValueError, match="another process"):
        DumpWriter(tmp_path, CONFIG, SAMPLES)
    make(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a file on a full disk")
@pytest.mark.parametrize(
    "name", ["unfinished/000002.safetensors", "lite.age.npy", "index.csv", "meta.json"]
)
def test_a_full_disk_loses_nothing(tmp_path, name):
    whole = contents(make(tmp_path / "whole").path)
    out = tmp_path / "full"
    with DumpWriter(out, CONFIG, SAMPLES, 3) as writer:
        (out / f"{name}.partial").symlink_to("/dev/full")
        with pytest.raises(OSError, match="disk is full.*run the same command again") as caught:
            for number, samples in writer.pending():
                write(writer, number, samples)
            writer.finish(META)
    assert caught.value.errno == errno.ENOSPC
    assert not list(out.rglob("*.partial"))
    assert contents(make(out).path) == whole


def test_a_shard_must_be_consistent(tmp_path):
    some = SAMPLES[:2]
    with DumpWriter(tmp_path, CONFIG, some) as writer:
        rows = [row(sample) for sample in some]
        with pytest.raises(ValueError, match="every sample"):
            writer.write_shard(0, rows[:1], {}, [])
        with pytest.raises(ValueError, match=r"3 values of lite\.age for 2 rows"):
            writer.write_shard(0, rows, {"lite.age": np.zeros((3, 2, 3))}, [])
        with pytest.raises(ValueError, match="1 shards are missing"):
            writer.finish(META)
        arrays = {name: np.full((2, 2, output["size"]), np.nan) for name, output in OUTPUTS.items()}
        writer.write_shard(0, rows, arrays, [])
        with pytest.raises(ValueError, match="promised"):
            writer.finish({**META, "regions": ["full"]})
        assert np.isnan(writer.finish(META).arrays["lite.age"]).all()


def test_what_one_expert_cannot_answer_costs_only_its_columns(tmp_path):
    """lite answers the first face beyond float16, and has no answer about the second; the other expert answers all."""
    outputs = {**OUTPUTS, "other.age": OUTPUTS["lite.age"]}
    meta, some = {**META, "outputs": outputs}, SAMPLES[:3]
    with DumpWriter(tmp_path, CONFIG, some) as writer:
        arrays = {name: np.ones((3, 2, output["size"])) for name, output in outputs.items()}
        arrays["lite.age"][0, 1, 2] = 1e6
        for name in OUTPUTS:
            arrays[name][1] = np.nan
        writer.write_shard(0, [row(sample) for sample in some], arrays, [])
        dump = writer.finish(meta)
    assert dump.missing == [(some[i].path, 0, "lite", NOT_FINITE) for i in (0, 1)]
    for name in OUTPUTS:
        assert np.isnan(dump.arrays[name][1]).all() and (dump.arrays[name][2] == 1).all()
    assert (dump.arrays["other.age"] == 1).all()


def test_any_file_name_survives(tmp_path):
    names = [
        "real/a,b.jpg",
        'real/"q".jpg',
        "real/line\nbreak.jpg",
        "real/naïve 名前.jpg",
        "real/\udcff.jpg",
    ]
    samples = sorted(
        (Sample(name, 0, "g", "train") for name in names), key=lambda sample: sample.path
    )
    with DumpWriter(tmp_path, CONFIG, samples) as writer:
        arrays = {name: np.zeros((4, 2, output["size"])) for name, output in OUTPUTS.items()}
        writer.write_shard(
            0, [row(sample) for sample in samples[:4]], arrays, [(samples[4].path, "empty file")]
        )
        dump = writer.finish(META)
    assert [*dump.rows["path"], dump.failures[0][0]] == [sample.path for sample in samples]


def test_a_dump_without_faces(tmp_path):
    dump = make(
        tmp_path, samples=[Sample("real/03.jpg", 0, "", ""), Sample("real/04.jpg", 0, "", "")]
    )
    assert len(dump) == 0 and dump.arrays["lite.age"].shape == (0, 2, 3) and len(dump.failures) == 2
    assert dump.rows["label"].dtype == np.int64 and dump.meta["counts"]["kept"] == 0


def test_what_is_no_dump_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no dump there"):
        read_dump(tmp_path / "nowhere")
    out = make(tmp_path / "dump").path
    meta = json.loads((out / "meta.json").read_text())
    (out / "meta.json").write_text(json.dumps({**meta, "format": 99}))
    with pytest.raises(ValueError, match="format 99"):
        read_dump(out)
    (out / "meta.json").write_text(json.dumps(meta))
    lines = (out / "index.csv").read_text().splitlines(keepends=True)
    (out / "index.csv").write_text("".join(lines[:-1]))
    with pytest.raises(
        ValueError, match=r"lite\.age\.npy: shape \(8, 2, 3\), expected \(7, 2, 3\)"
    ):
        read_dump(out)
    (out / "index.csv").write_text("".join(lines[1:]))
    with pytest.raises(ValueError, match="expected the columns path, face"):
        read_dump(out)


def test_newest_dump(tmp_path):
    with pytest.raises(FileNotFoundError, match="preprocessing_pipeline.py --data_root"):
        newest_dump(tmp_path)
    first, second = make(tmp_path / "a" / "lite").path, make(tmp_path / "b" / "lite").path
    os.utime(first / "meta.json", (2e9, 2e9))
    os.utime(second / "meta.json", (1e9, 1e9))
    assert newest_dump(tmp_path) == first
