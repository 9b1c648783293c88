"""The network that compares a face with photographs of a person, and its training."""

import numpy as np
import pytest
import torch
from PIL import Image

from data.alignment import align
from features.regions import ALIGNED
from inference.reference import Comparer
from models import BUNDLED
from models.person_net import HEAD, MIDDLE, PX, PersonExpert, head_mask, region_input
from models.region_net import load_region_net, masked_input
from tests.photographs import HOPPER_LANDMARKS, LANDMARKS
from training.person_net import Config, Views, begin_from, hold_out, train, wide_faces
from training.teachers import Teachers


def test_outer_sees_hair_and_neck_and_other_regions_the_aligned_face():
    rng = np.random.default_rng(0)
    wide = torch.from_numpy(rng.integers(0, 256, (1, 4, HEAD.px, HEAD.px), np.uint8))
    wide[:, 3] = 255
    inner, changed = region_input(wide, "inner"), wide.clone()
    changed[:, :3, :20] = 0  # hair
    assert torch.equal(region_input(changed, "inner"), inner)
    assert not torch.equal(region_input(changed, "outer"), region_input(wide, "outer"))
    assert inner.shape == (1, 4, PX, PX)
    whole = masked_input(wide[:, :, MIDDLE, MIDDLE], torch.ones(PX, PX, dtype=torch.bool), PX)
    assert torch.equal(region_input(wide, "full"), whole)
    # The middle of the crop is the template, at the size of the input.
    at = (np.array([MIDDLE.start, MIDDLE.stop]) / HEAD.px) * HEAD.width + HEAD.x0
    np.testing.assert_allclose(at, (ALIGNED.x0, ALIGNED.x0 + ALIGNED.width), atol=1e-6)
    mask = head_mask()
    assert mask[10, 64] and not mask[64, 64] and not mask[2, 2]


def test_training_begins_from_the_region_network():
    region_net = load_region_net(BUNDLED["lite"])
    net = begin_from(region_net)
    assert set(net.heads) == {"identity"}
    images = torch.rand(2, 4, PX, PX)
    with torch.inference_mode():
        wanted = region_net.eval()(images)["identity"]
        assert torch.equal(net.eval()(images)["identity"], wanted)


def test_the_bundled_network_tells_two_people_apart(astronaut, hopper):
    expert = PersonExpert().frozen("cpu")
    assert set(expert.outputs) == {"identity"}
    comparer = Comparer()
    person = comparer.person([astronaut], "Collins")
    (same,) = comparer.compare(comparer.cutter([astronaut[:, ::-1].copy()]), person)
    (other,) = comparer.compare(comparer.cutter([hopper]), person)
    assert same.likeness("full").similarity > other.likeness("full").similarity + 0.2
    assert same.pattern == "consistent" and other.p_conflict > same.p_conflict


@pytest.fixture
def teachers():
    """Twelve people with four faces each, and as many without a name; each person has a colour."""
    rng = np.random.default_rng(0)
    person = np.concatenate([np.repeat(np.arange(12), 4), np.full(12, -1)])
    faces = rng.integers(0, 90, (len(person), 4, 112, 112)).astype(np.uint8)
    faces[:, :3] += (20 * (np.arange(len(person)) % 7)).astype(np.uint8)[:, None, None, None]
    faces[:, 3] = 255
    targets = {"identity": rng.normal(size=(len(person), 512)).astype(np.float32)}
    fold = np.array(["train"] * len(person), dtype=object)
    fold[:4] = "val"
    fold[4:8] = "test"
    kinds = {"identity": "embedding"}
    return Teachers(faces, targets, kinds, {}, person, fold)


def test_people_are_held_out_whole_and_the_test_fold_stays(teachers):
    hold_out(teachers, 0.5)
    of = {}
    for person, fold in zip(teachers.person, teachers.fold, strict=True):
        of.setdefault(person, set()).add(fold)
    assert all(len(folds) == 1 for folds in of.values())
    assert of[0] == {"val"} and of[1] == {"test"} and of[-1] == {"train"}
    assert {"held out"} in of.values() and {"train"} in [of[person] for person in range(2, 12)]


def test_a_batch_has_pairs_of_one_person_with_the_same_region(teachers, tmp_path):
    wide = np.zeros((len(teachers.person), 4, HEAD.px, HEAD.px), np.uint8)
    wide[:, :, MIDDLE, MIDDLE] = teachers.faces[:, :, 16:96, 16:96]
    config = Config(teachers=tmp_path, out=tmp_path, batch_size=20)
    views = Views(wide, teachers, config)
    images, rows = views[3]
    assert images.shape == (20, 4, PX, PX) and images.dtype == torch.float16
    again = views[3]
    assert torch.equal(images, again[0]) and torch.equal(rows, again[1])
    pairs = teachers.person[rows[:10]].reshape(5, 2)
    assert (pairs[:, 0] == pairs[:, 1]).all() and len(set(pairs[:, 0])) == 5
    assert (rows[:10].reshape(5, 2)[:, 0] != rows[:10].reshape(5, 2)[:, 1]).all()
    assert set(teachers.fold[rows]) == {"train"}


def test_training_writes_a_network_and_resumes(teachers, tmp_path, monkeypatch):
    wide = np.zeros((len(teachers.person), 4, HEAD.px, HEAD.px), np.uint8)
    wide[:, :, MIDDLE, MIDDLE] = teachers.faces[:, :, 16:96, 16:96]
    wide[:, 3] = 255
    hold_out(teachers, 0.2)
    options = {"teachers": tmp_path, "out": tmp_path, "batch_size": 16, "epochs": 1, "workers": 0}
    weights = train(teachers, wide, Config(**options, device="cpu"))
    net = load_region_net(weights)
    assert set(net.outputs) == {"identity"}
    log = (tmp_path / "log.csv").read_text().splitlines()
    assert {"identity", "relations", "pairs", "outer AUC"} < set(log[0].split(","))
    before = weights.read_bytes()
    train(teachers, wide, Config(**options, device="cpu"))  # it was finished
    assert weights.read_bytes() == before


def test_surroundings_come_from_the_picture_of_the_same_face(tmp_path, astronaut, hopper):
    """Two faces with their pictures, one whose picture shows somebody else, one without."""
    folder = tmp_path / "teachers"
    folder.mkdir()
    for name, image in (("astronaut", astronaut), ("hopper", hopper)):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    crops = [
        align([image], np.array([0]), points[None], ALIGNED)[0].numpy()
        for image, points in ((astronaut, LANDMARKS), (hopper, HOPPER_LANDMARKS))
    ]
    faces = np.stack([crops[0], crops[1], crops[0], crops[1]])
    lines = ["image", "astronaut.png", "hopper.png", "hopper.png", ""]
    (folder / "index.csv").write_text("\n".join(f'"{line}"' for line in lines) + "\n")
    none = np.full(4, -1)
    teachers = Teachers(faces, {}, {}, {}, none, np.array(["train"] * 4))
    wide = wide_faces(teachers, folder)
    around = wide[:, 3, 4, 64] > 0  # above the head
    assert around.tolist() == [True, True, False, False]
    middle = wide[:, :3, MIDDLE, MIDDLE].astype(float)
    for row in (0, 1):  # the same face, cut from the picture and out of the crop
        assert np.corrcoef(middle[row].ravel(), middle[row + 2].ravel())[0, 1] > 0.8
