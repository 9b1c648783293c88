"""From a folder of pictures to a dump."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data import filling
from data.cutting import KnownFaces, cut_known
from data.datasets import find_samples
from data.dump import NO_FACE, landmarks_of, read_dump
from data.faces import FaceCutter
from data.images import ImageError
from data.loading import load
from data.samples import even_subsample
from data.stack import Stack
from features.regions import REGIONS
from models.ensemble import Ensemble
from preprocessing_pipeline import cli, main
from tests.toy_dumps import contents
from tests.toy_pictures import arguments, configured, write_pictures, write_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, astronaut) -> Path:
    return write_pictures(tmp_path_factory.mktemp("somewhere") / "toy set", astronaut)


@pytest.fixture(scope="module")
def whole(dataset, weights, tmp_path_factory) -> Path:
    return main(configured(dataset, weights, tmp_path_factory.mktemp("whole") / "dump"))


def test_the_dump_holds_every_face_and_why_others_are_missing(dataset, weights, whole):
    dump = read_dump(whole)
    counts = {"images": 14, "kept": 12, "faces": 12, "real": 6, "fake": 6}
    assert dump.meta["counts"] == {**counts, "no_face": 1, "unreadable": 1}
    assert [path for path, _ in dump.failures] == ["fake/stripes.png", "real/empty.jpg"]
    assert dump.failures[0][1] == NO_FACE and "empty" in dump.failures[1][1]
    assert dump.meta["dataset"] == "toy set" and dump.meta["data_root"] == str(dataset.resolve())
    assert dump.meta["weights"] == Ensemble(["lite"], weights_dir=weights).weights
    shapes = {name: array.shape for name, array in dump.arrays.items()}
    sizes = {"lite.identity": 16, "lite.age": 9, "lite.age_years": 1}
    assert shapes == {name: (12, len(REGIONS), size) for name, size in sizes.items()}
    assert np.allclose(dump.arrays["lite.age"].astype(np.float32).sum(-1), 1, atol=5e-3)
    rows = dump.rows
    assert set(rows["split"]) <= {"train", "val", "test"} and "" not in rows["group"]
    assert (rows["width"] == 240).all()
    assert rows["file_bytes"][0] == (dataset / rows["path"][0]).stat().st_size
    inside = (rows["x0"] < rows["lx0"]) & (rows["lx0"] < rows["lx1"]) & (rows["lx1"] < rows["x1"])
    assert inside.all() and (rows["score"] > 0.9).all()


def test_crops_cut_from_the_dump_are_those_of_the_cutter(dataset, weights, whole):
    dump = read_dump(whole)
    ensemble = Ensemble(["lite", "traces"], weights_dir=weights)
    samples = [s for s in find_samples(dataset) if s.path in dump.rows["path"]]
    batch = [(sample, load(dataset / sample.path, 10**8)) for sample in samples]
    rows, views, failures = cut_known(batch, KnownFaces(dump.rows), ensemble.crops.values())
    found = FaceCutter(crops=ensemble.crops.values())([picture.image for _, picture in batch])
    assert rows.tolist() == list(range(12)) and not failures
    for crop, view in views.items():
        assert torch.equal(view, found.views[crop])


def test_rows_and_outputs_belong_together(dataset, weights, whole, tmp_path):
    """The same picture alone gives the same row and the same outputs as among others."""
    dump = read_dump(whole)
    path = dump.rows["path"][7]
    (alone := tmp_path / "alone" / "real").mkdir(parents=True)
    shutil.copy(dataset / path, alone)
    one = read_dump(main(configured(alone.parent, weights, tmp_path / "one")))
    assert one.rows["phash"][0] == dump.rows["phash"][7]
    assert one.rows["x0"][0] == pytest.approx(dump.rows["x0"][7], abs=0.1)
    identity = dump.arrays["lite.identity"].astype(np.float32)
    differences = np.abs(identity - one.arrays["lite.identity"]).max((1, 2))
    assert differences.argmin() == 7 and differences[7] < 2e-3


def test_batches_change_nothing_but_rounding(dataset, weights, whole, tmp_path):
    other = configured(dataset, weights, tmp_path, batch_size=5, shard_size=7)
    first, second = read_dump(whole), read_dump(main(other))
    assert (whole / "index.csv").read_bytes() == (tmp_path / "index.csv").read_bytes()
    assert first.failures == second.failures and first.meta == second.meta
    for name, array in first.arrays.items():
        scale = 100 if name == "lite.age_years" else 1
        assert np.allclose(array.astype(np.float32), second.arrays[name], atol=1e-3 * scale)


def test_threads_change_nothing(dataset, weights, whole, tmp_path):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        other = main(configured(dataset, weights, tmp_path, workers=5))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert contents(other) == contents(whole)


def test_batches_are_no_larger_than_asked_and_operations_use_one_thread(
    dataset, weights, tmp_path, monkeypatch
):
    find, seen = filling.find_faces, []

    def noting(batch: list, *rest: object) -> tuple:
        seen.append((len(batch), torch.get_num_threads()))
        return find(batch, *rest)

    monkeypatch.setattr(filling, "find_faces", noting)
    main(configured(dataset, weights, tmp_path, batch_size=3))
    assert sorted(seen) == [(1, 1)] * 3 + [(2, 1)] + [(3, 1)] * 3


def test_stacks_change_nothing_but_rounding(dataset, weights, whole, tmp_path, monkeypatch):
    """As on a GPU: processes decode, faces are found and cut in stacks, one thread infers."""
    threads, start = set(), Ensemble.start

    def noting(self, views):
        threads.add(threading.get_ident())
        return start(self, views)

    monkeypatch.setattr(Ensemble, "start", noting)
    monkeypatch.setattr("preprocessing_pipeline.works_on_stacks", lambda device: True)
    monkeypatch.setattr("data.filling.find_faces", only_stacks(filling.find_faces))
    monkeypatch.setattr("data.filling.cut_known", only_stacks(filling.cut_known))
    other = main(configured(dataset, weights, tmp_path, workers=2))
    assert len(threads) == 1 and threading.get_ident() not in threads
    dump, expected = read_dump(other), read_dump(whole)
    assert contents(other)["failures.csv"] == contents(whole)["failures.csv"]
    assert dump.rows["path"].tolist() == expected.rows["path"].tolist()
    moved = np.abs(landmarks_of(dump.rows) - landmarks_of(expected.rows)).max((1, 2))
    assert np.median(moved) < 0.01 and (moved < 0.05 * expected.rows["face_px"]).all()
    for name, array in expected.arrays.items():
        apart = np.abs(array.astype(np.float32) - dump.arrays[name])
        assert np.median(apart) < 2e-3 and apart.mean() < 0.05 * np.abs(array).mean(), name


@pytest.mark.parametrize(("batch_size", "together"), [(4, 4), (None, 14)])
def test_a_gpu_finds_faces_in_many_pictures_at_once(
    dataset, weights, tmp_path, monkeypatch, batch_size, together
):
    """In a whole shard, unless a size was asked for: it may be all that its memory holds."""
    find, seen = filling.find_faces, []

    def noting(batch, *rest):
        seen.append(len(batch))
        return find(batch, *rest)

    monkeypatch.setattr("preprocessing_pipeline.works_on_stacks", lambda device: True)
    monkeypatch.setattr("data.filling.find_faces", noting)
    main(configured(dataset, weights, tmp_path, batch_size=batch_size, shard_size=64))
    assert max(seen) == together


def only_stacks(function):
    """`function`, which must get a stack for every batch with a picture."""

    def checked(batch, *rest):
        assert any(isinstance(part, Stack) for part in rest) or all(
            isinstance(item, ImageError) for _, item in batch
        )
        return function(batch, *rest)

    return checked


# The command line.


def test_a_finished_dump_is_announced_and_left(dataset, weights, whole, capsys):
    before = contents(whole)
    assert cli(arguments(configured(dataset, weights, whole))) == 0
    printed = capsys.readouterr().err
    assert "complete already" in printed and f"dump: {whole}" in printed
    assert contents(whole) == before


def test_what_cannot_be_used_is_said_in_one_line(dataset, weights, whole, tmp_path, capsys):
    (tmp_path / "empty" / "real").mkdir(parents=True)
    meta = json.loads((whole / "meta.json").read_text()) | {"clip_model": "ViT-L/14"}
    (tower := tmp_path / "tower").mkdir()
    (tower / "meta.json").write_text(json.dumps(meta))
    for more, message in (
        (["--faces", "all"], "faces: 'one' there, 'all' now"),
        (["--precision", "bfloat16"], "precision: 'float32' there, 'bfloat16' now"),
        (["--limit", "3"], "images: 14 there, 3 now"),
        (["--data_root", str(tmp_path / "nowhere")], "nowhere"),
        (["--data_root", str(tmp_path / "empty")], "empty"),
        (["--weights-dir", str(tmp_path / "none")], "no such folder"),
        (["--device", "cuda:99"], "--device cuda:99: not available"),
        (["--batch-size", "0"], "at least 1"),
        (["--limit", "0"], "--limit 0"),
        (["--out", str(tower), "--experts", "clip"], "holds outputs of CLIP ViT-L/14"),
    ):
        assert cli(arguments(configured(dataset, weights, whole), *more)) == 2, more
        printed = capsys.readouterr().err
        assert message in printed and "Traceback" not in printed, printed


def test_one_class_only_and_no_face_at_all_are_warnings(dataset, weights, tmp_path, capsys):
    (tmp_path / "walls" / "real").mkdir(parents=True)
    shutil.copy(dataset / "fake" / "stripes.png", tmp_path / "walls" / "real")
    assert cli(arguments(configured(tmp_path / "walls", weights, tmp_path / "dump"))) == 3
    printed = capsys.readouterr().err
    assert "warning: all images" in printed and "--one-class" in printed
    assert "no face was found in any image" in printed and "kept 0 of 1 images" in printed
    assert len(read_dump(tmp_path / "dump")) == 0


def test_every_face_of_a_picture_on_request(weights, tmp_path, astronaut):
    (tmp_path / "pairs" / "real").mkdir(parents=True)
    pair = np.hstack([astronaut[:240, 80:320], astronaut[:240, 80:320][:, ::-1]])
    cv2.imwrite(str(tmp_path / "pairs" / "real" / "0.png"), pair[..., ::-1])
    for faces, count in (("one", 1), ("all", 2)):
        config = configured(tmp_path / "pairs", weights, tmp_path / faces, faces=faces)
        dump = read_dump(main(config))
        assert len(dump) == count and dump.rows["face"].tolist() == list(range(count))
        assert dump.meta["counts"]["kept"] == 1 and len(set(dump.keys)) == count


def test_the_default_folder_from_anywhere(dataset, tmp_path, monkeypatch):
    for label in ("real", "fake"):
        (tmp_path / "tiny" / label).mkdir(parents=True)
        shutil.copy(dataset / label / "0.jpg", tmp_path / "tiny" / label)
    monkeypatch.chdir(tmp_path)
    assert cli(["--data_root", "tiny", "--batch_size", "4", "--device", "cpu"]) == 0
    assert len(read_dump(tmp_path / "outputs" / "features" / "tiny" / "lite")) == 2


def test_limit_subsamples_evenly():
    assert even_subsample(list(range(10)), 4) == [0, 2, 5, 7]
    assert even_subsample([1, 2], 5) == [1, 2] and even_subsample([1, 2], None) == [1, 2]


def test_help(capsys):
    for given, code in ((["--help"], 0), ([], 2)):
        with pytest.raises(SystemExit) as stop:
            cli(given)
        printed = "".join(capsys.readouterr())
        assert stop.value.code == code and "--data-root" in printed
