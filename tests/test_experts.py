"""The published experts: inputs, outputs, and that their libraries compute the same.

With weight files in their official formats and random values, on one real face in three pictures.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from facenet_pytorch import InceptionResnetV1
from facenet_pytorch.models.mtcnn import fixed_image_standardization
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torchvision.models import resnet34
from torchvision.transforms import Compose, Normalize, ToTensor

from features.regions import REGIONS, region_masks
from models import BUNDLED, PROFILES
from models.base import Output
from models.clip_image import ClipImage
from models.ensemble import Ensemble
from models.fairface import FairFace
from models.pyfeat import import_feat
from models.tensors import sha256_of
from models.weights import WEIGHTS
from tests.official import tensors

NAMES = tuple(name for name in PROFILES["full"] if name not in BUNDLED)
FULL, UPPER, LOWER = (REGIONS.index(name) for name in ("full", "upper", "lower"))
# The largest difference between outputs of the same expert: numbers one by one, embeddings by
# 1 - cosine.
# same: float32, in other batches, on another device or by the library. tf32: float32 with TF32 on a
# GPU. bf16: against float32, in bfloat16 or in the 16 bits that a GPU is given.
APART = {
    "distribution": {"same": 1e-4, "tf32": 5e-3, "bf16": 0.02},
    "embedding": {"same": 1e-6, "tf32": 2e-4, "bf16": 1e-3},
    "vector": {"same": 1e-3, "tf32": 2e-2, "bf16": 0.04},
    "scalar": {"same": 1e-3, "tf32": 0.05, "bf16": 0.5},  # years
    "forgery_logit": {"same": 1e-4, "tf32": 0.02, "bf16": 0.05},
}
IMAGENET = (2.2489, 2.4286, 2.6400), (-2.1179, -2.0357, -1.8044)
# Side of the picture that the network takes; what white and black are there, in R, G, B.
INPUTS = {
    "fairface": (224, *IMAGENET),
    "arcface": (112, (1.0, 1.0, 1.0), (-1.0, -1.0, -1.0)),
    "facenet": (160, (127.5 / 128,) * 3, (-127.5 / 128,) * 3),
    "clip": (224, (1.9303, 2.0749, 2.1459), (-1.7923, -1.7521, -1.4802)),
    "pyfeat": (224, *IMAGENET),
}
OUTPUTS = {
    "fairface": {
        "race": ("distribution", 7),
        "gender": ("distribution", 2),
        "age": ("distribution", 9),
    },
    "arcface": {"identity": ("embedding", 512)},
    "facenet": {"identity": ("embedding", 512)},
    "clip": {"embedding": ("embedding", 512)},
    "pyfeat": {"au": ("vector", 20), "emotion": ("distribution", 7), "affect": ("vector", 2)},
}


def apart(output: Output, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The difference along the last axis."""
    if output.kind == "embedding":
        return 1 - F.cosine_similarity(one.double(), other.double(), dim=-1)
    return (one - other).abs().amax(-1)


def agree(
    expert, found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], how: str = "same"
) -> None:
    assert list(found) == list(expected) == list(expert.outputs)
    for name, output in expert.outputs.items():
        assert found[name].shape == expected[name].shape
        assert apart(output, found[name], expected[name]).max() < APART[output.kind][how], name


@pytest.fixture(scope="module")
def alone(ensembles, views) -> dict[str, dict[str, torch.Tensor]]:
    """The outputs of each expert, one face at a time."""
    found = {
        name: [ensembles[name].experts[0](face[None]) for face in view]
        for name, view in views.items()
    }
    return {
        name: {key: torch.cat([one[key] for one in ones]) for key in ones[0]}
        for name, ones in found.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_as_declared(ensembles, alone, official_weights, name):
    ensemble, expert, found = ensembles[name], ensembles[name].experts[0], alone[name]
    assert {key: (output.kind, output.size) for key, output in expert.outputs.items()} == OUTPUTS[
        name
    ]
    assert list(ensemble.outputs) == [f"{name}.{key}" for key in found] and ensemble.crops == {
        name: expert.crop
    }
    file = official_weights / next(entry.file for entry in WEIGHTS.values() if entry.expert == name)
    assert expert.weights == file and ensemble.weights == {name: sha256_of(file)}
    assert not [part for part in expert.modules() if part.training]
    assert (
        not [one for one in expert.parameters() if one.requires_grad]
        and next(expert.parameters(), None) is not None
    )
    for key, output in expert.outputs.items():
        value, least = found[key], APART[output.kind]["same"]
        assert value.shape == (3, len(REGIONS), output.size) and value.dtype == torch.float32
        assert value.isfinite().all() and not value.requires_grad
        if output.kind == "distribution":
            assert (value >= 0).all() and torch.allclose(
                value.sum(-1), torch.ones(3, len(REGIONS)), atol=1e-5
            )
        elif output.kind == "embedding":
            assert torch.allclose(value.norm(dim=-1), torch.ones(3, len(REGIONS)), atol=1e-5)
        for values, times in ((value.transpose(0, 1), 10), (value, 4)):  # regions, then faces
            for i, j in combinations(range(len(values)), 2):
                assert apart(output, values[i], values[j]).max() > times * least, (key, i, j)
    if name == "pyfeat":
        assert (
            (found["au"] >= 0).all()
            and (found["au"] <= 1).all()
            and found["affect"].abs().max() <= 1
        )


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_gives_what_single_faces_give(ensembles, views, alone, name):
    agree(ensembles[name].experts[0], ensembles[name].experts[0](views[name]), alone[name])


@pytest.mark.parametrize("name", ["fairface", "facenet"])  # all share the code
def test_bfloat16_is_nearly_float32(ensembles, views, alone, monkeypatch, name):
    expert, exact = (
        ensembles[name].experts[0],
        {key: value[:1] for key, value in alone[name].items()},
    )
    monkeypatch.setattr(expert, "bf16", True)
    found = expert(views[name][:1])
    agree(expert, found, exact, "bf16")
    for key, output in expert.outputs.items():
        assert found[key].dtype == torch.float32 and not torch.equal(found[key], exact[key])
        if output.kind == "distribution":
            assert torch.allclose(found[key].sum(-1), torch.ones(1, len(REGIONS)), atol=1e-5)
        regions = exact[key].unsqueeze(1), exact[key].unsqueeze(2)
        assert apart(output, *regions).max() > APART[output.kind]["bf16"], "regions differ by more"


def test_bfloat16_where_it_was_asked_for(ensembles, official_weights):
    assert Ensemble(["fairface"], bf16=True, weights_dir=official_weights).experts[0].bf16
    assert not ensembles["fairface"].experts[0].bf16


# Against the libraries, on the whole of two faces.


@pytest.fixture(scope="module")
def whole(views, alone):
    """Two faces as a library takes them, (2, 3, px, px) RGB in 0..255, and the expert's outputs."""
    return lambda name: (
        views[name][:2, :3],
        {key: value[:2, FULL] for key, value in alone[name].items()},
    )


def test_fairface_is_torchvisions_network(ensembles, whole, official_weights):
    faces, found = whole("fairface")
    net = resnet34(num_classes=18).eval()
    net.load_state_dict(torch.load(official_weights / WEIGHTS["fairface"].file, weights_only=True))
    take = Compose([ToTensor(), Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    with torch.no_grad():
        logits = net(torch.stack([take(face.permute(1, 2, 0).numpy()) for face in faces]))
    slices = {"race": logits[:, :7], "gender": logits[:, 7:9], "age": logits[:, 9:18]}
    agree(
        ensembles["fairface"].experts[0],
        found,
        {key: part.softmax(-1) for key, part in slices.items()},
    )
    names = {
        key: output.names for key, output in FairFace.outputs.items()
    }  # as predict.py of its authors has them
    assert names["race"][:4] == ("White", "Black", "Latino_Hispanic", "East Asian")
    assert names["race"][4:] == ("Southeast Asian", "Indian", "Middle Eastern")
    assert names["gender"] == ("Male", "Female")
    assert " ".join(names["age"]) == "0-2 3-9 10-19 20-29 30-39 40-49 50-59 60-69 70+"


def test_arcface_is_pyfeats_detector(ensembles, whole, official_weights):
    faces, found = whole("arcface")
    detector = import_feat("identity_detectors.arcface.arcface_model").ArcFace("r50").eval()
    detector.net.load_state_dict(
        load_file(official_weights / WEIGHTS["arcface"].file), strict=False
    )
    with torch.no_grad():
        agree(ensembles["arcface"].experts[0], found, {"identity": detector(faces / 255)})


def test_facenet_is_facenet_pytorchs_network(ensembles, whole, official_weights):
    faces, found = whole("facenet")
    tensors = torch.load(official_weights / WEIGHTS["facenet"].file, weights_only=True)
    net = InceptionResnetV1(classify=False).eval()
    net.load_state_dict(
        {key: value for key, value in tensors.items() if not key.startswith("logits.")}
    )
    with torch.no_grad():
        agree(
            ensembles["facenet"].experts[0],
            found,
            {"identity": net(fixed_image_standardization(faces.float()))},
        )


def test_pyfeat_is_its_librarys_model(ensembles, whole, official_weights):
    faces, found = whole("pyfeat")
    library = import_feat("multitask.inference")
    model = library.MultitaskModel(weights_path=official_weights / WEIGHTS["pyfeat"].file)
    theirs = model(faces / 255)
    affect = np.stack([theirs.valence, theirs.arousal], -1)
    expected = {"au": theirs.au, "emotion": theirs.emotion, "affect": affect}
    expert = ensembles["pyfeat"].experts[0]
    agree(expert, found, {key: torch.from_numpy(value) for key, value in expected.items()})
    assert [*expert.outputs["au"].names] == list(theirs.au_names)
    assert [*expert.outputs["emotion"].names] == list(theirs.emotion_names)


def test_clip_is_open_clips_tower_from_open_clips_file(whole):
    import open_clip

    faces, _ = whole("clip")
    published = tensors("clip-vit-b-32-open-clip")
    with TemporaryDirectory() as folder:
        path = Path(folder) / WEIGHTS["clip-vit-b-32"].file
        save_file(published, path)
        expert = ClipImage(path).frozen("cpu")
    opaque = torch.full_like(faces[:, :1], 255)
    found = {
        key: value[:, FULL] for key, value in expert(torch.cat([faces, opaque], dim=1)).items()
    }
    take = Normalize(open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    predictions = []
    for name in ("ViT-B-32-quickgelu", "ViT-B-32"):
        with torch.device("meta"):
            model = open_clip.create_model(name, pretrained=None, device="meta").eval()
        model.load_state_dict(published, assign=True)
        with torch.no_grad():
            predictions.append(model.encode_image(take(faces / 255), normalize=True))
    agree(expert, found, {"embedding": predictions[0]})
    plain = apart(expert.outputs["embedding"], found["embedding"], predictions[1])
    assert plain.min() > 10 * APART["embedding"]["same"], (
        "another tower, with the same names and shapes"
    )


# Inputs.


@pytest.mark.parametrize("name", NAMES)
def test_network_input(ensembles, name):
    expert, (side, white, black) = ensembles[name].experts[0], INPUTS[name]
    px = expert.crop.px
    assert px == {"pyfeat": 256}.get(name, side)
    photograph = torch.zeros(px, px)
    photograph[:, px // 4 :] = 255
    there = torch.from_numpy(region_masks(expert.crop)) & (photograph > 0)
    if px != side:
        there = F.interpolate(
            there[None].float(), size=(side, side), mode="bilinear", antialias=True
        )[0]
    white, black = torch.tensor(white), torch.tensor(black)
    colours = {
        (255, 255, 255): white,
        (0, 0, 0): black,
        (255, 0, 0): torch.tensor([white[0], *black[1:]]),
    }
    for colour, value in colours.items():
        face = torch.cat(
            [torch.tensor(colour).view(3, 1, 1).expand(3, px, px), photograph[None]]
        ).to(torch.uint8)
        face[:3, :, : px // 4] = 99  # painted where no photograph is
        seen = expert.network_input(face[None])
        regions = REGIONS[:1] if name == "clip" else REGIONS  # it is shown the whole, once
        assert seen.shape == (len(regions), 3, side, side) and seen.dtype == torch.float32
        for region, image, mask in zip(regions, seen, there, strict=False):
            assert (image[:, mask == 0] == 0).all() and (mask == 0).any(), region
            inside = image[:, mask > 1 - 1e-6]
            assert inside.numel() > 0 and (inside - value[:, None]).abs().max() < 1e-4, region


@pytest.mark.parametrize("name", [name for name in NAMES if name != "clip"])
def test_a_region_does_not_depend_on_the_rest(ensembles, views, alone, name):
    expert, face = ensembles[name].experts[0], views[name][0].clone()
    below = torch.from_numpy(~region_masks(expert.crop)[UPPER])
    assert below[-1].all() and not below[0].any()
    face[:3, below] = 255 - face[:3, below]
    for key, value in expert(face[None]).items():
        before, output = alone[name][key][0], expert.outputs[key]
        assert torch.equal(value[0, UPPER], before[UPPER])
        assert apart(output, value[0, LOWER], before[LOWER]) > APART[output.kind]["same"]
