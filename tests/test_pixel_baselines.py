"""The pixel baselines: training that resumes, crops, and the fitted system."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data.degrade import Condition
from data.feature_dataset import FeatureDataset
from data.images import ImageError
from evaluation import pixel_baselines
from evaluation.mesonet import MesoInception4
from evaluation.metrics import auc, fpr_at
from evaluation.pixel_baselines import (
    NETWORKS,
    Budget,
    Classifier,
    PixelCutter,
    load_run,
    network_system,
    train,
)
from features.regions import Crop
from models.heads import calibrate

PX = 32
CPU = torch.device("cpu")
MESO = "mesoinception4"


# Training


def pictures(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise; in every second picture, the fakes, with a checkerboard of 4 px over it."""
    labels = torch.arange(n) % 2
    noise = torch.randint(0, 196, (n, 3, PX, PX), generator=torch.Generator().manual_seed(seed))
    cell = torch.arange(PX) // 4 % 2
    board = (cell[:, None] ^ cell) * 60 * labels[:, None, None, None]
    return (noise + board).to(torch.uint8), labels.float()


TRAIN, VAL, TEST = pictures(128, 0), pictures(64, 1), pictures(100, 2)


def fit(path: Path, faces=TRAIN, val=VAL, epochs: int = 3, seed: int = 0) -> tuple:
    """Returns: the model as training leaves it, and its run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Classifier(MesoInception4(PX), CPU)
        run = train(model, faces, val, Budget(PX, epochs, 16), 2e-3, seed, path)
    model.net.load_state_dict(run["best"])
    return model, run


def same(one: dict, other: dict) -> bool:
    pairs = zip(one["best"].values(), other["best"].values(), strict=True)
    values = ("history", "epoch", "a", "b")
    return all(torch.equal(*pair) for pair in pairs) and all(one[k] == other[k] for k in values)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> tuple[Classifier, dict]:
    return fit(tmp_path_factory.mktemp("fitted") / "run.pt", epochs=10)


def test_training_learns_and_calibrates_on_validation_faces(fitted) -> None:
    model, run = fitted
    logit = run["a"] * model.score(TEST[0]) + run["b"]
    assert auc(TEST[1].numpy(), logit) > 0.9
    assert (run["a"], run["b"]) == calibrate(model.score(VAL[0]), VAL[1].numpy())
    assert model.score(TEST[0][:0]).shape == (0,)


def test_training_learns_nothing_from_random_labels(tmp_path) -> None:
    rng = np.random.default_rng(0)
    crops, labels = pictures(200, 3)
    wrong = [torch.from_numpy(rng.permutation(values.numpy())) for values in (TRAIN[1], VAL[1])]
    model, _ = fit(tmp_path / "run.pt", (TRAIN[0], wrong[0]), (VAL[0], wrong[1]))
    chance = auc(rng.permutation(labels.numpy()), model.score(crops))
    assert chance == pytest.approx(0.5, abs=0.15)


def test_the_epoch_with_the_highest_validation_auc_is_chosen(fitted, tmp_path) -> None:
    model, run = fitted
    aucs = [row["val_auc"] for row in run["history"]]
    assert len(aucs) == 10 and aucs[run["epoch"] - 1] == max(aucs)
    assert auc(VAL[1].numpy(), model.score(VAL[0])) == max(aucs)
    # Inverted validation labels: what is learned makes it worse, so an early epoch is the best.
    model, run = fit(tmp_path / "run.pt", val=(VAL[0], 1 - VAL[1]), epochs=10)
    assert run["epoch"] < 10
    best = max(row["val_auc"] for row in run["history"])
    assert auc(1 - VAL[1].numpy(), model.score(VAL[0])) == best


def test_classes_have_the_same_weight_however_many_faces_they_have(tmp_path) -> None:
    labels = torch.cat([torch.zeros(64), torch.ones(8)])
    grey = torch.full((72, 3, PX, PX), 128, dtype=torch.uint8), labels
    model, _ = fit(tmp_path / "run.pt", grey, (VAL[0] * 0 + 128, VAL[1]), epochs=20)
    assert abs(model.score(grey[0][:1]).item()) < 0.2  # the logit of 8 in 72 is -2.1


def test_the_seed_decides_everything_and_the_callers_generator_is_left_alone(tmp_path) -> None:
    _, one = fit(tmp_path / "1", epochs=1)
    _, two = fit(tmp_path / "2", epochs=1)
    _, other = fit(tmp_path / "3", epochs=1, seed=1)
    assert same(one, two) and not same(one, other)


class KilledError(Exception):
    pass


def test_a_killed_run_continues_to_the_same_result(tmp_path, monkeypatch, fitted) -> None:
    path = tmp_path / "run.pt"
    batches, epochs = pixel_baselines._batches, []

    def batches_or_kill(*given):
        epochs.append(None)
        if len(epochs) in (3, 5):
            yield next(batches(*given))
            raise KilledError
        yield from batches(*given)

    monkeypatch.setattr(pixel_baselines, "_batches", batches_or_kill)
    for _ in range(2):
        with pytest.raises(KilledError):
            fit(path, epochs=10)
    _, run = fit(path, epochs=10)
    assert same(run, fitted[1]) and len(epochs) == 12
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]
    again = fit(path, epochs=10)[1]  # finished: nothing is trained again
    assert same(again, run) and len(epochs) == 12
    assert not run["parts"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file", b"not a run"])
def test_a_damaged_file_is_refused(content, tmp_path) -> None:
    path = tmp_path / "run.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="run.pt: damaged; delete it"):
        load_run(path)


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path) -> None:
    model = Classifier(MesoInception4(PX), CPU)
    torch.nn.init.constant_(model.net.classifier[-1].bias, math.inf)
    with pytest.raises(ValueError, match="diverged in epoch 1: the loss is (inf|nan)"):
        train(model, TRAIN, VAL, Budget(PX, 1, 16), 2e-3, 0, tmp_path / "run.pt")


# The system


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> tuple[Path, FeatureDataset]:
    """200 pictures of noise; the fakes have a bright square where the face is."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    label = np.arange(200) % 2
    landmarks = np.array([[40, 45], [80, 45], [60, 65], [45, 85], [75, 85]], float)
    for i, fake in enumerate(label):
        image = rng.integers(0, 120, (128, 128, 3)).astype(np.uint8)
        image[50:80, 45:75] += np.uint8(90 * fake)
        cv2.imwrite(str(root / f"{i:03d}.png"), image)
    rows = {
        "dataset": np.full(200, "made"),
        "path": np.array([f"{i:03d}.png" for i in range(200)], dtype=object),
        "face": np.zeros(200, int),
        "label": label,
        "group": np.array([f"{i:03d}" for i in range(200)], dtype=object),
        "phash": np.array([f"{i:016x}" for i in range(200)]),
        "condition": np.full(200, ""),
        "pictures": np.full(200, ""),
    }
    for i, point in enumerate(landmarks):
        rows |= {f"lx{i}": np.full(200, point[0]), f"ly{i}": np.full(200, point[1])}
    return root, FeatureDataset({}, rows)


def part(faces: FeatureDataset, start: int, end: int) -> FeatureDataset:
    return faces.select(np.arange(start, end))


def test_crops_keep_the_order_of_the_faces_and_are_cut_once(faces, monkeypatch) -> None:
    root, table = faces
    cutter, read, cut_again = PixelCutter({"made": root}), [], pixel_baselines.cut_again

    def noted(paths, landmarks, crop, **more):
        assert crop == Crop.of_box(1.3, PX)
        read.extend(path.name for path in paths)
        return cut_again(paths, landmarks, crop, **more)

    monkeypatch.setattr(pixel_baselines, "cut_again", noted)
    first = cutter(part(table, 0, 6), PX)
    mixed = cutter(table.select(np.array([7, 3, 5])), PX)
    assert first.shape == (6, 3, PX, PX)
    assert (mixed[1] == first[3]).all() and (mixed[2] == first[5]).all()
    assert read == [*(f"{i:03d}.png" for i in range(6)), "007.png"]
    centre = first[:, :, 12:20, 12:20].float().mean((1, 2, 3))
    assert centre[1] > centre[0] + 50
    assert cutter(part(table, 0, 0), PX).shape == (0, 3, PX, PX)


def test_a_condition_degrades_the_picture_before_it_is_cut(faces) -> None:
    root, table = faces
    cutter, dark = PixelCutter({"made": root}), part(table, 0, 4)
    dark.rows["condition"] = np.full(4, str(Condition("contrast", 5)))
    ratio = cutter(dark, PX).float().mean() / cutter(part(table, 0, 4), PX).float().mean()
    assert ratio == pytest.approx(0.35, abs=0.02)
    dark.rows["condition"][0] = ""
    with pytest.raises(ValueError, match="several conditions"):
        cutter(dark, PX)


def test_missing_pictures_are_named(faces, tmp_path) -> None:
    _, table = faces
    with pytest.raises(FileNotFoundError, match="pictures of made are not there"):
        PixelCutter({"made": tmp_path / "nowhere"})(table, PX)
    with pytest.raises(ImageError, match=r"000\.png"):
        PixelCutter({"made": tmp_path})(table, PX)


def test_a_system_learns_and_is_found_again_by_what_it_was_fitted_on(
    faces, tmp_path, monkeypatch
) -> None:
    root, table = faces
    monkeypatch.setitem(NETWORKS, MESO, replace(NETWORKS[MESO], quick=Budget(PX, 6, 8)))
    fits, cutter = [], PixelCutter({"made": root})
    monkeypatch.setattr(
        pixel_baselines, "train", lambda *given: fits.append(given) or train(*given)
    )
    faces, val, test = part(table, 0, 80), part(table, 80, 140), part(table, 140, 200)

    def fitted(seed: int = 0):
        system = network_system(MESO, cutter, tmp_path, "cpu", 0.1, seed, True, None)
        return system.fit(faces, val)

    torch.manual_seed(5)
    once = fitted()
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)  # the caller's generator is left alone
    again = fitted()
    assert len(fits) == 1 and "from scratch; 32 px" in once.notes[0]
    p = once.p_fake(test)
    assert ((p > 0) & (p < 1)).all() and auc(test.rows["label"], p) > 0.9
    assert (p == again.p_fake(test)).all() and once.threshold == again.threshold
    assert 0.05 < fpr_at(val.rows["label"], once.p_fake(val), once.threshold) <= 0.1
    monkeypatch.setitem(NETWORKS, MESO, replace(NETWORKS[MESO], quick=Budget(PX, 1, 8)))
    fitted()
    fitted(seed=1)
    val.rows["phash"][0] = "f" * 16  # another picture of the same name
    fitted()
    assert len(fits) == 4 and len(list(tmp_path.iterdir())) == 4


def test_too_few_faces_are_refused(faces, tmp_path) -> None:
    root, table = faces
    system = network_system(MESO, PixelCutter({"made": root}), tmp_path, "cpu", 0.1, 0, True, None)
    with pytest.raises(ValueError, match="validation needs 25 faces"):
        system.fit(part(table, 0, 80), part(table, 80, 120))
    with pytest.raises(ValueError, match="training needs 1 faces"):
        system.fit(table.select(np.arange(0, 80, 2)), part(table, 80, 140))
