"""What is carried to a machine without a dataset, and back: packed faces, packed states."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from command_line import BAD_INPUT, run
from data.dump import read_dump
from models.trace_net import TraceNet, load_trace_net
from training import pack_faces, reconstruction, trace_net
from training.aligned_crops import AlignedCrops, real_faces
from training.pack_faces import INDEX, Config, pack, packed_faces
from training.packed_state import read_header, read_state

pytestmark = pytest.mark.usefixtures("one_thread")
NET = TraceNet()


@pytest.fixture(autouse=True)
def untrained(monkeypatch) -> None:
    """Without the weights of ImageNet."""
    known = trace_net.initial
    monkeypatch.setattr(trace_net, "initial", lambda path="": known(path) if path else NET)


def small(**options) -> trace_net.Config:
    return trace_net.Config(pairs=1, device="cpu", workers=0, fakes_on="device", **options)


def test_packed_faces_are_the_real_training_faces(lit_dump: Path, tmp_path: Path) -> None:
    """Byte for byte; no fake, and nothing of another split."""
    out, dump = tmp_path / "more" / "faces.zip", read_dump(lit_dump)
    root = Path(dump.meta["data_root"])
    assert pack(Config(features=(lit_dump,), out=out)) == (3, 3)
    with zipfile.ZipFile(out) as archive:
        assert {item.compress_type for item in archive.infolist()} == {zipfile.ZIP_STORED}
        found = {archive.read(name) for name in archive.namelist() if name != INDEX}
    assert found == {(root / f"{i}.png").read_bytes() for i in range(3)}
    crops, wanted = packed_faces(out, workers=0), real_faces([dump], [root], 0, 1)
    order = [
        int(np.abs(wanted.images - image.astype(int)).mean((1, 2, 3)).argmin())
        for image in crops.images
    ]
    assert sorted(order) == [0, 1, 2] and (crops.images == wanted.images[order]).all()
    assert (crops.landmarks == wanted.landmarks[order]).all()
    assert (crops.sources == wanted.sources[order]).all()
    assert len(packed_faces(out, limit=2, workers=2)) == 2


def test_a_pack_takes_the_same_share_of_every_dump(
    lit_dump: Path, tmp_path: Path, monkeypatch
) -> None:
    config = Config(features=(lit_dump, lit_dump), out=tmp_path / "faces.zip")
    monkeypatch.setattr(pack_faces, "training_rows", lambda dump: np.arange(4))
    names = [picked.path.name for picked in pack_faces.pictures(config)]
    assert len(names) == 8 and sorted(names) == sorted([f"{i}.png" for i in range(4)] * 2)
    size = (Path(read_dump(lit_dump).meta["data_root"]) / "0.png").stat().st_size
    config.limit_mb = 2.5 * (size + pack_faces.ENTRY) / pack_faces.MB
    assert pack(config)[0] == 2 and config.out.stat().st_size < config.limit_mb * pack_faces.MB
    with pytest.raises(ValueError, match="no picture could be packed in 0.001 MB"):
        pack(Config(features=(lit_dump,), out=config.out, limit_mb=0.001))


def test_moved_and_missing_pictures(lit_dump: Path, tmp_path: Path, caplog) -> None:
    source = Path(read_dump(lit_dump).meta["data_root"])
    for name in ("0.png", "2.png"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    moved, out = (f"faces={tmp_path}",), tmp_path / "faces.zip"
    with caplog.at_level("WARNING", "masc"):
        assert pack(Config(features=(lit_dump,), data_root=moved, out=out)) == (2, 3)
    assert "1 pictures left out" in caplog.text and "1.png" in caplog.text


def test_other_files_are_refused(lit_dump: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "faces.zip", tmp_path / "other.zip"
    pack(Config(features=(lit_dump,), out=out))
    other.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"other.zip: not a file of training.pack_faces"):
        packed_faces(other)
    with pytest.raises(FileNotFoundError):
        packed_faces(tmp_path / "none.zip")
    with zipfile.ZipFile(out) as archive:
        index, names = archive.read(INDEX).decode(), archive.namelist()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr(INDEX, index)
        for name in set(names) - {INDEX}:
            archive.writestr(name, b"no picture")
    with pytest.raises(ValueError, match="fewer than two faces could be read"):
        packed_faces(other, workers=0)
    lines = list(csv.reader(io.StringIO(index)))
    assert lines[0] == list(pack_faces.HEADER) and len(lines) == 4


def test_training_from_packed_faces(lit_dump: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(reconstruction, "BATCH", 2)
    faces, out = tmp_path / "faces.zip", tmp_path / "run"
    assert (
        run(pack_faces.main, Config, None, ["--features", str(lit_dump), "--out", str(faces)]) == 0
    )
    assert "3 of 3 pictures" in capsys.readouterr().out
    options = ["--faces", str(faces), "--out", str(out), "--autoencoder-steps", "1"]
    options += ["--steps", "50", "--pairs", "1", "--device", "cpu", "--fakes-on", "device"]
    options += ["--workers", "1", "--seconds", "1e-3"]
    assert run(trace_net.main, trace_net.Config, None, options) == 0
    assert pd.read_csv(out / "log.csv")["step"].max() < 50
    assert run(trace_net.main, trace_net.Config, None, options[2:]) == BAD_INPUT
    assert "--features, dumps, or --faces" in capsys.readouterr().err


def test_a_run_goes_on_from_a_packed_state(
    crops: AlignedCrops, tmp_path: Path, monkeypatch
) -> None:
    first, second = (tmp_path / name for name in ("first", "second"))
    trace_net.train(crops, small(steps=2, interval=1, lr=1e-3, out=first))
    packed, state = first / trace_net.PACKED, torch.load(first / "state.pt", weights_only=True)
    assert packed.stat().st_size < 16 << 20
    found = read_state(packed)
    assert found["step"] == 2 and found["log"] == state["log"] and found["settings"]["pairs"] == 1
    for part in ("task", "average"):
        assert found[part].keys() == state[part].keys()
        for name, value in state[part].items():
            wanted = value.half().float() if value.is_floating_point() else value
            assert torch.equal(found[part][name], wanted), name
    with pytest.raises(ValueError, match="had 2 steps; give more --steps"):
        trace_net.train(crops, small(steps=2, start=str(packed), out=second))
    on = small(steps=3, lr=0.0, start=str(packed), out=second)
    weights = trace_net.train(crops, on)
    assert read_header(second / trace_net.PACKED)["settings"]["start"] == packed.name
    assert pd.read_csv(second / "log.csv")["step"].tolist() == [1, 2, 3]
    last = torch.load(second / "state.pt", weights_only=True)
    assert all(torch.equal(last["task"][k], v) for k, v in found["task"].items())  # at a rate of 0
    assert last["average"]["n_averaged"] == state["average"]["n_averaged"] + 1
    assert load_trace_net(weights)
    assert read_state(weights) is None and read_state(tmp_path / "none") is None
