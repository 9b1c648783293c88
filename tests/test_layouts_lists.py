"""Lists of datasets: those that lie one folder down, lead elsewhere, or name what is not there."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data.datasets import find_samples
from data.layouts.tree import peek_json, read_json
from evaluate import main
from tests import miniatures
from tests.miniatures import inventory, listed, pictures

KINDS: dict[str, Callable[[Path], object]] = {
    "faceforensics": miniatures.faceforensics,
    "dfd": miniatures.dfd,
    "celeb-df": miniatures.celeb_df,
    "dfdc-preview": miniatures.dfdc_preview,
    "wilddeepfake": miniatures.wilddeepfake,
    "df40": miniatures.df40,
    "plain": lambda root: pictures(pictures(root / "real").parent / "fake"),
}


# One folder down.


@pytest.mark.parametrize("kind", KINDS)
def test_a_dataset_one_folder_down_is_named(tmp_path: Path, kind: str) -> None:
    KINDS[kind](tmp_path / "set")
    pictures(tmp_path / "others")
    hint = f"{tmp_path}/set looks like {kind}: give that folder"
    with pytest.raises(ValueError, match="nothing in it says") as caught:
        find_samples(tmp_path)
    assert hint in str(caught.value) and "others looks" not in str(caught.value)
    assert hint in inventory(tmp_path)


@pytest.mark.parametrize("place", ["dataset_json", "preprocessing/dataset_json", "lists"])
def test_lists_of_deepfakebench_one_folder_down(tmp_path: Path, place: str) -> None:
    path = miniatures.deepfakebench(tmp_path)
    (tmp_path / place).mkdir(parents=True)
    moved = shutil.move(path, tmp_path / place / path.name)
    with pytest.raises(ValueError, match=f"{place} has lists of DeepfakeBench") as caught:
        find_samples(tmp_path)
    command = re.search(r"python preprocessing_pipeline.py (.*)", str(caught.value))
    _, root, _, index = shlex.split(command[1])
    assert (root, index) == (str(tmp_path), str(moved))
    assert len(find_samples(Path(root), Path(index), compression="c23")) == 48
    assert f"--index {moved}" in inventory(tmp_path)


# Lists that cannot be used.


def nested(depth: int = 100_000) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    "text", [nested(), '{"a": ' * 9000 + "1" + "}" * 9000, f'{{"a": {nested()}}}']
)
@pytest.mark.parametrize("name", ["metadata.json", "dataset.json", "x.json", "train.json"])
def test_deeply_nested_lists(tmp_path: Path, name: str, text: str) -> None:
    for label in ("real", "fake"):
        pictures(tmp_path / label)
    (tmp_path / name).write_text(text)
    (tmp_path / "real" / name).write_text(text)
    assert len(find_samples(tmp_path)) == 6
    assert peek_json(tmp_path / name) == {}
    with pytest.raises(ValueError, match=f"{name}: cannot be read .nested too deeply"):
        read_json(tmp_path / name)
    miniatures.faceforensics(tmp_path / "ff")
    (tmp_path / "ff/train.json").write_text(text)
    with pytest.raises(ValueError, match="train.json: cannot be read .nested too deeply"):
        find_samples(tmp_path / "ff")


@pytest.mark.parametrize("name", ["metadata.json", "dataset.json", "x.json"])
def test_a_pipe_called_like_a_list_is_not_waited_for(tmp_path: Path, name: str) -> None:
    for label in ("real", "fake"):
        pictures(tmp_path / label)
    os.mkfifo(tmp_path / name)
    assert len(find_samples(tmp_path)) == 6


def wrong(value: object) -> list[object]:
    return [value, [value], {"a": value}]


ODD = [2, -1, 1.5, "maybe", True and "yes", *wrong([[[1]]]), json.loads("[" * 900 + "]" * 900)]


@pytest.mark.parametrize("label", ODD, ids=range(len(ODD)))
def test_labels_that_are_none(tmp_path: Path, label: object) -> None:
    root = miniatures.dfdc_part(tmp_path / "dfdc", {"aaaa": None})
    listed(root / "metadata.json", {"aaaa.mp4": {"label": label}})
    with pytest.raises(ValueError, match=r"metadata.json: aaaa.mp4: expected a label REAL or FAKE"):
        find_samples(root)
    root = miniatures.dfdc_preview(tmp_path / "preview")
    entries = json.loads((root / "dataset.json").read_text())
    entries[next(iter(entries))]["label"] = label
    listed(root / "dataset.json", entries)
    with pytest.raises(ValueError, match="expected a label real or fake"):
        find_samples(root)
    if not isinstance(label, str):  # a name of a label may be any
        pictures(tmp_path / "bench/a")
        entry = miniatures.bench_entry("x_real", "a") | {"label": label}
        listed(tmp_path / "bench/x.json", {"x": {"x_real": {"test": {"a": entry}}}})
        with pytest.raises(ValueError, match="x.json: x/x_real/test/a: label"):
            find_samples(tmp_path / "bench")


@pytest.mark.parametrize(
    ("label", "good"), [(0, True), ("0", True), ("real", True), (1, False), ("fake", False)]
)
def test_numbers_as_labels_of_deepfakebench(tmp_path: Path, label: object, good: bool) -> None:
    pictures(tmp_path / "a")
    entry = miniatures.bench_entry("x_real", "a") | {"label": label}
    listed(tmp_path / "x.json", {"x": {"x_real": {"test": {"a": entry}}}})
    if good:
        assert {sample.label for sample in find_samples(tmp_path)} == {0}
    else:
        with pytest.raises(ValueError, match="contradicts 'x_real'"):
            find_samples(tmp_path)


@pytest.mark.parametrize("name", ["../aaaa.mp4", "/etc/aaaa.mp4", "b/../../aaaa.mp4", ".."])
def test_names_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    root = miniatures.dfdc_part(tmp_path / "dfdc", {"aaaa": None})
    listed(root / "metadata.json", {name: {"label": "REAL"}})
    with pytest.raises(
        ValueError, match=f"metadata.json: '{name}' is no name of a video beside it"
    ):
        find_samples(root)
    root = miniatures.dfdc(tmp_path / "whole")
    (root / "test/labels.csv").write_text(f"filename,label\n{name},0\n")
    with pytest.raises(ValueError, match=f"labels.csv: '{name}' is no name of a video"):
        find_samples(root)
    root = miniatures.dfdc_preview(tmp_path / "preview")
    listed(root / "dataset.json", {name: {"label": "real", "set": "train"}})
    with pytest.raises(ValueError, match=f"dataset.json: '{name}' leads out of its folder"):
        find_samples(root)


def test_frames_that_lead_elsewhere_are_told(tmp_path: Path) -> None:
    pictures(tmp_path / "secret")
    pictures(tmp_path / "root/good")
    table = {
        n: miniatures.bench_entry("x_real", p)
        for n, p in (("a", "good"), ("b", "good/../../secret"))
    }
    table["c"] = {"label": "x_real", "frames": ["good/008.png", [["good/009.png"]]]}
    listed(tmp_path / "root/x.json", {"x": {"x_real": {"test": table}}})
    assert len(find_samples(tmp_path / "root")) == 3
    text = inventory(tmp_path / "root")
    assert "3 of them lead out of" in text and "x_real/test/c" in text


# Files that are not there.


@pytest.mark.parametrize("path", ["a\\\\b.jpg", "sub/b.jpg", "ä.png", "clip.mp4"])
def test_nothing_of_an_index_is_there(
    tmp_path: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "index.csv").write_text(f"path,label\n{path},real\nother.png,fake\n")
    with pytest.raises(
        ValueError, match="none of the 2 files that it lists can be found; missing is "
    ):
        find_samples(tmp_path)
    assert main(["inventory", str(tmp_path)]) == 2
    assert "none of the 2 files" in capsys.readouterr().out


def test_some_of_an_index_is_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures(tmp_path / "a")
    lines = [f"a/{number:03d}.png,real" for number in (7, 8, 9, 10, 11)]
    (tmp_path / "index.csv").write_text("\n".join(["path,label", *lines]))
    with caplog.at_level(logging.WARNING):
        assert len(find_samples(tmp_path)) == 5
    assert "only 3 of the 5 files" in caplog.text and "a/007.png" in caplog.text
    assert "missing: 2 named" in inventory(tmp_path)


def test_nothing_of_an_official_list_is_there(tmp_path: Path) -> None:
    root = miniatures.dfdc_part(tmp_path, {"aaaa": None, "bbbb": "aaaa"})
    for path in root.glob("*.mp4"):
        path.unlink()
    with pytest.raises(ValueError, match="none of its videos or frames is there, such as aaaa.mp4"):
        find_samples(root)
