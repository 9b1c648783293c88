"""Degraded dumps of real pictures, and curves from them."""

import json
import shutil

import cv2
import numpy as np
import pytest

from data.degrade import Condition
from data.dump import read_dump
from evaluation.robustness import curves, degraded_dump, degraded_faces, lacks_experts
from preprocessing_pipeline import Config, cli, main


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, astronaut):
    """Pictures of one face in several lights: two groups of every split, a real and a fake one
    each.
    """
    root = tmp_path_factory.mktemp("faces")
    lines = ["path,label,group,split"]
    for i, split in enumerate(("train", "train", "val", "test", "test")):
        for label in ("real", "fake"):
            name = f"{label}{i}.png"
            light = cv2.convertScaleAbs(
                astronaut[:320, 60:380], alpha=1 - 0.08 * i - 0.02 * (label == "fake")
            )
            cv2.imwrite(str(root / name), light[..., ::-1])
            lines.append(f"{name},{label},g{i},{split}")
    (root / "index.csv").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def clean(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("dumps") / "faces" / "lite"
    return read_dump(main(Config(dataset, out=out, device="cpu")))


def test_a_degraded_dump_has_the_test_pictures_with_their_groups(dataset, clean, tmp_path, capsys):
    command = [
        "--data_root",
        str(dataset),
        "--like",
        str(clean.path),
        "--split",
        "test",
        "--degrade",
        "resize:2",
    ]
    assert cli([*command, "--out", str(tmp_path / "d"), "--device", "cpu"]) == 0
    dump = read_dump(tmp_path / "d")
    assert dump.meta["config"]["degrade"] == "resize:2"
    assert dump.rows["path"].tolist() == ["fake3.png", "fake4.png", "real3.png", "real4.png"]
    assert dump.rows["group"].tolist() == ["g3", "g4", "g3", "g4"] and set(dump.rows["split"]) == {
        "test"
    }
    assert set(zip(dump.rows["width"], dump.rows["height"], strict=True)) == {
        (112, 112)
    }  # before the face was looked for
    rows = [clean.rows["path"].tolist().index(path) for path in dump.rows["path"]]
    similar = (
        clean.arrays["lite.identity"][rows, 0].astype(float) * dump.arrays["lite.identity"][:, 0]
    ).sum(-1)
    assert (similar < 0.9999).all() and (similar > 0.3).all()
    assert cli([*command[:-1], "resize:3", "--out", str(tmp_path / "d"), "--device", "cpu"]) == 2
    assert "degrade: 'resize:2' there, 'resize:3' now" in capsys.readouterr().err


def test_conditions_that_cannot_be_are_refused(dataset, tmp_path, capsys):
    command = [
        "--data_root",
        str(dataset),
        "--out",
        str(tmp_path / "d"),
        "--device",
        "cpu",
        "--degrade",
    ]
    assert cli([*command, "fog:1"]) == 2 and "jpeg:1 to 5" in capsys.readouterr().err
    assert cli([*command, "h264:1"]) == 2
    told = capsys.readouterr()
    assert (
        "compresses clips, and takes video files alone" in told.err and "experts" not in told.out
    ), "before anything is loaded"


def test_degraded_pictures_have_a_place_of_their_own_and_never_replace_the_clean_dump(
    dataset, clean, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("preprocessing_pipeline.DEGRADED", tmp_path / "degraded")
    command = [
        "--data_root",
        str(dataset),
        "--like",
        str(clean.path),
        "--split",
        "test",
        "--degrade",
        "jpeg:4",
        "--device",
        "cpu",
    ]
    assert cli(command) == 0
    assert (
        read_dump(tmp_path / "degraded" / dataset.name / "lite" / "jpeg-4").meta["config"][
            "degrade"
        ]
        == "jpeg:4"
    )
    assert cli([*command, "--out", str(clean.path), "--overwrite"]) == 2
    assert "--like names this dump" in capsys.readouterr().err and len(
        read_dump(clean.path)
    ) == len(clean)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert cli(["--data_root", str(empty), *command[2:], "--out", str(tmp_path / "e")]) == 2
    assert "nor any other picture of" in capsys.readouterr().err and not (tmp_path / "e").exists()


def test_degraded_dumps_are_made_once_and_faces_are_matched(dataset, clean, tmp_path, monkeypatch):
    monkeypatch.setattr("preprocessing_pipeline.DEGRADED", tmp_path)
    wanted = [Condition("jpeg", 5), Condition("h264", 1), Condition("resize", 3)]
    faces, of = degraded_faces(clean, dataset, wanted, 3, {"device": "cpu"})
    assert [str(condition) for condition in of] == ["jpeg:5", "resize:3"]  # these are no clips
    assert faces.rows["path"].tolist() == ["fake3.png", "fake4.png", "real3.png"]
    assert all(set(found.rows["condition"]) == {str(condition)} for condition, found in of.items())
    made = tmp_path / clean.meta["dataset"] / "lite" / "jpeg-5-of-3" / "meta.json"
    stamp = made.stat().st_mtime_ns
    degraded_dump(clean, dataset, Condition("jpeg", 5), 3, {"device": "cpu"})
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


def test_a_degraded_dump_is_extended_where_an_expert_has_come_to_the_clean_one(
    dataset, tmp_path, monkeypatch
):
    monkeypatch.setattr("preprocessing_pipeline.DEGRADED", tmp_path / "degraded")
    few = read_dump(main(Config(dataset, out=tmp_path / "clean", experts=("lite",), device="cpu")))
    before = degraded_dump(few, dataset, Condition("noise", 2), None, {"device": "cpu"})
    more = read_dump(
        main(
            Config(dataset, out=tmp_path / "clean", experts=("traces",), extend=True, device="cpu")
        )
    )
    after = degraded_dump(more, dataset, Condition("noise", 2), None, {"device": "cpu"})
    assert before.path == after.path and set(after.meta["weights"]) == {"lite", "traces"} > set(
        before.meta["weights"]
    )
    assert (after.arrays["lite.identity"] == before.arrays["lite.identity"]).all()
    assert not any(lacks_experts(after.path, each) for each in (few, more))
    assert not lacks_experts(few.path, more)
    rows = [more.rows["path"].tolist().index(path) for path in after.rows["path"]]
    assert (
        after.arrays["traces.altered"] != more.arrays["traces.altered"][rows]
    ).mean() > 0.9  # of the noisy pictures


def test_pictures_that_are_gone_are_not_taken_for_faces_lost(dataset, clean, tmp_path, monkeypatch):
    monkeypatch.setattr("preprocessing_pipeline.DEGRADED", tmp_path / "degraded")
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        degraded_dump(clean, tmp_path / "nowhere", Condition("jpeg", 1), None, {"device": "cpu"})
    (tmp_path / "moved").mkdir()
    for path in dataset.glob("*[0-3].png"):
        shutil.copy(path, tmp_path / "moved")
    with pytest.raises(
        ValueError, match=r"fake4\.png: cannot be opened .* and 1 more that could be read"
    ):
        degraded_dump(clean, tmp_path / "moved", Condition("jpeg", 1), None, {"device": "cpu"})
