"""The same picture called real and fake is named when a dump is made."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import pytest

from data.dump import read_dump
from data.duplicates import two_labels
from preprocessing_pipeline import cli, main
from tests.toy_pictures import arguments, configured, write_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


def test_a_picture_in_real_and_in_fake_is_named(weights, tmp_path, astronaut, capsys):
    root = tmp_path / "set"
    for label, light in (("real", 1.0), ("fake", 0.8)):
        (root / label).mkdir(parents=True)
        picture = cv2.convertScaleAbs(astronaut[:240, 60:300, ::-1], alpha=light)
        cv2.imwrite(str(root / label / f"{label}.png"), picture)
    config = configured(root, weights, tmp_path / "dump")
    assert not any("same content" in remark for remark in two_labels(read_dump(main(config))))
    shutil.copy(root / "real/real.png", root / "fake/copy.png")
    again = cv2.imread(str(root / "real/real.png"))[:, ::-1]  # another look, so a pair of its own
    for name in ("real/flipped.png", "fake/flipped.jpg"):
        cv2.imwrite(str(root / name), again, [cv2.IMWRITE_JPEG_QUALITY, 98])
    assert cli(arguments(config, "--overwrite")) == 0
    printed = capsys.readouterr().err
    assert "warning: 1 files are called both real and fake" in printed
    assert "real/real.png = fake/copy.png: one of the labels is wrong" in printed
    assert "real/flipped.png = fake/flipped.jpg: usual for face swaps" in printed
