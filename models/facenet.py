"""FaceNet identity (Schroff et al., CVPR 2015): facenet-pytorch's network, VGGFace2 weights."""

from __future__ import annotations

from pathlib import Path

import torch
from facenet_pytorch import InceptionResnetV1
from torch.nn import functional as F

from features.regions import Crop
from models.base import Output, WholeFaceExpert
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

    def predict(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"identity": F.normalize(self.run(images).float(), dim=-1)}
