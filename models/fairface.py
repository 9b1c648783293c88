"""FairFace: age, gender and race, each a distribution (Karkkainen & Joo, WACV 2021).

A torchvision ResNet-34 whose 18 outputs are three classifiers side by side: race, then gender, then age.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.models import resnet34

from features.regions import Crop
from models.base import Output, WholeFaceExpert
from models.tensors import load_strictly, read_tensors

RACES = ("White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian", "Middle Eastern")
GENDERS = ("Male", "Female")
AGES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+")


class FairFace(WholeFaceExpert):
    """weights: the file of `models.weights.WEIGHTS["fairface"]`.

    The crop is dlib's face chip with padding .25, on which it was trained: middle between the eyes at (.493, .314) of the
    chip, and .350 of its side between them.
    """

    name = "fairface"
    crop = Crop(0.0606, 0.1830, 0.8981, 0.8981, 224)
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    outputs = {
        "race": Output("distribution", len(RACES), RACES),
        "gender": Output("distribution", len(GENDERS), GENDERS),
        "age": Output("distribution", len(AGES), AGES),
    }

    def __init__(self, weights: Path, bf16: bool = False) -> None:
        net = resnet34(weights=None, num_classes=sum(output.size for output in self.outputs.values()))
        load_strictly(net, read_tensors(weights), weights)
        super().__init__(net, weights, bf16)

    def answer(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        sizes = [output.size for output in self.outputs.values()]
        parts = self.net(images).float().split(sizes, dim=1)
        return {name: part.softmax(-1) for name, part in zip(self.outputs, parts, strict=True)}
