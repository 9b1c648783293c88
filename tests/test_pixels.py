"""Networks as systems of an evaluation: the crops they see, and that a fitted one is found again."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from data.degrade import Condition
from data.feature_dataset import FeatureDataset
from data.images import ImageError
from evaluation import pixels
from evaluation.metrics import auc, fpr_at
from evaluation.pixels import Cutter, network
from models.baselines import crop_for
from models.networks import Settings

SQUARE = np.array([[40, 45], [80, 45], [60, 65], [45, 85], [75, 85]])  # landmarks in every picture
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """200 pictures of noise; the fakes have a bright square where the face is."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    label = np.arange(200) % 2
    paths = []
    for i, fake in enumerate(label):
        image = rng.integers(0, 120, (128, 128, 3)).astype(np.uint8)
        image[50:80, 45:75] += np.uint8(90 * fake)
        paths.append(f"{i:03d}.png")
        cv2.imwrite(str(root / paths[-1]), image)
    rows = {
        "dataset": np.full(200, "made"),
        "path": np.array(paths, dtype=object),
        "face": np.zeros(200, int),
        "label": label,
        "phash": np.array([f"{i:016x}" for i in range(200)]),
        "condition": np.full(200, ""),
        **{
            f"l{axis}{i}": np.full(200, float(point[at]))
            for i, point in enumerate(SQUARE)
            for at, axis in enumerate("xy")
        },
    }
    return root, FeatureDataset({}, rows)


def part(faces, start, end):
    return faces.select(np.arange(start, end))


def test_faces_come_in_their_order_and_are_cut_once(faces, monkeypatch):
    root, table = faces
    cut, crop = Cutter({"made": root}), crop_for("mesoinception4", 32)
    read = []
    again = pixels.cut_again
    monkeypatch.setattr(
        pixels, "cut_again", lambda paths, *rest: read.extend(paths) or again(paths, *rest)
    )
    first = cut(part(table, 0, 6), crop)
    mixed = cut(table.select(np.array([7, 3, 5])), crop)
    assert (
        first.shape == (6, 3, 32, 32)
        and (mixed[1] == first[3]).all()
        and (mixed[2] == first[5]).all()
    )
    assert [path.name for path in read] == [*(f"{i:03d}.png" for i in range(6)), "007.png"]
    assert first[1, :, 12:20, 12:20].float().mean() > first[0, :, 12:20, 12:20].float().mean() + 50
    assert cut(part(table, 0, 0), crop).shape == (0, 3, 32, 32)


def test_a_condition_changes_the_picture_before_it_is_cut(faces):
    root, table = faces
    cut, crop = Cutter({"made": root}), crop_for("mesoinception4", 32)
    dark = part(table, 0, 4)
    dark.rows["condition"] = np.full(4, str(Condition("contrast", 5)))
    ratio = cut(dark, crop).float().mean() / cut(part(table, 0, 4), crop).float().mean()
    assert ratio == pytest.approx(0.35, abs=0.02)
    dark.rows["condition"][0] = ""
    with pytest.raises(ValueError, match="several conditions"):
        cut(dark, crop)


def test_pictures_that_are_gone_are_named(faces, tmp_path):
    _, table = faces
    with pytest.raises(FileNotFoundError, match="pictures of made are not there"):
        Cutter({"made": tmp_path / "nowhere"})(table, crop_for("mesoinception4", 32))
    with pytest.raises(ImageError, match=r"000\.png"):
        Cutter({"made": tmp_path})(table, crop_for("mesoinception4", 32))


def test_a_network_learns_is_kept_and_is_found_by_what_it_was_fitted_on(
    faces, tmp_path, monkeypatch
):
    root, table = faces
    settings = Settings(px=32, epochs=6, batch_size=8)
    monkeypatch.setitem(
        pixels.NETWORKS,
        "mesoinception4",
        replace(pixels.NETWORKS["mesoinception4"], quick=settings),
    )
    fits = []
    fit = pixels.fit_network
    monkeypatch.setattr(
        pixels, "fit_network", lambda *args, **more: fits.append(more) or fit(*args, **more)
    )
    train, val, test = part(table, 0, 80), part(table, 80, 140), part(table, 140, 200)

    def fitted(seed=0):
        return network(
            "mesoinception4", Cutter({"made": root}), tmp_path, "cpu", 0.1, seed, True, None
        ).fit(train, val)

    once, again = fitted(), fitted()
    assert (
        len(fits) == 1 and fits[0]["patience"] == fits[0]["epochs"] == 6
    )  # it does not stop while the rate is high
    assert "from scratch; 32 px" in once.notes[0]
    p = once.p_fake(test)
    assert (p == again.p_fake(test)).all() and once.threshold == again.threshold
    assert auc(test.rows["label"], p) > 0.9
    assert fpr_at(val.rows["label"], once.p_fake(val), once.threshold) <= 0.1
    fitted(seed=1)
    val.rows["phash"][0] = "f" * 16  # another picture of the same name
    fitted()
    assert len(fits) == 3 and not list(tmp_path.glob("*.state"))
