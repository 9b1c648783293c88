"""Preprocessing that was killed or stopped, and experts added to a dump: the same bytes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import preprocessing_pipeline
from command_line import MOMENT
from data import store
from data.cutting import CHANGED
from data.dump import read_dump
from data.faces import FaceCutter
from data.store import DumpWriter
from models.region_net import RegionExpert
from preprocessing_pipeline import cli, main
from tests.toy_dumps import contents
from tests.toy_pictures import arguments, configured, write_pictures, write_weights

SCRIPT = Path(preprocessing_pipeline.__file__)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, astronaut) -> Path:
    return write_pictures(tmp_path_factory.mktemp("somewhere") / "toy set", astronaut)


@pytest.fixture(scope="module")
def whole(dataset, weights, tmp_path_factory) -> Path:
    return main(configured(dataset, weights, tmp_path_factory.mktemp("whole") / "dump"))


@pytest.fixture(scope="module")
def both(dataset, weights, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("both") / "dump"
    return main(configured(dataset, weights, out, "lite", "traces"))


# Killed, stopped, and out of space.


def test_killed_and_started_again_it_ends_with_the_same_bytes(dataset, weights, both, tmp_path):
    """At every instant: tests/test_store.py."""
    out = tmp_path / "dump"
    options = arguments(configured(dataset, weights, out, "lite", "traces"))
    command = [sys.executable, str(SCRIPT), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        until = time.monotonic() + 300
        while not list(out.glob("unfinished/lite-*0.safetensors")) and run.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
        run.communicate()
    assert run.returncode == -signal.SIGKILL and not (out / "meta.json").exists()
    assert cli(options) == 0
    assert contents(out) == contents(both)


def test_ctrl_c_again_and_again_is_one_stop(dataset, weights, whole, tmp_path):
    """Also while the process ends: its threads finish their batches first."""
    options = arguments(configured(dataset, weights, out := tmp_path / "dump"))
    command = [sys.executable, str(SCRIPT), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        until = time.monotonic() + 300
        while not list(out.glob("unfinished/faces-*.json")) and run.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.005)
        until = time.monotonic() + MOMENT - 1  # later ones count anew
        while run.poll() is None and time.monotonic() < until:
            run.send_signal(signal.SIGINT)
            time.sleep(0.02)
        printed = run.stderr.read()
    assert run.returncode == 130, printed
    assert "run the same command again" in printed
    assert "Traceback" not in printed and "terminate" not in printed
    assert cli(options) == 0
    assert contents(out) == contents(whole)


@pytest.mark.parametrize("stage", ["write_faces", "write_outputs"])
def test_ctrl_c_says_how_to_go_on(dataset, weights, whole, tmp_path, monkeypatch, capsys, stage):
    config = configured(dataset, weights, tmp_path)
    write = getattr(DumpWriter, stage)

    def stop_at_the_second(self: DumpWriter, number: int, *rest: object) -> None:
        if number == 1:
            raise KeyboardInterrupt
        write(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(DumpWriter, stage, stop_at_the_second)
        assert cli(arguments(config)) == 130
    assert "run the same command again" in capsys.readouterr().err
    assert cli(arguments(config)) == 0
    printed = capsys.readouterr().err
    found = 4 if stage == "write_faces" else 14
    assert f"the faces of {found} of 14 images are found" in printed
    assert "12 of 12 images" in printed and "images/s" in printed
    kept = "kept 12 of 14 images (12 faces: 6 real, 6 fake), no face 1, unreadable 1"
    assert kept in printed
    assert contents(tmp_path) == contents(whole)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a file on a full disk")
def test_a_full_disk_says_how_to_go_on(dataset, weights, whole, tmp_path, monkeypatch, capsys):
    config = configured(dataset, weights, tmp_path)
    write_faces = DumpWriter.write_faces

    def fill_the_disk(self: DumpWriter, number: int, *rest: object) -> None:
        if number == 2:
            (self.unfinished / "faces-000002.json.partial").symlink_to("/dev/full")
        write_faces(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(DumpWriter, "write_faces", fill_the_disk)
        assert cli(arguments(config)) == 1
    message = capsys.readouterr().err
    assert "disk is full" in message and "faces-000002.json" in message
    assert "Traceback" not in message
    assert cli(arguments(config)) == 0
    assert contents(tmp_path) == contents(whole)


# Adding experts.


def test_an_expert_added_later_gives_the_same_bytes_and_the_others_are_not_computed_again(
    dataset, weights, whole, both, tmp_path, monkeypatch, capsys
):
    out = shutil.copytree(whole, tmp_path / "dump")
    monkeypatch.setattr(RegionExpert, "forward", lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr(FaceCutter, "__call__", lambda *_: pytest.fail("found again"))
    assert cli(arguments(configured(dataset, weights, out), "--experts", "lite", "traces")) == 0
    assert "adding traces to lite" in capsys.readouterr().err
    assert contents(out) == contents(both)
    assert main(configured(dataset, weights, out, "traces")) == out
    assert contents(out) == contents(both)


def test_stopped_while_an_expert_is_added_the_dump_is_whole(
    dataset, weights, whole, both, tmp_path, monkeypatch
):
    out = shutil.copytree(whole, tmp_path / "dump")
    with monkeypatch.context() as patch:
        patch.setattr(DumpWriter, "finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(configured(dataset, weights, out, "traces"))
    assert set(read_dump(out).meta["weights"]) == {"lite"}
    main(configured(dataset, weights, out, "traces"))
    assert contents(out) == contents(both)


def test_a_picture_that_changes_between_the_passes_costs_only_the_new_outputs(
    dataset, weights, whole, both, tmp_path, capsys, monkeypatch
):
    root = shutil.copytree(dataset, tmp_path / "faces")
    out = shutil.copytree(whole, tmp_path / "dump")
    fill = preprocessing_pipeline.fill_outputs
    monkeypatch.setattr(
        preprocessing_pipeline, "fill_outputs", lambda *args: (spoil(), fill(*args))
    )

    def spoil() -> None:
        flipped = cv2.imread(str(root / "real" / "1.jpg"))[:, ::-1]
        cv2.imwrite(str(root / "real" / "1.jpg"), flipped)
        (root / "real" / "2.jpg").write_bytes(b"")

    config = configured(root, weights, out, "traces")
    with pytest.raises(ValueError, match="2 of 12 faces have no usable picture any more"):
        main(config)
    with pytest.raises(ValueError, match="made from other pictures: 2 of 14 files.*real/1.jpg"):
        main(config)
    assert set(read_dump(out).meta["weights"]) == {"lite"}
    shutil.copytree(dataset, root, dirs_exist_ok=True)
    monkeypatch.setattr(store, "SPOILED", 0.5)
    assert cli(arguments(config)) == 0
    dump = read_dump(out)
    assert dump.missing == [
        ("real/1.jpg", 0, "traces", CHANGED),
        ("real/2.jpg", 0, "traces", "an empty file"),
    ]
    assert "2 faces have no output of traces" in capsys.readouterr().err
    lost = np.isin(dump.rows["path"], ["real/1.jpg", "real/2.jpg"])
    for name, array in read_dump(both).arrays.items():
        kept = ~lost if name.startswith("traces") else np.full(12, True)
        assert np.isnan(dump.arrays[name]).all((1, 2)).tolist() == (~kept).tolist()
        if name.startswith("lite"):
            assert np.array_equal(dump.arrays[name], array)


def test_tf32_is_float32_on_a_cpu(dataset, weights, tmp_path):
    def made(name: str, **settings) -> dict:
        dump = read_dump(
            main(configured(dataset, weights, tmp_path / name, "lite", limit=2, **settings))
        )
        assert dump.meta["config"]["precision"] == settings.get("precision", "float32")
        return dump.arrays

    plain = made("plain")
    for name, value in made("tf32", precision="tf32").items():
        assert np.array_equal(value, plain[name])


def test_a_dump_keeps_its_precision(dataset, weights, tmp_path):
    out = main(configured(dataset, weights, tmp_path / "dump", precision="bfloat16", limit=2))
    before = contents(out)
    main(configured(dataset, weights, out, limit=2))
    assert contents(out) == before
    dump = read_dump(main(configured(dataset, weights, out, "traces", limit=2)))
    assert dump.meta["config"]["precision"] == "bfloat16"
