"""GenD (Yermakov et al., WACV 2026): CLIP, PE or DINOv3 with normalisations tuned on deepfakes.

As src/hf/modeling_gend.py in github.com/yermandy/GenD: the class token, or for PE the pooled patches,
at unit length, then a linear layer with the logits of real and fake.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from features.regions import Crop
from models.base import IMAGENET_MEAN, IMAGENET_STD, Expert, Output, WholeFaceExpert
from models.tensors import load_strictly, read_tensors

PX = 224  # side of the input of all three
# Names that `transformers` gives to the parts of CLIP and of DINOv3, and timm's.
NAMES = {
    r"^vision_model\.": "",
    r"^embeddings\.(class_embedding|cls_token)$": "cls_token",
    r"^embeddings\.position_embedding\.weight$": "pos_embed",
    r"^embeddings\.register_tokens$": "reg_token",
    r"^embeddings\.patch_embeddings?\.": "patch_embed.proj.",
    r"^pre_layrnorm\.": "norm_pre.",  # spelt so there
    r"^post_layernorm\.": "norm.",
    r"^(encoder\.layers|layer)\.": "blocks.",
    r"\.layer_norm(\d)\.": r".norm\1.",
    r"\.(self_attn\.out|attention\.o)_proj\.": ".attn.proj.",
    r"\.(self_attn|attention)\.": ".attn.",
    r"\.layer_scale(\d)\.lambda1$": r".gamma_\1",
    r"\.mlp\.up_proj\.": ".mlp.fc1.",
    r"\.mlp\.down_proj\.": ".mlp.fc2.",
}
# In the files, and without effect on the class token's features.
UNUSED = ("visual_projection.weight", "embeddings.mask_token")


class Detector(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.linear = backbone, nn.Linear(backbone.num_features, 2)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3, 224, 224) -> unit vectors (N, 1024), logits of real and fake (N, 2)."""
        features = F.normalize(self.backbone(images), dim=-1)
        return features, self.linear(features)


class GenD(WholeFaceExpert):
    """The crop is that of its authors' detector.py, 1.3 times the template of five landmarks.

    `altered` is the log odds of fake against real.
    """

    name = "gend"
    crop = Crop.around(0.5, 0.5, 1.3, 1.3, PX)
    mean = (0.48145466, 0.4578275, 0.40821073)
    std = (0.26862954, 0.26130258, 0.27577711)
    tower = "vit_large_patch14_clip_quickgelu_224"  # timm's name, and options
    options: dict = {}

    def __init__(self, weights: Path, bf16: bool = False) -> None:
        from timm import create_model

        net = Detector(create_model(self.tower, num_classes=0, **self.options))
        self.outputs = {
            "embedding": Output("embedding", net.backbone.num_features),
            "altered": Output("forgery_logit", 1, ("logit",)),
        }
        load_strictly(net, in_timms_names(read_tensors(weights)), weights)
        super().__init__(net, weights, bf16)

    rewrite = Expert.rewrite  # mixed precision does it

    def predict(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        features, logits = self.net(images)
        return {"embedding": features, "altered": logits[:, 1:] - logits[:, :1]}


class GenDPE(GenD):
    """The tower of the Perception Encoder (Bolya et al., NeurIPS 2025), at 224 instead of 336 px."""

    name = "gend_pe"
    mean = std = (0.5, 0.5, 0.5)
    tower, options = "vit_pe_core_large_patch14_336", {"dynamic_img_size": True}


class GenDDINOv3(GenD):
    """Simeoni et al., 2025."""

    name = "gend_dinov3"
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    tower, options = "vit_large_patch16_dinov3_qkvb", {"global_pool": "token"}


def in_timms_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The published tensors under the names of `Detector`. PE has timm's already."""
    found = {}
    for name, value in tensors.items():
        part, _, rest = name.removeprefix("feature_extractor.").partition("backbone.")
        key = rest or part
        if part.startswith("model.linear."):
            found[part.removeprefix("model.")] = value
        elif key not in UNUSED:
            for pattern, by in NAMES.items():
                key = re.sub(pattern, by, key)
            found[f"backbone.{key}"] = value
    return {name: _shaped(name, value) for name, value in _joined(found).items()}


def _joined(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One matrix for query, key and value; of DINOv3, whose key has no bias, two vectors."""
    for name in [name for name in tensors if name.endswith(".q_proj.weight")]:
        block = name.removesuffix("q_proj.weight")
        if not all(f"{block}{each}_proj.weight" in tensors for each in "kv"):
            continue  # reported as missing
        for kind in ("weight", "bias"):
            parts = {x: tensors.pop(f"{block}{x}_proj.{kind}", None) for x in "qkv"}
            if parts["k"] is not None:
                tensors[f"{block}qkv.{kind}"] = torch.cat([*parts.values()])
            else:
                found = {f"{block}{x}_bias": value for x, value in parts.items()}
                tensors |= {key: value for key, value in found.items() if value is not None}
    return tensors


def _shaped(name: str, value: torch.Tensor) -> torch.Tensor:
    """timm has axes for the batch and the place before a learned token."""
    axes = {"backbone.cls_token": 3, "backbone.pos_embed": 3}.get(name, value.dim())
    return value[(None,) * (axes - value.dim())]
