"""From a folder of pictures to a dump, by hand and by the command line."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

import preprocessing_pipeline
from data import filling
from data.cutting import Finder
from data.datasets import find_samples
from data.faces import FaceCutter
from data.filling import Found
from data.store import NO_FACE, DumpWriter, read_dump
from features.regions import REGIONS
from models import BUNDLED
from models.base import Output
from models.ensemble import Ensemble
from models.region_net import RegionNet, save_region_net
from preprocessing_pipeline import Config, cli, main, parse, spread

SCRIPT = Path(preprocessing_pipeline.__file__)
COPIES = 6  # of the one face, per class


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A folder with a small region network that knows nothing."""
    torch.manual_seed(0)
    age = Output("distribution", 9, tuple("abcdefghi"))
    net = RegionNet(
        {"identity": Output("embedding", 16), "age": age, "age_years": Output("scalar", 1)},
        (8, 8),
        (1, 1),
    )
    folder = tmp_path_factory.mktemp("weights")
    save_region_net(net, folder / BUNDLED["lite"].name, {})
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, astronaut) -> Path:
    """Crops of one real face, half of them called fake, and two pictures that cannot be used."""
    root = tmp_path_factory.mktemp("somewhere") / "toy set"
    rng = np.random.default_rng(0)
    for label in ("real", "fake"):
        (root / label).mkdir(parents=True)
        for i in range(COPIES):
            x, y = rng.integers(60, 120), rng.integers(0, 15)
            crop = cv2.convertScaleAbs(
                astronaut[y : y + 240, x : x + 240], alpha=rng.uniform(0.7, 1.2)
            )
            cv2.imwrite(str(root / label / f"{i}.jpg"), crop[..., ::-1])
    (root / "real" / "empty.jpg").write_bytes(b"")
    cv2.imwrite(str(root / "fake" / "stripes.png"), np.tile(np.uint8([0, 90, 200]), (64, 64, 1)))
    return root


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def configured(dataset: Path, weights: Path, out: Path, **options) -> Config:
    more = {"experts": ("lite",), "device": "cpu", "batch_size": 4, "shard_size": 4, **options}
    return Config(dataset, out, weights_dir=weights, **more)


@pytest.fixture(scope="module")
def whole(dataset, weights, tmp_path_factory) -> Path:
    return main(configured(dataset, weights, tmp_path_factory.mktemp("whole") / "dump"))


def test_the_dump_holds_every_face_and_why_others_are_missing(dataset, weights, whole):
    dump = read_dump(whole)
    counts = {
        "images": 14,
        "kept": 12,
        "faces": 12,
        "real": 6,
        "fake": 6,
        "no_face": 1,
        "unreadable": 1,
    }
    assert dump.meta["counts"] == counts
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
    assert (rows["width"] == 240).all() and rows["file_bytes"][0] == (
        dataset / rows["path"][0]
    ).stat().st_size
    inside = (rows["x0"] < rows["lx0"]) & (rows["lx0"] < rows["lx1"]) & (rows["lx1"] < rows["x1"])
    assert inside.all() and (rows["score"] > 0.9).all()


def test_rows_and_answers_belong_together(dataset, weights, whole):
    """The same picture alone gives the same row and the same answers as among others."""
    dump = read_dump(whole)
    path = dump.rows["path"][7]
    (alone := whole.parent / "alone" / "real").mkdir(parents=True)
    (alone / Path(path).name).write_bytes((dataset / path).read_bytes())
    one = read_dump(main(configured(alone.parent, weights, whole.parent / "one")))
    assert one.rows["phash"][0] == dump.rows["phash"][7] and one.rows["x0"][0] == pytest.approx(
        dump.rows["x0"][7], abs=0.1
    )
    differences = np.abs(
        dump.arrays["lite.identity"].astype(np.float32) - one.arrays["lite.identity"]
    ).max((1, 2))
    assert differences.argmin() == 7 and differences[7] < 2e-3


def test_batches_change_nothing_but_rounding(dataset, weights, whole):
    other = replace(
        configured(dataset, weights, whole.parent / "other"), batch_size=5, shard_size=7
    )
    first, second = read_dump(whole), read_dump(main(other))
    assert (
        first.keys == second.keys
        and first.failures == second.failures
        and first.meta == second.meta
    )
    for name, array in first.arrays.items():
        scale = 100 if name == "lite.age_years" else 1
        assert np.allclose(array.astype(np.float32), second.arrays[name], atol=1e-3 * scale)


def test_threads_change_nothing(dataset, weights, whole):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        other = main(replace(configured(dataset, weights, whole.parent / "threads"), workers=5))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert contents(other) == contents(whole)


def test_batches_are_no_larger_than_asked_and_operations_do_not_divide_themselves(
    dataset, weights, tmp_path, monkeypatch
):
    cut, seen = filling.cut, []

    def noting(shard: int, batch: list, *rest: object) -> Found:
        seen.append((shard, len(batch), torch.get_num_threads()))
        return cut(shard, batch, *rest)

    monkeypatch.setattr(filling, "cut", noting)
    main(replace(configured(dataset, weights, tmp_path / "dump"), batch_size=3))
    assert sorted((shard, size) for shard, size, _ in seen) == [
        (0, 1),
        (0, 3),
        (1, 1),
        (1, 3),
        (2, 1),
        (2, 3),
        (3, 2),
    ]
    assert {threads for *_, threads in seen} == {1}


def test_where_experts_are_elsewhere_they_are_asked_while_the_next_faces_are_cut(
    dataset, weights, whole, tmp_path
):
    """As on a GPU: one thread asks, others cut. The dump is the same."""

    class Elsewhere(Ensemble):
        threads: set[int] = set()

        def __call__(self, views):
            self.threads.add(threading.get_ident())
            return super().__call__(views)

    config = configured(dataset, weights, tmp_path, workers=3)
    ensemble = Elsewhere(["lite"], weights_dir=weights)
    samples, made = find_samples(dataset), read_dump(whole).meta
    with DumpWriter(tmp_path / "dump", {"any": "thing"}, samples, 4) as writer:
        ensemble.device = SimpleNamespace(type="elsewhere")
        finder = Finder(FaceCutter(crops=ensemble.crops.values()))
        filling.fill(
            writer, dataset, finder, ensemble, False, config.batch_size, 3, config.max_pixels
        )
        dump = writer.finish(
            {key: made[key] for key in ("dataset", "regions", "outputs", "weights")}
        )
    assert len(ensemble.threads) == 1 and threading.get_ident() not in ensemble.threads
    before, after = contents(whole), contents(dump.path)
    assert set(before) == set(after)
    assert dump.keys == read_dump(whole).keys
    for name, array in read_dump(whole).arrays.items():
        assert np.allclose(array.astype(np.float32), dump.arrays[name], atol=2e-3, rtol=2e-3), name


def start(dataset: Path, weights: Path, out: Path) -> subprocess.Popen:
    options = [
        "--batch-size",
        "4",
        "--shard-size",
        "1",
        "--device",
        "cpu",
        "--weights-dir",
        str(weights),
    ]
    command = [
        sys.executable,
        str(SCRIPT),
        "--data_root",
        str(dataset),
        "--out",
        str(out),
        "--experts",
        "lite",
        *options,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_twice_and_started_again_it_ends_with_the_same_bytes(
    dataset, weights, whole, tmp_path
):
    out = tmp_path / "dump"
    kept = 0
    for shards in (1, 4):
        run = start(dataset, weights, out)
        until = time.monotonic() + 300
        while len(list(out.glob("unfinished/*.safetensors"))) < shards and run.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.005)
        run.send_signal(signal.SIGKILL)
        printed, _ = run.communicate()
        assert run.returncode == -signal.SIGKILL and f"{kept} of 14 images are done" in printed
        assert not (out / "meta.json").exists()
        kept = len(list(out.glob("unfinished/*.safetensors")))
        assert kept >= shards
    run = start(dataset, weights, out)
    printed, bar = run.communicate(timeout=300)
    assert run.returncode == 0, bar
    assert f"{kept} of 14 images are done" in printed
    assert "kept 12 of 14 images (12 faces: 6 real, 6 fake), no face 1, unreadable 1" in printed
    assert "14 of 14 images" in bar and "images/s" in bar
    assert contents(out) == contents(whole)


def test_the_commands_of_the_first_version_work_from_anywhere(dataset, tmp_path):
    if not BUNDLED["lite"].is_file():
        pytest.skip("needs the bundled network in checkpoints/")
    for label in ("real", "fake"):
        (tmp_path / "tiny" / label).mkdir(parents=True)
        (tmp_path / "tiny" / label / "0.jpg").write_bytes((dataset / label / "0.jpg").read_bytes())
    command = [
        sys.executable,
        str(SCRIPT),
        "--data_root",
        "tiny",
        "--batch-size",
        "4",
        "--device",
        "cpu",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(read_dump(tmp_path / "outputs" / "features" / "tiny" / "lite")) == 2


def arguments(config: Config, *more: str) -> list[str]:
    paths = [
        "--experts",
        "lite",
        "--data_root",
        str(config.data_root),
        "--out",
        str(config.out),
        "--weights-dir",
        str(config.weights_dir),
    ]
    return [*paths, "--device", "cpu", "--batch-size", "4", "--shard-size", "4", *more]


def test_ctrl_c_says_how_to_go_on(dataset, weights, whole, tmp_path, monkeypatch, capsys):
    config = configured(dataset, weights, tmp_path / "dump")
    write_shard = DumpWriter.write_shard

    def stop_at_the_second(self: DumpWriter, number: int, *rest: object) -> None:
        if number == 1:
            raise KeyboardInterrupt
        write_shard(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(DumpWriter, "write_shard", stop_at_the_second)
        assert cli(arguments(config)) == 130
    assert "run the same command again" in capsys.readouterr().err
    assert cli(arguments(config)) == 0
    assert "4 of 14 images are done" in capsys.readouterr().out
    assert contents(config.out) == contents(whole)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a file on a full disk")
def test_a_full_disk_says_how_to_go_on(dataset, weights, whole, tmp_path, monkeypatch, capsys):
    config = configured(dataset, weights, tmp_path / "dump")
    write_shard = DumpWriter.write_shard

    def fill_the_disk(self: DumpWriter, number: int, *rest: object) -> None:
        if number == 2:
            (self.unfinished / "000002.safetensors.partial").symlink_to("/dev/full")
        write_shard(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(DumpWriter, "write_shard", fill_the_disk)
        assert cli(arguments(config)) == 1
    message = capsys.readouterr().err
    assert (
        "disk is full" in message and "000002.safetensors" in message and "Traceback" not in message
    )
    assert cli(arguments(config)) == 0
    assert "8 of 14 images are done" in capsys.readouterr().out
    assert contents(config.out) == contents(whole)


def test_a_finished_dump_is_announced_and_left(dataset, weights, whole, capsys):
    before = contents(whole)
    assert cli(arguments(configured(dataset, weights, whole))) == 0
    printed = capsys.readouterr().out
    assert "complete already" in printed and f"dump: {whole}" in printed
    assert contents(whole) == before


def test_what_cannot_be_used_is_said_in_one_line(dataset, weights, whole, tmp_path, capsys):
    config = configured(dataset, weights, whole)
    (tmp_path / "empty" / "real").mkdir(parents=True)
    tries = {
        "--faces all": (["--faces", "all"], "faces: 'one' there, 'all' now"),
        "bfloat16": (["--precision", "bfloat16"], "precision: 'float32' there, 'bfloat16' now"),
        "no such folder": (["--data_root", str(tmp_path / "nowhere")], "nowhere"),
        "no pictures": (["--data_root", str(tmp_path / "empty")], "empty"),
        "no weights": (["--weights-dir", str(tmp_path / "none")], "no such folder"),
        "no such device": (["--device", "cuda:99"], "--device cuda:99: not available"),
        "nothing at a time": (["--batch-size", "0"], "at least 1"),
        "no images": (["--limit", "0"], "--limit 0"),
    }
    for name, (more, message) in tries.items():
        assert cli(arguments(config, *more)) == 2, name
        said = capsys.readouterr().err
        assert said.startswith("error: ") and message in said, said


def test_one_class_only_and_no_face_at_all_are_warnings(dataset, weights, tmp_path, capsys):
    (tmp_path / "walls" / "real").mkdir(parents=True)
    (tmp_path / "walls" / "real" / "0.png").write_bytes(
        (dataset / "fake" / "stripes.png").read_bytes()
    )
    assert cli(arguments(configured(tmp_path / "walls", weights, tmp_path / "dump"))) == 0
    said = capsys.readouterr()
    assert (
        "warning: all images" in said.err and "are real" in said.err and "--one-class" in said.err
    )
    assert "no face was found in any image" in said.err and "kept 0 of 1 images" in said.out
    assert len(read_dump(tmp_path / "dump")) == 0


def test_every_face_of_a_picture_on_request(dataset, weights, tmp_path, astronaut):
    (tmp_path / "pairs" / "real").mkdir(parents=True)
    pair = np.hstack([astronaut[:240, 80:320], astronaut[:240, 80:320][:, ::-1]])
    cv2.imwrite(str(tmp_path / "pairs" / "real" / "0.png"), pair[..., ::-1])
    for faces, count in (("one", 1), ("all", 2)):
        dump = read_dump(
            main(configured(tmp_path / "pairs", weights, tmp_path / faces, faces=faces))
        )
        assert len(dump) == count and dump.rows["face"].tolist() == list(range(count))
        assert dump.meta["counts"]["kept"] == 1 and len(set(dump.keys)) == count


def test_limit_spreads_over_the_dataset():
    assert spread(list(range(10)), 4) == [0, 2, 5, 7]
    assert spread([1, 2], 5) == [1, 2] and spread([1, 2], None) == [1, 2]


def test_help_and_defaults(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(["--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert (
        "--data_root" in said
        and "python preprocessing_pipeline.py --data_root faces --batch-size 4" in said
    )
    with pytest.raises(SystemExit) as stop:
        parse([])
    assert stop.value.code == 2 and "--data_root" in capsys.readouterr().err
    assert parse(["--data-root", "x", "--batch_size", "7"]) == Config(Path("x"), batch_size=7)
