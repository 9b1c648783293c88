"""Files that are whole or not there: two writers at once, errors, and what the error names."""

from __future__ import annotations

import csv
import errno
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data.files import csv_line, replacing


def test_two_writers_do_not_tear_a_file(tmp_path):
    path = tmp_path / "x.json"

    def write(letter):
        with replacing(path) as file:
            for _ in range(50):
                file.write(letter * 1000)
                file.flush()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, [b"1", b"2", b"3", b"4"] * 20))
    content = path.read_bytes()
    assert content == content[:1] * 50_000
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("error", [ValueError("a"), KeyboardInterrupt(), OSError(errno.EIO, "b")])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "x.json"
    path.write_bytes(b"old")
    with pytest.raises(type(error)), replacing(path) as file:
        file.write(b"new")
        raise error
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_the_error_names_the_file(tmp_path):
    with pytest.raises(OSError, match="x.json") as caught, replacing(tmp_path / "x.json"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "the disk is full" in str(caught.value)
    with (
        pytest.raises(OSError, match="nowhere/x.json'") as caught,
        replacing(tmp_path / "nowhere" / "x.json"),
    ):
        pass
    assert Path(caught.value.filename) == tmp_path / "nowhere" / "x.json"


@pytest.mark.parametrize("name", ["a\rb.jpg", "a\r\nb", "a\nb", 'a"b', "a,b"])
def test_a_row_is_one_row_for_every_reader(name):
    line = csv_line([name, "c"])
    assert list(csv.reader(io.StringIO(line, newline=""))) == [[name, "c"]]


def test_a_carriage_return_is_quoted():
    assert csv_line(["a\rb", "c"]) == '"a\rb","c"\n'
