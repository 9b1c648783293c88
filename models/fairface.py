"""FairFace: age, gender and race, each a distribution (Karkkainen & Joo, WACV 2021).

A torchvision ResNet-34 with 18 logits: race (7), gender (2), age (9).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torchvision.models import resnet34
from torchvision.models.resnet import BasicBlock

from features.regions import Crop
from models.base import IMAGENET_MEAN, IMAGENET_STD, Output, WholeFaceExpert
from models.gpu_layers import ConvNorm, Largest, replace
from models.region_net import AGE_NAMES
from models.tensors import load_strictly, read_tensors

RACES = (
    *("White", "Black", "Latino_Hispanic", "East Asian"),
    *("Southeast Asian", "Indian", "Middle Eastern"),
)
GENDERS = ("Male", "Female")


class FairFace(WholeFaceExpert):
    """Trained on dlib's face chips with padding .25: eyes at (.493, .314), .350 apart."""

    name = "fairface"
    crop = Crop(0.0606, 0.1830, 0.8981, 0.8981, 224)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    outputs = {
        "race": Output("distribution", len(RACES), RACES),
        "gender": Output("distribution", len(GENDERS), GENDERS),
        "age": Output("distribution", len(AGE_NAMES), AGE_NAMES),
    }

    def __init__(self, weights: Path, bf16: bool = False) -> None:
        net = resnet34(weights=None, num_classes=len(RACES) + len(GENDERS) + len(AGE_NAMES))
        load_strictly(net, read_tensors(weights), weights)
        super().__init__(net, weights, bf16)

    def rewritten(self) -> nn.Module:
        net = self.net
        replace(net, BasicBlock, Block)
        net.conv1, net.bn1 = ConvNorm(net.conv1, net.bn1, relu=True), nn.Identity()
        net.relu, net.maxpool = nn.Identity(), Largest(net.maxpool)
        return net

    def predict(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        sizes = [output.size for output in self.outputs.values()]
        parts = self.net(images).float().split(sizes, dim=1)
        return {name: part.softmax(-1) for name, part in zip(self.outputs, parts, strict=True)}


class Block(nn.Module):
    """A residual block of torchvision's ResNet."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.first = ConvNorm(block.conv1, block.bn1, relu=True)
        self.second = ConvNorm(block.conv2, block.bn2, relu=True)
        down = block.downsample
        self.shortcut = nn.Identity() if down is None else ConvNorm(down[0], down[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x), self.shortcut(x))
