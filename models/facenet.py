"""FaceNet identity (Schroff et al., CVPR 2015): facenet-pytorch's network, VGGFace2 weights."""

from __future__ import annotations

from pathlib import Path

import torch
from facenet_pytorch import InceptionResnetV1
from facenet_pytorch.models import inception_resnet_v1 as parts
from torch import nn
from torch.nn import functional as F

from features.regions import Crop
from models.base import Output, WholeFaceExpert
from models.gpu_layers import Affine, ConvNorm, Largest, replace, without_bias
from models.tensors import load_strictly, read_tensors


class FaceNet(WholeFaceExpert):
    """Trained on MTCNN boxes with a margin of 14 px, resized to a square of 160 px."""

    name = "facenet"
    crop = Crop.of_box(160 / 146, 160, square=False)
    mean = (0.5, 0.5, 0.5)
    std = (128 / 255, 128 / 255, 128 / 255)
    outputs = {"identity": Output("embedding", 512)}

    def __init__(self, weights: Path, bf16: bool = False) -> None:
        net = InceptionResnetV1(pretrained=None)
        # The file also holds the classifier over VGGFace2's identities.
        load_strictly(net, read_tensors(weights), weights, lambda key: key.startswith("logits."))
        super().__init__(net, weights, bf16)

    def rewritten(self) -> nn.Module:
        for kind in (parts.Block35, parts.Block17, parts.Block8):
            replace(self.net, kind, Block)
        replace(self.net, parts.BasicConv2d, lambda x: ConvNorm(x.conv, x.bn, relu=True))
        replace(self.net, nn.MaxPool2d, Largest)
        return self.net

    def predict(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"identity": F.normalize(self.net(images).float(), dim=-1)}


class Block(nn.Module):
    """A residual block of any of the three kinds: branches side by side, then a convolution."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        names = ("branch0", "branch1", "branch2")
        self.branches = nn.ModuleList(getattr(block, x) for x in names if hasattr(block, x))
        self.conv, bias = without_bias(block.conv2d)
        scale, relu = block.scale, not getattr(block, "noReLU", False)
        self.add = Affine(torch.full_like(bias, scale), scale * bias, relu)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = torch.cat([branch(x) for branch in self.branches], dim=1)
        return self.add(self.conv(found), x)
