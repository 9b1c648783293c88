"""Tables as spreadsheets, Windows, pandas and R leave them: read as meant, or refused by line."""

from __future__ import annotations

import logging
import os
import unicodedata
from pathlib import Path

import pandas as pd
import pytest

from data.datasets import find_samples
from data.inventory import survey
from data.samples import Sample
from data.tables import Files, columns_of, label_of, read_table
from evaluate import main

PAIRS = [("real/a.jpg", 0), ("real/b.jpg", 0), ("fake/a.jpg", 1), ("fake/b.jpg", 1)]
SAMPLES = sorted((Sample(path, label) for path, label in PAIRS), key=lambda sample: sample.path)


def lines(separator: str = ",", end: str = "\n", row: str = "{p}{s}{l}", head: str = "") -> str:
    header = head or f"path{separator}label"
    rows = [row.format(p=path, l=label, s=separator) for path, label in PAIRS]
    return end.join([header, *rows]) + end


def dataset(root: Path, content: str | bytes, *names: str) -> Path:
    for name in names or [path for path, _ in PAIRS]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    raw = content if isinstance(content, bytes) else content.encode()
    (root / "index.csv").write_bytes(raw)
    return root


READ = {
    "BOM and semicolons": ("\ufeff" + lines(";", "\r\n")).encode(),
    "tabs": lines("\t"),
    "bars": lines("|"),
    "UTF-16": lines("\t", "\r\n").encode("utf-16"),
    "UTF-16, big end first": ("\ufeff" + lines("\t")).encode("utf-16-be"),
    "UTF-16 without a BOM": lines().encode("utf-16-le"),
    "UTF-16 without a BOM, big end first": lines().encode("utf-16-be"),
    "UTF-32": lines().encode("utf-32"),
    "CR alone": lines(end="\r"),
    "CR CR LF": lines(end="\r\r\n"),
    "no last line end": lines().rstrip("\n"),
    "sep=": "sep=;\n" + lines(";"),
    "quoted sep= behind a BOM": '\ufeff"sep=,"\r\n' + lines(end="\r\n"),
    "sep= a tab": "SEP=\t\n" + lines("\t"),
    "sep= of another separator": "sep=;\n" + lines(","),
    "empty lines": "\n,,\n" + lines() + "\n , \n,\n\n",
    "trailing commas": lines(row="{p},{l},,,", head="path,label,group,,"),
    "more commas than columns": lines(row="{p},{l},,"),
    "a column without a name": "".join(
        f"{i},{line}\n" if i else f",{line}\n" for i, line in enumerate(lines().splitlines())
    ),
    "spaces": lines(row=" {p} , {l} ", head=" Path , Label "),
    "spaces before quotes": lines(row='"{p}", "{l}"', head='"Path", "Label"'),
    "quotes": lines(row='"{p}","{l}"', head='"path","label"'),
    "single quotes": lines(row="'{p}','{l}'", head="'path','label'"),
    "unseen characters of Windows": "\ufeff\ufeff" + lines(row="\u202a{p}\u202c,{l}") + "\x1a",
    "line ends in names of columns": lines(row="{p},{l},x,y", head='path,label,"a\nb",c'),
    "hard spaces": lines(row="{p}\xa0,\xa0{l}"),
    "./": lines(row="./{p},{l}"),
    "other columns": lines(row="{p},x,{l}", head="path,source,label"),
    "another column twice": lines(row="{p},x,{l},y", head="path,score,label,score.1"),
    "quoted line ends": lines(row='{p},"two\nlines, or\r\nthree",{l}', head="path,note,label"),
    "cells that are left out": lines(head="path,label,group,split"),
    "decimal commas": lines(";", row="{p};{l},0"),
    "nothing by R, pandas and spreadsheets": lines(
        row="{p},{l},NA,nan,#N/A", head="path,label,group,split,method"
    ),
    "percent": lines(row="{p},{l}00%").replace("000%", "0%"),
    "backslashes": lines().replace("/", "\\"),
    ".\\": lines(row=".\\{p},{l}").replace("/", "\\"),
    "mixed case": lines(row="{p},{l}").replace("real/a", "Real/A").replace("b.jpg", "B.JPG"),
    "upper case and backslashes": lines().upper().replace("/", "\\"),
}


@pytest.mark.parametrize("name", READ)
def test_is_read(tmp_path: Path, name: str) -> None:
    assert find_samples(dataset(tmp_path, READ[name])) == SAMPLES


@pytest.mark.parametrize("options", [{}, {"sep": ";"}, {"sep": "\t", "encoding": "utf-16"}])
@pytest.mark.parametrize("label", [float, bool, int, str])
def test_what_pandas_writes(tmp_path: Path, options: dict, label: type) -> None:
    table = pd.DataFrame(PAIRS, columns=["path", "label"]).astype({"label": label})
    dataset(tmp_path, "")
    table.to_csv(tmp_path / "index.csv", **options)
    assert find_samples(tmp_path) == SAMPLES


def test_korean(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "path,label,group\n가/사진.jpg,fake,홍길동\nb.jpg,real,\n"
    dataset(tmp_path, text.encode("cp949"), "가/사진.jpg", "b.jpg")
    caplog.set_level(logging.INFO, "masc")
    assert find_samples(tmp_path) == [Sample("b.jpg", 0), Sample("가/사진.jpg", 1, "홍길동")]
    assert [record.getMessage().count("read as CP949") for record in caplog.records] == [1]
    caplog.clear()
    assert find_samples(dataset(tmp_path, text, "b.jpg"))[1].group == "홍길동"
    assert not caplog.records


REFUSED = {
    "separator of spaces": ("path label\nreal/a.jpg real\n", "no column label and no path"),
    "separator of rows": ("path,label\nreal/a.jpg;real\n", "line 2: .*separated by ','"),
    "whole lines in quotes": ('"path,label"\n"real/a.jpg,0"\n', "no column label and no path"),
    "no header": ("real/a.jpg,real\n", r"its first line is 'real/a.jpg,real'"),
    "a title above": ("Table 1\npath,label\nreal/a.jpg,0\n", "its first line is 'Table 1'"),
    "a column twice": ("path,Label,label\nreal/a.jpg,0,1\n", "line 1: has the column label twice"),
    "a column twice, as pandas has it": (
        "path,label,label.1\nreal/a.jpg,0,1\n",
        "label and label.1",
    ),
    "a group twice, as R has it": ("path,label,group,group.2\na,0,,\n", "group and group.2"),
    "a path twice, as polars has it": (
        "path,label,path_duplicated_0\na,0,b\n",
        "path and path_duplicated_0",
    ),
    "names of columns alone": ("path,label\n\n,,\n", "lists no images or videos"),
    "absolute elsewhere": ("path,label\n/etc/real/a.jpg,0\n", "is not one below the folder"),
    "absolute, and out again": ("path,label\n{root}/../a.jpg,0\n", "is not one below the folder"),
    "too many cells": ("path,label\n\nreal/a, b.jpg,real\n", "line 3: has 3 cells for 2 columns"),
    "names of rows by R": ('"path","label"\n"1","real/a.jpg",0\n', "line 2: has 3 cells for 2"),
    "too few cells": ("path,label\r\nreal/a.jpg,0\r\nreal/b.jpg\r\n", "line 3: has 1 cells"),
    "empty path": (",path,label\n0,,0\n", "line 2: path ''"),
    "empty label": ("path,label\nreal/a.jpg,\n", "line 2: label ''"),
    "unclosed quote": ('path,label\nreal/a.jpg,0\n"real/b.jpg,0\n', "line 3: .*not closed"),
    "unclosed quote before others": (
        'path,label\n"real/a.jpg,0\n"real/b.jpg",0\n',
        "line 2: .*not closed",
    ),
    "large value": (
        "path,label,x\nreal/a.jpg,0," + "x" * 131_073,
        "line 2: a value of more than 131,072 characters",
    ),
    "large value in the header": ("path,label," + "x" * 131_073, "131,072 characters"),
    "NUL": ("path,label\rreal/a.jpg,0\rreal/b\0.jpg,0\r", "line 3: has a NUL byte"),
    "Latin 1": ("path,label\nreal/a.jpg,0\nreal/é.jpg,0\n".encode("latin-1"), "line 3: its enc"),
    "half of UTF-16": (lines().encode("utf-16")[:-1], "begins as UTF-16, and goes on"),
    "half of it UTF-8": (
        ("\ufeff" + lines()).encode() + "é,0".encode("latin-1"),
        "begins as UTF-8,",
    ),
    "a spreadsheet": (b"PK\3\4rest", "is a spreadsheet or an archive"),
    "absolute on Windows": ("path,label\nC:\\faces\\a.jpg,0\n", "line 2: path 'C:"),
    "absolute with backslashes": ("path,label\n\\\\server\\a.jpg,0\n", "line 2: path "),
    "out of the folder": ("path,label\n..\\a.jpg,0\n", "line 2: path "),
    "in quotes out of the folder": ("path,label\n'../a.jpg',0\n", "line 2: path "),
    "the same twice": ("path,label\nreal/a.jpg,0\nREAL\\A.JPG,1\n", "twice, in lines 2 and 3"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused(tmp_path: Path, name: str) -> None:
    content, message = REFUSED[name]
    if isinstance(content, str):
        content = content.replace("{root}", str(tmp_path / "set"))
    with pytest.raises(ValueError, match=message) as caught:
        find_samples(dataset(tmp_path / "set", content))
    assert str(tmp_path / "set" / "index.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels() -> None:
    real = ("real", "REAL", " Real", "0", "0.0", "0.", "0,00", "FALSE", "False", "0%", "0.0 %")
    fake = ("fake", "FAKE", '"fake"', "'1'", "1", "1.0", "1,0", "TRUE", "true", "100%", "100.0 %")
    assert {label_of(text) for text in real} == {0}
    assert {label_of(text) for text in fake} == {1}
    other = (
        "",
        "-1",
        "2",
        "0.5",
        "1.01",
        "1%",
        "10%",
        "100",
        "nan",
        "yes",
        "#REF!",
        "re al",
        "real.",
    )
    assert {label_of(text) for text in other} == {None}


# Files.


def test_the_only_file_of_a_name_in_another_case(tmp_path: Path) -> None:
    dataset(tmp_path, "", "Real/a.jpg", "Real/A.jpg", "Real/b.jpg", "real/c.jpg", "real/d.jpg")
    files = Files(tmp_path)
    assert files.find("Real/A.jpg") == "Real/A.jpg"
    assert files.find("Real/A.JPG") is None, "there are two"
    assert files.find("REAL/B.JPG") == "Real/b.jpg"
    assert files.find("Real/c.jpg") == "real/c.jpg"
    assert files.find("real/e.jpg") is None
    assert files.find("Real/a.jpg/x") is None


@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_forms_of_unicode(tmp_path: Path, written: str) -> None:
    """Archives of macOS hold names in the other form."""
    other = {"NFC": "NFD", "NFD": "NFC"}[written]
    on_disk, listed = (unicodedata.normalize(form, "가나/é.jpg") for form in (other, written))
    found = find_samples(dataset(tmp_path, f"path,label\n{listed},1\n", on_disk))
    assert [sample.path for sample in found] == [on_disk]


def test_names_that_are_bytes(tmp_path: Path) -> None:
    name = "사진.jpg".encode("cp949")
    dataset(tmp_path, "path,label\n사진.jpg,1\n".encode("cp949"), os.fsdecode(name))
    assert [os.fsencode(sample.path) for sample in find_samples(tmp_path)] == [name]


def test_names_of_files_that_need_marks(tmp_path: Path) -> None:
    names = ("=1+1.jpg", "'=2.jpg", "-x\\y.jpg", "a@3of9.jpg")
    text = "path,label\n'=1+1.jpg,0\n'=2.jpg,0\n-x\\y.jpg,0\na@3of9.jpg,1\n"
    found = find_samples(dataset(tmp_path, text, *names))
    assert {sample.path for sample in found} == set(names)


def test_frames_of_videos(tmp_path: Path) -> None:
    dataset(tmp_path, "path,label\nX\\A.MP4@3of9,1\nx\\a.mp4,1\n", "x/a.mp4")
    found = find_samples(tmp_path, frames=1)
    assert [sample.path for sample in found] == ["x/a.mp4@0of1", "x/a.mp4@3of9"]


def test_every_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{folder}/{i}.jpg" for folder in ("real", "fake") for i in range(50)]
    dataset(tmp_path, "", *names)
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (listed.append(path), scandir(path))[1])
    files = Files(tmp_path)
    assert [files.find(name.upper().replace("/", "\\")) for name in names] == names
    assert len(listed) == len(set(listed)) < 8


# Files that are not there.


def test_none_is_there(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    dataset(tmp_path, lines(row="faces/{p},{l}"))
    with pytest.raises(ValueError, match="none of the 4 files .*'faces/real/a.jpg'.*index.csv"):
        find_samples(tmp_path)
    assert main(["inventory", str(tmp_path)]) == 2
    assert "none of the 4 files" in capsys.readouterr().out


def test_some_are_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset(tmp_path, lines(), "real/a.jpg", "fake/b.jpg")
    assert find_samples(tmp_path) == SAMPLES, "the others become failures"
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "only 2 of the 4 files" in record.getMessage()
    assert "'real/b.jpg'" in record.getMessage()
    assert survey(tmp_path).missing == ["fake/a.jpg", "real/b.jpg"]
    assert main(["inventory", str(tmp_path)]) == 0


def test_none_is_there_of_those_below_the_folder(tmp_path: Path) -> None:
    dataset(tmp_path, "path,label\none/a.jpg,0\ntwo/b.jpg,1\n", "one/x.jpg", "two/b.jpg")
    index = tmp_path / "index.csv"
    assert find_samples(tmp_path / "two", index) == [Sample("b.jpg", 1)]
    with pytest.raises(ValueError, match="none of the 1 files"):
        find_samples(tmp_path / "one", index)


# Other tables.


def test_labels_of_dfdc_without_a_row_or_with_a_column_twice(tmp_path: Path) -> None:
    dataset(tmp_path, b"", "test/a.mp4", "validation/b.mp4")
    (tmp_path / "index.csv").unlink()
    (tmp_path / "validation" / "labels.csv").write_text("filename,label\nb.mp4,1\n")
    for text, message in (("", "no rows"), ("a.mp4,0\n", "label and label.1")):
        head = "filename,label" + ",label.1" * bool(text)
        (tmp_path / "test" / "labels.csv").write_text(f"{head}\n{text}")
        with pytest.raises(ValueError, match=f"labels.csv: .*{message}"):
            find_samples(tmp_path, layout="dfdc")


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffFilename; Label\r\na.mp4;0.0\r\nb.mp4;1.0\r\n".encode(),
        "filename\tlabel\na.mp4\tREAL\nb.mp4\tFAKE\n".encode("utf-16"),
        b",filename,label\r0,a.mp4,False\r1,b.mp4,True\r,,\r",
        b"sep=,\nfilename,label,\na.mp4,0,\nb.mp4,1,\n",
    ],
)
def test_labels_of_dfdc(tmp_path: Path, content: bytes) -> None:
    dataset(tmp_path, b"", "test/a.mp4", "test/b.mp4")
    (tmp_path / "index.csv").unlink()
    (tmp_path / "test" / "labels.csv").write_bytes(content)
    found = find_samples(tmp_path, frames=1)
    assert {sample.video: sample.label for sample in found} == {"test/a.mp4": 0, "test/b.mp4": 1}


def test_columns_of_any_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in (b"", b"\xff\xfe,label\n", b"\0" * 9, b'"' * 9000, bytes(range(256)) * 99):
        path.write_bytes(content)
        assert columns_of(path) != ["filename", "label"]


def test_rows_have_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('path,label,note\n\na,0,"1\n2"\nb,1\n')
    rows = [(3, {"path": "a", "label": "0", "note": "1\n2"}), (5, {"path": "b", "label": "1"})]
    assert list(read_table(path)) == rows
