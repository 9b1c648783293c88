"""The region network's teachers, disturbances and training, on a dozen copies of one face."""

import csv
import zipfile

import cv2
import numpy as np
import pytest
import torch

from data.distill import RACES, Augmented, load_teachers, missing_pixels, teachers_from_dump
from data.dump import read_dump
from models import BUNDLED
from models.region_net import RegionExpert, load_region_net
from preprocessing_pipeline import Config as PreprocessConfig
from preprocessing_pipeline import main as preprocess
from scripts.train_region_net import Config, predict_all, train, verification

COUNT = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory, astronaut):
    """A teachers' folder in the real format: two 'people' (the face, and it upside down) of opposite gender."""
    folder = tmp_path_factory.mktemp("teachers")
    face = cv2.resize(astronaut[60:190, 160:290], (112, 112))
    rng = np.random.default_rng(0)
    second = np.arange(COUNT) % 2
    with zipfile.ZipFile(folder / "aligned112.zip", "w") as archive:
        for index in range(COUNT):
            picture = (face if second[index] == 0 else face[::-1]) * rng.uniform(0.8, 1.0)
            archive.writestr(
                f"{index:05}.webp",
                cv2.imencode(".webp", picture.astype(np.uint8)[..., ::-1])[1].tobytes(),
            )
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["aligned", "source", "image", "identity", "age", "gender", "race", "fold"])
        for index, other in enumerate(second):
            fold = "test" if index >= COUNT - 8 else "train"
            labels = (20 + 40 * other, other, other) if index < 40 else ("", "", "")
            writer.writerow((f"{index:05}.webp", "made", "", "", *labels, fold))
    people = rng.normal(size=(2, 512))
    np.save(folder / "identity.npy", people[second].astype(np.float16))
    np.save(folder / "appearance.npy", rng.normal(size=(2, 128))[second].astype(np.float16))
    np.save(
        folder / "age_gender.npy",
        np.stack([20 + 40.0 * second, 1 - second, second], 1).astype(np.float32),
    )
    np.save(folder / "expression.npy", np.eye(7, dtype=np.float32)[second])
    np.save(
        folder / "blendshapes.npy", (0.1 + 0.5 * second[:, None] * np.ones(3)).astype(np.float16)
    )
    (folder / "blendshapes.txt").write_text("browInnerUp jawOpen mouthClose")
    return folder


@pytest.fixture(scope="module")
def teachers(folder):
    return load_teachers(folder)


def test_labels_take_the_teachers_place(teachers):
    assert (
        teachers.faces.shape == (COUNT, 4, 112, 112) and (teachers.faces[:, 3] == 255).mean() > 0.9
    )
    assert teachers.targets["age"][0].argmax() == 20 and teachers.targets["age"][1].argmax() == 60
    assert np.allclose(teachers.targets["age"].sum(1), 1, atol=1e-5)
    assert (teachers.targets["race"][1] == np.eye(len(RACES))[1]).all()
    assert np.isnan(teachers.targets["race"][44]).all()  # no label, and no teacher for it
    assert teachers.targets["gender"][44].tolist() == [1, 0]
    assert set(teachers.fold) <= {"train", "val", "test"} and (teachers.fold == "test").sum() == 8


def test_black_corners_are_missing_and_black_eyes_are_not():
    picture = np.full((112, 112, 3), 120, np.uint8)
    picture[:20, :20] = 2
    picture[50:60, 50:60] = 0
    missing = missing_pixels(picture)
    assert missing[:20, :20].all() and missing.sum() == 400


def test_a_disturbed_view_is_repeatable_and_varied(teachers):
    views = Augmented(teachers.faces, np.arange(8), px=80, seed=3)
    face, mask, row = views[5]
    again, same_mask, _ = views[5]
    assert (
        face.shape == (4, 80, 80)
        and face.dtype == torch.uint8
        and mask.shape == (80, 80)
        and row == 5
    )
    assert torch.equal(face, again) and torch.equal(mask, same_mask) and mask.sum() > 0
    other = Augmented(teachers.faces, np.arange(8), px=80, seed=4)[5][0]
    assert not torch.equal(face, other)


def test_verification_knows_the_extremes():
    person = np.array([0, 0, 1, 1, 2, 2])
    assert verification(np.eye(3)[person], person) == (1.0, 1.0)
    worst = np.array([[1, 0], [-1, 0], [1, 0], [-1, 0.0]])
    assert verification(worst, np.array([0, 0, 1, 1]))[0] < 0.5


def test_a_dump_of_experts_can_teach(tmp_path, astronaut):
    """Preprocess pictures with the bundled network, then take what it says as the teacher of another one."""
    if not BUNDLED["lite"].is_file():
        pytest.skip("needs the bundled network in checkpoints/")
    for split, count in (("train", 4), ("test", 1)):
        for index in range(count):
            for label in ("real", "fake"):
                path = tmp_path / "faces" / split / label / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), astronaut[: 400 + 10 * index, :400, ::-1])
    dump = preprocess(PreprocessConfig(tmp_path / "faces", out=tmp_path / "dump", device="cpu"))
    taught = teachers_from_dump(dump)
    assert (
        taught.faces.shape == (5, 4, 112, 112) and sorted(taught.fold) == ["test"] + ["train"] * 4
    )
    said = read_dump(dump)
    row = int(np.flatnonzero(said.rows["path"] == "train/real/2.png")[0])
    place = list(np.flatnonzero(said.rows["label"] == 0)).index(row)
    assert np.allclose(
        taught.targets["identity"][place], said.arrays["lite.identity"][row, 0], atol=1e-3
    )
    again = RegionExpert().frozen("cpu")(torch.from_numpy(taught.faces[place][None]))
    assert np.allclose(
        again["age"][0, 0].numpy(), said.arrays["lite.age"][row, 0], atol=2e-2
    )  # cut alike from landmarks
    net = load_region_net(
        train(taught, Config(epochs=1, px=48, batch_size=2), tmp_path / "net", torch.device("cpu"))
    )
    assert set(net.outputs) == {
        name.partition(".")[2] for name in said.meta["outputs"] if "traces" not in name
    }
    with pytest.raises(ValueError, match="do not fill one batch"):
        train(taught, Config(batch_size=64), tmp_path / "other", torch.device("cpu"))


def test_training_learns_resumes_and_refuses_another_config(teachers, tmp_path):
    config = Config(epochs=6, px=48, batch_size=16, lr=4e-3)
    whole = train(teachers, config, tmp_path / "whole", torch.device("cpu"))
    net = load_region_net(whole)
    test = teachers.fold == "test"
    said = predict_all(net, teachers.faces[test], "full", torch.device("cpu"))
    second = np.flatnonzero(test) % 2
    assert (said["gender"].argmax(1) == second).mean() >= 0.75
    gap = np.abs(
        said["age_years"][second == 1, 0].mean() - said["age_years"][second == 0, 0].mean()
    )
    assert gap > 5

    broken = tmp_path / "broken"
    steps = []
    original = torch.save

    def dies_after_three(state, path):
        original(state, path)
        steps.append(path)
        if len(steps) == 3:
            path.replace(path.with_name("state.pt"))
            raise KeyboardInterrupt

    torch.save = dies_after_three
    try:
        with pytest.raises(KeyboardInterrupt):
            train(teachers, config, broken, torch.device("cpu"))
    finally:
        torch.save = original
    resumed = load_region_net(train(teachers, config, broken, torch.device("cpu")))
    for name, value in net.state_dict().items():
        assert torch.allclose(value.float(), resumed.state_dict()[name].float(), atol=2e-3), name
    with pytest.raises(ValueError, match="choose another --out"):
        train(teachers, Config(epochs=7, batch_size=16), broken, torch.device("cpu"))
