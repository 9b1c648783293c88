"""predict.py as a user runs it, with the bundled detector and real faces that ship with the packages."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import predict
from data.images import ORIENTATION, ImageError
from features.disagreement import PARTS
from features.explain import HIGH, LOW, MEDIAN, PERCENTILES, topic
from features.regions import REGIONS
from inference import detector as inference_detector
from inference.verdict import FAKE, REAL, UNSURE
from models.checkpoint import Checkpoint
from tests.conftest import ROOT

VERDICTS = (REAL, FAKE, UNSURE)


def run(*arguments, cwd=ROOT):
    command = [sys.executable, str(ROOT / "predict.py"), *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, errors="replace", check=False
    )


@pytest.fixture(scope="module")
def detector():
    return predict.Detector()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, astronaut):
    """A folder with a face, the same face mirrored, a picture without a face, and text called .jpg."""
    folder = tmp_path_factory.mktemp("pictures")
    Image.fromarray(astronaut).save(folder / "a face – ü.png")
    Image.fromarray(astronaut[:, ::-1]).save(folder / "mirrored.jpg", quality=95)
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    (folder / "text.jpg").write_text("not a picture")
    return folder


def test_a_folder_from_the_command_line(pictures, tmp_path):
    done = run(
        pictures,
        "--csv",
        tmp_path / "v.csv",
        "--json",
        tmp_path / "v.json",
        "--explain",
        tmp_path / "cards",
    )
    assert done.returncode == 3, done.stderr
    with (tmp_path / "v.csv").open(newline="", encoding="utf-8") as file:
        rows = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    assert set(rows) == {"a face – ü.png", "mirrored.jpg", "noise.png", "text.jpg"}
    assert (
        rows["noise.png"]["error"] == "no face found"
        and "not an image" in rows["text.jpg"]["error"]
    )
    said = {
        Path(row["path"]).name: row
        for row in json.loads((tmp_path / "v.json").read_text(encoding="utf-8"))
    }
    for name in ("a face – ü.png", "mirrored.jpg"):
        assert 0 < float(rows[name]["p_fake"]) < 1 and rows[name]["verdict"] in VERDICTS
        assert 1 <= len(said[name]["reasons"]) <= 3
        assert rows[name]["reasons"].split(" | ")[0] == said[name]["reasons"][0]["sentence"]
        assert said[name]["quality"]["overall"] == "good"
        assert said[name]["error"] == ""
    for suffix in ("png", "json"):
        assert len(list((tmp_path / "cards").glob(f"*.{suffix}"))) == 2
    whole = json.loads(next((tmp_path / "cards").glob("*face*.json")).read_text(encoding="utf-8"))
    assert (
        whole["p_fake"] == said["a face – ü.png"]["p_fake"]
        and len(whole["regions"]) == 8
        and whole["pairs"]
    )
    assert "2 faces scored, 2 inputs not scored" in done.stderr and "Traceback" not in done.stderr


def test_exit_codes(pictures, tmp_path):
    assert run(pictures / "mirrored.jpg").returncode == 0
    missing = run(tmp_path / "none.jpg")
    assert missing.returncode == 3 and "none.jpg" in missing.stdout
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run(empty).returncode == 3
    (tmp_path / "file").write_text("")
    wrongs = (
        ["--batch-size", "0"],
        ["--checkpoint", tmp_path],
        ["--no-such-option"],
        ["--device", "cuda:99"],
        ["--csv", tmp_path / "file" / "v.csv"],
        ["--explain", tmp_path / "file"],
        ["--json", "-", "--csv", "-"],
        ["--features", tmp_path],
        ["--max-pixels", "-1"],
        [""],
    )
    for wrong in wrongs:
        done = run(pictures / "mirrored.jpg", *wrong)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr


def test_odd_names_cost_nothing(pictures, tmp_path):
    odd = tmp_path / "odd"
    odd.mkdir()
    face = (pictures / "mirrored.jpg").read_bytes()
    names = [b"not utf-8 \xff.jpg", "🙂".encode() * 60 + b".jpg", b"line\nbreak.jpg"]
    for name in names:
        Path(os.fsdecode(os.fsencode(odd) + b"/" + name)).write_bytes(face)
    done = run(odd, "--csv", tmp_path / "v.csv", "--explain", tmp_path / "cards")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "v.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert {os.path.basename(os.fsencode(row["path"])) for row in rows} == set(names)  # noqa: PTH119
    assert len(list((tmp_path / "cards").glob("*.png"))) == 3


def test_verdicts_come_in_the_order_of_the_pictures(detector, pictures):
    paths = sorted(pictures.iterdir())
    said = [
        verdict.path
        for verdict in inference_detector.predict_files(detector, paths[::-1], 4, 10**8)
    ]
    assert said == [str(path) for path in paths[::-1]]


def test_a_picture_and_its_folder_are_judged_once(detector, pictures):
    given = [pictures / "mirrored.jpg", pictures, pictures / "mirrored.jpg"]
    said = [verdict.path for verdict in inference_detector.predict_files(detector, given, 4, 10**8)]
    assert sorted(said) == sorted(str(path) for path in pictures.iterdir())


@pytest.mark.parametrize("key", inference_detector.NEEDED)
def test_half_a_checkpoint_is_refused(tmp_path, key):
    bundled = Checkpoint.load(predict.BUNDLED)
    del bundled.info[key]
    with pytest.raises(ValueError, match=f"lacks {key}"):
        predict.Detector(bundled.save(tmp_path / "half"))


def test_screen_output_is_pure_json(pictures):
    done = run(pictures / "mirrored.jpg", "--json", "-")
    assert json.loads(done.stdout)[0]["verdict"] in VERDICTS


def test_a_face_scores_the_same_alone_and_among_others(detector, astronaut):
    other = np.ascontiguousarray(astronaut[20:300, 100:400])
    alone = detector.predict_images([astronaut], ["a"])
    among = detector.predict_images([other, astronaut], ["b", "a"])
    assert [verdict.path for verdict in among] == ["b", "a"]
    assert abs(alone[0].p_fake - among[1].p_fake) < 0.01


def test_what_adds_up_to_the_score_adds_up(detector, astronaut):
    verdict = detector.predict_images([astronaut], ["a"])[0]
    logit = np.log(verdict.p_fake / (1 - verdict.p_fake))
    assert sum(verdict.families.values()) + verdict.usual == pytest.approx(logit, abs=1e-4)
    assert set(verdict.families) == {
        "attributes",
        "identities",
        "vision_language",
        "expressions",
        "traces",
    }
    whole = verdict.to_json(whole=True)
    assert sum(whole["families"].values()) + whole["usual"] == pytest.approx(logit, abs=1e-3)


def test_a_reason_says_what_its_columns_add(detector, astronaut):
    """The first reason's contribution is what those of its columns add that fit the verdict."""
    verdict = detector.predict_images([astronaut], ["a"])[0]
    predictions = detector.ensemble(detector.cutter([astronaut]).views)
    values, p_fake = detector.score({name: value.numpy() for name, value in predictions.items()})
    assert np.isclose(p_fake[0], verdict.p_fake, atol=1e-3)
    names, reference = detector.checkpoint.info["features"], detector.checkpoint.arrays["reference"]
    added, fake, wanted = (
        detector.head.contributions(values, reference[MEDIAN])[0][0],
        verdict.verdict == FAKE,
        0.0,
    )
    for column in [
        i for i, name in enumerate(names) if topic(name) == topic(verdict.reasons[0].feature)
    ]:
        low, high = reference[
            [LOW, HIGH] if fake else [2, 4], column
        ]  # the 25th and 75th percentile
        fits = (low <= values[0, column] <= high) != fake and (added[column] > 0) == fake
        wanted += added[column] if fits else 0.0
    assert np.isclose(verdict.reasons[0].contribution, wanted, atol=1e-3)
    assert (wanted > 0) == (verdict.verdict == FAKE)


def test_what_is_said_of_regions_is_what_the_experts_answered(detector, astronaut):
    verdict = detector.predict_images([astronaut], ["a"])[0]
    assert [region.name for region in verdict.regions] == list(REGIONS)
    assert verdict.regions[0].disagreement is None and verdict.regions[0].rank is None
    predictions = {
        name: value[0].float().numpy()
        for name, value in detector.ensemble(detector.cutter([astronaut]).views).items()
    }
    for place, region in enumerate(verdict.regions):
        assert region.predictions["lite.age_years"] == pytest.approx(
            predictions["lite.age_years"][place, 0], abs=0.01
        )
        assert list(region.predictions["lite.gender"].values()) == pytest.approx(
            predictions["lite.gender"][place], abs=0.01
        )
        if place:  # among the percentiles of the real faces that it was trained on
            known = detector.checkpoint.arrays["disagreement"][:, PARTS.index(region.name)]
            below = int((known < region.disagreement).sum())
            assert below == len(known) or 100 * region.rank <= PERCENTILES[below]
            assert below == 0 or 100 * region.rank >= PERCENTILES[below - 1]
    assert len({region.rank for region in verdict.regions}) > 4
    (pair,) = [
        p
        for p in verdict.pairs
        if (p.output, p.first, p.second) == ("lite.identity", "upper", "lower")
    ]
    upper, lower = (
        predictions["lite.identity"][REGIONS.index(name)] for name in ("upper", "lower")
    )
    assert pair.value == pytest.approx(
        upper @ lower / np.linalg.norm(upper) / np.linalg.norm(lower), abs=1e-3
    )


def test_a_face_worse_than_those_of_training_is_not_judged(detector, astronaut):
    height, width = astronaut.shape[:2]
    small = Image.fromarray(astronaut).resize(
        (width * 2 // 7, height * 2 // 7), Image.Resampling.LANCZOS
    )
    verdict = detector.predict(small)
    assert verdict.verdict == UNSURE and verdict.p_fake is not None
    assert any("px wide, less than 99 of 100" in doubt for doubt in verdict.doubts), verdict.doubts


def test_python_takes_a_file_an_array_and_a_picture(detector, pictures, astronaut, tmp_path):
    turned = Image.fromarray(astronaut).transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[ORIENTATION] = 6  # seen upright
    said = [
        detector.predict(given)
        for given in (pictures / "a face – ü.png", astronaut, Image.fromarray(astronaut), turned)
    ]
    assert len({round(verdict.p_fake, 3) for verdict in said}) == 1 and said[0].path.endswith(
        "ü.png"
    )
    nobody = detector.predict(str(pictures / "noise.png"))
    assert nobody.error == "no face found" and nobody.p_fake is None
    odd = (astronaut / 255, astronaut[..., 0], astronaut[:0], astronaut[:3, :3], None)
    for wrong in (pictures / "text.jpg", tmp_path / "none.png", *odd):
        with pytest.raises(ImageError):
            detector.predict(wrong)
    assert predict.Detector.load(inference_detector.BUNDLED).threshold == detector.threshold


def test_a_checkpoint_of_other_weights_is_refused(tmp_path):
    bundled = Checkpoint.load(predict.BUNDLED)
    bundled.info["weights"] = {"lite": "0" * 64}
    with pytest.raises(ValueError, match="lite 000000000000.*preprocess and train again"):
        predict.Detector(bundled.save(tmp_path / "other"))


def test_a_face_that_no_expert_answers_has_no_score(detector, astronaut, monkeypatch):
    """One of two faces, so that the other's verdict is untouched."""
    ask = inference_detector.Ensemble.__call__

    def silent_about_the_first(self, views):
        said = ask(self, views)
        for value in said.values():
            value[0] = np.nan
        return said

    alone = detector.predict_images([astronaut], ["b"])[0]
    monkeypatch.setattr(inference_detector.Ensemble, "__call__", silent_about_the_first)
    first, second = detector.predict_images([astronaut, astronaut], ["a", "b"])
    assert (
        first.p_fake is None
        and first.error == "no expert has an answer about this face"
        and not first.reasons
    )
    assert "not scored" in predict.show(first)
    assert second.p_fake == pytest.approx(alone.p_fake, abs=1e-3)


def test_a_dumps_face_without_answers_has_no_score(tmp_path, capsys):
    from tests.synthetic import write_dump
    from train import Config, main

    dump = predict.read_dump(write_dump(tmp_path / "made" / "toy"))
    detector = inference_detector.Explainer(
        main(Config(features=(dump.path,), out=tmp_path / "detector"))
    )
    lost = int(np.flatnonzero(dump.rows["split"] == "test")[3])
    dump.arrays = {name: np.array(value) for name, value in dump.arrays.items()}
    for value in dump.arrays.values():
        value[lost] = np.nan
    with predict.score_dump(detector, dump, "test").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows if not row["p_fake"]] == [dump.rows["path"][lost]]
    assert all((row["verdict"] == "") == (row["p_fake"] == "") for row in rows)
    assert "1 faces have not a single feature and no score" in capsys.readouterr().out


def test_a_folder_of_weights_without_the_bundled_one_does_not_break_it(tmp_path, astronaut):
    assert (
        predict.Detector(weights_dir=tmp_path).ensemble.weights
        == predict.Detector().ensemble.weights
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_detector_computes_as_the_answers_were_that_it_was_trained_on(tmp_path, precision):
    bundled = Checkpoint.load(predict.BUNDLED)
    bundled.info["precision"] = precision
    expert = predict.Detector(bundled.save(tmp_path)).ensemble.experts[0]
    assert expert.bf16 == (precision == "bfloat16")
