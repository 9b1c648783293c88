"""Degraded dumps of real pictures, and curves from them."""

import json
import shutil

import cv2
import numpy as np
import pytest

from data.degrade import Condition
from data.dump import read_dump
from evaluation.robustness import curves, degraded_dump, degraded_faces
from preprocessing_pipeline import Config, cli, main

CPU = {"device": "cpu"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, astronaut):
    """Pictures of one face in several lights: a real and a fake one in each of five groups."""
    root = tmp_path_factory.mktemp("faces")
    lines = ["path,label,group,split"]
    for i, split in enumerate(("train", "train", "val", "test", "test")):
        for label in ("real", "fake"):
            name, light = f"{label}{i}.png", 1 - 0.08 * i - 0.02 * (label == "fake")
            picture = cv2.convertScaleAbs(astronaut[:320, 60:380], alpha=light)
            cv2.imwrite(str(root / name), picture[..., ::-1])
            lines.append(f"{name},{label},g{i},{split}")
    (root / "index.csv").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def clean(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("dumps") / "faces" / "lite"
    return read_dump(main(Config(dataset, out, experts=("lite",), **CPU)))


def arguments(dataset, clean, *more):
    like = ["--like", str(clean.path), "--split", "test", "--experts", "lite", "--device", "cpu"]
    return ["--data_root", str(dataset), *like, *more]


def test_a_degraded_dump_has_the_test_pictures_with_their_groups(dataset, clean, tmp_path, capsys):
    out = str(tmp_path / "d")
    assert cli(arguments(dataset, clean, "--degrade", "resize:2", "--out", out)) == 0
    dump = read_dump(tmp_path / "d")
    assert dump.meta["config"]["degrade"] == "resize:2"
    assert dump.rows["path"].tolist() == ["fake3.png", "fake4.png", "real3.png", "real4.png"]
    assert dump.rows["group"].tolist() == ["g3", "g4", "g3", "g4"]
    assert set(dump.rows["split"]) == {"test"}
    # Degraded before the face was found.
    assert {*dump.rows["width"].tolist(), *dump.rows["height"].tolist()} == {112}
    rows = np.isin(clean.rows["path"], dump.rows["path"])
    whole = clean.arrays["lite.identity"][rows, 0].astype(float)
    similar = (whole * dump.arrays["lite.identity"][:, 0]).sum(-1)
    assert (similar < 0.9999).all() and (similar > 0.3).all()
    assert cli(arguments(dataset, clean, "--degrade", "resize:3", "--out", out)) == 2
    assert "degrade: 'resize:2' there, 'resize:3' now" in capsys.readouterr().err


def test_conditions_that_cannot_be_are_refused_before_any_work(dataset, clean, tmp_path, capsys):
    for condition, message in (
        ("fog:1", "jpeg:1 to 5"),
        ("h264:1", "compresses clips, not pictures"),
    ):
        out = str(tmp_path / "d")
        assert cli(arguments(dataset, clean, "--degrade", condition, "--out", out)) == 2
        printed = capsys.readouterr().err
        assert message in printed and "experts" not in printed


def test_degraded_pictures_never_replace_the_clean_dump(
    dataset, clean, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("preprocessing_pipeline.DEGRADED", tmp_path / "degraded")
    degrade = ("--degrade", "jpeg:4")
    assert cli(arguments(dataset, clean, *degrade)) == 0
    made = read_dump(tmp_path / "degraded" / dataset.name / "lite" / "jpeg-4")
    assert made.meta["config"]["degrade"] == "jpeg:4"
    over = (*degrade, "--out", str(clean.path), "--overwrite")
    assert cli(arguments(dataset, clean, *over)) == 2
    assert "--like names this dump" in capsys.readouterr().err
    assert len(read_dump(clean.path)) == len(clean)
    (tmp_path / "empty").mkdir()
    assert cli(arguments(tmp_path / "empty", clean, "--out", str(tmp_path / "e"))) == 2
    assert "nor any other picture of" in capsys.readouterr().err and not (tmp_path / "e").exists()


def test_degraded_dumps_are_made_once_and_faces_are_matched(dataset, clean, tmp_path, monkeypatch):
    monkeypatch.setattr("preprocessing_pipeline.DEGRADED", tmp_path)
    wanted = [Condition("jpeg", 5), Condition("h264", 1), Condition("resize", 3)]
    faces, of = degraded_faces(clean, dataset, wanted, 3, CPU)
    assert [str(condition) for condition in of] == ["jpeg:5", "resize:3"]  # these are no clips
    assert faces.rows["path"].tolist() == ["fake3.png", "fake4.png", "real3.png"]
    assert all(set(found.rows["condition"]) == {str(condition)} for condition, found in of.items())
    made = tmp_path / clean.meta["dataset"] / "lite" / "jpeg-5-of-3" / "meta.json"
    stamp = made.stat().st_mtime_ns
    degraded_dump(clean, dataset, Condition("jpeg", 5), 3, CPU)
    assert made.stat().st_mtime_ns == stamp

    seen = []

    def brightness(faces):
        seen.append(set(faces.rows["condition"]))
        return faces.rows["mean_r"] / 255

    rows = curves(faces, of, brightness)
    found = {(row["metric"], row["condition"]): row["value"] for row in rows}
    assert [key for key in found if key[0] in ("auc", "slope")] == [
        ("auc", "clean"),
        ("auc", "jpeg:5"),
        ("auc", "resize:3"),
        ("slope", "jpeg"),
        ("slope", "resize"),
    ]
    assert seen == [{""}, {"jpeg:5"}, {"resize:3"}]
    assert found["auc", "clean"] == 0  # real3 is the brightest of the three
    assert json.dumps(rows) and np.isfinite(found["slope", "resize"])


def test_faces_are_matched_where_the_folder_of_the_pictures_has_another_name(
    dataset, clean, tmp_path, monkeypatch
):
    monkeypatch.setattr("preprocessing_pipeline.DEGRADED", tmp_path / "degraded")
    root = shutil.copytree(dataset, tmp_path / "moved")
    faces, of = degraded_faces(clean, root, [Condition("jpeg", 1)], None, CPU)
    rows = curves(faces, of, lambda faces: faces.rows["mean_r"] / 255)
    assert [row["value"] for row in rows if row["metric"] == "lost"] == [0]


@pytest.mark.parametrize(
    ("lost", "p_fake", "auc_found", "auc_with_lost"),
    [
        ("fake4", {"real3": 0.2, "real4": 0.6, "fake3": 0.7, "fake4": 0.9}, 1.0, 0.5),  # missed
        ("real4", {"real3": 0.2, "real4": 0.6, "fake3": 0.7, "fake4": 0.1}, 0.5, 0.75),  # no alarm
    ],
)
def test_a_face_lost_to_the_degradation_has_p_fake_0(
    dataset, clean, tmp_path, monkeypatch, lost, p_fake, auc_found, auc_with_lost
):
    monkeypatch.setattr("preprocessing_pipeline.DEGRADED", tmp_path / "degraded")
    root = shutil.copytree(dataset, tmp_path / dataset.name)
    cv2.imwrite(str(root / f"{lost}.png"), np.full((320, 320, 3), 128, np.uint8))
    monkeypatch.setattr("preprocessing_pipeline.check_pictures", lambda *_: None)  # it would tell
    faces, of = degraded_faces(clean, root, [Condition("jpeg", 1)], None, CPU)
    (degraded,) = of.values()
    assert {*faces.rows["path"]} - {*degraded.rows["path"]} == {f"{lost}.png"}

    def scores(faces):
        return np.array([p_fake[path.removesuffix(".png")] for path in faces.rows["path"]])

    rows = [row for row in curves(faces, of, scores) if row["condition"] == "jpeg:1"]
    found = {row["metric"]: (row["value"], row["n"]) for row in rows}
    assert found == {"auc": (auc_found, 3), "auc_with_lost": (auc_with_lost, 4), "lost": (1, 4)}


def test_an_expert_added_to_the_clean_dump_is_added_to_degraded_ones(
    dataset, clean, tmp_path, monkeypatch
):
    monkeypatch.setattr("preprocessing_pipeline.DEGRADED", tmp_path / "degraded")
    few = read_dump(shutil.copytree(clean.path, tmp_path / "clean"))
    before = degraded_dump(few, dataset, Condition("noise", 2), None, CPU)
    more = read_dump(main(Config(dataset, few.path, experts=("traces",), **CPU)))
    after = degraded_dump(more, dataset, Condition("noise", 2), None, CPU)
    assert before.path == after.path
    assert set(after.meta["weights"]) == {"lite", "traces"} > set(before.meta["weights"])
    assert (after.arrays["lite.identity"] == before.arrays["lite.identity"]).all()
    rows = np.isin(more.rows["path"], after.rows["path"])
    different = after.arrays["traces.altered"] != more.arrays["traces.altered"][rows]
    assert different.mean() > 0.9  # they are of the noisy pictures


def test_pictures_that_are_gone_are_not_taken_for_faces_lost(dataset, clean, tmp_path, monkeypatch):
    monkeypatch.setattr("preprocessing_pipeline.DEGRADED", tmp_path / "degraded")
    with pytest.raises(FileNotFoundError, match="nowhere/.*: not there"):
        degraded_dump(clean, tmp_path / "nowhere", Condition("jpeg", 1), None, CPU)
    (tmp_path / "moved").mkdir()
    for path in dataset.glob("*[0-3].png"):
        shutil.copy(path, tmp_path / "moved")
    message = r"fake4\.png: cannot be opened .* and 1 more that could be read"
    with pytest.raises(ValueError, match=message):
        degraded_dump(clean, tmp_path / "moved", Condition("jpeg", 1), None, CPU)
