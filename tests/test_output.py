"""Files that grow: whole at any time, in the place of an older one only at the end."""

import json
import os
import weakref
from pathlib import Path

import numpy as np
import pytest

from data.images import ImageError
from data.reader import Reader
from inference import files
from inference.files import Csv, Json, Results, predict_files
from inference.output import Output
from inference.verdict import UNSURE, Verdict

NAMES = ["a.jpg", "=1+1.jpg", "a\nb: REAL", "\udcbb\udce7.jpg", "사람.jpg", "\x1b[31m.jpg"]


def results(folder: Path) -> Results:
    return Results(None, "toy 123", str(folder / "v.json"), str(folder / "v.csv"))


def test_json_is_valid_after_every_row_and_gives_names_back(tmp_path):
    sink = Json(str(tmp_path / "v.json"), "toy 123")
    for number, name in enumerate(NAMES, 1):
        sink.add(Verdict(name, error="none"))
        rows = json.loads((tmp_path / "v.json.partial").read_text(encoding="utf-8"))
        assert [row["path"] for row in rows] == NAMES[:number]
    sink.close(True)
    rows = json.loads((tmp_path / "v.json").read_text(encoding="utf-8"))
    assert [row["path"] for row in rows] == NAMES and rows[0]["checkpoint"] == "toy 123"
    assert os.listdir(tmp_path) == ["v.json"]  # noqa: PTH208


@pytest.mark.parametrize(
    "error, replaced", [(KeyboardInterrupt, True), (BrokenPipeError, True), (KeyError, False)]
)
def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path, capsys, error, replaced):
    (tmp_path / "v.csv").write_text("old")
    with pytest.raises(error), results(tmp_path) as found:
        found.add(Verdict("a", error="none"))
        assert (tmp_path / "v.csv").read_text() == "old"
        raise error
    assert ((tmp_path / "v.csv").read_text() != "old") == replaced
    assert (tmp_path / "v.csv.partial").exists() != replaced


def test_a_stop_before_the_first_row_changes_nothing(tmp_path):
    (tmp_path / "v.csv").write_text("old")
    with pytest.raises(KeyboardInterrupt), results(tmp_path):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["v.csv"]


@pytest.mark.parametrize("files", [{}, {"json_file": "-"}, {"csv_file": "v.csv"}, {"cards": "c"}])
@pytest.mark.parametrize("rows", [0, 1])
def test_a_stop_speaks_of_files_only_where_there_are_some(
    tmp_path, monkeypatch, caplog, files, rows
):
    monkeypatch.chdir(tmp_path)
    files = files | ({"cards": tmp_path / "c"} if "cards" in files else {})
    with (
        caplog.at_level("INFO", "masc"),
        pytest.raises(KeyboardInterrupt),
        Results(Reader(), "toy", **files) as found,
    ):
        for _ in range(rows):
            found.add(Verdict("a", error="none"))
        raise KeyboardInterrupt
    said = "what was scored until then is in the files" in caplog.text
    assert said == (rows > 0 and "json_file" not in files and bool(files))


def test_rows_of_a_killed_run_are_kept_and_two_writers_refused(tmp_path):
    (tmp_path / "v.csv.partial").write_text("rows")
    sink = Csv(str(tmp_path / "v.csv"), "toy")
    assert (tmp_path / "v.csv.partial-1").read_text() == "rows"
    with pytest.raises(OSError, match="another run"):
        Output(str(tmp_path / "v.csv"))
    sink.close(True)
    assert (tmp_path / "v.csv").read_text().startswith("path,face,p_fake")


def test_a_full_disk_is_named():
    with pytest.raises(OSError, match="/dev/full"):
        Csv("/dev/full", "toy").add(Verdict("a", error="none"))


class Toy:
    """A detector and a reader of pictures of 100 megabytes, none of which is kept."""

    def __init__(self) -> None:
        self.alive, self.most, self.batches = weakref.WeakSet(), 0, []

    def image(self, path: Path) -> np.ndarray:
        if path.name == "bad.png":
            raise ImageError(path, "damaged")
        return np.broadcast_to(np.uint8(0), (10_000, 10_000, 1))

    def look_again(self, faces, path, reader):
        return faces

    def predict_batch(self, images, names):
        self.batches.append(len(images))
        found = [Verdict(name, p_fake=0.1) for name in names]
        for verdict in found:
            self.alive.add(_Held(verdict))
        return [[verdict] for verdict in found]


class _Held:
    def __init__(self, verdict: Verdict) -> None:
        verdict.held = self


def test_batches_end_by_bytes_and_verdicts_are_not_kept(tmp_path):
    toy = Toy()
    paths = [tmp_path / f"{number}.png" for number in range(30)]
    for _verdict in predict_files(toy, [*paths, tmp_path / "bad.png"], 16, toy):
        toy.most = max(toy.most, len(toy.alive))
    assert set(toy.batches) == {3, 0} or set(toy.batches) == {3}
    assert toy.most <= 7


def test_a_file_of_several_names_is_scored_once(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("x")
    os.link(tmp_path / "in" / "a.png", tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "b.png")
    given = [tmp_path, tmp_path / "in", tmp_path / "b.png"]
    toy = Toy()
    assert len(list(predict_files(toy, given, 4, toy))) == 1


def test_a_picture_that_is_gone_costs_its_card_only(tmp_path, capsys, monkeypatch):
    def gone(verdict, *_):
        raise ImageError(Path(verdict.path), "cannot be opened")

    monkeypatch.setattr(files, "write_explanation", gone)
    monkeypatch.setattr(Verdict, "to_text", lambda self: self.path)
    with Results(None, "toy", None, str(tmp_path / "v.csv"), tmp_path / "cards") as found:
        found.add(Verdict("a.png", p_fake=0.1, threshold=0.5, verdict=UNSURE))
    assert not found.complete and found.verdicts.total() == 1
    assert "a.png" in (tmp_path / "v.csv").read_text()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("IMG_1.HEIC", "HEIC is not read; convert it to JPEG or PNG"),
        ("a.jxl", "JPEG XL is not read"),
        ("no_suffix", "neither a picture nor a video of a kind that is read"),
        ("faces.zip", "an archive; unpack it first"),
    ],
)
def test_what_is_not_read_is_named(tmp_path, name, reason):
    for each in (name, "a.png", "labels.csv", "README", "v.json.partial-1"):
        (tmp_path / each).write_text("x")
    toy = Toy()
    found = {Path(v.path).name: v.error for v in predict_files(toy, [tmp_path], 4, toy)}
    assert set(found) == {name, "a.png"} and reason in found[name]
