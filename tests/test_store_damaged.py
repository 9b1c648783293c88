"""Dumps whose files were damaged or altered: one line that names the file, or a dump to read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data.dump import Dump, read_dump
from data.files import read_csv, write_csv
from tests.toy_dumps import OUTPUTS, find_all, make, opened, write_faces, write_outputs


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("whole") / "dump").path


@pytest.fixture
def out(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "dump"))


def altered(out: Path, *keys: object, value: object) -> None:
    meta = json.loads((out / "meta.json").read_text())
    inner = meta
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (out / "meta.json").write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("outputs", "lite.age", "size"), "3"),
        (("outputs", "lite.age", "size"), True),
        (("outputs", "lite.age", "size"), -3),
        (("outputs", "lite.age", "names"), [1, 2, 3]),
        (("outputs", "lite.age", "kind"), None),
        (("outputs", "../lite.age"), OUTPUTS["lite.age"]),
        (("outputs", "nobody.age"), OUTPUTS["lite.age"]),
        (("outputs",), []),
        (("weights",), ["lite"]),
        (("weights", "lite"), 1),
        (("regions",), [1, 2]),
        (("config",), 7),
        (("config", "precision"), 32),
        (("dataset",), ".."),
        (("dataset",), "a/../../b"),
        (("profile",), 3),
        (("counts", "faces"), "8"),
        (("pictures",), 5),
    ],
)
def test_a_wrong_meta_is_refused(out, keys, value):
    altered(out, *keys, value=value)
    with pytest.raises(ValueError, match=r"meta\.json: (damaged|not written by)"):
        read_dump(out)
    with pytest.raises(ValueError, match=r"meta\.json: (damaged|not written by)"):
        opened(out)


def test_deeply_nested_json_is_refused(out):
    (out / "meta.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"meta\.json: not written by this project"):
        read_dump(out)


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("label", "2"),
        ("label", "0.0"),
        ("label", "9" * 30),
        ("face", "x"),
        ("face", "0"),  # of 02.jpg, twice
        ("x0", "nan"),
        ("lx0", "inf"),
        ("split", "trbin"),
        ("path", "../../secret.jpg"),
        ("path", "/etc/passwd"),
        ("path", ""),
        ("phash", "xyz"),
        ("score", ""),
    ],
)
def test_a_wrong_index_is_refused(out, column, text):
    path = out / "index.csv"
    header, *lines = (line.split(",") for line in path.read_text().splitlines())
    lines[3][header.index(column)] = text
    path.write_text("\n".join(map(",".join, [header, *lines])) + "\n")
    with pytest.raises(ValueError, match=r"index\.csv: damaged \(.+\); make the dump again"):
        read_dump(out)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [*lines[:2], lines[2] + ",1", *lines[3:]],
        lambda lines: [*lines[:2], lines[2].rpartition(",")[0], *lines[3:]],
        lambda lines: [*lines, ""],
        lambda lines: [lines[0], lines[3], *lines[2:3], lines[1], *lines[4:]][:3] + lines[1:],
        lambda lines: [lines[0], *lines[4:], *lines[3:4], *lines[1:3]],  # one picture in two places
    ],
)
def test_rows_that_do_not_fit_are_refused(out, change):
    path = out / "index.csv"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(ValueError, match=r"index\.csv: .*make the dump again"):
        read_dump(out)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 2, 3), np.complex64),
        np.zeros((8, 2, 3), np.float32),
        np.zeros((8, 2, 3), ">f2"),
        np.zeros((8, 2, 3), "V2"),  # as BF16 is stored
        np.full((8, 2, 3), None),
        np.asfortranarray(np.zeros((8, 2, 3), np.float16)),
    ],
)
def test_an_array_of_another_kind_is_refused(out, array):
    np.save(out / "lite.age.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=r"lite\.age\.npy: .*make the dump again"):
        read_dump(out)


@pytest.mark.parametrize("header", [b"{'descr': '<f2", b"(" * 116, b"\xff" * 100, b"{'descr'}"])
def test_a_damaged_header_is_refused(out, header):
    path = out / "lite.age.npy"
    content = path.read_bytes()
    path.write_bytes(content[:10] + header.ljust(117) + b"\n" + content[128:])
    with pytest.raises(ValueError, match=r"lite\.age\.npy: damaged; make the dump again"):
        read_dump(out)


@pytest.mark.parametrize("name", ["lite.age.npy", "index.csv", "missing.csv"])
def test_a_lost_file_is_noticed(out, name):
    (out / name).unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=name):
        read_dump(out)
    with pytest.raises(ValueError, match=f"{name}: gone; use --overwrite"):
        opened(out)
    assert len(make(out, overwrite=True)) == 8


def test_a_damaged_shard_is_named(tmp_path):
    with opened(tmp_path) as writer:
        for number, samples in writer.pending_faces():
            write_faces(writer, number, samples)
        shard = tmp_path / "unfinished" / "faces-000001.json"
        shard.write_bytes(shard.read_bytes()[:-20])
        with pytest.raises(ValueError, match="faces-000001.json: damaged; delete it"):
            writer.finish_faces()
        shard.unlink()
        find_all(writer)
        write_outputs(writer, *writer.pending()[0])
    (tmp_path / "unfinished" / "config.json").write_text('{"format": 4, "config": {}}')
    with pytest.raises(ValueError, match=r"settings|damaged"):
        opened(tmp_path)


def test_any_name_and_any_length_survive_a_csv(tmp_path):
    names = ["=1+1", "'=1", "''x", "'", "-3", "+a", "@b", "\tc", "a,b", 'q"', "x\ny", "\udcff", ""]
    rows = [[name, "é"] for name in [*names, "a" * 200_000]]
    write_csv(tmp_path / "t.csv", ("a", "b"), rows)
    assert read_csv(tmp_path / "t.csv", ("a", "b")) == rows
    assert b"\n'=1+1," in (tmp_path / "t.csv").read_bytes()


def test_whatever_bytes_are_changed_the_answer_is_clean(whole, tmp_path):
    assert fuzzed(whole, tmp_path, 200, seed=0) > 50


def fuzzed(whole: Path, folder: Path, count: int, seed: int) -> int:
    """How many of `count` damaged dumps were refused; the others could be read."""
    rng, refused = np.random.default_rng(seed), 0
    out = Path(shutil.copytree(whole, folder / "fuzzed"))
    files = sorted(path.name for path in whole.iterdir())
    for _ in range(count):
        name = files[rng.integers(len(files))]
        content = bytearray((whole / name).read_bytes())
        place = rng.integers(len(content))
        if rng.random() < 0.3:
            del content[place:]
        else:
            for each in rng.integers(len(content), size=rng.integers(1, 6)):
                content[each] = rng.integers(256)
        (out / name).write_bytes(content)
        for read in (read_dump, opened):
            try:
                found = read(out)
            except (ValueError, OSError) as error:
                assert str(out) in str(error)  # noqa: PT017
                refused += 1
            else:
                if isinstance(found, Dump):
                    assert len(found) == 8 and all(map(np.shape, found.arrays.values()))
                else:
                    found.close()
        shutil.rmtree(out / "unfinished", ignore_errors=True)
        (out / name).write_bytes((whole / name).read_bytes())
    return refused
