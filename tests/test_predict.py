"""predict.py with the bundled detector and real faces that ship with the packages."""

import csv
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import predict
from command_line import BAD_INPUT, run
from data.images import ORIENTATION, ImageError
from data.reader import Reader
from features.disagreement import PARTS
from features.explain import HIGH, LOW, MEDIAN, PERCENTILES, topic
from features.regions import REGIONS
from inference import detector as inference_detector
from inference.files import predict_files
from inference.verdict import CLEAR, FAKE, UNSURE
from models.checkpoint import LITE, Checkpoint
from tests.synthetic import write_dump
from train import Config, main

VERDICTS = (CLEAR, FAKE, UNSURE)
pytestmark = pytest.mark.usefixtures("lite_is_default")


def predict_py(*arguments):
    """The exit code of a command line."""
    try:
        return run(predict.main, predict.Config, predict.__doc__, [*map(str, arguments)], "predict")
    except SystemExit as stopped:
        return stopped.code


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, astronaut):
    """A face, the same face mirrored, a picture without a face, and text named .jpg."""
    folder = tmp_path_factory.mktemp("pictures")
    Image.fromarray(astronaut).save(folder / "a face – ü.png")
    Image.fromarray(astronaut[:, ::-1]).save(folder / "mirrored.jpg", quality=95)
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    (folder / "text.jpg").write_text("not a picture")
    return folder


@pytest.fixture(scope="module")
def verdict(detector, astronaut):
    return detector.predict(astronaut)


@pytest.fixture(scope="module")
def outputs(detector, astronaut):
    """Raw outputs for the same face."""
    views = detector.cutter([astronaut]).views
    return {name: value.numpy() for name, value in detector.ensemble(views).items()}


def test_a_folder_from_the_command_line(pictures, tmp_path, capsys):
    tables = ("--csv", tmp_path / "v.csv", "--json", tmp_path / "v.json")
    assert predict_py(pictures, *tables, "--explain", tmp_path / "cards") == predict.NOT_SCORED
    with (tmp_path / "v.csv").open(newline="", encoding="utf-8") as file:
        rows = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    assert set(rows) == {path.name for path in pictures.iterdir()}
    assert rows["noise.png"]["error"] == "no face found" and rows["noise.png"]["face"] == ""
    assert "not an image" in rows["text.jpg"]["error"]
    found = json.loads((tmp_path / "v.json").read_text(encoding="utf-8"))
    found = {Path(row["path"]).name: row for row in found}
    for name in ("a face – ü.png", "mirrored.jpg"):
        assert 0 < float(rows[name]["p_fake"]) < 1 and rows[name]["verdict"] in VERDICTS
        assert rows[name]["face"] == "0" and found[name]["error"] == ""
        assert 1 <= len(found[name]["reasons"]) <= 3
        assert rows[name]["reasons"].split(" | ")[0] == found[name]["reasons"][0]["sentence"]
        assert found[name]["quality"]["overall"] == "good"
    for suffix in ("png", "json"):
        assert len(list((tmp_path / "cards").glob(f"*.{suffix}"))) == 2
    whole = json.loads(next((tmp_path / "cards").glob("*face*.json")).read_text(encoding="utf-8"))
    assert whole["p_fake"] == found["a face – ü.png"]["p_fake"]
    assert len(whole["regions"]) == 8 and whole["pairs"]
    assert "2 faces scored, 2 inputs not scored" in capsys.readouterr().err


def test_exit_codes(pictures, tmp_path, capsys):
    assert predict_py(tmp_path / "none.jpg") == predict.NOT_SCORED
    assert "none.jpg" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert predict_py(tmp_path / "empty") == predict.NOT_SCORED


@pytest.mark.parametrize(
    "wrong",
    [
        ("--batch-size", "0"),
        ("--checkpoint", "."),
        ("--no-such-option",),
        ("--device", "cuda:99"),
        ("--csv", "file/v.csv"),
        ("--explain", "file"),
        ("--json", "-", "--csv", "-"),
        ("--features", "."),
        ("--max-pixels", "-1"),
        ("",),
    ],
)
def test_mistakes_have_an_exit_code(pictures, tmp_path, monkeypatch, wrong):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert predict_py(pictures / "mirrored.jpg", *wrong) == BAD_INPUT


@pytest.mark.filterwarnings("error:Glyph")
def test_any_file_name_works(pictures, tmp_path, capfdbinary):
    odd = tmp_path / "odd"
    odd.mkdir()
    face = (pictures / "mirrored.jpg").read_bytes()
    names = [b"not utf-8 \xff.jpg", "🙂".encode() * 60 + b".jpg", b"line\nbreak.jpg"]
    for name in names:
        Path(os.fsdecode(os.fsencode(odd) + b"/" + name)).write_bytes(face)
    assert predict_py(odd, "--csv", tmp_path / "v.csv", "--explain", tmp_path / "cards") == 0
    with (tmp_path / "v.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert {os.path.basename(os.fsencode(row["path"])) for row in rows} == set(names)  # noqa: PTH119
    assert len(list((tmp_path / "cards").glob("*.png"))) == 3
    capfdbinary.readouterr()  # pytest cannot decode such names


def test_verdicts_come_in_the_order_of_the_pictures(detector, pictures):
    paths = sorted(pictures.iterdir())[::-1]
    found = [verdict.path for verdict in predict_files(detector, paths, 3, Reader())]
    assert found == [str(path) for path in paths]


def test_a_file_that_is_named_twice_is_read_once(detector, pictures):
    given = [pictures / "mirrored.jpg", pictures, pictures / "mirrored.jpg"]
    found = [verdict.path for verdict in predict_files(detector, given, 4, Reader())]
    assert sorted(found) == sorted(str(path) for path in pictures.iterdir())


@pytest.mark.parametrize(
    "key", ["weights", "outputs", "features", "head", "calibration", "threshold", "limits"]
)
def test_an_incomplete_checkpoint_is_refused(tmp_path, key):
    bundled = Checkpoint.load(LITE)
    del bundled.info[key]
    with pytest.raises(ValueError, match=f"lacks {key}"):
        predict.Detector(bundled.save(tmp_path / "half"))


def test_screen_output_is_pure_json(pictures, capsys):
    assert predict_py(pictures, "--json", "-") == predict.NOT_SCORED
    printed = capsys.readouterr()
    assert json.loads(printed.out)[0]["verdict"] in VERDICTS
    assert "text.jpg" in printed.err


def test_a_face_scores_the_same_alone_and_among_others(detector, astronaut, verdict):
    other = np.ascontiguousarray(astronaut[20:300, 100:400])
    found = detector.predict_images([other, astronaut], ["b", "a"])
    assert [each.path for each in found] == ["b", "a"]
    assert abs(verdict.p_fake - found[1].p_fake) < 0.01


def test_contributions_sum_to_the_logit(verdict):
    logit = np.log(verdict.p_fake / (1 - verdict.p_fake))
    assert sum(verdict.families.values()) + verdict.baseline_logit == pytest.approx(logit, abs=1e-4)
    families = {"attributes", "identities", "vision_language", "expressions", "traces"}
    assert set(verdict.families) == families
    whole = verdict.to_json(whole=True)
    assert sum(whole["families"].values()) + whole["usual"] == pytest.approx(logit, abs=1e-3)


def test_the_contribution_of_a_reason_is_that_of_its_features(detector, verdict, outputs):
    """The sum over the features of its topic that fit the verdict."""
    values, p_fake = detector.score(outputs)
    assert np.isclose(p_fake[0], verdict.p_fake, atol=1e-3)
    names, reference = detector.features, detector.percentiles
    parts = detector.head.contributions(values, reference[MEDIAN])[0][0]
    fake, wanted = verdict.verdict == FAKE, 0.0
    for column, name in enumerate(names):
        if topic(name) == topic(verdict.reasons[0].feature):
            low, high = reference[[LOW, HIGH] if fake else [2, 4], column]  # 25th, 75th percentile
            inside = low <= values[0, column] <= high
            wanted += parts[column] if inside != fake and (parts[column] > 0) == fake else 0.0
    assert np.isclose(verdict.reasons[0].contribution, wanted, atol=1e-3)
    assert (wanted > 0) == fake


def test_regions_show_the_outputs_of_the_experts(detector, verdict, outputs):
    assert [region.name for region in verdict.regions] == list(REGIONS)
    assert verdict.regions[0].disagreement is None and verdict.regions[0].rank is None
    outputs = {name: value[0].astype(np.float32) for name, value in outputs.items()}
    for place, region in enumerate(verdict.regions):
        found, age = region.predictions, outputs["lite.age_years"][place, 0]
        assert found["lite.age_years"] == pytest.approx(age, abs=0.01)
        gender = outputs["lite.gender"][place]
        assert list(found["lite.gender"].values()) == pytest.approx(gender, abs=0.01)
        if place:  # among the percentiles of real faces
            known = detector.disagreement[:, PARTS.index(region.name)]
            below = int((known < region.disagreement).sum())
            assert below == len(known) or 100 * region.rank <= PERCENTILES[below]
            assert below == 0 or 100 * region.rank >= PERCENTILES[below - 1]
    assert len({region.rank for region in verdict.regions}) > 4
    wanted = ("lite.identity", "upper", "lower")
    (pair,) = [p for p in verdict.pairs if (p.output, p.first, p.second) == wanted]
    upper, lower = (outputs["lite.identity"][REGIONS.index(name)] for name in ("upper", "lower"))
    cosine = upper @ lower / np.linalg.norm(upper) / np.linalg.norm(lower)
    assert pair.value == pytest.approx(cosine, abs=1e-3)


def test_a_face_smaller_than_those_of_training_cannot_be_told(detector, astronaut):
    small = Image.fromarray(astronaut).resize((146, 146), Image.Resampling.LANCZOS)
    verdict = detector.predict(small)
    assert verdict.verdict == UNSURE and verdict.p_fake is not None
    assert any("px wide" in reason for reason in verdict.reasons_to_abstain)


def test_python_takes_a_file_an_array_and_a_picture(detector, pictures, astronaut, tmp_path):
    turned = Image.fromarray(astronaut).transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[ORIENTATION] = 6  # seen upright
    given = (pictures / "a face – ü.png", astronaut, Image.fromarray(astronaut), turned)
    found = [detector.predict(each) for each in given]
    assert len({round(verdict.p_fake, 3) for verdict in found}) == 1
    assert found[0].path.endswith("ü.png")
    nobody = detector.predict(str(pictures / "noise.png"))
    assert nobody.error == "no face found" and nobody.p_fake is None
    odd = (astronaut / 255, astronaut[..., 0], astronaut[:0], astronaut[:3, :3], None)
    for wrong in (pictures / "text.jpg", tmp_path / "none.png", *odd):
        with pytest.raises(ImageError):
            detector.predict(wrong)
    assert predict.Detector.load(LITE).threshold == detector.threshold


def test_a_checkpoint_of_other_weights_is_refused(tmp_path):
    bundled = Checkpoint.load(LITE)
    bundled.info["weights"] = {"lite": "0" * 64}
    with pytest.raises(ValueError, match="lite 000000000000.*preprocess and train again"):
        predict.Detector(bundled.save(tmp_path / "other"))


def test_a_face_without_expert_outputs_has_no_score(detector, astronaut, verdict, monkeypatch):
    """The other face of the batch is unaffected."""
    infer = inference_detector.Ensemble.__call__

    def without_the_first(self, views):
        found = infer(self, views)
        for value in found.values():
            value[0] = np.nan
        return found

    monkeypatch.setattr(inference_detector.Ensemble, "__call__", without_the_first)
    first, second = detector.predict_images([astronaut, astronaut], ["a", "b"])
    assert first.p_fake is None and first.error and not first.reasons
    assert "not scored" in first.to_text()
    assert second.p_fake == pytest.approx(verdict.p_fake, abs=1e-3)


def test_a_missing_expert_is_named(detector, astronaut, monkeypatch):
    infer = inference_detector.Ensemble.__call__

    def without_traces(self, views):
        found = infer(self, views)
        return {k: v * np.nan if k.startswith("traces.") else v for k, v in found.items()}

    monkeypatch.setattr(inference_detector.Ensemble, "__call__", without_traces)
    assert detector.predict(astronaut).quality["overall"] == "good, no output of traces"


def test_a_dump_is_scored_into_predictions_csv(tmp_path, capsys):
    dump = predict.read_dump(write_dump(tmp_path / "made" / "toy"))
    checkpoint = main(Config(features=(dump.path,), out=tmp_path / "detector"))
    assert predict_py("--features", dump.path, "--checkpoint", checkpoint) == 0
    assert "AUC" in capsys.readouterr().out
    assert predict_py("--features", dump.path, "--split", "tset", "--checkpoint", checkpoint) == 2
    assert "no rows in split 'tset'; it has test" in capsys.readouterr().err
    lost = int(np.flatnonzero(dump.rows["split"] == "test")[3])
    dump.arrays = {name: np.array(value) for name, value in dump.arrays.items()}
    for value in dump.arrays.values():
        value[lost] = np.nan
    out = predict.score_dump(inference_detector.Explainer(checkpoint), dump, "test", "mine 0123")
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows if not row["p_fake"]] == [dump.rows["path"][lost]]
    assert {row["checkpoint"] for row in rows} == {"mine 0123"}
    assert all((row["verdict"] == "") == (row["p_fake"] == "") for row in rows)
    assert "1 faces have no feature and no score" in capsys.readouterr().err


def test_a_weights_folder_without_the_bundled_weights_is_no_error(tmp_path, detector):
    assert (
        predict.Detector(LITE, weights_dir=tmp_path).ensemble.weights == detector.ensemble.weights
    )


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_precision_is_that_of_the_training_dumps(tmp_path, precision):
    bundled = Checkpoint.load(LITE)
    bundled.info["precision"] = precision
    ensemble = predict.Detector(bundled.save(tmp_path)).ensemble
    assert ensemble.experts[0].bf16 == (precision == "bfloat16")
    assert ensemble.tf32 == (precision == "tf32")


def test_a_prior_moves_p_fake_and_no_verdict(pictures, tmp_path):
    found = {}
    for prior in (0.5, 0.1):
        table = tmp_path / f"{prior}.json"
        assert predict_py(pictures / "mirrored.jpg", "--json", table, "--prior", prior) == 0
        (found[prior],) = json.loads(table.read_text(encoding="utf-8"))
    odds = {prior: row["p_fake"] / (1 - row["p_fake"]) for prior, row in found.items()}
    assert odds[0.5] / odds[0.1] == pytest.approx(9) and found[0.1]["prior"] == 0.1
    assert found[0.1]["verdict"] == found[0.5]["verdict"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("a.png", "--prior", "1"), "--prior lies between 0 and 1 (given: 1.0)"),
        (("--prior", "0.1"), "--prior needs pictures"),
    ],
)
def test_a_prior_that_is_none_is_refused(options, words, capsys):
    assert predict_py(*options) == 2
    assert words in capsys.readouterr().err


def test_a_rank_takes_no_prior(pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predict, "Detector", lambda *_: SimpleNamespace(prior=None))
    picture = pictures / "mirrored.jpg"
    assert predict_py(picture, "--prior", "0.1", "--csv", tmp_path / "v.csv") == 2
    assert (
        "rank among real faces, which no prior changes; leave out --prior"
        in capsys.readouterr().err
    )
