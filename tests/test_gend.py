"""GenD with files in the published format that hold random values.

The networks are tested small: fewer and narrower blocks, under the published names.
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from torchvision.transforms import v2

from data.alignment import TEMPLATE, align
from features.regions import REGIONS
from models.gend import Detector as GenDNet
from models.gend import GenD, GenDDINOv3, GenDPE, in_timms_names
from models.tensors import WeightsError, load_strictly
from models.weights import WEIGHTS

SMALL = {"embed_dim": 64, "depth": 2, "num_heads": 2}
Shapes = dict[str, tuple[int, ...]]


def pair(name: str, outputs: int, *inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, *inputs), f"{name}.bias": (outputs,)}


def clip_shapes(width: int, depth: int) -> Shapes:
    """transformers 4.56.2: CLIPVisionTransformer and the projection."""
    vision = "feature_extractor.vision_model"
    shapes = {
        f"{vision}.embeddings.class_embedding": (width,),
        f"{vision}.embeddings.patch_embedding.weight": (width, 3, 14, 14),
        f"{vision}.embeddings.position_embedding.weight": (257, width),
        **pair(f"{vision}.pre_layrnorm", width),
        **pair(f"{vision}.post_layernorm", width),
        "feature_extractor.visual_projection.weight": (width * 3 // 4, width),
    }
    for n in range(depth):
        block = f"{vision}.encoder.layers.{n}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= pair(f"{block}.self_attn.{part}", width, width)
        shapes |= pair(f"{block}.layer_norm1", width) | pair(f"{block}.layer_norm2", width)
        shapes |= pair(f"{block}.mlp.fc1", 4 * width, width)
        shapes |= pair(f"{block}.mlp.fc2", width, 4 * width)
    return shapes | pair("model.linear", 2, width)


def dino_shapes(width: int, depth: int) -> Shapes:
    """transformers 4.56.2: DINOv3ViTModel, whose keys have no bias."""
    backbone = "feature_extractor.backbone"
    shapes = {
        f"{backbone}.embeddings.cls_token": (1, 1, width),
        f"{backbone}.embeddings.mask_token": (1, 1, width),
        f"{backbone}.embeddings.register_tokens": (1, 4, width),
        **pair(f"{backbone}.embeddings.patch_embeddings", width, 3, 16, 16),
        **pair(f"{backbone}.norm", width),
    }
    for n in range(depth):
        block = f"{backbone}.layer.{n}"
        for part in ("q_proj", "v_proj", "o_proj"):
            shapes |= pair(f"{block}.attention.{part}", width, width)
        shapes[f"{block}.attention.k_proj.weight"] = (width, width)
        for part in (1, 2):
            shapes |= pair(f"{block}.norm{part}", width)
            shapes[f"{block}.layer_scale{part}.lambda1"] = (width,)
        shapes |= pair(f"{block}.mlp.up_proj", 4 * width, width)
        shapes |= pair(f"{block}.mlp.down_proj", width, 4 * width)
    return shapes | pair("model.linear", 2, width)


def pe_shapes(width: int, depth: int) -> Shapes:
    """timm's Eva with a pool of attention and without its head."""
    backbone = "feature_extractor.backbone"
    shapes = {
        f"{backbone}.cls_token": (1, 1, width),
        f"{backbone}.pos_embed": (1, 577, width),
        f"{backbone}.patch_embed.proj.weight": (width, 3, 14, 14),
        f"{backbone}.attn_pool.latent": (1, 1, width),
    }
    shapes |= pair(f"{backbone}.norm_pre", width) | pair(f"{backbone}.norm", width)
    pool = f"{backbone}.attn_pool"
    shapes |= pair(f"{pool}.q", width, width) | pair(f"{pool}.kv", 2 * width, width)
    shapes |= pair(f"{pool}.proj", width, width) | pair(f"{pool}.norm", width)
    blocks = [f"{backbone}.blocks.{n}" for n in range(depth)]
    for block in blocks:
        shapes |= pair(f"{block}.norm1", width) | pair(f"{block}.norm2", width)
        shapes |= pair(f"{block}.attn.qkv", 3 * width, width)
        shapes |= pair(f"{block}.attn.proj", width, width)
    for block in (*blocks, pool):
        shapes |= pair(f"{block}.mlp.fc1", 4 * width, width)
        shapes |= pair(f"{block}.mlp.fc2", width, 4 * width)
    return shapes | pair("model.linear", 2, width)


FORMATS = {GenD: clip_shapes, GenDPE: pe_shapes, GenDDINOv3: dino_shapes}


def random(shapes: Shapes, seed: int = 0) -> dict[str, torch.Tensor]:
    """The scale of an input is about that of the output, layer by layer."""
    generator, made = torch.Generator().manual_seed(seed), {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            made[name] = 0.2 * noise + (1.0 if name.endswith(("weight", "lambda1")) else 0.0)
        else:
            made[name] = noise / math.sqrt(math.prod(shape[1:]))
    return made


@pytest.fixture(params=FORMATS, ids=lambda cls: cls.name)
def gend(request, tmp_path, monkeypatch) -> tuple[GenD, dict[str, torch.Tensor]]:
    """A small one, and its published tensors."""
    cls = request.param
    monkeypatch.setattr(cls, "options", {**cls.options, **SMALL})
    tensors = random(FORMATS[cls](64, 2))
    path = tmp_path / WEIGHTS[cls.name].file
    save_file(tensors, path)
    return cls(path).frozen("cpu"), tensors


def photographs(px: int, faces: int = 3) -> torch.Tensor:
    rng = np.random.default_rng(1)
    noise = [
        cv2.resize(rng.integers(0, 256, (9, 9, 3)).astype(np.uint8), (px, px)) for _ in range(faces)
    ]
    colours = torch.from_numpy(np.stack(noise)).permute(0, 3, 1, 2)
    return torch.cat([colours, torch.full_like(colours[:, :1], 255)], dim=1)


# GenD


@pytest.mark.parametrize("cls", FORMATS)
def test_the_published_names_and_shapes_fit_the_whole_network(cls) -> None:
    from timm import create_model

    shapes = FORMATS[cls](1024, 24)
    with torch.device("meta"):
        net = GenDNet(create_model(cls.tower, num_classes=0, **cls.options))
        tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
    load_strictly(net, in_timms_names(tensors), Path("file"))
    assert net.backbone.num_features == 1024
    if cls is GenD:  # the hub states 1,215,928,160 bytes, a header among them
        size = 4 * sum(math.prod(shape) for shape in shapes.values())
        assert 0 < 1_215_928_160 - size < 100_000


def test_a_file_without_a_tensor_or_with_another_one_is_refused(gend, tmp_path) -> None:
    expert, tensors = gend
    inner = next(name for name in tensors if name.endswith(("q_proj.weight", "attn.qkv.weight")))
    for wrong in ("model.linear.bias", inner):
        path = tmp_path / "wrong.safetensors"
        save_file({name: value for name, value in tensors.items() if name != wrong}, path)
        with pytest.raises(WeightsError, match="wrong.safetensors: does not fit"):
            type(expert)(path)
    save_file({**tensors, "more": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="1 unexpected"):
        type(expert)(path)


def test_outputs_of_single_faces_are_those_of_a_batch(gend) -> None:
    expert, faces = gend[0], photographs(224)
    found = expert(faces)
    assert {name: value.shape for name, value in found.items()} == {
        "embedding": (3, len(REGIONS), 64),
        "altered": (3, len(REGIONS), 1),
    }
    assert torch.allclose(found["embedding"].norm(dim=-1), torch.ones(3, len(REGIONS)), atol=1e-5)
    for row, face in enumerate(faces):
        for name, value in expert(face[None]).items():
            assert torch.allclose(value[0], found[name][row], atol=1e-5), name
    assert found["altered"].std() > 1e-3
    expert.masks = expert.masks[:1]  # the whole face alone
    assert torch.allclose(expert(faces)["altered"][:, 0], found["altered"][:, 0], atol=1e-5)


def test_the_logit_is_that_of_fake_against_real(gend) -> None:
    expert, tensors = gend
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = expert.predict(images)
        logits = F.linear(
            F.normalize(expert.net.backbone(images), dim=-1),
            *(tensors[f"model.linear.{part}"] for part in ("weight", "bias")),
        )
    assert torch.allclose(found["altered"][:, 0].sigmoid(), logits.softmax(-1)[:, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("gend", "mean", "std"),
    [
        (GenD, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        (GenDPE, (0.5,) * 3, (0.5,) * 3),
        (GenDDINOv3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
    indirect=["gend"],
)
def test_colours_are_normalised_as_each_tower_was_trained(gend, mean, std) -> None:
    faces = photographs(224, 1)
    expected = v2.functional.normalize(faces[:, :3] / 255, mean, std)
    assert torch.allclose(gend[0].network_input(faces)[:1], expected, atol=1e-5)


def test_gend_sees_the_crop_of_its_authors() -> None:
    """As align_face in detector.py: five points in a square that is enlarged 1.3 times."""
    theirs = np.array([[0.34, 0.46], [0.66, 0.46], [0.5, 0.64], [0.37, 0.82], [0.63, 0.82]])
    places = (theirs + 0.15) / 1.3
    crop = GenD.crop
    ours = (TEMPLATE / 112 - (crop.x0, crop.y0)) / (crop.width, crop.height)
    assert np.abs(ours - places).max() < 0.02 and crop.px == 224
    picture = np.zeros((600, 600, 3), np.uint8)
    landmarks = 250 * theirs + 175  # the template is 250 px wide, in the middle
    picture[50:550, 50:550] = 200
    seen = align([picture], np.array([0]), landmarks[None], crop)[0, 0].numpy()
    assert (seen > 190).mean() > 0.99  # 325 px of the 500 that are bright


def clip_reference(tensors: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """The class token of CLIP's vision tower, written from transformers' modeling_clip.py."""
    t = {name.removeprefix("feature_extractor.vision_model."): v for name, v in tensors.items()}

    def affine(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, t[f"{name}.weight"], t[f"{name}.bias"])

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], t[f"{name}.weight"], t[f"{name}.bias"], 1e-5)

    patches = F.conv2d(images, t["embeddings.patch_embedding.weight"], stride=14).flatten(2).mT
    first = t["embeddings.class_embedding"].expand(len(images), 1, -1)
    x = torch.cat([first, patches], 1) + t["embeddings.position_embedding.weight"]
    x = norm("pre_layrnorm", x)
    for n in range(SMALL["depth"]):
        block, y = f"encoder.layers.{n}", norm(f"encoder.layers.{n}.layer_norm1", x)
        q, k, v = (
            affine(f"{block}.self_attn.{part}_proj", y).unflatten(-1, (2, 32)).transpose(1, 2)
            for part in "qkv"
        )
        y = ((q @ k.mT / math.sqrt(32)).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + affine(f"{block}.self_attn.out_proj", y)
        y = affine(f"{block}.mlp.fc1", norm(f"{block}.layer_norm2", x))
        x = x + affine(f"{block}.mlp.fc2", y * torch.sigmoid(1.702 * y))
    return norm("post_layernorm", x[:, 0])


@pytest.mark.parametrize("gend", [GenD], indirect=True)
def test_clips_tower_computes_what_transformers_computes(gend) -> None:
    expert, tensors = gend
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        found = expert.predict(images)["embedding"]
        expected = F.normalize(clip_reference(tensors, images), dim=-1)
    assert torch.allclose(found, expected, atol=1e-5) and found.std(0).mean() > 1e-3


def test_dinov3s_weights_go_where_they_belong() -> None:
    tensors = random(dino_shapes(64, 1))
    found, block = in_timms_names(tensors), "feature_extractor.backbone.layer.0"
    parts = [tensors[f"{block}.attention.{part}_proj.weight"] for part in "qkv"]
    assert torch.equal(found["backbone.blocks.0.attn.qkv.weight"], torch.cat(parts))
    for ours, theirs in {
        "attn.q_bias": "attention.q_proj.bias",
        "attn.v_bias": "attention.v_proj.bias",
        "attn.proj.weight": "attention.o_proj.weight",
        "gamma_2": "layer_scale2.lambda1",
        "mlp.fc1.weight": "mlp.up_proj.weight",
    }.items():
        assert torch.equal(found[f"backbone.blocks.0.{ours}"], tensors[f"{block}.{theirs}"])


def test_mixed_precision_is_nearly_float32(gend, monkeypatch) -> None:
    expert, faces = gend[0], photographs(224, 1)
    exact = expert(faces)
    monkeypatch.setattr(expert, "bf16", True)
    expert.rewrite()  # as on a GPU
    found = expert(faces)
    assert F.cosine_similarity(found["embedding"], exact["embedding"], dim=-1).min() > 0.999
    assert (found["altered"] - exact["altered"]).abs().max() < 0.05
    assert not torch.equal(found["altered"], exact["altered"])
