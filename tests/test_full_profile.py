"""The published experts from a dataset folder to a verdict, with weight files in their official
formats and random values.
"""

from __future__ import annotations

import csv
import shutil
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.text import Text

import preprocessing_pipeline
import train
from data.dump import read_dump
from features.columns import groups_of
from inference.card import draw_card
from models import BLOCK_HEAD, PROFILES
from models.checkpoint import Checkpoint
from models.tensors import sha256_of
from models.weights import WEIGHTS, place
from predict import Detector
from preprocessing_pipeline import cli

FACES = {"train": 2, "val": 1, "test": 1}  # of each class


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, astronaut) -> Path:
    """One real face in many crops, each of a group of its own; the fakes have another's mouth: the
    same, upside down.
    """
    root = tmp_path_factory.mktemp("somewhere") / "faces"
    root.mkdir()
    lines = [("path", "label", "group", "split")]
    for split, count in FACES.items():
        for label in ("real", "fake"):
            for i in range(count):
                x, y = 60 + 6 * len(lines) % 50, 2 * len(lines) % 15
                face = astronaut.copy()
                if label == "fake":
                    face[130:160, 195:255] = face[130:160, 195:255][::-1]
                cv2.imwrite(str(root / f"{len(lines)}.png"), face[y : y + 240, x : x + 240, ::-1])
                lines.append((f"{len(lines)}.png", label, f"g{len(lines)}-{i}", split))
    with (root / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return root


def arguments(dataset: Path, weights: Path, out: Path, *more: str) -> list[str]:
    return [
        "--data_root",
        str(dataset),
        "--weights-dir",
        str(weights),
        "--device",
        "cpu",
        "--out",
        str(out),
        *more,
    ]


@pytest.fixture(scope="module")
def dump(dataset, official_weights, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("full") / "dump"
    assert cli(arguments(dataset, official_weights, out, "--profile", "full")) == 0
    return out


def test_every_expert_has_outputs_for_every_face(dump):
    made = read_dump(dump)
    assert len(made) == 2 * sum(FACES.values()) and not made.missing
    assert tuple(made.meta["weights"]) == PROFILES["full"] and made.meta["profile"] == "full"
    assert made.meta["clip_model"] == "ViT-B/32"
    for name, array in made.arrays.items():
        assert (
            np.isfinite(array).all() and np.abs(np.diff(array.astype(np.float32), axis=1)).max() > 0
        ), name


def test_from_the_dump_to_a_verdict(dump, dataset, official_weights, tmp_path):
    folder = train.main(train.Config(features=(dump,), only=("raw",), out=tmp_path / "detector"))
    info = Checkpoint.load(folder).info
    experts = {name.partition(".")[0] for name in info["features"]}
    assert experts == set(PROFILES["full"]) == set(info["weights"])
    assert any("contradiction" in groups_of(name) for name in info["features"])
    detector = Detector(folder, weights_dir=official_weights)
    picture = cv2.imread(str(dataset / "1.png"))[..., ::-1]
    verdict = detector.predict_images([np.ascontiguousarray(picture)], ["1.png"])[0]
    assert (
        verdict.verdict in ("fake", "nothing found", "cannot tell")
        and 1 <= len(verdict.reasons) <= 3
    )
    values = detector.score(dict(read_dump(dump).arrays))[0][
        read_dump(dump).rows["path"].tolist().index("1.png")
    ]
    again = detector.score(
        {k: v.numpy() for k, v in detector.ensemble(detector.cutter([picture]).views).items()}
    )[0][0]
    assert np.allclose(
        values, again, atol=5e-3, rtol=5e-2
    )  # the dump and the detector see the same face


def test_the_standard_profile(dataset, tmp_path):
    entry = WEIGHTS["clip-vit-b-16"]
    if not place(entry).is_file() or not find_spec("onnx"):
        pytest.skip(f"needs {entry.package}, which carries CLIP's weights, and onnx")
    command = ["--data-root", str(dataset), "--out", str(tmp_path / "dump"), "--device", "cpu"]
    assert cli([*command, "--profile", "standard"]) == 0
    made = read_dump(tmp_path / "dump")
    assert set(made.meta["weights"]) == set(PROFILES["standard"]) and not made.missing
    assert made.meta["clip_model"] == "ViT-B/16"
    assert made.meta["weights"]["clip"] == sha256_of(place(entry), BLOCK_HEAD)
    folder = train.main(train.Config(features=(made.path,), only=("raw",), out=tmp_path / "own"))
    detector = Detector(folder)
    assert set(detector.ensemble.weights) == set(PROFILES["standard"])
    picture = cv2.imread(str(dataset / "1.png"))[..., ::-1]
    crops = detector.cutter([np.ascontiguousarray(picture)]).views
    again = detector.ensemble(crops)["clip.embedding"][0].float().numpy()
    row = made.rows["path"].tolist().index("1.png")
    stored = made.arrays["clip.embedding"][row].astype(np.float32)
    assert np.allclose(stored, again, atol=1e-3)
    verdict = detector.predict(picture)
    assert verdict.verdict in ("fake", "nothing found", "cannot tell")
    assert list(verdict.families)[-2:] == ["traces", "appearance"]
    texts = [text.get_text() for text in draw_card(verdict, picture).findobj(Text)]
    assert {"forgery traces", "made or photographed"} <= {*texts}
    added = Checkpoint.load(folder).arrays["head.forgery_weight"]
    weighed = {name for name, weight in zip(detector.features, added, strict=True) if weight}
    assert weighed == {"traces.altered/level/full", "clip.made/level/full"}
    info = Checkpoint.load(folder).info
    assert (info["forgery_weight"], info["appearance_weight"]) == (0.5, 3.0)


def test_a_detector_of_two_experts_needs_only_their_weights(dump, official_weights, tmp_path):
    folder = train.main(
        train.Config(
            features=(dump,), only=("fairface", "facenet"), drop=("expected",), out=tmp_path
        )
    )
    assert set(Checkpoint.load(folder).info["weights"]) == {"fairface", "facenet"}
    two = tmp_path / "two"
    two.mkdir()
    for name in ("fairface", "facenet"):
        (two / WEIGHTS[name].file).symlink_to(official_weights / WEIGHTS[name].file)
    assert [expert.name for expert in Detector(folder, weights_dir=two).ensemble.experts] == [
        "fairface",
        "facenet",
    ]


def test_a_missing_file_is_reported_before_any_work(
    dataset, official_weights, tmp_path, monkeypatch, capsys
):
    few = tmp_path / "weights"
    few.mkdir()
    for name in ("fairface", "facenet"):
        (few / WEIGHTS[name].file).symlink_to(official_weights / WEIGHTS[name].file)
    with monkeypatch.context() as patch:
        patch.setattr(preprocessing_pipeline, "fill_faces", lambda *_: pytest.fail("worked"))
        command = ["--experts", "fairface", "facenet", "arcface"]
        assert cli(arguments(dataset, few, tmp_path / "dump", *command)) == 2
    found = capsys.readouterr()
    entry = WEIGHTS["arcface"]
    for part in (entry.file, entry.url, entry.licence, str(few), "--weights-dir"):
        assert part in found.err
    assert "Traceback" not in found.err and WEIGHTS["fairface"].file not in found.err
    assert not (tmp_path / "dump").exists()
    command = ["--experts", "fairface", "facenet", "--limit", "2"]
    assert cli(arguments(dataset, few, tmp_path / "dump", *command)) == 0
    assert set(read_dump(tmp_path / "dump").meta["weights"]) == {"fairface", "facenet"}
    shutil.rmtree(tmp_path / "dump")
