"""Dumps: what is written is read back. Killed runs: test_store_killed.py."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from data.dump import NO_FACE, newest_dump, read_dump
from data.samples import Sample
from data.store import NOT_FINITE
from tests.toy_dumps import (
    BOTH,
    CONFIG,
    OUTPUTS,
    SAMPLES,
    contents,
    find_all,
    make,
    meta_of,
    opened,
    row,
    write_faces,
    write_outputs,
    zeros,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    return contents(make(tmp_path_factory.mktemp("whole") / "dump").path)


def test_round_trip(tmp_path):
    dump = make(tmp_path / "dump")
    names = ["fake/00.jpg#0", "fake/01.jpg#0", "fake/02.jpg#0", "fake/02.jpg#1"]
    assert len(dump) == 8 and dump.keys[:4] == names
    assert dump.arrays["lite.identity"].shape == (8, 2, 5)
    assert dump.arrays["lite.identity"].dtype == np.float16
    expected = [100, 110, 120, 121, 0, 10, 20, 21]
    assert dump.arrays["lite.age"][:, 1, 2].tolist() == expected
    assert dump.arrays["other.years"][:, 0, 0].tolist() == expected
    assert dump.rows["label"].tolist() == [1] * 4 + [0] * 4 and dump.rows["label"].dtype == np.int64
    assert dump.rows["sharpness"].dtype == np.float64 and (dump.rows["yaw"] == 1.5).all()
    assert dump.failures[:2] == [("fake/03.jpg", "empty file"), ("fake/04.jpg", NO_FACE)]
    counts = {"images": 10, "kept": 6, "faces": 8, "real": 4, "fake": 4}
    assert dump.meta["counts"] == {**counts, "no_face": 2, "unreadable": 2}
    assert dump.meta["outputs"] == OUTPUTS and dump.meta["config"]["faces"] == "one"
    files = [
        "failures.csv",
        "index.csv",
        "meta.json",
        "missing.csv",
        "pictures.csv",
        *(f"{k}.npy" for k in OUTPUTS),
    ]
    assert sorted(contents(dump.path)) == sorted(files)


def test_landmarks_are_exact(tmp_path):
    exact = {"lx0": 1234.5678901234567, "ly0": 1 / 3}
    with opened(tmp_path, samples=SAMPLES[:1], experts=("lite",)) as writer:
        writer.write_faces(0, [row(SAMPLES[0], **exact)], [])
        writer.finish_faces()
        assert writer.faces.landmarks[0, 0].tolist() == list(exact.values())


def test_faces_of_one_image_share_group_and_split_and_given_ones_stay(tmp_path):
    samples = [Sample("real/00.jpg", 0, "clip7", "val"), Sample("real/02.jpg", 0)]
    dump = make(tmp_path, samples=samples)
    assert dump.rows["group"][0] == "clip7" and dump.rows["split"][0] == "val"
    groups, splits = set(dump.rows["group"][1:]), set(dump.rows["split"][1:])
    assert len(groups) == len(splits) == 1
    assert groups != {""} and splits <= {"train", "val", "test"}


# Settings.


def test_other_settings_are_refused_and_named(tmp_path, whole):
    make(tmp_path)
    with pytest.raises(ValueError, match=r"faces: 'one' there, 'all' now\n.*--overwrite"):
        make(tmp_path, {**CONFIG, "faces": "all"})
    with pytest.raises(ValueError, match=r"images: 10 there, 9 now\n  another list of pictures"):
        make(tmp_path, samples=SAMPLES[1:])
    assert contents(tmp_path) == whole
    dump = make(tmp_path, {**CONFIG, "faces": "all"}, SAMPLES[1:], overwrite=True)
    assert dump.meta["config"]["faces"] == "all" and dump.meta["counts"]["images"] == 9


def test_other_settings_are_refused_while_unfinished(tmp_path):
    other = {**CONFIG, "faces": "all"}
    with opened(tmp_path) as writer:
        write_faces(writer, *writer.pending_faces()[0])
    with pytest.raises(ValueError, match="faces: 'one' there, 'all' now"):
        opened(tmp_path, other)
    with pytest.raises(ValueError, match="unfinished"):
        read_dump(tmp_path)
    with opened(tmp_path, other, overwrite=True) as writer:
        assert [number for number, _ in writer.pending_faces()] == [0, 1, 2, 3]


def test_an_older_format_is_replaced_on_request_only(tmp_path, whole):
    out = make(tmp_path).path
    meta = json.loads((out / "meta.json").read_text())
    (out / "meta.json").write_text(json.dumps({**meta, "format": 3}))
    with pytest.raises(ValueError, match="format 3, this version reads 4; make it again"):
        read_dump(out)
    with pytest.raises(ValueError, match=r"format: 3 there, 4 now\n.*--overwrite"):
        make(out)
    assert contents(make(out, overwrite=True).path) == whole


def test_a_finished_dump_is_not_made_again(tmp_path):
    make(tmp_path)
    with opened(tmp_path, size=5) as writer:
        assert writer.complete and writer.pending_faces() == writer.pending() == []
        assert len(writer.finish({})) == 8
    with opened(tmp_path, size=5, overwrite=True) as writer:
        assert not writer.complete and len(writer.pending_faces()) == 2


def test_an_unfinished_dump_keeps_its_shard_size_also_with_overwrite(tmp_path):
    with opened(tmp_path) as writer:
        write_faces(writer, *writer.pending_faces()[0])
    with opened(tmp_path, size=7, overwrite=True) as writer:
        assert writer.shard_size == 3
        assert [number for number, _ in writer.pending_faces()] == [1, 2, 3]


def test_files_that_are_no_dump_are_left_alone(tmp_path):
    (tmp_path / "index.csv").write_text("path,label\n")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"index\.csv.*another --out"):
            opened(tmp_path, overwrite=overwrite)
    (tmp_path / "meta.json").write_text("{}")
    with pytest.raises(ValueError, match=r"meta\.json: not written by this project"):
        opened(tmp_path, overwrite=True)
    assert contents(tmp_path) == {"index.csv": b"path,label\n", "meta.json": b"{}"}


def test_two_runs_do_not_write_one_dump(tmp_path):
    with opened(tmp_path), pytest.raises(ValueError, match="another process"):
        opened(tmp_path)
    make(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a file on a full disk")
@pytest.mark.parametrize(
    "name",
    [
        "unfinished/faces-000002.json",
        "unfinished/other-111111111111-000002.safetensors",
        "lite.age.npy",
        "index.csv",
        "meta.json",
    ],
)
def test_a_full_disk_loses_nothing(tmp_path, whole, name):
    with opened(tmp_path) as writer:
        (tmp_path / f"{name}.partial").symlink_to("/dev/full")
        with pytest.raises(OSError, match="disk is full.*run the same command again") as caught:
            find_all(writer)
            for number, samples in writer.pending():
                write_outputs(writer, number, samples)
            writer.finish(meta_of(writer, BOTH))
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.rglob("*.partial"))
    assert contents(make(tmp_path).path) == whole


def test_predictions_of_the_former_dump_go_with_it(tmp_path):
    make(tmp_path)
    (tmp_path / "predictions.csv").write_text("of other pictures")
    make(tmp_path)
    assert (tmp_path / "predictions.csv").exists(), "complete already"
    make(tmp_path, overwrite=True)
    assert not (tmp_path / "predictions.csv").exists()


# Shards.


def test_a_shard_must_be_consistent(tmp_path):
    some = SAMPLES[:2]
    with opened(tmp_path, samples=some, experts=("lite",)) as writer:
        rows = [row(sample) for sample in some]
        with pytest.raises(ValueError, match="every sample"):
            writer.write_faces(0, rows[:1], [])
        with pytest.raises(ValueError, match="1 shards are missing"):
            writer.finish_faces()
        writer.write_faces(0, rows, [])
        writer.finish_faces()
        with pytest.raises(ValueError, match="1 shards are missing"):
            writer.finish(meta_of(writer, ("lite",)))
        with pytest.raises(ValueError, match="not the faces of .*index.csv"):
            writer.write_outputs(0, [0], {"lite.age": zeros(1, "lite.age")})
        with pytest.raises(ValueError, match="3 rows of lite.age, not 2"):
            writer.write_outputs(0, [0, 1], {"lite.age": zeros(3, "lite.age")})
        names = ("lite.age", "lite.identity")
        writer.write_outputs(0, [0, 1], {name: zeros(2, name) for name in names})
        with pytest.raises(ValueError, match="expected"):
            writer.finish({**meta_of(writer, ("lite",)), "regions": ["full"]})
        assert (writer.finish(meta_of(writer, ("lite",))).arrays["lite.age"] == 0).all()


def test_one_expert_without_outputs_costs_only_its_columns(tmp_path):
    """The outputs of lite are beyond float16 for the first face, and NaN for the second."""
    some = SAMPLES[:3]
    with opened(tmp_path, samples=some) as writer:
        writer.write_faces(0, [row(sample) for sample in some], [])
        writer.finish_faces()
        arrays = {name: zeros(3, name) + 1 for name in OUTPUTS}
        arrays["lite.age"][0, 1, 2] = 1e6
        arrays["lite.age"][1] = arrays["lite.identity"][1] = np.nan
        writer.write_outputs(0, [0, 1, 2], arrays)
        dump = writer.finish(meta_of(writer, BOTH))
    assert dump.missing == [(some[i].path, 0, "lite", NOT_FINITE) for i in (0, 1)]
    assert np.isnan(dump.arrays["lite.identity"][1]).all()
    assert (dump.arrays["lite.age"][2] == 1).all() and (dump.arrays["other.years"] == 1).all()


def test_any_file_name_survives(tmp_path):
    names = ("a,b", '"q"', "line\nbreak", "naïve 名前", "\udcff", "NA", "001")
    samples = [Sample(f"real/{name}.jpg", 0, "001", "train") for name in sorted(names)]
    with opened(tmp_path, samples=samples, size=7, experts=("lite",)) as writer:
        writer.write_faces(0, [row(s) for s in samples[:6]], [(samples[6].path, "empty file")])
        writer.finish_faces()
        arrays = {name: zeros(6, name) for name in ("lite.age", "lite.identity")}
        writer.write_outputs(0, range(6), arrays)
        dump = writer.finish(meta_of(writer, ("lite",)))
    assert [*dump.rows["path"], dump.failures[0][0]] == [sample.path for sample in samples]
    assert set(dump.rows["group"]) == {"001"}


def test_a_dump_without_faces(tmp_path):
    dump = make(tmp_path, samples=[Sample("real/03.jpg", 0), Sample("real/04.jpg", 0)])
    assert len(dump) == 0 and dump.arrays["lite.age"].shape == (0, 2, 3) and len(dump.failures) == 2
    assert dump.rows["label"].dtype == np.int64 and dump.meta["counts"]["kept"] == 0


# Reading.


def test_what_is_no_dump_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no dump there"):
        read_dump(tmp_path / "nowhere")
    out = make(tmp_path / "dump").path
    lines = (out / "index.csv").read_text().splitlines(keepends=True)
    (out / "index.csv").write_text("".join(lines[:-1]))
    message = r"lite\.age\.npy: shape \(8, 2, 3\), expected \(7, 2, 3\)"
    with pytest.raises(ValueError, match=message):
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
