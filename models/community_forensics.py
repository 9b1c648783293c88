"""Community Forensics (Park & Owens, CVPR 2025): a small ViT trained on pictures of 4,803 generators."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from features.regions import Crop
from models.base import IMAGENET_MEAN, IMAGENET_STD, Expert, Output, WholeFaceExpert
from models.tensors import load_strictly, read_tensors


class CommunityForensics(WholeFaceExpert):
    """As models.py in github.com/JeongsooP/Community-Forensics: one logit, larger for generated ones.

    Made for whole pictures, whose shorter side is `resized` and whose centre it sees; here it sees
    the face and what is around it, 1.3 times its box.
    """

    name = "community_forensics"
    tower, resized = "vit_small_patch16_384", 440
    crop = Crop.of_box(1.3, 384)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    outputs = {
        "embedding": Output("embedding", 384),
        "altered": Output("forgery_logit", 1, ("logit",)),
    }

    def __init__(self, weights: Path, bf16: bool = False) -> None:
        from timm import create_model

        net = nn.ModuleDict({"vit": create_model(self.tower, num_classes=1)})
        load_strictly(net, read_tensors(weights), weights)
        super().__init__(net["vit"], weights, bf16)

    rewrite = Expert.rewrite  # mixed precision does it

    def predict(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.net.forward_head(self.net.forward_features(images), pre_logits=True)
        embedding = nn.functional.normalize(features.float(), dim=-1)
        return {"embedding": embedding, "altered": self.net.head(features)}


class CommunityForensics224(CommunityForensics):
    """The same with a smaller input."""

    name = "community_forensics_224"
    tower, resized = "vit_small_patch16_224", 256
    crop = Crop.of_box(1.3, 224)
