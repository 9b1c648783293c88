"""The columns person and donor of dumps, also of those that an earlier version wrote."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from data.cutting import samples_of
from data.dump import COLUMNS, EARLIER, IDENTITY, Dump, read_dump
from data.feature_dataset import join_dumps
from data.samples import PEOPLE, Sample
from features.regions import REGIONS
from tests.toy_dumps import (
    BOTH,
    SAMPLES,
    contents,
    find_all,
    make,
    meta_of,
    opened,
    write_faces,
    write_outputs,
)

KNOWN = [
    replace(sample, person=f"p{i % 5}", donor=f"p{i % 5 + 1}" * sample.label)
    for i, sample in enumerate(SAMPLES)
]


def test_a_person_is_in_one_split(tmp_path: Path) -> None:
    samples = [
        replace(sample, group=f"p{i % 5}", person=f"p{i % 5}") for i, sample in enumerate(SAMPLES)
    ]
    rows = make(tmp_path, samples=samples).rows
    splits = {*zip(rows["person"].tolist(), rows["split"].tolist(), strict=True)}
    assert len(splits) == len({*rows["person"].tolist()}) == 3  # two have no face


def without_people(folder: Path) -> None:
    """The dump as earlier versions wrote it."""
    path = folder / "index.csv"
    with path.open(newline="") as file:
        rows = [*csv.DictReader(file)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, EARLIER, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def people_of(dump: Dump) -> list[set[str]]:
    return [{*dump.rows[name].tolist()} for name in PEOPLE]


def test_a_dump_keeps_people(tmp_path: Path) -> None:
    dump = make(tmp_path, samples=KNOWN)
    assert [*COLUMNS][:9] == [*IDENTITY[:-1], *PEOPLE]
    assert (tmp_path / "index.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    kept = {sample.path: (sample.person, sample.donor) for sample in samples_of(dump)}
    assert kept == {s.path: (s.person, s.donor) for s in KNOWN if s.path in kept} and len(kept) == 6
    with pytest.raises(ValueError, match="or other labels, groups, splits or people"):
        make(tmp_path, samples=[replace(KNOWN[0], donor="p4"), *KNOWN[1:]])


def test_an_earlier_dump_is_read_with_the_same_digest(tmp_path: Path) -> None:
    digest = make(tmp_path).digest
    without_people(tmp_path)
    dump = read_dump(tmp_path)
    assert [*dump.rows] == [*COLUMNS] and people_of(dump) == [{""}, {""}]
    assert dump.digest == digest
    assert make(tmp_path).digest == digest  # finished, so left as it is


# As computed before there were people, from tests/toy_dumps.py.
BEFORE = "58578ca8791d8ce88bfc1ceb2cb9250f29478f09dc2824b2143c6cb21f54b909"


def test_the_digest_is_that_of_earlier_versions(tmp_path: Path) -> None:
    assert make(tmp_path).digest == BEFORE


@pytest.mark.parametrize("column", PEOPLE)
def test_the_digest_tells_people(tmp_path: Path, column: str) -> None:
    dump = make(tmp_path, samples=KNOWN)
    digests = {make(tmp_path / "nobody").digest, dump.digest}
    dump.rows[column][0] = "p4"
    digests.add(dump.digest)
    dump.rows[column][:] = ""
    digests.add(dump.digest)
    assert len(digests) == 4


def test_a_face_without_rows(tmp_path: Path) -> None:
    dump = make(tmp_path, samples=[Sample("real/03.jpg", 0, person="p")])
    assert len(dump) == 0 and people_of(dump) == [set(), set()]


@pytest.mark.parametrize("samples", [SAMPLES, KNOWN])
def test_an_expert_is_added_to_an_earlier_dump(
    tmp_path: Path, samples: list[Sample], caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, experts=("lite",))
    without_people(tmp_path)
    with caplog.at_level(logging.WARNING, "masc"):
        dump = make(tmp_path, experts=BOTH, samples=samples)
    assert ("goes on without them; use --overwrite" in caplog.text) == (samples is KNOWN)
    assert people_of(dump) == [{""}, {""}] and [*dump.meta["weights"]] == [*BOTH]
    make(tmp_path / "whole")
    without_people(tmp_path / "whole")
    assert dump.digest == read_dump(tmp_path / "whole").digest == BEFORE
    again = make(tmp_path, experts=BOTH, samples=KNOWN, overwrite=True)
    assert "p0" in again.rows["person"] and again.digest != BEFORE


def earlier_shards(folder: Path) -> None:
    for path in folder.glob("unfinished/faces-*.json"):
        shard = json.loads(path.read_bytes())
        kept = [list(COLUMNS).index(name) for name in EARLIER]
        shard["rows"] = [[row[i] for i in kept] for row in shard["rows"]]
        path.write_text(json.dumps(shard))


def begun(folder: Path, change: Callable[[Path], None], whole: bool) -> None:
    """A dump that an earlier version left unfinished. whole: all its faces were found."""
    with opened(folder) as writer:
        for number, samples in writer.pending_faces()[: None if whole else 2]:
            write_faces(writer, number, samples)
        if whole:
            writer.finish_faces()
            write_outputs(writer, *writer.pending()[0])
    change(folder)


def test_an_earlier_unfinished_dump_goes_on(tmp_path: Path) -> None:
    begun(tmp_path / "begun", earlier_shards, whole=False)
    make(tmp_path / "begun")
    make(tmp_path / "new")
    assert contents(tmp_path / "begun") == contents(tmp_path / "new")


def test_an_earlier_unfinished_dump_is_refused_where_people_are_known(tmp_path: Path) -> None:
    begun(tmp_path, earlier_shards, whole=False)
    with pytest.raises(ValueError, match=r"splits or people\nUse --overwrite"):
        make(tmp_path, samples=KNOWN)
    assert "p0" in make(tmp_path, samples=KNOWN, overwrite=True).rows["person"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_earlier_dump_with_all_faces_goes_on_without_people(
    tmp_path: Path, overwrite: bool
) -> None:
    begun(tmp_path, without_people, whole=True)
    with opened(tmp_path, samples=KNOWN, overwrite=overwrite) as writer:
        assert writer.faces_found != overwrite
        find_all(writer)
        for number, samples in writer.pending():
            write_outputs(writer, number, samples)
        dump = writer.finish(meta_of(writer, BOTH))
    assert ("p0" in dump.rows["person"]) == overwrite
    assert (dump.digest == BEFORE) != overwrite


def test_joined_people_are_of_their_dataset(tmp_path: Path) -> None:
    dumps = [make(tmp_path / name, samples=s) for name, s in (("a", KNOWN), ("b", SAMPLES))]
    for name, dump in zip("ab", dumps, strict=True):
        dump.meta |= {"dataset": name, "regions": list(REGIONS)}
    rows = join_dumps(dumps).rows
    first = rows["dataset"] == "a"
    for column in PEOPLE:
        given = dumps[0].rows[column].tolist()
        assert rows[column][first].tolist() == [f"a/{name}" if name else "" for name in given]
        assert set(rows[column][~first]) == {""}
    assert set(rows["donor"][first & (rows["label"] == 0)]) == {""}
