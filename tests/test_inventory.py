"""The inventory of what is no dataset, or a poor one. Of published ones: test_layouts*.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.inventory import survey
from data.samples import FRAMES
from tests import miniatures
from tests.miniatures import inventory, pictures

# The inventory of what is no dataset, or a poor one.


def test_inventory_of_nothing(tmp_path: Path) -> None:
    text = inventory(tmp_path)
    assert "cannot be used as it is" in text
    assert "nothing in it says what is real" in text
    assert "files: none" in text
    miniatures.celeb_df(tmp_path / "b")
    pictures(tmp_path / "a")
    text = inventory(tmp_path)
    assert "files: 12 .mp4, 3 .png, 1 .txt" in text
    assert "folders: a, b" in text
    assert f"{tmp_path}/b looks like celeb-df" in text
    with pytest.raises(FileNotFoundError, match="no such folder"):
        inventory(tmp_path / "none")


def test_inventory_of_plain_folders(tmp_path: Path) -> None:
    for split in ("train", "test"):
        pictures(tmp_path / split / "real")
    pictures(tmp_path / "train/fake", range(40))
    pictures(tmp_path / "test/other", (1, 2))
    (tmp_path / "train/fake/x.mp4").touch()
    found = survey(tmp_path)
    assert [(row.split, row.label, row.videos, row.frames) for row in found.counts] == [
        ("train", 0, 0, 3),
        ("train", 1, 1, 40 + FRAMES),
        ("test", 0, 0, 3),
    ]
    assert found.empty == ["train/fake/x.mp4"]
    text = inventory(tmp_path)
    assert "one class: test is all real" in text
    assert "passed over: 2 other pictures and videos, by folder\n  test/other: 2" in text


def test_inventory_of_the_research_images(shared_data: Path) -> None:
    found = survey(shared_data / "dfdc")
    assert (found.layout, found.missing, found.over.total()) == ("plain", [], 0)
    assert sum(row.frames for row in found.counts) == 5000


def test_names_are_safe_to_print(tmp_path: Path) -> None:
    name = "\udcb0\x1b[2J\nfake: all"
    for label in ("real", "fake"):
        pictures(tmp_path / label / name / "000")
        pictures(tmp_path / label / name / "001")
        (tmp_path / label / f"{name}.heic").touch()
        (tmp_path / label / f"{name}.mp4").touch()
    pictures(tmp_path / name)
    text = inventory(tmp_path)
    assert "\nfake: all" not in text and "\x1b" not in text and "\\xb0" in text
    text.encode()
    assert "\x1b" not in inventory(tmp_path / "real")
